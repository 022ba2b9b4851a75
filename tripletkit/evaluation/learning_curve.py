"""What more judgements would bring, from accuracies with fewer.

The accuracy on held-out triplets is measured with a quarter, a half and all of the judgements that
a draw has for training, and the same with a quarter and a half of its images. Accuracy nears its
limit as one over the root of the number: that is what the mean of n independent judgements does,
and a curve with a free power cannot be told from three points.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from tripletkit.evaluation.intervals import Interval, show_interval
from tripletkit.results import Result, Section, Table

# Gains and losses below these are nobody's matter.
_WORTH, _LOSS = 0.005, 0.01


@dataclass(frozen=True, repr=False)
class LearningCurve(Result):
    """Accuracy against the number of judgements, as limit - slope / sqrt(n).

    All intervals are Student's over draws, at 95%; None with fewer than three draws.

    Attributes:
        n_triplets: `(n_points,)` mean numbers that heads learned from, ascending.
        accuracies: `(n_points,)` mean over draws.
        intervals: `(n_points,)` of these.
        with_fewer_images: accuracy with about as many judgements as the first point, of a part
            of the images alone; None if not measured.
        fewer_interval: of that.
        limit, slope: of the fit.
        n_now: judgements that the model is trained on.
        gain: that `n_more` judgements would bring.
        interval: of the gain.
        n_more: see `gain`.
        short_of: what more of would help: `"judgements"`, `"images"`, or None where neither would.
    """

    n_triplets: tuple[float, ...]
    accuracies: tuple[float, ...]
    intervals: tuple[Interval | None, ...]
    with_fewer_images: float | None
    fewer_interval: Interval | None
    limit: float
    slope: float
    n_now: int
    n_more: int
    gain: float
    interval: Interval | None
    short_of: str | None

    @property
    def outlook(self) -> str:
        """What more judgements would bring, and what is short, in a few sentences."""
        reach = " (no interval: fewer than three draws)"
        if self.interval is not None:
            low, high = 100 * self.interval.low, 100 * self.interval.high
            reach = f" (95% interval {low:+.1f} to {high:+.1f})"
        advice = {
            None: "More of the same would hardly help.",
            "images": "What is short are images: judge other images, too.",
            "judgements": "What is short are judgements: judge more triplets, also of the same "
            "images.",
        }[self.short_of]
        return (
            f"Another {self.n_more:,} judgements beside the {self.n_now:,} would bring about "
            f"{100 * self.gain:+.1f} points{reach}. {advice}"
        )

    def accuracy_at(self, n_triplets: np.ndarray) -> np.ndarray:
        """Return the accuracy that the fit expects of so many judgements."""
        return self.limit - self.slope / np.sqrt(n_triplets)

    def to_frame(self) -> pd.DataFrame:
        """Return a table with a row for each number of judgements.

        Returns:
            The columns n_triplets, accuracy, low and high.
        """
        ends = [(np.nan, np.nan) if each is None else each.to_list() for each in self.intervals]
        frame = pd.DataFrame({"n_triplets": self.n_triplets, "accuracy": self.accuracies})
        return frame.join(pd.DataFrame(ends, columns=["low", "high"]))

    def _summary(self) -> str:
        return self.outlook

    def _sections(self) -> list[Section]:
        rows = [["learned from", "accuracy on held-out images", "95% interval over draws"]]
        points = zip(self.n_triplets, self.accuracies, self.intervals, strict=True)
        rows += [
            [f"{n:,.0f} judgements", f"{accuracy:.4f}", show_interval(interval)]
            for n, accuracy, interval in points
        ]
        if self.with_fewer_images is not None:
            fewer = f"{self.n_triplets[0]:,.0f}, over fewer images"
            interval = show_interval(self.fewer_interval)
            rows.append([fewer, f"{self.with_fewer_images:.4f}", interval])
        return [[Table(rows, right=[1]), self.outlook]]


def fit_learning_curve(
    n_triplets: np.ndarray,
    accuracies: np.ndarray,
    n_now: int,
    n_more: int = 500,
    with_fewer_images: np.ndarray | None = None,
) -> LearningCurve:
    """Fit the curve, and say what more judgements would bring.

    Args:
        n_triplets, accuracies: `(n_draws, n_points)` that heads learned from, and on the held-out
            triplets of each draw.
        n_now, n_more: judgements that the model is trained on, and to be added.
        with_fewer_images: `(n_draws,)` accuracies; see `LearningCurve`.
    Example:
        >>> n = np.array([[100, 400, 1600]])
        >>> curve = fit_learning_curve(n, 0.9 - 1 / np.sqrt(n), n_now=2500, n_more=7500)
        >>> round(curve.limit, 3), round(curve.gain, 3)   # .9 - 1/50 to .9 - 1/100
        (0.9, 0.01)
    """
    step = 1 / np.sqrt(n_now) - 1 / np.sqrt(n_now + n_more)
    of_draws = zip(n_triplets, accuracies, strict=True)
    gains = np.array([step * np.polyfit(-1 / np.sqrt(n), each, 1)[0] for n, each in of_draws])
    mean_n, mean_accuracy = n_triplets.mean(axis=0), accuracies.mean(axis=0)
    slope, limit = np.polyfit(-1 / np.sqrt(mean_n), mean_accuracy, 1)
    interval, fewer, short_of = _student_interval(gains), None, "judgements"
    if with_fewer_images is not None:
        fewer = with_fewer_images
        # As many judgements over fewer images do worse: so it is images that are learned from.
        loss = _student_interval(accuracies[:, 0] - fewer)
        is_worse = mean_accuracy[0] - fewer.mean() > _LOSS
        short_of = "images" if is_worse and (loss is None or loss.low > 0) else short_of
    return LearningCurve(
        n_triplets=tuple(mean_n.tolist()),
        accuracies=tuple(mean_accuracy.tolist()),
        intervals=tuple(_student_interval(each, within=(0, 1)) for each in accuracies.T),
        with_fewer_images=None if fewer is None else float(fewer.mean()),
        fewer_interval=None if fewer is None else _student_interval(fewer, within=(0, 1)),
        limit=float(limit),
        slope=float(slope),
        n_now=n_now,
        n_more=n_more,
        gain=float(gains.mean()),
        interval=interval,
        short_of=None if interval is not None and interval.high < _WORTH else short_of,
    )


def _student_interval(values: np.ndarray, within: tuple[float, float] = (-1, 1)) -> Interval | None:
    """Return the 95% interval of a mean over draws; None for fewer than three."""
    if len(values) < 3:
        return None
    from scipy.special import stdtrit

    reach = stdtrit(len(values) - 1, 0.975) * np.std(values, ddof=1) / np.sqrt(len(values))
    low, high = np.clip((values.mean() - reach, values.mean() + reach), *within).tolist()
    return Interval(low, high)

"""What more judgements would bring, from accuracies with fewer.

The accuracy on held-out triplets is measured with a quarter, a half and all of the judgements that
a draw has for training, and the same with a quarter and a half of its images. Accuracy nears its
limit as one over the root of the number: that is what the mean of n independent judgements does,
and a curve with a free power cannot be told from three points.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd

from tripletkit.evaluation.intervals import Interval
from tripletkit.results import Result, Section, Table

JUDGEMENTS = "judgements"
IMAGES = "images"


@dataclass(frozen=True, repr=False)
class LearningCurve(Result):
    """Accuracy against the number of judgements, as limit - slope / sqrt(n).

    Attributes:
        n_triplets: `(n_points,)` mean numbers that heads learned from, ascending.
        accuracies: `(n_points,)` mean over draws.
        with_fewer_images: accuracy with about as many judgements as the first point, of a part
            of the images alone; NaN if not measured.
        limit, slope: of the fit.
        n_now: judgements that the model is trained on.
        gain: that `n_more` judgements would bring.
        interval: 95%, of the gain; None with fewer than three draws.
        n_more: see `gain`.
    """

    n_triplets: tuple[float, ...]
    accuracies: tuple[float, ...]
    with_fewer_images: float
    limit: float
    slope: float
    n_now: int
    n_more: int
    gain: float
    interval: Interval | None

    @property
    def short_of(self) -> str | None:
        """What more of would help: `JUDGEMENTS`, `IMAGES`, or None where neither would."""
        if self.interval is not None and self.interval.high < 0.005:
            return None
        # As many judgements over fewer images do worse: so it is images that are learned from.
        if self.with_fewer_images < self.accuracies[0] - 0.01:
            return IMAGES
        return JUDGEMENTS

    @property
    def outlook(self) -> str:
        """What more judgements would bring, and what is short, in a few sentences."""
        reach = ""
        if self.interval is not None:
            reach = f" ({100 * self.interval.low:+.1f} to {100 * self.interval.high:+.1f})"
        advice = {
            None: "More of the same would hardly help.",
            IMAGES: "What is short are images: judge other images, too.",
            JUDGEMENTS: "What is short are judgements: judge more triplets, also of the same "
            "images.",
        }[self.short_of]
        return (
            f"Another {self.n_more:,} judgements beside the {self.n_now:,} would bring about "
            f"{100 * self.gain:+.1f} points{reach}. {advice}"
        )

    def accuracy_at(self, n_triplets: np.ndarray) -> np.ndarray:
        """Return the accuracy that the fit expects of so many judgements."""
        return self.limit - self.slope / np.sqrt(n_triplets)

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> LearningCurve:
        """Return what `to_dict` wrote."""
        given = {name: value[name] for name in cls.__dataclass_fields__}
        fewer, ends = given["with_fewer_images"], given["interval"]
        return cls(
            **given
            | {
                "n_triplets": tuple(given["n_triplets"]),
                "accuracies": tuple(given["accuracies"]),
                "with_fewer_images": math.nan if fewer is None else fewer,
                "interval": None if ends is None else Interval(*ends),
            }
        )

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON takes it."""
        is_known = np.isfinite(self.with_fewer_images)
        return asdict(self) | {
            "n_triplets": list(self.n_triplets),
            "accuracies": list(self.accuracies),
            "with_fewer_images": self.with_fewer_images if is_known else None,
            "interval": self.interval and self.interval.to_list(),
            "short_of": self.short_of,
        }

    def to_frame(self) -> pd.DataFrame:
        """Return a table with a row for each number of judgements.

        Returns:
            The columns n_triplets and accuracy.
        """
        return pd.DataFrame({"n_triplets": self.n_triplets, "accuracy": self.accuracies})

    def _summary(self) -> str:
        return self.outlook

    def _sections(self) -> list[Section]:
        rows = [["learned from", "accuracy on held-out images"]]
        for n, accuracy in zip(self.n_triplets, self.accuracies, strict=True):
            rows.append([f"{n:,.0f} judgements", f"{accuracy:.4f}"])
        fewer = f"{self.n_triplets[0]:,.0f}, over fewer images"
        rows.append([fewer, f"{self.with_fewer_images:.4f}"])
        return [[Table(rows, right=[1]), self.outlook]]


def fit_learning_curve(
    n_triplets: np.ndarray,
    accuracies: np.ndarray,
    n_now: int,
    n_more: int = 500,
    with_fewer_images: float = np.nan,
) -> LearningCurve:
    """Fit the curve, and say what more judgements would bring.

    Args:
        n_triplets: `(n_draws, n_points)` that heads learned from.
        accuracies: `(n_draws, n_points)` on the held-out triplets of each draw.
        n_now: judgements that the model is trained on.
        n_more: judgements to be added.
        with_fewer_images: see `LearningCurve`.
    Example:
        >>> n = np.array([[100, 400, 1600]])
        >>> curve = fit_learning_curve(n, 0.9 - 1 / np.sqrt(n), n_now=2500, n_more=7500)
        >>> round(curve.limit, 3), round(curve.gain, 3)   # .9 - 1/50 to .9 - 1/100
        (0.9, 0.01)
    """
    gains = [
        _fit(n, accuracy, n_now, n_more) for n, accuracy in zip(n_triplets, accuracies, strict=True)
    ]
    mean_n, mean_accuracy = n_triplets.mean(axis=0), accuracies.mean(axis=0)
    slope, limit = np.polyfit(-1 / np.sqrt(mean_n), mean_accuracy, 1)
    interval = None
    if len(gains) >= 3:
        from scipy.special import stdtrit

        reach = stdtrit(len(gains) - 1, 0.975) * np.std(gains, ddof=1) / np.sqrt(len(gains))
        interval = Interval(float(np.mean(gains) - reach), float(np.mean(gains) + reach))
    return LearningCurve(
        tuple(mean_n.tolist()),
        tuple(mean_accuracy.tolist()),
        float(with_fewer_images),
        float(limit),
        float(slope),
        n_now,
        n_more,
        float(np.mean(gains)),
        interval,
    )


def _fit(n: np.ndarray, accuracy: np.ndarray, n_now: int, n_more: int) -> float:
    """Return the gain that one draw speaks for."""
    slope, _ = np.polyfit(-1 / np.sqrt(n), accuracy, 1)
    return float(slope * (1 / np.sqrt(n_now) - 1 / np.sqrt(n_now + n_more)))

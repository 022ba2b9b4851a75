"""Accuracy over the held-out triplets of many draws, with an interval that respects both sides.

A triplet may be held out in several draws, and an image is in many triplets; what the heads of
one draw have learned from is shared by all that they answer. The interval takes all of it into
account: images go together as in `image_interval`, also across draws, and the spread between
the draws is added.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from tripletkit.evaluation.intervals import Interval, image_interval, show_interval
from tripletkit.evaluation.scoring import OddOneOut
from tripletkit.results import Result, Section, Table


@dataclass(frozen=True, repr=False)
class PooledScore(Result):
    """What held-out draws say of a model.

    Attributes:
        accuracy: 0 to 1; every image counts alike, however many triplets it is in.
        interval: 95%; None where nothing can be said: with every answer right, or too few images.
        of_test: what 95% of tests would show, each over as many other images as this score is; None
            with the interval.
        n_triplets: distinct ones that were held out.
        n_answers: held-out triplets over all draws.
        n_images: of held-out triplets.
        of_draws: the accuracy of each draw, every triplet alike.
        odd_one_out: how often the odd one of three was found, where there are such trials.
    """

    accuracy: float
    interval: Interval | None
    of_test: Interval | None
    n_triplets: int
    n_answers: int
    n_images: int
    of_draws: tuple[float, ...]
    odd_one_out: OddOneOut | None = None

    @classmethod
    def of(
        cls,
        right: np.ndarray,
        images: np.ndarray,
        draws: np.ndarray,
        trials: np.ndarray | None = None,
    ) -> PooledScore:
        """Score held-out answers, each 1 where right, 0 where not, a half for a tie."""
        right = np.asarray(right, dtype=np.float64)
        accuracy, of_images, of_training, of_draws = _measure(right, images, draws, (0.0, 1.0))
        interval = of_test = None
        if of_images is not None:
            interval = _widen(accuracy, of_images, 1.0, of_training, (0.0, 1.0))
            # The images of a test are a sample, too.
            of_test = _widen(accuracy, of_images, np.sqrt(2), of_training, (0.0, 1.0))
        if trials is not None:
            # Of every draw a trial of its own.
            trials = np.where(trials > 0, trials + draws * (int(trials.max(initial=0)) + 1), 0)
        return cls(
            accuracy,
            interval,
            of_test,
            len(np.unique(images, axis=0)),
            len(right),
            len(np.unique(images)),
            of_draws,
            OddOneOut.of(right, images, trials),
        )

    def _summary(self) -> str:
        reach = f" (95% interval {self.interval})" if self.interval else ""
        return f"accuracy {self.accuracy:.4f}{reach}, {self.n_answers:,} answers"

    def _sections(self) -> list[Section]:
        return [[Table([_HEADING, self._row("held-out images")], right=[1, 3])]]

    def _row(self, name: str) -> list[str]:
        return [name, f"{self.accuracy:.4f}", show_interval(self.interval), f"{self.n_answers:,}"]


_HEADING = ["held-out images", "accuracy", "95% interval", "answers"]


@dataclass(frozen=True)
class CandidateWorth:
    """What held-out draws say of one part that an ensemble could have.

    Attributes:
        weight: of its margins in the ensemble, in units of their spread; over all candidates 1.
        without: accuracy of the ensemble that is chosen without it; None for the only one.
    """

    name: str
    score: PooledScore
    weight: float
    without: float | None


@dataclass(frozen=True)
class RecipeWorth:
    """What held-out draws say of one recipe, or of `"frozen"` features, that could be taken.

    Attributes:
        behind: by how much the best of them is righter, 0 to 1; with its 95% interval.
        is_taken: it is the simplest within one standard error of the best of them.
    """

    name: str
    score: PooledScore
    behind: float
    interval: Interval | None
    is_taken: bool


@dataclass(frozen=True)
class BetterRecipe:
    """Another recipe, whose held-out answers are surely righter by `lead`, 0 to 1."""

    name: str
    lead: float
    interval: Interval

    def __str__(self) -> str:
        what = "A linear map of the features" if self.name == "map" else "The frozen features"
        low, high = 100 * self.interval.low, 100 * self.interval.high
        return (
            f"{what}: {100 * self.lead:.1f} points more of the held-out answers are right (95% "
            f"interval {low:.1f} to {high:.1f}). Try `recipe={self.name}`."
        )


@dataclass(frozen=True, repr=False)
class PooledValidation(Result):
    """What held-out draws say of a model, and of what it must be compared with.

    Attributes:
        trained: of models that were trained, and chosen, without the images of the answers.
        frozen: of all features without training, by cosine.
        n_draws, n_rounds: held-out draws, and whole rounds of them.
        by: what was held out; see `data.splits.draws`.
        seconds_s: that the draws took.
        candidates: each one's worth, where an ensemble was chosen.
        recipes: each one's worth, where a recipe was taken.
        map: of a linear map of the features, trained on the same; None where it is a candidate.
        better: another recipe to try; None where none surely is better.
        epoch: the epoch that was best of `n_epochs`, where one was chosen.
        n_tried: ways of training that the choice was among: steps, losses, shares or epochs.
    """

    trained: PooledScore
    frozen: PooledScore
    n_draws: int
    n_rounds: int
    by: str
    seconds_s: float
    candidates: tuple[CandidateWorth, ...] = ()
    recipes: tuple[RecipeWorth, ...] = ()
    map: PooledScore | None = None
    better: BetterRecipe | None = None
    epoch: int | None = None
    n_epochs: int | None = None
    n_tried: int = 1

    def _summary(self) -> str:
        return f"{self.trained._summary()}; frozen features {self.frozen.accuracy:.4f}"

    def _sections(self) -> list[Section]:
        score = self.trained
        rows = [
            _HEADING,
            score._row("trained without them"),
            self.frozen._row("frozen features, cosine"),
        ]
        if self.map is not None:
            rows.append(self.map._row("linear map of them"))
        notes: list[Table | str] = [
            Table(rows, right=[1, 3]),
            f"{self.n_draws} draws of {self.by}, a third held out in each: {score.n_triplets:,} "
            f"triplets over {score.n_images:,} images, every image counted alike. The interval "
            "allows for shared images and shared training.",
        ]
        if score.of_test is not None:
            notes.append(
                "A test over as many other images of the same kind, itself a sample, would show "
                f"{score.of_test} in 95 of 100 cases."
            )
        if score.odd_one_out is not None:
            rows = [score.odd_one_out.describe()]
            if self.frozen.odd_one_out is not None:
                rows.append(["  frozen features", *self.frozen.odd_one_out.describe()[1:]])
            notes.append(Table(rows, has_heading=False))
        if self.epoch is not None:
            notes.append(
                f"Best after epoch {self.epoch} of {self.n_epochs}. The model in the folder was "
                "trained on all triplets, as long in proportion."
            )
        if self.n_tried > 1 and self.epoch is None:
            notes.append(
                f"Chosen among {self.n_tried} heads, losses and numbers of steps, never by the "
                "answers that the accuracy is of."
            )
        if self.better is not None:
            notes.append(str(self.better))
        if self.recipes:
            notes += ["", *_show_recipes(self.recipes)]
        if self.candidates:
            notes += ["", _show_candidates(self.candidates)]
        return [notes]


def _show_recipes(recipes: tuple[RecipeWorth, ...]) -> list[Table | str]:
    rows = [["recipe", "accuracy", "95% interval", "behind the best", "95% interval"]]
    rows += [
        [
            worth.name,
            f"{worth.score.accuracy:.4f}",
            show_interval(worth.score.interval),
            f"{worth.behind:.4f}",
            show_interval(worth.interval),
        ]
        for worth in recipes
    ]
    (taken,) = (worth.name for worth in recipes if worth.is_taken)
    note = f"Taken: {taken}, the simplest within one standard error of the best of them."
    return [Table(rows, right=[1, 3]), note]


def _show_candidates(candidates: tuple[CandidateWorth, ...]) -> Table:
    rows = [["part", "weight", "alone", "95% interval", "all others"]]
    rows += [
        [
            worth.name,
            f"{worth.weight:.3f}",
            f"{worth.score.accuracy:.4f}",
            show_interval(worth.score.interval),
            "-" if worth.without is None else f"{worth.without:.4f}",
        ]
        for worth in sorted(candidates, key=lambda worth: -worth.weight)
    ]
    return Table(rows, right=[1, 2, 4])


def compare_pooled(
    one: np.ndarray, other: np.ndarray, images: np.ndarray, draws: np.ndarray
) -> tuple[float, Interval | None]:
    """Return by how much one model's answers are righter than another's, with a 95% interval."""
    difference = np.subtract(one, other, dtype=np.float64)
    mean, of_images, of_training, _ = _measure(difference, images, draws, (-1.0, 1.0))
    if of_images is None:
        return mean, None
    return mean, _widen(mean, of_images, 1.0, of_training, (-1.0, 1.0))


def _measure(
    values: np.ndarray, images: np.ndarray, draws: np.ndarray, bounds: tuple[float, float]
) -> tuple[float, Interval | None, float, tuple[float, ...]]:
    """Return mean, images alike; its interval by images; what draws add to it; means of draws."""
    weights = weigh_images_alike(images)
    # Weights sum to 1 within rounding alone.
    mean = float(np.clip(weights @ values, values.min(), values.max()))
    # A weighted mean is that of these.
    spread_out = mean + (values - mean) * weights * len(values)
    of_images = image_interval(
        spread_out,
        images,
        bounds=(min(spread_out.min(), bounds[0]), max(spread_out.max(), bounds[1])),
    )
    of_draws = tuple(float(values[draws == number].mean()) for number in np.unique(draws))
    spread = np.std(of_draws, ddof=1) if len(of_draws) > 1 else 0.0
    reach = float(1.96 * spread / np.sqrt(len(of_draws)))
    return mean, of_images if isinstance(of_images, Interval) else None, reach, of_draws


def _widen(
    mean: float, of_images: Interval, factor: float, further: float, bounds: tuple[float, float]
) -> Interval:
    """Return an interval by so much wider, and by an independent error of the mean."""
    low, high = (
        np.hypot(factor * (end - mean), further) for end in (of_images.low, of_images.high)
    )
    return Interval(float(max(bounds[0], mean - low)), float(min(bounds[1], mean + high)))


def weigh_images_alike(images: np.ndarray) -> np.ndarray:
    """Return `(n,)` weights of triplets, of sum 1, so that images count alike. A triplet gets from
    each of its three images an equal part of what the image has to give."""
    _, places, counts = np.unique(images, return_inverse=True, return_counts=True)
    weights = (1 / counts[places.reshape(images.shape)]).sum(axis=1)
    return weights / weights.sum()


# Gains and losses below these are nobody's matter.
_WORTH, _LOSS = 0.005, 0.01


@dataclass(frozen=True, repr=False)
class LearningCurve(Result):
    """Accuracy against the number of judgements, as limit - slope / sqrt(n).

    It is measured with a quarter, a half and all of the judgements that a draw has for training,
    and with a part of its images. That is what the mean of n independent judgements does, and a
    curve with a free power cannot be told from three points. Intervals are Student's over draws, at
    95%; None with fewer than three draws.

    Attributes:
        n_triplets, accuracies, intervals: `(n_points,)` mean numbers that heads learned from,
            ascending, and means over draws.
        with_fewer_images, fewer_interval: accuracy with about as many judgements as the first
            point, of a part of the images alone; None if not measured.
        n_now: judgements that the model is trained on.
        gain, interval: what `n_more` judgements would bring.
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

    @classmethod
    def fit(
        cls,
        n_triplets: np.ndarray,
        accuracies: np.ndarray,
        n_now: int,
        n_more: int = 500,
        with_fewer_images: np.ndarray | None = None,
    ) -> LearningCurve:
        """Fit the curve to `(n_draws, n_points)` numbers of judgements and accuracies."""
        step = 1 / np.sqrt(n_now) - 1 / np.sqrt(n_now + n_more)
        of_draws = zip(n_triplets, accuracies, strict=True)
        gains = np.array([step * np.polyfit(-1 / np.sqrt(n), each, 1)[0] for n, each in of_draws])
        mean_n, mean_accuracy = n_triplets.mean(axis=0), accuracies.mean(axis=0)
        slope, limit = np.polyfit(-1 / np.sqrt(mean_n), mean_accuracy, 1)
        interval, fewer, short_of = _student_interval(gains), with_fewer_images, "judgements"
        if fewer is not None:
            # As many judgements over fewer images do worse: so it is images that are learned from.
            loss = _student_interval(accuracies[:, 0] - fewer)
            is_worse = mean_accuracy[0] - fewer.mean() > _LOSS
            short_of = "images" if is_worse and (loss is None or loss.low > 0) else short_of
        return cls(
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


def _student_interval(values: np.ndarray, within: tuple[float, float] = (-1, 1)) -> Interval | None:
    """Return the 95% interval of a mean over draws; None for fewer than three."""
    if len(values) < 3:
        return None
    from scipy.special import stdtrit

    reach = stdtrit(len(values) - 1, 0.975) * np.std(values, ddof=1) / np.sqrt(len(values))
    low, high = np.clip((values.mean() - reach, values.mean() + reach), *within).tolist()
    return Interval(low, high)

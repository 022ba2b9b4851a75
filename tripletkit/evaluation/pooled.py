"""Accuracy over the held-out triplets of many draws, with an interval that respects both sides.

A triplet may be held out in several draws, and an image is in many triplets; what the heads of
one draw have learned from is shared by all that they answer. The interval takes all of it into
account: images go together as in `image_interval`, also across draws, and the spread between
the draws is added.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace

import numpy as np

from tripletkit.data.judgements import Judgements, find_questions
from tripletkit.data.triplets import Triplets
from tripletkit.data.votes import Votes
from tripletkit.errors import AnswerFileError
from tripletkit.evaluation.answer_checks import check_same_length
from tripletkit.evaluation.answers import Answers
from tripletkit.evaluation.intervals import Interval, image_interval, show_interval
from tripletkit.evaluation.scoring import OddOneOut, score_odd_one_out
from tripletkit.results import Result, Section, Table


@dataclass(frozen=True, repr=False)
class PooledScore(Result):
    """What held-out draws say of a model.

    Attributes:
        accuracy: 0 to 1; every image counts alike, however many triplets it is in.
        interval: 95%; None where nothing can be said: with every answer right, or too few images.
        of_test: what 95% of tests would show, each over as many other images as this score is;
            None with the interval.
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
        name: its features and its head.
        score: of it alone.
        weight: of its margins in the ensemble, in units of their spread; over all candidates
            their sum is 1.
        without: accuracy of the ensemble that is chosen without it; None for the only one.
    """

    name: str
    score: PooledScore
    weight: float
    without: float | None


@dataclass(frozen=True)
class RecipeWorth:
    """What held-out draws say of one recipe that could be taken.

    Attributes:
        name: of the recipe; `"frozen"` for the features as they are.
        score: of it.
        behind: by how much the best of them is righter, 0 to 1.
        interval: 95% of that; None for too few images.
        is_taken: it is the simplest within one standard error of the best of them.
    """

    name: str
    score: PooledScore
    behind: float
    interval: Interval | None
    is_taken: bool


@dataclass(frozen=True)
class BetterRecipe:
    """Another recipe, whose held-out answers are surely righter.

    Attributes:
        name: of the recipe.
        lead: by how much, 0 to 1.
        interval: 95% of that, above 0.
    """

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


def score_pooled(
    right: np.ndarray, images: np.ndarray, draws: np.ndarray, trials: np.ndarray | None = None
) -> PooledScore:
    """Score the answers to held-out triplets of several draws.

    Args:
        right: `(n,)` 1 where the answer is right, 0 where not, a half for a tie.
        images: `(n, 3)` indices of the triplets.
        draws: `(n,)` the draw of each.
        trials: `(n,)` the trial of each; see `Triplets`.
    Example:
        >>> images = np.arange(12).reshape(4, 3)
        >>> score_pooled(np.array([1, 1, 0, 1]), images, np.array([0, 0, 1, 1])).accuracy
        0.75
    """
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
    return PooledScore(
        accuracy,
        interval,
        of_test,
        len(np.unique(images, axis=0)),
        len(right),
        len(np.unique(images)),
        of_draws,
        score_odd_one_out(right, images, trials),
    )


def compare_pooled(
    one: np.ndarray, other: np.ndarray, images: np.ndarray, draws: np.ndarray
) -> tuple[float, Interval | None]:
    """Return by how much one model's answers are righter than another's, with a 95% interval.

    All are as `score_pooled` takes them.

    Example:
        >>> images = np.arange(12).reshape(4, 3)
        >>> compare_pooled(np.ones(4), np.array([1, 1, 0, 1]), images, np.array([0, 0, 1, 1]))[0]
        0.25
    """
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
    """Return `(n,)` weights of triplets, of sum 1, so that images count alike.

    A triplet gets from each of its three images an equal part of what the image has to give.

    Example:
        >>> weigh_images_alike(np.array([[0, 1, 2], [0, 1, 2], [3, 4, 5]])).tolist()
        [0.25, 0.25, 0.5]
    """
    _, places, counts = np.unique(images, return_inverse=True, return_counts=True)
    weights = (1 / counts[places.reshape(images.shape)]).sum(axis=1)
    return weights / weights.sum()


logger = logging.getLogger("tripletkit")


def take_random_share(
    answers: Answers, triplets: Triplets | None, database: Judgements
) -> tuple[Answers, np.ndarray, Votes, np.ndarray]:
    """Return the answers to questions of the random share, what most judges said, votes, weights.

    Answers that do not hold their questions are taken for those of `predict` on the database.
    """
    judgements, source = database.decided(), database.source
    votes, is_random, weights = judgements.votes, judgements.is_random, judgements.weights
    if votes is None or is_random is None or weights is None:
        raise AnswerFileError(f"{source}: expected questions drawn by chance, there is none")
    asked = answers.triplets or triplets
    if asked is None:
        check_same_length(answers, len(judgements), source)
        asked = judgements.triplets
    answers = replace(answers, triplets=asked)
    found, is_turned = find_questions(asked, judgements)
    is_scored = (found >= 0) & is_random[found]
    if not is_scored.any():
        raise AnswerFileError(
            f"{answers.source}: expected answers to questions that {source} drew by chance, "
            "got none. `tripletkit predict` answers those of the database."
        )
    logger.info(
        "Scored on the random share alone: %s of %s answers. Questions that a model chose are "
        "those it found hard: a score on them would be too low.",
        f"{int(is_scored.sum()):,}",
        f"{len(answers):,}",
    )
    labels = (~is_turned[is_scored]).astype(np.int8)
    asked_votes = votes.take(found[is_scored]).turn(is_turned[is_scored])
    return answers.take(is_scored), labels, asked_votes, weights[found[is_scored]]

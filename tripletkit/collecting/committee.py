"""What is learned from the answers so far: a committee, and how accurate its members are.

Accuracy is measured on the random share alone: questions that a model chose are those it finds
hard, so a score on them is too low, and a score on those that it was sure of is too high. Those
drawn by chance are weighted by the inverse of their probability.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from tripletkit import defaults
from tripletkit.collecting.choosing import (
    Answerability,
    Committee,
    choose_questions,
    draw_grids,
    draw_questions,
    fit_temperature,
    keep_new,
    measure_nearness,
)
from tripletkit.data.judgement_files import (
    CANT_TELL,
    GRID,
    read_answers_given,
    read_shown_questions,
)
from tripletkit.data.judgements import Judgements, open_judgements
from tripletkit.data.votes import Votes, make_loss_weights
from tripletkit.evaluation.distances import triplet_margins
from tripletkit.evaluation.intervals import Interval, effective_count, wilson_interval
from tripletkit.features.unit_length import scale_to_unit_length
from tripletkit.model.settings import HeadSettings
from tripletkit.progress import Progress, no_progress
from tripletkit.training.part_training import MapSettings, PartFeatures, train_map

COMMITTEE_MEMBERS = 5

# Trains on rows of the judgements and returns embeddings, and how to compare them.
Train = Callable[[np.ndarray], tuple[np.ndarray, str]]

N_FOLDS = 3
SHARES = (0.25, 0.5, 1.0)
MIN_RANDOM = 30
MORE_ANSWERS = 200
# Decided questions below which there is nothing to learn from.
_FEWEST_ANSWERS = 10


# Held nearer to the features than maps of many triplets are: judges err. And what maps compare by.
_SETTINGS = MapSettings(("hinge",), hold=0.05)
_DISTANCE = "cosine"
# Candidates for each anchor that questions are chosen for.
_EACH_ANCHOR = 40


@dataclass(frozen=True)
class Drawn:
    """A question or grid drawn by chance.

    Attributes:
        images: numbers: the anchor, and the others from left to right.
        probability: of a question, to be drawn whichever way round.
        near: of a grid, the images that were drawn among the nearest.
        n_images: that a grid was drawn from.
    """

    images: list[int]
    probability: float = 1.0
    near: list[int] = field(default_factory=list)
    n_images: int = 0


@dataclass(frozen=True)
class TrainerTask:
    """What the training process needs to know; it must be picklable.

    Attributes:
        database: path of the database.
        numbers: image name -> its number, of the images that can be shown.
        make_features: told how far it is, returns `(n_images, n_features)` float32 in the order
            of `numbers`, NaN where an image has none; a function of a module.
        way: how to choose; `random` trains for the learning curve alone.
        seed: start of everything by chance.
        grid_of: images of a grid; 0 where questions are shown.
    """

    database: Path
    numbers: dict[str, int]
    make_features: Callable[[Progress], np.ndarray]
    way: str
    seed: int = defaults.SEED
    grid_of: int = 0


def split_members(
    embeddings: np.ndarray, settings: HeadSettings, n_features: int
) -> list[np.ndarray]:
    """Return the embeddings of each member of a model, for comparing them with one another.

    The members stand side by side in an embedding, behind the frozen features where these have a
    share, which then every member gets too.

    Args:
        embeddings: `(n_images, n_dims)` of the model.
        settings: of the model.
        n_features: width of the features.
    Returns:
        One array a member; the embeddings alone where they cannot be told apart.
    """
    n_frozen = n_features if settings.frozen_share else 0
    # Members of other widths, or compressed together, cannot be told apart.
    if settings.members < 2 or settings.mlp_members or settings.is_compressed:
        return [embeddings]
    width = (embeddings.shape[1] - n_frozen) // settings.members
    frozen = embeddings[:, :n_frozen]
    of_members = embeddings[:, n_frozen:]
    # Each member as long as all were, so that the frozen share weighs the same.
    return [
        np.hstack([frozen, of_members[:, start : start + width] * settings.members**0.5])
        for start in range(0, settings.members * width, width)
    ]


def train_committee(
    features: np.ndarray,
    rows: np.ndarray,
    votes: Votes,
    *,
    n_members: int = COMMITTEE_MEMBERS,
    seed: int = defaults.SEED,
) -> Committee:
    """Train linear maps that differ in the answers that each sees most of."""
    is_open = votes.is_tie
    rows, votes = rows[~is_open], votes.take(~is_open)
    rng = np.random.default_rng(seed)
    is_usable = np.isfinite(features).all(axis=1)
    features = np.where(is_usable[:, None], features, 0)
    seen = PartFeatures.of(features, np.flatnonzero(is_usable), is_standardised=False)
    every = np.arange(len(rows))
    embeddings, margins = [], np.full((n_members, len(rows)), np.nan)
    for member in range(n_members):
        # A bootstrap sample for each, so that they differ where answers are few.
        drawn = rng.integers(0, len(rows), len(rows)) if n_members > 1 else every
        weights = make_loss_weights(votes.take(drawn), "weight")
        ((directions, step),) = train_map(seen, rows[drawn], _SETTINGS, weights)
        embedding = scale_to_unit_length(seen.scaled + (seen.scaled @ directions) @ step)
        embedding[~is_usable] = np.nan
        embeddings.append(embedding)
        known = np.setdiff1d(every, drawn) if n_members > 1 else every
        margins[member, known] = triplet_margins(embedding, rows[known], _DISTANCE)
    is_known = ~np.isnan(margins).all(axis=0)
    of_known = np.nanmean(margins[:, is_known], axis=0)
    temperature = fit_temperature(of_known, votes.take(is_known).share)
    return Committee(embeddings, _DISTANCE, temperature)


@dataclass(frozen=True)
class CurvePoint:
    """One point of the curve.

    Attributes:
        n_questions: answered questions that were learned from, on average over the folds.
        accuracy: on questions of the random share that were not, weighted.
        interval: 95%, Wilson's for as many rows of equal weight.
    """

    n_questions: int
    accuracy: float
    interval: Interval


@dataclass(frozen=True)
class CommitteeCurve:
    """Accuracy against the number of questions, and the margins that it was measured by.

    Attributes:
        points: from few questions to all.
        margins: `(n,)` of all random questions by heads that had not seen them, trained on all
            others; positive where the head is right.
        questions: `(n,)` their rows in the judgements.
    """

    points: list[CurvePoint]
    margins: np.ndarray
    questions: np.ndarray

    def after(self, n_more: int = MORE_ANSWERS) -> float | None:
        """Return the accuracy to expect after so many more answers; None if nothing tells.

        The error is taken to fall by a power of the number of answers, as errors of classifiers
        mostly do; the power is fitted to the points, and never above 1.

        Reference:
            Cortes, Jackel, Solla, Vapnik, Denker. Learning curves: asymptotic values and rate of
            convergence. NIPS 1993.
        """
        errors = np.array([1 - point.accuracy for point in self.points])
        sizes = np.array([point.n_questions for point in self.points], dtype=np.float64)
        if len(sizes) < 2 or (errors <= 0).any() or (np.diff(sizes) <= 0).any():
            return None
        power = np.polyfit(np.log(sizes), np.log(errors), 1)[0]
        power = float(np.clip(power, -1.0, 0.0))
        return float(1 - errors[-1] * ((sizes[-1] + n_more) / sizes[-1]) ** power)


def measure_curve(
    judgements: Judgements,
    train: Train,
    seed: int,
    shares: Sequence[float] = SHARES,
    progress: Progress = no_progress,
) -> CommitteeCurve | None:
    """Measure the accuracy after parts of the answers and after all, by cross-validation.

    The random share is parted; each part is asked of heads trained on all other answers, or on
    so much of them. An image may be in both, as it is when new questions are about the same
    images.
    """
    rng = np.random.default_rng(seed)
    random_rows = np.flatnonzero(judgements.is_random)
    if len(random_rows) < MIN_RANDOM:
        return None
    parts = np.array_split(rng.permutation(random_rows), N_FOLDS)
    weights = judgements.weights
    n_alike = effective_count(weights[random_rows])
    n_right = np.zeros(len(shares))
    n_learned = np.zeros(len(shares))
    margins = np.zeros(len(judgements))
    for n_before, part in enumerate(parts):
        others = rng.permutation(np.setdiff1d(np.arange(len(judgements)), part))
        for place, share in enumerate(shares):
            learned = others[: max(10, round(share * len(others)))]
            embeddings, distance = train(learned)
            found = triplet_margins(embeddings, judgements.triplets.rows[part], distance)
            n_right[place] += np.sum(weights[part] * (found > 0))
            n_learned[place] += len(learned) / N_FOLDS
            margins[part] = found
            progress(n_before * len(shares) + place + 1, len(parts) * len(shares))
    shares_right = n_right / weights[random_rows].sum()
    points = [
        CurvePoint(round(learned), float(right), wilson_interval(right * n_alike, n_alike))
        for learned, right in zip(n_learned, shares_right, strict=True)
    ]
    return CommitteeCurve(points, margins[random_rows], random_rows)


def draw_by_chance(
    task: TrainerTask, features: np.ndarray, n: int, rng: np.random.Generator
) -> list[Drawn]:
    """Draw questions, or grids, by chance; see `draw_questions` and `draw_grids`."""
    usable = np.flatnonzero(np.isfinite(features[:, 0]))
    numbers = np.array(list(task.numbers.values()))[usable]
    if len(usable) <= max(2, task.grid_of):
        return []
    rounds = [rng.permutation(len(usable)) for _ in range(-(-n // len(usable)))]
    anchors = np.concatenate(rounds)[:n]
    if task.grid_of:
        return [
            Drawn(numbers[images].tolist(), near=numbers[near].tolist(), n_images=len(usable))
            for images, near in draw_grids(features[usable], anchors, task.grid_of, rng)
        ]
    rows, probability = draw_questions(features[usable], anchors, 1, rng)
    order = rng.permutation(n)
    return [Drawn(numbers[rows[k]].tolist(), float(probability[k])) for k in order]


def choose_next(task: TrainerTask, features: np.ndarray, n_answers: int) -> dict[str, Any] | None:
    """Train on what the database holds and choose the next questions."""
    judgements = _read_usable(task, features)
    if len(judgements) < _FEWEST_ANSWERS:
        return None
    about = {"n_questions": len(judgements), "way": task.way}
    if task.way == "random":
        return {"about": about, "questions": []}
    rows, seed = judgements.triplets.rows, task.seed + n_answers
    committee = train_committee(features, rows, judgements.votes, seed=seed)
    rng = np.random.default_rng(seed)
    usable = np.flatnonzero(np.isfinite(features[:, 0]))
    anchors = rng.permutation(len(usable))[: defaults.CHOICE_CANDIDATES // _EACH_ANCHOR]
    drawn, _ = draw_questions(
        features[usable], anchors, defaults.CHOICE_CANDIDATES // len(anchors), rng
    )
    candidates = keep_new(usable[drawn], np.concatenate([rows, _find_shown(task)]))
    answered_of = _learn_answerability(task, features, committee)
    choice = choose_questions(
        committee,
        candidates,
        defaults.CHOSEN_BATCH,
        task.way,
        max_per_image=defaults.MAX_PER_IMAGE,
        answerable=answered_of.chance(measure_nearness(features, committee, candidates)),
    )
    numbers = np.array(list(task.numbers.values()))
    questions = [
        {
            "anchor": int(anchor),
            "first": int(first),
            "second": int(second),
            "how": task.way,
            "score": float(score),
            "expected": float(expected),
        }
        for (anchor, first, second), score, expected in zip(
            numbers[choice.rows], choice.scores, choice.expected, strict=True
        )
    ]
    about |= {"temperature": committee.temperature, "answered": answered_of.usual}
    return {"about": about, "questions": questions}


def measure_model(
    task: TrainerTask, features: np.ndarray, n_answers: int, progress: Progress = no_progress
) -> dict[str, Any]:
    """Return the learning curve and the hardest questions, as plain JSON values."""
    judgements, seed = _read_usable(task, features), task.seed + n_answers
    curve = measure_curve(
        judgements,
        lambda learned: _train_one(features, judgements, learned, seed),
        seed,
        progress=progress,
    )
    if curve is None:
        return {"n_random": int(judgements.is_random.sum())}
    return describe_curve(curve) | {"hardest": _find_hardest(judgements, curve, task)}


def _learn_answerability(
    task: TrainerTask, features: np.ndarray, committee: Committee
) -> Answerability:
    place_of = {name: place for place, name in enumerate(task.numbers)}
    answers = [answer for answer in read_answers_given(task.database) if answer.side != GRID]
    places = [[place_of.get(name, -1) for name in answer.triplet] for answer in answers]
    rows = np.array(places, dtype=np.int64).reshape(-1, 3)
    was_answered = np.array([answer.choice != CANT_TELL for answer in answers], dtype=bool)
    is_usable = (rows >= 0).all(axis=1) & np.isfinite(features[rows, 0]).all(axis=1)
    rows, was_answered = rows[is_usable], was_answered[is_usable]
    return Answerability.fit(measure_nearness(features, committee, rows), was_answered)


def describe_curve(curve: CommitteeCurve) -> dict[str, Any]:
    """Return a learning curve as plain JSON values."""
    return {
        "curve": [
            {
                "n_questions": point.n_questions,
                "accuracy": point.accuracy,
                "low": point.interval.low,
                "high": point.interval.high,
            }
            for point in curve.points
        ],
        "n_random": len(curve.questions),
        "more": MORE_ANSWERS,
        "after_more": curve.after(),
    }


def _train_one(
    features: np.ndarray, judgements: Judgements, learned: np.ndarray, seed: int
) -> tuple[np.ndarray, str]:
    part = judgements.take(learned)
    committee = train_committee(features, part.triplets.rows, part.votes, n_members=1, seed=seed)
    return committee.embeddings[0], committee.distance


def _read_usable(task: TrainerTask, features: np.ndarray) -> Judgements:
    """Return decided judgements over rows of the features instead of their own names."""
    judgements = open_judgements(task.database)
    place_of = {name: place for place, name in enumerate(task.numbers)}
    places = np.array([place_of.get(name, -1) for name in judgements.triplets.names])
    rows = places[judgements.triplets.rows]
    is_usable = (rows >= 0).all(axis=1) & np.isfinite(features[rows, 0]).all(axis=1)
    triplets = replace(judgements.triplets, names=list(place_of), rows=rows.astype(np.int32))
    return replace(judgements, triplets=triplets).take(is_usable).decided()


def _find_shown(task: TrainerTask) -> np.ndarray:
    """Return rows of the questions that judges were shown, those that nobody could tell, too."""
    place_of = {number: place for place, number in enumerate(task.numbers.values())}
    shown = read_shown_questions(task.database)
    places = [[place_of.get(number, -1) for number in row] for row in shown]
    rows = np.array(places, dtype=np.int64).reshape(-1, 3)
    return rows[(rows >= 0).all(axis=1)]


def _find_hardest(
    judgements: Judgements, curve: CommitteeCurve, task: TrainerTask, n: int = 12
) -> list[dict[str, Any]]:
    """Return the random questions that heads get most wrong, as numbers of images."""
    numbers = np.array(list(task.numbers.values()))
    order = np.argsort(curve.margins)[:n]
    return [
        {
            "anchor": int(anchor),
            "chosen": int(chosen),
            "other": int(other),
            "margin": float(curve.margins[place]),
            "votes": [float(v) for v in (votes.for_first[0], votes.for_second[0])],
        }
        for place in order
        if curve.margins[place] < 0
        for row in [curve.questions[place]]
        for anchor, chosen, other in [numbers[judgements.triplets.rows[row]]]
        for votes in [judgements.votes.take(np.array([row]))]
    ]

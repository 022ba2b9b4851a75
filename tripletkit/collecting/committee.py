"""What is learned from the answers so far: a committee of heads, and how accurate heads are.

Accuracy is measured on the random share alone: questions that a model chose are those it finds
hard, so a score on them is too low, and a score on those that it was sure of is too high.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from tripletkit import defaults
from tripletkit.collecting.choosing import (
    Committee,
    choose_questions,
    draw_candidates,
    fit_temperature,
)
from tripletkit.data.judgement_files import read_shown_questions
from tripletkit.data.judgements import Judgements, open_judgements
from tripletkit.data.votes import Votes, make_loss_weights
from tripletkit.evaluation.distances import triplet_margins
from tripletkit.evaluation.intervals import Interval, wilson_interval
from tripletkit.model.settings import HeadSettings

# Trains on rows of the judgements and returns embeddings, and how to compare them.
Train = Callable[[np.ndarray], tuple[np.ndarray, str]]

N_FOLDS = 3
SHARES = (0.25, 0.5, 1.0)
MIN_RANDOM = 30
MORE_ANSWERS = 200
# Decided questions below which there is nothing to learn from.
_FEWEST_ANSWERS = 10


@dataclass(frozen=True)
class TrainerTask:
    """What the training process needs to know; it must be picklable.

    Attributes:
        database: path of the database.
        numbers: image name -> its number, of the images that can be shown.
        make_features: returns `(n_images, n_features)` float32 in the order of `numbers`, NaN
            where an image has none; a function of a module.
        way: how to choose; `random` trains for the learning curve alone.
        seed: start of everything by chance.
    """

    database: Path
    numbers: dict[str, int]
    make_features: Callable[[], np.ndarray]
    way: str
    seed: int = defaults.SEED


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
    n_members: int = defaults.COMMITTEE_MEMBERS,
    seed: int = defaults.SEED,
    temperature: float | None = None,
) -> Committee:
    """Train heads that differ in seed and in the answers that each sees most of.

    Args:
        features: `(n_images, n_features)` float32.
        rows: `(n_questions, 3)`: anchor, what most judges chose, the other.
        votes: on these rows.
        n_members: how many heads.
        seed: start of the first; the others follow.
        temperature: see `Committee`. Defaults to half of the margin that training asks for.
    Raises:
        CollapseError: if a head's embeddings become alike.
    """
    from tripletkit.model.embedding import embed
    from tripletkit.model.settings import HeadSettings, choose_epochs
    from tripletkit.training.trainer import Examples, make_trainer

    is_open = votes.is_tie
    rows, votes = rows[~is_open], votes.take(~is_open)
    rng = np.random.default_rng(seed)
    embeddings = []
    settings = HeadSettings.of_recipe(
        defaults.COMMITTEE_RECIPE, seed=seed, hidden=defaults.COMMITTEE_HIDDEN
    )
    for member in range(n_members):
        # A bootstrap sample for each, so that heads differ where answers are few.
        drawn = rng.integers(0, len(rows), len(rows)) if n_members > 1 else np.arange(len(rows))
        epochs = choose_epochs(len(drawn), settings.batch_size, settings.epochs)
        of_member = replace(
            settings, seed=seed + member, epochs=min(epochs, defaults.COMMITTEE_MAX_EPOCHS)
        )
        weights = make_loss_weights(votes.take(drawn), "weight")
        examples = Examples(features, rows[drawn], loss_weights=weights)
        trained = make_trainer(examples, of_member).fit().trained
        embeddings.append(embed(trained.head, features))
    return Committee(embeddings, settings.distance, temperature or settings.margin / 2)


def calibrate(committee: Committee, rows: np.ndarray, votes: Votes) -> float:
    """Return the temperature that fits answers to questions that the committee has not seen.

    Args:
        committee: trained on other questions.
        rows, votes: `(n_questions, 3)` and their votes.
    """
    margins = np.mean(
        [triplet_margins(each, rows, committee.distance) for each in committee.embeddings], axis=0
    )
    return fit_temperature(margins, votes.share)


@dataclass(frozen=True)
class CurvePoint:
    """One point of the curve.

    Attributes:
        n_questions: answered questions that were learned from, on average over the folds.
        accuracy: on questions of the random share that were not.
        interval: 95%, Wilson.
    """

    n_questions: int
    accuracy: float
    interval: Interval


@dataclass(frozen=True)
class LearningCurve:
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
    judgements: Judgements, train: Train, seed: int, shares: Sequence[float] = SHARES
) -> LearningCurve | None:
    """Measure the accuracy after parts of the answers and after all, by cross-validation.

    The random share is parted; each part is asked of heads trained on all other answers, or on
    so much of them. An image may be in both, as it is when new questions are about the same
    images.

    Args:
        judgements: decided ones.
        train: trains on the rows that it is given.
        seed: of the parts.
        shares: of the answers, ascending, the last one 1.
    Returns:
        None if the random share is too small to say anything.
    """
    rng = np.random.default_rng(seed)
    random_rows = np.flatnonzero(judgements.is_random)
    if len(random_rows) < MIN_RANDOM:
        return None
    parts = np.array_split(rng.permutation(random_rows), N_FOLDS)
    n_right = np.zeros(len(shares))
    n_learned = np.zeros(len(shares))
    margins = np.zeros(len(judgements))
    for part in parts:
        others = rng.permutation(np.setdiff1d(np.arange(len(judgements)), part))
        for place, share in enumerate(shares):
            learned = others[: max(10, round(share * len(others)))]
            embeddings, distance = train(learned)
            found = triplet_margins(embeddings, judgements.triplets.rows[part], distance)
            n_right[place] += np.sum(found > 0)
            n_learned[place] += len(learned) / N_FOLDS
            margins[part] = found
    points = [
        CurvePoint(
            round(learned), right / len(random_rows), wilson_interval(right, len(random_rows))
        )
        for learned, right in zip(n_learned, n_right, strict=True)
    ]
    return LearningCurve(points, margins[random_rows], random_rows)


def train_and_choose(
    task: TrainerTask, features: np.ndarray, n_answers: int
) -> dict[str, Any] | None:
    """Train on what the database holds and choose the next questions.

    Args:
        task: see `TrainerTask`.
        features: in the order of its images.
        n_answers: seeds this round.
    Returns:
        `about` the model, and the `questions`, as `JudgementDatabase.add_model` takes them; None
        if there is nothing to learn from yet.
    """
    place_of = {name: place for place, name in enumerate(task.numbers)}
    numbers = np.array(list(task.numbers.values()))
    judgements = _keep_usable(open_judgements(task.database), place_of, features)
    if len(judgements) < _FEWEST_ANSWERS:
        return None
    rows, seed = judgements.triplets.rows, task.seed + n_answers
    curve = measure_curve(
        judgements, lambda learned: _train_one(features, judgements, learned, seed), seed
    )
    about: dict[str, Any] = {"n_questions": len(judgements), "way": task.way}
    temperature = None
    if curve is not None:
        about |= describe_curve(curve)
        temperature = fit_temperature(curve.margins, np.ones(len(curve.margins)))
        about["hardest"] = _find_hardest(judgements, curve, task)
    if task.way == "random":
        return {"about": about, "questions": []}
    committee = train_committee(
        features, rows, judgements.votes, seed=seed, temperature=temperature
    )
    rng = np.random.default_rng(seed)
    usable = np.flatnonzero(np.isfinite(features[:, 0]))
    known = np.concatenate([rows, _find_shown(task)])
    candidates = draw_candidates(usable, defaults.CHOICE_CANDIDATES, rng, known)
    choice = choose_questions(
        committee,
        candidates,
        defaults.CHOSEN_BATCH,
        task.way,
        max_per_image=defaults.MAX_PER_IMAGE,
    )
    n_possible = len(usable) * (len(usable) - 1) * (len(usable) - 2) / 2
    questions = [
        {
            "anchor": int(anchor),
            "first": int(first),
            "second": int(second),
            "how": task.way,
            "score": float(score),
            "expected": float(expected),
            "probability": min(1.0, choice.n_candidates / n_possible),
        }
        for (anchor, first, second), score, expected in zip(
            numbers[choice.rows], choice.scores, choice.expected, strict=True
        )
    ]
    return {"about": about | {"temperature": committee.temperature}, "questions": questions}


def describe_curve(curve: LearningCurve) -> dict[str, Any]:
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


def _keep_usable(
    judgements: Judgements, place_of: dict[str, int], features: np.ndarray
) -> Judgements:
    """Return decided judgements over rows of the features instead of their own names."""
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
    judgements: Judgements, curve: LearningCurve, task: TrainerTask, n: int = 12
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

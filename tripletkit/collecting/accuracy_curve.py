"""How accurate a model is after so many answers, and what more of them would bring.

Measured on the random share alone: questions that a model chose are those it finds hard, so a
score on them is too low, and a score on those that it was sure of is too high.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from tripletkit.data.judgements import Judgements
from tripletkit.evaluation.distances import triplet_margins
from tripletkit.evaluation.intervals import Interval, wilson_interval

# Trains on rows of the judgements and returns embeddings, and how to compare them.
Train = Callable[[np.ndarray], tuple[np.ndarray, str]]

N_FOLDS = 3
SHARES = (0.25, 0.5, 1.0)
MIN_RANDOM = 30
MORE_ANSWERS = 200


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

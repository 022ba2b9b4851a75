"""Accuracies with fewer judgements and with fewer images, for the learning curve."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np

from tripletkit.data.splits.held_out_draws import Draw
from tripletkit.evaluation.learning_curve import LearningCurve, fit_learning_curve
from tripletkit.progress import Progress, no_progress

# Shares of a draw's training triplets that heads learn from.
_SHARES = (0.25, 0.5, 1.0)
# Fewer triplets than this train nothing.
_MIN_TRIPLETS = 20

# Takes indices of the triplets to train on and of those to answer; returns the latter's margins.
Answer = Callable[[np.ndarray, np.ndarray], np.ndarray]


def measure_learning_curve(
    rows: np.ndarray,
    draws: Iterable[Draw],
    answer: Answer,
    seed: int,
    n_more: int = 500,
    progress: Progress | None = None,
) -> LearningCurve:
    """Train with shares of the judgements, and of the images, and fit the curve.

    Args:
        rows: `(n_triplets, 3)` indices of images.
        draws: each is gone through once; three and more give an interval.
        answer: trains a head and lets it answer.
        seed: of what is left out.
        n_more: judgements to be added.
        progress: told (done, total) in heads.
    """
    draws = list(draws)
    rng = np.random.default_rng(seed)
    tell = progress or no_progress
    numbers, accuracies, with_fewer_images = [], [], []
    n_done, n_heads = 0, len(draws) * (len(_SHARES) + 1)

    def right(train: np.ndarray, draw: Draw) -> float:
        nonlocal n_done
        margins = answer(train, draw.held_out_rows)
        n_done += 1
        tell(n_done, n_heads)
        return float(np.mean((margins > 0) + 0.5 * (margins == 0)))

    for draw in draws:
        shuffled = rng.permutation(draw.train_rows)
        sizes = [max(_MIN_TRIPLETS, round(share * len(shuffled))) for share in _SHARES]
        numbers.append([min(size, len(shuffled)) for size in sizes])
        accuracies.append([right(np.sort(shuffled[:size]), draw) for size in sizes])
        few = _over_fewer_images(rows, draw.train_rows, sizes[0], rng)
        with_fewer_images.append(right(few, draw))
    return fit_learning_curve(
        np.array(numbers, dtype=np.float64),
        np.array(accuracies),
        len(rows),
        n_more,
        float(np.mean(with_fewer_images)),
    )


def _over_fewer_images(
    rows: np.ndarray, train: np.ndarray, wanted: int, rng: np.random.Generator
) -> np.ndarray:
    """Return about so many of the training triplets, over as few images as chance gives.

    Images are added in an order of chance until the triplets among them are enough.
    """
    images = np.unique(rows[train])
    rank = np.empty(images.max() + 1, dtype=np.int64)
    rank[images] = rng.permutation(len(images))
    # A triplet is among the images as soon as the last of its three is.
    last = rank[rows[train]].max(axis=1)
    return np.sort(train[np.argsort(last, kind="stable")[:wanted]])

"""Triplets from class labels: the positive is of the anchor's class, the negative of another."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from tripletkit import defaults
from tripletkit.data.labels import NO_LABEL
from tripletkit.errors import LabelFileError

# Draws that repeat a triplet are drawn anew so often; of what is left then each is as likely.
_ROUNDS = 8

# Takes `(m,)` anchors and `(m, k)` candidates, both images, and returns `(m, k)` distances.
_Measure = Callable[[np.ndarray, np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Difficulty:
    """How hard the triplets are to answer.

    Of several drawn, a hard one keeps the farthest positive and the nearest negative, an easy one
    the other way round.
    """

    is_hard: bool
    measure: _Measure
    n_candidates: int = defaults.DIFFICULTY_CANDIDATES


def draw_triplets(
    labels: np.ndarray,
    *,
    per_anchor: int | None = None,
    count: int | None = None,
    seed: int = defaults.SEED,
    balance: str = defaults.TRIPLET_BALANCE,
    images: np.ndarray | None = None,
    difficulty: Difficulty | None = None,
) -> np.ndarray:
    """Draw triplets by chance, none twice: `(n_triplets, 3)` int32, fewer if there are no more.

    Every image whose class has another one is an anchor. Balanced by image, each of them gets
    equally many triplets (to within one), and every image of another class is equally likely to be
    the negative. Balanced by class, each class gets equally many, its anchors equally many of
    these, and every other class is equally likely to be the negative's. An anchor that has not so
    many triplets leaves its share to the others.
    """
    usable = np.arange(len(labels)) if images is None else np.unique(images)
    usable = usable[labels[usable] != NO_LABEL]
    pool = _Pool(usable, labels[usable], balance, difficulty)
    rng = np.random.default_rng(seed)
    n_anchors = int((pool.capacities() > 0).sum())
    total = (per_anchor or 0) * n_anchors if count is None else count
    places = _draw_distinct(pool, _share_among_anchors(pool, total, rng), rng)
    return pool.images[rng.permutation(places)].astype(np.int32)


class _Pool:
    """Images in the order of their classes; a place is an index into this order."""

    def __init__(
        self, images: np.ndarray, labels: np.ndarray, balance: str, difficulty: Difficulty | None
    ) -> None:
        order = np.argsort(labels, kind="stable")
        self.images = images[order]
        _, self.class_of, self.sizes = np.unique(
            labels[order], return_inverse=True, return_counts=True
        )
        if len(self.sizes) < 2 or self.sizes.max() < 2:
            raise LabelFileError(
                "expected images of at least two classes, and two images of one of them, "
                f"got {len(images):,} images of {len(self.sizes):,} classes"
            )
        self.starts = np.cumsum(self.sizes) - self.sizes
        self.by_class = balance == "class"
        self.difficulty = difficulty

    def capacities(self) -> np.ndarray:
        """Return `(n,)` int64: how many triplets each place is the anchor of."""
        sizes = self.sizes[self.class_of].astype(np.int64)
        return (sizes - 1) * (len(self.images) - sizes)

    def draw(self, anchors: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Return `(m, 3)` places: one triplet for each anchor."""
        n_candidates = self.difficulty.n_candidates if self.difficulty else 1
        shape = (len(anchors), n_candidates)
        wide = np.broadcast_to(anchors[:, None], shape)
        positives, negatives = self._draw_positives(wide, rng), self._draw_negatives(wide, rng)
        if self.difficulty is None:
            return np.column_stack([anchors, positives, negatives])
        rows = np.arange(len(anchors))
        positive = self._reluctance(anchors, positives, True).argmin(axis=1)
        negative = self._reluctance(anchors, negatives, False).argmin(axis=1)
        return np.column_stack([anchors, positives[rows, positive], negatives[rows, negative]])

    def partners(self, anchor: int) -> tuple[np.ndarray, np.ndarray]:
        """Return all positives `(n,)` and negatives `(m,)` of an anchor."""
        is_own = self.class_of == self.class_of[anchor]
        negatives = np.flatnonzero(~is_own)
        is_own[anchor] = False
        return np.flatnonzero(is_own), negatives

    def _draw_positives(self, anchors: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        own = self.class_of[anchors]
        places = self.starts[own] + rng.integers(0, self.sizes[own] - 1)
        return places + (places >= anchors)

    def _draw_negatives(self, anchors: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        own = self.class_of[anchors]
        if self.by_class:
            other = rng.integers(0, len(self.sizes) - 1, own.shape)
            other += other >= own
            return self.starts[other] + rng.integers(0, self.sizes[other])
        places = rng.integers(0, len(self.images) - self.sizes[own])
        return places + np.where(places >= self.starts[own], self.sizes[own], 0)

    def _reluctance(
        self, anchors: np.ndarray, candidates: np.ndarray, is_positive: bool
    ) -> np.ndarray:
        """Return `(m, k)`: the smaller, the sooner a candidate is taken."""
        assert self.difficulty is not None
        distances = self.difficulty.measure(self.images[anchors], self.images[candidates])
        return -distances if is_positive == self.difficulty.is_hard else distances


def _share_among_anchors(pool: _Pool, total: int, rng: np.random.Generator) -> np.ndarray:
    """Return `(n,)` int64: triplets to draw for each place as anchor."""
    capacities = pool.capacities()
    if not pool.by_class:
        return _share_out(total, capacities, rng)
    of_class = _share_out(total, np.add.reduceat(capacities, pool.starts), rng)
    parts = np.split(capacities, pool.starts[1:])
    return np.concatenate(
        [_share_out(share, part, rng) for share, part in zip(of_class, parts, strict=True)]
    )


def _share_out(total: int, capacities: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Share a number out as evenly as capacities allow; who gets one more, chance decides."""
    total = min(total, int(capacities.sum()))
    low, high = 0, int(capacities.max()) + 1
    while high - low > 1:
        level = (low + high) // 2
        if np.minimum(capacities, level).sum() <= total:
            low = level
        else:
            high = level
    shares = np.minimum(capacities, low)
    has_room = np.flatnonzero(capacities > low)
    shares[rng.permutation(has_room)[: total - shares.sum()]] += 1
    return shares


def _draw_distinct(pool: _Pool, quotas: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return `(n_triplets, 3)` places, no row twice, each anchor as often as its quota."""
    kept = np.empty((0, 3), dtype=np.int64)
    missing = np.repeat(np.arange(len(quotas)), quotas)
    for _ in range(_ROUNDS):
        rows = np.concatenate([kept, pool.draw(missing, rng)])
        is_repeat = pd.DataFrame(rows).duplicated().to_numpy()
        kept, missing = rows[~is_repeat], rows[is_repeat, 0]
        if not len(missing):
            return kept
    kept = kept[np.argsort(kept[:, 0], kind="stable")]
    parts = [kept]
    for anchor, n_missing in zip(*np.unique(missing, return_counts=True), strict=True):
        taken = kept[slice(*np.searchsorted(kept[:, 0], [anchor, anchor + 1]))]
        positives, negatives = pool.partners(anchor)
        is_free = np.ones((len(positives), len(negatives)), dtype=bool)
        is_free[
            np.searchsorted(positives, taken[:, 1]), np.searchsorted(negatives, taken[:, 2])
        ] = False
        drawn = rng.choice(np.flatnonzero(is_free), n_missing, replace=False)
        rows, columns = np.unravel_index(drawn, is_free.shape)
        parts.append(
            np.column_stack([np.full(n_missing, anchor), positives[rows], negatives[columns]])
        )
    return np.concatenate(parts)

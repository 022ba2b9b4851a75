"""Divide images into groups so that as many triplets as possible lie within one group.

A triplet can be used with images kept apart only if its three images are on one side; a
chance draw of a fifth of the images leaves under one triplet in a hundred for validation.
But judgements cluster (the same images are shown together again and again), and a search
finds groups that keep several times as many.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np

from tripletkit import defaults


class Goal(Protocol):
    """What a division is to achieve, given how many triplets lie within each group."""

    def weights(self) -> np.ndarray:
        """Return `(n_groups,)` float64: what a triplet within each group is worth now."""

    def score(self, inside: np.ndarray) -> float:
        """Return how good a division is; `-inf` if it will not do."""

    def adapt(self, inside: np.ndarray) -> None:
        """Shift the weights towards the group that falls short."""


class HoldOutGoal:
    """Most triplets in group 1 (validation), with no fewer than a floor in group 0 (training)."""

    def __init__(self, floor: float) -> None:
        self.floor = floor
        self.train_weight = defaults.SEARCH_TRAIN_WEIGHT

    def weights(self) -> np.ndarray:
        return np.array([self.train_weight, 1.0])

    def score(self, inside: np.ndarray) -> float:
        return float(inside[1]) if inside[0] >= self.floor else -np.inf

    def adapt(self, inside: np.ndarray) -> None:
        step = defaults.SEARCH_WEIGHT_STEP
        self.train_weight *= np.exp(step if inside[0] < self.floor else -step)


class FoldsGoal:
    """Most triplets in the group that has fewest, so that every fold validates on enough."""

    def __init__(self, n_groups: int) -> None:
        self.logs = np.zeros(n_groups)

    def weights(self) -> np.ndarray:
        return np.exp(self.logs - self.logs.mean())

    def score(self, inside: np.ndarray) -> float:
        return float(inside.min())

    def adapt(self, inside: np.ndarray) -> None:
        self.logs += defaults.SEARCH_WEIGHT_STEP * np.sign(inside.mean() - inside)


def divide_images(
    rows: np.ndarray,
    n_names: int,
    sizes: np.ndarray,
    goal: Goal,
    rng: np.random.Generator,
    strata: np.ndarray | None = None,
) -> np.ndarray:
    """Divide images into groups of given sizes by a tabu search of swaps.

    Starts from a chance division. Between two groups drawn by chance, the best move there and the
    best move back are made, even where they do harm, and both images stay put for a while; the
    best division on the way counts.
    The number of swaps is fixed by the input, so the same seed gives the same groups on a fast
    and on a slow machine.

    Args:
        rows: `(n_triplets, 3)` indices of names; no name twice in a row.
        n_names: how many names there are.
        sizes: `(n_groups,)` images in each group; their sum is `n_names`.
        goal: what to achieve.
        rng: source of chance.
        strata: `(n_names,)` integers; every group gets its share of each, and images are swapped
            within one alone. Without, a search over class data takes whole classes, since their
            triplets lie together.
    Returns:
        `(n_names,)` int64: the group of each image.
    Reference:
        Fiduccia, Mattheyses. A linear-time heuristic for improving network partitions. DAC 1982
        (the gains kept per move); Glover. Tabu search. ORSA J. Computing 1989. The weights
        follow a Lagrangian relaxation of the floor.
    """
    n_groups = len(sizes)
    division = _Division(rows, _deal(sizes, strata, rng), n_groups)
    best, best_group = goal.score(division.inside), division.group.copy()

    batch = min(1 + n_names // defaults.SEARCH_IMAGES_PER_SWAP, int(min(sizes)))
    if strata is not None:
        batch = 1
    tenure = min(defaults.SEARCH_TENURE, int(min(sizes)) // (4 * batch))
    n_swaps = min(defaults.SEARCH_SWAPS_PER_IMAGE * n_names, defaults.SEARCH_SWAPS)
    free_at = np.zeros(n_names, dtype=np.int64)
    for step in range(n_swaps // batch):
        there, back = rng.permutation(n_groups)[:2]
        is_apart = np.zeros(n_names, dtype=bool)
        if strata is not None:
            is_apart = strata != strata[rng.integers(n_names)]
            free = division.group[~is_apart & (free_at <= step)]
            if there not in free or back not in free:
                continue
        for source, target in ((back, there), (there, back)):
            gains = division.gains(source, target, goal.weights())
            gains[free_at > step] = -np.inf
            gains[is_apart] = -np.inf
            moved = np.argpartition(gains, -batch)[-batch:] if batch > 1 else [gains.argmax()]
            for name in moved:
                division.move(name, source, target)
            free_at[moved] = step + 1 + tenure
        goal.adapt(division.inside)
        if (score := goal.score(division.inside)) > best:
            best, best_group = score, division.group.copy()
    return best_group


def _deal(sizes: np.ndarray, strata: np.ndarray | None, rng: np.random.Generator) -> np.ndarray:
    """Return `(n_names,)` int64: a chance division into groups of these sizes."""
    groups = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
    if strata is None:
        return groups
    n_names = len(groups)
    by_chance = rng.permutation(n_names)
    order = by_chance[np.argsort(strata[by_chance], kind="stable")]
    # Each group's places lie evenly over all strata.
    evenly = np.concatenate([(np.arange(size) + rng.random()) / size for size in sizes])
    places = np.argsort(evenly, kind="stable")
    dealt = np.empty(n_names, dtype=np.int64)
    dealt[order] = np.repeat(np.arange(len(sizes)), sizes)[places]
    return dealt


class _Division:
    """Groups of images, and what moving each image elsewhere would change.

    Attributes:
        group: `(n_names,)` int64.
        near: `(n_groups, n_names)` float64: triplets whose two other images both lie in a group,
            and which therefore lie in it whole as long as this image does too.
        inside: `(n_groups,)` float64: triplets that lie whole within each group.
    """

    def __init__(self, rows: np.ndarray, group: np.ndarray, n_groups: int) -> None:
        n_names = len(group)
        owner = rows.T.ravel()
        order = np.argsort(owner, kind="stable")
        self._left = rows[:, [1, 0, 0]].T.ravel()[order]
        self._right = rows[:, [2, 2, 1]].T.ravel()[order]
        self._starts = np.searchsorted(owner[order], np.arange(n_names + 1))
        self.group = group
        left_group = group[self._left]
        is_together = left_group == group[self._right]
        places = left_group[is_together] * n_names + owner[order][is_together]
        n_near = np.bincount(places, minlength=n_groups * n_names)
        self.near = n_near.reshape(n_groups, n_names).astype(np.float64)
        own = self.near[group, np.arange(n_names)]
        self.inside = np.bincount(group, own, n_groups) / 3

    def gains(self, source: int, target: int, weights: np.ndarray) -> np.ndarray:
        """Return `(n_names,)` float64: the worth of moving each image from source to target.

        `-inf` for images that are not in the source.
        """
        gains = weights[target] * self.near[target] - weights[source] * self.near[source]
        gains[self.group != source] = -np.inf
        return gains

    def move(self, name: int, source: int, target: int) -> None:
        """Move one image from its group to another."""
        self.inside[source] -= self.near[source, name]
        self.inside[target] += self.near[target, name]
        of_name = slice(self._starts[name], self._starts[name + 1])
        left, right = self._left[of_name], self._right[of_name]
        for one, other in ((left, self.group[right]), (right, self.group[left])):
            np.subtract.at(self.near[source], one[other == source], 1.0)
            np.add.at(self.near[target], one[other == target], 1.0)
        self.group[name] = target

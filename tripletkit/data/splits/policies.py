"""Divide triplets into training and validation so that the validation score can be believed.

Three policies, by what the two sides may have in common:

- `image`: no image. The score tells how new images will do. It costs every triplet whose
  images lie on both sides.
- `component`: no pair of images, nor anything linked to it by triplets. Every triplet is kept,
  and nothing can be answered by remembering pairs. The score tells how known images do in new
  questions.
- `random`: no question. Where pairs recur in one role, remembering names solves it.

In all of them repeats and mirrors (A, C, B) of a row are on its own side.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tripletkit import defaults
from tripletkit.data.labels import NO_LABEL
from tripletkit.data.questions import PairGraph, Questions, join_nodes
from tripletkit.data.triplets import Triplets
from tripletkit.errors import SettingsError, SplitError

# The search for images to set apart: swaps an image and in all, which bound its time.
_SEARCH_SWAPS_PER_IMAGE = 5
_SEARCH_SWAPS = 200_000
# Above this many images, several are swapped at once, because looking for the best costs more than
# moving it.
_SEARCH_IMAGES_PER_SWAP = 2_000
# Swaps during which an image that was moved stays put.
_SEARCH_TENURE = 50
# What a triplet kept for training is first worth beside one kept for validation, and by which power
# of e that grows or falls with each swap that leaves training short or not.
_SEARCH_TRAIN_WEIGHT = 0.05
_SEARCH_WEIGHT_STEP = 0.02
# Images that clusters are found from.
_MOST_CLUSTERED = 3_000
# A pair of images, the least that a class needs for a triplet, in training and held out.
_PAIR = 2


class _HoldOutGoal:
    """Most triplets in group 1 (validation), with no fewer than a floor in group 0 (training).

    `inside` is how many triplets lie within each group, `weights` what one is worth there now,
    `score` how good a division is, `-inf` if it will not do; `adapt` shifts the weights towards
    the group that falls short.
    """

    def __init__(self, floor: float) -> None:
        self.floor = floor
        self.train_weight = _SEARCH_TRAIN_WEIGHT

    def weights(self) -> np.ndarray:
        return np.array([self.train_weight, 1.0])

    def score(self, inside: np.ndarray) -> float:
        return float(inside[1]) if inside[0] >= self.floor else -np.inf

    def adapt(self, inside: np.ndarray) -> None:
        step = _SEARCH_WEIGHT_STEP
        self.train_weight *= np.exp(step if inside[0] < self.floor else -step)


class _FoldsGoal:
    """Most triplets in the group that has fewest, so that every fold validates on enough."""

    def __init__(self, n_groups: int) -> None:
        self.logs = np.zeros(n_groups)

    def weights(self) -> np.ndarray:
        return np.exp(self.logs - self.logs.mean())

    def score(self, inside: np.ndarray) -> float:
        return float(inside.min())

    def adapt(self, inside: np.ndarray) -> None:
        self.logs += _SEARCH_WEIGHT_STEP * np.sign(inside.mean() - inside)


def _divide_images(
    rows: np.ndarray,
    n_names: int,
    sizes: np.ndarray,
    goal: _HoldOutGoal | _FoldsGoal,
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
        sizes: `(n_groups,)` images in each group; their sum is `n_names`.
        strata: `(n_names,)` integers; every group gets its share of each, and images are swapped
            within one alone. Without, a search over class data takes whole classes, since their
            triplets lie together.
    Reference:
        Fiduccia, Mattheyses. A linear-time heuristic for improving network partitions. DAC 1982
        (the gains kept per move); Glover. Tabu search. ORSA J. Computing 1989. The weights
        follow a Lagrangian relaxation of the floor.
    """
    n_groups = len(sizes)
    division = _Division(rows, _deal(sizes, strata, rng), n_groups)
    best, best_group = goal.score(division.inside), division.group.copy()

    batch = min(1 + n_names // _SEARCH_IMAGES_PER_SWAP, int(min(sizes)))
    if strata is not None:
        batch = 1
    tenure = min(_SEARCH_TENURE, int(min(sizes)) // (4 * batch))
    n_swaps = min(_SEARCH_SWAPS_PER_IMAGE * n_names, _SEARCH_SWAPS)
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
            moved = np.array([gains.argmax()])
            if batch > 1:
                moved = np.argpartition(gains, -batch)[-batch:]
            for name in moved.tolist():
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

    `near` counts, for each group and image, the triplets whose two other images both lie in the
    group, and which therefore lie in it whole as long as this image does too; `inside` the triplets
    that lie whole within each group.
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
        """Return the worth of moving each image there; `-inf` if it is not in the source."""
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


# So many chance divisions of groups of images are looked at; the best of them is taken.
_GROUP_TRIES = 200
# Of fewer images, half of them on either side have no triplet of their own.
_MIN_CLASS_IMAGES = 12


@dataclass(frozen=True)
class Split:
    """Which rows train, which validate, and which can do neither: int64 indices, ascending."""

    train_rows: np.ndarray
    val_rows: np.ndarray
    dropped_rows: np.ndarray


def split_triplets(
    triplets: Triplets,
    by: str,
    val_fraction: float,
    seed: int,
    groups: np.ndarray | None = None,
) -> Split:
    """Divide triplets into training and validation.

    Args:
        by: `"image"`, `"component"` or `"random"`.
        val_fraction: between 0 and 1. By `component` and `random` the share of triplets for
            validation, met as closely as whole components allow. By `image` the share of
            images: training keeps at least as many triplets as it does on average when that
            share of images is drawn by chance, and within this validation gets as many as the
            search finds, several times what a chance draw gives.
        seed: start of every choice by chance.
        groups: `(n_names,)` integers from 0: by `image` those of one group are on one side, and
            the share is one of groups; None for every image by itself.
    """
    if not 0 <= val_fraction <= 1:
        raise SettingsError(
            "val_fraction", f"`val_fraction`: expected a share from 0 to 1, got {val_fraction:g}"
        )
    rng = np.random.default_rng(seed)
    labels = _labels(triplets, by, groups)
    if labels is None:
        units, rows, n_units = _number_units(triplets, groups)
        n_val = round(val_fraction * n_units)
        sizes = np.array([n_units - n_val, n_val])
        # Training keeps as many triplets as a chance draw leaves it on average.
        places = np.arange(3)
        floor = float(np.prod((sizes[0] - places) / np.maximum(n_units - places, 1)) * len(rows))
        goal = _HoldOutGoal(floor)
        sides = _divide(triplets, rows, sizes, goal, rng, groups)
        split = separate_groups(triplets.rows, sides[units], 1)
    else:
        split = _from_mask(_hold_out_whole(labels, val_fraction, rng))
    _check(split, triplets, by, f"`val_fraction={val_fraction:g}`")
    return split


def fold_triplets(
    triplets: Triplets, by: str, n_folds: int, seed: int, groups: np.ndarray | None = None
) -> list[Split]:
    """Divide triplets into folds, each of which validates once; see `split_triplets`."""
    rng = np.random.default_rng(seed)
    labels = _labels(triplets, by, groups)
    if labels is None:
        units, rows, n_units = _number_units(triplets, groups)
        sizes = np.diff(np.arange(n_folds + 1) * n_units // n_folds)
        folds = _divide(triplets, rows, sizes, _FoldsGoal(n_folds), rng, groups)[units]
        splits = [separate_groups(triplets.rows, folds, fold) for fold in range(n_folds)]
    else:
        fold_of_row = _fold_whole(labels, n_folds, rng)
        splits = [_from_mask(fold_of_row == fold) for fold in range(n_folds)]
    for split in splits:
        _check(split, triplets, by, f"`folds={n_folds}`")
    return splits


def _labels(triplets: Triplets, by: str, groups: np.ndarray | None) -> np.ndarray | None:
    """Return `(n_triplets,)` integers, equal for rows that must be on one side; None by image."""
    if by == "image":
        return None
    if groups is not None:
        raise SettingsError(
            "groups", "`groups` are of images, which only `by=image` holds out as a whole."
        )
    n_names = len(triplets.names)
    if by == "component":
        return PairGraph.of(triplets.rows, n_names).component_of_rows()
    if by == "random":
        return _join_trials(Questions.of(triplets.rows, n_names).of_row, triplets.trials)
    raise SplitError(f'expected a split by {", ".join(defaults.SPLIT_POLICIES)}, got "{by}"')


def _join_trials(labels: np.ndarray, trials: np.ndarray | None) -> np.ndarray:
    """Return labels that are equal within each trial, too."""
    if trials is None or not (trials > 0).any():
        return labels
    inside = np.flatnonzero(trials > 0)
    n_labels, n_trials = int(labels.max()) + 1, int(trials.max()) + 1
    joined = join_nodes(labels[inside], n_labels + trials[inside], n_labels + n_trials)
    return np.unique(joined[labels], return_inverse=True)[1]


def _hold_out_whole(
    labels: np.ndarray, val_fraction: float, rng: np.random.Generator
) -> np.ndarray:
    """Return `(n_triplets,)` bool: whole labels drawn until the share is met."""
    n_rows = np.bincount(labels)
    wanted = val_fraction * len(labels)
    # A label larger than all of validation belongs to training, wherever chance puts it.
    drawn = rng.permutation(np.flatnonzero(n_rows <= max(wanted, 1)))
    reached = np.cumsum(n_rows[drawn])
    n_drawn = np.searchsorted(reached, wanted)
    after = reached[n_drawn] if n_drawn < len(reached) else np.inf
    before = reached[n_drawn - 1] if n_drawn else 0
    n_drawn += after - wanted < wanted - before
    is_val = np.zeros(len(n_rows), dtype=bool)
    is_val[drawn[:n_drawn]] = True
    return is_val[labels]


def _fold_whole(labels: np.ndarray, n_folds: int, rng: np.random.Generator) -> np.ndarray:
    """Return `(n_triplets,)` int64: the fold of each row, whole labels in one fold."""
    n_rows = np.bincount(labels)
    order = rng.permutation(len(n_rows))
    middle = np.cumsum(n_rows[order]) - n_rows[order] / 2
    fold_of_label = np.empty(len(n_rows), dtype=np.int64)
    fold_of_label[order] = middle * n_folds // len(labels)
    return fold_of_label[labels]


def _number_units(
    triplets: Triplets, groups: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray, int]:
    """Number the images that rows name, or their groups, from 0.

    Returns:
        `(n_names,)` the unit of each name, the number of units for others; `(n_rows, 3)` units of
        the rows that name three images; and the number of units.
    """
    unit_of = np.arange(len(triplets.names)) if groups is None else groups
    rows = unit_of[triplets.without_degenerate().rows]
    named, rows = np.unique(rows, return_inverse=True)
    number_of = np.full(unit_of.max(initial=0) + 1, len(named))
    number_of[named] = np.arange(len(named))
    return number_of[unit_of], rows.reshape(-1, 3), len(named)


def _divide(
    triplets: Triplets,
    rows: np.ndarray,
    sizes: np.ndarray,
    goal: _HoldOutGoal | _FoldsGoal,
    rng: np.random.Generator,
    groups: np.ndarray | None,
) -> np.ndarray:
    """Return `(n_units + 1,)` int64: the part of each unit, and 0 for names that no row has."""
    least, what = (3, "images") if groups is None else (1, "groups")
    if sizes.min() < least:
        raise SplitError(
            f"{triplets.source}: expected at least {least} {what} in each part, got "
            f"{' and '.join(map(str, sizes))}. Try `by=component`, a `val_fraction` nearer to 0.5, "
            "or fewer folds."
        )
    if groups is not None:
        return np.append(_divide_groups(rows, sizes, rng), 0)
    n_names = int(sizes.sum())
    return np.append(_divide_images(rows, n_names, sizes, goal, rng, _strata(rows, n_names)), 0)


def _divide_groups(rows: np.ndarray, sizes: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return the part of each group of images, by the best of many chance divisions.

    The first part has as many triplets as in half of them, the others as many as can be. Groups
    are few, and often a triplet has two images of one, so that no swap of images finds it.
    """
    tries = [rng.permutation(np.repeat(np.arange(len(sizes)), sizes)) for _ in range(_GROUP_TRIES)]
    inside = np.empty((len(tries), len(sizes)))
    for number, parts in enumerate(tries):
        of_rows = parts[rows]
        whole = of_rows[(of_rows == of_rows[:, :1]).all(axis=1), 0]
        inside[number] = np.bincount(whole, minlength=len(sizes))
    is_enough = inside[:, 0] >= np.median(inside[:, 0])
    return tries[np.argmax(np.where(is_enough, inside[:, 1:].min(axis=1), -1))]


def _strata(rows: np.ndarray, n_names: int) -> np.ndarray | None:
    """Return the classes that the positives tell of; None where they tell of none.

    Classes are few and large, or nothing is lost by dividing them: where images are joined to
    hardly any other, a group of them is no class but what was shown together.
    """
    strata = find_strata(rows, n_names)
    sizes = np.bincount(strata)
    is_class = sizes >= _MIN_CLASS_IMAGES
    is_told = is_class.sum() > 1 and sizes[is_class].sum() > n_names / 2
    return strata if is_told else None


def separate_groups(rows: np.ndarray, groups: np.ndarray, val_group: int) -> Split:
    """Use the rows whose images are all in the validation group, or all out of it."""
    n_val_images = (groups[rows] == val_group).sum(axis=1)
    return Split(
        train_rows=np.flatnonzero(n_val_images == 0),
        val_rows=np.flatnonzero(n_val_images == 3),
        dropped_rows=np.flatnonzero((n_val_images > 0) & (n_val_images < 3)),
    )


def _from_mask(is_val: np.ndarray) -> Split:
    return Split(np.flatnonzero(~is_val), np.flatnonzero(is_val), np.empty(0, dtype=np.int64))


_ADVICE = {
    "image": "Try `by=component`, which keeps every triplet, or a larger share for this side.",
    "component": "All or nearly all triplets are linked through the pairs that they share. "
    "Try `by=image`.",
    "random": "Try another share, or judge more triplets.",
}


def _check(split: Split, triplets: Triplets, by: str, asked: str) -> None:
    for side, rows in (("training", split.train_rows), ("validation", split.val_rows)):
        if not len(rows):
            raise SplitError(
                f"{triplets.source}: expected triplets for training and for validation, got none "
                f"for {side} ({asked} by {by}, {len(triplets):,} triplets over "
                f"{len(triplets.names):,} images). {_ADVICE[by]}"
            )


def find_strata(
    rows: np.ndarray,
    n_images: int,
    labels: np.ndarray | None = None,
    features: np.ndarray | None = None,
) -> np.ndarray:
    """Return `(n_images,)` integers: the class of each image, or what comes nearest to it.

    Features, rows of length 1, are finite where a triplet has the image.
    """
    images = np.unique(rows)
    if labels is not None and np.any(labels[images] != NO_LABEL):
        return np.where(labels == NO_LABEL, labels.max() + 1, labels)
    strata = np.zeros(n_images, dtype=np.int64)
    n_clusters = min(defaults.N_CLUSTERS, len(images) // defaults.MIN_GROUP_IMAGES)
    if features is not None and n_clusters >= 2:
        strata[images] = cluster_images(features[images], n_clusters, 0)
        return strata
    # Classes never mix among positives, so there each of them is a component.
    return join_nodes(rows[:, [0]], rows[:, [1]], n_images)


def cluster_images(features: np.ndarray, n_groups: int, seed: int) -> np.ndarray:
    """Return `(n_images,)` integers: k-means clusters of features, rows of length 1.

    Of many images a sample says where the centers are.
    """
    from sklearn.cluster import KMeans

    sample = features
    if len(features) > _MOST_CLUSTERED:
        drawn = np.random.default_rng(seed).choice(len(features), _MOST_CLUSTERED, replace=False)
        sample = features[drawn]
    return KMeans(n_groups, n_init=3, random_state=seed).fit(sample).predict(features)


def hold_out_images(
    labels: np.ndarray,
    fraction: float,
    seed: int = defaults.SEED,
    images: np.ndarray | None = None,
) -> np.ndarray:
    """Draw the same share of every class, leaving pairs on both sides; `(n_images,)` bool.

    A class that has images held out has at least two, and at least two left for training: a
    class of fewer than four stays in training. Where its share is below two, chance decides
    whether it is two or none, so that the whole keeps its share. At least two classes have
    images held out, since a triplet needs a negative. Of `images` are those that may be held out,
    such as one name of each image; an image without a label never is.

    Example:
        >>> held_out = hold_out_images(np.repeat([0, 1, 2], 10), 0.3)
        >>> held_out.reshape(3, 10).sum(axis=1).tolist()
        [3, 3, 3]
    """
    is_held_out = np.zeros(len(labels), dtype=bool)
    if fraction == 0:
        return is_held_out
    usable = np.arange(len(labels)) if images is None else np.unique(images)
    usable = usable[labels[usable] != NO_LABEL]
    rng = np.random.default_rng(seed)
    # By chance within each class.
    usable = rng.permutation(usable)
    usable = usable[np.argsort(labels[usable], kind="stable")]
    _, starts, sizes = np.unique(labels[usable], return_index=True, return_counts=True)
    numbers = _numbers_of_classes(sizes, fraction, rng)
    rank = np.arange(len(usable)) - np.repeat(starts, sizes)
    is_held_out[usable[rank < np.repeat(numbers, sizes)]] = True
    return is_held_out


def _numbers_of_classes(sizes: np.ndarray, fraction: float, rng: np.random.Generator) -> np.ndarray:
    """Return `(n_classes,)` int64: how many images to hold out of each class."""
    is_large = sizes >= 2 * _PAIR
    if is_large.sum() < 2:
        raise SplitError(
            f"expected at least two classes of {2 * _PAIR} images to hold some of them out, got "
            f"{is_large.sum()} (largest class: {sizes.max(initial=0):,}). Give the images for "
            "validation yourself, or more of each class."
        )
    wanted = fraction * sizes[is_large]
    # Up to a pair all or nothing, above it the next whole number or the one below.
    step = np.where(wanted < _PAIR, _PAIR, 1)
    whole = np.where(wanted < _PAIR, 0, np.floor(wanted))
    numbers = whole + step * _round_by_chance((wanted - whole) / step, rng)
    numbers = np.minimum(numbers, sizes[is_large] - _PAIR).astype(np.int64)
    n_missing = max(0, 2 - np.count_nonzero(numbers))
    largest = np.argsort(-wanted * (numbers == 0), kind="stable")[:n_missing]
    numbers[largest] = _PAIR
    result = np.zeros(len(sizes), dtype=np.int64)
    result[is_large] = numbers
    return result


def _round_by_chance(shares: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return `(n,)` 0 or 1, each with its share as chance, their sum within 1 of the shares'.

    Reference:
        Systematic sampling; Madow. On the theory of systematic sampling, II. Annals of
        Mathematical Statistics 20, 1949.
    """
    order = rng.permutation(len(shares))
    steps = np.floor(np.cumsum(np.append(rng.random(), shares[order])))
    result = np.empty(len(shares))
    result[order] = np.diff(steps)
    return result

"""Image-disjoint draws: a share of the images held out, again and again, to pool what is learned.

One held-out set is small, because a triplet counts only if all its images are held out, and it
may be of one class alone. So images are held out in rounds: each round divides them into folds,
and every fold is held out once, so that every image is held out as often as any other.

What is drawn looks like a test of other images of the same kind:

- Where the triplets fall into many groups that share no image (each judged in itself, such as
  typefaces or products), a test is of other groups, so whole groups are drawn. This also keeps
  every triplet.
- Elsewhere images are drawn, the same share of every class: of labels where there are any, else
  of clusters of features, else of images that are joined by being positives of each other.
- Among these, images that are positives of each other and of few others stay together. Of three
  dogs no fold can have two and leave two: what is held out together would be the unlike ones,
  and the dog that stays would be learned from as a negative alone. Both make scores too low:
  frozen features scored 0.68 so, and 0.82 on all triplets of that set.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from tripletkit import defaults
from tripletkit.data.splits.policies import separate_groups
from tripletkit.data.splits.strata import find_strata, join_images
from tripletkit.errors import SplitError

BY_GROUPS = "groups of triplets that share no image"
BY_IMAGES = "images"

# Rounds without a single held-out triplet after which there is nothing to hope for.
_MAX_EMPTY_ROUNDS = 20


@dataclass(frozen=True)
class Draw:
    """Which triplets heads learn from, and which they are scored on.

    Attributes:
        train_rows, held_out_rows: int64 indices of triplets, ascending. No image of a held-out
            triplet is in a training triplet.
        round: in which round, from 0.
    """

    train_rows: np.ndarray
    held_out_rows: np.ndarray
    round: int


@dataclass(frozen=True)
class DrawPlan:
    """What is drawn.

    Attributes:
        by: `BY_GROUPS` or `BY_IMAGES`.
        unit_of_image: `(n_images,)` integers: what is held out together; -1 for an image that
            no triplet has.
        stratum_of_unit: `(n_units,)` integers; every stratum is divided evenly.
    """

    by: str
    unit_of_image: np.ndarray
    stratum_of_unit: np.ndarray

    def fold_units(self, n_folds: int, rng: np.random.Generator) -> np.ndarray:
        """Return `(n_units,)` integers: the fold of each unit, even in every stratum."""
        n_units = len(self.stratum_of_unit)
        by_chance = rng.permutation(n_units)
        order = by_chance[np.argsort(self.stratum_of_unit[by_chance], kind="stable")]
        folds = np.empty(n_units, dtype=np.int64)
        # Dealt like cards through all strata, from a chance start.
        folds[order] = (np.arange(n_units) + rng.integers(n_folds)) % n_folds
        return folds


def plan_draws(
    rows: np.ndarray,
    n_images: int,
    labels: np.ndarray | None = None,
    features: np.ndarray | None = None,
    n_folds: int = defaults.DRAW_FOLDS,
) -> DrawPlan:
    """Decide what is held out together, and of what every fold has its share.

    Args:
        rows: `(n_triplets, 3)` indices of images: anchor, positive, negative.
        n_images: how many images there are.
        labels: `(n_images,)` integers; `NO_LABEL` where an image has none.
        features: `(n_images, n_features)` float32, rows of length 1; finite where a triplet
            has the image.
        n_folds: folds of a round.
    Raises:
        SplitError: if there are too few images.
    Example:
        >>> rows = np.arange(36).reshape(12, 3)  # twelve groups of three images
        >>> plan_draws(rows, 36).by == BY_GROUPS
        True
    """
    images = np.unique(rows)
    if len(images) < 3 * n_folds:
        raise SplitError(
            f"expected at least {3 * n_folds} images, three for each of {n_folds} folds, got "
            f"{len(images)}"
        )
    groups = join_images(rows[:, [0, 0]], rows[:, 1:], n_images)[images]
    _, groups, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    unit_of_image = np.full(n_images, -1)
    if len(sizes) >= defaults.MIN_DRAW_GROUPS and n_folds * sizes.max() <= len(images):
        unit_of_image[images] = groups
        # Groups alike in size, so that folds are.
        return DrawPlan(BY_GROUPS, unit_of_image, np.zeros(len(sizes), dtype=np.int64))
    strata = find_strata(rows, n_images, labels, features)[images]
    units, first = _keep_small_classes(rows, images, n_images, n_folds)
    unit_of_image[images] = units
    n_together = np.bincount(units)
    # Units alike in size, so that folds are.
    return DrawPlan(
        BY_IMAGES,
        unit_of_image,
        np.where(n_together > 1, strata.max() + n_together, strata[first]),
    )


def _keep_small_classes(
    rows: np.ndarray, images: np.ndarray, n_images: int, n_folds: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return `(len(images),)` units, and the place of each unit's first image.

    A class too small to have a pair in every fold is one unit; so is any other image.

    Args:
        images: those of `rows`, ascending.
    """
    classes = join_images(rows[:, [0]], rows[:, [1]], n_images)[images]
    _, classes, sizes = np.unique(classes, return_inverse=True, return_counts=True)
    is_small = sizes[classes] < 2 * n_folds
    keys = np.where(is_small, classes, len(sizes) + np.arange(len(images)))
    _, first, units = np.unique(keys, return_index=True, return_inverse=True)
    return units, first


def draw_folds(
    rows: np.ndarray,
    plan: DrawPlan,
    seed: int,
    n_folds: int = defaults.DRAW_FOLDS,
    is_scored: np.ndarray | None = None,
) -> Iterator[Draw]:
    """Yield draws without end, fold after fold, round after round.

    Args:
        rows: `(n_triplets, 3)` indices of images.
        plan: see `plan_draws`.
        seed: of the folds.
        n_folds: folds of a round; one of them is held out in a draw.
        is_scored: `(n_triplets,)` bool: the triplet may be held out to be scored on; others are
            left out of such a draw. Defaults to all.
    Raises:
        SplitError: if round after round leaves no triplet on one of the sides.
    """
    round_, n_empty = 0, 0
    while n_empty < _MAX_EMPTY_ROUNDS:
        folds = plan.fold_units(n_folds, np.random.default_rng([seed, round_]))
        fold_of_image = folds[plan.unit_of_image]
        is_empty = True
        for fold in range(n_folds):
            split = separate_groups(plan.by, rows, fold_of_image, fold)
            held_out = split.val_rows
            if is_scored is not None:
                held_out = held_out[is_scored[held_out]]
            if len(split.train_rows) and len(held_out):
                is_empty = False
                yield Draw(split.train_rows, held_out, round_)
        n_empty = n_empty + 1 if is_empty else 0
        round_ += 1
    raise SplitError(
        f"expected triplets whose images are all held out beside others for training, got none in "
        f"{_MAX_EMPTY_ROUNDS} draws of a share of 1/{n_folds} of the images. Judge more triplets "
        "over the same images, or give validation triplets of your own."
    )

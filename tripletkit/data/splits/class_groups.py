"""Kinds of images: their classes or clusters of features, and holding whole ones out.

Images that a split by image holds out are of the same classes of things as those in training.
How a model does on other classes can only be seen where whole classes are held out.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tripletkit import defaults
from tripletkit.data.labels import NO_LABEL
from tripletkit.data.splits.policies import Split, separate_groups
from tripletkit.errors import SplitError

# The fewest clusters of images that are of use, and how often those held out are drawn.
MIN_CLUSTERS = 4
UNSEEN_DRAWS = 50

BY_UNSEEN_CLASSES = "unseen classes"
BY_LABELS = "classes"
BY_CLUSTERS = "clusters"


@dataclass(frozen=True)
class HeldOutClasses:
    """Which images are of classes that training does without.

    Attributes:
        is_held_out: `(n_images,)` bool.
        n_groups, n_held_out_classes: groups in all, and those held out.
        split: of the triplets; rows that mix both sides are dropped.
    """

    is_held_out: np.ndarray
    n_groups: int
    n_held_out_classes: int
    split: Split


def find_groups(
    images: np.ndarray, features: np.ndarray, labels: np.ndarray | None, seed: int
) -> tuple[np.ndarray, int, str]:
    """Return the kind of each image: its class where enough are labelled, else its cluster.

    Args:
        images: indices of those that are divided into groups, ascending.
        features: `(n_images, n_features)` float32 of all images, rows of length 1.
        labels: `(n_images,)` integers; `NO_LABEL` where an image has none; None without any.
        seed: of the clusters.
    Returns:
        `(n_images,)` integers, for other images and among labelled ones for those
        without a label the number of groups; that number; and `BY_LABELS` or `BY_CLUSTERS`.
    Raises:
        SplitError: if there are too few images.
    """
    if labels is not None:
        labelled = images[labels[images] != NO_LABEL]
        classes, numbers = np.unique(labels[labelled], return_inverse=True)
        if len(classes) >= MIN_CLUSTERS:
            groups = np.full(len(features), len(classes))
            groups[labelled] = numbers
            return groups, len(classes), BY_LABELS
    n_groups = min(defaults.N_CLUSTERS, len(images) // defaults.MIN_GROUP_IMAGES)
    if n_groups < MIN_CLUSTERS:
        raise SplitError(
            f"whole classes of images cannot be held out: expected at least "
            f"{MIN_CLUSTERS * defaults.MIN_GROUP_IMAGES} images, got {len(images)}"
        )
    groups = np.full(len(features), n_groups)
    groups[images] = cluster_images(features[images], n_groups, seed)
    return groups, n_groups, BY_CLUSTERS


def cluster_images(features: np.ndarray, n_groups: int, seed: int) -> np.ndarray:
    """Return `(n_images,)` integers: k-means clusters of features.

    Args:
        features: `(n_images, n_features)` float32, rows of length 1; all finite.
        n_groups: clusters.
        seed: of the start.
    """
    from sklearn.cluster import KMeans

    return KMeans(n_groups, n_init=3, random_state=seed).fit_predict(features)


def hold_out_classes(
    rows: np.ndarray, groups: np.ndarray, n_groups: int, fraction: float, seed: int, fewest: int = 2
) -> HeldOutClasses:
    """Choose whole groups to hold out, of several draws the one that keeps most triplets.

    A draw of clusters that cuts a kind of things in two separates images that triplets join,
    and loses these; so the draw that keeps most is also the one that is nearest to holding out
    groups as the judges see them.

    Args:
        rows: `(n_triplets, 3)` indices into `groups`.
        groups: `(n_images,)` integers; `n_groups` where an image is not to be held out.
        n_groups: in all.
        fraction: of the images to hold out, about.
        seed: of the draws.
        fewest: groups to hold out at least. A question needs images of two.
    Raises:
        SplitError: if no draw leaves triplets on both sides.
    """
    rng = np.random.default_rng(seed)
    sizes = np.bincount(groups, minlength=n_groups)[:n_groups]
    wanted = fraction * sizes.sum()
    best: tuple[int, HeldOutClasses | None] = (0, None)
    for _ in range(UNSEEN_DRAWS):
        order = rng.permutation(n_groups)
        n_drawn = max(fewest, int(np.searchsorted(np.cumsum(sizes[order]), wanted, side="right")))
        is_held_out = np.isin(groups, order[:n_drawn])
        split = separate_groups(BY_UNSEEN_CLASSES, rows, is_held_out, True)
        # The product is largest where neither side is short.
        kept = len(split.train_rows) * len(split.val_rows)
        if kept > best[0]:
            best = kept, HeldOutClasses(is_held_out, n_groups, n_drawn, split)
    if best[1] is None:
        raise SplitError(
            f"whole classes of images cannot be held out: of {UNSEEN_DRAWS} draws of "
            f"{fraction:.0%} of {sizes.sum():,} images none leaves triplets on both sides"
        )
    return best[1]

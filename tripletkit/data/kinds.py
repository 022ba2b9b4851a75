"""Kinds of pictures: their classes or clusters of features, and holding whole ones out.

Pictures that a split by image holds out are of the same kinds of things as those in training.
How a model does on other kinds can only be seen where whole kinds are held out.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tripletkit import defaults
from tripletkit.data.labels import NO_LABEL
from tripletkit.data.splits import Split, separate_groups
from tripletkit.data.training_set import TrainingSet
from tripletkit.errors import SplitError

BY_KINDS = "kinds"
BY_LABELS = "classes"
BY_CLUSTERS = "clusters"


@dataclass(frozen=True)
class HeldOutKinds:
    """Which pictures are of kinds that training does without.

    Attributes:
        is_held_out: `(n_images,)` bool.
        n_kinds, n_held_out_kinds: kinds in all, and those held out.
        split: of the triplets; rows that mix both sides are dropped.
    """

    is_held_out: np.ndarray
    n_kinds: int
    n_held_out_kinds: int
    split: Split


def find_kinds(data: TrainingSet, features: np.ndarray, seed: int) -> tuple[np.ndarray, int, str]:
    """Return the kind of each picture: its class where enough are labelled, else its cluster.

    Args:
        data: whose pictures are divided into kinds.
        features: `(n_images, n_features)` float32 of the pictures in `data.names`, rows of
            length 1.
        seed: of the clusters.
    Returns:
        `(n_images,)` integers, for pictures that no triplet has and among labelled ones for those
        without a label the number of kinds; that number; and `BY_LABELS` or `BY_CLUSTERS`.
    Raises:
        SplitError: if there are too few pictures.
    """
    images = np.unique(np.concatenate([data.train.rows, data.val.rows]))
    if data.labels is not None:
        of_picture = data.labels.of_picture
        labelled = images[of_picture[images] != NO_LABEL]
        classes, numbers = np.unique(of_picture[labelled], return_inverse=True)
        if len(classes) >= defaults.MIN_KINDS:
            kinds = np.full(len(features), len(classes))
            kinds[labelled] = numbers
            return kinds, len(classes), BY_LABELS
    n_kinds = min(defaults.N_KINDS, len(images) // defaults.MIN_KIND_PICTURES)
    if n_kinds < defaults.MIN_KINDS:
        raise SplitError(
            f"whole kinds of pictures cannot be held out: expected at least "
            f"{defaults.MIN_KINDS * defaults.MIN_KIND_PICTURES} pictures, got {len(images)}"
        )
    kinds = np.full(len(features), n_kinds)
    kinds[images] = cluster_pictures(features[images], n_kinds, seed)
    return kinds, n_kinds, BY_CLUSTERS


def cluster_pictures(features: np.ndarray, n_kinds: int, seed: int) -> np.ndarray:
    """Return `(n_images,)` integers: k-means clusters of features.

    Args:
        features: `(n_images, n_features)` float32, rows of length 1; all finite.
        n_kinds: clusters.
        seed: of the start.
    """
    from sklearn.cluster import KMeans

    return KMeans(n_kinds, n_init=3, random_state=seed).fit_predict(features)


def hold_out_kinds(
    rows: np.ndarray, kinds: np.ndarray, n_kinds: int, fraction: float, seed: int, fewest: int = 2
) -> HeldOutKinds:
    """Choose whole kinds to hold out, of several draws the one that keeps most triplets.

    A draw of clusters that cuts a kind of things in two separates pictures that triplets join,
    and loses these; so the draw that keeps most is also the one that is nearest to holding out
    kinds as the judges see them.

    Args:
        rows: `(n_triplets, 3)` indices into `kinds`.
        kinds: `(n_images,)` integers; `n_kinds` where a picture is not to be held out.
        n_kinds: in all.
        fraction: of the pictures to hold out, about.
        seed: of the draws.
        fewest: kinds to hold out at least. A question needs pictures of two.
    Raises:
        SplitError: if no draw leaves triplets on both sides.
    """
    rng = np.random.default_rng(seed)
    sizes = np.bincount(kinds, minlength=n_kinds)[:n_kinds]
    wanted = fraction * sizes.sum()
    best: tuple[int, HeldOutKinds | None] = (0, None)
    for _ in range(defaults.KINDS_DRAWS):
        order = rng.permutation(n_kinds)
        n_drawn = max(fewest, int(np.searchsorted(np.cumsum(sizes[order]), wanted, side="right")))
        is_held_out = np.isin(kinds, order[:n_drawn])
        split = separate_groups(BY_KINDS, rows, is_held_out, True)
        # The product is largest where neither side is short.
        kept = len(split.train_rows) * len(split.val_rows)
        if kept > best[0]:
            best = kept, HeldOutKinds(is_held_out, n_kinds, n_drawn, split)
    if best[1] is None:
        raise SplitError(
            f"whole kinds of pictures cannot be held out: of {defaults.KINDS_DRAWS} draws of "
            f"{fraction:.0%} of {sizes.sum():,} pictures none leaves triplets on both sides"
        )
    return best[1]

"""Kinds of pictures: clusters of their features, and what is held out with whole clusters.

Pictures that a split by image holds out are of the same kinds of things as those in training.
How a model does on other kinds can only be seen where whole kinds are held out.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tripletkit import defaults
from tripletkit.data.splits import Split, separate_groups
from tripletkit.errors import SplitError

BY_KINDS = "kinds"


@dataclass(frozen=True)
class HeldOutKinds:
    """Which pictures are of kinds that training does without.

    Attributes:
        is_held_out: `(n_images,)` bool.
        n_kinds, n_held_out_kinds: clusters in all, and those held out.
        split: of the triplets; rows that mix both sides are dropped.
    """

    is_held_out: np.ndarray
    n_kinds: int
    n_held_out_kinds: int
    split: Split


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
    rows: np.ndarray, kinds: np.ndarray, n_kinds: int, fraction: float, seed: int
) -> HeldOutKinds:
    """Choose whole clusters to hold out, of several draws the one that keeps most triplets.

    A draw that cuts a kind of things in two separates pictures that triplets join, and loses
    these; so the draw that keeps most is also the one that is nearest to holding out kinds as
    the judges see them.

    Args:
        rows: `(n_triplets, 3)` indices into `kinds`.
        kinds: `(n_images,)` integers; `n_kinds` where a picture is not used.
        n_kinds: clusters.
        fraction: of the pictures to hold out, about.
        seed: of the draws.
    Raises:
        SplitError: if no draw leaves triplets on both sides.
    """
    rng = np.random.default_rng(seed)
    sizes = np.bincount(kinds, minlength=n_kinds)[:n_kinds]
    wanted = fraction * sizes.sum()
    best: tuple[int, HeldOutKinds | None] = (0, None)
    for _ in range(defaults.KINDS_DRAWS):
        order = rng.permutation(n_kinds)
        # A question needs pictures of two kinds.
        n_drawn = max(2, int(np.searchsorted(np.cumsum(sizes[order]), wanted, side="right")))
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

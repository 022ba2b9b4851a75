"""What a split costs, and how well its validation set can tell two models apart."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tripletkit import defaults
from tripletkit.data.splits.policies import Split
from tripletkit.data.triplets import Triplets


@dataclass(frozen=True)
class SplitPrice:
    """What a split keeps and drops.

    Attributes:
        n_train, n_val, n_dropped: triplets.
        n_train_images, n_val_images: images that the triplets kept on a side name.
        n_shared_images: images named on both sides.
        half_width: of the 95% Wilson interval of an accuracy of `defaults.EXPECTED_ACCURACY` on
            the validation triplets, 0 to 1. Triplets that share images tell less than as many
            independent ones, so take it for the least.
    """

    n_train: int
    n_val: int
    n_dropped: int
    n_train_images: int
    n_val_images: int
    n_shared_images: int
    half_width: float

    @property
    def n_triplets(self) -> int:
        return self.n_train + self.n_val + self.n_dropped


def price_split(triplets: Triplets, split: Split) -> SplitPrice:
    """Count what a split keeps and drops."""
    train_images = np.unique(triplets.rows[split.train_rows])
    val_images = np.unique(triplets.rows[split.val_rows])
    n_val = len(split.val_rows)
    return SplitPrice(
        n_train=len(split.train_rows),
        n_val=n_val,
        n_dropped=len(split.dropped_rows),
        n_train_images=len(train_images),
        n_val_images=len(val_images),
        n_shared_images=len(np.intersect1d(train_images, val_images)),
        half_width=_wilson_half_width(defaults.EXPECTED_ACCURACY, n_val),
    )


def _wilson_half_width(share: float, n: int) -> float:
    """Return half the width of Wilson's 95% interval of a share of n rows."""
    if not n:
        return 0.5
    z = 1.959963984540054
    return z * float(np.sqrt(share * (1 - share) / n + (z / n / 2) ** 2)) / (1 + z**2 / n)

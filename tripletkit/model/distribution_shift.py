"""Distribution shift: whether images that are asked about are of the kind that training saw.

Accuracy on held-out images speaks for images like them. On a kind that no training image shows, it
may be ten points too high, and nothing in triplets or answers tells. The features do: such images
have no near neighbour among those of the training. Of single images this tells little: at 5% false
alarms a sixth to a quarter of the images of new classes is found. Of all images of a test it tells
more; see `docs/answer.md`.

References:
    Sun, Ming, Zhu, Li. Out-of-distribution detection with deep nearest neighbors. ICML 2022.
    arXiv:2204.06507. Mann, Whitney. On a test of whether one of two random variables is
    stochastically larger than the other. Annals of Mathematical Statistics 18 (1947). Achlioptas.
    Database-friendly random projections. Journal of Computer and
    System Sciences 66 (2003) (a matrix of random signs keeps angles).
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pandas as pd

from tripletkit.features.unit_length import scale_to_unit_length

# Fewer images than this say nothing all in all.
_FEWEST_IMAGES = 10
# Projected features: few enough to keep in a model folder, enough to keep a cosine within 0.05.
_N_DIMS = 512
_MAX_IMAGES = 1000
_MIN_IMAGES = 30
# Of sets of new images of the training's own classes so many are called unlike.
_FALSE_ALARMS = 0.05
# Where so many images are unlike all of the training, the others do not matter.
_MANY_OUTSIDE = 0.25
# Images at a time, so that a large collection takes no more memory than its features do.
_BLOCK_ROWS = 4096


@dataclass(frozen=True)
class ShiftDetector:
    """Training images as far as it takes to find those that are unlike all of them.

    Attributes:
        mean: `(n_features,)` float32, of features of length 1.
        images: `(n_images, _N_DIMS)` float32 of length 1: features around the mean, projected.
    """

    mean: np.ndarray
    images: np.ndarray

    @classmethod
    def of(cls, features: np.ndarray) -> ShiftDetector | None:
        """Learn what training images look like; None if there are fewer than `_MIN_IMAGES`."""
        if len(features) < _MIN_IMAGES:
            return None
        if len(features) > _MAX_IMAGES:
            drawn = np.random.default_rng(0).choice(len(features), _MAX_IMAGES, replace=False)
            features = features[np.sort(drawn)]
        mean = scale_to_unit_length(features).mean(axis=0)
        return cls(mean, _project(features, mean))

    @cached_property
    def known(self) -> np.ndarray:
        """Return `(n_images,)` cosines from each training image to the nearest other."""
        cosines = self.images @ self.images.T
        np.fill_diagonal(cosines, -1)
        return cosines.max(axis=1)

    def nearest(self, features: np.ndarray) -> np.ndarray:
        """Return `(n_images,)` cosines from images to the nearest of the training."""
        blocks = np.split(features, range(_BLOCK_ROWS, len(features), _BLOCK_ROWS))
        return np.concatenate(
            [(_project(block, self.mean) @ self.images.T).max(axis=1) for block in blocks]
        )

    def describe(self, features: np.ndarray) -> str | None:
        """Return what is to be said where images, all in all, are farther from those of the
        training than these are from each other: of sets of new images of the same classes,
        `_FALSE_ALARMS` are. Among many images of the training itself, which are as near as can
        be, ranks would not show new ones; `_MANY_OUTSIDE` does."""
        nearest = self.nearest(features)
        nearest = nearest[np.isfinite(nearest)]
        if len(nearest) < _FEWEST_IMAGES:
            return None
        n_outside = int(np.sum(nearest < np.quantile(self.known, _FALSE_ALARMS)))
        is_mixed = n_outside >= _MANY_OUTSIDE * len(nearest)
        if not is_mixed and _chance_of_less(nearest, self.known) >= _FALSE_ALARMS:
            return None
        return (
            f"The {len(nearest):,} images are less like those of the training than these are like "
            f"each other, {n_outside:,} of them unlike all: they may show other classes, and then "
            "the accuracy on unseen classes is what to expect."
        )

    def save(self, path: Path) -> None:
        """Write the detector; the same bytes each time."""
        np.savez(path, mean=self.mean, images=self.images.astype(np.float16))

    @classmethod
    def load(cls, source: Path | BinaryIO) -> ShiftDetector:
        """Read what `save` wrote."""
        with np.load(source, allow_pickle=False) as file:
            return cls(file["mean"], file["images"].astype(np.float32))


def _chance_of_less(some: np.ndarray, others: np.ndarray) -> float:
    """Return the p-value of some numbers being less than others, by their ranks. It is
    `scipy.stats.mannwhitneyu` for more than a few; that takes a second to load, in which `predict`
    is done."""
    n_some, n_others = len(some), len(others)
    n_pairs, n = n_some * n_others, n_some + n_others
    together = pd.Series(np.concatenate([some, others]))
    below = n_pairs + n_some * (n_some + 1) / 2 - together.rank()[:n_some].sum()
    alike = together.value_counts().to_numpy(float)
    variance = n_pairs / 12 * (n + 1 - (alike**3 - alike).sum() / (n * (n - 1)))
    if variance <= 0:
        return 1.0
    return 0.5 * math.erfc((below - n_pairs / 2 - 0.5) / math.sqrt(2 * variance))


def _project(features: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """Return `(n_images, _N_DIMS)` float32 of length 1."""
    # Signs from a hash, which no version of a random generator changes.
    n_signs = len(mean) * _N_DIMS
    drawn = hashlib.shake_256(b"tripletkit distribution shift").digest(n_signs // 8)
    bits = np.unpackbits(np.frombuffer(drawn, np.uint8)).reshape(len(mean), _N_DIMS)
    signs = bits.astype(np.float32) * 2 - 1
    return scale_to_unit_length((scale_to_unit_length(features) - mean) @ signs)

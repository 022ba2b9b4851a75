"""Distribution shift: whether images that are asked about are of the kind that training saw.

Accuracy on held-out images speaks for images like them. On a kind that no training image shows, it
may be ten points too high, and nothing in triplets or answers tells. The features do: such images
have no near neighbour among those of the training.

References:
    Sun, Ming, Zhu, Li. Out-of-distribution detection with deep nearest neighbors. ICML 2022.
    arXiv:2204.06507. Achlioptas. Database-friendly random projections. Journal of Computer and
    System Sciences 66 (2003) (a matrix of random signs keeps angles).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tripletkit.features.unit_length import scale_to_unit_length

# Answers come with a caution where at least so many of the images asked about, and such a share of
# them, are unlike those of the training. Of images of the same kind it is about 0.05.
SHIFTED_IMAGES = 3
SHIFTED_SHARE = 0.25

# Projected features: few enough to keep in a model folder, enough to keep a cosine within 0.05.
N_DIMS = 512
MAX_IMAGES = 1000
MIN_IMAGES = 30
# Of images of the training's own kind, so many are called unlike it.
FALSE_ALARMS = 0.05
_N_DRAWS = 5
# Images at a time, so that a large collection takes no more memory than its features do.
_BLOCK_ROWS = 4096


@dataclass(frozen=True)
class ShiftDetector:
    """Training images as far as it takes to find those that are unlike all of them.

    Attributes:
        mean: `(n_features,)` float32, of features of length 1.
        images: `(n_images, N_DIMS)` float32 of length 1: features around the mean, projected.
        threshold: the cosine to the nearest training image below which an image is outside.
    """

    mean: np.ndarray
    images: np.ndarray
    threshold: float

    @classmethod
    def of(cls, features: np.ndarray) -> ShiftDetector | None:
        """Learn what training images look like; None if there are fewer than `MIN_IMAGES`.

        The threshold comes from draws that hold a third of the images out, as validation does.
        """
        if len(features) < MIN_IMAGES:
            return None
        rng = np.random.default_rng(0)
        if len(features) > MAX_IMAGES:
            features = features[np.sort(rng.choice(len(features), MAX_IMAGES, replace=False))]
        mean = scale_to_unit_length(features).mean(axis=0)
        images = _project(features, mean)
        nearest = []
        for _ in range(_N_DRAWS):
            order = rng.permutation(len(images))
            held_out, others = np.split(order, [len(order) // 3])
            nearest.append((images[held_out] @ images[others].T).max(axis=1))
        return cls(mean, images, float(np.quantile(np.concatenate(nearest), FALSE_ALARMS)))

    def is_outside(self, features: np.ndarray) -> np.ndarray:
        """Return `(n_images,)` bool: no training image is as near as training images are."""
        is_outside = np.empty(len(features), bool)
        for start in range(0, len(features), _BLOCK_ROWS):
            rows = slice(start, start + _BLOCK_ROWS)
            cosines = _project(features[rows], self.mean) @ self.images.T
            is_outside[rows] = cosines.max(axis=1) < self.threshold
        return is_outside

    def describe(self, features: np.ndarray) -> str | None:
        """Return what is to be said where many images are unlike those of the training."""
        n_outside, n_images = int(self.is_outside(features).sum()), len(features)
        if n_outside < max(SHIFTED_IMAGES, SHIFTED_SHARE * n_images):
            return None
        return (
            f"{n_outside:,} of the {n_images:,} images are unlike those of the training: what it "
            "said of its accuracy may not hold for them."
        )

    def save(self, path: Path) -> None:
        """Write the detector; the same bytes each time."""
        np.savez(
            path,
            mean=self.mean,
            images=self.images.astype(np.float16),
            threshold=np.float32(self.threshold),
        )

    @classmethod
    def load(cls, path: Path) -> ShiftDetector:
        """Read what `save` wrote."""
        with np.load(path, allow_pickle=False) as file:
            images = file["images"].astype(np.float32)
            return cls(file["mean"], images, float(file["threshold"]))


def _project(features: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """Return `(n_images, N_DIMS)` float32 of length 1."""
    # Signs from a hash, which no version of a random generator changes.
    n_signs = len(mean) * N_DIMS
    drawn = hashlib.shake_256(b"tripletkit distribution shift").digest(n_signs // 8)
    bits = np.unpackbits(np.frombuffer(drawn, np.uint8)).reshape(len(mean), N_DIMS)
    signs = bits.astype(np.float32) * 2 - 1
    return scale_to_unit_length((scale_to_unit_length(features) - mean) @ signs)

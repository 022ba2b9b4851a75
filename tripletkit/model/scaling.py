"""Standardising features over the training images, and taking it back into a head."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Scaling:
    """Shift and scale that give features mean 0 and deviation 1 over the training images.

    Attributes:
        mean, deviation: `(n_features,)` float64.
    """

    mean: np.ndarray
    deviation: np.ndarray

    @classmethod
    def of(cls, features: np.ndarray) -> Scaling:
        deviation = features.std(axis=0, dtype=np.float64)
        # A feature that hardly ever varies would be blown up to noise; so would a dead one.
        floor = 0.1 * deviation.mean()
        return cls(
            features.mean(axis=0, dtype=np.float64),
            np.maximum(deviation, floor if floor > 0 else 1.0),
        )

    def apply(self, features: np.ndarray) -> np.ndarray:
        scaled = features - self.mean.astype(np.float32)
        scaled /= self.deviation.astype(np.float32)
        return scaled

    def fold_into(self, weights: list[np.ndarray]) -> list[np.ndarray]:
        """Return a head's weights that give the same embeddings on features as they are."""
        kernel, bias, *others = weights
        folded = kernel / self.deviation[:, None]
        return [folded, bias - self.mean @ folded, *others]

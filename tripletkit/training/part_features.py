"""Features as the parts of an ensemble are trained on them: scaled, and few numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from tripletkit import defaults
from tripletkit.features.unit_length import scale_to_unit_length
from tripletkit.model.head_layers import Scaling

# Directions whose deviation is below this share of the largest one's are noise of rounding.
_SMALLEST = 1e-3


@dataclass(frozen=True)
class PartFeatures:
    """Features of one network and depth, and the directions in which training sees them.

    A step is learned from the leading principal components: there are fewer of them than
    features, which makes training several times faster at the same accuracy. What is learned is
    then written for all features, so that a model knows nothing of it.

    Attributes:
        scaling: of features of length 1 over the training images; None where they stay so.
        scaled: `(n_images, n_features)` float32, standardised by it.
        directions: `(n_features, n_directions)` float32, orthonormal columns.
    """

    scaling: Scaling | None
    scaled: np.ndarray
    directions: np.ndarray

    @classmethod
    def of(
        cls,
        features: np.ndarray,
        trained: np.ndarray,
        n_directions: int = defaults.PART_DIRECTIONS,
        *,
        is_standardised: bool = True,
    ) -> PartFeatures:
        """Scale features, and find their directions, over the training images alone.

        Args:
            features: `(n_images, n_features)` float32.
            trained: indices of the training images.
            n_directions: at most so many.
            is_standardised: beside length 1, they get mean 0 and deviation 1.
        """
        unit = scale_to_unit_length(features)
        if not is_standardised:
            return cls(None, unit, _find_directions(unit[trained], n_directions))
        scaling = Scaling.of(unit[trained])
        scaled = scaling.apply(unit)
        return cls(scaling, scaled, _find_directions(scaled[trained], n_directions))

    @property
    def n_features(self) -> int:
        return self.scaled.shape[1]

    @cached_property
    def reduced(self) -> np.ndarray:
        """Return `(n_images, n_directions)` float32: the components of each image."""
        return self.scaled @ self.directions

    def lift(self, weights: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Return weights of a residual head over components as weights over all features."""
        kernel, bias, last, _ = weights
        nothing = np.zeros(self.n_features, np.float32)
        return [self.directions @ kernel, bias, last @ self.directions.T, nothing]


def _find_directions(scaled: np.ndarray, n_directions: int) -> np.ndarray:
    """Return the leading principal directions of rows, around 0."""
    n_directions = min(n_directions, max(1, len(scaled) - 1), scaled.shape[1])
    if len(scaled) <= scaled.shape[1]:
        # From the smaller matrix of products between images.
        squares, of_images = np.linalg.eigh(scaled @ scaled.T)
        order = np.argsort(-squares)[:n_directions]
        deviations = np.sqrt(np.maximum(squares[order], 0))
        kept = deviations > _SMALLEST * max(deviations[0], np.finfo(np.float32).tiny)
        if not kept.any():
            # Images that are all the same have no directions; any will do.
            return np.eye(scaled.shape[1], n_directions, dtype=np.float32)
        return (scaled.T @ of_images[:, order[kept]] / deviations[kept]).astype(np.float32)
    from sklearn.utils.extmath import randomized_svd

    _, _, rows = randomized_svd(scaled, n_directions, n_iter=2, random_state=0)
    return np.ascontiguousarray(rows.T, dtype=np.float32)

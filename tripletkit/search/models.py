"""What turns images into vectors that can be compared: a trained model, or backbones alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tripletkit.evaluation.distances import FROZEN_DISTANCE
from tripletkit.features.encoders import FeatureSource
from tripletkit.features.given_features import GivenSource
from tripletkit.model.model_folder import ModelFolder


@dataclass(frozen=True)
class Encoder:
    """How images become vectors, and how these are compared.

    Attributes:
        source: what features are of.
        model: whose embeddings are taken; None for the features themselves.
    """

    source: FeatureSource | GivenSource
    model: ModelFolder | None = None

    @property
    def distance(self) -> str:
        """The distance that belongs to the vectors."""
        return FROZEN_DISTANCE if self.model is None else self.model.distance

    @property
    def fingerprint(self) -> str:
        """What decides every vector beside the image."""
        if self.model is None:
            return f"features {self.source.fingerprint}"
        return f"model {self.model.record.sha256}"

    def encode(self, features: np.ndarray) -> np.ndarray:
        """Return the vectors of images.

        Args:
            features: `(n_images, n_features)` float32; a row of NaN gives one.
        Returns:
            `(n_images, n_dims)` float32.
        """
        if self.model is None:
            return features
        from tripletkit.model.embedding import embed

        return embed(self.model.open_head(), features)

"""What turns pictures into vectors that can be compared: a trained model, or a backbone alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tripletkit.evaluation.distances import FROZEN_DISTANCE
from tripletkit.features.backbones import Backbone
from tripletkit.features.collection import space_of
from tripletkit.features.store import FeatureSpace
from tripletkit.features.weights_origin import WeightsFile
from tripletkit.model.artifact import ModelFolder


@dataclass(frozen=True)
class Encoder:
    """How pictures become vectors, and how these are compared.

    Attributes:
        backbone, space: what features are of.
        find_weights: returns the backbone's weights file; called only if it is needed.
        model: whose codes are taken; None for the features themselves.
    """

    backbone: Backbone
    space: FeatureSpace
    find_weights: Callable[[], Path]
    model: ModelFolder | None

    @classmethod
    def of_model(cls, model: ModelFolder, weights: Path | None = None) -> Encoder:
        """Take the codes of a trained model."""
        return cls(model.backbone, model.space, lambda: model.find_weights(weights), model)

    @classmethod
    def of_features(cls, model: ModelFolder, weights: Path | None = None) -> Encoder:
        """Take the features that a trained model starts from."""
        return cls(model.backbone, model.space, lambda: model.find_weights(weights), None)

    @classmethod
    def of_backbone(cls, weights: WeightsFile) -> Encoder:
        """Take the features of a backbone, without any model."""
        return cls(weights.backbone, space_of(weights), lambda: weights.path, None)

    @property
    def distance(self) -> str:
        """The distance that belongs to the vectors."""
        return FROZEN_DISTANCE if self.model is None else self.model.distance

    @property
    def fingerprint(self) -> str:
        """What decides every vector beside the picture."""
        if self.model is None:
            return f"features {self.space.fingerprint}"
        return f"model {self.model.record['sha256']}"

    def encode(self, features: np.ndarray) -> np.ndarray:
        """Return the vectors of pictures.

        Args:
            features: `(n_images, n_features)` float32; a row of NaN gives one.
        Returns:
            `(n_images, n_dims)` float32.
        """
        if self.model is None:
            return features
        from tripletkit.model.heads import embed

        return embed(self.model.load_head(), features)

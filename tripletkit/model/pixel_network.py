"""A backbone and a head as one network from pixels to embeddings, some of it learning."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tripletkit.errors import BackboneError
from tripletkit.features.backbones import Backbone
from tripletkit.features.keras_backend import keras, seed_layers
from tripletkit.features.preprocessing import add_preprocessing
from tripletkit.features.trained_weights import build_backbone
from tripletkit.model.heads import build_body
from tripletkit.model.settings import HeadSettings


@dataclass(frozen=True)
class PixelNetwork:
    """What is trained from pixels.

    Attributes:
        backbone: for its preprocessing and input size.
        backbone_model: preprocessed pixels -> features.
        head: features -> embeddings.
        encoder: `(batch, side, side, 3)` float32, RGB, 0 to 255 -> `(batch, dim)`; made of the
            two, so that training it trains them.
    """

    backbone: Backbone
    backbone_model: keras.Model
    head: keras.Model
    encoder: keras.Model

    @classmethod
    def join(
        cls, backbone: Backbone, backbone_model: keras.Model, head: keras.Model
    ) -> PixelNetwork:
        side = backbone.input_size_px
        pixels = keras.Input((side, side, 3), name="pixels")
        features = backbone_model(add_preprocessing(pixels, backbone.preprocessing))
        return cls(backbone, backbone_model, head, keras.Model(pixels, head(features)))

    @classmethod
    def from_scratch(cls, backbone: Backbone, start: Path, settings: HeadSettings) -> PixelNetwork:
        """Return a network that learns as a whole: random weights, and a new head on them.

        Args:
            start: the file of the weights.
        """
        seed_layers(settings.seed)
        head = build_body(backbone.n_features, settings)
        return cls.join(backbone, build_backbone(backbone, start), head)

    @classmethod
    def unfrozen(
        cls, backbone: Backbone, start: Path, head: keras.Model, n_blocks: int
    ) -> PixelNetwork:
        """Return a network whose last blocks and trained head go on learning.

        Args:
            start: the file of the backbone's weights.
        Raises:
            BackboneError: if the backbone has not so many blocks.
        """
        model = build_backbone(backbone, start)
        unfreeze_blocks(backbone, model, n_blocks)
        return cls.join(backbone, model, head)

    @property
    def changing(self) -> list[keras.Variable]:
        """All that training changes: weights, statistics, and the state of chance in Dropout."""
        found = {
            id(variable): variable
            for layer in _leaves(self.encoder)
            if layer.trainable
            for variable in layer.variables
        }
        return list(found.values())

    def n_weights(self) -> tuple[int, int]:
        """Return how many of the backbone's weights learn, and how many there are."""
        learning = sum(int(np.prod(v.shape)) for v in self.backbone_model.trainable_variables)
        return learning, self.backbone_model.count_params()

    def activation_bytes(self) -> int:
        """Return about how much memory an image takes in a step, bytes.

        What the learning layers give stays for the way back; of the others the largest two.
        """
        outputs = [
            (layer.trainable and bool(layer.weights), 4 * int(np.prod(layer.output.shape[1:])))
            for layer in self.backbone_model.layers
        ]
        first = next((at for at, (learns, _) in enumerate(outputs) if learns), len(outputs))
        passing = sorted((size for _, size in outputs[:first]), reverse=True)[:2]
        return sum(size for _, size in outputs[first:]) + sum(passing)


def unfreeze_blocks(backbone: Backbone, model: keras.Model, n_blocks: int) -> None:
    """Let the last blocks of a backbone learn, and nothing else of it.

    Batch norm stays frozen everywhere: its statistics, and its scale and shift, are those of
    ImageNet. Statistics of small batches of few images would undo what the network knows.

    Args:
        model: the backbone's; changed.
        n_blocks: how many, from 1.
    Raises:
        BackboneError: if it has not so many.
    """
    if not 1 <= n_blocks <= len(backbone.blocks):
        raise BackboneError(
            f"`blocks={n_blocks}`: expected at most {len(backbone.blocks)}, as many blocks as "
            f"{backbone.name} has"
        )
    patterns = [re.compile(block) for block in backbone.blocks[-n_blocks:]]
    for layer in model.layers:
        layer.trainable = not isinstance(layer, _STATISTICS) and any(
            pattern.match(layer.name) for pattern in patterns
        )


_STATISTICS = (keras.layers.BatchNormalization, keras.layers.Normalization)


def _leaves(model: keras.Model) -> Iterator[keras.Layer]:
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            yield from _leaves(layer)
        else:
            yield layer

"""Backbones and a head as one network from pixels to embeddings.

It is exported, the backbones frozen, also with three inputs as the source's model has them; or
trained from pixels, a backbone from scratch or its last blocks.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tripletkit.errors import BackboneError
from tripletkit.features.backbones import Backbone
from tripletkit.features.feature_parts import pixel_inputs
from tripletkit.features.image_views import ORIGINAL, View
from tripletkit.features.keras_backbones import add_preprocessing
from tripletkit.features.keras_backend import keras, seed_layers
from tripletkit.features.weights_files import build_backbone
from tripletkit.model.heads import build_body
from tripletkit.model.settings import Settings

INPUT_NAMES = ("anchor", "positive", "negative")


def build_encoder(
    backbones: Sequence[tuple[Backbone, keras.Model]],
    head: keras.Model,
    views: Sequence[View] = (ORIGINAL,),
) -> keras.Model:
    """Return the model from images to embeddings, preprocessing inside.

    Built-in layers only, so that its `.keras` file loads with `safe_mode=True` and without
    tripletkit.

    Each backbone is frozen here; its model may have several outputs, each a piece of the features
    that counts alike.

    Returns:
        A model from `(batch, side, side, 3)` RGB, 0 to 255, uint8 or float, to `(batch, dim)`.
        Where backbones and views need an image resized in several ways, it takes one input for
        each, named like `pixels_224px_bilinear`, because no network resizes as Pillow does.
    """
    inputs = {
        (side, resample): keras.Input((side, side, 3), name=name)
        for (side, resample), name in pixel_inputs([each for each, _ in backbones], views).items()
    }
    pieces = [
        piece
        for backbone, model in backbones
        for piece in _add_views(inputs, backbone, model, views)
    ]
    if len(pieces) > 1:
        of_unit_length = [keras.layers.UnitNormalization()(piece) for piece in pieces]
        pieces = [keras.layers.Concatenate(name="backbones")(of_unit_length)]
    pixels = list(inputs.values())
    return keras.Model(pixels if len(pixels) > 1 else pixels[0], head(pieces[0]), name="encoder")


def _add_views(
    inputs: Mapping[tuple[int, str], keras.KerasTensor],
    backbone: Backbone,
    model: keras.Model,
    views: Sequence[View],
) -> list[keras.KerasTensor]:
    """Return the mean over views of each piece of a backbone's features."""
    model.trainable = False
    size, how = backbone.input_size_px, backbone.preprocessing
    prepared = {
        side: add_preprocessing(pixels, how, f"preprocessing{pixels.name.removeprefix('pixels')}")
        for (side, resample), pixels in inputs.items()
        if resample == how.resample
    }
    of_views = []
    for view in views:
        side = view.resized_px(size)
        pixels = prepared[side]
        if side != size:
            left, top = view.corner_px(size)
            pixels = keras.layers.Cropping2D(
                ((top, side - size - top), (left, side - size - left))
            )(pixels)
        if view.is_mirrored:
            pixels = keras.ops.flip(pixels, axis=2)
        pieces = model(pixels, training=False)
        of_views.append(pieces if isinstance(pieces, list) else [pieces])
    if len(views) == 1:
        return of_views[0]
    return [keras.layers.Average()(list(piece)) for piece in zip(*of_views, strict=True)]


def build_triplet_network(encoder: keras.Model) -> keras.Model:
    """Return the three-input model whose output is the three embeddings side by side.

    Returns:
        A model from three `(batch, side, side, 3)` inputs named anchor, positive and negative
        to `(batch, 3 * dim)`; from three times as many as the encoder has, where that is
        several, named like `anchor_224px_bilinear`.
    """
    images = [
        [
            keras.Input(pixels.shape[1:], name=pixels.name.replace("pixels", name, 1))
            for pixels in encoder.inputs
        ]
        for name in INPUT_NAMES
    ]
    embeddings = keras.layers.Concatenate(name="embeddings")(
        [encoder(forms if len(forms) > 1 else forms[0]) for forms in images]
    )
    inputs = [pixels for forms in images for pixels in forms]
    return keras.Model(inputs, embeddings, name="triplet_network")


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
    def from_scratch(cls, backbone: Backbone, start: Path, settings: Settings) -> PixelNetwork:
        """Return a network that learns as a whole, from the random weights of a file."""
        seed_layers(settings.seed)
        head = build_body(backbone.n_features, settings)
        return cls.join(backbone, build_backbone(backbone, start), head)

    @classmethod
    def unfrozen(
        cls, backbone: Backbone, start: Path, head: keras.Model, n_blocks: int
    ) -> PixelNetwork:
        """Return a network whose last blocks and trained head go on learning."""
        model = build_backbone(backbone, start)
        _unfreeze_blocks(backbone, model, n_blocks)
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


def _unfreeze_blocks(backbone: Backbone, model: keras.Model, n_blocks: int) -> None:
    """Let the last blocks of a backbone learn, and nothing else of it.

    Batch norm stays frozen everywhere: its statistics, and its scale and shift, are those of
    ImageNet. Statistics of small batches of few images would undo what the network knows.
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

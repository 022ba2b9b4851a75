"""The source's model on images: frozen backbones and a head, shared by three inputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tripletkit.features.backbones import Backbone
from tripletkit.features.feature_parts import pixel_inputs
from tripletkit.features.image_views import ORIGINAL, View
from tripletkit.features.keras_backend import keras
from tripletkit.features.preprocessing import add_preprocessing

INPUT_NAMES = ("anchor", "positive", "negative")


def build_encoder(
    backbones: Sequence[tuple[Backbone, keras.Model]],
    head: keras.Model,
    views: Sequence[View] = (ORIGINAL,),
) -> keras.Model:
    """Return the model from images to embeddings, preprocessing inside.

    Built-in layers only, so that its `.keras` file loads with `safe_mode=True` and without
    tripletkit.

    Args:
        backbones: each with its Keras model, which is frozen here; its batch norm stays in
            inference mode in training too. A model may have several outputs, each a piece of the
            features that counts alike.
        head: maps features to embeddings.
        views: what the features are averaged over.
    Returns:
        A model from `(batch, side, side, 3)` RGB, 0 to 255, uint8 or float, to `(batch, dim)`.
        Where backbones and views need an image resized in several ways, it takes one input for
        each, named like `pixels_224px_bilinear`, because no network resizes as Pillow does.
    """
    inputs = _make_inputs([backbone for backbone, _ in backbones], views)
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


def _make_inputs(
    backbones: Sequence[Backbone], views: Sequence[View]
) -> dict[tuple[int, str], keras.KerasTensor]:
    """Return (side in pixels, filter that resizes) -> an input of such images."""
    return {
        (side, resample): keras.Input((side, side, 3), name=name)
        for (side, resample), name in pixel_inputs(backbones, views).items()
    }


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

    Args:
        encoder: used for all three inputs, so its weights exist once.
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

"""The source's model on images: frozen backbones and a head, shared by three inputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tripletkit.features.backbones import Backbone
from tripletkit.features.image_views import ORIGINAL, View
from tripletkit.features.keras_backend import keras
from tripletkit.features.preprocessing import add_preprocessing
from tripletkit.features.sources import pixel_inputs

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
            inference mode in training too.
        head: maps features to embeddings.
        views: what the features are averaged over.
    Returns:
        A model from `(batch, side, side, 3)` RGB, 0 to 255, uint8 or float, to `(batch, dim)`.
        Where backbones and views need an image resized in several ways, it takes one input for
        each, named like `pixels_224px_bilinear`, because no network resizes as Pillow does.
    """
    inputs = _make_inputs([backbone for backbone, _ in backbones], views)
    of_parts = [_add_views(inputs, backbone, model, views) for backbone, model in backbones]
    if len(of_parts) > 1:
        of_unit_length = [keras.layers.UnitNormalization()(features) for features in of_parts]
        of_parts = [keras.layers.Concatenate(name="backbones")(of_unit_length)]
    pixels = list(inputs.values())
    return keras.Model(pixels if len(pixels) > 1 else pixels[0], head(of_parts[0]), name="encoder")


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
) -> keras.KerasTensor:
    """Return the mean of a backbone's features over views."""
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
        of_views.append(model(pixels, training=False))
    return (
        keras.layers.Average(name=f"views_of_{model.name}")(of_views)
        if len(views) > 1
        else of_views[0]
    )


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

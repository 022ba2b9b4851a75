"""The source's model on pictures: a frozen backbone and a head, shared by three inputs."""

from __future__ import annotations

import keras

from tripletkit.features.backbones import Backbone
from tripletkit.features.preprocessing import add_preprocessing

INPUT_NAMES = ("anchor", "positive", "negative")


def build_encoder(
    backbone: Backbone, backbone_model: keras.Model, head: keras.Model
) -> keras.Model:
    """Return the model from pictures to codes, preprocessing inside.

    Built-in layers only, so that its `.keras` file loads with `safe_mode=True` and without
    tripletkit.

    Args:
        backbone: for its preprocessing and input size.
        backbone_model: frozen here; its batch norm stays in inference mode in training too.
        head: maps features to codes.
    Returns:
        A model from `(batch, side, side, 3)` RGB, 0 to 255, uint8 or float, to `(batch, dim)`.
    """
    backbone_model.trainable = False
    side = backbone.input_size_px
    pixels = keras.Input((side, side, 3), name="pixels")
    features = backbone_model(add_preprocessing(pixels, backbone.preprocessing), training=False)
    return keras.Model(pixels, head(features), name="encoder")


def build_triplet_network(encoder: keras.Model) -> keras.Model:
    """Return the three-input model whose output is the three codes side by side.

    Args:
        encoder: used for all three inputs, so its weights exist once.
    Returns:
        A model from three `(batch, side, side, 3)` inputs named anchor, positive and negative
        to `(batch, 3 * dim)`.
    """
    inputs = [keras.Input(encoder.input_shape[1:], name=name) for name in INPUT_NAMES]
    codes = keras.layers.Concatenate(name="codes")([encoder(pixels) for pixels in inputs])
    return keras.Model(inputs, codes, name="triplet_network")

"""A backbone's preprocessing as built-in Keras layers, so that exported models carry it."""

from __future__ import annotations

import numpy as np

from tripletkit.features.backbones import Preprocessing
from tripletkit.features.keras_backend import keras


def add_preprocessing(
    pixels: keras.KerasTensor, how: Preprocessing, name: str = "preprocessing"
) -> keras.KerasTensor:
    """Put preprocessing behind an input.

    Args:
        pixels: `(batch, height, width, 3)` float32, RGB, 0 to 255.
        how: the backbone's own.
        name: of the layer, which has to be one of its kind in a network.
    Returns:
        `(batch, height, width, 3)` float32, as the backbone was trained on. The input is not
        changed (Keras's own `preprocess_input` writes into float arrays).
    """
    if how.reverse_channels:
        pixels = keras.ops.flip(pixels, axis=-1)
    variance = np.broadcast_to(np.square(how.divisor), 3)
    return keras.layers.Normalization(mean=how.mean, variance=variance.tolist(), name=name)(pixels)

"""The small convolutional network of the CIFAR-10 source, trained from scratch."""

from __future__ import annotations

from pathlib import Path

from tripletkit.features.keras_backend import keras
from tripletkit.features.weights_files import load_weights_file

NAME = "cnn"
IMAGE_SIZE_PX = 32

_FILTERS = (32, 64, 128)


def build(weights: Path | None, size_px: int = IMAGE_SIZE_PX) -> keras.Model:
    """Return three 3x3 convolutions of stride 2 with ReLU, and global average pooling.

    Args:
        weights: a Keras weights file; `None` leaves the random initial weights (he_uniform).
        size_px: side of the images. Defaults to that of CIFAR-10.
    Returns:
        A model from `(batch, size_px, size_px, 3)` float32, 0 to 1, to `(batch, 128)`.
    Raises:
        WeightsError: if the file is broken or does not fit.
    """
    image = keras.Input((size_px, size_px, 3), name="image")
    x = image
    for number, filters in enumerate(_FILTERS, 1):
        x = keras.layers.Conv2D(
            filters,
            3,
            strides=2,
            padding="same",
            activation="relu",
            kernel_initializer="he_uniform",
            name=f"convolution{number}",
        )(x)
    model = keras.Model(image, keras.layers.GlobalAveragePooling2D(name="avg_pool")(x), name=NAME)
    if weights is not None:
        load_weights_file(model, weights)
    return model

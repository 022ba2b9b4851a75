"""The networks of `keras.applications`, with weights from a file that is checked layer by layer."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from tripletkit.features.keras_backend import keras
from tripletkit.features.weights_files import load_weights_file

_BUILD = "build_"
_IMAGENET_DEVIATION = np.array([0.229, 0.224, 0.225], dtype=np.float32)


def __getattr__(name: str) -> Callable[[Path | None, int], keras.Model]:
    """Return the builder of a network, as `build_ResNet50` for `keras.applications.ResNet50`."""
    keras_name = name.removeprefix(_BUILD)
    if not name.startswith(_BUILD) or not hasattr(keras.applications, keras_name):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return partial(_build, keras_name)


def _build(keras_name: str, weights: Path | None, size_px: int) -> keras.Model:
    """Return a network with average pooling: `(batch, side, side, 3)` -> `(batch, n_features)`.

    Args:
        keras_name: in `keras.applications`.
        weights: a Keras weights file; None leaves the random initial weights.
        size_px: side of the images.
    Raises:
        WeightsError: if the file is broken or does not fit.
    """
    # The layers of ConvNeXt are called after it; EfficientNetV2 looks its blocks up by its name.
    named = {} if keras_name.startswith("EfficientNetV2") else {"name": keras_name.lower()}
    model = getattr(keras.applications, keras_name)(
        weights=None,
        include_top=False,
        pooling="avg",
        input_shape=(size_px, size_px, 3),
        **named,
    )
    if weights is not None:
        load_weights_file(model, weights)
        if keras_name.startswith("EfficientNetB"):
            _divide_by_deviation(model)
    return model


def _divide_by_deviation(model: keras.Model) -> None:
    """Let an EfficientNet divide its pixels once more by the root of the deviation.

    Its ImageNet weights need that. Keras adds a layer for it when it loads them itself, and none
    when they come from a file; here the Normalization layer takes the factor.
    """
    normalization = next(
        layer for layer in model.layers if isinstance(layer, keras.layers.Normalization)
    )
    mean, variance, count = normalization.get_weights()
    normalization.set_weights([mean, variance * _IMAGENET_DEVIATION, count])
    normalization.finalize_state()


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

"""The networks of `keras.applications`, with weights from a file that is checked layer by layer.

And what stands around a network of Keras: its preprocessing in front, its stages behind.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from tripletkit.features.backbones import Backbone, Preprocessing, Stage
from tripletkit.features.keras_backend import keras, tf
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
    """Return a network with average pooling: `(batch, side, side, 3)` -> `(batch, n_features)`."""
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


def build(weights: Path | None, size_px: int = 32) -> keras.Model:
    """Return `cnn`: three 3x3 convolutions of stride 2 with ReLU, and global average pooling.

    `(batch, size_px, size_px, 3)` float32, 0 to 1, becomes `(batch, 128)`.
    """
    image = keras.Input((size_px, size_px, 3), name="image")
    x = image
    for number, filters in enumerate((32, 64, 128), 1):
        x = keras.layers.Conv2D(
            filters,
            3,
            strides=2,
            padding="same",
            activation="relu",
            kernel_initializer="he_uniform",
            name=f"convolution{number}",
        )(x)
    model = keras.Model(image, keras.layers.GlobalAveragePooling2D(name="avg_pool")(x), name="cnn")
    if weights is not None:
        load_weights_file(model, weights)
    return model


def add_preprocessing(
    pixels: keras.KerasTensor, how: Preprocessing, name: str = "preprocessing"
) -> keras.KerasTensor:
    """Put preprocessing behind an input of RGB pixels, as built-in layers that exports carry."""
    if how.reverse_channels:
        pixels = keras.ops.flip(pixels, axis=-1)
    variance = np.broadcast_to(np.square(how.divisor), 3)
    return keras.layers.Normalization(mean=how.mean, variance=variance.tolist(), name=name)(pixels)


def take_stages(model: keras.Model, stages: Sequence[Stage | None]) -> keras.Model:
    """Return a model that shares a backbone's layers and gives the features of stages side by side.

    None stands for its output as it is; of a stage the mean of each channel over the map comes
    first, then the standard deviation of each.
    """
    pieces = _list_pieces(model, stages)
    if len(pieces) == 1:
        return model
    return keras.Model(model.input, keras.layers.Concatenate(name="stages")(pieces))


def take_pieces(model: keras.Model, stages: Sequence[Stage | None]) -> keras.Model:
    """Return a model with an output for each piece; mean and deviation of a stage are two."""
    pieces = _list_pieces(model, stages)
    return model if len(pieces) == 1 else keras.Model(model.input, pieces, name=model.name)


def _list_pieces(model: keras.Model, stages: Sequence[Stage | None]) -> list[keras.KerasTensor]:
    pieces = []
    for stage in stages:
        if stage is None:
            pieces.append(model.output)
            continue
        maps = model.get_layer(stage.layer).output
        pieces += [keras.ops.mean(maps, axis=(1, 2)), keras.ops.std(maps, axis=(1, 2))]
    return pieces


def make_keras_function(
    backbone: Backbone, model: keras.Model, stages: Sequence[Stage | None] = (None,)
) -> Callable[[np.ndarray], np.ndarray]:
    """Return a function of images that TensorFlow runs: uint8 pixels -> float32 features."""
    side = backbone.input_size_px
    inputs = keras.Input((side, side, 3), dtype="float32")
    prepared = add_preprocessing(inputs, backbone.preprocessing)
    network = keras.Model(inputs, take_stages(model, stages)(prepared))
    run = tf.function(lambda pixels: network(tf.cast(pixels, tf.float32), training=False))
    return lambda pixels: run(tf.constant(pixels)).numpy()

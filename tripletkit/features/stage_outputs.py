"""Features of several depths as one output of a Keras model, and as a function of images."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from tripletkit.features.backbones import Backbone, Stage
from tripletkit.features.keras_backend import keras, tf
from tripletkit.features.preprocessing import add_preprocessing


def take_stages(model: keras.Model, stages: Sequence[Stage | None]) -> keras.Model:
    """Return a model that gives the features of stages side by side.

    Args:
        model: a backbone; shared, not copied.
        stages: None stands for its output as it is; of a stage the mean of each channel over the
            map comes first, then the standard deviation of each.
    Returns:
        A model from the same input to `(batch, sum of the stages' n_features)`.
    """
    pieces = _list_pieces(model, stages)
    if len(pieces) == 1:
        return model
    return keras.Model(model.input, keras.layers.Concatenate(name="stages")(pieces))


def take_pieces(model: keras.Model, stages: Sequence[Stage | None]) -> keras.Model:
    """Return a model with an output for each piece of the features of stages.

    Args:
        model, stages: see `take_stages`; mean and deviation of a stage are two pieces.
    """
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
    """Return a function of images that TensorFlow runs.

    Args:
        backbone: for its preprocessing and the side of its images.
        model: the backbone's Keras model; shared, not copied.
        stages: see `take_stages`.
    Returns:
        A function from `(batch, side, side, 3)` uint8 to `(batch, n_features)` float32.
    """
    side = backbone.input_size_px
    inputs = keras.Input((side, side, 3), dtype="float32")
    prepared = add_preprocessing(inputs, backbone.preprocessing)
    network = keras.Model(inputs, take_stages(model, stages)(prepared))
    run = tf.function(lambda pixels: network(tf.cast(pixels, tf.float32), training=False))
    return lambda pixels: run(tf.constant(pixels)).numpy()

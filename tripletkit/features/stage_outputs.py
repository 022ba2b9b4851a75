"""Features of several depths as one output of a Keras model."""

from __future__ import annotations

from collections.abc import Sequence

from tripletkit.features.backbones import Stage
from tripletkit.features.keras_backend import keras


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

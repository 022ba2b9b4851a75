"""Keras networks for tests: weights that do something, and the same network by ONNX Runtime."""

from __future__ import annotations

import re

import keras
import numpy as np
import onnx
import onnxruntime
import pytest

from tripletkit.features.backbones import Backbone
from tripletkit.features.onnx_writer import make_onnx_model

L = keras.layers


def run(model, *arrays):
    # As bytes: the checker would turn a model into them once more.
    written = make_onnx_model(model).SerializeToString()
    onnx.checker.check_model(written, full_check=True)
    session = onnxruntime.InferenceSession(written, providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_inputs()]
    return session.run(None, dict(zip(names, arrays, strict=True)))[0]


def shake(model):
    """Give a model weights under which every layer does something."""
    rng = np.random.default_rng(1)
    for layer in model._flatten_layers():
        if isinstance(layer, L.BatchNormalization | L.LayerNormalization):
            layer.set_weights([rng.uniform(0.5, 1.5, w.shape) for w in layer.get_weights()])
        elif type(layer).__name__ == "LayerScale":
            layer.set_weights([rng.uniform(0.5, 1.0, w.shape) for w in layer.get_weights()])


def normalise_for(model, images):
    """Let normalisations know their inputs, or nothing of the images may be left at the end.

    Returns:
        What the model gives for the images then. Each normalisation learns its inputs just before
        it is called, so that is found in the same pass: Keras takes up to two seconds for one.
    """
    call = L.BatchNormalization.call

    def learn_and_call(norm, inputs, **options):
        mean, variance = keras.ops.moments(inputs, axes=(0, 1, 2))
        norm.moving_mean.assign(mean)
        # A channel that hardly varies would have its rounding errors enlarged.
        norm.moving_variance.assign(variance + keras.ops.mean(variance))
        return call(norm, inputs, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(L.BatchNormalization, "call", learn_and_call)
        return model(images, training=False).numpy()


def check_record(model, backbone: Backbone, n_parameters: int) -> None:
    """Check that a network is what its record states."""
    side = backbone.input_size_px
    assert model.name == backbone.name
    assert model.input_shape == (None, side, side, 3)
    assert model.output_shape == (None, backbone.n_features)
    assert model.count_params() == n_parameters
    if backbone.blocks:
        check_every_layer_with_weights_is_in_one_block(model, backbone)


def check_every_layer_with_weights_is_in_one_block(model, backbone: Backbone) -> None:
    of_layer = [
        [block for block in backbone.blocks if re.match(block, layer.name)]
        for layer in model.layers
        if layer.weights
    ]
    assert {len(blocks) for blocks in of_layer} == {1}
    # In the order of the layers, and none of them empty.
    assert list(dict.fromkeys(block for (block,) in of_layer)) == list(backbone.blocks)

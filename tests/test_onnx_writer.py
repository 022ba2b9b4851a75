"""Keras networks as ONNX graphs: each layer and how it can be set.

Whole networks are in test_keras_families.py.
"""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras_networks import run, shake

from tripletkit import TripletkitError
from tripletkit.features.backbones import Stage
from tripletkit.features.keras_backbones import take_stages
from tripletkit.features.onnx_writer import make_onnx_model

L = keras.layers
RNG = np.random.default_rng(0)

IMAGES = RNG.normal(size=(2, 9, 8, 4)).astype(np.float32)
VECTORS = RNG.normal(size=(5, 12)).astype(np.float32)
ON_IMAGES = {
    "same padding": lambda: L.Conv2D(5, 3, strides=2, padding="same"),
    "valid padding and an activation": lambda: L.Conv2D(5, (2, 3), activation="silu"),
    "groups and dilation": lambda: L.Conv2D(6, 3, groups=2, dilation_rate=2, use_bias=False),
    "a multiplier": lambda: L.DepthwiseConv2D(3, depth_multiplier=3, strides=2, padding="same"),
    "separable": lambda: L.SeparableConv2D(5, 3, padding="same", depth_multiplier=2),
    "no scale": lambda: L.BatchNormalization(scale=False),
    "no center": lambda: L.BatchNormalization(center=False),
    "layer norm": lambda: L.LayerNormalization(epsilon=1e-6),
    "dense at each place": lambda: L.Dense(3, activation="gelu"),
    "hard sigmoid": lambda: L.Activation("hard_sigmoid"),
    "hard silu": lambda: L.Activation("hard_silu"),
    "tanh": lambda: L.Activation("tanh"),
    "clipped": lambda: L.ReLU(max_value=0.5),
    "max pool": lambda: L.MaxPooling2D(3, strides=2, padding="same"),
    "average pool, borders left out": lambda: L.AveragePooling2D(3, strides=2, padding="same"),
    "average pool": lambda: L.AveragePooling2D((2, 3)),
    "padded": lambda: L.ZeroPadding2D(((1, 2), (0, 3))),
    "cropped": lambda: L.Cropping2D(((1, 2), (0, 3))),
    "mean that keeps places": lambda: L.GlobalAveragePooling2D(keepdims=True),
    "reshaped": lambda: L.Reshape((72, 4)),
    "flat": lambda: L.Flatten(),
    "rescaled by channel": lambda: L.Rescaling([1.0, 2.0, 3.0, 4.0], offset=[0.0, 1.0, 0.0, 1.0]),
    "normalised": lambda: L.Normalization(mean=[1.0, 2.0, 0.0, 1.0], variance=[4.0, 1.0, 1.0, 2.0]),
}


@pytest.mark.parametrize("name", ON_IMAGES)
@pytest.mark.parametrize("before", ["the input", "a convolution"])
def test_layers_on_images(name, before):
    """Behind the input, in Keras's form, and behind a convolution, in that of ONNX."""
    keras.utils.set_random_seed(0)
    image = keras.Input(IMAGES.shape[1:])
    x = image if before == "the input" else L.Conv2D(4, 1)(image)
    model = keras.Model(image, ON_IMAGES[name]()(x))
    shake(model)
    want = model(IMAGES, training=False).numpy()
    np.testing.assert_allclose(run(model, IMAGES), want, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("negative", [True, False])
def test_zeros_are_put_around_what_is_pooled(negative):
    """Where values are negative the zeros are the largest, so they may not be left out."""
    image = keras.Input(IMAGES.shape[1:])
    x = image if negative else L.ReLU()(image)
    model = keras.Model(image, L.MaxPooling2D(3, strides=2)(L.ZeroPadding2D(1)(x)))
    images = -np.abs(IMAGES) if negative else IMAGES
    np.testing.assert_array_equal(run(model, images), model(images).numpy())


def test_padding_that_two_layers_read():
    keras.utils.set_random_seed(0)
    image = keras.Input(IMAGES.shape[1:])
    padded = L.ZeroPadding2D(((0, 1), (2, 1)))(image)
    model = keras.Model(
        image, L.Add()([L.Conv2D(4, 3, padding="same")(padded), L.Activation("relu")(padded)])
    )
    np.testing.assert_allclose(run(model, IMAGES), model(IMAGES), rtol=1e-4, atol=1e-5)


def test_joins_of_several_tensors_in_different_forms():
    keras.utils.set_random_seed(0)
    image = keras.Input(IMAGES.shape[1:])
    one, two = L.Conv2D(4, 1)(image), L.LayerNormalization()(image)
    x = L.Concatenate()([one, two, image])
    x = L.Concatenate(axis=2)([x, L.Add()([x, x, x])])
    x = L.Average()([x, L.Multiply()([x, x])]) + 3.0
    model = keras.Model(image, 0.5 * x)
    np.testing.assert_allclose(run(model, IMAGES), model(IMAGES), rtol=1e-4, atol=1e-5)


def test_a_head_of_vectors():
    keras.utils.set_random_seed(0)
    vectors = keras.Input((12,))
    unit = L.UnitNormalization()(vectors)
    hidden = L.Dropout(0.5)(L.Dense(7, activation="relu")(L.BatchNormalization(scale=False)(unit)))
    moved = L.Add()([unit, L.Dense(12)(hidden)])
    joined = L.Concatenate()([L.Rescaling(0.5)(moved), keras.Sequential([L.Dense(2)])(unit)])
    model = keras.Model(vectors, L.UnitNormalization()(joined))
    shake(model)
    arrays = np.vstack([VECTORS, np.zeros(12, np.float32)])
    np.testing.assert_allclose(run(model, arrays), model(arrays), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("axis", [1, 2, -1])
def test_flipped(axis):
    image = keras.Input(IMAGES.shape[1:])
    model = keras.Model(image, keras.ops.flip(image, axis=axis))
    np.testing.assert_array_equal(run(model, IMAGES), np.flip(IMAGES, axis))


def test_statistics_of_stages():
    keras.utils.set_random_seed(0)
    image = keras.Input(IMAGES.shape[1:])
    x = L.Conv2D(6, 3, activation="relu", name="early")(image)
    model = keras.Model(image, L.GlobalAveragePooling2D()(L.Conv2D(3, 1)(x)))
    taken = take_stages(model, [None, Stage("early", 6)])
    maps = keras.Model(image, x)(IMAGES).numpy()
    want = np.hstack([model(IMAGES).numpy(), maps.mean(axis=(1, 2)), maps.std(axis=(1, 2))])
    np.testing.assert_allclose(run(taken, IMAGES), want, rtol=1e-4, atol=1e-5)
    assert "Std" not in {type(operation).__name__ for operation in model.operations}


def test_a_layer_that_cannot_be_written_is_named():
    image = keras.Input(IMAGES.shape[1:])
    model = keras.Model(image, L.Conv2DTranspose(2, 3, name="odd")(image))
    with pytest.raises(
        TripletkitError, match=r"layer odd: expected one of .*, got Conv2DTranspose"
    ):
        make_onnx_model(model)
    model = keras.Model(image, L.Activation("mish")(image))
    with pytest.raises(TripletkitError, match="expected a known activation, got mish"):
        make_onnx_model(model)
    model = keras.Model(image, L.ReLU(negative_slope=0.1, name="leaky")(image))
    with pytest.raises(TripletkitError, match="layer leaky"):
        make_onnx_model(model)

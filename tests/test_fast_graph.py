"""The fast path gives the features that the plain network gives, each image by itself."""

from __future__ import annotations

import dataclasses

import keras
import numpy as np
import pytest
import tiny_backbone as tiny

from tripletkit.features.backbones import get_backbone
from tripletkit.features.fast_graph import fold_batch_norm, make_feature_function
from tripletkit.features.trained_weights import build_backbone
from tripletkit.features.weights_origin import efficientnet_lite0_path

BATCH_SIZE = 8


@pytest.fixture(scope="module")
def pixels():
    return np.random.default_rng(0).integers(0, 256, (BATCH_SIZE, 32, 32, 3), dtype=np.uint8)


@pytest.fixture
def compute(tiny_backbone, tiny_weights):
    return make_feature_function(tiny_backbone, tiny.build(tiny_weights), BATCH_SIZE)


def norms(model):
    return [layer.name for layer in model.layers if "BatchNorm" in type(layer).__name__]


def test_folding_keeps_the_outputs(tiny_weights, pixels):
    model = tiny.build(tiny_weights)
    scaled = pixels / np.float32(127.5) - 1
    folded = fold_batch_norm(model)
    assert norms(model) == ["stem_norm", "depthwise_norm", "last_norm"]
    # The last one stands behind an activation.
    assert norms(folded) == ["last_norm"]
    np.testing.assert_allclose(
        folded(scaled).numpy(), model(scaled, training=False).numpy(), rtol=1e-4, atol=1e-4
    )


def test_folding_leaves_the_model_as_it_was(tiny_weights):
    model = tiny.build(tiny_weights)
    before = model.get_weights()
    fold_batch_norm(model)
    for one, two in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize("scale", [True, False])
@pytest.mark.parametrize("center", [True, False])
def test_folding_knows_norms_without_scale_or_shift(scale, center):
    keras.utils.set_random_seed(0)
    image = keras.Input((6, 6, 3))
    x = keras.layers.Conv2D(4, 3)(image)
    x = keras.layers.BatchNormalization(scale=scale, center=center)(x)
    model = keras.Model(image, x)
    rng = np.random.default_rng(0)
    model.set_weights([rng.uniform(0.5, 2, value.shape) for value in model.get_weights()])
    batch = rng.normal(size=(2, 6, 6, 3)).astype(np.float32)
    folded = fold_batch_norm(model)
    assert norms(folded) == []
    np.testing.assert_allclose(folded(batch), model(batch, training=False), rtol=1e-4, atol=1e-4)


def test_folding_spares_a_convolution_that_others_read():
    keras.utils.set_random_seed(0)
    image = keras.Input((6, 6, 3))
    x = keras.layers.Conv2D(3, 1)(image)
    normed = keras.layers.BatchNormalization(name="norm")(x)
    model = keras.Model(image, keras.layers.Add()([x, normed]))
    rng = np.random.default_rng(0)
    model.set_weights([rng.uniform(0.5, 2, value.shape) for value in model.get_weights()])
    batch = rng.normal(size=(2, 6, 6, 3)).astype(np.float32)
    folded = fold_batch_norm(model)
    assert norms(folded) == ["norm"]
    np.testing.assert_allclose(folded(batch), model(batch, training=False), rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet50v2", "efficientnetb0"])
def test_folding_keeps_real_networks(short_efficientnets, name):
    """Sums before norms; squeeze-and-excitation, a Normalization layer and swish."""
    keras.utils.set_random_seed(0)
    model = build_backbone(get_backbone(name).resized(64), None)
    rng = np.random.default_rng(0)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization | keras.layers.Normalization):
            layer.set_weights(
                [value + rng.uniform(-0.1, 0.1, value.shape) for value in layer.get_weights()]
            )
        if isinstance(layer, keras.layers.Normalization):
            layer.finalize_state()
    folded = fold_batch_norm(model)
    assert len(norms(folded)) < len(norms(model))
    batch = rng.uniform(-1, 1, (1, 64, 64, 3)).astype(np.float32)
    want = model(batch, training=False).numpy()
    np.testing.assert_allclose(
        folded(batch).numpy(), want, rtol=1e-3, atol=1e-4 * np.abs(want).max()
    )


@pytest.mark.slow
def test_features_equal_the_plain_network(compute, tiny_weights, pixels):
    scaled = pixels / np.float32(127.5) - 1
    want = tiny.build(tiny_weights)(scaled, training=False).numpy()
    assert compute(pixels).dtype == np.float32
    np.testing.assert_allclose(compute(pixels), want, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_features_of_reversed_channels(tiny_backbone, tiny_weights, pixels):
    how = dataclasses.replace(tiny_backbone.preprocessing, reverse_channels=True)
    backbone = dataclasses.replace(tiny_backbone, preprocessing=how)
    reverse = make_feature_function(backbone, tiny.build(tiny_weights), BATCH_SIZE)
    plain = make_feature_function(tiny_backbone, tiny.build(tiny_weights), BATCH_SIZE)
    np.testing.assert_array_equal(reverse(pixels), plain(pixels[..., ::-1]))


def assert_alone_and_anywhere(compute, pixels):
    """An image's features are the same bits at any place of a batch and beside any others."""
    rng = np.random.default_rng(1)
    features = compute(pixels)
    assert len(np.unique(features, axis=0)) == len(features)
    for _ in range(3):
        order = rng.permutation(len(pixels))
        np.testing.assert_array_equal(compute(pixels[order]), features[order])
        others = rng.integers(0, 256, pixels.shape, dtype=np.uint8)
        others[2] = pixels[order[0]]
        np.testing.assert_array_equal(compute(others)[2], features[order[0]])
    blank = np.zeros_like(pixels)
    blank[-1] = pixels[0]
    np.testing.assert_array_equal(compute(blank)[-1], features[0])


@pytest.mark.slow
def test_neighbours_change_no_bit(compute, pixels):
    assert_alone_and_anywhere(compute, pixels)


@pytest.mark.slow
@pytest.mark.weights
def test_neighbours_change_no_bit_of_a_real_network():
    backbone = get_backbone("efficientnet-lite0")
    compute = make_feature_function(
        backbone, build_backbone(backbone, efficientnet_lite0_path()), BATCH_SIZE
    )
    shape = (BATCH_SIZE, 224, 224, 3)
    assert_alone_and_anywhere(
        compute, np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    )

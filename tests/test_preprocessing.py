"""Preprocessing inside the network equals Keras's own, and leaves its input alone."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from tripletkit.features.backbones import get_backbone
from tripletkit.features.keras_backbones import add_preprocessing


@pytest.fixture
def pixels():
    return np.random.default_rng(0).integers(0, 256, (2, 5, 4, 3)).astype(np.float32)


def preprocess(name, pixels):
    inputs = keras.Input(pixels.shape[1:])
    how = get_backbone(name).preprocessing
    return keras.Model(inputs, add_preprocessing(inputs, how))(pixels).numpy()


@pytest.mark.parametrize(
    ("name", "application"),
    [
        ("resnet50", keras.applications.resnet50),
        ("resnet50v2", keras.applications.resnet_v2),
        ("mobilenetv2", keras.applications.mobilenet_v2),
        ("efficientnetb0", keras.applications.efficientnet),
    ],
)
def test_preprocessing_equals_keras(name, application, pixels):
    expected = application.preprocess_input(pixels.copy())
    np.testing.assert_allclose(preprocess(name, pixels), expected, atol=1e-4)


def test_preprocessing_of_efficientnet_lite0_is_its_papers(pixels):
    expected = (pixels - 127) / 128
    np.testing.assert_allclose(preprocess("efficientnet-lite0", pixels), expected, atol=1e-6)


@pytest.mark.parametrize("name", ["resnet50", "mobilenetv2"])
def test_preprocessing_does_not_change_its_input(name, pixels):
    before = pixels.copy()
    preprocess(name, pixels)
    np.testing.assert_array_equal(pixels, before)

"""The backbones that Keras builds, with weights from a file that is checked layer by layer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from tripletkit.features.keras_backend import keras
from tripletkit.features.weights_files import load_weights_file

# What their ImageNet weights were trained with.
_SIDE_PX = 224
_IMAGENET_DEVIATION = np.array([0.229, 0.224, 0.225], dtype=np.float32)


def build_resnet50(weights: Path | None, size_px: int = _SIDE_PX) -> keras.Model:
    """Return ResNet50 up to `avg_pool`: `(batch, side, side, 3)` -> `(batch, 2048)`."""
    return _build(keras.applications.ResNet50, "resnet50", weights, size_px)


def build_resnet50v2(weights: Path | None, size_px: int = _SIDE_PX) -> keras.Model:
    """Return ResNet50V2 up to `avg_pool`: `(batch, side, side, 3)` -> `(batch, 2048)`."""
    return _build(keras.applications.ResNet50V2, "resnet50v2", weights, size_px)


def build_mobilenetv2(weights: Path | None, size_px: int = _SIDE_PX) -> keras.Model:
    """Return MobileNetV2 with average pooling: `(batch, side, side, 3)` -> `(batch, 1280)`."""
    return _build(keras.applications.MobileNetV2, "mobilenetv2", weights, size_px)


def build_efficientnetb0(weights: Path | None, size_px: int = _SIDE_PX) -> keras.Model:
    """Return EfficientNetB0 with average pooling: `(batch, side, side, 3)` -> `(batch, 1280)`.

    The ImageNet weights need their pixels divided once more by the root of the deviation.
    Keras adds a layer for it when it loads them itself, and none when they come from a file;
    here the Normalization layer takes the factor.
    """
    model = _build(keras.applications.EfficientNetB0, "efficientnetb0", weights, size_px)
    if weights is not None:
        normalization = next(
            layer for layer in model.layers if isinstance(layer, keras.layers.Normalization)
        )
        mean, variance, count = normalization.get_weights()
        normalization.set_weights([mean, variance * _IMAGENET_DEVIATION, count])
        normalization.finalize_state()
    return model


def _build(
    application: Callable[..., keras.Model], name: str, weights: Path | None, size_px: int
) -> keras.Model:
    shape = (size_px, size_px, 3)
    model = application(
        weights=None, include_top=False, pooling="avg", input_shape=shape, name=name
    )
    if weights is not None:
        load_weights_file(model, weights)
    return model

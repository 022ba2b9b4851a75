"""EfficientNet-Lite0, a small ImageNet backbone whose weights come as a pip package."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from string import ascii_lowercase
from typing import NamedTuple

import numpy as np

from tripletkit.errors import WeightsError
from tripletkit.features.keras_backend import keras
from tripletkit.features.torch_weights import read_state_dict

NAME = "efficientnet-lite0"
IMAGE_SIZE_PX = 224
N_FEATURES = 1280

_N_STEM_CHANNELS = 32
_BATCH_NORM_EPSILON = 1e-3

# Expansion, channels, repeats, stride of the first repeat, kernel (Tan and Le, table 1).
_STAGES = (
    (1, 16, 1, 1, 3),
    (6, 24, 2, 2, 3),
    (6, 40, 2, 2, 5),
    (6, 80, 3, 2, 3),
    (6, 112, 3, 1, 5),
    (6, 192, 4, 2, 5),
    (6, 320, 1, 1, 3),
)

# The ImageNet classifier, which the backbone ends before.
_UNUSED_TENSORS = {"_fc.weight", "_fc.bias"}


class _Block(NamedTuple):
    name: str
    expansion: int
    channels: int
    stride: int
    kernel: int


def build(weights: Path | None, size_px: int = IMAGE_SIZE_PX) -> keras.Model:
    """Build EfficientNet-Lite0 up to its average pool.

    The Lite variants drop squeeze-and-excitation and replace swish by ReLU6; stem and head keep
    their width at every scale. Convolution and batch norm stay separate layers.

    Args:
        weights: an old-style PyTorch state dict, as from `packaged_weights`; `None` leaves the
            random initial weights.
        size_px: side of the images. Defaults to that of its training.
    Returns:
        A model from `(batch_size, size_px, size_px, 3)` float32, RGB, `(x - 127) / 128`, to
        `(batch_size, 1280)` float32, >= 0.
    Raises:
        WeightsError: if the file is broken, or its tensors are not this model's.
    Reference:
        Tan, Le. EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks.
        ICML 2019. arXiv:1905.11946. Lite variants: Liu, "Higher accuracy on vision models with
        EfficientNet-Lite", TensorFlow blog, 2020.
    """
    image = keras.Input((size_px, size_px, 3), dtype="float32", name="image")
    x = _convolve(image, "stem", filters=_N_STEM_CHANNELS, kernel=3, stride=2)
    for block in _make_blocks():
        x = _apply_block(x, block)
    x = _convolve(x, "head", filters=N_FEATURES)
    x = keras.layers.GlobalAveragePooling2D(name="avg_pool")(x)
    model = keras.Model(image, x, name=NAME)
    if weights is not None:
        _load_weights(model, weights)
    return model


def _make_blocks() -> Iterator[_Block]:
    for number, (expansion, channels, repeats, stride, kernel) in enumerate(_STAGES, start=1):
        for letter in ascii_lowercase[:repeats]:
            first = letter == "a"
            yield _Block(
                f"block{number}{letter}", expansion, channels, stride if first else 1, kernel
            )


def _apply_block(x: keras.KerasTensor, block: _Block) -> keras.KerasTensor:
    """Apply one inverted residual: widen, filter each channel, narrow without activation."""
    shortcut = x
    if block.expansion > 1:
        x = _convolve(x, f"{block.name}_expand", filters=block.expansion * x.shape[-1])
    x = _convolve(x, f"{block.name}_depthwise", kernel=block.kernel, stride=block.stride)
    x = _convolve(x, f"{block.name}_project", filters=block.channels, activate=False)
    if x.shape == shortcut.shape:
        x = keras.layers.Add(name=f"{block.name}_add")([x, shortcut])
    return x


def _convolve(
    x: keras.KerasTensor,
    name: str,
    *,
    filters: int | None = None,
    kernel: int = 1,
    stride: int = 1,
    activate: bool = True,
) -> keras.KerasTensor:
    """Convolve (depthwise without `filters`), normalise and, unless told not to, clip to 0..6."""
    options = {"strides": stride, "padding": "same", "use_bias": False, "name": f"{name}_conv"}
    if filters is None:
        x = keras.layers.DepthwiseConv2D(kernel, **options)(x)
    else:
        x = keras.layers.Conv2D(filters, kernel, **options)(x)
    x = keras.layers.BatchNormalization(epsilon=_BATCH_NORM_EPSILON, name=f"{name}_bn")(x)
    return keras.layers.ReLU(max_value=6, name=f"{name}_relu6")(x) if activate else x


def _pair_names() -> Iterator[tuple[str, str, str]]:
    """Give each convolution's name here, and the file's for it and for its batch norm."""
    yield "stem", "_conv_stem", "_bn0"
    for index, block in enumerate(_make_blocks()):
        prefix = f"_blocks.{index}."
        if block.expansion > 1:
            yield f"{block.name}_expand", f"{prefix}_expand_conv", f"{prefix}_bn0"
        yield f"{block.name}_depthwise", f"{prefix}_depthwise_conv", f"{prefix}_bn1"
        yield f"{block.name}_project", f"{prefix}_project_conv", f"{prefix}_bn2"
    yield "head", "_conv_head", "_bn1"


def _load_weights(model: keras.Model, path: Path) -> None:
    tensors = {
        name: tensor
        for name, tensor in read_state_dict(path).items()
        if name not in _UNUSED_TENSORS and not name.endswith(".num_batches_tracked")
    }
    for name, conv, norm in _pair_names():
        _set_weights(model.get_layer(f"{name}_conv"), tensors, [f"{conv}.weight"], path)
        norm_parts = ("weight", "bias", "running_mean", "running_var")
        norm_names = [f"{norm}.{part}" for part in norm_parts]
        _set_weights(model.get_layer(f"{name}_bn"), tensors, norm_names, path)
    if tensors:
        raise WeightsError(
            f"{path}: expected the tensors of {NAME} only, got {len(tensors)} more, "
            f'the first is "{next(iter(tensors))}". Pass the weights of {NAME}.'
        )


def _set_weights(
    layer: keras.Layer, tensors: dict[str, np.ndarray], names: list[str], path: Path
) -> None:
    """Move the named tensors out of `tensors` into the layer, if each has the right shape."""
    values = []
    for name, variable in zip(names, layer.weights, strict=True):
        value = tensors.pop(name, None)
        if value is not None and value.ndim == 4:
            # PyTorch keeps kernels as (out, in, height, width), and depthwise ones as (channels,
            # 1, height, width); Keras wants (height, width, in, out) and (height, width,
            # channels, 1).
            depthwise = isinstance(layer, keras.layers.DepthwiseConv2D)
            value = value.transpose((2, 3, 0, 1) if depthwise else (2, 3, 1, 0))
        if value is None or value.shape != tuple(variable.shape):
            got = "none" if value is None else f"one of shape {value.shape}"
            raise WeightsError(
                f'{path}: expected a tensor "{name}" for layer {layer.name}, of shape '
                f"{tuple(variable.shape)} in Keras's order, got {got}. "
                f"Pass the weights of {NAME}."
            )
        values.append(value)
    layer.set_weights(values)

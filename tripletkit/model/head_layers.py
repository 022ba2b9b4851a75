"""A trained head without TensorFlow: its layers as a list beside its weights, run by NumPy.

A head is a few matrix products. Where Keras writes its weights, the list of what is done with
them is put into the same file, so that answering from stored features loads neither Keras nor
TensorFlow. A head that NumPy trained is written whole. The list is plain
JSON: nothing of it is code.

The products themselves are ONNX Runtime's, because a row of NumPy's depends on where in the
matrix it stands: a third of them differed in the last bit.
"""

from __future__ import annotations

import json
import logging
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import h5py
import numpy as np

from tripletkit.errors import ModelFolderError, NetworkFileError, SettingsError
from tripletkit.features.onnx_engine import open_session
from tripletkit.model.recipes import COSINE, MAP, MLP, RESIDUAL, Part

if TYPE_CHECKING:
    import keras
    import onnxruntime

    from tripletkit.model.settings import Settings

logger = logging.getLogger("tripletkit")

# An ONNX graph of one node, the product of its inputs `a` and `b`.
_MATRIX_PRODUCT = (
    b'\x08\x08:7\n\x11\n\x01a\n\x01b\x12\x01c"\x06MatMul\x12\x01gZ\t\n\x01a\x12\x04\n\x02\x08\x01'
    b"Z\t\n\x01b\x12\x04\n\x02\x08\x01b\t\n\x01c\x12\x04\n\x02\x08\x01B\x04\n\x00\x10\r"
)
_ATTRIBUTE = "tripletkit_layers"
# Images in a batch of the head when embeddings are computed.
_EMBED_BATCH_SIZE = 1024
# Largest difference to Keras, as a share of an embedding's largest number.
_TOLERANCE = 1e-5


@dataclass(frozen=True)
class Scaling:
    """Shift and scale that give features mean 0 and deviation 1 over the training images."""

    mean: np.ndarray
    deviation: np.ndarray

    @classmethod
    def of(cls, features: np.ndarray) -> Scaling:
        deviation = features.std(axis=0, dtype=np.float64)
        # A feature that hardly ever varies would be blown up to noise; so would a dead one.
        floor = 0.1 * deviation.mean()
        return cls(
            features.mean(axis=0, dtype=np.float64),
            np.maximum(deviation, floor if floor > 0 else 1.0),
        )

    def apply(self, features: np.ndarray) -> np.ndarray:
        scaled = features - self.mean.astype(np.float32)
        scaled /= self.deviation.astype(np.float32)
        return scaled

    def fold_into(self, weights: list[np.ndarray]) -> list[np.ndarray]:
        """Return a head's weights that give the same embeddings on features as they are."""
        kernel, bias, *others = weights
        folded = kernel / self.deviation[:, None]
        return [folded, bias - self.mean @ folded, *others]


@dataclass(frozen=True)
class _HeadStep:
    """One layer of a head that NumPy runs.

    Attributes:
        kind: a key of `_RUN`.
        inputs: which values it takes: 0 are the features, n what the step n gives, from 1.
        arrays: its weights, float32.
        settings: plain JSON values.
    """

    kind: str
    inputs: tuple[int, ...]
    arrays: tuple[np.ndarray, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(
        cls, kind: str, *inputs: int, arrays: Sequence[np.ndarray] = (), **settings: Any
    ) -> _HeadStep:
        kept = tuple(np.ascontiguousarray(values, np.float32) for values in arrays)
        return cls(kind, inputs, kept, settings)


class NumpyHead:
    """A head that NumPy runs; takes the place of the Keras model where embeddings are computed."""

    def __init__(self, n_features: int, steps: Sequence[_HeadStep]) -> None:
        self._steps = steps
        n_dims = self(np.zeros((1, n_features), np.float32)).shape[1]
        self.input_shape, self.output_shape = (None, n_features), (None, n_dims)

    @classmethod
    def read(cls, path: Path, data: BinaryIO | None = None) -> NumpyHead | None:
        """Return the head of a weights file, whose `data` may be at hand; None if the file does not
        say what its layers do."""
        try:
            with h5py.File(data or path) as file:
                if _ATTRIBUTE not in file.attrs:
                    return None
                described = json.loads(file.attrs[_ATTRIBUTE])
                steps = [
                    _HeadStep(
                        step["kind"],
                        tuple(step["inputs"]),
                        tuple(_read_arrays(file, step["weights"])),
                        step["settings"],
                    )
                    for step in described["steps"]
                ]
            return cls(described["n_features"], steps)
        except (OSError, ValueError, LookupError, TypeError) as error:
            raise ModelFolderError(
                f"{path}: expected the layers of a head beside its weights, cannot be read as "
                f"such: {error}. Update tripletkit, or train again."
            ) from error

    def __call__(self, features: np.ndarray, training: bool = False) -> np.ndarray:
        """Return embeddings `(batch, n_dims)` of `(batch, n_features)` float32; `training` is for
        Keras's signature alone."""
        values = [features]
        for step in self._steps:
            taken = [values[index] for index in step.inputs]
            values.append(_RUN[step.kind](taken, step.arrays, **step.settings))
        return values[-1]

    def count_params(self) -> int:
        return sum(values.size for step in self._steps for values in step.arrays)

    def compressed(self, kernel: np.ndarray, bias: np.ndarray) -> NumpyHead:
        """Return the head with a projection of its embeddings behind it, at length 1 again."""
        n_steps = len(self._steps)
        projection = _HeadStep.of("Dense", n_steps, arrays=(kernel, bias), activation="linear")
        unit = _HeadStep.of("UnitNormalization", n_steps + 1)
        return NumpyHead(self.input_shape[1], [*self._steps, projection, unit])

    def _write(self, path: Path) -> None:
        """Write the head into an HDF5 file that `read` reads."""
        steps = []
        with h5py.File(path, "w") as file:
            for number, step in enumerate(self._steps, 1):
                place = f"steps/{number}/"
                for index, values in enumerate(step.arrays):
                    file[f"{place}vars/{index}"] = values
                steps.append(
                    {
                        "kind": step.kind,
                        "inputs": list(step.inputs),
                        "weights": place if step.arrays else None,
                        "settings": dict(step.settings),
                    }
                )
            described = {"n_features": self.input_shape[1], "steps": steps}
            file.attrs[_ATTRIBUTE] = json.dumps(described)

    def to_keras(self) -> keras.Model:
        """Return the same head as a Keras model: `(batch, n_features)` -> `(batch, n_dims)`."""
        from tripletkit.features.keras_backend import keras

        features = keras.Input(self.input_shape[1:])
        values = [features]
        for step in self._steps:
            taken = [values[index] for index in step.inputs]
            if step.kind == "GetItem":
                values.append(taken[0][:, step.settings["start"] : step.settings["stop"]])
                continue
            settings = dict(step.settings)
            if step.kind == "Dense":
                kernel, *bias = step.arrays
                settings |= {"units": kernel.shape[1], "use_bias": bool(bias)}
                settings["kernel_initializer"] = "zeros"  # another thread may be drawing
            layer = getattr(keras.layers, step.kind)(**settings)
            # Numbers of a normalisation are part of the head, not of the batch.
            layer.trainable = step.kind != "BatchNormalization"
            values.append(layer(taken if len(taken) > 1 else taken[0]))
            if step.arrays:
                layer.set_weights(step.arrays)
        return keras.Model(features, values[-1], name="head")


def write_head(head: keras.Model | NumpyHead, path: Path) -> None:
    """Write a head; into the file of Keras's weights goes the list of its layers, too. What comes
    out is compared with Keras. A head with other layers, or that gives other numbers, is left to
    Keras, and the log says so."""
    if isinstance(head, NumpyHead):
        head._write(path)
        return
    head.save_weights(path)
    try:
        text = json.dumps({"n_features": head.input_shape[-1], "steps": _describe(head)})
        with h5py.File(path, "a") as file:
            file.attrs[_ATTRIBUTE] = text
        written = NumpyHead.read(path)
        assert written is not None, "it has just been described"
        _check(head, written)
    except NetworkFileError as error:
        with h5py.File(path, "a") as file:
            file.attrs.pop(_ATTRIBUTE, None)
        logger.warning("the head is run by TensorFlow, not by NumPy: %s", error)


def _check(head: keras.Model, numpy_head: NumpyHead) -> None:
    rng = np.random.default_rng(0)
    features = rng.normal(size=(16, head.input_shape[-1])).astype(np.float32)
    # Features behind a ReLU, and an image that gives none.
    features[8:] = np.maximum(features[8:], 0)
    features[-1] = 0
    got, want = numpy_head(features), np.asarray(head(features, training=False))
    if not np.abs(got - want).max() <= _TOLERANCE * np.abs(want).max():
        raise NetworkFileError("expected the embeddings that Keras gives, got others")


def _describe(head: keras.Model) -> list[dict[str, Any]]:
    """Return the steps of a head as plain JSON values, refusing a layer that is not known here."""
    from tripletkit.features.keras_backend import keras

    steps: list[dict[str, Any]] = []
    # id of a Keras tensor -> which value it is.
    values = {id(head.inputs[0]): 0}

    def walk(model: keras.Model, place: str) -> None:
        places = _weights_places(model, place)
        for depth in sorted(model._nodes_by_depth, reverse=True):
            for node in model._nodes_by_depth[depth]:
                if node.is_input:
                    continue
                layer, arguments = node.operation, node.arguments
                inputs = arguments.keras_tensors
                inside = getattr(layer, "_functional", layer)
                if isinstance(inside, keras.Model):
                    for outer, inner in zip(inputs, inside.inputs, strict=True):
                        values[id(inner)] = values[id(outer)]
                    walk(inside, places[layer])
                    for outer, inner in zip(node.outputs, inside.outputs, strict=True):
                        values[id(outer)] = values[id(inner)]
                    continue
                kind = type(layer).__name__
                if kind == "Dropout":
                    values[id(node.outputs[0])] = values[id(inputs[0])]
                    continue
                if kind not in _SETTINGS:
                    raise NetworkFileError(
                        f"layer {layer.name}: expected one of {', '.join(_SETTINGS)}, got {kind}"
                    )
                steps.append(
                    {
                        "kind": kind,
                        "inputs": [values[id(tensor)] for tensor in inputs],
                        "weights": places[layer] if getattr(layer, "weights", ()) else None,
                        "settings": _SETTINGS[kind](layer, arguments),
                    }
                )
                values[id(node.outputs[0])] = len(steps)

    walk(getattr(head, "_functional", head), "")
    return steps


def _weights_places(model: keras.Model, place: str) -> dict[Any, str]:
    """Return layer -> where Keras keeps its weights in a file: by class and number of the class."""
    seen: Counter[str] = Counter()
    places = {}
    for layer in model.layers:
        key = _to_snake_case(type(layer).__name__)
        places[layer] = (
            f"{place}layers/{key}_{seen[key]}/" if seen[key] else f"{place}layers/{key}/"
        )
        seen[key] += 1
    return places


def _to_snake_case(name: str) -> str:
    """Write a class name as Keras does for its keys: `Conv2D` is `conv2d`."""
    name = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", re.sub(r"\W+", "", name))
    return re.sub("([a-z])([A-Z])", r"\1_\2", name).lower()


def _read_arrays(file: h5py.File, place: str | None) -> Iterator[np.ndarray]:
    if place is None:
        return
    variables = file[f"{place}vars"]
    for index in sorted(variables, key=int):
        yield np.asarray(variables[index], np.float32)


def _dense_settings(layer: Any, _arguments: Any) -> dict[str, Any]:
    name = getattr(layer.activation, "__name__", "")
    if name not in _ACTIVATIONS:
        raise NetworkFileError(
            f"layer {layer.name}: expected an activation among {', '.join(_ACTIVATIONS)}, got "
            f"{name or layer.activation}"
        )
    return {"activation": name}


def _slice_settings(_layer: Any, arguments: Any) -> dict[str, Any]:
    """Take `features[:, start:stop]`, which is the only form known here."""
    key = arguments.args[1]
    whole, columns = key if isinstance(key, tuple) and len(key) == 2 else (None, None)
    if whole != slice(None) or not isinstance(columns, slice) or columns.step is not None:
        raise NetworkFileError(f"expected columns like [:, 0:8] to be taken, got {key}")
    return {"start": columns.start, "stop": columns.stop}


# Class of a layer, or of an operation of `keras.ops` -> what of it decides its numbers.
_SETTINGS: dict[str, Callable[[Any, Any], dict[str, Any]]] = {
    "Dense": _dense_settings,
    "BatchNormalization": lambda layer, _arguments: {
        "scale": layer.scale,
        "center": layer.center,
        "epsilon": layer.epsilon,
    },
    "Rescaling": lambda layer, _arguments: {
        "scale": np.asarray(layer.scale, float).tolist(),
        "offset": np.asarray(layer.offset, float).tolist(),
    },
    "GetItem": _slice_settings,
    **dict.fromkeys(
        ("UnitNormalization", "Add", "Average", "Concatenate"), lambda _layer, _arguments: {}
    ),
}

_ACTIVATIONS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "linear": lambda values: values,
    "relu": lambda values: np.maximum(values, 0, dtype=np.float32),
    "tanh": np.tanh,
}


@cache
def _matrix_product() -> onnxruntime.InferenceSession:
    return open_session(_MATRIX_PRODUCT)


def _run_dense(
    inputs: list[np.ndarray], arrays: Sequence[np.ndarray], activation: str
) -> np.ndarray:
    kernel, *bias = arrays
    # A row of the product depends on nothing but its own numbers.
    (values,) = _matrix_product().run(None, {"a": np.ascontiguousarray(inputs[0]), "b": kernel})
    for shift in bias:
        values += shift
    return _ACTIVATIONS[activation](values)


def _run_unit(inputs: list[np.ndarray], _arrays: Sequence[np.ndarray]) -> np.ndarray:
    squares = np.square(inputs[0]).sum(axis=1, keepdims=True)
    # As in Keras, a row of zeros stays.
    return inputs[0] / np.sqrt(np.maximum(squares, np.float32(1e-24)))


def _run_norm(
    inputs: list[np.ndarray],
    arrays: Sequence[np.ndarray],
    scale: bool,
    center: bool,
    epsilon: float,
) -> np.ndarray:
    *learned, mean, variance = arrays
    factor = 1.0 / np.sqrt(variance.astype(np.float64) + epsilon)
    if scale:
        factor *= learned[0]
    shift = (learned[-1] if center else 0.0) - mean * factor
    return inputs[0] * factor.astype(np.float32) + shift.astype(np.float32)


def _run_rescaling(
    inputs: list[np.ndarray],
    _arrays: Sequence[np.ndarray],
    scale: float | list[float],
    offset: float | list[float],
) -> np.ndarray:
    return inputs[0] * np.asarray(scale, np.float32) + np.asarray(offset, np.float32)


_RUN: dict[str, Callable[..., np.ndarray]] = {
    "Dense": _run_dense,
    "UnitNormalization": _run_unit,
    "BatchNormalization": _run_norm,
    "Rescaling": _run_rescaling,
    "Add": lambda inputs, _arrays: np.add.reduce(inputs, dtype=np.float32),
    "Average": lambda inputs, _arrays: np.asarray(np.mean(inputs, axis=0, dtype=np.float32)),
    "Concatenate": lambda inputs, _arrays: np.concatenate(inputs, axis=1),
    "GetItem": lambda inputs, _arrays, start, stop: inputs[0][:, start:stop],
}


def embed(head: keras.Model | NumpyHead, features: np.ndarray) -> np.ndarray:
    """Return `(n_images, n_dims)` float32 embeddings of `(n_images, n_features)` features. Batches
    have one shape, the last filled up with zeros, so that an image's embedding does not depend on
    which others are asked for. A row of NaN gives one."""
    size = _EMBED_BATCH_SIZE
    embeddings = np.empty((len(features), head.output_shape[-1]), dtype=np.float32)
    batch = np.zeros((size, features.shape[1]), dtype=np.float32)
    for start in range(0, len(features), size):
        part = features[start : start + size]
        batch[: len(part)] = part
        batch[len(part) :] = 0
        found = np.asarray(head(batch, training=False))
        embeddings[start : start + size] = found[: len(part)]
    return embeddings


def fit_projection(embeddings: np.ndarray, settings: Settings) -> list[np.ndarray]:
    """Return kernel and bias of the projection of embeddings to `dim` principal components."""
    from sklearn.decomposition import PCA

    if settings.dim > min(embeddings.shape):
        raise SettingsError(
            "dim",
            f"`dim={settings.dim}`: expected at most {min(embeddings.shape)}, as many as the "
            f"embeddings of {len(embeddings):,} images can be compressed to",
        )
    components = PCA(settings.dim, svd_solver="randomized", random_state=settings.seed).fit(
        embeddings
    )
    kernel = components.components_.T
    return [kernel, -components.mean_ @ kernel]


@dataclass(frozen=True)
class TrainedPart:
    """A part of an ensemble with its numbers.

    Attributes:
        weights: of its two layers, in turn: kernel and bias of each; kernels alone of a map; none
            of a part that is not trained.
        scaling: of its features of length 1; None where they are not standardised.
    """

    part: Part
    weights: Sequence[np.ndarray]
    scaling: Scaling | None


def join_parts(n_features: int, parts: Sequence[TrainedPart]) -> NumpyHead:
    """Return a head whose squared L2 distance is the weighted mean of the parts' own. It gives the
    parts' embeddings side by side, each times the root of its weight: length 1 again, as the sum of
    the weights is 1."""
    steps: list[_HeadStep] = []

    def add(kind: str, *inputs: int, **options: Any) -> int:
        steps.append(_HeadStep.of(kind, *inputs, **options))
        return len(steps)

    def add_part(trained: TrainedPart) -> int:
        part, scaling = trained.part, trained.scaling
        features = add("UnitNormalization", add("GetItem", 0, start=part.start, stop=part.stop))
        if part.head == COSINE:
            return features
        if scaling is not None:
            numbers = scaling.mean, scaling.deviation**2
            norm = {"scale": False, "center": False, "epsilon": 0.0}
            features = add("BatchNormalization", features, arrays=numbers, **norm)
        embedding = features
        if part.head in (MAP, RESIDUAL, MLP):
            half = len(trained.weights) // 2
            first, last = trained.weights[:half], trained.weights[half:]
            activation = "linear" if part.head == MAP else "relu"
            embedding = add("Dense", features, arrays=first, activation=activation)
            embedding = add("Dense", embedding, arrays=last, activation="linear")
        if part.head in (MAP, RESIDUAL):
            embedding = add("Add", features, embedding)
        return add("UnitNormalization", embedding)

    pieces = [
        add("Rescaling", add_part(trained), scale=trained.part.weight**0.5, offset=0.0)
        for trained in parts
    ]
    if len(pieces) > 1:
        add("Concatenate", *pieces)
    return NumpyHead(n_features, steps)

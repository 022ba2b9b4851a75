"""Weights files: load them into a model, naming the first layer that does not fit."""

from __future__ import annotations

import hashlib
import re
import tempfile
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import h5py

from tripletkit.errors import WeightsError

if TYPE_CHECKING:
    import keras

# The shapes of one layer's weights, in Keras's order.
Shapes = list[tuple[int, ...]]


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file as hexadecimal text.

    Raises:
        WeightsError: if it cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read: {error.strerror}") from error


def load_weights_file(model: keras.Model, path: Path) -> None:
    """Load a Keras weights file, old form (`.h5`) or new (`.weights.h5`).

    Raises:
        WeightsError: naming the file and the first layer that differs.
    """
    in_model = [
        (layer, [tuple(weight.shape) for weight in layer.weights])
        for layer in model.layers
        if layer.weights
    ]
    try:
        with h5py.File(path) as file:
            _compare(path, model, in_model, *_read_shapes(path, file, in_model))
            is_new = "layers" in file
        # Keras tells the two forms apart by the name, which a download need not have kept.
        with tempfile.TemporaryDirectory() as folder:
            link = Path(folder) / ("link.weights.h5" if is_new else "link.h5")
            link.symlink_to(path.absolute())
            model.load_weights(link)
    except WeightsError:
        raise
    except (OSError, LookupError, ValueError, TypeError, AttributeError, RuntimeError) as error:
        # What h5py and Keras raise for damaged files, besides OSError for what is no HDF5.
        reason = str(error).partition("\n")[0]
        raise WeightsError(
            f"{path}: expected a Keras weights file (HDF5) for {model.name}, it cannot be read "
            f"as one: {reason}"
        ) from error


def _compare(
    path: Path,
    model: keras.Model,
    in_model: list[tuple[keras.Layer, Shapes]],
    in_file: list[Shapes | None],
    extra: list[str],
) -> None:
    misfit = f"{path}: does not fit {model.name}: "
    for (layer, expected), got in zip(in_model, in_file, strict=True):
        if got is None:
            raise WeightsError(f'{misfit}the file has no weights for layer "{layer.name}"')
        if got != expected:
            raise WeightsError(
                f'{misfit}layer "{layer.name}" expects weights of shapes {expected}, got {got}'
            )
    if extra:
        raise WeightsError(
            f'{misfit}the file has a layer "{extra[0]}" that the model has not. Weights with '
            'the classifier do not fit; take the "notop" file.'
        )


def _read_shapes(
    path: Path, file: h5py.File, in_model: list[tuple[keras.Layer, Shapes]]
) -> tuple[list[Shapes | None], list[str]]:
    """Return the shapes that the file has for each layer of the model, and what is left over."""
    root = file.get("model_weights", file)
    if "layer_names" in root.attrs:
        # The old form goes by the order of layers that have weights.
        names = [_text(name) for name in root.attrs["layer_names"]]
        names = [name for name in names if len(root[name].attrs["weight_names"])]
        shapes = [
            [tuple(root[name][_text(w)].shape) for w in root[name].attrs["weight_names"]]
            for name in names
        ]
        missing = [None] * max(0, len(in_model) - len(shapes))
        return (shapes + missing)[: len(in_model)], names[len(in_model) :]
    if "layers" in file:
        # The new form goes by a layer's class and how many of the class came before.
        layers = file["layers"]
        keys = _new_keys([layer for layer, _ in in_model])
        extra = [key for key in layers if len(layers[key].get("vars", ())) and key not in keys]
        return [_new_shapes(layers, key) for key in keys], extra
    raise WeightsError(f"{path}: expected a Keras weights file, got HDF5 without any layer")


def _new_keys(layers: list[keras.Layer]) -> list[str]:
    seen: Counter[str] = Counter()
    keys = []
    for layer in layers:
        key = to_snake_case(type(layer).__name__)
        keys.append(f"{key}_{seen[key]}" if seen[key] else key)
        seen[key] += 1
    return keys


def to_snake_case(name: str) -> str:
    """Write a class name as Keras does for its keys: `Conv2D` is `conv2d`."""
    name = re.sub(r"\W+", "", name)
    name = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub("([a-z])([A-Z])", r"\1_\2", name).lower()


def _new_shapes(layers: h5py.Group, key: str) -> Shapes | None:
    variables = layers.get(f"{key}/vars")
    if variables is None:
        return None
    return [tuple(variables[index].shape) for index in sorted(variables, key=int)]


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value

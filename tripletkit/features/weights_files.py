"""Weights files of Keras, and hashes of files."""

from __future__ import annotations

import hashlib
import re
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import h5py

from tripletkit.errors import WeightsError

if TYPE_CHECKING:
    import keras


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file as hexadecimal text."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read: {error.strerror}") from error


def load_weights_file(model: keras.Model, path: Path) -> None:
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


def to_snake_case(name: str) -> str:
    """Write a class name as Keras does for its keys: `Conv2D` is `conv2d`."""
    name = re.sub(r"\W+", "", name)
    name = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub("([a-z])([A-Z])", r"\1_\2", name).lower()

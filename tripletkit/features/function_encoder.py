"""Encoders that are Python functions: a network of another library, or a service elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import KW_ONLY, dataclass, field
from functools import partial
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np

from tripletkit.data.decoding import PIXELS_VERSION
from tripletkit.errors import BackboneError, NetworkFileError
from tripletkit.features.backbones import (
    BACKBONES,
    FROM_FUNCTION,
    Backbone,
    FeatureFunction,
    Preprocessing,
)
from tripletkit.features.image_processor import FILTERS, MAX_SIDE_PX
from tripletkit.features.onnx_files import is_network_name, try_encoder

# For a call of the trial; the first may load a large network.
_TRIAL_LIMIT_S = 300.0


@dataclass(frozen=True)
class FunctionEncoder:
    """A Python function that turns images into vectors, to be named wherever a backbone is.

    It is tried on two different images before its first vector is kept. Vectors are kept on disk
    under its name and version; the function itself is kept with no model.

    Args:
        function: `(n, size, size, 3)` uint8, RGB -> `(n, n_features)` numbers: an array, or what
            NumPy can make one of, such as a tensor of PyTorch. It is called with batches of one
            size, the last of which is filled up with black images.
        name: what it is called.
        version: text that is another whenever its numbers may be others.
        size: side of the images, pixels. Defaults to 224.
        resample: the Pillow filter that resizes images to this square, whatever their shape.
    Raises:
        BackboneError: if one of these cannot be used.
    Example:
        `tk.train("train.txt", "images/", backbone=tk.Encoder(embed, name="mine", version="1"))`
    """

    function: Callable[[np.ndarray], Any]
    _: KW_ONLY
    name: str
    version: str
    size: int = 224
    resample: str = "bicubic"

    def __post_init__(self) -> None:
        for field_name in ("name", "version"):
            value = getattr(self, field_name)
            if not isinstance(value, str) or not value.strip():
                raise BackboneError(f"`{field_name}`: expected a text, got {value!r}.")
        if self.name in BACKBONES or is_network_name(self.name):
            raise BackboneError(f"`name`: {self.name} is another encoder's, choose a new one.")
        if not callable(self.function):
            raise BackboneError(f"`function`: expected a function, got {self.function!r}.")
        if isinstance(self.size, bool) or self.size not in range(1, MAX_SIDE_PX + 1):
            raise BackboneError(f"`size`: expected 1 to {MAX_SIDE_PX} pixels, got {self.size!r}.")
        if self.resample not in FILTERS.values():
            raise BackboneError(
                f"`resample`: expected {', '.join(FILTERS.values())}, got {self.resample!r}."
            )


@dataclass(frozen=True)
class _FunctionBackbone(Backbone):
    """A function in the place of a registered backbone; None where only a record tells of it."""

    version: str = ""
    function: Callable[[np.ndarray], Any] | None = field(default=None, compare=False)

    def facts(self) -> dict[str, object]:
        """Return what decides its features: its name and version stand for the function."""
        return {
            "backbone": FROM_FUNCTION,
            "name": self.name,
            "version": self.version,
            "input_size_px": self.input_size_px,
            "resample": self.preprocessing.resample,
            "pixels_version": PIXELS_VERSION,
            "n_features": self.n_features,
        }

    def open_function(self, find_weights: Callable[[], Path]) -> FeatureFunction:
        return self._compute

    def _compute(self, pixels: np.ndarray) -> np.ndarray:
        if self.function is None:
            raise BackboneError(
                f'{self.name}: expected the function "{self.name}" of version "{self.version}" '
                "that the model was trained on, which is not kept with it. Give it as `backbone`."
            )
        found = _call(self.name, self.function, pixels)
        if found.shape != (len(pixels), self.n_features):
            raise NetworkFileError(
                f"{self.name}: expected {self.n_features} numbers for each of {len(pixels)} "
                f"images, got an array of shape {found.shape}."
            )
        return found.astype(np.float32)


def open_function(encoder: FunctionEncoder) -> _FunctionBackbone:
    """Return a function as a backbone, once it was tried."""
    return _FunctionBackbone(
        name=encoder.name,
        build="",
        n_features=try_encoder(encoder.name, partial(_call_within, encoder), encoder.size),
        input_size_px=encoder.size,
        preprocessing=Preprocessing(resample=encoder.resample),
        version=encoder.version,
        function=encoder.function,
    )


def recorded_function(
    facts: Mapping[str, Any], functions: Sequence[FunctionEncoder]
) -> _FunctionBackbone:
    """Return the function that a model was trained on, if it is among those at hand."""
    names = ("name", "version", "input_size_px", "n_features")
    how = Preprocessing(resample=facts["resample"])
    backbone = _FunctionBackbone(build="", preprocessing=how, **{key: facts[key] for key in names})
    for given in functions:
        is_same = (given.name, given.version) == (backbone.name, backbone.version)
        if is_same and (opened := open_function(given)) == backbone:
            return opened
    return backbone


def _call_within(encoder: FunctionEncoder, pixels: np.ndarray) -> np.ndarray:
    """Call a function in a thread of its own, which is left behind where it takes too long."""
    answer: Future[np.ndarray] = Future()

    def run() -> None:
        try:
            answer.set_result(_call(encoder.name, encoder.function, pixels))
        except BaseException as error:
            answer.set_exception(error)

    Thread(target=run, daemon=True).start()
    try:
        return answer.result(_TRIAL_LIMIT_S)
    except TimeoutError as error:
        raise NetworkFileError(
            f"{encoder.name}: took longer than {_TRIAL_LIMIT_S:.0f} s on {len(pixels)} images."
        ) from error


def _call(name: str, function: Callable[[np.ndarray], Any], pixels: np.ndarray) -> np.ndarray:
    try:
        # A function may write into its images.
        found = function(pixels.copy())
        if hasattr(found, "detach"):
            found = found.detach().cpu()
        return np.asarray(found)
    except KeyboardInterrupt:
        raise
    # Whatever a user's function raises, even to end Python, ends in one line.
    except BaseException as error:
        why = " ".join(str(error).split())
        raise NetworkFileError(
            f"{name}: failed on images of shape {pixels.shape}: {type(error).__name__}: {why}"
        ) from error

"""Backbones as files that ONNX Runtime runs, made once and kept beside the feature store.

Keras builds a backbone, which is written as ONNX without its preprocessing, checked against Keras
on random images and on the first that are to be looked at, and kept under the hash of all that
decides its features. From then on nothing imports TensorFlow. What cannot be written, or gives
other numbers, is run by TensorFlow.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tripletkit.data.outputs import open_output, remove_unfinished
from tripletkit.errors import NetworkFileError, StoreError
from tripletkit.features.extract import FeatureFunction
from tripletkit.features.function_encoder import FunctionBackbone
from tripletkit.features.onnx_engine import make_onnx_function, open_session
from tripletkit.features.onnx_files import OnnxFile, open_file_function
from tripletkit.features.weights_files import build_backbone, file_sha256

if TYPE_CHECKING:
    import keras

    from tripletkit.features.feature_parts import FeaturePart

logger = logging.getLogger("tripletkit")

FOLDER_NAME = "networks"
# Increase when graphs are written in another way; older files are then left aside.
_GRAPH_VERSION = 1
# Largest difference to Keras, as a share of the largest feature of an image.
_TOLERANCE = 1e-4
_N_CHECKED = 4


def load_network_function(parts: Sequence[FeaturePart], store_folder: Path) -> FeatureFunction:
    """Return the function from images to the features of some depths of one backbone."""
    backbone = parts[0].backbone
    if isinstance(backbone, FunctionBackbone):
        return backbone
    weights = parts[0].find_weights()
    if isinstance(backbone, OnnxFile):
        return open_file_function(backbone, weights)
    folder, key = store_folder / FOLDER_NAME, _key(parts)
    if (kept := _find_kept(folder, key)) is not None:
        try:
            return make_onnx_function(open_session(kept), backbone.preprocessing)
        except NetworkFileError as error:
            logger.info("%s is made anew: %s", backbone.name, error)
    return _FirstRun(parts, build_backbone(backbone, weights), folder, key)


class _FirstRun:
    """The function of a backbone that has not been run before: it writes and checks it first."""

    def __init__(
        self, parts: Sequence[FeaturePart], model: keras.Model, folder: Path, key: str
    ) -> None:
        self._parts, self._model = parts, model
        self._folder, self._key = folder, key
        self._function: FeatureFunction | None = None

    def __call__(self, pixels: np.ndarray) -> np.ndarray:
        if self._function is None:
            self._function = self._choose(pixels)
        return self._function(pixels)

    def _choose(self, pixels: np.ndarray) -> FeatureFunction:
        from tripletkit.features.keras_backbones import make_keras_function, take_stages
        from tripletkit.features.onnx_writer import make_onnx_model

        backbone = self._parts[0].backbone
        stages = [part.stage for part in self._parts]
        of_keras = make_keras_function(backbone, self._model, stages)
        try:
            written = make_onnx_model(take_stages(self._model, stages)).SerializeToString()
            function = make_onnx_function(open_session(written), backbone.preprocessing)
            self._check(function, of_keras, pixels)
        except NetworkFileError as error:
            logger.warning("%s is run by TensorFlow, not by ONNX Runtime: %s", backbone.name, error)
            return of_keras
        _keep(written, self._folder, self._key)
        return function

    def _check(
        self, function: FeatureFunction, of_keras: FeatureFunction, pixels: np.ndarray
    ) -> None:
        """Compare with Keras on images at hand and on random ones."""
        noise = np.random.default_rng(0).integers(
            0, 256, (_N_CHECKED, *pixels.shape[1:]), dtype=np.uint8
        )
        # They come at once with others, as images will later.
        images = np.concatenate([noise, pixels])[: len(pixels)]
        checked = images[: 2 * _N_CHECKED]
        got, want = function(images)[: len(checked)], of_keras(checked)
        ends = np.cumsum([part.n_features for part in self._parts])[:-1]
        columns = zip(np.split(got, ends, axis=1), np.split(want, ends, axis=1), strict=True)
        for part, (ours, keras_own) in zip(self._parts, columns, strict=True):
            difference = _relative_difference(ours, keras_own)
            if not difference <= _TOLERANCE:
                raise NetworkFileError(
                    f"{part.backbone.name}: expected the features that Keras gives, got others in "
                    f"{part.facts.get('stage', 'its last features')} (difference "
                    f"{difference:.1e} of the largest)"
                )


def _relative_difference(got: np.ndarray, want: np.ndarray) -> float:
    """Return the largest difference of two arrays of rows, as a share of the row's largest."""
    largest = np.abs(want).max(axis=1)
    differences = np.abs(got - want).max(axis=1)
    return float(np.max(differences / np.where(largest > 0, largest, 1.0)))


def remove_networks(store_folder: Path, unused_since_s: float | None = None) -> int:
    """Delete kept networks and what killed runs left, and nothing else; return the bytes freed.

    Networks that were used since `unused_since_s` (seconds since 1970) stay.
    """
    freed = 0
    remove_unfinished(store_folder / FOLDER_NAME)
    for path in filter(_is_kept, (store_folder / FOLDER_NAME).glob("*.onnx")):
        try:
            stat = path.stat()
            if unused_since_s is None or stat.st_mtime < unused_since_s:
                path.unlink()
                freed += stat.st_size
        except FileNotFoundError:
            continue
        except OSError as error:
            raise StoreError(f"{path}: cannot be deleted: {error.strerror}") from error
    return freed


def _key(parts: Sequence[FeaturePart]) -> str:
    facts = {"graph_version": _GRAPH_VERSION, "parts": [part.facts for part in parts]}
    text = json.dumps(facts, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _find_kept(folder: Path, key: str) -> Path | None:
    """Return the kept file of a network if it is whole: its name holds the hash of its content."""
    for path in sorted(folder.glob(f"{key}-*.onnx")):
        if _is_kept(path):
            # Pruning goes by when it was used last.
            os.utime(path)
            return path
    return None


def _is_kept(path: Path) -> bool:
    """Return whether a file is a network that was kept, and whole: its name holds its hash."""
    named = re.fullmatch("[0-9a-f]{32}-([0-9a-f]{32})", path.stem)
    return named is not None and path.is_file() and file_sha256(path).startswith(named[1])


def _keep(written: bytes, folder: Path, key: str) -> None:
    """Keep a network; where that fails it is only made anew the next time."""
    path = folder / f"{key}-{hashlib.sha256(written).hexdigest()[:32]}.onnx"
    try:
        folder.mkdir(exist_ok=True)
        with open_output(path, "wb") as file:
            file.write(written)
    except OSError as error:
        logger.warning("%s: the network cannot be kept there: %s", folder, error.strerror or error)

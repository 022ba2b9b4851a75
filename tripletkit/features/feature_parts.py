"""Networks that give features: backbones with their weights, and the functions that run them.

Keras builds a backbone, which is written as ONNX without its preprocessing, checked against Keras
on random images and on the first that are to be looked at, and kept beside the feature store under
the hash of all that decides its features. From then on nothing imports TensorFlow. What cannot be
written, or gives other numbers, is run by TensorFlow.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np

from tripletkit.data.outputs import open_output, remove_unfinished
from tripletkit.errors import NetworkFileError, StoreError
from tripletkit.features.backbones import Backbone, FeatureFunction, Stage, file_sha256
from tripletkit.features.onnx_engine import make_onnx_function, open_session
from tripletkit.features.store import FeatureSpace

logger = logging.getLogger("tripletkit")

_FOLDER_NAME = "networks"
# Increase when graphs are written in another way; older files are then left aside.
_GRAPH_VERSION = 1
# Largest difference to Keras, as a share of the largest feature of an image.
_TOLERANCE = 1e-4
_N_CHECKED = 4


@dataclass(frozen=True)
class FeaturePart:
    """One backbone with certain weights, at one of its depths.

    Attributes:
        network_facts: what decides all that it computes of a whole image.
        find_weights: returns the weights file; called only if something has to be computed, so
            that answering from the store needs no weights.
        origin: what a model's record says of the weights: the path of the file that the user
            named, absolute, or a name on the hub; None for the backbone's own.
        reason: why `auto` took this backbone, or what to know of it; empty for nothing.
        stage: whose mean and standard deviation are taken; None for the last features.
    """

    backbone: Backbone
    network_facts: dict[str, object]
    find_weights: Callable[[], Path] = field(compare=False)
    origin: str | None = None
    reason: str = ""
    stage: Stage | None = None

    @classmethod
    def of_file(
        cls, backbone: Backbone, path: Path, origin: str | None = None, reason: str = ""
    ) -> FeaturePart:
        """Return a backbone whose weights are at hand."""
        facts = {**backbone.facts(), "weights_sha256": backbone.hash_weights(path)}
        return cls(backbone, facts, partial(Path, path), origin, reason)

    @property
    def n_features(self) -> int:
        return self.backbone.n_features if self.stage is None else self.stage.n_features

    @property
    def facts(self) -> dict[str, object]:
        """What decides its features of a whole image."""
        if self.stage is None:
            return self.network_facts
        stage = {"layer": self.stage.layer, "statistics": "mean, deviation"}
        return {**self.network_facts, "stage": stage}

    @property
    def space(self) -> FeatureSpace:
        return FeatureSpace(self.facts, self.n_features)

    def split(self, features: np.ndarray) -> list[np.ndarray]:
        """Return what is to count alike of its features: all of them, or means and deviations."""
        return [features] if self.stage is None else np.split(features, 2, axis=1)


def load_network_function(parts: Sequence[FeaturePart], store_folder: Path) -> FeatureFunction:
    """Return the function from images to features of some depths; it loads when first called."""
    loaded: list[FeatureFunction] = []

    def compute(pixels: np.ndarray) -> np.ndarray:
        if not loaded:
            loaded.append(_load(parts, store_folder / _FOLDER_NAME, pixels))
        return loaded[0](pixels)

    return compute


def _load(parts: Sequence[FeaturePart], folder: Path, pixels: np.ndarray) -> FeatureFunction:
    backbone = parts[0].backbone
    if (function := backbone.open_function(parts[0].find_weights)) is not None:
        return function
    weights = parts[0].find_weights()
    facts = {"graph_version": _GRAPH_VERSION, "parts": [part.facts for part in parts]}
    key = FeatureSpace(facts, sum(part.n_features for part in parts)).fingerprint[:32]
    if (kept := _find_kept(folder, key)) is not None:
        try:
            return make_onnx_function(open_session(kept), backbone.preprocessing)
        except NetworkFileError as error:
            logger.info("%s is made anew: %s", backbone.name, error)
    from tripletkit.features.keras_backbones import (
        build_backbone,
        make_keras_function,
        take_stages,
    )
    from tripletkit.features.onnx_writer import make_onnx_model

    model = take_stages(build_backbone(backbone, weights), [part.stage for part in parts])
    of_keras = make_keras_function(backbone, model)
    try:
        written = make_onnx_model(model).SerializeToString()
        function = make_onnx_function(open_session(written), backbone.preprocessing)
        _check(parts, function, of_keras, pixels)
    except NetworkFileError as error:
        logger.warning("%s is run by TensorFlow, not by ONNX Runtime: %s", backbone.name, error)
        return of_keras
    _keep(written, folder, key)
    return function


def _check(
    parts: Sequence[FeaturePart],
    function: FeatureFunction,
    of_keras: FeatureFunction,
    pixels: np.ndarray,
) -> None:
    """Compare with Keras on images at hand and on random ones."""
    noise = np.random.default_rng(0).integers(
        0, 256, (_N_CHECKED, *pixels.shape[1:]), dtype=np.uint8
    )
    # They come at once with others, as images will later.
    images = np.concatenate([noise, pixels])[: len(pixels)]
    checked = images[: 2 * _N_CHECKED]
    got, want = function(images)[: len(checked)], of_keras(checked)
    ends = np.cumsum([part.n_features for part in parts])[:-1]
    columns = zip(np.split(got, ends, axis=1), np.split(want, ends, axis=1), strict=True)
    for part, (ours, keras_own) in zip(parts, columns, strict=True):
        largest = np.abs(keras_own).max(axis=1)
        differences = np.abs(ours - keras_own).max(axis=1)
        difference = float(np.max(differences / np.where(largest > 0, largest, 1.0)))
        if not difference <= _TOLERANCE:
            raise NetworkFileError(
                f"{part.backbone.name}: expected the features that Keras gives, got others in "
                f"{part.facts.get('stage', 'its last features')} (difference "
                f"{difference:.1e} of the largest)"
            )


def remove_networks(store_folder: Path, unused_since_s: float | None = None) -> int:
    """Delete networks unused since a time (s since 1970), and litter; return the bytes freed."""
    freed = 0
    remove_unfinished(store_folder / _FOLDER_NAME)
    for path in filter(_is_kept, (store_folder / _FOLDER_NAME).glob("*.onnx")):
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


def _find_kept(folder: Path, key: str) -> Path | None:
    """Return the kept file of a network if it is whole: its name holds the hash of its content."""
    for path in sorted(folder.glob(f"{key}-*.onnx")):
        if _is_kept(path):
            # Pruning goes by when it was used last. In a store of others that cannot be noted.
            with suppress(OSError):
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

"""Weights of a backbone that was trained here, in a file that says whose they are.

Such a file is in Keras's own form, whatever form the backbone's ImageNet weights come in, and
holds exactly what the model held.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import h5py

from tripletkit.errors import BackboneError, WeightsError
from tripletkit.features.backbones import Backbone
from tripletkit.features.weights_files import file_sha256, load_weights_file
from tripletkit.features.weights_origin import WeightsFile
from tripletkit.registry import load_object

if TYPE_CHECKING:
    import keras

_BACKBONE = "tripletkit_backbone"


def save_trained_weights(model: keras.Model, name: str, path: Path) -> None:
    """Write the weights of a backbone.

    Args:
        model: the backbone's Keras model.
        name: the backbone's.
        path: a file ending in `.weights.h5`.
    """
    model.save_weights(path)
    with h5py.File(path, "a") as file:
        file.attrs[_BACKBONE] = name


def write_random_weights(backbone: Backbone, seed: int, path: Path) -> WeightsFile:
    """Write the random weights that a backbone's training from scratch starts at.

    Args:
        path: a file ending in `.weights.h5`.
    """
    from tripletkit.features.keras_backend import seed_layers

    seed_layers(seed)
    save_trained_weights(build_backbone(backbone, None), backbone.name, path)
    return WeightsFile(backbone, path, file_sha256(path))


def trained_backbone(path: Path) -> str | None:
    """Return the name of the backbone that a file was written for, `None` for other files."""
    try:
        with h5py.File(path) as file:
            return file.attrs.get(_BACKBONE)
    except OSError:
        return None


def build_backbone(backbone: Backbone, weights: Path | None) -> keras.Model:
    """Return the Keras model of a backbone with the weights of a file, or random ones for `None`.

    Args:
        weights: its ImageNet weights, or what `save_trained_weights` wrote.
    Raises:
        BackboneError: if Keras cannot build it.
        WeightsError: if the file is broken or does not fit.
    """
    if not backbone.build:
        raise BackboneError(
            f"{backbone.name}: an encoder from an ONNX file, or a function, runs as it is; Keras "
            "can neither train it further nor write it."
        )
    build = load_object(backbone.build)
    if weights is None or (trained := trained_backbone(weights)) is None:
        return build(weights, backbone.input_size_px)
    if trained != backbone.name:
        raise WeightsError(
            f"{weights}: expected weights of {backbone.name}, got those of a trained {trained}. "
            f"Name it with `backbone={trained}`."
        )
    model = build(None, backbone.input_size_px)
    load_weights_file(model, weights)
    return model

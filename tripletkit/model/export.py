"""The whole network, backbones and head, as `.keras` files."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from tripletkit.data.outputs import check_parent
from tripletkit.errors import OutputError
from tripletkit.features.sources import FeatureSource
from tripletkit.features.trained_weights import build_backbone
from tripletkit.model.model_folder import ModelFolder

if TYPE_CHECKING:
    import keras

ENCODER_FILE = "encoder.keras"
TRIPLET_FILE = "triplet_network.keras"


def check_export_folder(folder: Path, *, overwrite: bool = False) -> None:
    """Refuse a folder that cannot take the exported files, or has them already.

    Raises:
        OutputError: saying which.
    """
    check_parent(folder / ENCODER_FILE if folder.is_dir() else folder)
    for name in (ENCODER_FILE, TRIPLET_FILE):
        if (folder / name).exists() and not overwrite:
            raise OutputError(f"{folder / name}: is there already; replace it with --force")


def export_networks(model: ModelFolder, folder: Path, source: FeatureSource) -> list[Path]:
    """Write encoder and triplet network; each appears whole or not at all.

    Args:
        model: the trained model.
        folder: made if missing.
        source: what its features are of, with the weights.
    Returns:
        The files written.
    Raises:
        BackboneError, WeightsError: if weights cannot be had, or are others.
        OutputError: if a file cannot be written.
    """
    from tripletkit.model.network import build_encoder, build_triplet_network

    backbones = [
        (part.backbone, build_backbone(part.backbone, part.find_weights())) for part in source.parts
    ]
    encoder = build_encoder(backbones, model.load_head(), source.views)
    try:
        folder.mkdir(exist_ok=True)
        return [
            _save(encoder, folder / ENCODER_FILE),
            _save(build_triplet_network(encoder), folder / TRIPLET_FILE),
        ]
    except OSError as error:
        raise OutputError(f"{folder}: cannot be written: {error.strerror or error}") from error


def _save(network: keras.Model, path: Path) -> Path:
    # Keras wants the suffix, so the temporary file is in a folder of its own.
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".export-") as partial:
        temporary = Path(partial) / path.name
        network.save(temporary)
        temporary.replace(path)
    return path

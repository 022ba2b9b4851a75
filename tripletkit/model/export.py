"""The whole network, backbone and head, as `.keras` files."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from tripletkit.data.outputs import check_parent
from tripletkit.errors import OutputError
from tripletkit.model.artifact import ModelFolder

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


def export_networks(model: ModelFolder, folder: Path, weights: Path) -> list[Path]:
    """Write encoder and triplet network; each appears whole or not at all.

    Args:
        model: the trained model.
        folder: made if missing.
        weights: the backbone's weights file.
    Returns:
        The files written.
    Raises:
        OutputError: if one cannot be written.
    """
    from tripletkit.model.network import build_encoder, build_triplet_network

    backbone = model.backbone
    encoder = build_encoder(backbone, backbone.build_model(weights), model.load_head())
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

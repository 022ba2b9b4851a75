"""The whole network, backbones and head, as `.keras` files."""

from __future__ import annotations

from pathlib import Path

from tripletkit.data.output_forms import keras_form
from tripletkit.data.outputs import Outputs, explain_failure
from tripletkit.data.unfinished import unfinished_files
from tripletkit.features.sources import FeatureSource
from tripletkit.features.trained_weights import build_backbone
from tripletkit.model.model_folder import ModelFolder

ENCODER_FILE = "encoder.keras"
TRIPLET_FILE = "triplet_network.keras"


EXPORT_FORMS = {
    ENCODER_FILE: keras_form("encoder"),
    TRIPLET_FILE: keras_form("triplet_network"),
}


def check_export_folder(folder: Path, outputs: Outputs) -> None:
    """Refuse a folder that cannot take the exported files.

    Raises:
        OutputError: saying why.
    """
    outputs.files_in(folder, EXPORT_FORMS)


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
    networks = {ENCODER_FILE: encoder, TRIPLET_FILE: build_triplet_network(encoder)}
    with explain_failure(folder), unfinished_files(folder.resolve()) as partial:
        for name, network in networks.items():
            network.save(partial / name)
    return [folder / name for name in networks]

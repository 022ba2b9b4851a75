"""The whole network, backbones and head, as Keras or ONNX files that need no tripletkit."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from tripletkit.data.outputs import Outputs, explain_failure, keras_form, marked_form
from tripletkit.data.unfinished import unfinished_files
from tripletkit.errors import OutputError
from tripletkit.features.encoder import Encoder
from tripletkit.features.onnx_files import OnnxFile
from tripletkit.features.trained_weights import build_backbone
from tripletkit.model.model_folder import ModelFolder

if TYPE_CHECKING:
    import keras

logger = logging.getLogger("tripletkit")

ENCODER_FILE = "encoder.keras"
TRIPLET_FILE = "triplet_network.keras"
ONNX_ENCODER_FILE = "encoder.onnx"
ONNX_HEAD_FILE = "head.onnx"


KERAS_FORMS = {
    ENCODER_FILE: keras_form("encoder"),
    TRIPLET_FILE: keras_form("triplet_network"),
}
_ONNX_FORM = marked_form("an ONNX file that tripletkit wrote", b"tripletkit")
ONNX_FORMS = {ONNX_ENCODER_FILE: _ONNX_FORM, ONNX_HEAD_FILE: _ONNX_FORM}


def check_export_folder(folder: Path, outputs: Outputs, *, as_onnx: bool = False) -> None:
    """Refuse a folder that cannot take the exported files.

    Raises:
        OutputError: saying why.
    """
    outputs.files_in(folder, ONNX_FORMS if as_onnx else KERAS_FORMS)


def export_networks(model: ModelFolder, folder: Path, encoder: Encoder) -> list[Path]:
    """Write encoder and triplet network as Keras files; each appears whole or not at all.

    Args:
        model: the trained model.
        folder: made if missing.
        encoder: that the model is, with the weights.
    Returns:
        The files written.
    Raises:
        BackboneError, WeightsError: if weights cannot be had, or are others.
        OutputError: if a file cannot be written, or Keras cannot build the network.
    """
    from tripletkit.model.network import build_triplet_network

    if why := _why_no_encoder(encoder):
        raise OutputError(f"{folder}: expected a network that Keras can build, but {why}")
    network = _build_encoder(model, encoder)
    networks = {ENCODER_FILE: network, TRIPLET_FILE: build_triplet_network(network)}
    with explain_failure(folder), unfinished_files(folder) as partial:
        for name, written in networks.items():
            written.save(partial / name)
    return [folder / name for name in networks]


def export_onnx(model: ModelFolder, folder: Path, encoder: Encoder) -> list[Path]:
    """Write encoder and head as ONNX files; each appears whole or not at all.

    The encoder takes images as that of `export_networks` does, float32, and gives `embedding`;
    the head takes `features`. Of a model whose features come from an ONNX file, or are given,
    there is only the head.

    Args:
        model, folder, encoder: see `export_networks`.
    Returns:
        The files written.
    Raises:
        BackboneError, WeightsError: if weights cannot be had, or are others.
        ExportError: if a layer cannot be written.
        OutputError: if a file cannot be written.
    """
    from tripletkit.features.onnx_writer import make_onnx_model

    head = make_onnx_model(model.load_head(), "embedding", input_names=["features"])
    made = {ONNX_HEAD_FILE: head}
    if why := _why_no_encoder(encoder):
        logger.info("Only the head is written: %s", why)
    else:
        network = _build_encoder(model, encoder)
        names = [tensor.name for tensor in network.inputs]
        made = {ONNX_ENCODER_FILE: make_onnx_model(network, "embedding", input_names=names), **made}
    with explain_failure(folder), unfinished_files(folder) as partial:
        for name, written in made.items():
            (partial / name).write_bytes(written.SerializeToString())
    return [folder / name for name in made]


def _why_no_encoder(encoder: Encoder) -> str:
    """Say why an encoder's networks cannot be built by Keras; empty where they can."""
    if encoder.is_given:
        return "the model was trained on given features."
    for part in encoder.parts:
        if not part.backbone.build:
            what = "ONNX file" if isinstance(part.backbone, OnnxFile) else "function"
            return (
                f"features come from the {what} {part.backbone.name}, which runs in front of the "
                "head."
            )
    return ""


def _build_encoder(model: ModelFolder, encoder: Encoder) -> keras.Model:
    head = model.load_head()
    from tripletkit.features.stage_outputs import take_pieces
    from tripletkit.model.network import build_encoder

    backbones = []
    for parts in encoder.networks:
        built = build_backbone(parts[0].backbone, parts[0].find_weights())
        backbones.append((parts[0].backbone, take_pieces(built, [part.stage for part in parts])))
    return build_encoder(backbones, head, encoder.views)

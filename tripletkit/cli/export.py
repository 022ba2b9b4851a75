"""`tripletkit export`: the source's full Keras model as a file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from tripletkit.cli.console import say
from tripletkit.cli.options import OUTPUT_FOLDER, force_option, model_option, quiet_option
from tripletkit.cli.sources import weights_option

if TYPE_CHECKING:
    from tripletkit.features.feature_parts import GivenWeights


@click.command()
@model_option
@click.option(
    "-o",
    "--output",
    "folder",
    type=OUTPUT_FOLDER,
    required=True,
    metavar="DIR",
    help="Folder for triplet_network.keras and encoder.keras, or encoder.onnx and head.onnx.",
)
@click.option("--onnx", "as_onnx", is_flag=True, help="Write encoder.onnx and head.onnx instead.")
@weights_option
@force_option
@quiet_option
def export(model: Path, folder: Path, as_onnx: bool, weights: GivenWeights, force: bool) -> None:
    """Write the whole network, backbone and head, as files that need no tripletkit.

    \b
    tripletkit export --model m1 -o exported/
    tripletkit export --model m1 -o exported/ --onnx
    python -c "import keras; keras.saving.load_model('exported/encoder.keras').summary()"

    triplet_network.keras takes three batches of 224 x 224 RGB images (anchor, positive,
    negative; 0 to 255, uint8 or float) and gives the three embeddings side by side. encoder.keras
    takes one. Resize images as `tripletkit backbones` says to get the same embeddings. With --views
    that crop, images are to be larger; where backbones or views want them resized in several
    ways, there is one input for each, and its name says how. encoder.onnx takes what
    encoder.keras takes, float32; head.onnx takes features.
    """
    from tripletkit.data.outputs import Outputs
    from tripletkit.features.feature_parts import pixel_inputs
    from tripletkit.model.export import check_export_folder, export_networks, export_onnx
    from tripletkit.model.model_folder import load_model

    loaded = load_model(model)
    outputs = Outputs([*weights.values()], image_folders=[loaded.image_folder], overwrite=force)
    check_export_folder(folder, outputs, as_onnx=as_onnx)
    encoder = loaded.open_encoder(weights)
    for path in (export_onnx if as_onnx else export_networks)(loaded, folder, encoder):
        say(f"Wrote {path}.")
    inputs = list(pixel_inputs([part.backbone for part in encoder.parts], encoder.views).values())
    if len(inputs) > 1:
        say(
            f"The encoder takes {len(inputs)} inputs: {', '.join(inputs)}. Each is the same "
            "image, resized to a square of so many pixels with that filter of Pillow."
        )

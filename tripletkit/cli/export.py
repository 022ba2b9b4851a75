from pathlib import Path
from typing import Any

import click

import tripletkit as tk
from tripletkit.cli.commands import command, takes
from tripletkit.cli.options import output_option, trained_model_options
from tripletkit.cli.parameters import OUTPUT_FOLDER


@command()
@trained_model_options
@output_option(
    "Folder for triplet_network.keras and encoder.keras, or encoder.onnx and head.onnx.",
    type=OUTPUT_FOLDER,
    metavar="DIR",
)
@click.option("--onnx", is_flag=True, help="Write encoder.onnx and head.onnx instead.")
@takes("overwrite", "cache")
def export(model: Path, weights: Any, cache: Path | None, **given: Any) -> None:
    """Write the whole network, backbone and head, as files that need no tripletkit.

    \b
    tripletkit export --model m1 -o exported/
    tripletkit export --model m1 -o exported/ --onnx
    python -c "import keras; keras.saving.load_model('exported/encoder.keras').summary()"

    triplet_network.keras takes three batches of 224 x 224 RGB images (anchor, positive,
    negative; 0 to 255, uint8 or float) and gives the three embeddings side by side; encoder.keras
    takes one, encoder.onnx the same as float32, head.onnx features. Resize images as `tripletkit
    backbones` says; where they are wanted in several sizes, the name of each input says which.
    """
    tk.load(model, weights=weights, cache=cache).export(**given)

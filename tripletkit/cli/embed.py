from __future__ import annotations

from typing import Any

import click

import tripletkit as tk
from tripletkit.cli.commands import command, takes
from tripletkit.cli.options import model_options, output_option
from tripletkit.cli.parameters import INPUT_FOLDER


@command()
@click.argument("images", type=INPUT_FOLDER, required=False)
@output_option("File to write; its suffix says the format: .parquet, .csv or .npz.")
@model_options()
@takes("images", "overwrite", "progress")
def embed(model: tk.Model, **given: Any) -> None:
    """Write the embedding of every image in a folder, or its backbone features.

    \b
    tripletkit embed images/ -o embeddings.parquet
    tripletkit embed images/ -o features.npz --frozen
    tripletkit embed images/ -o features.csv --backbone efficientnet-lite0

    Without IMAGES those of the training are embedded. Rows are in the order of the names.
    Parquet: columns name and vector. CSV: name, 0, 1, ... NPZ: arrays names and vectors. With
    --on-bad-image skip, images that cannot be read have no row.
    """
    model.embed(**given)

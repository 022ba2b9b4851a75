"""`tripletkit embed`: the embeddings of all images in a folder, as a file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tripletkit.cli.console import say, stage_bars
from tripletkit.cli.options import (
    INPUT_FOLDER,
    OUTPUT_FILE,
    command,
    model_options,
    need_images,
    takes,
)

if TYPE_CHECKING:
    from tripletkit.api.models import Model
    from tripletkit.data.images import Images


@command()
@click.argument("images", type=INPUT_FOLDER, required=False)
@click.option(
    "-o",
    "--output",
    type=OUTPUT_FILE,
    required=True,
    help="File to write; its suffix says the format: .parquet, .csv or .npz.",
)
@model_options()
@takes("images", "overwrite", "cache")
def embed(
    images: Images,
    output: Path,
    open_model: Callable[[], Model],
    overwrite: bool,
    cache: Path | None,
) -> None:
    """Write the embedding of every image in a folder, or its backbone features.

    \b
    tripletkit embed images/ -o embeddings.parquet
    tripletkit embed images/ -o features.npz --frozen
    tripletkit embed images/ -o features.csv --backbone efficientnet-lite0

    Rows are in the order of the names. Parquet: columns name and vector. CSV: name, 0, 1, ...
    NPZ: arrays names and vectors. With --on-bad-image skip, images that cannot be read have
    no row.
    """
    model = open_model()
    need_images(images, model)
    with stage_bars() as stages:
        found = model.embed(images, output=output, overwrite=overwrite, progress=stages)
    what = "embeddings" if model.is_trained else "features"
    say(
        f"Wrote {what} of {len(found):,} images, {found.vectors.shape[1]:,} numbers each: {output}."
    )

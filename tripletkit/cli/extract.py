"""`tripletkit extract`: the features of very many images, as a folder of Parquet files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from tripletkit import defaults
from tripletkit.cli.console import say, show_json, stage_bars, warn
from tripletkit.cli.options import (
    InputPath,
    WholeRange,
    backbone_options,
    command,
    take_encoder,
    takes,
)


@command()
@click.argument("images", type=InputPath())
@click.option(
    "-o",
    "--output",
    type=click.Path(file_okay=False, path_type=Path),
    required=True,
    help="Folder of the features, made if it is new. Other commands take it as --features.",
)
@backbone_options("Backbone, or several.", default=defaults.BACKBONE, show_default=True)
@click.option(
    "--dtype",
    type=click.Choice(["float32", "float16"]),
    help="How a new folder keeps numbers; float16 takes half the space.  [default: float32]",
)
@click.option("--shard", metavar="I/N", help="Only the I-th of N shares.")
@click.option(
    "--ray",
    is_flag=False,
    flag_value="local",
    metavar="[ADDRESS]",
    help="Work on the Ray cluster there; without ADDRESS, on one that is started for this run and "
    "stopped. Needs tripletkit[ray].",
)
@click.option("--workers", type=WholeRange(1), help="Encoders at a time, with --ray.")
@takes("follow_outside", "as_json")
def extract(images: Path, output: Path, ray: str | None, as_json: bool, **options: Any) -> None:
    """Compute the features of a folder of images, or of a list of paths, into Parquet files.

    \b
    tripletkit extract images/ -o features/
    tripletkit extract list.txt -o features/ --backbone resnet50 --shard 3/16
    tripletkit extract images/ -o features/ --ray

    Images that are in the folder are left alone, so that the same command goes on after anything
    that stopped it. An image that cannot be read becomes a row with the reason.
    """
    encoder = take_encoder(options)
    from tripletkit.api import large_collections
    from tripletkit.results import plain_values

    with stage_bars() as stages:
        result = large_collections.extract(
            images,
            output,
            ray=ray == "local" or ray or False,
            progress=stages,
            **options,
            **encoder,
        )
    if result.problems:
        warn(result.describe_problems())
    if as_json:
        show_json({"output": str(output)} | plain_values(result))
    say(
        f"{result.n_images:,} images: {result.n_computed:,} computed, {result.n_stored:,} were in "
        f"{output}."
    )

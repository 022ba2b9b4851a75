"""`tripletkit extract`: the features of very many images, into a store that machines share."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from tripletkit import defaults
from tripletkit.cli.console import progress_bar, say, show_json, warn
from tripletkit.cli.options import WholeRange, follow_outside_option, json_option, quiet_option
from tripletkit.cli.sources import (
    backbone_option,
    encoder_detail_options,
    encoder_details,
    views_option,
    weights_option,
)

if TYPE_CHECKING:
    from tripletkit.features.feature_parts import GivenWeights


@click.command()
@click.argument("images", type=click.Path(exists=True, path_type=Path))
@click.option(
    "-o",
    "--output",
    type=click.Path(file_okay=False, path_type=Path),
    required=True,
    help="Folder of the features, made if it is new. Other commands take it as --features.",
)
@backbone_option("Backbone, or several.", default=defaults.BACKBONE, show_default=True)
@weights_option
@views_option
@encoder_detail_options
@click.option(
    "--dtype",
    type=click.Choice(["float32", "float16"]),
    help="How a new folder keeps numbers; float16 takes half the space.  [default: float32]",
)
@click.option("--shard", metavar="I/N", help="Only the I-th of N shares.")
@click.option(
    "--ray",
    "address",
    is_flag=False,
    flag_value="local",
    metavar="[ADDRESS]",
    help="Work on the Ray cluster there; without ADDRESS, on one that is started for this run and "
    "stopped. Needs tripletkit[ray].",
)
@click.option("--workers", type=WholeRange(1), help="Encoders at a time, with --ray.")
@follow_outside_option
@json_option
@quiet_option
def extract(
    images: Path,
    output: Path,
    backbone: list[str],
    weights: GivenWeights,
    views: list[str] | None,
    dtype: str | None,
    shard: str | None,
    address: str | None,
    workers: int | None,
    follow_outside: bool,
    as_json: bool,
) -> None:
    """Compute the features of a folder of images, or of a list of paths, into Parquet files.

    \b
    tripletkit extract images/ -o features/
    tripletkit extract list.txt -o features/ --backbone resnet50 --shard 3/16
    tripletkit extract images/ -o features/ --ray

    Images that are in the folder are left alone, so that the same command goes on after anything
    that stopped it. An image that cannot be read becomes a row with the reason.
    """
    from tripletkit.api.extraction import extract as extract_features

    if workers and not address:
        raise click.UsageError("--workers needs --ray.")
    with progress_bar("features", "image") as progress:
        result = extract_features(
            images,
            output,
            backbone=backbone,
            weights=weights,
            views=views or [defaults.VIEWS],
            dtype=dtype,
            shard=shard,
            ray=address == "local" or address or False,
            workers=workers,
            follow_outside=follow_outside,
            progress=progress,
            **encoder_details(),
        )
    if result.problems:
        warn(result.describe_problems())
    if as_json:
        show_json({"output": str(output)} | vars(result))
    say(
        f"{result.n_images:,} images: {result.n_computed:,} computed, {result.n_stored:,} were in "
        f"{output}."
    )

"""`tripletkit collage`: triplets as an image."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from tripletkit import defaults
from tripletkit.cli.options import (
    INPUT_FILE,
    INPUT_FOLDER,
    OUTPUT_FILE,
    WholeRange,
    command,
    judgements_options,
    takes,
)


@command()
@click.argument("triplets", type=INPUT_FILE)
@click.argument("images", type=INPUT_FOLDER)
@click.option("-o", "--output", type=OUTPUT_FILE, required=True, help="PNG, JPEG or WebP to write.")
@click.option(
    "--by-rows/--by-columns",
    "rows",
    default=True,
    show_default="rows",
    help="A row each of anchors, positives and negatives, or a column each.",
)
@click.option(
    "-n",
    type=WholeRange(1, 200),
    default=defaults.NEIGHBORS,
    show_default=True,
    help="How many triplets, from the first line on.",
)
@judgements_options
@takes("follow_outside", "overwrite")
def collage(
    triplets: Path,
    images: Path,
    output: Path,
    rows: bool,
    n: int,
    follow_outside: bool,
    overwrite: bool,
    read: Callable[[Path | None], Any],
) -> None:
    """Draw triplets: anchor, positive and negative side by side.

    \b
    tripletkit collage train.txt images/ -o triplets.png
    shuf -n 8 train.txt | tripletkit collage - images/ -o some.png --by-columns
    """
    from tripletkit.api import pictures
    from tripletkit.data.images import open_images

    pictures.collage(
        read(triplets),
        open_images(images, follow_outside=follow_outside),
        output,
        rows=rows,
        n=n,
        overwrite=overwrite,
    )

"""`tripletkit collage`: triplets as an image."""

from __future__ import annotations

from pathlib import Path

import click

from tripletkit import defaults
from tripletkit.cli.console import say
from tripletkit.cli.options import (
    INPUT_FILE,
    INPUT_FOLDER,
    OUTPUT_FILE,
    WholeRange,
    follow_outside_option,
    force_option,
    input_source,
    quiet_option,
)


@click.command()
@click.argument("triplets", type=INPUT_FILE)
@click.argument("images", type=INPUT_FOLDER)
@click.option("-o", "--output", type=OUTPUT_FILE, required=True, help="PNG, JPEG or WebP to write.")
@click.option(
    "--rows/--columns",
    "in_rows",
    default=True,
    show_default="rows",
    help="A row each of anchors, positives and negatives, or a column each.",
)
@click.option(
    "-n",
    "n_shown",
    type=WholeRange(1, 200),
    default=defaults.NEIGHBORS,
    show_default=True,
    help="How many triplets, from the first line on.",
)
@follow_outside_option
@force_option
@quiet_option
def collage(
    triplets: Path,
    images: Path,
    output: Path,
    in_rows: bool,
    n_shown: int,
    follow_outside: bool,
    force: bool,
) -> None:
    """Draw triplets: anchor, positive and negative side by side.

    \b
    tripletkit collage train.txt images/ -o triplets.png
    shuf -n 8 train.txt | tripletkit collage - images/ -o some.png --columns
    """
    import numpy as np

    from tripletkit.data.images import open_images
    from tripletkit.data.judgements import open_judgements
    from tripletkit.data.output_forms import DRAWN_FORM
    from tripletkit.data.outputs import Outputs
    from tripletkit.reporting.collages import Tile, check_collage_suffix, draw_grid, write_image

    check_collage_suffix(output)
    file = Outputs([triplets], image_folders=[images], overwrite=force).file(output, DRAWN_FORM)
    read = open_judgements(input_source(triplets)).decided().triplets
    shown = read.take(np.arange(min(n_shown, len(read))))
    used = np.unique(shown.rows)
    places = read.first_places()
    files = open_images(
        images,
        [read.names[row] for row in used],
        [places[row] for row in used],
        follow_outside=follow_outside,
    )
    path_of = dict(zip(used.tolist(), files.paths, strict=True))
    tile_of = {row: Tile(path, [read.names[row]]) for row, path in path_of.items()}
    grid = [[tile_of[row] for row in triplet] for triplet in shown.rows.tolist()]
    headings = ["anchor", "positive", "negative"]
    if in_rows:
        image = draw_grid(list(zip(*grid, strict=True)), row_headings=headings)
    else:
        image = draw_grid(grid, column_headings=headings)
    write_image(file, image)
    say(f"Drew {len(shown):,} of {len(read):,} triplets: {output}.")

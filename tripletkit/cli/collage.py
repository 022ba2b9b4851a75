from typing import Any

import click

import tripletkit as tk
from tripletkit import defaults
from tripletkit.cli.commands import command, takes
from tripletkit.cli.options import output_option
from tripletkit.cli.parameters import INPUT_FOLDER, JUDGEMENTS, WholeRange


@command()
@click.argument("triplets", type=JUDGEMENTS)
@click.argument("images", type=INPUT_FOLDER)
@output_option("PNG, JPEG or WebP to write.")
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
    help="How many triplets, from the first line on.",
)
@takes("judgements", "folder", "overwrite")
def collage(**given: Any) -> None:
    """Draw triplets: anchor, positive and negative side by side.

    \b
    tripletkit collage train.txt images/ -o triplets.png
    shuf -n 8 train.txt | tripletkit collage - images/ -o some.png --by-columns
    """
    tk.collage(**given)

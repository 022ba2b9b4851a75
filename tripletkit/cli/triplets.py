from typing import Any

import click

import tripletkit as tk
from tripletkit import defaults
from tripletkit.cli.commands import command, takes
from tripletkit.cli.options import model_options, output_option, seed_option
from tripletkit.cli.parameters import INPUT_FOLDER, LABELS, OUTPUT_FILE, WholeRange


@command()
@click.argument("labels", type=LABELS)
@click.argument("images", type=INPUT_FOLDER)
@click.option(
    "--per-anchor",
    type=WholeRange(1),
    metavar="N",
    help="Triplets for each image as anchor; balanced by class, on average.  "
    f"[default: {defaults.TRIPLETS_PER_ANCHOR}]",
)
@click.option(
    "--count", type=WholeRange(1), metavar="N", help="Triplets in all, instead of --per-anchor."
)
@click.option(
    "--balance",
    type=click.Choice(defaults.TRIPLET_BALANCES),
    default=defaults.TRIPLET_BALANCE,
    help="Each image as often an anchor and negative as any other, or each class.",
)
@click.option(
    "--hard/--easy",
    default=None,
    help=f"Of {defaults.DIFFICULTY_CANDIDATES} positives and {defaults.DIFFICULTY_CANDIDATES} "
    "negatives drawn, take the farthest positive and the nearest negative, or the other way "
    "round.  [default: whatever comes]",
)
@seed_option
@output_option("Triplet file to write.")
@click.option(
    "--truth",
    type=OUTPUT_FILE,
    help="File to write the truth to; second and third image then stand in chance order, as "
    "in a competition.",
)
@model_options(is_optional=True)
@takes("images", "labels", "overwrite", "cache", "progress")
def triplets(**given: Any) -> None:
    """Draw triplets from class labels: two images of one class and one of another.

    \b
    tripletkit triplets labels.csv images/ -o train.txt
    tripletkit triplets images/train images/ -o train.txt --per-anchor 20 --balance class
    tripletkit triplets labels.csv images/ -o test.txt --count 2000 --truth truth.csv
    tripletkit triplets labels.csv images/ -o hard.txt --hard --backbone auto

    LABELS is a CSV with the columns name and label, or a folder inside IMAGES with a subfolder
    for each class. No triplet is drawn twice, and a copy of an image is never its positive.
    --hard and --easy measure with --backbone or --model.
    """
    tk.draw_triplets(**given)

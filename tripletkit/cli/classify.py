from typing import Any

import click

import tripletkit as tk
from tripletkit import defaults
from tripletkit.cli.commands import command, takes
from tripletkit.cli.options import model_options, seed_option
from tripletkit.cli.parameters import (
    INPUT_FOLDER,
    LABELS,
    NAMED_PATH,
    OUTPUT_FILE,
    FiniteRange,
    WholeRange,
)


@command()
@click.argument("labels", type=LABELS)
@click.argument("images", type=INPUT_FOLDER, required=False)
@model_options()
@click.option(
    "--held-out",
    type=NAMED_PATH,
    metavar="PATH",
    help="The images to classify: a folder inside IMAGES, a CSV (name,label), a triplet file, "
    "or a text of one name a line. All others are the reference.",
)
@click.option(
    "--fraction",
    type=FiniteRange(0, 1, min_open=True, max_open=True),
    help="Share of each class to hold out where --held-out is not given.  "
    f"[default: {defaults.VAL_FRACTION}]",
)
@click.option("-k", type=WholeRange(1), default=defaults.NEIGHBORS, help="Neighbours that vote.")
@click.option(
    "--confusion",
    type=OUTPUT_FILE,
    help="SVG, PNG or PDF to draw the confusion matrix to, or CSV to write it to.",
)
@seed_option
@takes("images", "labels", "overwrite", "as_json", "progress")
def classify(**given: Any) -> Any:
    """Classify held-out images by their embeddings, and print how often that is right.

    \b
    tripletkit classify labels.csv images/ --held-out val.txt
    tripletkit classify labels.csv images/ --held-out val.txt --confusion confusion.png
    tripletkit classify images/train images/ --held-out images/test --backbone auto

    LABELS is a CSV with the columns name and label, or a folder inside IMAGES with a subfolder
    for each class. Two methods choose a class: the nearest class center, and the vote of the
    nearest neighbours among the reference, the images that are not held out. The frozen features
    are measured too.
    """
    return tk.classify(**given)

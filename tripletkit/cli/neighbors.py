from __future__ import annotations

from typing import Any

import click

import tripletkit as tk
from tripletkit import defaults
from tripletkit.cli.commands import command, takes
from tripletkit.cli.options import model_options
from tripletkit.cli.parameters import INPUT_FILE, INPUT_FOLDER, NAMED_PATH, OUTPUT_FILE, WholeRange


@command()
@click.argument("images", type=INPUT_FOLDER, required=False)
@click.option(
    "--query",
    "queries",
    type=NAMED_PATH,
    multiple=True,
    required=True,
    metavar="PATH",
    help="Image, or folder of images, in the collection or not. May be given several times.",
)
@click.option(
    "-k", type=WholeRange(1), default=defaults.NEIGHBORS, help="Neighbours of each query."
)
@click.option(
    "--labels",
    type=INPUT_FILE,
    help="CSV with the columns name and label; neighbours of the query's label are marked.",
)
@click.option(
    "--check-recall",
    is_flag=True,
    help="Also say which share of the true neighbours the --index finds, of images of the "
    "collection drawn by chance.",
)
@click.option(
    "--index",
    type=OUTPUT_FILE,
    help="File of an approximate index, for large collections: made if it is not there; if "
    "it is, no other image is read. Needs tripletkit[search].",
)
@click.option("--collage", type=OUTPUT_FILE, help="Image to draw: a row for each query.")
@model_options()
@takes("images", "overwrite", "as_json", "progress")
def neighbors(model: tk.Model, **given: Any) -> Any:
    """Print the images of a collection that are nearest to a query.

    \b
    tripletkit neighbors images/ --query images/00001.jpg
    tripletkit neighbors images/ --query new.jpg --query other.jpg -k 5 --collage c.png
    tripletkit neighbors images/ --query new.jpg --backbone efficientnet-lite0 --json

    Without IMAGES the collection is that of the training. The query itself, also as a copy under
    another name, is never its own neighbour. Of equally near images the first by name comes
    first. With --force an --index that is there is made anew.
    """
    return model.neighbors(**given)

"""`tripletkit neighbors`: the images of a collection that look most like a query."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tripletkit import defaults
from tripletkit.cli.console import show_result, stage_bars
from tripletkit.cli.options import (
    INPUT_FILE,
    INPUT_FOLDER,
    OUTPUT_FILE,
    InputPath,
    WholeRange,
    command,
    input_source,
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
    "--query",
    "queries",
    type=InputPath(),
    multiple=True,
    required=True,
    metavar="PATH",
    help="Image, or folder of images, in the collection or not. May be given several times.",
)
@click.option(
    "-k",
    type=WholeRange(1),
    default=defaults.NEIGHBORS,
    show_default=True,
    help="Neighbours of each query.",
)
@model_options()
@click.option(
    "--index",
    type=OUTPUT_FILE,
    help="File of an approximate index, for large collections: made if it is not there; if "
    "it is, no other image is read. Needs tripletkit[search].",
)
@click.option(
    "--check-recall",
    is_flag=True,
    help="Also say which share of the true neighbours the --index finds, of images of the "
    "collection drawn by chance.",
)
@click.option("--collage", type=OUTPUT_FILE, help="Image to draw: a row for each query.")
@click.option(
    "--labels",
    type=INPUT_FILE,
    help="CSV with the columns name and label; neighbours of the query's label are marked.",
)
@takes("images", "overwrite", "cache", "as_json")
def neighbors(
    images: Images,
    queries: tuple[Path, ...],
    open_model: Callable[[], Model],
    labels: Path | None,
    cache: Path | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Print the images of a collection that are nearest to a query.

    \b
    tripletkit neighbors images/ --query images/00001.jpg
    tripletkit neighbors images/ --query new.jpg --query other.jpg -k 5 --collage c.png
    tripletkit neighbors images/ --query new.jpg --backbone efficientnet-lite0 --json

    The query itself, also as a copy under another name, is never its own neighbour. Of equally
    near images the first by name comes first. With --force an --index that is there is made
    anew.
    """
    if options["check_recall"] and options["index"] is None:
        raise click.UsageError("--check-recall needs --index.")
    model = open_model()
    need_images(images, model)
    with stage_bars() as stages:
        result = model.neighbors(
            queries, images, labels=input_source(labels), progress=stages, **options
        )
    show_result(result, as_json)

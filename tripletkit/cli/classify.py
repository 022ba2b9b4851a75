"""`tripletkit classify`: how well embeddings tell the classes of held-out images."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tripletkit import defaults
from tripletkit.cli.console import show_result, stage_bars
from tripletkit.cli.options import (
    INPUT_FOLDER,
    INPUT_PATH,
    OUTPUT_FILE,
    FiniteRange,
    InputPath,
    WholeRange,
    command,
    input_source,
    model_options,
    seed_option,
    takes,
)

if TYPE_CHECKING:
    from tripletkit.api.models import Model
    from tripletkit.data.images import Images


@command()
@click.argument("labels", type=INPUT_PATH)
@click.argument("images", type=INPUT_FOLDER, required=False)
@model_options()
@click.option(
    "--held-out",
    type=InputPath(),
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
@click.option(
    "-k",
    type=WholeRange(1),
    default=defaults.NEIGHBORS,
    show_default=True,
    help="Neighbours that vote.",
)
@click.option(
    "--confusion",
    type=OUTPUT_FILE,
    help="SVG, PNG or PDF to draw the confusion matrix to, or CSV to write it to.",
)
@seed_option
@takes("images", "overwrite", "cache", "as_json")
def classify(
    labels: Path,
    images: Images,
    open_model: Callable[[], Model],
    cache: Path | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Say the classes of held-out images by their embeddings, and how often that is right.

    \b
    tripletkit classify labels.csv images/ --held-out val.txt
    tripletkit classify labels.csv images/ --held-out val.txt --confusion confusion.png
    tripletkit classify images/train images/ --held-out images/test --backbone auto

    LABELS is a CSV with the columns name and label, or a folder inside IMAGES with a subfolder
    for each class. A class is said by the nearest class center and by the vote of the nearest
    neighbours among the reference, the images that are not held out. Beside a model's embeddings
    stand the frozen features that they are made from.
    """
    if options["held_out"] is not None and options["fraction"] is not None:
        raise click.UsageError("--fraction is for a share by chance, --held-out says which.")
    from tripletkit.api import class_labels

    model = open_model()
    with stage_bars() as stages:
        result = class_labels.classify(
            input_source(labels), images, model, progress=stages, **options
        )
    show_result(result, as_json)

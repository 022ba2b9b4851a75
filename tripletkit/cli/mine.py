"""`tripletkit mine`: hard positives and negatives of labelled images, or the hardest triplets."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tripletkit import defaults
from tripletkit.cli.console import show_result, stage_bars
from tripletkit.cli.options import (
    INPUT_FILE,
    INPUT_PATH,
    OUTPUT_FILE,
    CountOrShare,
    FiniteRange,
    WholeRange,
    command,
    input_source,
    judgements_options,
    model_options,
    takes,
)

if TYPE_CHECKING:
    from tripletkit.api.models import Model

_QUANTILE = FiniteRange(0, 1)


@command()
@click.argument("labels", type=INPUT_PATH, required=False)
@click.argument("images", type=INPUT_PATH, required=False, metavar="IMAGES")
@click.option(
    "--triplets", type=INPUT_FILE, help="Instead of LABELS: find the hardest of these triplets."
)
@click.option(
    "-o",
    "--output",
    type=OUTPUT_FILE,
    help="CSV to write: anchor,other,kind,distance,rank. With --triplets "
    "anchor,positive,negative,to_positive,to_negative,margin,line.",
)
@click.option(
    "--triplets-out", type=OUTPUT_FILE, help="Triplet file to write, for `tripletkit train`."
)
@click.option(
    "--plot",
    type=OUTPUT_FILE,
    help="SVG, PNG or PDF to draw: the distances of positives and negatives, with the cuts.",
)
@click.option(
    "--per-image",
    type=WholeRange(1),
    metavar="N",
    help=f"Positives, and negatives, of each image at most.  [default: {defaults.MINED_PER_IMAGE}]",
)
@click.option(
    "--positive-quantiles",
    type=(_QUANTILE, _QUANTILE),
    metavar="LOW HIGH",
    help="Mine positives between these quantiles of all distances within classes.  "
    f"[default: {defaults.POSITIVE_QUANTILES[0]:g} {defaults.POSITIVE_QUANTILES[1]:g}]",
)
@click.option(
    "--negative-quantiles",
    type=(_QUANTILE, _QUANTILE),
    metavar="LOW HIGH",
    help="Mine negatives between these quantiles of all distances between classes.  "
    f"[default: {defaults.NEGATIVE_QUANTILES[0]:g} {defaults.NEGATIVE_QUANTILES[1]:g}]",
)
@click.option(
    "--keep",
    type=CountOrShare(),
    metavar="N|SHARE",
    help="With --triplets: how many of them, as a count or a share.  "
    f"[default: {defaults.KEPT_TRIPLETS:g}]",
)
@model_options(None)
@judgements_options
@takes("on_bad_image", "follow_outside", "overwrite", "cache", "as_json")
def mine(
    labels: Path | None,
    images: Path | None,
    triplets: Path | None,
    open_model: Callable[[], Model],
    on_bad_image: str,
    follow_outside: bool,
    cache: Path | None,
    as_json: bool,
    read: Callable[[Path | None], Any],
    **options: Any,
) -> None:
    """Find hard positives and negatives of labelled images, or the hardest of your triplets.

    \b
    tripletkit mine labels.csv images/ -o mined.csv --triplets-out hard.txt --plot mined.png
    tripletkit mine images/train images/ --model m1 --triplets-out hard.txt --per-image 5
    tripletkit mine --triplets train.txt images/ --model m1 --triplets-out hardest.txt

    LABELS is a CSV with the columns name and label, or a folder inside IMAGES with a subfolder
    for each class. Hard positives are the farthest images of the class, hard negatives the
    nearest of others. The very hardest are often wrong labels; the quantiles cut them off.
    Distances are those of the pretrained backbone, or of --model. With --triplets, the
    hardest are those with the smallest d(anchor, negative) - d(anchor, positive).
    """
    if images is None:
        labels, images = None, labels
    _check_arguments(labels, images, triplets)
    from tripletkit.api import class_labels
    from tripletkit.data.images import open_images

    found = open_images(images, skip_bad=on_bad_image == "skip", follow_outside=follow_outside)
    with stage_bars() as stages:
        result = class_labels.mine(
            input_source(labels),
            found,
            open_model(),
            triplets=read(triplets),
            progress=stages,
            **options,
        )
    show_result(result, as_json)


def _check_arguments(labels: Path | None, images: Path | None, triplets: Path | None) -> None:
    if images is None:
        raise click.UsageError("Missing argument 'IMAGES'.")
    if labels is None and triplets is None:
        raise click.UsageError(
            f"Missing argument 'IMAGES': {images} alone says nothing of which images are "
            "alike. Give LABELS before it, or --triplets."
        )
    if labels is not None and triplets is not None:
        raise click.UsageError("--triplets stands in the place of LABELS; give IMAGES alone.")
    if not images.is_dir():
        raise click.BadParameter(f"{images} is not a folder.", param_hint="'IMAGES'")

from pathlib import Path
from typing import Any

import click

import tripletkit as tk
from tripletkit import defaults
from tripletkit.cli.commands import command, first, section, takes
from tripletkit.cli.options import model_options, output_option
from tripletkit.cli.parameters import (
    JUDGEMENTS,
    LABELS,
    MOST,
    NAMED_PATH,
    OUTPUT_FILE,
    FiniteRange,
    WholeRange,
)

_QUANTILE = FiniteRange(0, 1)


def _parse_keep(value: Any) -> float | int:
    """Return a count such as `500`, or a share such as `0.25` or `25%`."""
    from tripletkit.data.text_files import parse_number

    if isinstance(value, float | int):
        return value
    if value.isascii() and value.isdigit():
        keep: float | int = int(value)
    else:
        keep = parse_number(value.removesuffix("%")) / (100 if value.endswith("%") else 1)
    if not (1 <= keep <= MOST if isinstance(keep, int) else 0 < keep <= 1):
        raise click.BadParameter(
            f"expected a count such as 500 or a share such as 0.25 or 25%, got {value}."
        )
    return keep


def _sort_arguments(given: dict[str, Any]) -> None:
    """Take a single argument for the folder of images."""
    if given["images"] is None:
        given["labels"], given["images"] = None, given["labels"]
    images = given["images"]
    if images is None:
        raise click.UsageError("Missing argument 'IMAGES'.")
    if not (isinstance(images, Path) and images.is_dir()):
        raise click.BadParameter(f"{images} is not a folder.", param_hint="'IMAGES'")


@command()
@first(_sort_arguments)
@click.argument("labels", type=LABELS, required=False)
@click.argument("images", type=NAMED_PATH, required=False, metavar="IMAGES")
@click.option(
    "--triplets", type=JUDGEMENTS, help="Instead of LABELS: find the hardest of these triplets."
)
@section(
    "What is hard",
    click.option(
        "--per-image",
        type=WholeRange(1),
        metavar="N",
        help="Positives, and negatives, of each image at most.  "
        f"[default: {defaults.MINED_PER_IMAGE}]",
    ),
    click.option(
        "--positive-quantiles",
        type=(_QUANTILE, _QUANTILE),
        metavar="LOW HIGH",
        help="Mine positives between these quantiles of all distances within classes.  "
        f"[default: {defaults.POSITIVE_QUANTILES[0]:g} {defaults.POSITIVE_QUANTILES[1]:g}]",
    ),
    click.option(
        "--negative-quantiles",
        type=(_QUANTILE, _QUANTILE),
        metavar="LOW HIGH",
        help="Mine negatives between these quantiles of all distances between classes.  "
        f"[default: {defaults.NEGATIVE_QUANTILES[0]:g} {defaults.NEGATIVE_QUANTILES[1]:g}]",
    ),
    click.option(
        "--keep",
        type=_parse_keep,
        metavar="N|SHARE",
        help="With --triplets: how many of them, as a count or a share.  "
        f"[default: {defaults.KEPT_TRIPLETS:g}]",
    ),
)
@output_option(
    "CSV to write: anchor,other,kind,distance,rank. With --triplets "
    "anchor,positive,negative,to_positive,to_negative,margin,line.",
    required=False,
)
@click.option(
    "--triplets-out", type=OUTPUT_FILE, help="Triplet file to write, for `tripletkit train`."
)
@click.option(
    "--plot",
    type=OUTPUT_FILE,
    help="SVG, PNG or PDF to draw: the distances of positives and negatives, with the cuts.",
)
@model_options(None)
@takes("judgements", "images", "labels", "overwrite", "as_json", "progress")
def mine(**given: Any) -> Any:
    """Find hard positives and negatives of labelled images, or the hardest of your triplets.

    \b
    tripletkit mine labels.csv images/ -o mined.csv --triplets-out hard.txt --plot mined.png
    tripletkit mine images/train images/ --model m1 --triplets-out hard.txt --per-image 5
    tripletkit mine --triplets train.txt images/ --model m1 --triplets-out hardest.txt

    Hard positives are the farthest images of the class, hard negatives the nearest of others. The
    very hardest are often wrong labels; the quantiles cut them off. Distances are those of the
    pretrained backbone, or of --model. Of triplets the hardest have the smallest
    d(anchor, negative) - d(anchor, positive).
    """
    return tk.mine(**given)

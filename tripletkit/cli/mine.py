"""`tripletkit mine`: hard positives and negatives of labelled images, or the hardest triplets."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tripletkit import defaults
from tripletkit.cli.console import show_json, stage_bars
from tripletkit.cli.encoders import choose_encoder, pretrained_encoder_options
from tripletkit.cli.options import (
    INPUT_FILE,
    INPUT_PATH,
    MOST,
    OUTPUT_FILE,
    FiniteRange,
    WholeRange,
    cache_option,
    follow_outside_option,
    force_option,
    input_source,
    json_option,
    on_bad_image_option,
    quiet_option,
)
from tripletkit.data.text_files import parse_number

if TYPE_CHECKING:
    from tripletkit.features.encoder import Encoder
    from tripletkit.features.feature_parts import GivenWeights

_QUANTILE = FiniteRange(0, 1)


class _Keep(click.ParamType):
    """A count such as `500`, or a share such as `0.25` or `25%`."""

    name = "keep"

    def convert(
        self, value: Any, param: click.Parameter | None, context: click.Context | None
    ) -> float | int:
        if isinstance(value, float | int):
            return value
        if value.isascii() and value.isdigit():
            keep = int(value)
        else:
            keep = parse_number(value.removesuffix("%")) / (100 if value.endswith("%") else 1)
        if not (1 <= keep <= MOST if isinstance(keep, int) else 0 < keep <= 1):
            self.fail(
                f"expected a count such as 500 or a share such as 0.25 or 25%, got {value}.",
                param,
                context,
            )
        return keep


@click.command()
@click.argument("labels", type=INPUT_PATH, required=False)
@click.argument("images", type=INPUT_PATH, required=False, metavar="IMAGES")
@click.option(
    "--triplets",
    "triplets_file",
    type=INPUT_FILE,
    help="Instead of LABELS: find the hardest of these triplets.",
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
    "plot_file",
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
    type=_Keep(),
    metavar="N|SHARE",
    help="With --triplets: how many of them, as a count or a share.  "
    f"[default: {defaults.KEPT_TRIPLETS:g}]",
)
@pretrained_encoder_options
@on_bad_image_option
@follow_outside_option
@cache_option
@force_option
@json_option
@quiet_option
def mine(
    labels: Path | None,
    images: Path | None,
    triplets_file: Path | None,
    output: Path | None,
    triplets_out: Path | None,
    plot_file: Path | None,
    per_image: int | None,
    positive_quantiles: tuple[float, float] | None,
    negative_quantiles: tuple[float, float] | None,
    keep: float | int | None,
    model: Path | None,
    as_features: bool,
    backbone: Sequence[str] | None,
    weights: GivenWeights,
    views: Sequence[str] | None,
    on_bad_image: str,
    follow_outside: bool,
    cache: Path | None,
    force: bool,
    as_json: bool,
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
    from tripletkit.api.mining import MinedFiles, mine_classes, mine_triplets
    from tripletkit.data.outputs import Outputs

    _check_arguments(labels, images, triplets_file)
    of_labels = {
        "--per-image": per_image,
        "--positive-quantiles": positive_quantiles,
        "--negative-quantiles": negative_quantiles,
    }
    _check_options(triplets_file is not None, of_labels, {"--keep": keep})
    outputs = Outputs(
        [labels, triplets_file, model, *weights.values()], image_folders=[images], overwrite=force
    )
    files = MinedFiles.check(outputs, output, triplets_out, plot_file)
    if model is None and backbone is None and not as_features:
        backbone = [defaults.BACKBONE]

    skip_bad = on_bad_image == "skip"
    find = {"skip_bad": skip_bad, "follow_outside": follow_outside}

    def make_encoder() -> Encoder:
        return choose_encoder(model, as_features, backbone, weights, views)

    with stage_bars() as stages:
        if triplets_file is not None:
            mined = mine_triplets(
                input_source(triplets_file),
                images,
                make_encoder,
                cache,
                find,
                keep or defaults.KEPT_TRIPLETS,
                stages,
            )
        else:
            mined = mine_classes(
                input_source(labels),
                images,
                make_encoder,
                cache,
                find,
                per_image or defaults.MINED_PER_IMAGE,
                (
                    positive_quantiles or defaults.POSITIVE_QUANTILES,
                    negative_quantiles or defaults.NEGATIVE_QUANTILES,
                ),
                stages,
            )
    files.write(mined)
    if as_json:
        show_json(mined.summary)
    else:
        click.echo(str(mined))


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


def _check_options(
    has_triplets: bool, of_labels: dict[str, Any], of_triplets: dict[str, Any]
) -> None:
    given, needed = (of_labels, "LABELS") if has_triplets else (of_triplets, "--triplets")
    for option, value in given.items():
        if value is not None:
            raise click.UsageError(f"{option} is for {needed}.")
    for option, value in of_labels.items():
        if isinstance(value, tuple) and value[0] >= value[1]:
            raise click.BadParameter(
                f"expected a lower and a higher share, got {value[0]:g} {value[1]:g}.",
                param_hint=f"'{option}'",
            )

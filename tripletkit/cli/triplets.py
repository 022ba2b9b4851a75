"""`tripletkit triplets`: a training file, or a competition, from class labels."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from tripletkit import defaults
from tripletkit.cli.console import progress_bar, say
from tripletkit.cli.encoders import choose_encoder, encoder_options
from tripletkit.cli.options import (
    INPUT_FOLDER,
    LABELS,
    OUTPUT_FILE,
    WholeRange,
    cache_option,
    follow_outside_option,
    force_option,
    input_source,
    on_bad_image_option,
    quiet_option,
    seed_option,
)

if TYPE_CHECKING:
    from tripletkit.features.encoder import Encoder
    from tripletkit.features.feature_parts import GivenWeights


@click.command()
@click.argument("labels", type=LABELS)
@click.argument("images", type=INPUT_FOLDER)
@click.option("-o", "--output", type=OUTPUT_FILE, required=True, help="Triplet file to write.")
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
    show_default=True,
    help="Each image as often an anchor and negative as any other, or each class.",
)
@click.option(
    "--hard",
    is_flag=True,
    help=f"Of {defaults.DIFFICULTY_CANDIDATES} positives and {defaults.DIFFICULTY_CANDIDATES} "
    "negatives drawn, take the farthest positive and the nearest negative.",
)
@click.option("--easy", is_flag=True, help="Take the nearest positive and the farthest negative.")
@click.option(
    "--truth",
    "truth_file",
    type=OUTPUT_FILE,
    help="File to write the truth to; second and third image then stand in chance order, as "
    "in a competition.",
)
@encoder_options
@seed_option
@on_bad_image_option
@follow_outside_option
@cache_option
@force_option
@quiet_option
def triplets(
    labels: Path,
    images: Path,
    output: Path,
    per_anchor: int | None,
    count: int | None,
    balance: str,
    hard: bool,
    easy: bool,
    truth_file: Path | None,
    model: Path | None,
    as_features: bool,
    backbone: list[str] | None,
    weights: GivenWeights,
    views: list[str] | None,
    seed: int,
    on_bad_image: str,
    follow_outside: bool,
    cache: Path | None,
    force: bool,
) -> None:
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
    if per_anchor is not None and count is not None:
        raise click.UsageError("--per-anchor and --count exclude each other.")
    _check_difficulty(hard, easy, [model, as_features, backbone, weights, views])
    from tripletkit.api.drawing import draw_from_labels
    from tripletkit.data.output_forms import TRIPLETS_FORM, TRUTH_FORM
    from tripletkit.data.outputs import Outputs
    from tripletkit.data.splits.split_files import draw_truth, write_questions
    from tripletkit.data.triplet_files import write_triplets

    outputs = Outputs([labels, model, *weights.values()], image_folders=[images], overwrite=force)
    triplets_out = outputs.file(output, TRIPLETS_FORM)
    truth_out = outputs.optional_file(truth_file, TRUTH_FORM)

    def make_encoder() -> Encoder:
        return choose_encoder(model, as_features, backbone, weights, views)

    with progress_bar("features", "image") as progress:
        drawn = draw_from_labels(
            input_source(labels),
            images,
            per_anchor=per_anchor,
            count=count,
            balance=balance,
            is_hard=hard,
            make_encoder=make_encoder if hard or easy else None,
            seed=seed,
            cache=cache,
            skip_bad=on_bad_image == "skip",
            follow_outside=follow_outside,
            progress=progress,
        )
    names, rows = drawn.names, drawn.rows
    if truth_out is None:
        write_triplets(triplets_out, names, rows)
    else:
        write_questions(triplets_out, truth_out, names, rows, draw_truth(len(rows), seed))
    truth = "" if truth_file is None else f"; truth: {truth_file}"
    say(
        f"Wrote {len(rows):,} triplets over {drawn.n_images:,} images, anchors of "
        f"{drawn.n_classes:,} classes: {output}{truth}."
    )


def _check_difficulty(hard: bool, easy: bool, encoder: list[object]) -> None:
    if hard and easy:
        raise click.UsageError("--hard and --easy exclude each other.")
    is_given = any(encoder)
    if (hard or easy) and not is_given:
        raise click.UsageError(
            "--hard and --easy need something to measure with: --backbone auto, or --model DIR."
        )
    if is_given and not (hard or easy):
        raise click.UsageError(
            "--model, --features, --backbone, --weights and --views are for --hard and --easy."
        )

"""`tripletkit predict`: answers to new questions."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tripletkit.cli.console import progress_bar, say, standard_output
from tripletkit.cli.options import (
    INPUT_FILE,
    INPUT_FOLDER,
    OUTPUT_FILE,
    cache_option,
    follow_outside_option,
    force_option,
    input_source,
    model_option,
    on_bad_image_option,
    quiet_option,
)
from tripletkit.cli.sources import features_option, given_features, weights_option

if TYPE_CHECKING:
    from tripletkit.features.feature_parts import GivenWeights


@click.command()
@click.argument("triplets", type=INPUT_FILE)
@model_option
@click.option(
    "--images",
    type=INPUT_FOLDER,
    help="Folder of the images.  [default: the one used in training]",
)
@click.option(
    "--format",
    "form",
    type=click.Choice(["csv", "labels"]),
    default="csv",
    show_default=True,
    help="csv: a,b,c,prediction,margin. labels: one 1 or 0 a line, as competitions take it.",
)
@click.option("-o", "--output", type=OUTPUT_FILE, help="File to write.  [default: standard output]")
@click.option(
    "--frozen",
    is_flag=True,
    help="Answer by the backbone's features alone (cosine), as if no head had been trained.",
)
@features_option
@weights_option
@on_bad_image_option
@follow_outside_option
@cache_option
@force_option
@quiet_option
def predict(
    triplets: Path,
    model: Path,
    images: Path | None,
    form: str,
    output: Path | None,
    frozen: bool,
    weights: GivenWeights,
    on_bad_image: str,
    follow_outside: bool,
    cache: Path | None,
    force: bool,
) -> None:
    """Answer questions `A B C`: 1 if A is closer to B than to C, else 0.

    \b
    tripletkit predict test.txt > preds.csv
    tripletkit predict test.txt --model m1 --format labels -o answers.txt
    tripletkit predict test.txt --frozen > frozen.csv

    The margin is d(A,C) - d(A,B): the larger, the surer. With --on-bad-image skip a row with an
    image that cannot be read answers 0 and has no margin.
    """
    from tripletkit.api.opening import load
    from tripletkit.data.judgements import open_judgements
    from tripletkit.data.outputs import Outputs
    from tripletkit.evaluation.answers import ANSWERS_FORM, write_answers

    loaded = load(model, weights=weights, features=given_features(), cache=cache)
    outputs = Outputs(
        [triplets, *weights.values()],
        image_folders=[images or loaded.images],
        overwrite=force,
    )
    file = outputs.optional_file(None if str(output) == "-" else output, ANSWERS_FORM)
    queries = open_judgements(input_source(triplets)).triplets
    with progress_bar("features", "image") as progress:
        answers = (loaded.frozen if frozen else loaded).answer(
            queries,
            images,
            skip_bad=on_bad_image == "skip",
            follow_outside=follow_outside,
            progress=progress,
        )
    write_answers(file or standard_output(), answers, form)
    sys.stdout.flush()
    say(
        f"Answered {len(queries):,} questions over {len(queries.names):,} images"
        + (f" to {file}." if file else ".")
    )

"""`tripletkit predict`: answers to new questions."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tripletkit.cli.collections import open_collection
from tripletkit.cli.console import say, standard_output, warn
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
from tripletkit.errors import ImageNameError

if TYPE_CHECKING:
    from tripletkit.features.sources import GivenWeights


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
    from tripletkit.data.outputs import Outputs
    from tripletkit.data.triplet_files import read_triplets
    from tripletkit.evaluation.answers import ANSWERS_FORM, Answers, write_answers
    from tripletkit.evaluation.distances import FROZEN_DISTANCE, triplet_margins
    from tripletkit.features.collection import find_files
    from tripletkit.model.model_folder import load_model

    folder = load_model(model)
    outputs = Outputs(
        [triplets, *weights.values()],
        image_folders=[images or folder.image_folder],
        overwrite=force,
    )
    file = outputs.optional_file(None if str(output) == "-" else output, ANSWERS_FORM)
    images = images or (None if given_features() else folder.image_folder)
    if images is not None and not images.is_dir():
        raise ImageNameError(
            f"{images}: the folder of images that the model was trained with is "
            "gone. Say where the images are with --images DIR."
        )
    queries = read_triplets(input_source(triplets))
    files = find_files(
        queries.names,
        queries.first_places(),
        images,
        skip_bad=on_bad_image == "skip",
        follow_outside=follow_outside,
    )
    collection = open_collection(
        files,
        folder.find_source(weights, given_features()),
        cache,
        skip_bad=on_bad_image == "skip",
    )
    if frozen:
        margins = triplet_margins(collection.features, queries.rows, FROZEN_DISTANCE)
    else:
        from tripletkit.model.embedding import embed

        embeddings = embed(folder.open_head(), collection.features)
        margins = triplet_margins(embeddings, queries.rows, folder.distance)
    answers = Answers.from_margins(margins, queries, queries.source)
    write_answers(file or standard_output(), answers, form)
    sys.stdout.flush()

    if n_ties := int(answers.is_tie.sum()):
        warn(f"{n_ties:,} of {len(queries):,} rows are ties (both images equally near), answered 0")
    if n_undecidable := int(answers.is_undecidable.sum()):
        warn(
            f"{n_undecidable:,} of {len(queries):,} rows have an image that cannot be used, "
            "answered 0 without a margin"
        )
    say(
        f"Answered {len(queries):,} questions over {len(queries.names):,} images"
        + (f" to {file}." if file else ".")
    )

"""`tripletkit predict`: answers to new questions."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tripletkit.cli.console import say, stage_bars, standard_output
from tripletkit.cli.options import (
    INPUT_FILE,
    OUTPUT_FILE,
    command,
    images_option,
    judgements_options,
    model_options,
    takes,
)

if TYPE_CHECKING:
    from tripletkit.api.models import Model
    from tripletkit.data.images import Images


@command()
@click.argument("triplets", type=INPUT_FILE)
@images_option
@click.option(
    "--format",
    "form",
    type=click.Choice(["csv", "labels"]),
    default="csv",
    show_default=True,
    help="csv: a,b,c,prediction,margin. labels: one 1 or 0 a line, as competitions take it.",
)
@click.option("-o", "--output", type=OUTPUT_FILE, help="File to write.  [default: standard output]")
@model_options()
@judgements_options
@takes("images", "overwrite", "cache")
def predict(
    triplets: Path,
    images: Images,
    form: str,
    output: Path | None,
    open_model: Callable[[], Model],
    overwrite: bool,
    cache: Path | None,
    read: Callable[[Path | None], Any],
) -> None:
    """Answer questions `A B C`: 1 if A is closer to B than to C, else 0.

    \b
    tripletkit predict test.txt > preds.csv
    tripletkit predict test.txt --model m1 --format labels -o answers.txt
    tripletkit predict test.txt --frozen > frozen.csv
    tripletkit predict test.txt --images photos/ --backbone encoder.onnx

    The margin is d(A,C) - d(A,B): the larger, the surer. With --on-bad-image skip a row with an
    image that cannot be read answers 0 and has no margin. With --backbone no model is needed.
    """
    file = None if str(output) == "-" else output
    model = open_model()
    with stage_bars() as stages:
        answers = model.answer(
            read(triplets),
            images,
            output=file,
            form=form,
            overwrite=overwrite,
            progress=stages,
        )
    if file is None:
        answers.write(standard_output(), form)
        sys.stdout.flush()
    asked = answers.triplets
    assert asked is not None
    say(
        f"Answered {len(asked):,} questions over {len(asked.names):,} images"
        + (f" to {file}." if file else ".")
    )

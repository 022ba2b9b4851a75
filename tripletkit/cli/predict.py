from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import Any

import click

import tripletkit as tk
from tripletkit.cli.commands import command, takes
from tripletkit.cli.options import images_option, model_options
from tripletkit.cli.parameters import JUDGEMENTS, OUTPUT_FILE


@command()
@click.argument("queries", type=JUDGEMENTS, metavar="TRIPLETS")
@images_option
@click.option(
    "--format",
    "form",
    type=click.Choice(["csv", "labels"]),
    default="csv",
    help="csv: a,b,c,prediction,margin. labels: one 1 or 0 a line, as competitions take it.",
)
@click.option("-o", "--output", type=OUTPUT_FILE, help="File to write.  [default: standard output]")
@model_options()
@takes("judgements", "images", "overwrite", "progress")
def predict(model: tk.Model, form: Any, output: Path | None, **given: Any) -> None:
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
    answers = model.answer(**given, output=file, form=form)
    if file is None:
        if isinstance(sys.stdout, io.TextIOWrapper):
            # Data is UTF-8 without translated line ends.
            sys.stdout.reconfigure(encoding="utf-8", newline="\n")
        answers.write(sys.stdout, form)
        sys.stdout.flush()

"""`tripletkit compare`: which of several answer files is better, and how surely."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from tripletkit.cli.console import show_result
from tripletkit.cli.options import (
    INPUT_FILE,
    OUTPUT_FILE,
    command,
    input_source,
    judgements_options,
    takes,
)
from tripletkit.cli.score import triplets_option


@command()
@click.argument("files", type=INPUT_FILE, nargs=-1, required=True, metavar="A B [MORE...] TRUTH")
@triplets_option
@click.option("--rows", type=OUTPUT_FILE, help="Write the rows that differ, as CSV.")
@judgements_options
@takes("overwrite", "as_json")
def compare(
    files: tuple[Path, ...],
    triplets: Path | None,
    rows: Path | None,
    overwrite: bool,
    as_json: bool,
    read: Callable[[Path | None], Any],
) -> None:
    """Tell which of two or more answer files is better, and how surely.

    A tie counts as the 0 that it answers, alike in CSV and labels. The files are answers to the
    same triplets in the same order.

    \b
    tripletkit compare a.csv b.csv truth.csv
    tripletkit compare a.txt b.txt c.txt truth.csv --triplets test.txt --rows differ.csv
    """
    *answers, truth = files
    if len(answers) < 2:
        raise click.UsageError(
            f"Expected two or more answer files and then the truth file, got {len(files)} in all."
        )
    if len(set(answers)) < len(answers):
        raise click.UsageError("Expected different answer files, got one of them twice.")
    from tripletkit.api import answer_scores

    result = answer_scores.compare(
        {"<stdin>" if str(file) == "-" else str(file): input_source(file) for file in answers},
        read(truth),
        triplets=read(triplets),
        rows=rows,
        overwrite=overwrite,
    )
    show_result(result, as_json)

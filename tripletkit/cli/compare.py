from pathlib import Path
from typing import Any, BinaryIO

import click

import tripletkit as tk
from tripletkit.cli.commands import command, takes
from tripletkit.cli.parameters import INPUT_FILE, JUDGEMENTS, OUTPUT_FILE
from tripletkit.cli.score import triplets_option


@command()
@click.argument("answers", type=INPUT_FILE, nargs=-1, required=True, metavar="A B [MORE...]")
@click.argument("truth", type=JUDGEMENTS)
@triplets_option
@click.option("--rows", type=OUTPUT_FILE, help="Write the rows that differ, as CSV.")
@takes("judgements", "overwrite", "as_json")
def compare(answers: tuple[Path | BinaryIO, ...], **given: Any) -> Any:
    """Tell which of two or more answer files is better, and how surely.

    A tie counts as the 0 that it answers, alike in CSV and labels. The files are answers to the
    same triplets in the same order.

    \b
    tripletkit compare a.csv b.csv truth.csv
    tripletkit compare a.txt b.txt c.txt truth.csv --triplets test.txt --rows differ.csv
    """
    if len(set(answers)) < len(answers):
        raise click.UsageError("Expected different answer files, got one of them twice.")
    named = {str(file) if isinstance(file, Path) else "<stdin>": file for file in answers}
    return tk.compare(named, **given)

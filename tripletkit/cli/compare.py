"""`tripletkit compare`: which answer file is better."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from tripletkit.cli.console import say, show_json, show_text
from tripletkit.cli.options import (
    INPUT_FILE,
    OUTPUT_FILE,
    force_option,
    input_source,
    json_option,
    quiet_option,
)
from tripletkit.cli.score import triplets_option

if TYPE_CHECKING:
    pass


@click.command()
@click.argument("files", type=INPUT_FILE, nargs=-1, required=True, metavar="A B [MORE...] TRUTH")
@triplets_option
@click.option("--rows", "rows_file", type=OUTPUT_FILE, help="Write the rows that differ, as CSV.")
@force_option
@json_option
@quiet_option
def compare(
    files: tuple[Path, ...],
    triplets_file: Path | None,
    rows_file: Path | None,
    force: bool,
    as_json: bool,
) -> None:
    """Tell which of two or more answer files is better, and how surely.

    A tie counts as the 0 that it answers, alike in CSV and labels. The files are answers to the
    same triplets in the same order.

    \b
    tripletkit compare a.csv b.csv truth.csv
    tripletkit compare a.txt b.txt c.txt truth.csv --triplets test.txt --rows differ.csv
    """
    if len(files) < 3:
        raise click.UsageError(
            f"Expected two or more answer files and then the truth file, got {len(files)} in all."
        )
    if len(set(files[:-1])) < len(files) - 1:
        raise click.UsageError("Expected different answer files, got one of them twice.")
    from tripletkit.data.judgements import open_judgements
    from tripletkit.data.output_forms import csv_form
    from tripletkit.data.outputs import Outputs
    from tripletkit.data.truth import open_truth
    from tripletkit.evaluation.answer_checks import check_not_exchanged, check_same_length
    from tripletkit.evaluation.answers import read_answers
    from tripletkit.evaluation.comparison import (
        compare_answers,
        find_questions,
        write_differing_rows,
    )
    from tripletkit.evaluation.scoring import credit_rows

    form = csv_form("a file of rows that differ, with the heading row,...", "row,")
    output = Outputs([*files, triplets_file], overwrite=force).optional_file(rows_file, form)
    entries = [read_answers(input_source(file)) for file in files[:-1]]
    truth = open_truth(input_source(files[-1]))[0]
    for answers in entries:
        check_not_exchanged(answers, truth)
        check_same_length(answers, len(truth), truth.source)
    given = None if triplets_file is None else open_judgements(input_source(triplets_file)).triplets
    triplets = find_questions(entries, given)
    credits = {answers.source: credit_rows(answers, truth.labels) for answers in entries}
    result = compare_answers(credits, triplets.rows if triplets else None)
    if as_json:
        show_json(result.to_dict())
    else:
        show_text(str(result))
    if output is not None:
        n_rows = write_differing_rows(output, entries, truth, triplets)
        say(f"Wrote {n_rows:,} rows with different answers to {output}.")

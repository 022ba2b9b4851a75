"""`tripletkit check-answers`: what an answer file says of itself, without the truth."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from tripletkit import defaults
from tripletkit.cli.console import show_json
from tripletkit.cli.options import INPUT_FILE, input_source, json_option, quiet_option
from tripletkit.cli.score import describe_interval
from tripletkit.cli.tables import align_columns

if TYPE_CHECKING:
    from tripletkit.data.triplets import Triplets
    from tripletkit.evaluation.answer_checks import AnswerChecks


@click.command("check-answers")
@click.argument("answers", type=INPUT_FILE)
@click.argument("triplets", type=INPUT_FILE)
@click.option(
    "--agree-with",
    type=INPUT_FILE,
    multiple=True,
    help="Another answer file to the same triplets; may be given several times.",
)
@json_option
@quiet_option
def check_answers(
    answers: Path, triplets: Path, agree_with: tuple[Path, ...], as_json: bool
) -> None:
    """Check an answer file against the triplets that it answers, without any truth.

    \b
    tripletkit check-answers answers.txt test.txt
    tripletkit check-answers preds.csv test.txt --agree-with older.csv
    """
    from tripletkit.data.triplet_files import read_triplets
    from tripletkit.evaluation.answer_checks import check_answers as check
    from tripletkit.evaluation.answers import read_answers

    questions = read_triplets(input_source(triplets))
    found = check(
        read_answers(input_source(answers)),
        questions,
        [read_answers(input_source(other)) for other in agree_with],
        n_examples=defaults.AUDIT_EXAMPLES,
    )
    if as_json:
        show_json(found.to_json())
    else:
        click.echo(describe_checks(found, questions))


def describe_checks(found: AnswerChecks, triplets: Triplets) -> str:
    """Return the findings as lines of text."""
    consistency = found.consistency
    lines = [
        ["rows", f"{found.n:,}", f"as many as {triplets.source} asks"],
        [
            "answers 1",
            f"{found.share_of_ones:.4f}",
            f"95% interval {describe_interval(found.share_interval)}; about 0.5 where the two "
            "images stand in chance order",
        ],
        [
            "mirrored",
            f"{consistency.n_mirrored:,}",
            "questions also asked as (A, C, B); "
            f"{consistency.n_mirrored_broken:,} answered inconsistently",
        ],
        [
            "repeated",
            f"{consistency.n_repeated:,}",
            f"rows asked several times; {consistency.n_repeated_broken:,} answered inconsistently",
        ],
        [
            "circles",
            f"{found.n_knots:,}",
            f"knots of answers that no distances can satisfy, {len(found.cycle_rows):,} rows",
        ],
    ]
    if found.n_ties is not None:
        lines += [
            ["ties", f"{found.n_ties:,}", "both images equally near"],
            ["undecidable", f"{found.n_undecidable:,}", "no margin"],
            ["conflicts", f"{found.n_margin_conflicts:,}", "prediction is not the margin's sign"],
        ]
    lines += [
        ["agreement", f"{agreement.share:.4f}", f"with {agreement.source}"]
        for agreement in found.agreements
    ]
    text = align_columns(lines)
    for example in found.examples:
        places = ", ".join(f"{triplets.lines[row]}" for row in example)
        text += f"\n  a circle: lines {places} of {triplets.source}"
    return text

"""`tripletkit check-answers`: what an answer file says of itself, without the truth."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from tripletkit import defaults
from tripletkit.cli.console import show_json, show_text
from tripletkit.cli.options import INPUT_FILE, input_source, json_option, quiet_option

if TYPE_CHECKING:
    pass


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
    from tripletkit.data.judgements import open_judgements
    from tripletkit.evaluation.answer_checks import check_answers as check
    from tripletkit.evaluation.answers import read_answers

    questions = open_judgements(input_source(triplets)).triplets
    found = check(
        read_answers(input_source(answers)),
        questions,
        [read_answers(input_source(other)) for other in agree_with],
        n_examples=defaults.AUDIT_EXAMPLES,
    )
    if as_json:
        show_json(found.to_dict())
    else:
        show_text(str(found))

"""`tripletkit check-answers`: what an answer file says of itself, without the truth."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from tripletkit.cli.console import show_result
from tripletkit.cli.options import INPUT_FILE, command, input_source, judgements_options, takes


@command("check-answers")
@click.argument("answers", type=INPUT_FILE)
@click.argument("triplets", type=INPUT_FILE)
@click.option(
    "--agree-with",
    type=INPUT_FILE,
    multiple=True,
    help="Another answer file to the same triplets; may be given several times.",
)
@judgements_options
@takes("as_json")
def check_answers(
    answers: Path,
    triplets: Path,
    agree_with: tuple[Path, ...],
    as_json: bool,
    read: Callable[[Path | None], Any],
) -> None:
    """Check an answer file against the triplets that it answers, without any truth.

    \b
    tripletkit check-answers answers.txt test.txt
    tripletkit check-answers preds.csv test.txt --agree-with older.csv
    """
    from tripletkit.api import answer_scores

    result = answer_scores.check_answers(
        input_source(answers),
        read(triplets),
        agree_with=[input_source(other) for other in agree_with],
    )
    show_result(result, as_json)

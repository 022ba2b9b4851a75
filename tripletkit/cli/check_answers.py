from typing import Any

import click

import tripletkit as tk
from tripletkit.cli.commands import command, takes
from tripletkit.cli.parameters import INPUT_FILE, JUDGEMENTS


@command("check-answers")
@click.argument("answers", type=INPUT_FILE)
@click.argument("triplets", type=JUDGEMENTS)
@click.option(
    "--agree-with",
    type=INPUT_FILE,
    multiple=True,
    help="Another answer file to the same triplets; may be given several times.",
)
@takes("judgements", "as_json")
def check_answers(**given: Any) -> Any:
    """Check an answer file against the triplets that it answers, without any truth.

    \b
    tripletkit check-answers answers.txt test.txt
    tripletkit check-answers preds.csv test.txt --agree-with older.csv
    """
    return tk.check_answers(**given)

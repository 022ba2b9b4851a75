from typing import Any

import click

import tripletkit as tk
from tripletkit.cli.commands import command, takes
from tripletkit.cli.parameters import INPUT_FILE, NAMED_FILE


@command()
@click.argument("database", type=NAMED_FILE)
@click.option(
    "--gold",
    type=INPUT_FILE,
    help="Triplet file with questions whose answer is known, beside the study's attention.",
)
@takes("as_json", "exclude")
def judges(**given: Any) -> Any:
    """Show each judge's answers, speed, consistency and agreement, and which judges look careless.

    \b
    tripletkit judges judgements.sqlite
    tripletkit judges judgements.sqlite --gold gold.txt --json

    "same again" is how often a repeated question was answered as before, "agrees" how often
    another judge gave the same answer to the same question. Leave a careless judge out with
    --exclude, as in every command that reads a database.
    """
    return tk.judges(**given)

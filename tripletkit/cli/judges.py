"""`tripletkit judges`: how fast, steady and careful judges are."""

from __future__ import annotations

from pathlib import Path

import click

from tripletkit.cli.console import show_result
from tripletkit.cli.options import INPUT_FILE, InputPath, command, takes


@command()
@click.argument("database", type=InputPath(dir_okay=False))
@click.option(
    "--gold",
    type=INPUT_FILE,
    help="Triplet file with questions whose answer is known, beside those of `collect --gold`.",
)
@takes("as_json", "exclude")
def judges(database: Path, gold: Path | None, exclude: tuple[str, ...], as_json: bool) -> None:
    """Show each judge's answers, speed, steadiness and agreement, and who looks careless.

    \b
    tripletkit judges judgements.sqlite
    tripletkit judges judgements.sqlite --gold gold.txt --json

    "same again" is how often a repeated question was answered as before, "agrees" how often
    another judge gave the same answer to the same question. Leave a careless judge out with
    --exclude, as in every command that reads a database.
    """
    from tripletkit.api import judging

    show_result(judging.judges(database, gold=gold, exclude=exclude), as_json)

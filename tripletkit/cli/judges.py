"""`tripletkit judges`: how fast, steady and careful judges are."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from tripletkit.cli.console import show_json, show_text
from tripletkit.cli.options import INPUT_FILE, json_option, quiet_option

if TYPE_CHECKING:
    pass


@click.command()
@click.argument("database", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--gold",
    "gold_file",
    type=INPUT_FILE,
    help="Triplet file with questions whose answer is known, beside those of `collect --gold`.",
)
@click.option(
    "--exclude",
    multiple=True,
    metavar="NAME",
    help="Leave a judge out. May be given several times.",
)
@json_option
@quiet_option
def judges(database: Path, gold_file: Path | None, exclude: tuple[str, ...], as_json: bool) -> None:
    """Show each judge's answers, speed, steadiness and agreement, and who looks careless.

    \b
    tripletkit judges judgements.sqlite
    tripletkit judges judgements.sqlite --gold gold.txt --json

    "same again" is how often a repeated question was answered as before, "agrees" how often
    another judge gave the same answer to the same question. Leave a careless judge out with
    `tripletkit export-judgements --exclude NAME`.
    """
    from tripletkit.collecting.judges import report_judges
    from tripletkit.data.judgement_files import read_answers_given
    from tripletkit.data.judgements import open_judgements
    from tripletkit.errors import JudgementsError

    gold = {}
    if gold_file is not None:
        read = open_judgements(gold_file).decided().triplets
        gold = dict.fromkeys(tuple(read.names[i] for i in row) for row in read.rows.tolist())
    answers = read_answers_given(database, exclude)
    if not answers:
        raise JudgementsError(f"{database}: expected judgements, there is no answer in it yet")
    report = report_judges(answers, gold)
    if as_json:
        show_json(report.to_dict())
    else:
        show_text(str(report))

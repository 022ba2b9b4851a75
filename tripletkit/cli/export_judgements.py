from typing import Any

import click

import tripletkit as tk
from tripletkit.cli.commands import command, takes
from tripletkit.cli.options import output_option
from tripletkit.cli.parameters import NAMED_FILE, OUTPUT_FOLDER


@command("export-judgements")
@click.argument("database", type=NAMED_FILE)
@output_option("Folder for the files; made if there is none.", type=OUTPUT_FOLDER, metavar="DIR")
@click.option(
    "--random-share",
    is_flag=True,
    help="Only questions drawn by chance: what a score may be computed on.",
)
@takes("overwrite", "exclude")
def export_judgements(**given: Any) -> None:
    """Write collected judgements as files for other tools.

    \b
    tripletkit export-judgements judgements.sqlite -o export/
    tripletkit export-judgements judgements.sqlite -o export/ --exclude ben
    tripletkit train export/train.txt photos/ --votes export/votes.csv

    A row of train.txt is a question: anchor, the image that most judges chose, the other; the
    same row of votes.csv has the votes. questions.csv has the undecided ones too, and which were
    drawn by chance; answers.csv has every answer with its judge, time and side.
    """
    tk.export_judgements(**given)

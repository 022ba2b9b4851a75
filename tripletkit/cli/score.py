from pathlib import Path
from typing import Any

import click

import tripletkit as tk
from tripletkit import defaults
from tripletkit.cli.commands import command, takes
from tripletkit.cli.options import images_option, votes_option
from tripletkit.cli.parameters import INPUT_FILE, JUDGEMENTS, MODEL_FOLDER

triplets_option = click.option(
    "--triplets",
    type=JUDGEMENTS,
    help="The triplet file that was answered; needed where the answers do not hold a, b, c.",
)


@command()
@click.argument("answers", type=INPUT_FILE)
@click.argument("truth", type=JUDGEMENTS, required=False)
@triplets_option
@click.option("--unique", is_flag=True, help="Count rows that repeat an earlier one only once.")
@click.option(
    "--ties",
    type=click.Choice(["answer", "error", "half"]),
    default="answer",
    help="Count a row whose two images are equally near as the 0 that it answers, as wrong, or as "
    "half right; the last two need margins.",
)
@click.option(
    "--model",
    type=MODEL_FOLDER,
    help="Model whose answers these are: says how many of the questions it learned from.  "
    f"[default: {defaults.MODEL_FOLDER}, if it is there]",
)
@images_option
@votes_option("--triplets")
@takes("judgements", "as_json")
def score(model: Path | None, **given: Any) -> Any:
    """Print the accuracy of an answer file, with its uncertainty.

    TRUTH is one 0 or 1 a line, or a CSV with a column label, truth or prediction, or a database of
    collected judgements, of which the questions drawn by chance are scored. Without it answers that
    stand in --triplets are the truth, or else what most people said where there are votes (ties of
    theirs are left out), or else every first image is the nearer one.

    \b
    tripletkit score preds.csv truth.csv
    tripletkit score answers.txt truth.csv --triplets test.txt --json
    tripletkit score preds.csv --votes votes.csv
    tripletkit score preds.csv judgements.sqlite
    """
    from tripletkit.data.outputs import MODEL_RECORD

    usual = Path(defaults.MODEL_FOLDER)
    return tk.score(**given, model=model or (usual if (usual / MODEL_RECORD).is_file() else None))

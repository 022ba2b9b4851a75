from typing import Any

import click

import tripletkit as tk
from tripletkit import defaults
from tripletkit.cli.commands import command, takes
from tripletkit.cli.parameters import INPUT_FILE, JUDGEMENTS


@command()
@click.argument("train", type=JUDGEMENTS)
@click.argument("val", type=JUDGEMENTS)
@click.option(
    "--truth",
    type=INPUT_FILE,
    help="Truth of VAL, where its second and third images stand in chance order.",
)
@click.option(
    "--ordinal/--no-ordinal",
    default=None,
    help="Embed the names by the training triplets, the slowest baseline.  "
    f"[default: up to {defaults.MAX_ORDINAL_TRIPLETS:,} training triplets]",
)
@takes("judgements", "as_json")
def controls(**given: Any) -> Any:
    """Print how much of VAL the file names in TRAIN answer, without any image.

    Only what a model scores above these comes from the images.

    \b
    tripletkit controls train.txt val.txt
    tripletkit controls s/train.txt s/val.txt --truth s/val_truth.csv
    """
    return tk.controls(**given)

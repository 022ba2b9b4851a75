"""`tripletkit controls`: what a table of file names would score."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from tripletkit import defaults
from tripletkit.cli.console import say, show_json
from tripletkit.cli.options import INPUT_FILE, input_source, json_option, quiet_option, seed_option
from tripletkit.cli.score import describe_interval
from tripletkit.cli.tables import align_columns

if TYPE_CHECKING:
    from tripletkit.evaluation.controls import Control


@click.command()
@click.argument("train", type=INPUT_FILE)
@click.argument("val", type=INPUT_FILE)
@click.option(
    "--truth",
    type=INPUT_FILE,
    help="Truth of VAL, where its second and third pictures stand in chance order.",
)
@click.option(
    "--ordinal/--no-ordinal",
    default=None,
    help="Embed the names by the training triplets, the slowest control.  "
    f"[default: up to {defaults.MAX_ORDINAL_TRIPLETS:,} training triplets]",
)
@seed_option
@json_option
@quiet_option
def controls(
    train: Path, val: Path, truth: Path | None, ordinal: bool | None, seed: int, as_json: bool
) -> None:
    """Print what VAL can be answered from the file names in TRAIN, without any picture.

    A model is worth only what it scores above these.

    \b
    tripletkit controls train.txt val.txt
    tripletkit controls s/train.txt s/val.txt --truth s/val_truth.csv
    """
    from tripletkit.data.triplets import read_triplets
    from tripletkit.evaluation.answers import read_truth
    from tripletkit.evaluation.controls import run_controls

    train_triplets = read_triplets(input_source(train))
    val_triplets = read_triplets(input_source(val))
    labels = None if truth is None else read_truth(input_source(truth)).labels
    if labels is None:
        say("No truth file: taking every first picture for the nearer one (truth all 1).")
    found = run_controls(train_triplets, val_triplets, labels, ordinal=ordinal, seed=seed)
    if as_json:
        show_json({"controls": [control.to_json() for control in found]})
    else:
        click.echo(describe_controls(found))


def describe_controls(found: list[Control]) -> str:
    """Return the controls as lines of text."""
    table = [["control", "accuracy", "95% interval", "rows", "undecided (half right)"]]
    table += [
        [
            control.name,
            f"{control.accuracy:.4f}",
            describe_interval(control.wilson),
            f"{control.n:,}",
            f"{control.n_undecided:,}",
        ]
        for control in found
    ]
    return align_columns(table, right=[3, 4])

"""`tripletkit controls`: what a table of file names would score."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from tripletkit import defaults
from tripletkit.cli.console import say, show_json, show_text
from tripletkit.cli.options import INPUT_FILE, input_source, json_option, quiet_option, seed_option

if TYPE_CHECKING:
    pass


@click.command()
@click.argument("train", type=INPUT_FILE)
@click.argument("val", type=INPUT_FILE)
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
@seed_option
@json_option
@quiet_option
def controls(
    train: Path, val: Path, truth: Path | None, ordinal: bool | None, seed: int, as_json: bool
) -> None:
    """Print what VAL can be answered from the file names in TRAIN, without any image.

    A model is worth only what it scores above these.

    \b
    tripletkit controls train.txt val.txt
    tripletkit controls s/train.txt s/val.txt --truth s/val_truth.csv
    """
    from tripletkit.data.judgements import open_judgements
    from tripletkit.data.truth import open_truth
    from tripletkit.evaluation.baselines import ShortcutBaselines, run_baselines

    train_triplets = open_judgements(input_source(train)).decided().triplets
    val_triplets = open_judgements(input_source(val)).triplets
    labels = None if truth is None else open_truth(input_source(truth))[0].labels
    if labels is None:
        say("No truth file: taking every first image for the nearer one (truth all 1).")
    found = run_baselines(train_triplets, val_triplets, labels, ordinal=ordinal, seed=seed)
    result = ShortcutBaselines(found)
    if as_json:
        show_json(result.to_dict())
    else:
        show_text(str(result))

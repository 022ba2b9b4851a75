"""`tripletkit controls`: what a table of file names would score."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from tripletkit import defaults
from tripletkit.cli.console import show_result
from tripletkit.cli.options import (
    INPUT_FILE,
    command,
    input_source,
    judgements_options,
    takes,
)


@command()
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
@judgements_options
@takes("as_json")
def controls(
    train: Path,
    val: Path,
    truth: Path | None,
    ordinal: bool | None,
    as_json: bool,
    read: Callable[[Path | None], Any],
) -> None:
    """Print what VAL can be answered from the file names in TRAIN, without any image.

    A model is worth only what it scores above these.

    \b
    tripletkit controls train.txt val.txt
    tripletkit controls s/train.txt s/val.txt --truth s/val_truth.csv
    """
    from tripletkit.api import answer_scores

    result = answer_scores.controls(
        read(train),
        read(val),
        input_source(truth),
        ordinal=ordinal,
    )
    show_result(result, as_json)

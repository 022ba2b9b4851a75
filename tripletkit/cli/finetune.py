"""`tripletkit finetune`: train the last blocks of a model's backbone further."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Any

import click

from tripletkit import defaults
from tripletkit.cli.console import show_training, stage_bars
from tripletkit.cli.options import (
    MODEL_FOLDER,
    WholeRange,
    command,
    images_option,
    takes,
    weights_option,
)
from tripletkit.cli.settings import settings_options
from tripletkit.cli.train import resume_option, tensorboard_option
from tripletkit.model.settings import gather_settings


@command()
@click.argument("model", type=MODEL_FOLDER)
@click.option(
    "-o",
    "--output",
    type=MODEL_FOLDER,
    required=True,
    help="Model folder to write; MODEL stays as it is.",
)
@click.option(
    "--blocks",
    type=WholeRange(1),
    default=1,
    show_default=True,
    help="How many of the backbone's last blocks learn.",
)
@click.option(
    "--epochs",
    type=WholeRange(1),
    help="Epochs at most; in each, an image is seen about "
    f"{defaults.FINE_TUNE_VIEWS} times.  [default: {defaults.FINE_TUNE_EPOCHS}]",
)
@settings_options
@images_option
@weights_option
@resume_option
@tensorboard_option
@takes("cache", "overwrite", "as_json")
def finetune(
    model: Path,
    output: Path,
    epochs: int | None,
    settings: tuple[str, ...],
    settings_file: Path | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Train the last blocks of MODEL's backbone further, together with its head.

    \b
    tripletkit finetune m1 -o m2
    tripletkit finetune m1 -o m2 --blocks 2 --epochs 10 -s learning_rate=2e-6 -s flip=false

    Learns from the triplets and images that MODEL was trained on, from the pixels, with a
    checkpoint after every epoch that --resume goes on from. Says what that costs before it
    starts, and prints the accuracy beside that of MODEL. It needs many images to gain.
    """
    given = gather_settings({"epochs": epochs}, settings, settings_file)
    from tripletkit.api import learning

    with stage_bars() as stages:
        result = learning.finetune(
            model,
            output=output,
            command=shlex.join(["tripletkit", *sys.argv[1:]]),
            progress=stages,
            **options,
            **given,
        )
    show_training(output, result, as_json)

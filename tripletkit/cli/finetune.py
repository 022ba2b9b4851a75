"""`tripletkit finetune`: train the last blocks of a model's backbone further."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tripletkit import defaults
from tripletkit.cli.console import show_training, stage_bars
from tripletkit.cli.options import (
    INPUT_FOLDER,
    FiniteRange,
    WholeRange,
    cache_option,
    force_option,
    json_option,
    quiet_option,
)
from tripletkit.cli.settings import gather_settings, settings_options
from tripletkit.cli.sources import weights_option
from tripletkit.cli.train_options import tensorboard_option

if TYPE_CHECKING:
    from tripletkit.features.feature_parts import GivenWeights


@click.command()
@click.argument("model", type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
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
@click.option(
    "--learning-rate",
    type=FiniteRange(0, min_open=True),
    help=f"Learning rate of Adam.  [default: {defaults.FINE_TUNE_LEARNING_RATE:g}]",
)
@settings_options
@click.option(
    "--images",
    type=INPUT_FOLDER,
    help="Folder of the images.  [default: the one used in training]",
)
@weights_option
@click.option(
    "--resume",
    is_flag=True,
    help="Go on with a fine-tuning that was interrupted, from its last whole epoch.",
)
@tensorboard_option
@cache_option
@force_option
@json_option
@quiet_option
def finetune(
    model: Path,
    output: Path,
    blocks: int,
    epochs: int | None,
    learning_rate: float | None,
    settings: tuple[str, ...],
    settings_file: Path | None,
    images: Path | None,
    weights: GivenWeights,
    resume: bool,
    tensorboard: Path | None,
    cache: Path | None,
    force: bool,
    as_json: bool,
) -> None:
    """Train the last blocks of MODEL's backbone further, together with its head.

    \b
    tripletkit finetune m1 -o m2
    tripletkit finetune m1 -o m2 --blocks 2 --epochs 10 -s flip=false

    Learns from the triplets and images that MODEL was trained on, from the pixels, with a
    checkpoint after every epoch that --resume goes on from. Says what that costs before it
    starts, and prints the accuracy beside that of MODEL. It needs many images to gain.
    """
    given = gather_settings(
        {"epochs": epochs, "learning_rate": learning_rate}, settings, settings_file
    )

    from tripletkit.data.outputs import Outputs
    from tripletkit.model.model_folder import load_model

    folder = load_model(model)
    outputs = Outputs(
        [model, settings_file, *weights.values(), *folder.record.inputs.paths()],
        image_folders=[images or folder.image_folder],
        overwrite=force,
    )
    outputs.folder(output)

    from tripletkit.training import run
    from tripletkit.training.fine_tuning import FineTuning

    job = FineTuning(folder, blocks, given, images, weights, cache)
    with stage_bars() as stages:
        result = run.train(
            job,
            output,
            overwrite=force,
            resume=resume,
            tensorboard=tensorboard,
            command=shlex.join(["tripletkit", *sys.argv[1:]]),
            stages=stages,
        )
    show_training(output, result, as_json)

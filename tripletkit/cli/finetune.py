from pathlib import Path
from typing import Any

import click

import tripletkit as tk
from tripletkit import defaults
from tripletkit.cli.commands import command, section, takes
from tripletkit.cli.options import (
    images_option,
    output_option,
    running_options,
    say_where,
    settings_options,
    this_line,
    weights_option,
)
from tripletkit.cli.parameters import MODEL_FOLDER, WholeRange


@command()
@click.argument("model", type=MODEL_FOLDER)
@section(
    "Data",
    output_option("Model folder to write; MODEL stays as it is.", type=MODEL_FOLDER),
    images_option,
    weights_option,
)
@section(
    "Training",
    click.option(
        "--blocks",
        type=WholeRange(1),
        default=1,
        help="How many of the backbone's last blocks learn.",
    ),
    click.option(
        "--epochs",
        type=WholeRange(1),
        help="Epochs at most; in each, an image is seen about "
        f"{defaults.FINE_TUNE_VIEWS} times.  [default: {defaults.FINE_TUNE_EPOCHS}]",
    ),
    settings_options("epochs"),
    running_options,
)
@takes("cache", "overwrite", "as_json", "progress")
def finetune(output: Path, **given: Any) -> Any:
    """Train the last blocks of MODEL's backbone further, together with its head.

    \b
    tripletkit finetune m1 -o m2
    tripletkit finetune m1 -o m2 --blocks 2 --epochs 10 -s learning_rate=2e-6 -s flip=false

    Learns from the triplets and images that MODEL was trained on, from the pixels, with a
    checkpoint after every epoch that --resume goes on from. Says what that costs before it
    starts, and prints the accuracy beside that of MODEL. It gains where images are many.
    """
    result = tk.finetune(**given, output=output, command=this_line())
    say_where(output)
    return result

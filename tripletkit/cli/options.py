"""Options that several commands share, each written once."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import click

from tripletkit import defaults
from tripletkit.cli.console import set_quiet
from tripletkit.errors import LossError

INPUT_FILE = click.Path(exists=True, dir_okay=False, allow_dash=True, path_type=Path)
INPUT_FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)
INPUT_PATH = click.Path(exists=True, allow_dash=True, path_type=Path)


class OutputPath(click.Path):
    """A place that a command writes to; every one goes through `tripletkit.data.outputs.Outputs`.

    A test looks for this type to find all outputs of all commands.
    """

    def __init__(self, *, is_folder: bool = False) -> None:
        super().__init__(file_okay=not is_folder, dir_okay=is_folder, path_type=Path)


OUTPUT_FILE = OutputPath()
OUTPUT_FOLDER = OutputPath(is_folder=True)


class FiniteRange(click.FloatRange):
    """A range of real numbers; NaN would pass any, infinity any that is open above."""

    def convert(
        self, value: Any, param: click.Parameter | None, context: click.Context | None
    ) -> float:
        number = super().convert(value, param, context)
        if not math.isfinite(number):
            self.fail(f"{value} is not a finite number.", param, context)
        return number


def group_options(*options: Callable[[Callable], Callable]) -> Callable[[Callable], Callable]:
    """Return one decorator that adds several options, in the order of the help."""

    def add(command: Callable) -> Callable:
        for option in reversed(options):
            command = option(command)
        return command

    return add


quiet_option = click.option(
    "-q",
    "--quiet",
    is_flag=True,
    expose_value=False,
    callback=set_quiet,
    help="Say nothing but warnings, errors and the result.",
)

json_option = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")

seed_option = click.option(
    "--seed",
    type=click.IntRange(0, 2**31 - 1),
    default=defaults.SEED,
    show_default=True,
    help="Start of every choice by chance. The same seed gives the same result.",
)

cache_option = click.option(
    "--cache",
    type=click.Path(file_okay=False, path_type=Path),
    envvar=defaults.CACHE_VARIABLE,
    show_envvar=True,
    help="Folder of the feature store.  [default: the user's cache folder]",
)

on_bad_image_option = click.option(
    "--on-bad-image",
    type=click.Choice(["fail", "skip"]),
    default="fail",
    show_default=True,
    help="What to do when an image is missing or cannot be read.",
)

model_option = click.option(
    "--model",
    type=click.Path(path_type=Path),
    default=defaults.MODEL_FOLDER,
    show_default=True,
    help="Model folder that `tripletkit train` wrote.",
)

force_option = click.option(
    "--force", is_flag=True, help="Replace what is there, if it is what this command writes."
)

follow_outside_option = click.option(
    "--follow-outside",
    is_flag=True,
    help="Allow names and links that lead out of the image folder.",
)


def check_loss_name(_context: click.Context, _option: click.Parameter, name: str) -> str:
    """Refuse an unknown loss as a wrong call (callback of `--loss`)."""
    from tripletkit.model.loss_registry import get_loss

    try:
        return get_loss(name).name
    except LossError as error:
        raise click.BadParameter(str(error)) from error


def input_source(path: Path) -> Path | BinaryIO:
    """Return what a reader takes: the path, or standard input for `-`."""
    return sys.stdin.buffer if str(path) == "-" else path

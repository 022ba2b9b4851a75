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

INPUT_FILE = click.Path(exists=True, dir_okay=False, allow_dash=True, path_type=Path)
LABELS = click.Path(exists=True, allow_dash=True, path_type=Path)
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


# More than there can be of anything that is counted, and what arrays of the library can hold.
MOST = 2**31 - 1


class WholeRange(click.IntRange):
    """A range of whole numbers with two ends, written in digits as any program reads them.

    Python takes `1_0` and digits of other scripts, too, and numbers that no array can hold.
    """

    def __init__(self, min: int, max: int = MOST) -> None:
        super().__init__(min=min, max=max)

    def convert(
        self, value: Any, param: click.Parameter | None, context: click.Context | None
    ) -> int:
        _check_plain(self, value, param, context)
        number = click.INT.convert(value, param, context)
        if number > MOST:
            self.fail(f"{number} is more than {MOST:,}.", param, context)
        return super().convert(number, param, context)

    def _describe_range(self) -> str:
        """Leave out of the help what bounds every number."""
        return f"x>={self.min}" if self.max == MOST else super()._describe_range()


class FiniteRange(click.FloatRange):
    """A range of real numbers; NaN would pass any, infinity any that is open above."""

    def convert(
        self, value: Any, param: click.Parameter | None, context: click.Context | None
    ) -> float:
        _check_plain(self, value, param, context)
        number = super().convert(value, param, context)
        if not math.isfinite(number):
            self.fail(f"{value} is not a finite number.", param, context)
        return number


class NamedChoice(click.Choice):
    """One of a few names; the message about another tells the nearest one."""

    def convert(
        self, value: Any, param: click.Parameter | None, context: click.Context | None
    ) -> str:
        from tripletkit.registry import describe_unknown

        if value not in self.choices:
            self.fail(describe_unknown(str(value), self.choices), param, context)
        return value


def _check_plain(
    kind: click.ParamType, value: Any, param: click.Parameter | None, context: click.Context | None
) -> None:
    if isinstance(value, str) and not (value.isascii() and "_" not in value):
        kind.fail(f"{value!r} is not a number in plain digits.", param, context)


def group_options(*options: Callable[[Callable], Callable]) -> Callable[[Callable], Callable]:
    """Return one decorator that adds several options, in the order of the help."""

    def add(command: Callable) -> Callable:
        for option in reversed(options):
            command = option(command)
        return command

    return add


def section(title: str, *options: Callable[[Callable], Callable]) -> Callable:
    """Return one decorator that adds options under a title of their own in the help."""

    def add(command: Callable) -> Callable:
        known = set(getattr(command, "__click_params__", []))
        command = group_options(*options)(command)
        for param in command.__click_params__:  # type: ignore[attr-defined]
            if param not in known:
                param.section = title
        return command

    return add


class SectionedCommand(click.Command):
    """A command whose help shows its options in sections; see `section`."""

    def format_options(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        sections: dict[str, list[tuple[str, str]]] = {}
        for param in self.get_params(context):
            if (record := param.get_help_record(context)) is not None:
                title = getattr(param, "section", "Other options")
                sections.setdefault(title, []).append(record)
        for title, records in sections.items():
            with formatter.section(title):
                formatter.write_dl(records)


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
    type=WholeRange(0),
    default=defaults.SEED,
    show_default=True,
    help="Seed of all random choices. The same seed gives the same result.",
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


def input_source(path: Path) -> Path | BinaryIO:
    """Return what a reader takes: the path, or standard input for `-`.

    Raises:
        UsageError: if the program was started without standard input (`<&-`).
    """
    if str(path) != "-":
        return path
    if sys.stdin is None:
        raise click.UsageError("`-` stands for standard input, which is closed.")
    return sys.stdin.buffer

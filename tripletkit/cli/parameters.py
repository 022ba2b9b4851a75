"""Kinds of parameters that several commands have: paths that are read or written, and numbers."""

import math
import sys
from pathlib import Path
from typing import Any, cast

import click


class InputPath(click.Path):
    """A file or folder that a command reads, so that it writes nothing over it or among images.

    With `allow_dash`, `-` becomes standard input. `of` is `"judgements"` or `"labels"` where it is
    read as the options of the run say.
    """

    def __init__(self, of: str = "", **kinds: bool) -> None:
        super().__init__(exists=True, path_type=Path, **kinds)
        self.of = of

    def convert(
        self, value: Any, param: click.Parameter | None, context: click.Context | None
    ) -> Any:
        from tripletkit.data.outputs import note_input

        path = cast(Path, super().convert(value, param, context))
        note_input(path)
        if str(path) != "-":
            return path
        if sys.stdin is None:
            raise click.UsageError("`-` stands for standard input, which is closed.")
        return sys.stdin.buffer


INPUT_FILE = InputPath(dir_okay=False, allow_dash=True)
INPUT_FOLDER = InputPath(file_okay=False)
# Where standard input is none.
NAMED_FILE = InputPath(dir_okay=False)
NAMED_PATH = InputPath()
JUDGEMENTS = InputPath("judgements", dir_okay=False, allow_dash=True)
LABELS = InputPath("labels", allow_dash=True)


class OutputPath(click.Path):
    """A place that a command writes to; every one goes through `tripletkit.data.outputs.Outputs`.

    A test looks for this type to find all outputs of all commands.
    """

    def __init__(self, *, is_folder: bool = False) -> None:
        super().__init__(file_okay=not is_folder, dir_okay=is_folder, path_type=Path)


OUTPUT_FILE = OutputPath()
OUTPUT_FOLDER = OutputPath(is_folder=True)
MODEL_FOLDER = click.Path(path_type=Path)
# A folder of features or logs, of which nothing is replaced.
ADDED_TO = click.Path(file_okay=False, path_type=Path)

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


def _check_plain(
    kind: click.ParamType, value: Any, param: click.Parameter | None, context: click.Context | None
) -> None:
    if isinstance(value, str) and not (value.isascii() and "_" not in value):
        kind.fail(f"{value!r} is not a number in plain digits.", param, context)

"""Kinds of parameters: paths that are read or written, numbers, names, times, columns."""

from __future__ import annotations

import math
import re
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
INPUT_PATH = InputPath(allow_dash=True)
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
_MOST = 2**31 - 1


class WholeRange(click.IntRange):
    """A range of whole numbers with two ends, written in digits as any program reads them.

    Python takes `1_0` and digits of other scripts, too, and numbers that no array can hold.
    """

    def __init__(self, min: int, max: int = _MOST) -> None:
        super().__init__(min=min, max=max)

    def convert(
        self, value: Any, param: click.Parameter | None, context: click.Context | None
    ) -> int:
        _check_plain(self, value, param, context)
        number = click.INT.convert(value, param, context)
        if number > _MOST:
            self.fail(f"{number} is more than {_MOST:,}.", param, context)
        return super().convert(number, param, context)

    def _describe_range(self) -> str:
        """Leave out of the help what bounds every number."""
        return f"x>={self.min}" if self.max == _MOST else super()._describe_range()


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


class Duration(click.ParamType):
    """Seconds, from a number and its unit such as `90s` or `2min`; seconds where none is given."""

    name = "time"
    _seconds = {"": 1.0, "s": 1.0, "sec": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}  # noqa: RUF012

    def convert(
        self, value: str | float, param: click.Parameter | None, context: click.Context | None
    ) -> float:
        if isinstance(value, int | float):
            return float(value)
        found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([a-z]*)", value.strip().lower())
        if found is None or found[2] not in self._seconds:
            self.fail(f"expected a time such as 90s, 2min or 1h, got {value!r}", param, context)
        return float(found[1]) * self._seconds[found[2]]


class CountOrShare(click.ParamType):
    """A count such as `500`, or a share such as `0.25` or `25%`."""

    name = "keep"

    def convert(
        self, value: Any, param: click.Parameter | None, context: click.Context | None
    ) -> float | int:
        from tripletkit.data.text_files import parse_number

        if isinstance(value, float | int):
            return value
        if value.isascii() and value.isdigit():
            keep: float | int = int(value)
        else:
            keep = parse_number(value.removesuffix("%")) / (100 if value.endswith("%") else 1)
        if not (1 <= keep <= _MOST if isinstance(keep, int) else 0 < keep <= 1):
            self.fail(
                f"expected a count such as 500 or a share such as 0.25 or 25%, got {value}.",
                param,
                context,
            )
        return keep


def _check_plain(
    kind: click.ParamType, value: Any, param: click.Parameter | None, context: click.Context | None
) -> None:
    if isinstance(value, str) and not (value.isascii() and "_" not in value):
        kind.fail(f"{value!r} is not a number in plain digits.", param, context)


class Columns(click.ParamType):
    """`anchor=head,positive=winner`."""

    name = "columns"

    def convert(
        self, value: Any, param: click.Parameter | None, context: click.Context | None
    ) -> dict[str, str]:
        if isinstance(value, dict):
            return value
        pairs = [part.partition("=") for part in value.split(",")]
        if not all(name.strip() and sign and text.strip() for name, sign, text in pairs):
            self.fail(f"expected such as anchor=head,positive=winner, got {value}", param, context)
        return {name.strip(): text.strip() for name, _, text in pairs}


class Weights(click.ParamType):
    """`FILE`, or `NAME=FILE` where NAME is a backbone."""

    name = "weights"

    def convert(
        self, value: Any, param: click.Parameter | None, context: click.Context | None
    ) -> tuple[str | None, Path]:
        from tripletkit.features.backbones import BACKBONES
        from tripletkit.features.onnx_files import is_network_file

        if isinstance(value, tuple):
            return value
        backbone, is_named, file = value.partition("=")
        if not is_named or not (backbone in BACKBONES or is_network_file(backbone)):
            backbone, file = None, value
        return backbone, NAMED_FILE.convert(file, param, context)

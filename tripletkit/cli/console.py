"""What a command says: data on stdout, talk on stderr, bars only on a terminal."""

from __future__ import annotations

import io
import json
import logging
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TextIO

import click

from tripletkit.cli.flags import spell_flags
from tripletkit.errors import TripletkitWarning
from tripletkit.progress import draw_bars, log_progress
from tripletkit.results import plain_values

if TYPE_CHECKING:
    from pathlib import Path

    from tripletkit.api.models import Model
    from tripletkit.progress import Stages
    from tripletkit.results import Result


def is_quiet() -> bool:
    """Return whether `--quiet` was given."""
    context = click.get_current_context(silent=True)
    return context is not None and bool(context.find_root().params.get("quiet"))


def say(message: str) -> None:
    """Tell the user something on stderr, unless `--quiet`."""
    if not is_quiet():
        click.echo(message, err=True)


def warn(message: str) -> None:
    """Warn on stderr; `--quiet` does not silence warnings."""
    click.echo(f"warning: {message}", err=True)


@contextmanager
def listening() -> Iterator[None]:
    """Turn what the library says into text on stderr: remarks, and cautions with `warning:`."""
    logger = logging.getLogger("tripletkit")
    handler, level = _Remarks(), logger.level
    show_other = warnings.showwarning

    def show(message: Warning | str, category: type[Warning], *where: Any, **options: Any) -> None:
        if issubclass(category, TripletkitWarning):
            warn(_spell(str(message)))
        else:
            show_other(message, category, *where, **options)

    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    with warnings.catch_warnings():
        warnings.simplefilter("always", TripletkitWarning)
        warnings.showwarning = show
        try:
            yield
        finally:
            logger.removeHandler(handler)
            logger.setLevel(level)


class _Remarks(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        text = _spell(record.getMessage())
        if record.levelno >= logging.WARNING:
            warn(text)
        else:
            say(text)


def _spell(message: str) -> str:
    context = click.get_current_context(silent=True)
    return spell_flags(message, context and context.command)


def show_training(output: Path, model: Model, as_json: bool) -> None:
    """Print what came out of a training, and what to do with it."""
    if as_json:
        show_json({"model": str(output)} | model.record.to_dict())
        return
    where = click.format_filename(output)
    show_text(
        f"{model}\n\nThe model is in {where}. Next:\n"
        f"  tripletkit predict test.txt --model {where} > preds.csv"
    )


def show_result(result: Result, as_json: bool = False) -> None:
    """Print a result on stdout: as text with flags where the library names settings, or as JSON."""
    if as_json:
        show_json(result.to_dict())
    else:
        show_text(str(result))


def show_text(text: str) -> None:
    """Print a result on stdout, with flags where the library names settings."""
    click.echo(_spell(text))


def show_json(value: dict[str, Any]) -> None:
    """Print a result for scripts on stdout; a number that is none becomes null, as JSON has it."""
    text = json.dumps(plain_values(value), indent=2, ensure_ascii=False, allow_nan=False)
    # A path that is not UTF-8 holds surrogates; their escape is what JSON has for them.
    click.echo(text.encode("utf-8", "backslashreplace"))


def standard_output() -> TextIO:
    """Return stdout as UTF-8 text without translated line ends, for data."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(encoding="utf-8", newline="\n")
    return sys.stdout


def drop_stdout() -> None:
    """Let what stdout could not take go nowhere, or Python would try once more when it ends."""
    if sys.stdout is sys.__stdout__:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


@contextmanager
def stage_bars() -> Iterator[Stages]:
    """Give a callable that draws a bar for each stage of a command; off a terminal, lines."""
    if not sys.stderr.isatty():
        yield log_progress
        return
    from tqdm import tqdm

    with draw_bars(tqdm, file=sys.stderr, disable=is_quiet()) as stages:
        yield stages

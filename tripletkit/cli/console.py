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

from tripletkit.cli.flags import spell_flags, told
from tripletkit.errors import TripletkitWarning
from tripletkit.progress import draw_bars, log_stages, no_stages
from tripletkit.results import plain_values

if TYPE_CHECKING:
    from tripletkit.progress import Stages


def say(message: str) -> None:
    """Tell the user something on stderr, unless `--quiet`."""
    if not told("quiet"):
        _talk(message)


def warn(message: str) -> None:
    """Warn on stderr; `--quiet` does not silence warnings."""
    _talk(f"warning: {message}")


def _talk(message: str) -> None:
    tqdm = sys.modules.get("tqdm")
    if tqdm is None or not sys.stderr.isatty():
        click.echo(message, err=True)
    else:
        # Above a bar that is being drawn.
        tqdm.tqdm.write(message, file=sys.stderr)


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
    return spell_flags(message, None if context is None else context.command)


def show_result(result: Any) -> None:
    """Print what a public function gave: as text, or as JSON with `--json`."""
    if told("as_json"):
        _echo_json(result.to_dict())
    else:
        click.echo(_spell(str(result)))


def _echo_json(value: dict[str, Any]) -> None:
    """Print a result for scripts; a number that is none becomes null, as JSON has it."""
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
    out = sys.__stdout__
    if out is not None and sys.stdout is out:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, out.fileno())
        os.close(nowhere)


@contextmanager
def stage_bars() -> Iterator[Stages]:
    """Give a callable that draws a bar for each stage of a command; off a terminal, lines."""
    if told("quiet"):
        yield no_stages
        return
    if not sys.stderr.isatty():
        with log_stages() as stages:
            yield stages
        return
    from tqdm import tqdm

    with draw_bars(tqdm, file=sys.stderr) as stages:
        yield stages

"""How the library tells how far it is."""

from __future__ import annotations

import logging
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

logger = logging.getLogger("tripletkit")

# A bar is drawn, and drawn anew, after so long.
_BAR_DELAY_S = 2.0

# Called with (done, total), both counts of the same things, as work goes on.
Progress = Callable[[int, int], None]

# Called with the name of a stage when it begins, such as "features"; returns what is told of it.
Stages = Callable[[str], Progress]

# What stages count that do not go from image to image, by how their names begin.
_UNITS = {
    "held-out draws": "draw",
    "learning curve": "training",
    "unseen classes": "training",
    "heads": "head",
    "epoch": "step",
}


def _unit_of(stage: str) -> str:
    """Return what a stage of a command counts, in the singular."""
    return next((unit for name, unit in _UNITS.items() if stage.startswith(name)), "image")


def no_progress(_done: int, _total: int) -> None:
    """Tell nobody."""


def no_stages(_name: str) -> Progress:
    """Tell nobody, whatever the stage."""
    return no_progress


@contextmanager
def open_stages(given: bool | Stages | None) -> Iterator[Stages]:
    """Give what stages are told to, and take its bars away at the end.

    Args:
        given: a callable of one's own; True for bars, False for none. None, the default of public
            functions, shows bars in a notebook alone.
    """
    if callable(given):
        yield given
    elif given or (given is None and _is_in_notebook()):
        with warnings.catch_warnings():
            # That a notebook without ipywidgets has bars of text is no news to its user.
            warnings.simplefilter("ignore")
            from tqdm.auto import tqdm

        # Each drawing of a bar of text is a line of a saved notebook.
        with draw_bars(tqdm, delay=_BAR_DELAY_S, mininterval=_BAR_DELAY_S) as stages:
            yield stages
    else:
        yield no_stages


@contextmanager
def draw_bars(make_bar: Callable[..., Any], **options: Any) -> Iterator[Stages]:
    """Give a callable that draws a bar for each stage, by `tqdm` or alike, the one before gone."""
    with ExitStack() as bars:

        def begin(name: str) -> Progress:
            bars.close()
            bar = make_bar(desc=name, unit=_unit_of(name), leave=False, **options)
            bars.callback(bar.close)

            def report(done: int, total: int) -> None:
                bar.total = total
                bar.update(done - bar.n)

            return report

        yield begin


def _is_in_notebook() -> bool:
    """Return whether this runs in Jupyter, where bars are widgets."""
    ipython = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    return type(shell).__name__ == "ZMQInteractiveShell"


def log_progress(name: str, every_s: float = 30.0) -> Progress:
    """Return what logs how far a stage is and how long it may still take, now and then."""
    started_s = last_s = time.monotonic()

    def report(done: int, total: int) -> None:
        nonlocal last_s
        now_s = time.monotonic()
        if not 0 < done < total or now_s - last_s < every_s:
            return
        last_s = now_s
        left_s = (now_s - started_s) * (total - done) / done
        left = f"{left_s:.0f} s" if left_s < 90 else f"{left_s / 60:.0f} min"
        logger.info("%s: %s of %s, about %s left.", name, f"{done:,}", f"{total:,}", left)

    return report

"""How the library tells how far it is."""

from __future__ import annotations

import logging
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import Any

logger = logging.getLogger("tripletkit")

# A bar is drawn, and drawn anew, after so long.
_BAR_DELAY_S = 2.0

# Called with (done, total), both counts of the same things, as work goes on.
Progress = Callable[[int, int], None]

# Called with the name of a stage when it begins, such as "features"; returns what is told of it.
Stages = Callable[[str], Progress]


def no_progress(_done: int, _total: int) -> None:
    """Tell nobody."""


def no_stages(_name: str) -> Progress:
    """Tell nobody, whatever the stage."""
    return no_progress


def open_stages(given: bool | Stages | None) -> AbstractContextManager[Stages]:
    """Give what stages are told to, and take its bars away at the end.

    Args:
        given: a callable of one's own; True for bars, False for none. None, the default of public
            functions, shows bars in a notebook alone.
    """
    if callable(given):
        return nullcontext(given)
    if not given and (given is not None or not _is_in_notebook()):
        return nullcontext(no_stages)
    with warnings.catch_warnings():
        # That a notebook without ipywidgets has bars of text is no news to its user.
        warnings.simplefilter("ignore")
        from tqdm.auto import tqdm

    # Each drawing of a bar of text is a line of a saved notebook.
    return draw_bars(tqdm, delay=_BAR_DELAY_S, mininterval=_BAR_DELAY_S)


@contextmanager
def draw_bars(make_bar: Callable[..., Any], **options: Any) -> Iterator[Stages]:
    """Give a callable that draws a bar for each stage, by `tqdm` or alike, the one before gone."""
    with ExitStack() as bars:

        def begin(name: str) -> Progress:
            bars.close()
            bar = make_bar(desc=name, leave=False, **options)
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


@contextmanager
def log_stages(every_s: float = 30.0) -> Iterator[Stages]:
    """Give a callable that begins a stage; the log says every so often how far the last one is.

    A thread says it: a single held-out draw over many images takes longer than that.
    """
    stage: _Stage | None = None
    is_over = threading.Event()

    def begin(name: str) -> Progress:
        nonlocal stage
        stage = _Stage(name)
        return stage.report

    def speak() -> None:
        while not is_over.wait(every_s):
            if stage is not None:
                logger.info(stage.describe())

    speaker = threading.Thread(target=speak, daemon=True)
    speaker.start()
    try:
        yield begin
    finally:
        is_over.set()
        speaker.join()


class _Stage:
    def __init__(self, name: str) -> None:
        self._name, self._done, self._total = name, 0, 0
        self._started_s = self._reported_s = time.monotonic()

    def report(self, done: int, total: int) -> None:
        self._done, self._total, self._reported_s = done, total, time.monotonic()

    def describe(self) -> str:
        now_s = time.monotonic()
        if not self._done:
            return f"{self._name}: begun {_show_seconds(now_s - self._started_s)} ago."
        if self._done >= self._total:
            since = _show_seconds(now_s - self._reported_s)
            return f"{self._name}: done {since} ago, at work on what follows."
        each_s = (self._reported_s - self._started_s) / self._done
        left_s = max(0.0, each_s * self._total - (now_s - self._started_s))
        return (
            f"{self._name}: {self._done:,} of {self._total:,}, about {_show_seconds(left_s)} left."
        )


def _show_seconds(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"

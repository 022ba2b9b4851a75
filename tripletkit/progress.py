"""How the library tells how far it is."""

from __future__ import annotations

from collections.abc import Callable

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


def unit_of(stage: str) -> str:
    """Return what a stage of a command counts.

    Example:
        >>> unit_of("held-out draws, 2 of 4")
        'draw'
    """
    return next((unit for name, unit in _UNITS.items() if stage.startswith(name)), "image")


def no_progress(_done: int, _total: int) -> None:
    """Tell nobody."""


def no_stages(_name: str) -> Progress:
    """Tell nobody, whatever the stage."""
    return no_progress

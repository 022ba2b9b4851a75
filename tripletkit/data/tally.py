"""How often something was seen, with the first places."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice

_SHOWN_CHARACTERS = 60


@dataclass(frozen=True)
class Tally:
    """How often something was seen, and where first.

    Attributes:
        count: how often in all.
        examples: the first few, each as `file:line: what`.
    """

    count: int
    examples: list[str]


def tally(count: int, examples: Iterable[str], n_examples: int) -> Tally:
    """Count, and keep the first examples only; the others are never made."""
    return Tally(int(count), list(islice(examples, n_examples)))


def show_names(names: Sequence[str], indices: Iterable[int]) -> str:
    """Return some names as a message shows them: long ones cut, ones with blanks quoted."""
    return " ".join(_shorten(names[index]) for index in indices)


def _shorten(name: str) -> str:
    short = name if len(name) <= _SHOWN_CHARACTERS else name[:_SHOWN_CHARACTERS] + "..."
    return f'"{short}"' if " " in short else short

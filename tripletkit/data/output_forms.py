"""What files that tripletkit writes look like, so that only these are ever replaced."""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

# A mark or heading is within so many bytes of a file's start or end.
_LOOK_BYTES = 1 << 16
_TRIPLET_LINE = re.compile(r'(?:"(?:[^"]|"")+"|[^\s"#]+)(?: (?:"(?:[^"]|"")+"|[^\s"#]+)){2}')


@dataclass(frozen=True)
class OutputForm:
    """How an output is known again.

    Attributes:
        name: what it is called in messages.
        is_at: whether what stands at a path has this form; may raise what reading raises.
    """

    name: str
    is_at: Callable[[Path], bool]


def any_form(name: str, *forms: OutputForm) -> OutputForm:
    """Return the form of an output that has one of several."""
    return OutputForm(name, lambda path: any(form.is_at(path) for form in forms))


def csv_form(name: str, *headings: str) -> OutputForm:
    """Return the form of a CSV whose first line starts as one of these headings does."""
    return OutputForm(name, lambda path: _read_start(path).startswith(tuple(headings)))


def marked_form(name: str, mark: bytes) -> OutputForm:
    """Return the form of a file with a mark near its start or its end."""

    def is_at(path: Path) -> bool:
        with path.open("rb") as file:
            start = file.read(_LOOK_BYTES)
            file.seek(max(0, path.stat().st_size - _LOOK_BYTES))
            return mark in start or mark in file.read()

    return OutputForm(name, is_at)


def archive_form(name: str, members: Collection[str]) -> OutputForm:
    """Return the form of a ZIP archive, such as NumPy's `.npz`, with exactly these members."""

    def is_at(path: Path) -> bool:
        with zipfile.ZipFile(path) as archive:
            return sorted(archive.namelist()) == sorted(members)

    return OutputForm(name, is_at)


def keras_form(network: str) -> OutputForm:
    """Return the form of a `.keras` file of the network of that name."""

    def is_at(path: Path) -> bool:
        with zipfile.ZipFile(path) as archive:
            return json.loads(archive.read("config.json"))["config"]["name"] == network

    return OutputForm(f"the network {network} that tripletkit exports", is_at)


def _is_labels(path: Path) -> bool:
    start = _read_start(path)
    return not start.replace("0\n", "").replace("1\n", "").strip("01")


def _is_triplets(path: Path) -> bool:
    lines = _read_start(path).split("\n")
    # The last one is cut, or empty.
    return all(map(_TRIPLET_LINE.fullmatch, lines[:-1]))


def _read_start(path: Path) -> str:
    with path.open("rb") as file:
        # The bytes of a character that is cut are no reason to refuse.
        return file.read(_LOOK_BYTES).decode("utf-8", errors="surrogateescape")


# Every image that tripletkit draws says so.
MARK = "made by tripletkit"
DRAWN_FORM = marked_form("an image that tripletkit drew", MARK.encode())
LABELS_FORM = OutputForm("a file of answers, one 0 or 1 a line", _is_labels)
TRUTH_FORM = csv_form("a file of truth with the heading label", "label\n")
TRIPLETS_FORM = OutputForm("a triplet file as tripletkit writes it", _is_triplets)

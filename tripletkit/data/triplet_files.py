"""Texts of three names a line: read and write.

A text of three names a line, separated by blanks, or a CSV or TSV whose columns are taken by name.
Reading is the only place that walks lines, and it does so in Python only where a line holds a
quote, a comment or a separator; a plain file is cut by numpy and pandas, some millions of lines in
seconds.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import IO

import numpy as np
import pandas as pd

from tripletkit.data.names import quote_name
from tripletkit.data.outputs import Destination, open_output
from tripletkit.data.tables import LineProblem
from tripletkit.data.triplet_layout import N_COMPARED, Layout, needs_heading, text_heading
from tripletkit.data.triplets import Triplets

# Read in pieces, so that memory holds the tokens of one piece and not of the whole file.
_CHUNK_BYTES = 1 << 24
# A line with one of these needs more than cutting at blanks.
_SPECIAL = re.compile(rb'["#,\x00-\x08\x0b\x0c\x0e-\x1f\x7f\x80-\xff]')


def scan_lines(text: bytes, layout: Layout, source: str) -> tuple[Triplets, list[LineProblem]]:
    """Read lines of three names; return the rows, and the lines that could not be read.

    Args:
        text: as `text_files.check_text` returns it.
        layout: without a heading.
        source: what to call the file in messages.
    """
    collected = _Collected(layout)
    line_number = layout.line
    for chunk in _chunks(text, layout.start):
        n_lines = chunk.count(b"\n") + (not chunk.endswith(b"\n"))
        if layout.separator is None and not _SPECIAL.search(chunk):
            collected.add_plain(chunk, line_number)
        else:
            collected.add_lines(chunk.decode().split("\n")[:n_lines], line_number)
        line_number += n_lines
    return collected.triplets(source), collected.problems


def write_triplets(
    destination: Destination, names: Sequence[str], rows: np.ndarray, *, is_answered: bool = True
) -> None:
    """Write a triplet file, names quoted where they need it; whole or not at all.

    It has a heading only if the first row would be taken for one.

    Args:
        destination: the file to write.
        names: the distinct names.
        rows: `(n_triplets, 3)` indices into `names`.
        is_answered: the second image of each row is the nearer one.
    Raises:
        TripletFileError: if a name cannot stand in a text file.
        OutputError: if the file cannot be written.
    """
    with open_output(destination) as file:
        write_triplet_lines(file, names, rows, is_answered=is_answered)


def write_triplet_lines(
    file: IO[str], names: Sequence[str], rows: np.ndarray, *, is_answered: bool = True
) -> None:
    """Write triplets into an open text file; see `write_triplets`."""
    quoted = np.array([quote_name(name) for name in names], dtype=object)
    if needs_heading([[names[index] for index in row] for row in rows[: 1 + N_COMPARED]]):
        file.write(f"{text_heading(is_answered)}\n")
    for start in range(0, len(rows), 1 << 16):
        columns = quoted[rows[start : start + (1 << 16)]]
        file.write("".join(f"{a} {b} {c}\n" for a, b, c in columns.tolist()))


class _Collected:
    """Rows, names and problems gathered piece by piece."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self.index_of: dict[str, int] = {}
        self.rows: list[np.ndarray] = []
        self.lines: list[np.ndarray] = []
        self.problems: list[LineProblem] = []

    def triplets(self, source: str) -> Triplets:
        rows = np.concatenate(self.rows) if self.rows else np.empty((0, 3), np.int32)
        lines = np.concatenate(self.lines) if self.lines else np.empty(0, np.int64)
        return Triplets(list(self.index_of), rows, lines, source)

    def add_plain(self, chunk: bytes, first_line: int) -> None:
        """Add a chunk in which only blanks, line ends and printable ASCII occur."""
        characters = np.frombuffer(chunk, dtype=np.uint8)
        is_blank = (characters == 0x20) | (characters == 0x09) | (characters == 0x0A)
        is_start = ~is_blank
        is_start[1:] &= is_blank[:-1]
        line_ends = np.flatnonzero(characters == 0x0A)
        lines_of_tokens = np.searchsorted(line_ends, np.flatnonzero(is_start))
        n_tokens = np.bincount(lines_of_tokens, minlength=len(line_ends) + 1)
        if not np.isin(n_tokens, (0, 3)).all():
            # A line is bad: rare, and the careful way finds the same rows.
            self.add_lines(chunk.decode().split("\n"), first_line)
            return
        self._add(chunk.split(), np.flatnonzero(n_tokens) + first_line, decode=True)

    def add_lines(self, lines: Iterable[str], first_line: int) -> None:
        """Add lines one by one."""
        tokens: list[str] = []
        numbers: list[int] = []
        parse: Callable[[str], list[str]] = self.layout.parse
        for number, line in enumerate(lines, first_line):
            try:
                names = parse(line)
            except ValueError as error:
                self.problems.append(LineProblem(number, str(error)))
                continue
            if names:
                tokens += names
                numbers.append(number)
        self._add(tokens, np.array(numbers, dtype=np.int64), decode=False)

    def _add(self, tokens: list, lines: np.ndarray, decode: bool) -> None:
        numbers, distinct = pd.factorize(np.array(tokens, dtype=object))
        index_of = self.index_of
        indices = np.array(
            [
                index_of.setdefault(name.decode() if decode else name, len(index_of))
                for name in distinct
            ],
            dtype=np.int32,
        )
        self.rows.append(indices[numbers].reshape(-1, 3))
        self.lines.append(lines)


def _chunks(data: bytes, start: int) -> Iterator[bytes]:
    """Cut at line ends, so that no line is in two pieces."""
    while start < len(data):
        end = data.find(b"\n", start + _CHUNK_BYTES)
        end = len(data) if end < 0 else end + 1
        yield data[start:end]
        start = end

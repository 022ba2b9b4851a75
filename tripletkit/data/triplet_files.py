"""Texts of three names a line, written so that they are read back as they are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import IO

import numpy as np

from tripletkit.data.columns import are_letters, find_roles, resembles_heading
from tripletkit.data.names import quote_name
from tripletkit.data.outputs import Destination, open_output
from tripletkit.data.tables import N_COMPARED

# What is written above rows that would be taken for a heading; see `Triplets.is_answered`.
_HEADINGS = {True: "anchor positive negative", False: "query first second"}


def write_triplets(
    destination: Destination, names: Sequence[str], rows: np.ndarray, *, is_answered: bool = True
) -> None:
    """Write a triplet file, names quoted where they need it; whole or not at all.

    It has a heading only if the first row would be taken for one.
    """
    with open_output(destination) as file:
        write_triplet_lines(file, names, rows, is_answered=is_answered)


def write_triplet_lines(
    file: IO[str], names: Sequence[str], rows: np.ndarray, *, is_answered: bool = True
) -> None:
    """Write triplets into an open text file; see `write_triplets`."""
    quoted = np.array([quote_name(name) for name in names], dtype=object)
    if _needs_heading([[names[index] for index in row] for row in rows[: 1 + N_COMPARED]]):
        file.write(f"{_HEADINGS[is_answered]}\n")
    for start in range(0, len(rows), 1 << 16):
        columns = quoted[rows[start : start + (1 << 16)]]
        file.write("".join(f"{a} {b} {c}\n" for a, b, c in columns.tolist()))


def _needs_heading(rows: Sequence[Sequence[str]]) -> bool:
    """Return whether a text of these rows would have its first row taken for a heading."""
    if not rows:
        return False
    first, *below = rows
    try:
        is_known = find_roles(first) is not None and not are_letters(first)
    except ValueError:
        is_known = True
    return is_known or resembles_heading(first, below)

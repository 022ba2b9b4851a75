"""Triplets as tables and arrays of other programs have them, checked."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
import pandas as pd

from tripletkit.errors import MAX_SHOWN, TripletFileError, describe_problems


def find_columns(frame: pd.DataFrame, headings: Collection[tuple[str, ...]]) -> list:
    """Return the labels of the three columns that hold names.

    Args:
        headings: what these may be called, in lower case.
    Raises:
        TripletFileError: if there are none, saying which are known.
    """
    labels = list(frame.columns)
    if labels == [0, 1, 2]:
        return labels
    by_name = {str(label).strip().lower(): label for label in labels}
    for heading in sorted(headings, reverse=True):
        if set(heading) <= set(by_name):
            return [by_name[name] for name in heading]
    known = " or ".join(", ".join(heading) for heading in sorted(headings))
    raise TripletFileError(
        f"expected a table with the columns {known}, got {', '.join(map(str, labels))}. "
        "Say with `columns` which three hold the names."
    )


def index_cells(frame: pd.DataFrame, columns: Sequence) -> tuple[list[str], np.ndarray]:
    """Return the distinct names in three columns, and `(n_rows, 3)` int32 indices into them.

    Raises:
        TripletFileError: if there are no such columns, or a cell is not a name. The message holds
            the first ten problems and their number.
    """
    missing = [label for label in columns if label not in frame]
    if len(columns) != 3 or missing:
        lacking = f", of which there is no {missing[0]!r}" if missing else ""
        raise TripletFileError(f"expected three columns of the table, got {columns}{lacking}")
    cells = frame[list(columns)].to_numpy(dtype=object)
    is_name = np.array([isinstance(cell, str) and cell != "" for cell in cells.flat], dtype=bool)
    if not is_name.all():
        wrong = np.flatnonzero(~is_name)
        problems = [
            f"row {place // 3}, column {columns[place % 3]!r}: expected an image name as text, "
            f"got {cells.flat[place]!r}"
            for place in wrong[:MAX_SHOWN]
        ]
        raise TripletFileError(
            f"{describe_problems(problems, len(wrong))}\n"
            "Read the table with dtype=str, so that 00123 stays text."
        )
    numbers, names = pd.factorize(cells.ravel())
    return list(names), numbers.reshape(-1, 3).astype(np.int32)


def index_used(rows: np.ndarray, names: Sequence[str]) -> tuple[list[str], np.ndarray]:
    """Return the names that rows have, in order of appearance, and int32 indices into these.

    Raises:
        TripletFileError: if the rows are no `(n_triplets, 3)` integer indices of these names, or
            a name is there twice.
    """
    if rows.ndim != 2 or rows.shape[1] != 3 or not np.issubdtype(rows.dtype, np.integer):
        raise TripletFileError(
            "expected an integer array of the shape (n_triplets, 3), got "
            f"{rows.dtype} of the shape {rows.shape}"
        )
    if len(set(names)) != len(names):
        twice = pd.Series(names)[pd.Series(names).duplicated()].iloc[0]
        raise TripletFileError(f'expected distinct names, got "{twice}" more than once')
    if rows.size and not (rows.min() >= 0 and rows.max() < len(names)):
        raise TripletFileError(
            f"expected indices of {len(names):,} names, from 0 to {len(names) - 1:,}, got "
            f"{rows.min()} to {rows.max()}"
        )
    numbers, used = pd.factorize(rows.ravel())
    return [names[index] for index in used], numbers.reshape(-1, 3).astype(np.int32)

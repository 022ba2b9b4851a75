"""Columns of a CSV text, converted piece by piece, with every bad line counted."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice

import numpy as np

from tripletkit.data.text_files import SEPARATORS, shorten_line, split_csv_line
from tripletkit.errors import AnswerFileError, describe_problems

# So many rows are lists at one time, the rest is arrays already: with more of them Python's
# garbage collector, which walks all lists again and again, takes most of the time.
_CHUNK_ROWS = 1 << 12
# Without any of these, a line is cut at its separators and nothing else.
_SPECIAL = re.compile("[\"' \t]")


@dataclass(frozen=True)
class Field:
    """How the texts of one column become an array.

    Attributes:
        expected: what the texts should be, for messages.
        convert: takes a chunk of texts, returns an array and a bool array of the bad ones.
    """

    expected: str
    convert: Callable[[Sequence[str]], tuple[np.ndarray, np.ndarray]]


def find_separator(text: str) -> str | None:
    """Return what separates the columns of the first line; None if there is only one."""
    first = text.partition("\n")[0]
    return next((separator for separator in SEPARATORS if separator in first), None)


def read_heading(text: str) -> list[str]:
    """Return the column names of the first line, in lower case."""
    separator = find_separator(text) or ","
    return [column.lower() for column in _parse(text.partition("\n")[0], separator)]


def read_columns(text: str, source: str, fields: dict[str, Field]) -> dict[str, np.ndarray]:
    """Read the named columns of a CSV text with a heading; blank lines are passed over.

    Returns:
        One array of `(n_rows,)` for each field, and `"line"`: `(n_rows,)` int64, the line of
        each row, counted from 1.
    Raises:
        AnswerFileError: with the first ten bad lines and their number.
    """
    heading = read_heading(text)
    pieces: dict[str, list[np.ndarray]] = defaultdict(list)
    problems: list[tuple[int, str]] = []
    for lines, rows in _chunks(text):
        is_whole = [len(row) == len(heading) for row in rows]
        if not all(is_whole):
            for line, row in zip(lines, rows, strict=True):
                if len(row) != len(heading):
                    problems.append((line, f"expected {len(heading)} columns, got {len(row)}"))
            continue
        pieces["line"].append(np.array(lines, dtype=np.int64))
        columns = dict(zip(heading, zip(*rows, strict=True), strict=True))
        for column, field in fields.items():
            values, is_bad = field.convert(columns[column])
            pieces[column].append(values)
            for row in np.flatnonzero(is_bad):
                got = shorten_line(columns[column][row])
                problems.append((lines[row], f"expected {field.expected}, got {got}"))
    if problems:
        shown = [f"{source}:{line}: {message}" for line, message in sorted(problems)[:10]]
        raise AnswerFileError(describe_problems(shown, len(problems)))
    if not pieces:
        raise AnswerFileError(f"{source}: expected rows below the heading, got none")
    return {column: np.concatenate(arrays) for column, arrays in pieces.items()}


def _chunks(text: str) -> Iterator[tuple[list[int], list[list[str]]]]:
    """Yield line numbers and rows, without the heading."""
    separator = find_separator(text) or ","
    parse = partial(_parse, separator=separator)
    if not _SPECIAL.search(text.replace("\t", "") if separator == "\t" else text):
        parse = partial(str.split, sep=separator)
    lines = enumerate(text.split("\n"), 1)
    next(lines)
    while chunk := list(islice(lines, _CHUNK_ROWS)):
        numbers = [number for number, line in chunk if line.strip()]
        # Line by line: a quote left open must not swallow the next, as no name has a line break.
        rows = [parse(line) for _, line in chunk if line.strip()]
        if numbers:
            yield numbers, rows


def _parse(line: str, separator: str) -> list[str]:
    if not _SPECIAL.search(line):
        return line.split(separator)
    try:
        return split_csv_line(line, separator)
    except ValueError:  # a quote left open: no row of ours, as its number of columns will tell
        return [line]

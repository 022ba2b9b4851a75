"""Tables of texts: rows with named columns, from CSV, TSV, JSON lines, JSON, Parquet or pandas."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from tripletkit.data.text_files import shorten_line
from tripletkit.errors import MissingExtraError, TripletFileError, describe_problems

_PARQUET = b"PAR1"


@dataclass(frozen=True)
class LineProblem:
    """One line that cannot be read, and why."""

    line: int
    message: str


@dataclass(frozen=True)
class FileTable:
    """Rows of texts.

    Attributes:
        columns: their names as they stand in the heading; empty without a heading.
        cells: for each column `(n_rows,)` objects: texts; of tables that hold other values, these.
        lines: `(n_rows,)` int64, the line of each row in its file, counted from 1.
        source: what to call the file in messages.
        problems: lines that are no rows.
    """

    columns: tuple[str, ...]
    cells: tuple[np.ndarray, ...]
    lines: np.ndarray
    source: str
    problems: list[LineProblem] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.lines)

    def texts(self, column: int) -> np.ndarray:
        """Return `(n_rows,)` objects: the cells of a column as texts; empty where there is none."""
        cells = self.cells[column]
        if all(isinstance(cell, str) for cell in cells):
            return cells
        return _objects(_as_text(cell) for cell in cells)


def _as_text(value: Any) -> str:
    """Return a value as a file would have it: whole numbers without a point, nothing for none."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool | np.bool_):
        return str(bool(value)).lower()
    if isinstance(value, list | dict | tuple | np.ndarray):
        return json.dumps(value, default=str)
    if value is None or pd.isna(value):
        return ""
    if isinstance(value, float | np.floating) and float(value).is_integer():
        return str(int(value))
    return str(value)


def table_of_lines(
    lines: Iterable[tuple[int, str]],
    split: Callable[[str], list[str]],
    columns: Sequence[str],
    source: str,
) -> FileTable:
    """Return the table of a text.

    Args:
        lines: number and text of each line below the heading.
        split: cuts a line into fields, none for a line that holds nothing; raises `ValueError`.
        columns: of the heading; empty without, where the first row says how many there are.
        source: what to call the file in messages.
    """
    n_columns = len(columns)
    numbers: list[int] = []
    rows: list[list[str]] = []
    problems: list[LineProblem] = []
    for number, line in lines:
        try:
            fields = split(line)
            if not fields:
                continue
            n_columns = n_columns or len(fields)
            if len(fields) != n_columns:
                where = "heading" if columns else "first line"
                raise ValueError(
                    f"expected {n_columns} columns as in the {where}, got {len(fields)} "
                    f"({shorten_line(line)})"
                )
        except ValueError as error:
            problems.append(LineProblem(number, str(error)))
            continue
        numbers.append(number)
        rows.append(fields)
    cells = tuple(map(_objects, zip(*rows, strict=True))) if rows else ()
    cells = cells or tuple(_objects([]) for _ in range(n_columns))
    return FileTable(tuple(columns), cells, np.array(numbers, dtype=np.int64), source, problems)


def table_of_frame(frame: pd.DataFrame, source: str = "DataFrame") -> FileTable:
    """Return a table of pandas; its lines are positions of rows, counted from 0."""
    is_named = list(frame.columns) != list(range(frame.shape[1]))
    columns = tuple(str(label).strip() for label in frame.columns) if is_named else ()
    cells = tuple(frame.iloc[:, place].to_numpy(dtype=object) for place in range(frame.shape[1]))
    return FileTable(columns, cells, np.arange(len(frame), dtype=np.int64), source)


def is_json(data: bytes) -> bool:
    """Return whether a text is JSON or JSON lines, and not lines of names."""
    start = data.lstrip()
    if start[:1] == b"{":
        return True
    return start[:1] == b"[" and start[1:].lstrip()[:1] in (b"{", b"[", b'"')


def table_of_json(data: bytes, source: str) -> FileTable:
    """Return the table of JSON lines, or of one JSON value.

    A row is an object by the names of columns, or a list of fields; one value is a list of rows,
    an object with a list of rows, or an object of columns as pandas writes it.

    Raises:
        TripletFileError: with the first ten lines that cannot be read.
    """
    try:
        value = json.loads(data)
    except ValueError:
        return _table_of_rows(*_json_lines(data), source)
    if isinstance(value, dict):
        lists = [each for each in value.values() if isinstance(each, list)]
        if len(lists) == 1 and lists[0] and isinstance(lists[0][0], dict | list):
            value = lists[0]
        elif all(isinstance(each, dict | list) for each in value.values()):
            try:
                return table_of_frame(pd.DataFrame(value).astype(object), source)
            except ValueError as error:
                raise TripletFileError(
                    f"{source}: expected rows or columns of one length, got others: {error}"
                ) from error
        else:
            value = [value]
    if not isinstance(value, list):
        raise TripletFileError(f"{source}: expected JSON rows, got {shorten_line(str(value))}")
    return _table_of_rows(list(range(1, len(value) + 1)), value, [], source)


def is_parquet(data: bytes) -> bool:
    """Return whether a file that starts so is Parquet."""
    return data.startswith(_PARQUET)


def table_of_parquet(data: bytes, source: str) -> FileTable:
    """Return the table of a Parquet file.

    Raises:
        MissingExtraError: if pyarrow is not installed.
        TripletFileError: if the file is damaged.
    """
    try:
        import pyarrow  # noqa: F401
    except ImportError as error:
        raise MissingExtraError(
            f"{source}: reading Parquet needs pyarrow: pip install 'tripletkit[parquet]'"
        ) from error
    try:
        frame = pd.read_parquet(io.BytesIO(data))
    except (OSError, ValueError) as error:
        raise TripletFileError(f"{source}: expected a Parquet file, got a damaged one") from error
    return table_of_frame(frame, source)


def _json_lines(data: bytes) -> tuple[list[int], list[Any], list[LineProblem]]:
    numbers: list[int] = []
    rows: list[Any] = []
    problems: list[LineProblem] = []
    for number, line in enumerate(data.decode().split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError:
            row = None
        if not isinstance(row, dict | list):
            problems.append(
                LineProblem(number, f"expected a JSON object a line, got {shorten_line(line)}")
            )
            continue
        numbers.append(number)
        rows.append(row)
    return numbers, rows, problems


def _table_of_rows(
    numbers: list[int], rows: list[Any], problems: list[LineProblem], source: str
) -> FileTable:
    """Return the table of objects by name, or of lists."""
    if rows and all(isinstance(row, list) for row in rows):
        widths = {len(row) for row in rows}
        if len(widths) > 1:
            raise TripletFileError(f"{source}: expected rows of one length, got {sorted(widths)}")
        cells = tuple(map(_objects, zip(*rows, strict=True)))
        return FileTable((), cells, np.array(numbers, dtype=np.int64), source, problems)
    columns: dict[str, None] = {}
    for number, row in zip(numbers, rows, strict=True):
        if not isinstance(row, dict):
            message = f"expected a JSON object, got {shorten_line(json.dumps(row))}"
            problems.append(LineProblem(number, message))
            continue
        columns.update(dict.fromkeys(row))
    if not columns:
        shown = [f"{source}:{problem.line}: {problem.message}" for problem in problems]
        raise TripletFileError(
            describe_problems(shown) or f"{source}: expected rows of columns, got none"
        )
    kept = [(number, row) for number, row in zip(numbers, rows, strict=True) if type(row) is dict]
    cells = tuple(_objects(row.get(column) for _, row in kept) for column in columns)
    lines = np.array([number for number, _ in kept], dtype=np.int64)
    return FileTable(tuple(columns), cells, lines, source, sorted(problems, key=lambda p: p.line))


def _objects(values: Iterable[Any]) -> np.ndarray:
    """Return `(n,)` objects, lists among them as they are."""
    values = list(values)
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array


def place_problems(problems: Iterable[LineProblem], source: str) -> Iterator[str]:
    """Yield `file:line: expected ..., got ...` of each problem."""
    for problem in problems:
        yield f"{source}:{problem.line}: {problem.message}"

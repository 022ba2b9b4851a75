"""What people answered to triplets: truth files, tables, and arrays."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pandas as pd

from tripletkit.data.answer_values import AnswerColumn, read_answer_values
from tripletkit.data.columns import find_answers
from tripletkit.data.judgement_tables import read_rows
from tripletkit.data.tables import (
    FileTable,
    LineProblem,
    is_json,
    is_parquet,
    place_problems,
    table_of_frame,
    table_of_json,
    table_of_lines,
    table_of_parquet,
)
from tripletkit.data.text_files import (
    SEPARATORS,
    FileRecord,
    check_text,
    read_bytes,
    shorten_line,
    split_csv_line,
)
from tripletkit.data.triplets import Triplets
from tripletkit.errors import AnswerFileError, TripletFileError, describe_problems

logger = logging.getLogger("tripletkit")

TRUTH_COLUMNS = ("label", "truth", "prediction")


@dataclass(frozen=True, repr=False)
class Truth:
    """What people answered, in the order of its file.

    Attributes:
        labels: `(n_triplets,)` int8: 1 where the first image is the nearer one, 0 where the
            second is, -1 where nobody can tell.
        source: what to call the file in messages.
        column: the heading over the labels; empty without one.
        triplets: the questions; None where they are not said.
    """

    labels: np.ndarray
    source: str
    column: str = ""
    triplets: Triplets | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def __repr__(self) -> str:
        return (
            f"<Truth: {len(self):,} rows, {int(self.labels.sum()):,} of them 1, of {self.source}>"
        )


TruthLike = (
    str
    | os.PathLike[str]
    | BinaryIO
    | Truth
    | pd.DataFrame
    | pd.Series
    | np.ndarray
    | Sequence[int]
)


def open_truth(given: TruthLike) -> tuple[Truth, FileRecord]:
    """Return a truth, whatever it is given as, and the record of what was read.

    Args:
        given: a file, a table, `Truth`, or an answer for each triplet: 1 and 0, True and False, 1
            and -1, 1 and 2, or words such as first and second.
    Raises:
        AnswerFileError: if it cannot be read.
    """
    if isinstance(given, str | os.PathLike):
        given = Path(given)
    if isinstance(given, Truth):
        truth, data, name, path = given, given.labels.tobytes(), "the truth", None
    elif isinstance(given, pd.DataFrame):
        name, path = "DataFrame", None
        truth = _truth_of_table(table_of_frame(given))
        data = truth.labels.tobytes()
    elif isinstance(given, Path) or hasattr(given, "read"):
        data, name = read_answer_bytes(given)
        path = str(given.absolute()) if isinstance(given, Path) else None
        truth = _truth_of_table(table_of_answers(data, name))
    else:
        truth, name, path = Truth(read_labels(given, "the truth"), "the truth"), "the truth", None
        data = truth.labels.tobytes()
    return truth, FileRecord(name, path, hashlib.sha256(data).hexdigest())


def read_labels(given: np.ndarray | pd.Series | Sequence[int], source: str) -> np.ndarray:
    """Return `(n_triplets,)` int8 of answers that are given as an array.

    Args:
        source: what to call them in messages.
    Raises:
        AnswerFileError: if they are no answers.
    """
    values = np.asarray(given)
    if values.ndim != 1 or not len(values):
        shown = f"{values.dtype} of the shape {values.shape}"
        raise AnswerFileError(f"{source}: expected 1 or 0 for each triplet, got {shown}")
    if values.dtype.kind in "biuf" and np.isin(values, (0, 1)).all():
        return values.astype(np.int8)
    table = FileTable(("answer",), (values.astype(object),), np.arange(len(values)), source)
    return read_answer_column(table, 0).labels


def read_answer_bytes(source: Path | BinaryIO) -> tuple[bytes, str]:
    """Return the bytes of an answer or truth file, and what to call it in messages."""
    try:
        return read_bytes(source)
    except TripletFileError as error:
        raise AnswerFileError(str(error)) from error


def table_of_answers(data: bytes, name: str) -> FileTable:
    """Return the table of an answer or truth file; of one column where a line is one answer.

    Raises:
        AnswerFileError: with the first ten bad lines and their number.
    """
    try:
        if is_parquet(data):
            return table_of_parquet(data, name)
        text = check_text(data, name)
        if is_json(text):
            return table_of_json(text, name)
    except TripletFileError as error:
        raise AnswerFileError(str(error)) from error
    if not text.strip():
        raise AnswerFileError(f"{name}: expected answers, one a line, got an empty file")
    lines = text.decode().rstrip("\n").split("\n")
    separator = next((each for each in SEPARATORS if each in lines[0]), None)
    if separator is None:
        return _table_of_labels(lines, name)
    try:
        heading = split_csv_line(lines[0], separator)
    except ValueError as error:
        raise AnswerFileError(f"{name}:1: {error}") from error
    rows = ((number, line) for number, line in enumerate(lines[1:], 2) if line.strip())
    table = table_of_lines(rows, partial(split_csv_line, separator=separator), heading, name)
    refuse_problems(table.problems, name)
    return table


def _table_of_labels(lines: list[str], name: str) -> FileTable:
    """Return one column; a blank line between others is a row that says nothing, not layout.

    Passed over, it would give all later rows the truth of another question.
    """
    texts = [line.strip(" \t") for line in lines]
    while not texts[-1]:
        texts.pop()
    heading = texts[0].strip('"')
    columns = (heading,) if find_answers([heading], set()) else ()
    cells = np.array(texts[len(columns) :], dtype=object)
    numbers = np.arange(len(columns) + 1, len(texts) + 1)
    blank = [
        LineProblem(int(line), "expected 0 or 1, got a blank line; every row needs its own")
        for line in numbers[cells == ""]
    ]
    refuse_problems(blank, name)
    return FileTable(columns, (cells,), numbers, name)


def read_answer_column(
    table: FileTable, column: int, names: tuple[np.ndarray, np.ndarray] | None = None
) -> AnswerColumn:
    """Return the answers of a column.

    Args:
        names: `(n_rows,)` texts of the first and of the second image, where they are known.
    Raises:
        AnswerFileError: with the first ten rows that are no answers, and their number.
    """
    if not len(table):
        raise AnswerFileError(f"{table.source}: expected rows below the heading, got none")
    texts = table.texts(column)
    texts = np.array([text.strip() for text in texts], dtype=object)
    reason = ""
    try:
        found = read_answer_values(texts, ("b", "c"), names)
    except ValueError as error:
        reason = f"; {error}" if "two ways" in str(error) else ""
        is_bad = ~np.isin(texts, ("0", "1"))
    else:
        is_bad = found.is_bad | (texts == "")
    problems = [
        LineProblem(int(table.lines[row]), f"expected 0 or 1, got {shorten_line(texts[row])}")
        for row in np.flatnonzero(is_bad)
    ]
    if problems and reason:
        raise AnswerFileError(f"{table.source}{reason}")
    refuse_problems(problems, table.source)
    if not set(texts) <= {"0", "1"}:
        logger.info("%s: answers read so that %s.", table.source, found.meaning)
    return found


def refuse_problems(problems: Sequence[LineProblem], source: str) -> None:
    """Refuse a file with lines that cannot be read.

    Raises:
        AnswerFileError: with the first ten and their number.
    """
    if problems:
        raise AnswerFileError(describe_problems(list(place_problems(problems, source))))


def _truth_of_table(table: FileTable) -> Truth:
    """Return what a table says; its own order of the images counts where it holds them."""
    if len(table.cells) == 1:
        column = table.columns[0].lower() if table.columns else ""
        return Truth(read_answer_column(table, 0).labels, table.source, column)
    answers = find_answers(table.columns, set())
    try:
        read = read_rows(table)
    except ValueError as error:
        raise AnswerFileError(f"{table.source}:1: {error}") from error
    if read is None:
        if not answers:
            raise AnswerFileError(
                f"{table.source}:1: expected a heading with one of the columns "
                f"{', '.join(TRUTH_COLUMNS)}, got {shorten_line(','.join(table.columns))}"
            )
        labels = read_answer_column(table, answers[0]).labels
        return Truth(labels, table.source, table.columns[answers[0]].lower())
    refuse_problems(read.problems, table.source)
    for note in read.notes:
        logger.info("%s: %s.", table.source, note)
    labels = read.labels
    if labels is None and read.votes is not None:
        labels = read.votes.majority
    elif labels is None:
        if not read.triplets.is_answered:
            raise AnswerFileError(
                f"{table.source}:1: expected a heading with one of the columns "
                f"{', '.join(TRUTH_COLUMNS)}, got {shorten_line(','.join(table.columns))}"
            )
        labels = np.ones(len(read.triplets), dtype=np.int8)
    column = table.columns[answers[0]].lower() if answers else ""
    return Truth(labels, table.source, column, read.triplets)

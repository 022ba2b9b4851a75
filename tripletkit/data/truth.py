"""What people answered to triplets: truth files, and arrays of 1 and 0."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from tripletkit.data.csv_columns import Field, find_separator, read_columns, read_heading
from tripletkit.data.text_files import FileRecord, check_text, read_bytes, shorten_line
from tripletkit.errors import AnswerFileError, TripletFileError, describe_problems

TRUTH_COLUMNS = ("label", "truth", "prediction")


@dataclass(frozen=True, repr=False)
class Truth:
    """What people answered, in the order of its file.

    Attributes:
        labels: `(n_triplets,)` int8: 1 where the first image is the nearer one, 0 where the
            second is, -1 where nobody can tell.
        source: what to call the file in messages.
        column: the heading over the labels; empty without one.
    """

    labels: np.ndarray
    source: str
    column: str = ""

    def __len__(self) -> int:
        return len(self.labels)

    def __repr__(self) -> str:
        return (
            f"<Truth: {len(self):,} rows, {int(self.labels.sum()):,} of them 1, of {self.source}>"
        )


TruthLike = str | os.PathLike[str] | BinaryIO | Truth | np.ndarray | Sequence[int]


def open_truth(given: TruthLike) -> tuple[Truth, FileRecord]:
    """Return a truth, whatever it is given as, and the record of what was read.

    Args:
        given: a file, `Truth`, or 1 and 0 for each triplet.
    Raises:
        AnswerFileError: if it cannot be read, or is other than 1 and 0.
    """
    if isinstance(given, str | os.PathLike):
        given = Path(given)
    if isinstance(given, Path) or hasattr(given, "read"):
        try:
            data, name = read_bytes(given)
        except TripletFileError as error:
            raise AnswerFileError(str(error)) from error
        path = str(given.absolute()) if isinstance(given, Path) else None
        record = FileRecord(name, path, hashlib.sha256(data).hexdigest())
        return read_truth(io.BytesIO(data), name), record
    truth = (
        given if isinstance(given, Truth) else Truth(check_labels(given, "the truth"), "the truth")
    )
    return truth, FileRecord("the truth", None, hashlib.sha256(truth.labels.tobytes()).hexdigest())


def check_labels(given: np.ndarray | Sequence[int], source: str) -> np.ndarray:
    """Return `(n_triplets,)` int8 of labels that are given as numbers.

    Args:
        source: what to call them in messages.
    Raises:
        AnswerFileError: if they are other than 1 and 0.
    """
    values = np.asarray(given)
    if values.ndim != 1 or not len(values) or not np.isin(values, (0, 1)).all():
        shown = f"{values.dtype} of the shape {values.shape}"
        raise AnswerFileError(f"{source}: expected 1 or 0 for each triplet, got {shown}")
    return values.astype(np.int8)


def read_truth(source: Path | BinaryIO, name: str | None = None) -> Truth:
    """Read a truth file: one 0 or 1 a line, or a CSV with a column of them.

    The column is the first there is of `label`, `truth` and `prediction`.

    Args:
        source: a path, or an open binary file such as standard input.
        name: what to call it in messages. Defaults to the path as given.
    Raises:
        AnswerFileError: if it is no such file, as `read_answers` does.
    """
    text, name = read_answer_text(source, name)
    if not is_csv(text):
        column, labels = read_labels(text, name)
        return Truth(labels, name, column)
    heading = read_heading(text)
    column = next((column for column in TRUTH_COLUMNS if column in heading), None)
    if column is None:
        raise AnswerFileError(
            f"{name}:1: expected a heading with one of the columns {', '.join(TRUTH_COLUMNS)}, "
            f"got {shorten_line(','.join(heading))}"
        )
    return Truth(read_columns(text, name, {column: LABELS})[column], name, column)


def read_answer_text(source: Path | BinaryIO, name: str | None) -> tuple[str, str]:
    """Return the text of a file and what to call the file."""
    try:
        data, name = read_bytes(source, name)
        data = check_text(data, name)
    except TripletFileError as error:
        raise AnswerFileError(str(error)) from error
    if not data.strip():
        raise AnswerFileError(f"{name}: expected answers, one a line, got an empty file")
    return data.decode(), name


def is_csv(text: str) -> bool:
    return find_separator(text) is not None


def read_labels(text: str, source: str) -> tuple[str, np.ndarray]:
    """Return the heading, if there is one, and the labels below it.

    A blank line between them is a row that says nothing, not layout: passed over, it would give
    all later rows the truth of another question.
    """
    lines = [line.strip(" \t") for line in text.rstrip(" \t\n").split("\n")]
    column = lines[0].strip('"').lower()
    column = column if column in TRUTH_COLUMNS else ""
    start = int(bool(column))
    texts = lines[start:]
    if not set(texts) <= {"0", "1"}:
        problems = [
            f"{source}:{number}: expected 0 or 1, got "
            f"{shorten_line(line) if line else 'a blank line; every row needs its own'}"
            for number, line in enumerate(texts, start + 1)
            if line not in ("0", "1")
        ]
        raise AnswerFileError(describe_problems(problems))
    if not texts:
        raise AnswerFileError(f"{source}: expected rows below the heading, got none")
    return column, _to_labels(texts)[0]


def _to_labels(texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    is_one = np.fromiter((text == "1" for text in texts), bool, len(texts))
    is_zero = np.fromiter((text == "0" for text in texts), bool, len(texts))
    return is_one.astype(np.int8), ~(is_one | is_zero)


LABELS = Field("0 or 1", _to_labels)

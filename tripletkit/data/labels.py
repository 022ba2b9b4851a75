"""Label files: which class each picture is of."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import BinaryIO

from tripletkit.data.triplets import check_text, read_bytes
from tripletkit.errors import LabelFileError, TripletFileError, describe_problems

COLUMNS = ("name", "label")


def read_labels(source: Path | BinaryIO, name: str | None = None) -> dict[str, str]:
    """Read a CSV with the columns `name` and `label`; others are passed over.

    Args:
        source: a path, or an open binary file such as standard input.
        name: what to call it in messages. Defaults to the path as given.
    Returns:
        Name of a picture -> label, in the order of the file.
    Raises:
        LabelFileError: if it is no such file, or gives a name two labels. The message holds
            the first ten problems as `file:line: expected ..., got ...` and their number.
    """
    try:
        data, name = read_bytes(source, name)
        text = check_text(data, name).decode()
    except TripletFileError as error:
        raise LabelFileError(str(error)) from error
    rows = csv.reader(io.StringIO(text, newline=""))
    heading = [column.strip().lower() for column in next(rows, [])]
    if not set(COLUMNS) <= set(heading):
        raise LabelFileError(
            f'{name}:1: expected a heading with the columns name and label, got "'
            f'{",".join(heading)}"'
        )
    of_name, of_label = map(heading.index, COLUMNS)
    labels: dict[str, str] = {}
    problems = []
    for row in rows:
        if not any(field.strip() for field in row):
            continue
        place = f"{name}:{rows.line_num}"
        if len(row) != len(heading):
            problems.append(f"{place}: expected {len(heading)} columns, got {len(row)}")
        elif not (row[of_name].strip() and row[of_label].strip()):
            problems.append(f"{place}: expected a name and a label, got an empty one")
        elif labels.setdefault(row[of_name], row[of_label].strip()) != row[of_label].strip():
            problems.append(
                f'{place}: expected one label for "{row[of_name]}", got '
                f'"{labels[row[of_name]]}" before and "{row[of_label].strip()}" here'
            )
    if problems:
        raise LabelFileError(describe_problems(problems))
    if not labels:
        raise LabelFileError(f"{name}: expected rows below the heading, got none")
    return labels

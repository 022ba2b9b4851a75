"""Class labels: which class each image is of, from a CSV or from a folder per class."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from tripletkit.data.folder import list_images, locate_images
from tripletkit.data.names import unguard_formula
from tripletkit.data.text_files import (
    SEPARATORS,
    check_text,
    read_bytes,
    shorten_line,
    split_csv_line,
)
from tripletkit.errors import LabelFileError, TripletFileError, describe_problems

COLUMNS = ("name", "label")

# Stands for the class of an image that has no label.
NO_LABEL = -1


@dataclass(frozen=True)
class ImageLabels:
    """The classes of named images.

    Attributes:
        classes: their names, sorted.
        of_image: `(n_names,)` int32 indices into `classes`; `NO_LABEL` without a label.
    """

    classes: list[str]
    of_image: np.ndarray

    @classmethod
    def of_names(cls, names: Sequence[str], labels: Mapping[str, str]) -> ImageLabels:
        """Look up the label of every name; classes that none of them has are left out."""
        classes = sorted({labels[name] for name in names if name in labels})
        index_of = {name: index for index, name in enumerate(classes)}
        found = [index_of.get(labels.get(name), NO_LABEL) for name in names]
        return cls(classes, np.array(found, dtype=np.int32))

    def merge(self, same_as: np.ndarray, names: Sequence[str]) -> ImageLabels:
        """Give every name the label that it or another name of the same image has.

        Args:
            same_as: `(n_names,)` the first name of the same image; see `Images.first_of_same`.
            names: for messages.
        Raises:
            LabelFileError: if one image has two labels.
        """
        of_image = np.full(len(same_as), NO_LABEL, dtype=np.int32)
        problems = []
        for name in np.flatnonzero(self.of_image != NO_LABEL):
            first, label = same_as[name], self.of_image[name]
            if of_image[first] == NO_LABEL:
                of_image[first] = label
            elif of_image[first] != label:
                problems.append(
                    f'expected one label for one image, got "{self.classes[of_image[first]]}" '
                    f'for "{names[first]}" and "{self.classes[label]}" for "{names[name]}"'
                )
        if problems:
            raise LabelFileError(describe_problems(problems))
        return ImageLabels(self.classes, of_image[same_as])


def label_files(
    names: Sequence[str],
    paths: Sequence[Path | None],
    labels: Mapping[str, str],
    folder: Path | None,
) -> ImageLabels:
    """Find the label of every image, however the two files spell its name.

    Args:
        names, paths: of the images; see `open_images`.
        labels: name -> label, as `read_classes` gives it; names of other images are passed
            over.
        folder: of the images; None where there is none, and names are spelt one way only.
    """
    known = set(names)
    others = [name for name in labels if name not in known]
    located = [None] * len(others) if folder is None else locate_images(others, folder).paths
    of_path = {path: labels[name] for name, path in zip(others, located, strict=True) if path}
    of_name = {
        name: labels.get(name) or of_path[path]
        for name, path in zip(names, paths, strict=True)
        if name in labels or path in of_path
    }
    return ImageLabels.of_names(names, of_name)


def read_classes(source: Path, folder: Path) -> dict[str, str]:
    """Read labels from a CSV, or from a folder that has a subfolder for each class.

    Args:
        source: a file for `read_labels`, or a folder inside `folder`, or `folder` itself.
        folder: of the images, which names are relative to.
    Returns:
        Name of an image -> label, in the order of the file or of the names.
    Raises:
        LabelFileError: if the file is no such file, or the folder has no such subfolders.
    """
    if not source.is_dir():
        return read_labels(source)
    try:
        inside = source.resolve().relative_to(folder.resolve())
    except ValueError:
        raise LabelFileError(
            f"{source}: expected a folder inside the image folder {folder}, or that folder itself"
        ) from None
    labels = {
        (inside / name).as_posix(): name.partition("/")[0]
        for name in list_images(source)
        if "/" in name
    }
    if not labels:
        raise LabelFileError(
            f"{source}: expected a subfolder of images for each class, got none. "
            "Or give a CSV with the columns name and label."
        )
    return labels


def read_labels(source: Path | BinaryIO, name: str | None = None) -> dict[str, str]:
    """Read a CSV or TSV with the columns `name` and `label`; others are passed over.

    What guards a text from being taken for a formula is taken off; see `data.names`.

    Args:
        source: a path, or an open binary file such as standard input.
        name: what to call it in messages. Defaults to the path as given.
    Returns:
        Name of an image -> label, in the order of the file.
    Raises:
        LabelFileError: if it is no such file, or gives a name two labels. The message holds
            the first ten problems as `file:line: expected ..., got ...` and their number.
    """
    try:
        data, name = read_bytes(source, name)
        text = check_text(data, name).decode()
    except TripletFileError as error:
        raise LabelFileError(str(error)) from error
    heading, separator = find_label_heading(text)
    if not set(COLUMNS) <= set(heading):
        raise LabelFileError(
            f"{name}:1: expected a heading with the columns name and label, got "
            f"{shorten_line(','.join(heading))}"
        )
    if twice := [column for column in COLUMNS if heading.count(column) > 1]:
        raise LabelFileError(f'{name}:1: expected each column once, got "{twice[0]}" twice')
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
    next(rows)
    of_name, of_label = map(heading.index, COLUMNS)
    labels: dict[str, str] = {}
    problems = []
    for row in _whole_rows(rows, name):
        if not any(field.strip() for field in row):
            continue
        row = [unguard_formula(field) for field in row]
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


def find_label_heading(text: str) -> tuple[list[str], str]:
    """Return the column names of the first line, in lower case, and what separates them.

    It is what separates `name` and `label`, if anything does.
    """
    first = text.partition("\n")[0]
    headings = {}
    for separator in SEPARATORS:
        with suppress(ValueError):
            headings[separator] = [
                field.strip().lower() for field in split_csv_line(first, separator)
            ]
    known = [separator for separator, found in headings.items() if set(COLUMNS) <= set(found)]
    separator = known[0] if known else ","
    return headings.get(separator, [first]), separator


def _whole_rows(rows: Any, name: str) -> Iterator[list[str]]:
    """Yield rows of a `csv.reader`, whose quoted fields may have line ends, while they end."""
    try:
        yield from rows
    except csv.Error as error:
        raise LabelFileError(
            f"{name}:{rows.line_num}: expected fields of at most {csv.field_size_limit():,} "
            "characters. Is a quote left open?"
        ) from error

"""Class labels: which class each image is of, from a CSV or from a folder per class."""

from __future__ import annotations

import csv
import io
import json
import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import numpy as np

from tripletkit.data.folder import IMAGE_SUFFIXES, list_images, locate_images
from tripletkit.data.names import unguard_formula
from tripletkit.data.tables import (
    FileTable,
    LineProblem,
    is_json,
    is_parquet,
    table_of_json,
    table_of_lines,
    table_of_parquet,
)
from tripletkit.data.text_files import (
    SEPARATORS,
    check_text,
    read_bytes,
    shorten_line,
    split_csv_line,
    split_line,
)
from tripletkit.errors import LabelFileError, TripletFileError, describe_problems

# Headings of the two columns, the surest first.
_NAME_WORDS = (
    "name file_name filename path file_path filepath image_path image_name image_file "
    "image_filename image img img_path img_name file image_id"
).split()
_LABEL_WORDS = (
    "label class class_name label_name category category_name class_label identity pid person_id "
    "target y class_id label_id category_id id"
).split()
_PARTS = {
    "train": {"train", "training"},
    "val": {"val", "valid", "validation", "dev"},
    "test": {"test", "testing", "eval", "gallery", "query"},
}
_Row = TypeVar("_Row")

logger = logging.getLogger("tripletkit")

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

    def groups(self) -> np.ndarray:
        """Return `(n_names,)` integers: the class of each name, or one of its own without a label.

        Raises:
            LabelFileError: if none has a label.
        """
        if not self.classes:
            raise LabelFileError("expected `groups` of the images, got none of their names")
        own = len(self.classes) + np.arange(len(self.of_image))
        return np.where(self.of_image == NO_LABEL, own, self.of_image)

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
    names = [name for name in list_images(source) if "/" in name]
    if not names:
        raise LabelFileError(
            f"{source}: expected a subfolder of images for each class, got none. "
            "Or give a CSV with the columns name and label."
        )
    class_level = 0
    if all(name.count("/") > 1 and _part_of(name.partition("/")[0]) for name in names):
        class_level = 1
        parts = sorted({name.partition("/")[0] for name in names})
        names = _keep_training_part(names, [name.partition("/")[0] for name in names], str(source))
        logger.info(
            "%s: %s are parts, so the classes are the folders below them.",
            source,
            ", ".join(parts),
        )
    return {(inside / name).as_posix(): name.split("/")[class_level] for name in names}


def _part_of(text: str) -> str | None:
    """Return which part of a data set a word means: train, val or test; None for other words."""
    word = text.strip().casefold()
    return next((part for part, words in _PARTS.items() if word in words), None)


def _keep_training_part(rows: Sequence[_Row], parts: Sequence[str], source: str) -> list[_Row]:
    """Return what is of the training part, and say what is not; all where none is."""
    is_train = [_part_of(part) == "train" for part in parts]
    if not any(is_train) or all(is_train):
        return list(rows)
    others = Counter(part for part, is_here in zip(parts, is_train, strict=True) if not is_here)
    logger.info(
        "%s: the labels of its training part are taken, those of %s are not. Name such a part "
        "where it is to be held out.",
        source,
        ", ".join(f"{part} ({count:,} images)" for part, count in sorted(others.items())),
    )
    return [row for row, is_here in zip(rows, is_train, strict=True) if is_here]


def read_labels(source: Path | BinaryIO, name: str | None = None) -> dict[str, str]:
    """Read the labels of images as people and programs write them.

    A CSV or TSV with a heading, JSON lines, JSON or Parquet with a column of images (`name`,
    `file_name`, `filename`, `path`, `image`, ...) and one of classes (`label`, `class`,
    `category`, ...); without a heading two columns, of which one has names of image files; COCO's
    JSON of images with one class each. Of a column `split` the rows for training are taken.

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
        if is_parquet(data):
            return take_label_table(table_of_parquet(data, name))
        data = check_text(data, name)
        if is_json(data):
            return _read_coco(data, name) or take_label_table(table_of_json(data, name))
        return take_label_table(_table_of_csv(data.decode(), name))
    except TripletFileError as error:
        raise LabelFileError(str(error)) from error


def take_label_table(table: FileTable) -> dict[str, str]:
    """Return name of an image -> label of a table; see `read_labels`.

    Raises:
        LabelFileError: if no columns are known to hold these, or a row lacks one.
    """
    problems = [f"{table.source}:{problem.line}: {problem.message}" for problem in table.problems]
    of_name, of_label = _find_columns(table)
    names, found = table.texts(of_name), table.texts(of_label)
    rows = list(range(len(table)))
    headings = [column.strip().lower() for column in table.columns]
    if "split" in headings:
        rows = _keep_training_part(
            rows, table.texts(headings.index("split")).tolist(), table.source
        )
    labels: dict[str, str] = {}
    for row in rows:
        image, label = unguard_formula(names[row]), unguard_formula(found[row]).strip()
        place = f"{table.source}:{table.lines[row]}"
        if not (image.strip() and label):
            problems.append(f"{place}: expected a name and a label, got an empty one")
        elif labels.setdefault(image, label) != label:
            problems.append(
                f'{place}: expected one label for "{image}", got "{labels[image]}" before and '
                f'"{label}" here'
            )
    if problems:
        raise LabelFileError(describe_problems(problems))
    if not labels:
        raise LabelFileError(f"{table.source}: expected rows below the heading, got none")
    return labels


def has_label_heading(text: str) -> bool:
    """Return whether the first line of a text names a column of images and one of labels."""
    return any(None not in _by_heading(found) for found in _cut_heading(text).values())


def _find_columns(table: FileTable) -> tuple[int, int]:
    """Return the places of the columns of names and of labels."""
    if table.columns:
        of_name, of_label = _by_heading(table.columns)
        if of_name is not None and of_label is not None:
            return of_name, of_label
        raise LabelFileError(
            f"{table.source}:1: expected a heading with the columns name and label, or words for "
            f"them that are known, got {shorten_line(','.join(table.columns))}"
        )
    files = [
        place
        for place in range(len(table.cells))
        if all(Path(cell).suffix.lower() in IMAGE_SUFFIXES for cell in table.texts(place))
    ]
    if len(table.cells) != 2 or len(files) != 1 or not len(table):
        shown = ",".join(cells[0] for cells in table.cells) if len(table) else ""
        raise LabelFileError(
            f"{table.source}:1: expected a heading with the columns name and label, or two columns "
            f"of which one has names of image files, got {shorten_line(shown)}"
        )
    logger.info(
        "%s: the labels are in the other column than %s.", table.source, table.cells[files[0]][0]
    )
    return files[0], 1 - files[0]


def _by_heading(columns: Sequence[str]) -> tuple[int | None, int | None]:
    """Return the places of the columns of names and of labels, None where there is none."""
    words = [column.strip().lower().replace(" ", "_") for column in columns]
    name = next((words.index(word) for word in _NAME_WORDS if words.count(word) == 1), None)
    label = next((words.index(word) for word in _LABEL_WORDS if words.count(word) == 1), None)
    return name, label


def _cut_heading(text: str) -> dict[str, list[str]]:
    """Return separator -> the fields of the first line, where it can be cut there."""
    first = text.partition("\n")[0]
    cut = {}
    for separator in SEPARATORS:
        with suppress(ValueError):
            cut[separator] = split_csv_line(first, separator)
    return cut


def _table_of_csv(text: str, name: str) -> FileTable:
    cut = _cut_heading(text)
    known = [separator for separator, found in cut.items() if None not in _by_heading(found)]
    wide = [separator for separator, found in cut.items() if len(found) > 1]
    if not known and not wide:
        lines = enumerate(text.split("\n"), 1)
        return table_of_lines(lines, split_line, (), name)
    separator = (known or wide)[0]
    fields = cut[separator]
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
    is_row = not known and any(Path(field).suffix.lower() in IMAGE_SUFFIXES for field in fields)
    columns: Sequence[str] = () if is_row else next(rows)
    kept, numbers, problems = [], [], []
    for row in _whole_rows(rows, name):
        if not any(field.strip() for field in row):
            continue
        if len(row) != len(fields):
            message = f"expected {len(fields)} columns, got {len(row)}"
            problems.append(LineProblem(rows.line_num, message))
            continue
        kept.append(row)
        numbers.append(rows.line_num)
    cells = [np.array([row[place] for row in kept], dtype=object) for place in range(len(fields))]
    return FileTable(tuple(columns), tuple(cells), np.array(numbers, np.int64), name, problems)


def _read_coco(data: bytes, name: str) -> dict[str, str] | None:
    """Return the labels of COCO's JSON; None of any other.

    Raises:
        LabelFileError: if an image has several classes, or the file is not whole.
    """
    try:
        found = json.loads(data)
    except ValueError:
        return None
    if not isinstance(found, dict) or not {"images", "annotations", "categories"} <= set(found):
        return None
    try:
        names = {image["id"]: image["file_name"] for image in found["images"]}
        classes = {category["id"]: str(category["name"]) for category in found["categories"]}
        pairs = [(each["image_id"], each["category_id"]) for each in found["annotations"]]
        labels: dict[str, str] = {}
        for image, label in pairs:
            if labels.setdefault(names[image], classes[label]) != classes[label]:
                raise LabelFileError(
                    f"{name}: expected one class for each image, {names[image]} has "
                    f"{labels[names[image]]} and {classes[label]}"
                )
    except (LookupError, TypeError) as error:
        raise LabelFileError(
            f"{name}: expected COCO's images, categories and annotations"
        ) from error
    return labels


def _whole_rows(rows: Any, name: str) -> Iterator[list[str]]:
    """Yield rows of a `csv.reader`, whose quoted fields may have line ends, while they end."""
    try:
        yield from rows
    except csv.Error as error:
        raise LabelFileError(
            f"{name}:{rows.line_num}: expected fields of at most {csv.field_size_limit():,} "
            "characters. Is a quote left open?"
        ) from error

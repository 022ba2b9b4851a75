"""Class labels: which class each image is of, from a table or from a folder per class."""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any, BinaryIO, cast

import numpy as np
import pandas as pd

from tripletkit.data.columns import FORMS, find_roles
from tripletkit.data.decoding import IMAGE_SUFFIXES
from tripletkit.data.images import PathLike, is_path, list_images, open_usable_images
from tripletkit.data.outputs import as_one_run
from tripletkit.data.tables import FileTable, open_table, place_problems
from tripletkit.data.text_files import FileRecord, shorten_line
from tripletkit.errors import (
    DataWarning,
    LabelFileError,
    TripletFileError,
    caution,
    describe_problems,
)

_PARTS = {
    "train": {"train", "training", "trn"},
    "val": {"val", "valid", "validation", "dev"},
    "test": {"test", "testing", "tst", "eval", "evaluation", "gallery", "query"},
}
# `train_set`, `test1`
_BESIDE_PART = re.compile(r"[\W_]*(set|split|data|images)?[\W_\d]*$")

logger = logging.getLogger("tripletkit")

# Stands for the class of an image that has no label.
NO_LABEL = -1


class ClassLabels(dict[str, str]):
    """Name -> class, in the order of the file; of a data set in parts, of its training part.

    Attributes:
        parts: the same of its parts `val` and `test`; empty where it has none.
        record: what was read.
    """

    def __init__(
        self, of_name: dict[str, str], parts: dict[str, dict[str, str]], record: FileRecord
    ) -> None:
        super().__init__(of_name)
        self.parts, self.record = parts, record


# What the public functions take for labels.
LabelsLike = PathLike | BinaryIO | Mapping[str, str] | pd.Series | pd.DataFrame


@dataclass(frozen=True)
class ImageLabels:
    """The classes, sorted, and of each name its index, `(n_names,)` int32, or `NO_LABEL`."""

    classes: list[str]
    of_image: np.ndarray

    @classmethod
    def of_names(cls, names: Sequence[str], labels: Mapping[str, str]) -> ImageLabels:
        """Look up the label of every name; classes that none of them has are left out."""
        classes = sorted({labels[name] for name in names if name in labels})
        index_of = {name: index for index, name in enumerate(classes)}
        found = [index_of.get(labels.get(name, ""), NO_LABEL) for name in names]
        return cls(classes, np.array(found, dtype=np.int32))

    @classmethod
    def of_files(
        cls,
        names: Sequence[str],
        paths: Sequence[Path | None],
        labels: Mapping[str, str],
        folder: Path | None,
    ) -> ImageLabels:
        """Find the label of every image, however its name is spelt; others are passed over."""
        others = sorted(set(labels).difference(names))
        located = [] if folder is None else open_usable_images(folder, others).paths
        of_path = {path: labels[name] for name, path in zip(others, located, strict=False) if path}
        by_path = {
            name: of_path[path]
            for name, path in zip(names, paths, strict=True)
            if path is not None and path in of_path
        }
        return cls.of_names(names, {**by_path, **labels})

    def groups(self) -> np.ndarray:
        """Return `(n_names,)` integers: the class of each name, or one of its own."""
        if not self.classes:
            raise LabelFileError("expected `groups` of the images, got none of their names")
        own = len(self.classes) + np.arange(len(self.of_image))
        return np.where(self.of_image == NO_LABEL, own, self.of_image)

    def merge(self, same_as: np.ndarray, names: Sequence[str]) -> ImageLabels:
        """Give all names of one image (`first_of_same`) the label that one of them has."""
        of_image = np.full(len(same_as), NO_LABEL, dtype=np.int32)
        problems = []
        for name in np.flatnonzero(self.of_image != NO_LABEL).tolist():
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


# Where it stands, name, label, and the part of the data set or nothing.
_Row = tuple[str, Any, Any, str]


@as_one_run
def read_labels(
    given: LabelsLike, images: PathLike | None = None, *, columns: Mapping[str, str] | None = None
) -> ClassLabels:
    """Read the class labels of images: name -> class, for all that takes `labels`.

    Args:
        given: a table with a column of images (`name`, `file_name`, `path`, ...) and one of classes
            (`label`, `class`, ...) as CSV, TSV, JSON lines, JSON, Parquet or DataFrame; two columns
            without a heading, of which one has names of image files; COCO's JSON; a folder with a
            subfolder for each class, also below `train`, `val` and `test`; a Series or a mapping
            by name. A column `split` has the parts.
        images: folder of the images, for a folder of classes. Defaults to the current one.
        columns: which columns hold the `name` and the `label`, by their headings or numbers from
            1, where their headings do not say it.
    Returns:
        `ClassLabels`, a mapping; `parts` has the labels of a data set's `val` and `test`.
    Raises:
        LabelFileError: if it is no such thing, or gives a name two labels.
    Example:
        `tk.train(None, "images/", labels=tk.read_labels("birds.csv", columns={"label": "kind"}))`
    """
    if isinstance(given, ClassLabels):
        return given
    path = Path(given) if is_path(given) else None
    problems: list[str] = []
    if path is not None and path.is_dir():
        source, rows = str(path), _rows_of_folder(path, Path(images or ""))
    elif isinstance(given, Mapping | pd.Series):
        source = "the labels"
        rows = [(source, name, label, "") for name, label in given.items()]
    else:
        try:
            table, _ = open_table(path or cast(BinaryIO | pd.DataFrame, given), "labels", columns)
            rows = _rows_of_table(table, columns or {})
        except TripletFileError as error:
            raise LabelFileError(str(error)) from error
        source, problems = table.source, place_problems(table.problems, table.source)
    parts = _gather(rows, source, problems)
    labels = sorted(pair for part in parts.values() for pair in part.items())
    text = json.dumps(labels, ensure_ascii=False, separators=(",", ":"))
    digest = hashlib.sha256(text.encode("utf-8", errors="surrogateescape")).hexdigest()
    read_as = (("columns", json.dumps(dict(columns))),) if columns else ()
    record = FileRecord(source, None if path is None else str(path.absolute()), digest, read_as)
    return ClassLabels(parts.pop("train"), parts, record)


def _gather(rows: Iterable[_Row], source: str, problems: list[str]) -> dict[str, dict[str, str]]:
    """Return the labels of each part, or refuse rows that say nothing or two things."""
    labels: dict[str, str] = {}
    part_of: dict[str, str] = {}
    for place, name, label, part in rows:
        if not isinstance(name, str) or pd.isna(label) or not (name.strip() and str(label).strip()):
            problems.append(f"{place}: expected a name and a label, got {name!r} and {label!r}")
        elif labels.setdefault(name, str(label)) != str(label):
            problems.append(
                f'{place}: expected one label for "{name}", got "{labels[name]}" and "{label}"'
            )
        part_of.setdefault(name, part)
    if problems:
        raise LabelFileError(describe_problems(problems))
    if not labels:
        raise LabelFileError(f"{source}: expected rows below the heading, got none")
    others = Counter(part for part in part_of.values() if _part_of(part) != "train")
    if len(part_of) == others.total():
        if len(others) > 1:
            caution(
                f"{source}: no part of the column split is called train, so all are learned from: "
                f"{', '.join(sorted(others))}",
                DataWarning,
            )
        return {"train": labels, "val": {}, "test": {}}
    if others:
        logger.info(
            "%s: the labels of its training part are taken, those of %s only where images are "
            "held out.",
            source,
            ", ".join(f"{part} ({count:,} images)" for part, count in sorted(others.items())),
        )
    return {
        kind: {name: label for name, label in labels.items() if _part_of(part_of[name]) == kind}
        for kind in _PARTS
    }


def _part_of(text: str) -> str | None:
    """Return which part of a data set a word means; None for other words."""
    word = _BESIDE_PART.sub("", text.strip().casefold())
    return next((part for part, words in _PARTS.items() if word in words), None)


def _rows_of_folder(source: Path, folder: Path) -> list[_Row]:
    try:
        inside = source.resolve().relative_to(folder.resolve())
    except ValueError:
        raise LabelFileError(
            f"{source}: expected a folder inside the image folder {folder}, or that folder itself"
        ) from None
    levels = [name.split("/") for name in list_images(source) if "/" in name]
    if not levels:
        raise LabelFileError(
            f"{source}: expected a subfolder of images for each class, got none. "
            "Or give a CSV with the columns name and label."
        )
    if has_parts := all(len(each) > 2 and _part_of(each[0]) for each in levels):
        logger.info(
            "%s: %s are parts, so the classes are the folders below them.",
            source,
            ", ".join(sorted({each[0] for each in levels})),
        )
    return [
        (str(source), inside.joinpath(*each).as_posix(), each[has_parts], each[0] * has_parts)
        for each in levels
    ]


def _rows_of_table(table: FileTable, columns: Mapping[str, str]) -> list[_Row]:
    of_name, of_label = _find_columns(table, columns)
    if any(isinstance(cell, dict | bytes) for cell in table.cells[of_name][:1]):
        raise LabelFileError(
            f"{table.source}: expected names of images, the column {table.columns[of_name]} holds "
            "images themselves. Write these to files, and their names beside the labels."
        )
    headings = [column.strip().lower() for column in table.columns]
    parts = table.texts(headings.index("split")) if "split" in headings else [""] * len(table)
    for place, heading in enumerate(table.columns):
        values = pd.unique(pd.Series(table.texts(place)))
        is_other = place not in (of_name, of_label) and "split" not in headings
        if is_other and len(values) > 1 and all(map(_part_of, values)):
            caution(
                f'{table.source}: the column "{heading}" seems to say which images are held out, '
                "and is not read: all are learned from. Call it split to train by it",
                DataWarning,
            )
    return [
        (f"{table.source}:{line}", name, label.strip(), part)
        for line, name, label, part in zip(
            table.lines, table.texts(of_name), table.texts(of_label), parts, strict=True
        )
    ]


def _find_columns(table: FileTable, columns: Mapping[str, str]) -> tuple[int, int]:
    """Return the places of the columns of names and of labels."""
    files = [place for place in range(len(table.cells)) if table.has_files(place)]
    stems = {PurePath(text).stem for place in files for text in table.texts(place)}

    def names_images(place: int) -> bool:
        """Return whether a column has files, or what files beside it are called."""
        return place in files or {*table.texts(place)} <= stems

    try:
        roles = find_roles(table.headings, "labels", columns, names_images)
    except ValueError as error:
        raise LabelFileError(f"{table.source}: {error}") from error
    if roles is not None and roles.answer is not None:
        if len(table.headings) > 2:
            of_name, of_label = (table.headings[place] for place in (*roles.names, roles.answer))
            logger.info(
                "%s: images from column `%s`, labels from `%s`.", table.source, of_name, of_label
            )
        return roles.names[0], roles.answer
    files = [
        place
        for place in range(len(table.cells))
        if all(Path(cell).suffix.lower() in IMAGE_SUFFIXES for cell in table.texts(place))
    ]
    if table.columns or columns or len(table.cells) != 2 or len(files) != 1 or not len(table):
        shown = table.columns or [cells[0] for cells in table.cells if len(table)]
        raise LabelFileError(
            f"{table.source}:1: expected {FORMS['labels'].expected}, or words for them that are "
            "known, or two columns of which one has names of image files, got "
            f"{shorten_line(','.join(map(str, shown)))}. Say with `columns` which they are, such "
            "as name=path,label=species."
        )
    logger.info(
        "%s: the labels are in the other column than %s.", table.source, table.cells[files[0]][0]
    )
    return files[0], 1 - files[0]

"""What the public functions take: files, tables, arrays, or what they themselves return."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from io import IOBase
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, cast

import numpy as np
import pandas as pd

from tripletkit.data.judgements import JudgementsLike
from tripletkit.data.judgements import read_labels as read_truth_labels
from tripletkit.data.labels import read_classes, read_labels, take_label_table
from tripletkit.data.tables import table_of_frame
from tripletkit.data.triplets import Triplets
from tripletkit.errors import LabelFileError, TripletFileError
from tripletkit.evaluation.answers import Answers, read_answers

if TYPE_CHECKING:
    from typing_extensions import TypeIs

PathLike = str | os.PathLike[str]
TripletsLike = JudgementsLike
AnswersLike = PathLike | BinaryIO | Answers | np.ndarray | Sequence[int]
LabelsLike = PathLike | BinaryIO | Mapping[str, str] | pd.Series | pd.DataFrame


def is_path(value: Any) -> TypeIs[PathLike]:
    """Return whether a value names a file or a folder."""
    return isinstance(value, (str, os.PathLike))


def given_weights(
    weights: PathLike | Mapping[str | None, PathLike] | Mapping[str, PathLike] | None,
) -> dict[str | None, Path]:
    """Return name of a backbone -> weights file; None stands for the only one."""
    if weights is None:
        return {}
    if isinstance(weights, Mapping):
        return {name: Path(file) for name, file in weights.items()}
    return {None: Path(weights)}


def take_rows(value: Triplets | np.ndarray | Sequence[Sequence[int]]) -> np.ndarray:
    """Return `(n_triplets, 3)` integers, indices of images.

    Raises:
        TripletFileError: if they are no such array.
    """
    rows = value.rows if isinstance(value, Triplets) else np.asarray(value)
    if rows.ndim != 2 or rows.shape[1] != 3 or not np.issubdtype(rows.dtype, np.integer):
        raise TripletFileError(
            "expected integer triplets of the shape (n_triplets, 3), got "
            f"{rows.dtype} of the shape {rows.shape}"
        )
    return rows


def take_answers(value: AnswersLike, source: str = "the answers") -> Answers:
    """Return answers, whatever they come as: a file, `Answers`, or 1 and 0 for each triplet.

    Args:
        source: what to call those that are not from a file in messages.
    Raises:
        AnswerFileError: if they cannot be read, or are other than 1 and 0.
    """
    if isinstance(value, Answers):
        return value
    if is_path(value):
        return read_answers(Path(value))
    if isinstance(value, IOBase):
        return read_answers(cast(BinaryIO, value))
    return Answers(read_truth_labels(cast(Any, value), source), None, None, source)


def take_labels(value: LabelsLike, images: Path = Path()) -> dict[str, str]:
    """Return the label of each name.

    Args:
        value: a CSV with the columns name and label, a folder with a subfolder for each class, a
            table with these columns, a Series by name, or a mapping.
        images: folder of the images, for a folder with subfolders. Defaults to the current one.
    Raises:
        LabelFileError: if they cannot be read, or one is not text.
    """
    if is_path(value):
        return read_classes(Path(value), images)
    if isinstance(value, IOBase):
        return read_labels(cast(BinaryIO, value))
    if isinstance(value, pd.DataFrame):
        return take_label_table(table_of_frame(value))
    pairs = cast(Mapping[str, str], value).items()
    labels: dict[str, str] = {}
    for name, label in pairs:
        if not isinstance(name, str) or pd.isna(label):
            raise LabelFileError(f"expected names as text with a label each, got {name!r}: {label}")
        if labels.setdefault(name, str(label)) != str(label):
            raise LabelFileError(
                f'expected one label for "{name}", got "{labels[name]}" and "{label}"'
            )
    return labels

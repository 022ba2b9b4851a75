"""What the public functions take: files, tables, arrays, or what they themselves return."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from io import IOBase
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypedDict, cast

import numpy as np

from tripletkit.data.judgements import JudgementsLike
from tripletkit.data.judgements import read_labels as read_truth_labels
from tripletkit.data.labels import LabelsLike as LabelsLike
from tripletkit.data.labels import label_files, open_labels
from tripletkit.data.triplets import Triplets
from tripletkit.errors import TripletFileError
from tripletkit.evaluation.answers import Answers, read_answers

if TYPE_CHECKING:
    from typing_extensions import TypeIs

PathLike = str | os.PathLike[str]
TripletsLike = JudgementsLike
AnswersLike = PathLike | BinaryIO | Answers | np.ndarray | Sequence[int]
WeightsLike = PathLike | Mapping[str, PathLike] | Mapping[str | None, PathLike]


class EncoderOptions(TypedDict, total=False):
    """How the features of a backbone are taken; see `tripletkit.pretrained`."""

    weights: WeightsLike | None
    views: Sequence[str]
    image_size: int | None
    depth: str
    preprocess: str | None
    backbone_output: str | None


def is_path(value: Any) -> TypeIs[PathLike]:
    """Return whether a value names a file or a folder."""
    return isinstance(value, (str, os.PathLike))


def take_encoder_options(options: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Divide keyword arguments into how the features of a backbone are taken, and all others."""
    taken = {name: each for name, each in options.items() if name in EncoderOptions.__annotations__}
    others = {name: each for name, each in options.items() if name not in taken}
    if "weights" in taken:
        taken["weights"] = given_weights(taken["weights"])
    if "views" in taken:
        taken["views"] = tuple(taken["views"])
    return taken, others


def as_path(given: PathLike | None) -> Path | None:
    """Return the path that is given, if one is."""
    return None if given is None else Path(given)


def given_weights(weights: WeightsLike | None) -> dict[str | None, Path]:
    """Return name of a backbone -> weights file; None stands for the only one."""
    if isinstance(weights, Mapping):
        return {name: Path(file) for name, file in weights.items()}
    return {} if weights is None else {None: Path(weights)}


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


def group_images(groups: LabelsLike | None, names: Sequence[str]) -> np.ndarray | None:
    """Return `(n_names,)` integers: the group of each image; None where none are given."""
    if groups is None:
        return None
    return label_files(names, [None] * len(names), open_labels(groups), None).groups()

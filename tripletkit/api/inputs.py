"""What the public functions take: files, tables, arrays, or what they themselves return."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from tripletkit.data.labels import COLUMNS as LABEL_COLUMNS
from tripletkit.data.labels import read_classes
from tripletkit.data.triplet_files import read_triplets
from tripletkit.data.triplet_layout import VOTE_COLUMNS
from tripletkit.data.triplets import Triplets
from tripletkit.data.votes import Votes, VotesFile, read_votes
from tripletkit.errors import AnswerFileError, LabelFileError, TripletFileError, VoteFileError
from tripletkit.evaluation.answers import Answers, Truth, read_answers, read_truth

if TYPE_CHECKING:
    from typing_extensions import TypeIs

PathLike = str | os.PathLike[str]
TripletsLike = PathLike | Triplets | pd.DataFrame | np.ndarray | Sequence[Sequence[int]]
AnswersLike = PathLike | Answers | np.ndarray | Sequence[int]
TruthLike = PathLike | Truth | np.ndarray | Sequence[int]
LabelsLike = PathLike | Mapping[str, str] | pd.Series | pd.DataFrame
VotesLike = PathLike | Votes | pd.DataFrame | np.ndarray


def is_path(value: Any) -> TypeIs[PathLike]:
    """Return whether a value names a file or a folder."""
    return isinstance(value, (str, os.PathLike))


def given_weights(
    weights: PathLike | Mapping[str, PathLike] | None,
) -> dict[str | None, Path]:
    """Return name of a backbone -> weights file; None stands for the only one."""
    if weights is None:
        return {}
    if isinstance(weights, Mapping):
        return {name: Path(file) for name, file in weights.items()}
    return {None: Path(weights)}


def take_triplets(value: TripletsLike, names: Sequence[str] | None = None) -> Triplets:
    """Return triplets, whatever they come as.

    Args:
        value: a triplet file, a table (`Triplets.from_frame`), `Triplets`, or integer rows.
        names: of the images that integer rows are indices of.
    Raises:
        TripletFileError: if they cannot be read.
    """
    if isinstance(value, Triplets):
        return value
    if is_path(value):
        return read_triplets(Path(value))
    if isinstance(value, pd.DataFrame):
        return Triplets.from_frame(value)
    if names is None:
        raise TripletFileError(
            f"expected a path, a DataFrame or Triplets, got {type(value).__name__} without "
            "`names`. Give the names of the images that its numbers are indices of."
        )
    return Triplets.from_array(np.asarray(value), names)


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


def take_truth(value: TruthLike) -> Truth:
    """Return a truth, whatever it comes as: a file, `Truth`, or 1 and 0 for each triplet.

    Raises:
        AnswerFileError: if it cannot be read, or is other than 1 and 0.
    """
    if isinstance(value, Truth):
        return value
    if is_path(value):
        return read_truth(Path(value))
    return Truth(_zeros_and_ones(value, "the truth"), "the truth")


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
    return Answers(_zeros_and_ones(value, source), None, None, source)


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
    if isinstance(value, pd.DataFrame):
        by_name = {str(label).strip().lower(): label for label in value.columns}
        if not set(LABEL_COLUMNS) <= set(by_name):
            raise LabelFileError(
                f"expected a table with the columns {' and '.join(LABEL_COLUMNS)}, got "
                f"{', '.join(map(str, value.columns))}"
            )
        names, of_names = (value[by_name[column]] for column in LABEL_COLUMNS)
        pairs = list(zip(names, of_names, strict=True))
    else:
        pairs = list(value.items())
    labels: dict[str, str] = {}
    for name, label in pairs:
        if not isinstance(name, str) or pd.isna(label):
            raise LabelFileError(f"expected names as text with a label each, got {name!r}: {label}")
        if labels.setdefault(name, str(label)) != str(label):
            raise LabelFileError(
                f'expected one label for "{name}", got "{labels[name]}" and "{label}"'
            )
    return labels


def take_votes(value: VotesLike, triplets: Triplets) -> Votes:
    """Return the votes on triplets.

    Args:
        value: a votes file, `Votes`, a table with the columns votes_b and votes_c, numbers of the
            shape (n_triplets, 2), or shares for the first image, (n_triplets,).
        triplets: that they are on, in the same order.
    Raises:
        VoteFileError: if they cannot be read, or are on other triplets.
    """
    if is_path(value):
        read = read_votes(Path(value))
        read.check_questions(triplets)
        return read.votes
    votes = value if isinstance(value, Votes) else _votes_of_numbers(value)
    VotesFile(votes, None, "the votes").check_length(len(triplets), triplets.source)
    return votes


def _votes_of_numbers(value: pd.DataFrame | np.ndarray) -> Votes:
    if isinstance(value, pd.DataFrame):
        if not set(VOTE_COLUMNS) <= set(value.columns):
            raise VoteFileError(
                f"expected a table with the columns {' and '.join(VOTE_COLUMNS)}, got "
                f"{', '.join(map(str, value.columns))}"
            )
        value = value[list(VOTE_COLUMNS)]
    numbers = np.asarray(value, dtype=np.float64)
    if numbers.ndim == 1:
        if not ((numbers >= 0) & (numbers <= 1)).all():
            raise VoteFileError("expected shares from 0 to 1 for the first image, got others")
        return Votes.of_shares(numbers)
    if numbers.ndim != 2 or numbers.shape[1] != 2:
        raise VoteFileError(
            "expected votes of the shape (n_triplets, 2), or shares of the shape (n_triplets,), "
            f"got {numbers.shape}"
        )
    if not ((numbers >= 0).all() and np.isfinite(numbers).all() and numbers.any(axis=1).all()):
        raise VoteFileError("expected numbers of votes, 0 or more and not both 0, got others")
    return Votes(*numbers.T.copy())


def _zeros_and_ones(value: Any, source: str) -> np.ndarray:
    values = np.asarray(value)
    if values.ndim != 1 or not len(values) or not np.isin(values, (0, 1)).all():
        shown = f"{values.dtype} of the shape {values.shape}"
        raise AnswerFileError(f"{source}: expected 1 or 0 for each triplet, got {shown}")
    return values.astype(np.int8)

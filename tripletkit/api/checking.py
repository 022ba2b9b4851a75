"""Triplets before any model: read, looked at for faults, and divided."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from tripletkit import defaults
from tripletkit.api.inputs import PathLike, TripletsLike
from tripletkit.data.audit.triplet_audit import Audit, audit_triplets
from tripletkit.data.judgements import open_judgements
from tripletkit.data.splits.policies import split_triplets
from tripletkit.data.splits.split_files import SplitPrice, price_split
from tripletkit.data.triplets import Triplets
from tripletkit.data.truth import Truth, open_truth
from tripletkit.evaluation import answers as answer_files
from tripletkit.evaluation.answers import Answers
from tripletkit.progress import Progress, no_progress


class SplitTriplets(NamedTuple):
    """Triplets divided in two.

    Attributes:
        train, val: over the same names.
        cost: what was kept and dropped, and how well the validation triplets can tell models
            apart.
    """

    train: Triplets
    val: Triplets
    cost: SplitPrice


def read_triplets(path: PathLike) -> Triplets:
    """Read a triplet file, or refuse it with every bad line counted.

    Args:
        path: three names a line, or a CSV with a heading.
    Returns:
        `Triplets`: distinct `names`, and `rows` of indices into them.
    Raises:
        TripletFileError: if a line is not three names, or there is none.
    """
    return open_judgements(path).triplets


def read_truth(path: PathLike) -> Truth:
    """Read a truth file: one 0 or 1 a line, or a CSV with the column label, truth or prediction.

    Args:
        path: the file.
    Returns:
        A `Truth`, whose `labels` are 1 where the first image is the nearer one.
    Raises:
        AnswerFileError: if it is no such file.
    """
    return open_truth(path)[0]


def read_answers(path: PathLike) -> Answers:
    """Read an answer file: a CSV with the column prediction, or one 0 or 1 a line.

    Args:
        path: the file.
    Returns:
        `Answers`, with the questions and margins that the file holds.
    Raises:
        AnswerFileError: if it is no such file.
    """
    return answer_files.read_answers(Path(path))


def audit(
    triplets: TripletsLike,
    images: PathLike | None = None,
    *,
    against: Sequence[TripletsLike] = (),
    answered: bool = True,
    n_examples: int = defaults.AUDIT_EXAMPLES,
    follow_outside: bool = False,
    progress: Progress = no_progress,
) -> Audit:
    """Look for faults in triplets and their images, without a model.

    Args:
        triplets: a triplet file, of which lines that cannot be read are counted; a table, or
            `Triplets`.
        images: folder of the images. Defaults to `None`, which looks at none.
        against: triplets that should have nothing in common with these, such as those of the test.
        answered: the second column is the nearer one. Defaults to `True`; without it nothing is
            said of contradictions, cycles and the roles of pairs.
        n_examples: how many examples to give of each kind. Defaults to `3`.
        follow_outside: allow names and links that lead out of the image folder.
        progress: told (done, total) images.
    Returns:
        An `Audit`; its `findings()` are the faults.
    Raises:
        TripletFileError: if there is no triplet at all.
        ImageNameError: if there is no such folder.
    """
    judgements = open_judgements(triplets, with_problems=True)
    return audit_triplets(
        judgements,
        [open_judgements(other, with_problems=True) for other in against],
        None if images is None else Path(images),
        is_answered=answered,
        n_examples=n_examples,
        follow_outside=follow_outside,
        progress=progress,
    )


def split(
    triplets: TripletsLike,
    by: str = defaults.SPLIT_POLICIES[0],
    *,
    val_fraction: float = defaults.VAL_FRACTION,
    seed: int = defaults.SEED,
) -> SplitTriplets:
    """Divide triplets into training and validation so that the score can be believed.

    Args:
        triplets: a triplet file, a table, or `Triplets`: anchor, positive, negative.
        by: what both sides must not share: `"image"`, which drops triplets that mix the sides;
            `"component"`, no pair of images; or `"random"`, which remembering can solve. Defaults
            to `"image"`.
        val_fraction: share of the triplets for validation, by image of the images. Defaults to
            `0.2`.
        seed: of every choice by chance. Defaults to `0`.
    Returns:
        `train, val, cost`.
    Raises:
        SplitError: if one side would be empty; the message says what to try.
    """
    whole = open_judgements(triplets).decided().triplets
    found = split_triplets(whole, by, val_fraction, seed)
    cost = price_split(whole, found)
    return SplitTriplets(whole.take(found.train_rows), whole.take(found.val_rows), cost)

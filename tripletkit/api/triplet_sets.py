"""Triplets before any model: read, looked at for faults, and divided."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple, overload

import numpy as np
import pandas as pd

from tripletkit import defaults
from tripletkit.api.given import LabelsLike, PathLike, TripletsLike
from tripletkit.data.audit.triplet_audit import Audit, audit_triplets
from tripletkit.data.images import ImagesLike, open_images, refuse_folder_of
from tripletkit.data.judgements import read_judgements
from tripletkit.data.labels import ImageLabels, read_labels
from tripletkit.data.outputs import Outputs, as_one_run
from tripletkit.data.splits.policies import (
    Split,
    SplitPrice,
    check_split_folder,
    split_triplets,
    write_splits,
)
from tripletkit.data.triplets import Triplets
from tripletkit.errors import DataWarning, LeakageWarning, SettingsError, caution
from tripletkit.progress import Stages, open_stages
from tripletkit.registry import check_numbers
from tripletkit.results import Result, Section, Table

logger = logging.getLogger("tripletkit")


class _TrainAndVal(NamedTuple):
    train: Triplets
    val: Triplets
    cost: SplitPrice


class SplitTriplets(Result, _TrainAndVal):
    """Triplets divided in two; `train, val, cost = tk.split(...)` takes the parts.

    `train` and `val` are over the same names, `cost` is what was kept and dropped, and how well the
    validation triplets can tell models apart; `by` is what the two do not share, `seed` that of
    every choice by chance.
    """

    by: str
    seed: int

    def to_dict(self) -> dict[str, Any]:
        """Return what it costs, as JSON takes it."""
        return {"source": self.train.source, "by": self.by, "seed": self.seed} | asdict(self.cost)

    def _summary(self) -> str:
        return f"by {self.by}, {self.cost._summary()}"

    def _sections(self) -> list[Section]:
        return self.cost._sections()


class FoldedTriplets(Result, tuple[SplitTriplets, ...]):
    """Several divisions of the same triplets, each validating on another part."""

    __slots__ = ()

    def to_dict(self) -> dict[str, Any]:
        """Return what each of them costs, as JSON takes it."""
        about = {"source": self[0].train.source, "by": self[0].by, "seed": self[0].seed}
        return about | {"folds": [asdict(each.cost) for each in self]}

    def to_frame(self) -> pd.DataFrame:
        """Return a table with a row for each fold, and what it costs."""
        return pd.DataFrame([asdict(each.cost) for each in self])

    def _summary(self) -> str:
        return f"{len(self)} folds by {self[0].by}, the first: {self[0].cost._summary()}"

    def _sections(self) -> list[Section]:
        return [
            [f"fold {number}", *section]
            for number, each in enumerate(self, 1)
            for section in each._sections()
        ]

    def _notebook_sections(self) -> list[Section]:
        rows = [["fold", "for training", "for validation", "dropped", "known to"]]
        for number, (_, _, cost) in enumerate(self, 1):
            counts = [f"{n:,}" for n in (cost.n_train, cost.n_val, cost.n_dropped)]
            rows.append([str(number), *counts, f"±{100 * cost.half_width:.1f} points at best"])
        return [[Table(rows, right=range(4))]]


@as_one_run
def audit(
    triplets: TripletsLike,
    images: ImagesLike | None = None,
    *,
    against: Sequence[TripletsLike] = (),
    unanswered: bool = False,
    examples: int = defaults.AUDIT_EXAMPLES,
    progress: bool | Stages | None = None,
) -> Audit:
    """Look for faults in triplets and their images, without a model.

    Args:
        triplets: a triplet file, of which lines that cannot be read are counted; a table, or
            `Triplets`.
        images: folder of the images, or `Images`. Defaults to `None`, which looks at none.
        against: triplets that should have nothing in common with these, such as those of the test.
        unanswered: second and third images stand in chance order, so that nothing is said of
            contradictions, cycles and the roles of pairs.
        examples: how many examples to give of each kind.
        progress: see `train`.
    Returns:
        An `Audit`; its `findings()` are the faults.
    Raises:
        TripletFileError: if there is no triplet at all.
        ImageNameError: if there is no such folder.
    """
    judgements = read_judgements(triplets, with_problems=True)
    others = [read_judgements(other, with_problems=True) for other in against]
    found = None if images is None else open_images(images)
    with open_stages(progress) as stages:
        return audit_triplets(
            judgements,
            others,
            found,
            is_answered=not unanswered and judgements.triplets.is_answered is not False,
            n_examples=examples,
            progress=stages("images"),
        )


@overload
def split(
    triplets: TripletsLike,
    by: str = ...,
    *,
    val_fraction: float | None = ...,
    groups: LabelsLike | None = ...,
    folds: None = ...,
    seed: int = ...,
    output: PathLike | None = ...,
    overwrite: bool = ...,
) -> SplitTriplets: ...


@overload
def split(
    triplets: TripletsLike,
    by: str = ...,
    *,
    val_fraction: float | None = ...,
    groups: LabelsLike | None = ...,
    folds: int,
    seed: int = ...,
    output: PathLike | None = ...,
    overwrite: bool = ...,
) -> FoldedTriplets: ...


@as_one_run
def split(
    triplets: TripletsLike,
    by: str = defaults.SPLIT_POLICIES[0],
    *,
    val_fraction: float | None = None,
    groups: LabelsLike | None = None,
    folds: int | None = None,
    seed: int = defaults.SEED,
    output: PathLike | None = None,
    overwrite: bool = False,
) -> SplitTriplets | FoldedTriplets:
    """Divide triplets into training and validation so that the score can be believed.

    Args:
        triplets: a triplet file, a table, or `Triplets`: anchor, positive, negative.
        by: what both sides must not share: `"image"`, which drops triplets that mix the sides;
            `"component"`, no pair of images; or `"random"`, which remembering can solve.
        val_fraction: share of the triplets for validation, by image of the images. Defaults to
            `0.2`.
        groups: see `train`: by image a group is on one side as a whole, and `val_fraction` is of
            the groups.
        folds: make so many divisions, each validating on another part. Defaults to one division.
        seed: of every choice by chance.
        output: folder to write train.txt, val.txt, val_truth.csv and val_triplets.txt to.
        overwrite: replace such files that are there.
    Returns:
        `train, val, cost`; with `folds` a tuple of these.
    Raises:
        SplitError: if one side would be empty; the message says what to try.
    """
    check_numbers(2, folds=folds)
    check_numbers(0, seed=seed)
    check_numbers(val_fraction=val_fraction)
    if folds and val_fraction is not None:
        raise SettingsError(
            "folds", "`val_fraction` and `folds` exclude each other: folds are equal."
        )
    outputs = Outputs(overwrite=overwrite)
    if output is not None:
        check_split_folder(Path(output), folds or 1, outputs)
    judgements = read_judgements(triplets).decided()
    whole = judgements.triplets
    if n_degenerate := int(whole.is_degenerate().sum()):
        caution(
            f"{whole.source}: {n_degenerate:,} triplets name one image twice; they are split like "
            "the others. `tripletkit audit` lists them.",
            DataWarning,
        )
    if by == "random":
        caution(
            "a random split can often be solved by remembering the names of pairs, without a "
            "look at an image; `tripletkit audit` tells. Prefer `by=component` or image.",
            LeakageWarning,
        )
    of_image = None
    if groups is not None:
        nowhere = [None] * len(whole.names)
        of_image = ImageLabels.of_files(whole.names, nowhere, read_labels(groups), None).groups()
    share = val_fraction or defaults.VAL_FRACTION
    splits = split_triplets(whole, by, seed, of_image, val_fraction=share, n_folds=folds)
    if judgements.is_random is not None:
        splits = [_validate_on_random(each, judgements.is_random) for each in splits]
        logger.info(
            f"{whole.source}: validation is on the random share alone; questions that a model "
            "chose are for training or dropped."
        )
    if output is not None:
        refuse_folder_of(whole.names, Path(output))
        write_splits(Path(output), whole, splits, seed, outputs)
        logger.info("Wrote %s%s.", output, "/fold1 ..." if folds else "")
    parts = []
    for each in splits:
        sides = whole.take(each.train_rows), whole.take(each.val_rows)
        parts.append(SplitTriplets(*sides, SplitPrice.of(whole, each)))
        parts[-1].by, parts[-1].seed = by, seed
    return FoldedTriplets(parts) if folds else parts[0]


def _validate_on_random(split: Split, is_random: np.ndarray) -> Split:
    """Drop validation rows that a model chose: it finds them hard, so a score would be too low."""
    is_kept = is_random[split.val_rows]
    dropped = np.sort(np.concatenate([split.dropped_rows, split.val_rows[~is_kept]]))
    return replace(split, val_rows=split.val_rows[is_kept], dropped_rows=dropped)

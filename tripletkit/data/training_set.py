"""What a training run learns from and is checked on: two triplet sets over one list of names."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from tripletkit.data.label_triplets import draw_triplets
from tripletkit.data.labels import NO_LABEL, ImageLabels
from tripletkit.data.splits.policies import split_triplets
from tripletkit.data.triplets import Triplets, Votes
from tripletkit.errors import TripletFileError

# Drawn from class labels: so many are gone through in seconds. Those for validation need only be
# enough to tell models apart.
_TRIPLETS_PER_IMAGE = 25
_MAX_DRAWN_TRIPLETS = 200_000
_MAX_DRAWN_VAL_TRIPLETS = 5_000

BY_FILE = "file"
_NO_SPLIT = "none"


@dataclass(frozen=True)
class TrainingSet:
    """Triplets for training and validation, if any, over the same names; no row has one twice."""

    train: Triplets
    val: Triplets
    by: str  # how they were divided: a split policy, `"file"` or `"none"`
    n_dropped: int  # triplets that the split could use on neither side
    n_degenerate: int  # triplets left out as they name an image twice
    labels: ImageLabels | None = None
    train_votes: Votes | None = None
    val_votes: Votes | None = None
    n_tied: int = 0  # triplets left out as people are tied on them
    # Lines of the only training triplets that heads without their images may be scored on: of
    # collected judgements, those drawn by chance. None for all.
    scored_lines: np.ndarray | None = None
    groups: np.ndarray | None = None  # `(n_names,)` integers: what is held out together

    @classmethod
    def divide(
        cls,
        triplets: Triplets,
        by: str,
        val_fraction: float,
        seed: int,
        votes: Votes | None = None,
        groups: np.ndarray | None = None,
    ) -> TrainingSet:
        """Set part of the triplets apart for validation; for a `val_fraction` of 0 none."""
        usable, votes, n_degenerate = _leave_out_degenerate(triplets, votes)
        if val_fraction == 0:
            train_rows, val_rows = np.arange(len(usable)), np.arange(0)
            by, n_dropped = _NO_SPLIT, 0
        else:
            (split,) = split_triplets(usable, by, seed, groups, val_fraction=val_fraction)
            train_rows, val_rows = split.train_rows, split.val_rows
            n_dropped = len(split.dropped_rows)
        return cls(
            usable.take(train_rows),
            usable.take(val_rows),
            by,
            n_dropped,
            n_degenerate,
            train_votes=None if votes is None else votes.take(train_rows),
            val_votes=None if votes is None else votes.take(val_rows),
            groups=groups,
        )

    @classmethod
    def join(
        cls,
        triplets: Triplets,
        val: Triplets,
        votes: Votes | None = None,
        val_votes: Votes | None = None,
    ) -> TrainingSet:
        """Take validation triplets from a file of their own, over the same names."""
        train, votes, n_train = _leave_out_degenerate(triplets, votes)
        val, val_votes, n_val = _leave_out_degenerate(val, val_votes)
        return cls(train, val, BY_FILE, 0, n_train + n_val, train_votes=votes, val_votes=val_votes)

    @classmethod
    def draw(
        cls,
        names: list[str],
        labels: ImageLabels,
        is_held_out: np.ndarray,
        images: np.ndarray,
        source: str,
        seed: int,
    ) -> TrainingSet:
        """Draw triplets of `images` from class labels; of the held-out (a mask) for validation."""
        parts: list[Triplets] = []
        for is_here, most in (
            (~is_held_out, _MAX_DRAWN_TRIPLETS),
            (is_held_out, _MAX_DRAWN_VAL_TRIPLETS),
        ):
            here = images[is_here[images] & (labels.of_image[images] != NO_LABEL)]
            rows = np.empty((0, 3), dtype=np.int32)
            if len(here) or not parts:
                count = min(most, _TRIPLETS_PER_IMAGE * len(here))
                rows = draw_triplets(labels.of_image, count=count, seed=seed, images=here)
            parts.append(Triplets(names, rows, np.arange(1, len(rows) + 1), source))
        by = "class" if is_held_out.any() else _NO_SPLIT
        train, val = parts
        return cls(train, val, by, 0, 0, labels)

    @property
    def is_scored(self) -> np.ndarray | None:
        """`(n_train,)` bool: a score may rest on the training triplet; None for all."""
        if self.scored_lines is None:
            return None
        return np.isin(self.train.lines, self.scored_lines)

    @property
    def names(self) -> list[str]:
        return self.train.names

    def n_shared_images(self) -> int:
        """Return how many images are in both training and validation triplets."""
        return len(np.intersect1d(self.train.rows, self.val.rows))

    def keep_usable(self, is_usable: np.ndarray) -> TrainingSet:
        """Return the set without triplets that have an image that cannot be used."""
        return self._take(*(is_usable[part.rows].all(axis=1) for part in (self.train, self.val)))

    def keep_for_validation(self, is_kept: np.ndarray) -> TrainingSet:
        """Return the set with only some of the validation triplets, `(n_val,)` bool."""
        kept = self._take(np.ones(len(self.train), dtype=bool), is_kept)
        return replace(kept, n_dropped=self.n_dropped + int((~is_kept).sum()))

    def leave_out_ties(self, *, of_training: bool) -> TrainingSet:
        """Leave out tied validation triplets, and with `of_training` those of training."""
        is_kept = [
            np.ones(len(part), dtype=bool) if votes is None or not leaves_out else ~votes.is_tie
            for part, votes, leaves_out in (
                (self.train, self.train_votes, of_training),
                (self.val, self.val_votes, True),
            )
        ]
        n_tied = sum(int((~part).sum()) for part in is_kept)
        return replace(self._take(*is_kept), n_tied=self.n_tied + n_tied)

    def _take(self, is_train: np.ndarray, is_val: np.ndarray) -> TrainingSet:
        return replace(
            self,
            train=self.train.take(is_train),
            val=self.val.take(is_val),
            train_votes=None if self.train_votes is None else self.train_votes.take(is_train),
            val_votes=None if self.val_votes is None else self.val_votes.take(is_val),
        )


def _leave_out_degenerate(
    triplets: Triplets, votes: Votes | None
) -> tuple[Triplets, Votes | None, int]:
    is_degenerate = triplets.is_degenerate()
    if is_degenerate.all():
        got = "every one names an image twice" if len(triplets) else "got none"
        raise TripletFileError(f"{triplets.source}: expected triplets of three images, {got}")
    kept = None if votes is None else votes.take(~is_degenerate)
    return triplets.take(~is_degenerate), kept, int(is_degenerate.sum())

"""What the user names to learn from and to be checked on, and which of it goes together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from tripletkit import defaults
from tripletkit.data.judgement_files import is_judgements
from tripletkit.data.triplets import Triplets
from tripletkit.data.votes import Votes, VotesAs
from tripletkit.errors import SettingsError

# A file, an open binary file such as standard input, or the thing itself.
Source = Path | BinaryIO


@dataclass(frozen=True)
class TrainingSources:
    """What is learned from and validated on.

    Attributes:
        images: folder of the images; None where features are given.
        triplets: anchor, positive, negative; None to draw triplets from labels.
        labels, val_labels: a CSV, a folder with a subfolder for each class, or name -> label.
        val: validation triplets of their own.
        val_truth: which image of `val` is the positive, where they stand in chance order:
            `(n_val,)` integers, 1 for the second column.
        votes, val_votes: how many people said what of `triplets` and of `val`.
        fourth_column: what the fourth column of both triplet files is, if they have one.
        votes_as: what training makes of votes; None for the default.
        split: what training and validation must not share; None for the default.
        val_fraction: the share to set apart; None for the default.
        refit: validate on held-out draws and train on all triplets, where nothing else is said
            of validation; otherwise a share is set apart once.
    """

    images: Path | None = None
    triplets: Source | Triplets | None = None
    labels: Source | Mapping[str, str] | None = None
    val: Source | Triplets | None = None
    val_truth: Source | np.ndarray | None = None
    val_labels: Source | Mapping[str, str] | None = None
    votes: Source | Votes | None = None
    val_votes: Source | Votes | None = None
    fourth_column: str | None = None
    votes_as: VotesAs | None = None
    split: str | None = None
    val_fraction: float | None = None
    refit: bool = True

    @property
    def has_votes(self) -> bool:
        return self.votes is not None or self.fourth_column is not None

    @property
    def takes_votes_as(self) -> VotesAs:
        return self.votes_as or defaults.VOTES_AS

    @property
    def fraction(self) -> float:
        """The share to set apart."""
        if self.pools:
            return 0.0
        return defaults.TRAIN_VAL_FRACTION if self.val_fraction is None else self.val_fraction

    @property
    def pools(self) -> bool:
        """Whether validation is on held-out draws, so that nothing is set apart."""
        is_own = self.val is not None or self.is_split_chosen
        return self.refit and self.triplets is not None and not is_own

    @property
    def is_split_chosen(self) -> bool:
        """Whether the user said how validation is set apart."""
        return self.val_fraction is not None or self.split is not None

    def check(self, *, needs_images: bool = True) -> None:
        """Refuse what does not go together.

        Args:
            needs_images: features are computed and not given.
        Raises:
            SettingsError: saying what to change.
        """
        if self.triplets is None and self.labels is None:
            raise SettingsError(
                "triplets",
                f"{self.images} alone says nothing of which images are alike: give `triplets`, or "
                "`labels`.",
            )
        if self.images is None and needs_images:
            raise SettingsError("images", "`images`: expected the folder of the images.")
        if self.images is not None and not self.images.is_dir():
            raise SettingsError("images", f"`images`: expected a folder, got {self.images}.")
        self._check_validation()
        self._check_votes()

    def _check_votes(self) -> None:
        if self.votes is not None and self.fourth_column is not None:
            raise SettingsError(
                "votes", "`votes` excludes `fourth_column`: each says how people voted."
            )
        if self.has_votes and is_judgements(self.triplets):
            raise SettingsError(
                "votes",
                f"{self.triplets} holds its votes: give no `votes` and no `fourth_column`.",
            )
        if self.has_votes and self.triplets is None:
            raise SettingsError(
                "triplets", "Votes are on the rows of a triplet file: give `triplets`."
            )
        if self.triplets is None and self.votes_as is not None:
            raise SettingsError("votes", "`votes_as` needs votes, on rows of `triplets`.")
        if self.val_votes is None:
            return
        if self.val is None:
            raise SettingsError("val", "`val_votes` needs `val`, which the votes are on.")
        if self.val_truth is not None:
            raise SettingsError(
                "val_truth",
                "`val_votes` excludes `val_truth`: what most people said is the truth.",
            )
        if self.triplets is None or self.fourth_column is not None:
            raise SettingsError("triplets", "`val_votes` goes with `triplets` of three columns.")

    def _check_validation(self) -> None:
        if self.val is not None and self.is_split_chosen:
            raise SettingsError(
                "val", "`val` excludes `val_fraction` and `split`: the file says it."
            )
        if self.val_truth is not None and self.val is None:
            raise SettingsError("val", "`val_truth` needs `val`, whose truth it is.")
        if self.triplets is None and self.split is not None:
            raise SettingsError(
                "split",
                "`split` is for a triplet file; of `labels` images are held out, class by class.",
            )
        if self.split is not None and self.split not in defaults.SPLIT_POLICIES:
            raise SettingsError(
                "split",
                f"`split`: expected one of {', '.join(defaults.SPLIT_POLICIES)}, got "
                f"{self.split!r}.",
            )
        if not 0 <= self.fraction < 1:
            raise SettingsError(
                "val_fraction",
                f"`val_fraction`: expected 0 to below 1, got {self.val_fraction!r}.",
            )
        if self.val_labels is None:
            return
        if self.labels is None or self.triplets is not None:
            raise SettingsError(
                "val_labels",
                "`val_labels` goes with `labels` and no triplet file; use `val` with that.",
            )
        if self.is_split_chosen or self.val is not None:
            raise SettingsError(
                "val_labels", "`val_labels` excludes `val`, `val_fraction` and `split`."
            )

"""What the user names to learn from and to be checked on, and which of it goes together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from tripletkit import defaults
from tripletkit.data.judgements import Judgements, JudgementsLike, open_judgements
from tripletkit.data.truth import TruthLike
from tripletkit.data.votes import VotesAs, VotesLike
from tripletkit.errors import SettingsError

# A file, an open binary file such as standard input.
Source = Path | BinaryIO


@dataclass(frozen=True)
class TrainingSources:
    """What is learned from and validated on.

    Attributes:
        images: folder of the images; None where features are given.
        judgements: None to draw triplets from labels.
        labels, val_labels: a CSV, a folder with a subfolder for each class, or name -> label.
        val: judgements to validate on.
        votes_as: what training makes of votes; None for the default.
        split: what training and validation must not share; None for the default.
        val_fraction: the share to set apart; None for the default.
        refit: validate on held-out draws and train on all triplets, where nothing else is said
            of validation; otherwise a share is set apart once.
    """

    images: Path | None = None
    judgements: Judgements | None = None
    labels: Source | Mapping[str, str] | None = None
    val: Judgements | None = None
    val_labels: Source | Mapping[str, str] | None = None
    votes_as: VotesAs | None = None
    split: str | None = None
    val_fraction: float | None = None
    refit: bool = True

    @property
    def has_votes(self) -> bool:
        return self.judgements is not None and self.judgements.votes is not None

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
        return self.refit and self.judgements is not None and not is_own

    @property
    def is_split_chosen(self) -> bool:
        """Whether the user said how validation is set apart."""
        return self.val_fraction is not None or self.split is not None

    def check(self, *, needs_images: bool = True) -> None:
        """Refuse what does not go together.

        Args:
            needs_images: features are computed and not given.
        """
        if self.judgements is None and self.labels is None:
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
        if self.votes_as is None or self.has_votes:
            return
        if self.judgements is None:
            raise SettingsError("votes", "`votes_as` needs votes, on rows of `triplets`.")
        raise SettingsError(
            "votes",
            "`votes_as` needs votes: give `votes` or `fourth_column`, or columns of them in "
            f"{self.judgements.record.name}.",
        )

    def _check_validation(self) -> None:
        if self.val is not None and self.is_split_chosen:
            raise SettingsError(
                "val", "`val` excludes `val_fraction` and `split`: the file says it."
            )
        if self.judgements is None and self.split is not None:
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
        if self.labels is None or self.judgements is not None:
            raise SettingsError(
                "val_labels",
                "`val_labels` goes with `labels` and no triplet file; use `val` with that.",
            )
        if self.is_split_chosen or self.val is not None:
            raise SettingsError(
                "val_labels", "`val_labels` excludes `val`, `val_fraction` and `split`."
            )


def open_sources(
    *,
    triplets: JudgementsLike | None = None,
    names: Sequence[str] | None = None,
    votes: VotesLike | None = None,
    fourth_column: str | None = None,
    val: JudgementsLike | None = None,
    val_truth: TruthLike | None = None,
    val_votes: VotesLike | None = None,
    **others: Any,
) -> TrainingSources:
    """Open the judgements that are given, and return them with all other sources.

    Args:
        triplets, names, votes, fourth_column: see `open_judgements`.
        val, val_truth, val_votes: the same, of validation.
        others: see `TrainingSources`.
    Raises:
        SettingsError: saying which do not go together.
        TripletkitError: if some cannot be read.
    """
    if triplets is None and (votes is not None or fourth_column is not None):
        raise SettingsError("triplets", "Votes are on the rows of a triplet file: give `triplets`.")
    if val is None and val_truth is not None:
        raise SettingsError("val", "`val_truth` needs `val`, whose truth it is.")
    if val is None and val_votes is not None:
        raise SettingsError("val", "`val_votes` needs `val`, which the votes are on.")
    if val_votes is not None and val_truth is not None:
        raise SettingsError(
            "val_truth", "`val_votes` excludes `val_truth`: what most people said is the truth."
        )
    if val_votes is not None and (triplets is None or fourth_column is not None):
        raise SettingsError("triplets", "`val_votes` goes with `triplets` of three columns.")
    judgements = of_val = None
    if triplets is not None:
        judgements = open_judgements(
            triplets, names=names, votes=votes, fourth_column=fourth_column
        )
    if val is not None:
        of_val = open_judgements(
            val,
            names=names,
            votes=val_votes,
            fourth_column=fourth_column if val_truth is None else None,
            truth=val_truth,
            prefix="val_",
        )
    return TrainingSources(judgements=judgements, val=of_val, **others)

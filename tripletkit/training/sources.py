"""What is learned from and validated on: what of it goes together, and finding it again."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, BinaryIO

from tripletkit import defaults
from tripletkit.data.images import Images, open_images
from tripletkit.data.judgements import (
    Judgements,
    JudgementsLike,
    TruthLike,
    find_unchanged,
    open_judgements,
    reopen_judgements,
)
from tripletkit.data.labels import LabelsLike, open_labels
from tripletkit.data.text_files import FileRecord
from tripletkit.data.triplets import Triplets
from tripletkit.data.votes import VotesAs, VotesLike
from tripletkit.errors import ModelFolderError, SettingsError
from tripletkit.model.record import InputsRecord, ModelRecord

# A file, an open binary file such as standard input.
Source = Path | BinaryIO


@dataclass(frozen=True)
class TrainingSources:
    """What is learned from and validated on.

    Attributes:
        images: of a folder; without files where features are given.
        judgements: None to draw triplets from labels.
        labels, val_labels: see `open_labels`.
        val: judgements to validate on.
        votes_as: what training makes of votes; None for the default.
        split: what training and validation must not share; None for the default.
        val_fraction: the share to set apart; None for the default.
        groups: of images, as labels: what is held out together; None for each image by itself.
        refit: validate on held-out draws and train on all triplets, where nothing else is said
            of validation; otherwise a share is set apart once.
    """

    images: Images = field(default_factory=lambda: open_images(None))
    judgements: Judgements | None = None
    labels: LabelsLike | None = None
    val: Judgements | None = None
    val_labels: LabelsLike | None = None
    votes_as: VotesAs | None = None
    split: str | None = None
    val_fraction: float | None = None
    groups: LabelsLike | None = None
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

    def check(self, *, needs_images: bool) -> None:
        """Refuse what does not go together; images are needed where features are computed."""
        folder = self.images.folder
        if self.judgements is None and self.labels is None:
            raise SettingsError(
                "triplets",
                f"{folder} alone says nothing of which images are alike: give `triplets`, or "
                "`labels`.",
            )
        if folder is None and needs_images:
            raise SettingsError("images", "`images`: expected the folder of the images.")
        if folder is not None and not folder.is_dir():
            raise SettingsError("images", f"`images`: expected a folder, got {folder}.")
        self._check_validation()
        if self.votes_as is None or self.has_votes:
            return
        if self.judgements is None:
            raise SettingsError("votes", "`votes_as` needs votes, on rows of `triplets`.")
        raise SettingsError(
            "votes",
            "`votes_as` needs votes: give `votes`, or columns of them in "
            f"{self.judgements.record.name}.",
        )

    def _check_validation(self) -> None:
        if self.groups is not None and (
            self.judgements is None or self.val is not None or self.split not in (None, "image")
        ):
            raise SettingsError(
                "groups",
                "`groups` say which images of `triplets` are held out together: they go with "
                "neither `val`, nor `labels` alone, nor a `split` by anything but image.",
            )
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
    val: JudgementsLike | None = None,
    val_truth: TruthLike | None = None,
    val_votes: VotesLike | None = None,
    **others: Any,
) -> TrainingSources:
    """Open the judgements that are given, as `open_judgements` does, and return them with all
    other sources."""
    if triplets is None and votes is not None:
        raise SettingsError("triplets", "Votes are on the rows of a triplet file: give `triplets`.")
    if val is None and val_truth is not None:
        raise SettingsError("val", "`val_truth` needs `val`, whose truth it is.")
    if val is None and val_votes is not None:
        raise SettingsError("val", "`val_votes` needs `val`, which the votes are on.")
    if val_votes is not None and val_truth is not None:
        raise SettingsError(
            "val_truth", "`val_votes` excludes `val_truth`: what most people said is the truth."
        )
    if val_votes is not None and triplets is None:
        raise SettingsError("triplets", "`val_votes` goes with `triplets`.")
    judgements = of_val = None
    if triplets is not None:
        judgements = open_judgements(triplets, names=names, votes=votes)
    if val is not None:
        of_val = open_judgements(val, names=names, votes=val_votes, truth=val_truth, prefix="val_")
    return TrainingSources(judgements=judgements, val=of_val, **others)


def read_training_triplets(inputs: InputsRecord) -> Triplets | None:
    """Return what a model was trained on as anchor, positive, negative; None if it is gone.

    Where people voted, the positive is what most of them chose; ties are left out.
    """
    if inputs.triplets is None:
        return None
    judgements = reopen_judgements(inputs.triplets, _votes_file(inputs))
    return None if judgements is None else judgements.decided().triplets


def describe_missing_triplets(inputs: InputsRecord) -> str:
    """Say why a model's training triplets cannot be read again."""
    return "they were drawn from labels" if inputs.triplets is None else "they are gone or changed"


def find_sources(
    record: ModelRecord,
    place: Path,
    images: Path | None = None,
    known: TrainingSources | None = None,
    judgements: Judgements | None = None,
) -> TrainingSources:
    """Return what a model was trained on and validated on, to train with it again.

    Of judgements other than those of the training nothing is set apart, as the model has learned
    from images on both sides of any such division.

    Args:
        record: of the model.
        place: its folder, for messages.
        images: the folder where the images are now; None for where they were.
        known: what it was trained on, of a model in memory; None to open it again.
        judgements: to learn from instead; None for those of the training.
    """
    found = known or _reopen_sources(record, place, judgements)
    if images is not None:
        found = replace(found, images=found.images.in_folder(images))
    if judgements is None:
        return found
    found = replace(found, judgements=judgements)
    trained_with = record.inputs.triplets
    if trained_with is not None and judgements.record.sha256 == trained_with.sha256:
        return found
    fraction = 0.0 if found.val is None else None
    return replace(found, val_labels=None, split=None, val_fraction=fraction)


def _reopen_sources(
    record: ModelRecord, place: Path, judgements: Judgements | None
) -> TrainingSources:
    """Return what is recorded, from where it was; but `judgements`, if they are given."""
    inputs = record.inputs
    files: dict[str, Any] = {
        name: _find(name, getattr(inputs, name), place)
        for name in ("labels", "groups", "val", "val_truth", "val_votes")
    }
    if judgements is None:
        files["val_labels"] = _find("val_labels", inputs.val_labels, place)
    for name in ("labels", "val_labels", "groups"):
        recorded = getattr(inputs, name)
        if files.get(name) and (columns := dict(recorded.read_as).get("columns")):
            where = None if record.images is None else Path(record.images)
            files[name] = open_labels(files[name], where, columns=json.loads(columns))
    votes = inputs.votes
    return open_sources(
        images=open_images(record.images, **inputs.policy),
        triplets=judgements or _find("triplets", inputs.triplets, place),
        votes=_find("votes", _votes_file(inputs), place),
        votes_as=None if votes is None else votes.taken_as,
        split=None if inputs.split == "none" else inputs.split,
        val_fraction=inputs.val_fraction,
        **files,
    )


def _votes_file(inputs: InputsRecord) -> FileRecord | None:
    """Return the record of a file of votes alone."""
    votes = inputs.votes
    return votes.file if votes and not votes.in_columns else None


def _find(name: str, recorded: FileRecord | None, place: Path) -> Path | None:
    if recorded is None:
        return None
    path = None if recorded.path is None else Path(recorded.path)
    # Labels may be a folder; what they say is compared when they are read.
    is_there = path is not None and (path.is_dir() or path.is_file())
    is_text = name not in ("labels", "val_labels", "groups")
    if not is_there or (is_text and find_unchanged(recorded) is None):
        how = ", or give the triplets in Python as `triplets=`" if name == "triplets" else ""
        raise ModelFolderError(
            f"{recorded.name}: expected the file that {place} was trained with (`{name}`), it is "
            f"gone or changed. Bring it back, train anew{how}."
            if path is not None
            else f"{recorded.name}: {place} was trained with it (`{name}`), and it is in no file "
            f"that could be read again. Train anew{how}."
        )
    return path

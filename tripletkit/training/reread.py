"""The triplets that a model was trained on, read again from where they were."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from tripletkit.data.judgements import Judgements, find_unchanged, reopen_judgements
from tripletkit.data.text_files import FileRecord
from tripletkit.data.triplets import Triplets
from tripletkit.errors import ModelFolderError
from tripletkit.model.record import InputsRecord, ModelRecord
from tripletkit.training.sources import TrainingSources, open_sources


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
        images: where the images are now; None for where they were.
        known: what it was trained on, of a model in memory; None to open it again.
        judgements: to learn from instead; None for those of the training.
    Raises:
        ModelFolderError: if a file is gone or is another now.
    """
    if known is None:
        known = _reopen_sources(record, place, judgements)
    found = replace(known, images=images or known.images)
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
    files = {
        name: _find(name, getattr(inputs, name), place)
        for name in ("labels", "val", "val_truth", "val_votes")
    }
    if judgements is None:
        files["val_labels"] = _find("val_labels", inputs.val_labels, place)
    votes = inputs.votes
    return open_sources(
        images=record.images and Path(record.images),
        triplets=judgements or _find("triplets", inputs.triplets, place),
        votes=_find("votes", _votes_file(inputs), place),
        fourth_column=votes and votes.fourth_column,
        votes_as=votes and votes.taken_as,
        split=None if inputs.split == "none" else inputs.split,
        val_fraction=inputs.val_fraction,
        **files,
    )


def _votes_file(inputs: InputsRecord) -> FileRecord | None:
    """Return the record of a file of votes alone."""
    votes = inputs.votes
    return votes.file if votes and not votes.in_columns and not votes.fourth_column else None


def _find(name: str, recorded: FileRecord | None, place: Path) -> Path | None:
    if recorded is None:
        return None
    path = None if recorded.path is None else Path(recorded.path)
    # Labels may be a folder; what they say is compared when they are read.
    is_there = path is not None and (path.is_dir() or path.is_file())
    is_text = name not in ("labels", "val_labels")
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

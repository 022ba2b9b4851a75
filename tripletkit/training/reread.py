"""The triplets that a model was trained on, read again from where they were."""

from __future__ import annotations

from pathlib import Path

from tripletkit.data.judgements import find_unchanged, reopen_judgements
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


def find_sources(record: ModelRecord, place: Path, images: Path | None = None) -> TrainingSources:
    """Return what a model was trained on and validated on, to train with it again.

    Args:
        record: of the model.
        place: its folder, for messages.
        images: where the images are now; None for where they were.
    Raises:
        ModelFolderError: if a file is gone or is another now.
    """
    inputs = record.inputs
    files = {
        name: _find(name, getattr(inputs, name), place)
        for name in ("triplets", "labels", "val", "val_truth", "val_votes", "val_labels")
    }
    votes = inputs.votes
    return open_sources(
        images=images or (record.images and Path(record.images)),
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
        raise ModelFolderError(
            f"{recorded.name}: expected the file that {place} was trained with (`{name}`), it is "
            "gone or changed. Bring it back, or train anew."
        )
    return path

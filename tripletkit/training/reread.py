"""The triplets that a model was trained on, read again from where they were."""

from __future__ import annotations

from pathlib import Path

from tripletkit.data.judgement_files import is_judgements
from tripletkit.data.judgements import read_judgements, read_voted_triplets
from tripletkit.data.triplet_files import read_triplets
from tripletkit.data.triplets import Triplets
from tripletkit.data.votes import (
    read_triplets_with_shares,
    read_votes,
    turn_to_majority,
)
from tripletkit.errors import ModelFolderError
from tripletkit.features.weights_files import file_sha256
from tripletkit.model.record import FileRecord, InputsRecord, ModelRecord
from tripletkit.training.sources import TrainingSources


def find_unchanged(recorded: FileRecord | None) -> Path | None:
    """Return the path of a file of a record if it is still as it was, else None."""
    if recorded is None or recorded.path is None:
        return None
    path = Path(recorded.path)
    return path if path.is_file() and _sha256(path) == recorded.sha256 else None


def read_training_triplets(inputs: InputsRecord) -> Triplets | None:
    """Return what a model was trained on as anchor, positive, negative; None if it is gone.

    Where people voted, the positive is what most of them chose; ties are left out.
    """
    path = find_unchanged(inputs.triplets)
    if path is None:
        return None
    if inputs.votes is None:
        return read_triplets(path)
    if inputs.votes.in_columns:
        triplets, votes = read_voted_triplets(path)
    elif inputs.votes.fourth_column is not None:
        triplets, votes = read_triplets_with_shares(path)
    else:
        votes_path = find_unchanged(inputs.votes.file)
        if votes_path is None:
            return None
        triplets, votes = read_triplets(path), read_votes(votes_path).votes
    triplets, votes = turn_to_majority(triplets, votes)
    return triplets.take(~votes.is_tie)


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
    is_own_file = votes is not None and votes.fourth_column is None and not votes.in_columns
    return TrainingSources(
        images=images or (record.images and Path(record.images)),
        votes=_find("votes", votes.file, place) if is_own_file else None,
        fourth_column=votes and votes.fourth_column,
        votes_as=votes and votes.taken_as,
        split=None if inputs.split == "none" else inputs.split,
        val_fraction=inputs.val_fraction,
        **files,
    )


def _sha256(path: Path) -> str:
    """Return the hash of a file, of a database of judgements that of what they say."""
    return read_judgements(path).sha256 if is_judgements(path) else file_sha256(path)


def _find(name: str, recorded: FileRecord | None, place: Path) -> Path | None:
    if recorded is None:
        return None
    path = None if recorded.path is None else Path(recorded.path)
    # Labels may be a folder; what they say is compared when they are read.
    is_there = path is not None and (path.is_dir() or path.is_file())
    is_text = name not in ("labels", "val_labels")
    if not is_there or (is_text and _sha256(path) != recorded.sha256):
        raise ModelFolderError(
            f"{recorded.name}: expected the file that {place} was trained with (`{name}`), it is "
            "gone or changed. Bring it back, or train anew."
        )
    return path

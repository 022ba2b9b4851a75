"""What was given to learn from, opened: its contents, and the record of what was read."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from tripletkit.data.judgement_files import is_judgements
from tripletkit.data.judgements import read_judgements, read_voted_triplets
from tripletkit.data.labels import read_classes, read_labels
from tripletkit.data.text_files import read_bytes
from tripletkit.data.triplet_files import read_triplets, write_triplet_lines
from tripletkit.data.triplets import Triplets
from tripletkit.data.votes import Votes, read_votes
from tripletkit.evaluation.answers import read_truth
from tripletkit.model.record import FileRecord
from tripletkit.training.sources import Source


def open_truth(given: Source | np.ndarray) -> tuple[np.ndarray, FileRecord]:
    if isinstance(given, np.ndarray):
        return given, FileRecord("the truth", None, _sha256(given.astype(np.int8).tobytes()))
    opened, record = open_source(given)
    return read_truth(opened, record.name).labels, record


def open_votes(given: Source | Votes, triplets: Triplets) -> tuple[Votes, FileRecord]:
    if isinstance(given, Votes):
        both = np.stack([given.for_first, given.for_second])
        return given, FileRecord("the votes", None, _sha256(both.tobytes()))
    opened, record = open_source(given)
    read = read_votes(opened, record.name)
    read.check_questions(triplets)
    return read.votes, record


def open_labels(
    given: Source | Mapping[str, str] | None, images: Path | None
) -> tuple[dict[str, str], FileRecord | None]:
    """Return labels by name, and their record; its hash is of what was read, perhaps a folder."""
    if given is None:
        return {}, None
    if isinstance(given, Mapping):
        labels, name, path = dict(given), "the labels", None
    elif isinstance(given, Path):
        labels, name, path = read_classes(given, images), str(given), str(given.absolute())
    else:
        labels, name, path = read_labels(given), "<stdin>", None
    text = json.dumps(sorted(labels.items()), ensure_ascii=False, separators=(",", ":"))
    digest = _sha256(text.encode("utf-8", errors="surrogateescape"))
    return labels, FileRecord(name, path, digest)


def open_source(given: Source | Triplets) -> tuple[io.BytesIO | Triplets | Path, FileRecord]:
    """Return what can be read once more, and its record."""
    if is_judgements(given):
        return given, FileRecord(str(given), str(given.absolute()), read_judgements(given).sha256)
    if isinstance(given, Triplets):
        text = io.StringIO()
        write_triplet_lines(text, given.names, given.rows)
        digest = _sha256(text.getvalue().encode("utf-8", errors="surrogateescape"))
        return given, FileRecord(given.source, None, digest)
    data, name = read_bytes(given)
    path = str(given.absolute()) if isinstance(given, Path) else None
    return io.BytesIO(data), FileRecord(name, path, _sha256(data))


def as_triplets(opened: io.BytesIO | Triplets | Path, record: FileRecord) -> Triplets:
    return opened if isinstance(opened, Triplets) else read_triplets(opened, record.name)


def with_votes(
    opened: io.BytesIO | Triplets | Path, record: FileRecord
) -> tuple[Triplets, Votes | None]:
    """Return triplets that are answered, by columns of votes where the file has them."""
    if isinstance(opened, Triplets):
        return opened, None
    triplets, votes = read_voted_triplets(opened, record.name)
    if votes is None:
        triplets.check_answered()
    return triplets, votes


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()

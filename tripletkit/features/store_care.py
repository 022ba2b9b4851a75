"""Looking after the feature store: what it holds, dropping what is of no use, emptying it."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import time
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from tripletkit.errors import StoreError
from tripletkit.features.image_views import ORIGINAL
from tripletkit.features.store_file import (
    FILE_NAME,
    StoreFile,
    StoreLock,
    default_folder,
    file_checksum,
    file_stamp,
    is_own_store,
)

_LAST_MOMENT_S = 253_370_764_800  # the year 9999, in every time zone

_log = logging.getLogger("tripletkit")


@dataclass(frozen=True)
class SpaceUse:
    """How much of the store one feature space takes.

    Attributes:
        facts: what decides its features; empty where that is damaged.
        n_images, size_bytes: of its features.
        last_used_s: seconds since 1970.
    """

    facts: dict[str, object]
    n_images: int
    size_bytes: int
    last_used_s: int

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON takes it, with a date in local time."""
        return {
            "backbone": str(self.facts.get("backbone", "(damaged)")),
            "weights_sha256": str(self.facts.get("weights_sha256", "")),
            "stage": _stage_of(self.facts),
            "view": str(self.facts.get("view", ORIGINAL.name)),
            "n_images": self.n_images,
            "size_bytes": self.size_bytes,
            "last_used": datetime.fromtimestamp(self.last_used_s).date().isoformat(),
        }


def _stage_of(facts: dict[str, object]) -> str:
    """Return the layer of an earlier stage that features are of; `last` for a backbone's end."""
    stage = facts.get("stage")
    return str(stage.get("layer", "(damaged)")) if isinstance(stage, dict) else "last"


def list_uses(file: StoreFile) -> list[SpaceUse]:
    """Return how much each feature space takes, the last used first."""
    with file.explained():
        return [
            SpaceUse(
                _read_facts(facts, fingerprint),
                n_images,
                size_bytes or 0,
                min(max(last_used_s, 0), _LAST_MOMENT_S),
            )
            for facts, fingerprint, last_used_s, n_images, size_bytes in file.database.execute(
                "SELECT CAST(facts AS BLOB), CAST(fingerprint AS BLOB), "
                "CAST(last_used_s AS INTEGER) AS used, COUNT(content), SUM(LENGTH(vector)) "
                "FROM spaces LEFT JOIN features ON space = id GROUP BY id ORDER BY used DESC"
            )
        ]


def prune(file: StoreFile, unused_days: int) -> int:
    """Drop what is of no use any more, in small steps; see `FeatureStore.prune`."""
    database = file.database
    with file.explained():
        known = database.execute(
            "SELECT path, CAST(size_bytes AS INTEGER), CAST(changed_ns AS INTEGER), "
            "CAST(content AS BLOB), checksum FROM files"
        ).fetchall()
    stale = [(row[0], row[-1]) for row in known if not _is_same(*row)]
    # A row that was renewed meanwhile has another checksum.
    file.change_many("DELETE FROM files WHERE path = ? AND checksum IS ?", stale)
    oldest_s = int(time.time()) - unused_days * 86_400
    with file.explained():
        useless = database.execute(
            "SELECT features.rowid, content FROM features LEFT JOIN spaces ON space = id "
            "WHERE id IS NULL OR last_used_s < ? OR content NOT IN (SELECT content FROM files)",
            (oldest_s,),
        ).fetchall()
    file.change_many("DELETE FROM features WHERE rowid = ? AND content IS ?", useless)
    with file.transaction():
        database.execute("DELETE FROM spaces WHERE id NOT IN (SELECT space FROM features)")
    if not file.give_room_back():
        _log.warning(
            "%s: the room could not be given back to the disk; new features will use it.", file.path
        )
    return len(useless)


def clear_store(folder: Path | None = None) -> int:
    """Empty the store, beside other processes that use it too.

    Where nobody else has it open its files are deleted, and nothing else in the folder. Otherwise
    it is emptied in one transaction: what others write afterwards stays, and what they were about
    to read they compute again.

    Returns:
        How many bytes that freed; 0 where there was no store.
    Raises:
        StoreError: if a file cannot be deleted, or the store is damaged and others have it open.
    """
    folder = folder or default_folder()
    path = folder / FILE_NAME
    size_bytes = _size_bytes(path)
    if size_bytes is None:
        return 0
    if not is_own_store(path):
        raise StoreError(
            f"{path}: expected a feature store, got a database of something else, which is left "
            "alone."
        )
    lock = StoreLock(folder / f"{FILE_NAME}.lock", shared=False)
    try:
        if lock.is_held:
            _delete(path)
            return size_bytes
    finally:
        lock.release()
    try:
        file = StoreFile(folder)
    except StoreError as error:
        raise StoreError(
            f"{error} It can be cleared when no other process has it open any more."
        ) from error
    try:
        with file.transaction():
            for table in ("features", "files", "spaces"):
                file.database.execute(f"DELETE FROM {table}")
        file.give_room_back()
    finally:
        file.close()
    return max(size_bytes - (_size_bytes(path) or 0), 0)


def _delete(path: Path) -> None:
    """Delete the files of a store that nobody else has open, the lock file last."""
    for suffix in ("-wal", "-shm", "-journal", "", ".lock"):
        part = path.with_name(path.name + suffix)
        try:
            part.unlink(missing_ok=True)
        except OSError as error:
            raise StoreError(f"{part}: cannot be deleted: {error.strerror}") from error


def _size_bytes(path: Path) -> int | None:
    """Return the bytes that a store takes, None where there is none."""
    parts = [path.with_name(path.name + suffix) for suffix in ("", "-wal", "-shm", "-journal")]
    sizes = [part.stat().st_size for part in parts if part.is_file()]
    return sum(sizes) if sizes else None


def _read_facts(facts: bytes, fingerprint: bytes) -> dict[str, object]:
    if hashlib.sha256(facts).hexdigest().encode() != fingerprint:
        return {}
    return json.loads(facts)


def _is_same(key: object, size_bytes: int, changed_ns: int, content: bytes, checksum: int) -> bool:
    """Tell whether a file is as it was, and what is known of it too."""
    if not isinstance(key, bytes):
        return False
    if file_checksum(key, size_bytes, changed_ns, content) != checksum:
        return False
    try:
        return file_stamp(Path(os.fsdecode(key)).stat()) == (size_bytes, changed_ns)
    except (OSError, ValueError):
        return False

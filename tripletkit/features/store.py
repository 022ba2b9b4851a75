"""The feature store: what a backbone said of an image, kept on disk.

SQLite, because it comes with Python, survives a `kill -9` at any moment and lets processes read and
write one file. Features are keyed by the content of the image and by the feature space (backbone,
its weights, preprocessing). Every vector has a checksum: one that does not fit it counts as
missing, and is computed again.
"""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import time
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import platformdirs

from tripletkit import defaults
from tripletkit.data.outputs import check_written_folder
from tripletkit.errors import DataWarning, StoreError, caution

FILE_NAME = "features.sqlite3"
# Written into the head of the file, which says whose it is even where the rest is damaged.
_APPLICATION_ID = 0x54726B46
# Increase when the tables change; stores of other versions are refused.
_VERSION = 3
_SCHEMA = """
CREATE TABLE spaces (
    id INTEGER PRIMARY KEY, fingerprint TEXT UNIQUE NOT NULL, facts TEXT NOT NULL,
    last_used_s INTEGER NOT NULL
);
CREATE TABLE features (
    space INTEGER NOT NULL REFERENCES spaces(id), content BLOB NOT NULL, vector BLOB NOT NULL,
    checksum INTEGER NOT NULL, UNIQUE (space, content)
);
CREATE TABLE files (
    path BLOB PRIMARY KEY, size_bytes INTEGER NOT NULL, changed_ns INTEGER NOT NULL,
    content BLOB NOT NULL
) WITHOUT ROWID;
"""
_TABLES = ("features", "files", "spaces")
# Another process holds the lock for one batch at a time.
_LOCK_TIMEOUT_S = 60
# SQLite takes at least 999 parameters in one statement.
_AT_ONCE = 900
_DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
_NO_RIGHT = (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM)
_CLEAR = "clear it with `tripletkit cache clear`"
_TROUBLES = (
    (_DAMAGED, "is damaged", f"What it held has to be computed again: {_CLEAR}, delete the file"),
    (
        (sqlite3.SQLITE_FULL,),
        "has no room",
        "What was stored before is kept; make room on that disk (`tripletkit cache clear` takes "
        "none)",
    ),
    (
        (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED),
        f"was kept by another process for {_LOCK_TIMEOUT_S} seconds",
        "Wait until that is done",
    ),
)


@dataclass(frozen=True)
class FeatureSpace:
    """What decides an image's features beside its content, as plain JSON values; their number."""

    facts: dict[str, object]
    n_features: int

    @property
    def text(self) -> str:
        """The facts as one text, always the same for the same facts."""
        return json.dumps(self.facts, sort_keys=True, separators=(",", ":"))

    @property
    def fingerprint(self) -> str:
        return hashlib.sha256(self.text.encode()).hexdigest()


class FeatureStore(AbstractContextManager["FeatureStore"]):
    """Features on disk, shared by every model and by processes side by side.

    Use it as a context manager. Every write is one transaction: whole or not at all. What is
    written to a store that only can be read is let go.

    The folder is made if missing, and refused among inputs or in a model folder. In memory nothing
    is kept on disk, but networks that are written on first use go to the folder. `StoreError` is
    raised where the store cannot be opened, is none, or is one of another version.
    """

    def __init__(self, folder: Path | None = None, *, in_memory: bool = False) -> None:
        self.path, _ = find_store(folder)
        self.folder = self.path.parent
        if in_memory:
            self._database = _connect(":memory:", self.path)
            return
        if folder is not None:
            check_written_folder(folder)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(
                f"{self.folder}: the feature store cannot be made there: {error.strerror}. "
                "Choose another folder as `cache`."
            ) from error
        with self._explained():
            try:
                self._database = _connect(self.path, self.path)
            except sqlite3.OperationalError as error:
                if _code(error) not in _NO_RIGHT or not self.path.is_file():
                    raise
                # Left by a killed writer, where nobody can mend it.
                self._database = _connect(":memory:", self.path)
                self._can_write = False
                self._warn_of_no_right()

    def __exit__(self, *_: object) -> None:
        self._database.close()

    def content_hashes(
        self, paths: Sequence[Path], stats: Sequence[os.stat_result]
    ) -> list[bytes | None]:
        """Return the SHA-256 kept for each file, `None` where it changed or is not known."""
        keys = [_file_key(path) for path in paths]
        rows = self._select_each(
            "SELECT path, size_bytes, changed_ns, CAST(content AS BLOB) FROM files "
            "WHERE path IN ({})",
            keys,
        )
        known = {(path, size, changed): content for path, size, changed, content in rows}
        return [known.get((key, *file_stamp(stat))) for key, stat in zip(keys, stats, strict=True)]

    def remember_files(self, files: Iterable[tuple[Path, os.stat_result, bytes]]) -> None:
        """Keep the content hash of files, so that unchanged ones are not read again."""
        # Later ones could change once more within the resolution of their time stamps.
        newest_ns = time.time_ns() - 2_000_000_000
        rows = [
            (_file_key(path), *stamp, content)
            for path, stat, content in files
            if (stamp := file_stamp(stat))[1] < newest_ns
        ]
        self._change("INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?)", rows)

    def forget_files(self, paths: Iterable[Path]) -> None:
        """Drop the content hashes of files that turned out to hold something else."""
        self._change("DELETE FROM files WHERE path = ?", [(_file_key(path),) for path in paths])

    def read(self, space: FeatureSpace, contents: Sequence[bytes]) -> np.ndarray:
        """Return `(len(contents), n_features)` float32, NaN where nothing is kept or damaged."""
        fingerprint, n_bytes = space.fingerprint, 4 * space.n_features
        rows_of: dict[bytes, list[int]] = {}
        for row, content in enumerate(contents):
            rows_of.setdefault(content, []).append(row)
        features = np.full((len(contents), space.n_features), np.nan, dtype="<f4")
        damaged = []
        for content, data, checksum in self._select_each(
            "SELECT CAST(content AS BLOB), CAST(vector AS BLOB), checksum FROM features "
            "WHERE space = (SELECT id FROM spaces WHERE fingerprint = ?) AND content IN ({})",
            list(rows_of),
            fingerprint,
        ):
            is_whole = len(data) == n_bytes
            if is_whole and _vector_checksum(fingerprint, content, data) == checksum:
                features[rows_of[content]] = np.frombuffer(data, "<f4")
            if np.isnan(features[rows_of[content][0], 0]):
                damaged.append((content, fingerprint))
        if damaged:
            caution(
                f"{self.path}: the stored features of {len(damaged):,} images are damaged and are "
                "computed again.",
                DataWarning,
            )
            self._change(
                "DELETE FROM features WHERE content = ? AND space = "
                "(SELECT id FROM spaces WHERE fingerprint = ?)",
                damaged,
            )
        now_s = int(time.time())
        # It does not matter if that fails.
        with suppress(sqlite3.OperationalError):
            self._database.execute(
                "UPDATE spaces SET last_used_s = ? WHERE fingerprint = ? AND "
                "last_used_s NOT BETWEEN ? AND ?",
                (now_s, fingerprint, now_s - 3600, now_s + 3600),
            )
        return features.astype(np.float32, copy=False)

    def write(self, space: FeatureSpace, contents: Sequence[bytes], features: np.ndarray) -> None:
        """Keep the features of some images: `(len(contents), n_features)` float32, finite."""
        if not np.isfinite(features).all():
            raise ValueError("expected finite features, got NaN or infinity")
        if not self._can_write:
            return
        fingerprint = space.fingerprint
        blobs = [vector.tobytes() for vector in np.asarray(features, dtype="<f4")]
        with self._transaction():
            space_id = self._database.execute(
                "INSERT INTO spaces (fingerprint, facts, last_used_s) VALUES (?, ?, ?) "
                "ON CONFLICT (fingerprint) DO UPDATE SET facts = excluded.facts RETURNING id",
                (fingerprint, space.text, int(time.time())),
            ).fetchone()[0]
            self._database.executemany(
                "INSERT OR IGNORE INTO features VALUES (?, ?, ?, ?)",
                [
                    (space_id, content, data, _vector_checksum(fingerprint, content, data))
                    for content, data in zip(contents, blobs, strict=True)
                ],
            )

    def uses(self) -> list[dict[str, Any]]:
        """Return how much each feature space takes, the last used first, as JSON takes it."""
        return [
            {
                "backbone": str(facts.get("backbone", "(damaged)")),
                "weights_sha256": str(facts.get("weights_sha256", "")),
                "stage": str(facts["stage"]["layer"]) if "stage" in facts else "last",
                "view": str(facts.get("view", "original")),
                "n_images": n_images,
                "size_bytes": size_bytes or 0,
                "last_used": last_used or "(damaged)",
            }
            for text, fingerprint, last_used, n_images, size_bytes in self._select(
                "SELECT CAST(facts AS BLOB), CAST(fingerprint AS BLOB), "
                "DATE(last_used_s, 'unixepoch', 'localtime'), COUNT(content), SUM(LENGTH(vector)) "
                "FROM spaces LEFT JOIN features ON space = id GROUP BY id ORDER BY last_used_s DESC"
            )
            for facts in [_read_facts(text, fingerprint)]
        ]

    def prune(self, unused_days: int) -> int:
        """Drop spaces unused for some days and features of no known file; return how many."""
        known = self._select("SELECT path, size_bytes, changed_ns FROM files")
        stale = [row for row in known if not _is_same(*row)]
        # A row that was renewed meanwhile has another stamp.
        self._change(
            "DELETE FROM files WHERE path = ? AND size_bytes IS ? AND changed_ns IS ?", stale
        )
        oldest_s = int(time.time()) - unused_days * 86_400
        with self._transaction():
            n_dropped = self._database.execute(
                "DELETE FROM features WHERE content NOT IN (SELECT content FROM files) "
                "OR space NOT IN (SELECT id FROM spaces WHERE last_used_s >= ?)",
                (oldest_s,),
            ).rowcount
            self._database.execute(
                "DELETE FROM spaces WHERE id NOT IN (SELECT space FROM features)"
            )
        return n_dropped

    def clear(self) -> None:
        """Drop everything and give the room back; what others write afterwards stays."""
        with self._transaction():
            for table in _TABLES:
                self._database.execute(f"DELETE FROM {table}")

    @cached_property
    def _can_write(self) -> bool:
        with self._explained():
            try:
                # To begin, and to write nothing, is allowed where no journal can be made.
                self._database.execute("BEGIN IMMEDIATE")
                self._database.execute(f"PRAGMA user_version = {_VERSION}")
            except sqlite3.OperationalError as error:
                if _code(error) not in _NO_RIGHT:
                    raise
                self._warn_of_no_right()
                return False
            finally:
                self._database.rollback()
        return True

    def _warn_of_no_right(self) -> None:
        caution(
            f"{self.path}: can only be read, so what is computed now is not kept. Choose "
            "another folder as `cache` to keep it.",
            DataWarning,
        )

    def _select(self, statement: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        with self._explained():
            return self._database.execute(statement, values).fetchall()

    def _select_each(
        self, statement: str, values: list[bytes], *before: Any
    ) -> Iterator[tuple[Any, ...]]:
        """Yield the rows of a statement that has `IN ({})` for values, of which it takes some."""
        for start in range(0, len(values), _AT_ONCE):
            part = values[start : start + _AT_ONCE]
            yield from self._select(statement.format(",".join("?" * len(part))), [*before, *part])

    def _change(self, statement: str, rows: Sequence[tuple[Any, ...]]) -> None:
        if rows and self._can_write:
            with self._transaction():
                self._database.executemany(statement, rows)

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        """Make what is written one whole: all of it or nothing."""
        with self._explained():
            self._database.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._database.execute("COMMIT")
            except BaseException:
                self._database.rollback()
                raise

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise StoreError(f"{self.path}: {_explain(error)}") from error


def find_store(folder: Path | None = None) -> tuple[Path, int | None]:
    """Return the file that holds a store, and its bytes; None where there is none."""
    chosen = os.environ.get(defaults.CACHE_VARIABLE) or platformdirs.user_cache_dir("tripletkit")
    path = (folder or Path(chosen)) / FILE_NAME
    return path, path.stat().st_size if path.is_file() else None


def clear_store(folder: Path | None = None) -> int:
    """Empty the store, beside other processes that use it too; return how many bytes that freed.

    What cannot be emptied or is of another version is deleted, if its head says that it is ours.
    """
    path, size_bytes = find_store(folder)
    if size_bytes is None:
        return 0
    try:
        with FeatureStore(folder) as store:
            store.clear()
        return max(size_bytes - path.stat().st_size, 0)
    except StoreError as error:
        cause = error.__cause__
        broken = (*_DAMAGED, sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR)
        if not _is_own(path) or (isinstance(cause, sqlite3.Error) and _code(cause) not in broken):
            raise
        try:
            path.unlink()
            path.with_name(f"{FILE_NAME}-journal").unlink(missing_ok=True)
        except OSError as failure:
            raise StoreError(f"{path}: cannot be deleted: {failure.strerror}") from failure
        return size_bytes


def _is_own(path: Path) -> bool:
    """Return whether the head of an SQLite file says that tripletkit made it."""
    with path.open("rb") as file:
        head = file.read(72)
    return head.startswith(b"SQLite format 3\0") and head[68:] == _APPLICATION_ID.to_bytes(4, "big")


def _vector_checksum(fingerprint: str, content: bytes, vector: bytes) -> int:
    """Return the CRC-32 of a vector together with what it is the vector of."""
    return zlib.crc32(vector, zlib.crc32(content, zlib.crc32(fingerprint.encode())))


def file_stamp(stat: os.stat_result) -> tuple[int, int]:
    """Return size and time (ns) of the last change, which together tell whether a file changed."""
    # Unpacking an archive can give other content the old modification time; nothing sets the other.
    return stat.st_size, max(stat.st_mtime_ns, stat.st_ctime_ns)


def _connect(place: Path | str, path: Path) -> sqlite3.Connection:
    database = sqlite3.connect(place, timeout=_LOCK_TIMEOUT_S, isolation_level=None)
    try:
        database.execute("PRAGMA synchronous = NORMAL")
        if _is_empty(database, path):
            # The file shrinks by itself when rows go.
            database.execute("PRAGMA auto_vacuum = FULL")
            database.execute("BEGIN IMMEDIATE")
            # Another process may have made them while this one waited.
            if _is_empty(database, path):
                for statement in _SCHEMA.split(";"):
                    database.execute(statement)
                database.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
                database.execute(f"PRAGMA user_version = {_VERSION}")
            database.execute("COMMIT")
    except BaseException:
        database.close()
        raise
    return database


def _is_empty(database: sqlite3.Connection, path: Path) -> bool:
    """Return whether a database has no tables yet; refuse one that is no store of this version."""
    (owner,) = database.execute("PRAGMA application_id").fetchone()
    (version,) = database.execute("PRAGMA user_version").fetchone()
    (n_tables,) = database.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()
    if n_tables and owner != _APPLICATION_ID:
        raise StoreError(
            f"{path}: expected a feature store, got a database of something else. "
            "Choose another folder as `cache`."
        )
    if n_tables and version != _VERSION:
        raise StoreError(
            f"{path}: expected a feature store of version {_VERSION}, got {version} of another "
            f"tripletkit. Choose another folder as `cache`, or {_CLEAR}."
        )
    return not n_tables


def _code(error: sqlite3.Error) -> int:
    """Return SQLite's primary result code; that of damage where text is not UTF-8."""
    return getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT) & 0xFF


def _explain(error: sqlite3.Error) -> str:
    found = (each for codes, *each in _TROUBLES if _code(error) in codes)
    what, cure = next(found, ("failed", f"Look at the rights and the disk there, {_CLEAR}"))
    return f"the feature store {what}: {error}. {cure}, or choose another folder as `cache`."


def _read_facts(facts: bytes, fingerprint: bytes) -> dict[str, Any]:
    if hashlib.sha256(facts).hexdigest().encode() != fingerprint:
        return {}
    found: dict[str, Any] = json.loads(facts)
    return found


def _is_same(key: bytes, size_bytes: int, changed_ns: int) -> bool:
    """Tell whether a file is as it was."""
    try:
        return file_stamp(Path(os.fsdecode(key)).stat()) == (size_bytes, changed_ns)
    except (OSError, ValueError, TypeError):
        return False


def _file_key(path: Path) -> bytes:
    return os.fsencode(path.absolute())

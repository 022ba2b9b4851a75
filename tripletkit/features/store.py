"""The feature store: what a backbone said of an image, kept on disk.

SQLite, because it comes with Python, survives a `kill -9` at any moment (write-ahead log),
lets two processes read and write one file, and needs no size set beforehand as LMDB does.
Reading 10,000 rows of 2,048 numbers takes about a tenth of a second, so nothing faster is
missed.

Features are keyed by the content of the image and by the feature space (backbone, its
weights, preprocessing). The same content under two names costs once.
"""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import platformdirs

from tripletkit import defaults
from tripletkit.errors import StoreError

FILE_NAME = "features.sqlite3"
# Increase when the tables change; an older tool then refuses a newer store.
SCHEMA_VERSION = 1

_SCHEMA = """
CREATE TABLE spaces (
    id INTEGER PRIMARY KEY, fingerprint TEXT UNIQUE NOT NULL, facts TEXT NOT NULL,
    n_features INTEGER NOT NULL, last_used_s INTEGER NOT NULL
);
CREATE TABLE features (
    space INTEGER NOT NULL REFERENCES spaces(id), content BLOB NOT NULL, vector BLOB NOT NULL,
    UNIQUE (space, content)
);
CREATE TABLE files (
    path BLOB PRIMARY KEY, size_bytes INTEGER NOT NULL, changed_ns INTEGER NOT NULL,
    content BLOB NOT NULL
) WITHOUT ROWID;
"""
# Another process holds the lock for one batch at a time.
_LOCK_TIMEOUT_S = 60
# SQLite takes at least 999 parameters in one statement.
_AT_ONCE = 900


@dataclass(frozen=True)
class FeatureSpace:
    """What decides an image's features beside its content.

    Attributes:
        facts: plain JSON values (backbone, weights' hash, preprocessing, version).
        n_features: how many numbers an image has.
    """

    facts: dict[str, object]
    n_features: int

    @property
    def fingerprint(self) -> str:
        text = json.dumps(self.facts, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True)
class SpaceUse:
    """How much of the store one feature space takes."""

    facts: dict[str, object]
    n_images: int
    size_bytes: int
    last_used_s: int


def default_folder() -> Path:
    """Return the folder of the store: `TRIPLETKIT_CACHE`, else the user's cache folder."""
    chosen = os.environ.get(defaults.CACHE_VARIABLE)
    return Path(chosen) if chosen else Path(platformdirs.user_cache_dir("tripletkit"))


class FeatureStore:
    """Features on disk, shared by every model and by processes side by side.

    Use it as a context manager. Every write is one transaction: whole or not at all.

    Args:
        folder: where the store is; made if missing. Defaults to `default_folder()`.
    Raises:
        StoreError: if it cannot be opened, is no store, or is from a newer tripletkit.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder or default_folder()
        self.path = self.folder / FILE_NAME
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(
                f"{self.folder}: the feature store cannot be made there: {error.strerror}. "
                "Choose another place with --cache DIR."
            ) from error
        with self._explained():
            self._database = sqlite3.connect(
                self.path, timeout=_LOCK_TIMEOUT_S, isolation_level=None
            )
            self._use_write_ahead_log()
            self._database.execute("PRAGMA synchronous = NORMAL")
            self._prepare()

    def __enter__(self) -> FeatureStore:
        return self

    def __exit__(self, *_: object) -> None:
        self._database.close()

    def content_hashes(self, paths: Sequence[Path], stats: Sequence[os.stat_result]) -> list:
        """Return the SHA-256 kept for each file, `None` where it changed or is not known."""
        keys = [_file_key(path) for path in paths]
        known = {}
        with self._explained():
            for part in _parts(keys):
                known.update(
                    (path, (stamp, content))
                    for path, *stamp, content in self._database.execute(
                        f"SELECT * FROM files WHERE path IN ({_marks(part)})", part
                    )
                )
        hashes = []
        for key, stat in zip(keys, stats, strict=True):
            stamp, content = known.get(key, (None, None))
            hashes.append(content if stamp == _stamp(stat) else None)
        return hashes

    def remember_files(self, files: Iterable[tuple[Path, os.stat_result, bytes]]) -> None:
        """Keep the content hash of files, so that unchanged ones are not read again.

        A file changed within the last two seconds is left out: it could change once more
        within the resolution of its time stamp.
        """
        newest_ns = time.time_ns() - 2_000_000_000
        stamped = [(path, _stamp(stat), content) for path, stat, content in files]
        rows = [
            (_file_key(path), size_bytes, changed_ns, content)
            for path, (size_bytes, changed_ns), content in stamped
            if changed_ns < newest_ns
        ]
        with self._transaction():
            self._database.executemany("INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?)", rows)

    def missing(self, space: FeatureSpace, contents: Iterable[bytes]) -> list[bytes]:
        """Return the distinct contents that have no features in a space, in their order."""
        distinct = list(dict.fromkeys(contents))
        with self._explained():
            space_id = self._space_id(space)
            there = {
                content
                for part in _parts(distinct)
                for (content,) in self._database.execute(
                    f"SELECT content FROM features WHERE space = ? AND content IN ({_marks(part)})",
                    [space_id, *part],
                )
            }
        return [content for content in distinct if content not in there]

    def write(self, space: FeatureSpace, contents: Sequence[bytes], features: np.ndarray) -> None:
        """Keep the features of some images.

        Args:
            space: what they were computed with.
            contents: SHA-256 of each image.
            features: `(len(contents), n_features)` float32, finite.
        """
        vectors = np.ascontiguousarray(features, dtype="<f4")
        with self._transaction():
            space_id = self._space_id(space)
            self._database.executemany(
                "INSERT OR IGNORE INTO features VALUES (?, ?, ?)",
                [
                    (space_id, content, vector.tobytes())
                    for content, vector in zip(contents, vectors, strict=True)
                ],
            )

    def read(self, space: FeatureSpace, contents: Sequence[bytes]) -> np.ndarray:
        """Return the features of images.

        Returns:
            `(len(contents), n_features)` float32, in the order asked for.
        Raises:
            StoreError: if one is missing or damaged.
        """
        rows_of: dict[bytes, list[int]] = {}
        for row, content in enumerate(contents):
            rows_of.setdefault(content, []).append(row)
        features = np.empty((len(contents), space.n_features), dtype="<f4")
        n_read = 0
        with self._explained():
            space_id = self._space_id(space)
            for part in _parts(list(rows_of)):
                for content, vector in self._database.execute(
                    f"SELECT content, vector FROM features WHERE space = ? AND content IN "
                    f"({_marks(part)})",
                    [space_id, *part],
                ):
                    if len(vector) != 4 * space.n_features:
                        raise StoreError(
                            f"{self.path}: damaged: expected {space.n_features} numbers for a "
                            f"image, got {len(vector)} bytes. Remove it with `tripletkit "
                            "cache clear`."
                        )
                    features[rows_of[content]] = np.frombuffer(vector, dtype="<f4")
                    n_read += 1
            self._touch(space_id)
        if n_read != len(rows_of):
            raise StoreError(
                f"{self.path}: the features of {len(rows_of) - n_read} images went missing "
                "while reading (was the store cleared?). Run the command again."
            )
        return features.astype(np.float32, copy=False)

    def uses(self) -> list[SpaceUse]:
        """Return how much each feature space takes, the last used first."""
        with self._explained():
            return [
                SpaceUse(json.loads(facts), n_images, size_bytes or 0, last_used_s)
                for facts, last_used_s, n_images, size_bytes in self._database.execute(
                    "SELECT facts, last_used_s, COUNT(content), SUM(LENGTH(vector)) FROM spaces "
                    "LEFT JOIN features ON space = id GROUP BY id ORDER BY last_used_s DESC"
                )
            ]

    def prune(self, unused_days: int) -> int:
        """Drop features that are of no use any more and give the room back.

        These are all of a space not used for `unused_days`, and those of images whose every
        known file is gone or changed.

        Returns:
            How many features (rows) were dropped.
        """
        oldest_s = int(time.time()) - unused_days * 86_400
        with self._transaction():
            before = self._count()
            known = self._database.execute("SELECT * FROM files")
            stale = [(key,) for key, *stamp, _ in known if not _is_same(key, stamp)]
            self._database.executemany("DELETE FROM files WHERE path = ?", stale)
            self._database.execute(
                "DELETE FROM features WHERE content NOT IN (SELECT content FROM files) "
                "OR space IN (SELECT id FROM spaces WHERE last_used_s < ?)",
                (oldest_s,),
            )
            self._database.execute(
                "DELETE FROM spaces WHERE id NOT IN (SELECT space FROM features)"
            )
            dropped = before - self._count()
        with self._explained():
            self._database.execute("VACUUM")
        return dropped

    def _use_write_ahead_log(self) -> None:
        """Switch the journal, which for once does not wait while another process does the same."""
        give_up_s = time.monotonic() + _LOCK_TIMEOUT_S
        while True:
            try:
                self._database.execute("PRAGMA journal_mode = WAL")
                return
            except sqlite3.OperationalError as error:
                is_busy = error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY
                if not is_busy or time.monotonic() > give_up_s:
                    raise
                time.sleep(0.02)

    def _prepare(self) -> None:
        if self._version() == 0:
            with self._transaction():
                # Two processes may both have seen an empty file; the lock is held now.
                if self._version() == 0:
                    for statement in _SCHEMA.split(";"):
                        self._database.execute(statement)
                    self._database.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        if self._version() > SCHEMA_VERSION:
            raise StoreError(
                f"{self.path}: expected a feature store of version {SCHEMA_VERSION}, got "
                f"{self._version()} from a newer tripletkit. Choose another place with "
                "--cache DIR, or update."
            )

    def _version(self) -> int:
        return self._database.execute("PRAGMA user_version").fetchone()[0]

    def _count(self) -> int:
        return self._database.execute("SELECT COUNT(*) FROM features").fetchone()[0]

    def _space_id(self, space: FeatureSpace) -> int:
        """Return the id of a space, made if it is new."""
        find = "SELECT id FROM spaces WHERE fingerprint = ?"
        found = self._database.execute(find, (space.fingerprint,)).fetchone()
        if found is None:
            self._database.execute(
                "INSERT OR IGNORE INTO spaces (fingerprint, facts, n_features, last_used_s) "
                "VALUES (?, ?, ?, ?)",
                (space.fingerprint, json.dumps(space.facts), space.n_features, int(time.time())),
            )
            found = self._database.execute(find, (space.fingerprint,)).fetchone()
        return found[0]

    def _touch(self, space_id: int) -> None:
        """Note that a space was used; a store that only can be read is fine too."""
        try:
            self._database.execute(
                "UPDATE spaces SET last_used_s = ? WHERE id = ? AND last_used_s < ?",
                (int(time.time()), space_id, int(time.time()) - 3600),
            )
        except sqlite3.OperationalError:
            return

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._explained():
            self._database.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                self._database.rollback()
                raise
            self._database.execute("COMMIT")

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise StoreError(
                f"{self.path}: the feature store failed: {error}. Nothing that was stored before "
                "is lost; make room or rights there, choose another place with --cache DIR, or "
                "remove a damaged store with `tripletkit cache clear`."
            ) from error


def clear_store(folder: Path | None = None) -> int:
    """Delete the store's own files from a folder, and nothing else.

    Returns:
        How many bytes that freed; 0 where there was no store.
    Raises:
        StoreError: if a file cannot be deleted.
    """
    folder = folder or default_folder()
    freed = 0
    for suffix in ("-wal", "-shm", "-journal", ""):
        path = folder / (FILE_NAME + suffix)
        try:
            size = path.stat().st_size
            path.unlink()
        except FileNotFoundError:
            continue
        except OSError as error:
            raise StoreError(f"{path}: cannot be deleted: {error.strerror}") from error
        freed += size
    return freed


def _file_key(path: Path) -> bytes:
    return os.fsencode(path.absolute())


def _stamp(stat: os.stat_result) -> list[int]:
    """Return size and time (ns) of the last change, which together tell whether a file changed.

    Unpacking an archive can give other content the old modification time; nothing sets the
    other time, at which the file itself was touched.
    """
    return [stat.st_size, max(stat.st_mtime_ns, stat.st_ctime_ns)]


def _is_same(key: bytes, stamp: list[int]) -> bool:
    try:
        return _stamp(Path(os.fsdecode(key)).stat()) == stamp
    except OSError:
        return False


def _parts(values: list) -> Iterator[list]:
    return (values[start : start + _AT_ONCE] for start in range(0, len(values), _AT_ONCE))


def _marks(values: list) -> str:
    return ",".join("?" * len(values))

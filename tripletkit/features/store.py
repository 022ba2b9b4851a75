"""The feature store: what a backbone said of an image, kept on disk.

SQLite, because it comes with Python, survives a `kill -9` at any moment (write-ahead log),
lets two processes read and write one file, and needs no size set beforehand as LMDB does.
Reading 10,000 rows of 2,048 numbers takes about a tenth of a second, so nothing faster is
missed.

Features are keyed by the content of the image and by the feature space (backbone, its
weights, preprocessing). The same content under two names costs once. Every vector has a checksum:
one that does not fit it counts as missing, and is computed again.
"""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import time
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tripletkit.data.outputs import check_written_folder
from tripletkit.errors import StoredFeaturesError, StoreWarning
from tripletkit.features import store_care
from tripletkit.features.store_care import SpaceUse
from tripletkit.features.store_file import (
    FILE_NAME,
    StoreFile,
    default_folder,
    file_checksum,
    file_stamp,
    vector_checksum,
)

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
    def text(self) -> str:
        """The facts as one text, always the same for the same facts."""
        return json.dumps(self.facts, sort_keys=True, separators=(",", ":"))

    @property
    def fingerprint(self) -> str:
        return hashlib.sha256(self.text.encode()).hexdigest()


class FeatureStore:
    """Features on disk, shared by every model and by processes side by side.

    Use it as a context manager. Every write is one transaction: whole or not at all. Where the
    store only can be read, what is written is kept in memory instead.

    Args:
        folder: where the store is; made if missing. Defaults to `default_folder()`.
    Raises:
        StoreError: if it cannot be opened, is no store, or is from a newer tripletkit.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder or default_folder()
        self._file = StoreFile(self.folder)
        self._database = self._file.database
        self.path = self._file.path
        # (space, content) -> vector of what cannot be, or may not stay, in the file.
        self._held: dict[tuple[str, bytes], np.ndarray] = {}
        self._is_holding = False

    def __enter__(self) -> FeatureStore:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def content_hashes(self, paths: Sequence[Path], stats: Sequence[os.stat_result]) -> list:
        """Return the SHA-256 kept for each file, `None` where it changed or is not known."""
        keys = [_file_key(path) for path in paths]
        known = {}
        with self._file.explained():
            for part in _parts(keys):
                known.update(
                    (key, (size_bytes, changed_ns, content))
                    for key, size_bytes, changed_ns, content, checksum in self._database.execute(
                        "SELECT path, CAST(size_bytes AS INTEGER), CAST(changed_ns AS INTEGER), "
                        "CAST(content AS BLOB), checksum FROM files "
                        f"WHERE path IN ({_marks(part)})",
                        part,
                    )
                    if file_checksum(key, size_bytes, changed_ns, content) == checksum
                )
        hashes = []
        for key, stat in zip(keys, stats, strict=True):
            *stamp, content = known.get(key, (None, None))
            hashes.append(content if tuple(stamp) == file_stamp(stat) else None)
        return hashes

    def remember_files(self, files: Iterable[tuple[Path, os.stat_result, bytes]]) -> None:
        """Keep the content hash of files, so that unchanged ones are not read again.

        A file changed within the last two seconds is left out: it could change once more
        within the resolution of its time stamp.
        """
        newest_ns = time.time_ns() - 2_000_000_000
        rows = []
        for path, stat, content in files:
            size_bytes, changed_ns = file_stamp(stat)
            if changed_ns < newest_ns:
                known = (_file_key(path), size_bytes, changed_ns, content)
                rows.append((*known, file_checksum(*known)))
        if rows and self._can_write():
            with self._file.transaction():
                self._database.executemany(
                    "INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?, ?)", rows
                )

    def forget_files(self, paths: Iterable[Path]) -> None:
        """Drop the content hashes of files that turned out to hold something else."""
        keys = [(_file_key(path),) for path in paths]
        if self._can_write():
            with self._file.transaction():
                self._database.executemany("DELETE FROM files WHERE path = ?", keys)

    def missing(self, space: FeatureSpace, contents: Iterable[bytes]) -> list[bytes]:
        """Return the distinct contents that have no sound features in a space, in their order.

        Damaged features are dropped, so that the store takes new ones, with a `StoreWarning`.
        """
        distinct = list(dict.fromkeys(contents))
        damaged: list[bytes] = []
        sound = {content for block, _ in self._read(space, distinct, damaged) for content in block}
        if damaged:
            self._drop_damaged(space, damaged)
        return [content for content in distinct if content not in sound]

    def write(self, space: FeatureSpace, contents: Sequence[bytes], features: np.ndarray) -> None:
        """Keep the features of some images.

        Args:
            space: what they were computed with.
            contents: SHA-256 of each image.
            features: `(len(contents), n_features)` float32, finite.
        Raises:
            ValueError: if a number is not finite.
        """
        vectors = np.ascontiguousarray(features, dtype="<f4")
        if not np.isfinite(vectors).all():
            raise ValueError("expected finite features, got NaN or infinity")
        fingerprint = space.fingerprint
        can_write = self._can_write()
        if self._is_holding or not can_write:
            self._held |= {
                (fingerprint, content): vector.copy()
                for content, vector in zip(contents, vectors, strict=True)
            }
        if not can_write:
            return
        rows = [
            (content, data := vector.tobytes(), vector_checksum(fingerprint, content, data))
            for content, vector in zip(contents, vectors, strict=True)
        ]
        with self._file.transaction():
            space_id = self._make_space(space)
            self._database.executemany(
                "INSERT OR IGNORE INTO features VALUES (?, ?, ?, ?)",
                [(space_id, *row) for row in rows],
            )

    def hold_written(self) -> None:
        """Keep a copy of all that is written from now on in memory, whatever others do."""
        self._is_holding = True

    def read(self, space: FeatureSpace, contents: Sequence[bytes]) -> np.ndarray:
        """Return the features of images.

        Returns:
            `(len(contents), n_features)` float32, in the order asked for.
        Raises:
            StoredFeaturesError: if one is missing or damaged.
        """
        rows_of: dict[bytes, list[int]] = {}
        for row, content in enumerate(contents):
            rows_of.setdefault(content, []).append(row)
        features = np.empty((len(contents), space.n_features), dtype="<f4")
        n_found = 0
        for block, vectors in self._read(space, list(rows_of), []):
            n_found += len(block)
            for content, vector in zip(block, vectors, strict=True):
                for row in rows_of[content]:
                    features[row] = vector
        if n_gone := len(rows_of) - n_found:
            raise StoredFeaturesError(
                f"{self.path}: the features of {n_gone} images went missing, or "
                "were damaged, while they were read. Run the command again."
            )
        self._touch(space)
        return features.astype(np.float32, copy=False)

    def uses(self) -> list[SpaceUse]:
        """Return how much each feature space takes, the last used first."""
        return store_care.list_uses(self._file)

    def prune(self, unused_days: int) -> int:
        """Drop features that are of no use any more and give the room back.

        These are all of a space not used for `unused_days`, and those of images whose every
        known file is gone or changed. Others may read and write meanwhile.

        Returns:
            How many features (rows) were dropped.
        """
        return store_care.prune(self._file, unused_days)

    def _read(
        self, space: FeatureSpace, contents: Sequence[bytes], damaged: list[bytes]
    ) -> Iterator[tuple[list[bytes], np.ndarray]]:
        """Yield contents and their `(n, n_features)` of those that are there, each once."""
        fingerprint, n_bytes = space.fingerprint, 4 * space.n_features
        held = [content for content in contents if (fingerprint, content) in self._held]
        if held:
            yield held, np.stack([self._held[fingerprint, content] for content in held])
        in_file = [content for content in contents if (fingerprint, content) not in self._held]
        for part in _parts(in_file):
            # One statement sees one state of the store, even while another process clears it.
            with self._file.explained():
                rows = self._database.execute(
                    "SELECT CAST(content AS BLOB), CAST(vector AS BLOB), checksum FROM features "
                    "WHERE space = (SELECT id FROM spaces WHERE fingerprint = ?) "
                    f"AND content IN ({_marks(part)})",
                    [fingerprint, *part],
                ).fetchall()
            whole = [
                (content, data)
                for content, data, checksum in rows
                if len(data) == n_bytes and vector_checksum(fingerprint, content, data) == checksum
            ]
            found = [content for content, _ in whole]
            vectors = np.frombuffer(b"".join(data for _, data in whole), "<f4")
            vectors = vectors.reshape(len(whole), space.n_features)
            if not (is_finite := np.isfinite(vectors).all(axis=1)).all():
                found = [found[row] for row in np.flatnonzero(is_finite)]
                vectors = vectors[is_finite]
            if len(found) < len(rows):
                damaged += {content for content, _, _ in rows}.difference(found)
            yield found, vectors

    def _drop_damaged(self, space: FeatureSpace, damaged: Sequence[bytes]) -> None:
        warnings.warn(
            f"{self.path}: the stored features of {len(damaged):,} images are damaged and are "
            "computed again.",
            StoreWarning,
            stacklevel=3,
        )
        # Where the file is damaged further, it may not take the new ones.
        self.hold_written()
        if self._can_write():
            with self._file.transaction():
                self._database.executemany(
                    "DELETE FROM features WHERE content = ? AND space = "
                    "(SELECT id FROM spaces WHERE fingerprint = ?)",
                    [(content, space.fingerprint) for content in damaged],
                )

    def _make_space(self, space: FeatureSpace) -> int:
        """Return the id of a space, made if it is new, its facts as they should be."""
        facts = (space.fingerprint, space.text, space.n_features, int(time.time()))
        self._database.execute(
            "INSERT INTO spaces (fingerprint, facts, n_features, last_used_s) VALUES (?, ?, ?, ?) "
            "ON CONFLICT (fingerprint) DO UPDATE SET facts = excluded.facts "
            "WHERE facts IS NOT excluded.facts",
            facts,
        )
        find = "SELECT id FROM spaces WHERE fingerprint = ?"
        return self._database.execute(find, facts[:1]).fetchone()[0]

    def _touch(self, space: FeatureSpace) -> None:
        """Note that a space was used; it does not matter if that fails."""
        now_s = int(time.time())
        try:
            self._database.execute(
                "UPDATE spaces SET last_used_s = ? WHERE fingerprint = ? AND "
                "last_used_s NOT BETWEEN ? AND ?",
                (now_s, space.fingerprint, now_s - 3600, now_s + 3600),
            )
        except sqlite3.OperationalError:
            return

    def _can_write(self) -> bool:
        is_known = "can_write" in vars(self._file)
        with self._file.explained():
            can_write = self._file.can_write
        if not can_write and not is_known:
            warnings.warn(
                f"{self.path}: can only be read, so what is computed now is not kept. Choose "
                "another folder as `cache` to keep it.",
                StoreWarning,
                stacklevel=4,
            )
        return can_write


class MemoryStore:
    """Features of some images in memory, for as long as it lives; see `FeatureStore`.

    Args:
        folder: where networks are kept that are written on first use.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._rows: dict[tuple[str, bytes], np.ndarray] = {}

    def content_hashes(
        self, paths: Sequence[Path], _stats: Sequence[os.stat_result]
    ) -> list[bytes | None]:
        return [None] * len(paths)

    def remember_files(self, _files: Iterable[tuple[Path, os.stat_result, bytes]]) -> None:
        """Forget them: each file is read once."""

    def forget_files(self, _paths: Iterable[Path]) -> None:
        """None are remembered."""

    def missing(self, space: FeatureSpace, contents: Iterable[bytes]) -> list[bytes]:
        name = space.fingerprint
        return [each for each in dict.fromkeys(contents) if (name, each) not in self._rows]

    def write(self, space: FeatureSpace, contents: Sequence[bytes], features: np.ndarray) -> None:
        name = space.fingerprint
        self._rows |= {
            (name, content): row for content, row in zip(contents, features, strict=True)
        }

    def hold_written(self) -> None:
        """All is held anyway."""

    def read(self, space: FeatureSpace, contents: Sequence[bytes]) -> np.ndarray:
        name = space.fingerprint
        rows = [self._rows[name, content] for content in contents]
        return np.array(rows, np.float32).reshape(len(rows), space.n_features)


Store = FeatureStore | MemoryStore


def open_store(folder: Path | None = None) -> FeatureStore:
    """Open the store in a folder; see `FeatureStore`."""
    if folder is not None:
        check_written_folder(folder)
    return FeatureStore(folder)


def find_store(folder: Path | None = None) -> tuple[Path, int | None]:
    """Return the file that holds a store, and its bytes; None where there is none."""
    folder = folder or default_folder()
    path = folder / FILE_NAME
    if not path.is_file():
        return path, None
    return path, sum(file.stat().st_size for file in folder.glob(f"{FILE_NAME}*"))


def _file_key(path: Path) -> bytes:
    return os.fsencode(path.absolute())


def _parts(values: list) -> Iterator[list]:
    return (values[start : start + _AT_ONCE] for start in range(0, len(values), _AT_ONCE))


def _marks(values: list) -> str:
    return ",".join("?" * len(values))

"""The shared feature store: immutable files that many processes and machines fill and read.

It needs nothing of the file system but that renaming a file is one step, so it may lie on a network
disk, where SQLite's locks do not hold. Nobody waits for anybody: who has features writes a file of
them, and two who have the same write the same file.

What is looked for is found by a walk through the hashes of all images, and of vectors only those
are read that are asked for.
"""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np

from tripletkit.errors import StoredFeaturesError, StoreError, StoreWarning
from tripletkit.features import shard_folder
from tripletkit.features.shard_folder import files_folder, make_space, space_folder, touch_space
from tripletkit.features.shards import (
    FileRow,
    ImageRow,
    WantedContents,
    count_bad,
    file_key,
    find_contents,
    import_arrow,
    is_among,
    list_shards,
    opened_shard,
    sound_vectors,
    start_of_contents,
    write_feature_shard,
    write_file_shard,
)
from tripletkit.features.store import FeatureSpace
from tripletkit.features.store_care import SpaceUse
from tripletkit.features.store_file import file_stamp

# Vectors that other commands than `extract` compute wait until there are so many, or for so long.
_PENDING_ROWS = 2048
_PENDING_S = 60.0
_FRESH_NS = 2_000_000_000
# Stands for the content of a file whose hash turned out wrong although nothing else changed.
_FORGOTTEN = bytes(32)


class ShardStore:
    """A shared store behind the same interface as that of one machine; see `stores.Store`.

    Args:
        folder: of a shared store.
    Raises:
        StoreError: if it is from a newer tripletkit, or its mark is damaged.
        MissingExtraError: if pyarrow is not installed.
    """

    def __init__(self, folder: Path) -> None:
        import_arrow()
        self.folder = self.path = folder
        self.dtype = np.dtype(shard_folder.read_dtype(folder))
        # fingerprint -> its space, and content -> vector of what waits to be written.
        self._pending: dict[str, tuple[FeatureSpace, dict[bytes, np.ndarray]]] = {}
        self._pending_since_s = time.monotonic()
        # (fingerprint, content) -> vector of what may not stay, or cannot be, on disk.
        self._held: dict[tuple[str, bytes], np.ndarray] = {}
        self._is_holding = False
        self._can_write: bool | None = None

    def __enter__(self) -> ShardStore:
        return self

    def __exit__(self, *_: object) -> None:
        self.flush()

    def content_hashes(self, paths: Sequence[Path], stats: Sequence[os.stat_result]) -> list:
        """Return the SHA-256 kept for each file, `None` where it changed or is not known."""
        indices_of: dict[int, list[int]] = {}
        for index, path in enumerate(paths):
            indices_of.setdefault(file_key(path), []).append(index)
        keys = np.sort(np.array(list(indices_of), np.uint64))
        stamps = [file_stamp(stat) for stat in stats]
        found: list[set[bytes]] = [set() for _ in paths]
        for shard in list_shards(files_folder(self.folder)):
            with opened_shard(shard) as batch:
                if batch is None:
                    continue
                rows = np.flatnonzero(is_among(batch.column("key").to_numpy(), keys))
                for known, checksum in _file_rows(batch, rows):
                    for index in indices_of[known.key]:
                        is_same = stamps[index] == (known.size_bytes, known.changed_ns)
                        if is_same and known.checksum == checksum:
                            found[index].add(known.content)
        # Two contents of one file at one moment, or one that was forgotten: it is hashed anew.
        return [
            next(iter(contents)) if len(contents) == 1 and _FORGOTTEN not in contents else None
            for contents in found
        ]

    def knows_files(self) -> bool:
        """Tell whether any file is known, so that it is worth asking."""
        return bool(list_shards(files_folder(self.folder)))

    def remember_files(self, files: Iterable[tuple[Path, os.stat_result, bytes]]) -> None:
        """Keep the content hash of files, so that unchanged ones are not read again.

        A file changed within the last two seconds is left out: it could change once more
        within the resolution of its time stamp.
        """
        self.remember_stamps([(path, file_stamp(stat), content) for path, stat, content in files])

    def remember_stamps(self, files: Iterable[tuple[Path | str, tuple[int, int], bytes]]) -> None:
        """Keep content hashes as `remember_files` does, by size and time of the last change."""
        newest_ns = time.time_ns() - _FRESH_NS
        rows = [
            FileRow(file_key(path), *stamp, content)
            for path, stamp, content in files
            if stamp[1] < newest_ns
        ]
        if rows and self._is_writable():
            write_file_shard(files_folder(self.folder), rows)

    def forget_files(self, paths: Iterable[Path]) -> None:
        """Drop the content hashes of files that turned out to hold something else."""
        rows = []
        for path in paths:
            with suppress(OSError):
                rows.append(FileRow(file_key(path), *file_stamp(path.stat()), _FORGOTTEN))
        if rows and self._is_writable():
            write_file_shard(files_folder(self.folder), rows)

    def missing(self, space: FeatureSpace, contents: Iterable[bytes]) -> list[bytes]:
        """Return the distinct contents that have no sound features in a space, in their order."""
        distinct = list(dict.fromkeys(contents))
        damaged: list[bytes] = []
        sound: set[bytes] = set()
        for found, _ in self._read(space, distinct, damaged):
            sound.update(found)
        if n_damaged := len(set(damaged) - sound):
            warnings.warn(
                f"{self.path}: the stored features of {n_damaged:,} images are damaged and are "
                "computed again.",
                StoreWarning,
                stacklevel=2,
            )
        return [content for content in distinct if content not in sound]

    def content_starts(self, space: FeatureSpace) -> np.ndarray:
        """Return `(n,)` uint64, sorted: the first 8 bytes of all contents that have a row.

        They stand for the contents where a one in 10^19 mistake does no harm.
        """
        starts = [np.empty(0, np.uint64)]
        for shard in list_shards(space_folder(self.folder, space)):
            with opened_shard(shard) as batch:
                if batch is not None:
                    starts.append(start_of_contents(batch))
        return np.unique(np.concatenate(starts))

    def reasons(self, space: FeatureSpace, contents: set[bytes]) -> dict[bytes, str]:
        """Return why some of these contents have no features."""
        return {
            content: reason
            for content, _, reason in self._bad_rows(space)
            if content is not None and content in contents
        }

    def unreadable(self, space: FeatureSpace) -> dict[str, str]:
        """Return name -> reason of the files that could not be read at all."""
        return {
            name: reason
            for content, name, reason in self._bad_rows(space)
            if content is None and name is not None
        }

    def write(self, space: FeatureSpace, contents: Sequence[bytes], features: np.ndarray) -> None:
        """Keep the features of some images; they are on disk when the store is closed, or before.

        Args:
            space: what they were computed with.
            contents: SHA-256 of each image.
            features: `(len(contents), n_features)` float32, finite.
        Raises:
            ValueError: if a number is not finite.
            StoreError: if a number is too large for the dtype of the store.
        """
        if not np.isfinite(features).all():
            raise ValueError("expected finite features, got NaN or infinity")
        vectors = self.as_stored(features)
        if not np.isfinite(vectors).all():
            raise StoreError(
                f"{self.path}: features are too large for {self.dtype}. Make a store of float32."
            )
        new = {content: vector.copy() for content, vector in zip(contents, vectors, strict=True)}
        if self._is_holding or not self._is_writable():
            self._held |= {(space.fingerprint, content): vector for content, vector in new.items()}
        if not self._is_writable():
            return
        if not self._pending:
            self._pending_since_s = time.monotonic()
        self._pending.setdefault(space.fingerprint, (space, {}))[1].update(new)
        n_pending = sum(len(vector_of) for _, vector_of in self._pending.values())
        if n_pending >= _PENDING_ROWS or time.monotonic() > self._pending_since_s + _PENDING_S:
            self.flush()

    def as_stored(self, features: np.ndarray) -> np.ndarray:
        """Return features as they are kept; infinite where they are too large for that."""
        with np.errstate(over="ignore"):
            return features.astype(self.dtype)

    def write_rows(
        self, space: FeatureSpace, rows: Sequence[ImageRow], features: np.ndarray
    ) -> None:
        """Write a shard of the features of named images, and of reasons why some have none.

        Args:
            rows: one an image.
            features: `(len(rows), n_features)` float32.
        Raises:
            StoreError: if it cannot be written.
        """
        folder = make_space(self.folder, space)
        write_feature_shard(folder, space.fingerprint, rows, self.as_stored(features))

    def tidy(self) -> None:
        """Remove what killed writers have left half written."""
        shard_folder.tidy(self.folder)

    def flush(self) -> None:
        """Write what waits in memory."""
        pending, self._pending = self._pending, {}
        for space, vector_of in pending.values():
            rows = [ImageRow(content) for content in vector_of]
            self.write_rows(space, rows, np.stack(list(vector_of.values())))

    def hold_written(self) -> None:
        """Keep a copy of all that is written from now on in memory, whatever others do."""
        self._is_holding = True

    def read(self, space: FeatureSpace, contents: Sequence[bytes]) -> np.ndarray:
        """Return the features of images.

        Memory beside them is that of one shard's.

        Returns:
            `(len(contents), n_features)` float32, in the order asked for.
        Raises:
            StoredFeaturesError: if one is missing or damaged.
        """
        rows_of: dict[bytes, list[int]] = {}
        for row, content in enumerate(contents):
            rows_of.setdefault(content, []).append(row)
        features = np.empty((len(contents), space.n_features), np.float32)
        n_found = 0
        for found, vectors in self._read(space, list(rows_of), []):
            rows = [rows_of[content] for content in found]
            sources = np.repeat(np.arange(len(found)), [len(each) for each in rows])
            features[[row for each in rows for row in each]] = vectors[sources]
            n_found += len(found)
        if n_gone := len(rows_of) - n_found:
            raise StoredFeaturesError(
                f"{self.path}: the features of {n_gone} images went missing, or "
                "were damaged, while they were read. Run the command again."
            )
        touch_space(self.folder, space)
        return features

    def uses(self) -> list[SpaceUse]:
        """Return how much each feature space takes, the last used first."""
        return shard_folder.list_uses(self.folder)

    def prune(self, unused_days: int) -> int:
        """Drop all features of spaces not used for so long; files are immutable, so nothing less.

        Returns:
            How many features (rows) were dropped.
        """
        return shard_folder.prune(self.folder, unused_days)

    def _read(
        self, space: FeatureSpace, contents: Sequence[bytes], damaged: list[bytes]
    ) -> Iterator[tuple[list[bytes], np.ndarray]]:
        """Yield contents and their vectors, those of a shard at a time, each content once."""
        fingerprint = space.fingerprint
        in_memory = self._in_memory(space, contents)
        if in_memory:
            yield list(in_memory), np.stack(list(in_memory.values()))
        left = [content for content in contents if content not in in_memory]
        wanted = WantedContents(left)
        done: set[int] = set()
        for shard in list_shards(space_folder(self.folder, space)):
            if len(done) == len(left):
                return
            with opened_shard(shard) as batch:
                if batch is None:
                    continue
                row_of = {
                    place: row for row, place in find_contents(batch, wanted) if place not in done
                }
                if count_bad(batch):
                    is_ok = batch.column("vector").is_valid().to_numpy(zero_copy_only=False)
                    row_of = {place: row for place, row in row_of.items() if is_ok[row]}
                if not row_of:
                    continue
                vectors, is_sound = sound_vectors(
                    batch, list(row_of.values()), fingerprint, space.n_features
                )
            places = np.array(list(row_of))
            damaged += [left[place] for place in places[~is_sound]]
            done.update(places[is_sound].tolist())
            yield [left[place] for place in places[is_sound]], vectors[is_sound]

    def _bad_rows(self, space: FeatureSpace) -> Iterator[tuple[bytes | None, str | None, str]]:
        """Yield (content, name, reason) of all images that have no vector."""
        for shard in list_shards(space_folder(self.folder, space)):
            with opened_shard(shard) as batch:
                if batch is None or not count_bad(batch):
                    continue
                columns = (batch.column(name) for name in ("content", "name", "reason"))
                rows = zip(*(column.to_pylist() for column in columns), strict=True)
                bad = [row for row in rows if row[2] is not None]
            yield from bad

    def _in_memory(
        self, space: FeatureSpace, contents: Sequence[bytes]
    ) -> Mapping[bytes, np.ndarray]:
        fingerprint = space.fingerprint
        _, pending = self._pending.get(fingerprint, (space, {}))
        if not pending and not self._held:
            return {}
        found = {key: self._held.get((fingerprint, key), pending.get(key)) for key in contents}
        return {content: vector for content, vector in found.items() if vector is not None}

    def _is_writable(self) -> bool:
        if self._can_write is None:
            self._can_write = os.access(self.folder, os.W_OK)
            if not self._can_write:
                warnings.warn(
                    f"{self.path}: can only be read, so what is computed now is not kept. Choose "
                    "another folder as `cache` to keep it.",
                    StoreWarning,
                    stacklevel=4,
                )
        return self._can_write


def _file_rows(batch: object, rows: np.ndarray) -> Iterator[tuple[FileRow, int]]:
    taken = batch.take(import_arrow().array(rows))  # type: ignore[attr-defined]
    for row in taken.to_pylist():
        checksum = row.pop("checksum")
        yield FileRow(**row), checksum

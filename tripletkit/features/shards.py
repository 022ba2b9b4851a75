"""Files of the shared feature store: immutable Arrow files of some hundred images each.

Arrow and not Parquet, because a row of an uncompressed Arrow file lies where it can be computed to
lie: a few rows of many are read through a memory map without a look at the others, which Parquet
would have to unpack. Any program that knows Arrow or Feather reads them.

A shard is named by the hash of what it is about, so that two writers of the same rows write the
same file. It appears whole or not at all, and is never changed.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np

from tripletkit.data.unfinished import unfinished_file
from tripletkit.errors import MissingExtraError, StoreError
from tripletkit.features.store_file import file_checksum, vector_checksum

if TYPE_CHECKING:
    import pyarrow

SUFFIX = ".arrow"
CONTENT_BYTES = 32
DTYPES = ("float32", "float16")
_OK, _BAD = "ok", "bad"
_N_BAD = b"tripletkit_n_bad"
_NO_CONTENT = bytes(CONTENT_BYTES)


@dataclass(frozen=True)
class ImageRow:
    """What a shard says of one image beside its vector.

    Attributes:
        content: SHA-256 of the file; None where it could not be read.
        name: below the image folder, or the path in a list; None where nobody said it.
        reason: why there is no vector; None where there is one.
    """

    content: bytes | None
    name: str | None = None
    reason: str | None = None


@dataclass(frozen=True)
class FileRow:
    """What is known of an image file, so that it need not be read again.

    Attributes:
        key: see `file_key`.
        size_bytes, changed_ns: see `file_stamp`.
        content: SHA-256.
    """

    key: int
    size_bytes: int
    changed_ns: int
    content: bytes

    @property
    def checksum(self) -> int:
        key = self.key.to_bytes(8, "little")
        return file_checksum(key, self.size_bytes, self.changed_ns, self.content)


def import_arrow() -> ModuleType:
    """Return pyarrow.

    Raises:
        MissingExtraError: if it is not installed.
    """
    try:
        import pyarrow
        import pyarrow.ipc
    except ImportError as error:
        raise MissingExtraError(
            "A shared feature store needs pyarrow. Run: pip install 'tripletkit[parquet]'."
        ) from error
    return pyarrow


def file_key(path: Path | str) -> int:
    """Return 64 bits of a hash of a path, by which a file is found again."""
    text = os.fsencode(Path(path).absolute())
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little")


def write_feature_shard(
    folder: Path, fingerprint: str, rows: Sequence[ImageRow], vectors: np.ndarray
) -> Path:
    """Write the features of some images, unless they are there.

    Args:
        folder: of one feature space.
        fingerprint: of the space.
        rows: one an image.
        vectors: `(len(rows), n_features)` float32 or float16; any where there is a reason.
    Raises:
        StoreError: if it cannot be written.
    """
    pa = import_arrow()
    is_ok = np.array([row.reason is None for row in rows], bool)
    vectors = np.ascontiguousarray(np.where(is_ok[:, None], vectors, 0), vectors.dtype)
    checksums = [
        vector_checksum(fingerprint, row.content or _NO_CONTENT, vector.tobytes())
        for row, vector in zip(rows, vectors, strict=True)
    ]
    columns = {
        "content": pa.array([row.content for row in rows], pa.binary(CONTENT_BYTES)),
        "name": pa.array([_readable(row.name) for row in rows], pa.string()),
        "status": pa.array([_OK if ok else _BAD for ok in is_ok], pa.string()),
        "reason": pa.array([_readable(row.reason) for row in rows], pa.string()),
        "vector": pa.FixedSizeListArray.from_arrays(
            pa.array(vectors.ravel()), vectors.shape[1], mask=pa.array(~is_ok)
        ),
        "checksum": pa.array(checksums, pa.uint32()),
    }
    about = [fingerprint, str(vectors.dtype)]
    about += [f"{row.content and row.content.hex()} {row.name} {row.reason}" for row in rows]
    return _write(folder, about, columns, {_N_BAD: b"%d" % np.sum(~is_ok)})


def write_file_shard(folder: Path, rows: Sequence[FileRow]) -> Path:
    """Write what is known of some files, unless it is there.

    Raises:
        StoreError: if it cannot be written.
    """
    pa = import_arrow()
    columns = {
        "key": pa.array([row.key for row in rows], pa.uint64()),
        "size_bytes": pa.array([row.size_bytes for row in rows], pa.int64()),
        "changed_ns": pa.array([row.changed_ns for row in rows], pa.int64()),
        "content": pa.array([row.content for row in rows], pa.binary(CONTENT_BYTES)),
        "checksum": pa.array([row.checksum for row in rows], pa.uint32()),
    }
    return _write(folder, [str(row) for row in rows], columns, {})


def list_shards(folder: Path) -> list[Path]:
    """Return the shards in a folder, in the order of their names; none where it is missing."""
    try:
        with os.scandir(folder) as entries:
            names = [entry.name for entry in entries]
    except FileNotFoundError:
        return []
    return [folder / name for name in sorted(names) if is_shard_name(name)]


def is_shard_name(name: str) -> bool:
    """Tell a shard from what is being written, and from what is not ours."""
    stem = name.removesuffix(SUFFIX)
    return len(stem) == CONTENT_BYTES and name.endswith(SUFFIX) and stem.isalnum()


@contextmanager
def opened_shard(path: Path) -> Iterator[pyarrow.RecordBatch | None]:
    """Map a shard into memory; None where it is gone or damaged.

    What is taken of it has to be copied before the block ends.
    """
    pa = import_arrow()
    try:
        source = pa.memory_map(os.fspath(path))
        batch = pa.ipc.open_file(source).get_batch(0)
    except (FileNotFoundError, pa.ArrowInvalid, pa.ArrowIOError, IndexError):
        yield None
        return
    with source:
        yield batch


def count_rows(path: Path) -> tuple[int, int]:
    """Return how many images a shard has vectors of, and how many not."""
    with opened_shard(path) as batch:
        if batch is None:
            return 0, 0
        n_bad = count_bad(batch)
        return batch.num_rows - n_bad, n_bad


def count_bad(batch: pyarrow.RecordBatch) -> int:
    """Return how many images of a shard have no vector."""
    return int((batch.schema.metadata or {}).get(_N_BAD, b"0"))


def find_contents(batch: pyarrow.RecordBatch, wanted: WantedContents) -> Iterator[tuple[int, int]]:
    """Yield (row, place among the wanted) of each image of a shard that is wanted."""
    contents = _content_bytes(batch)
    for row in np.flatnonzero(wanted.may_have(contents.view("<u8")[:, 0])):
        place = wanted.place_of.get(contents[row].tobytes())
        if place is not None:
            yield int(row), place


def start_of_contents(batch: pyarrow.RecordBatch) -> np.ndarray:
    """Return `(n,)` uint64: the first 8 bytes of the contents of a shard, a copy."""
    contents = _content_bytes(batch)
    return contents[contents.any(axis=1)].view("<u8")[:, 0].copy()


class WantedContents:
    """Contents that are looked for in shards.

    Args:
        contents: distinct SHA-256 hashes.
    """

    def __init__(self, contents: Sequence[bytes]) -> None:
        self.place_of = {content: place for place, content in enumerate(contents)}
        starts = [content[:8].ljust(8, b"\0") for content in contents]
        self._starts = np.unique(np.frombuffer(b"".join(starts), "<u8"))

    def may_have(self, starts: np.ndarray) -> np.ndarray:
        """Return `(n,)` bool: whether the first 8 bytes of a content are those of a wanted one."""
        return is_among(starts, self._starts)


def is_among(values: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Return `(n,)` bool: whether a value is among others, which are distinct and sorted."""
    if not len(wanted):
        return np.zeros(len(values), bool)
    places = np.minimum(np.searchsorted(wanted, values), len(wanted) - 1)
    return wanted[places] == values


def sound_vectors(
    batch: pyarrow.RecordBatch, rows: Sequence[int], fingerprint: str, n_features: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return vectors of a shard, and which of them are as they were written.

    Args:
        rows: that have vectors.
    Returns:
        `(len(rows), n_features)` float16 or float32, and `(len(rows),)` bool.
    """
    column = batch.column("vector")
    if column.type.list_size != n_features:
        return np.zeros((len(rows), n_features), np.float32), np.zeros(len(rows), bool)
    vectors = column.values.to_numpy().reshape(-1, n_features)[rows]
    contents = _content_bytes(batch)[rows]
    checksums = batch.column("checksum").to_numpy()[rows]
    is_sound = [
        vector_checksum(fingerprint, content.tobytes(), vector.tobytes()) == checksum
        for content, vector, checksum in zip(contents, vectors, checksums, strict=True)
    ]
    return vectors, np.array(is_sound, bool) & np.isfinite(vectors).all(axis=1)


def _content_bytes(batch: pyarrow.RecordBatch) -> np.ndarray:
    """Return `(n_rows, 32)` uint8; zeros where a file could not be read."""
    data = np.frombuffer(batch.column("content").buffers()[1], np.uint8)
    return data[: batch.num_rows * CONTENT_BYTES].reshape(-1, CONTENT_BYTES)


def _write(folder: Path, about: Sequence[str], columns: dict, facts: dict[bytes, bytes]) -> Path:
    pa = import_arrow()
    text = "\n".join(about).encode("utf-8", "surrogateescape")
    path = folder / f"{hashlib.sha256(text).hexdigest()[:CONTENT_BYTES]}{SUFFIX}"
    with opened_shard(path) as there:
        if there is not None:
            return path
    batch = pa.RecordBatch.from_pydict(columns, metadata=facts)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with (
            unfinished_file(path, "wb") as file,
            pa.ipc.new_file(file, batch.schema) as writer,
        ):
            writer.write_batch(batch)
    except OSError as error:
        raise StoreError(
            f"{folder}: the features cannot be written: {error.strerror or error}. Make room "
            "there, or choose another folder."
        ) from error
    return path


def _readable(text: str | None) -> str | None:
    """Return a name as UTF-8 has it; one that is none keeps its place by question marks."""
    return None if text is None else os.fsencode(text).decode("utf-8", "replace")

"""What image files hold: their hash, by which features are kept, computed once."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from stat import S_ISREG

from tripletkit.features.stores import Store


@dataclass(frozen=True)
class FileContents:
    """The content of a list of files.

    Attributes:
        hashes: SHA-256 of each; `None` where there is no file, or it cannot be read.
        problems: index of a file -> why it cannot be read.
    """

    hashes: list[bytes | None]
    problems: dict[int, str]


def hash_files(paths: Sequence[Path | None], store: Store) -> FileContents:
    """Hash image files, each read only where its size or time changed since it was hashed.

    Args:
        paths: one an image.
        store: what remembers hashes.
    """
    indices, stats = [], []
    problems: dict[int, str] = {}
    for index, path in enumerate(paths):
        if path is None:
            continue
        try:
            stat = path.stat()
        except OSError as error:
            problems[index] = f"{path}: cannot be read: {error.strerror}"
            continue
        if not S_ISREG(stat.st_mode):
            # A pipe would be waited for.
            problems[index] = f"{path}: expected an image, got a folder, a pipe or a device"
            continue
        stats.append(stat)
        indices.append(index)
    hashes: list[bytes | None] = [None] * len(paths)
    known = store.content_hashes([paths[index] for index in indices], stats)
    unknown = []
    for index, stat, content in zip(indices, stats, known, strict=True):
        hashes[index] = content
        if content is None:
            unknown.append((index, stat))
    new = []
    with thread_pool() as pool:
        hashed = pool.map(_hash_or_error, [paths[index] for index, _ in unknown])
        for (index, stat), content in zip(unknown, hashed, strict=True):
            if isinstance(content, OSError):
                problems[index] = f"{paths[index]}: cannot be read: {content.strerror}"
                continue
            hashes[index] = content
            new.append((paths[index], stat, content))
    if new:
        store.remember_files(new)
    return FileContents(hashes, problems)


@contextmanager
def thread_pool() -> Iterator[ThreadPoolExecutor]:
    """Give a pool that drops what waits when the block fails or is interrupted."""
    pool = ThreadPoolExecutor(os.cpu_count())
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def _hash_or_error(path: Path) -> bytes | OSError:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").digest()
    except OSError as error:
        return error

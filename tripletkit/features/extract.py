"""Features of picture files: from the store where they are there, else from the backbone.

Files are hashed and decoded in threads beside the backbone, which works through every
distinct picture once. Each batch is stored before the next is waited for, so a killed run
loses at most one.
"""

from __future__ import annotations

import hashlib
import io
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tripletkit import defaults
from tripletkit.data.images import read_pixels
from tripletkit.errors import ImageReadError
from tripletkit.features.backbones import Backbone
from tripletkit.features.store import FeatureSpace, FeatureStore

Progress = Callable[[int, int], None]
# `(batch_size, side, side, 3)` uint8 -> `(batch_size, n_features)` float32
FeatureFunction = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class ImageFeatures:
    """Features of a list of picture files.

    Attributes:
        values: `(n_images, n_features)` float32; a row of NaN where there is a problem.
        problems: index of a picture -> why it has no features.
        n_computed: how many the backbone had to compute; the others came from the store.
    """

    values: np.ndarray
    problems: dict[int, str]
    n_computed: int


def extract_features(
    paths: Sequence[Path | None],
    backbone: Backbone,
    space: FeatureSpace,
    store: FeatureStore,
    load_function: Callable[[], FeatureFunction],
    progress: Progress | None = None,
) -> ImageFeatures:
    """Return the features of pictures, computing and storing those that are not there yet.

    A picture's features depend on nothing but its content and the space: batches have one
    shape, so neither the other pictures nor their order change a bit of them.

    Args:
        paths: one a picture; `None` gives a row of NaN.
        backbone: for its input size and resize filter.
        space: the backbone's feature space.
        store: where to look first and to keep what is computed.
        load_function: makes the function from a batch of `defaults.EXTRACT_BATCH_SIZE`
            pictures to features; called only if something must be computed.
        progress: told (done, total) in pictures to be computed.
    Raises:
        StoreError: if the store fails.
    """
    problems: dict[int, str] = {}
    with _threads() as pool:
        contents = _hash_files(paths, store, pool, problems)
        path_of = {content: path for path, content in zip(paths, contents, strict=True) if content}
        missing = store.missing(space, path_of)
        unreadable: dict[bytes, str] = {}
        compute = None
        decoded = _decode(missing, path_of, backbone, pool, unreadable)
        for n_done, batch, pixels in _batches(decoded):
            compute = compute or load_function()
            store.write(space, batch, compute(pixels)[: len(batch)])
            if progress is not None:
                progress(n_done, len(missing))

    for index, content in enumerate(contents):
        if content in unreadable:
            # The same content may stand under several names; each has its own message.
            problems[index] = unreadable[content].replace(
                str(path_of[content]), str(paths[index]), 1
            )
    usable = [index for index, content in enumerate(contents) if content and index not in problems]
    values = np.full((len(paths), space.n_features), np.nan, dtype=np.float32)
    values[usable] = store.read(space, [contents[index] for index in usable])
    n_computed = len(missing) - len(unreadable)
    return ImageFeatures(values, dict(sorted(problems.items())), n_computed)


def hash_pictures(paths: Sequence[Path | None], store: FeatureStore) -> list[bytes | None]:
    """Return the SHA-256 of each picture file, read only where the store does not know it.

    Args:
        paths: one a picture.
        store: what remembers hashes.
    Returns:
        `None` where the file is missing or cannot be read.
    """
    with _threads() as pool:
        return _hash_files(paths, store, pool, {})


@contextmanager
def _threads() -> Iterator[ThreadPoolExecutor]:
    """Give a pool that drops what waits when the block fails or is interrupted."""
    pool = ThreadPoolExecutor(os.cpu_count())
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def _hash_files(
    paths: Sequence[Path | None],
    store: FeatureStore,
    pool: ThreadPoolExecutor,
    problems: dict[int, str],
) -> list[bytes | None]:
    """Return the SHA-256 of each file, read only where its size or time changed."""
    indices, stats = [], []
    for index, path in enumerate(paths):
        if path is None:
            continue
        try:
            stats.append(path.stat())
            indices.append(index)
        except OSError as error:
            problems[index] = f"{path}: cannot be read: {error.strerror}"
    contents: list[bytes | None] = [None] * len(paths)
    known = store.content_hashes([paths[index] for index in indices], stats)
    unknown = []
    for index, stat, content in zip(indices, stats, known, strict=True):
        contents[index] = content
        if content is None:
            unknown.append((index, stat))
    hashed = pool.map(_hash_or_error, [paths[index] for index, _ in unknown])
    new = []
    for (index, stat), content in zip(unknown, hashed, strict=True):
        if isinstance(content, OSError):
            problems[index] = f"{paths[index]}: cannot be read: {content.strerror}"
            continue
        contents[index] = content
        new.append((paths[index], stat, content))
    if new:
        store.remember_files(new)
    return contents


def _hash_or_error(path: Path) -> bytes | OSError:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").digest()
    except OSError as error:
        return error


def _decode(
    contents: list[bytes],
    path_of: dict[bytes, Path],
    backbone: Backbone,
    pool: ThreadPoolExecutor,
    unreadable: dict[bytes, str],
) -> Iterator[tuple[int, bytes, np.ndarray]]:
    """Yield (how many are done, content, pixels) of each readable picture, decoding ahead."""
    ahead: deque[Future] = deque()
    waiting = iter(contents)

    def submit() -> None:
        content = next(waiting, None)
        if content is not None:
            ahead.append(pool.submit(_read_checked, path_of[content], content, backbone))

    for _ in range(defaults.DECODE_AHEAD):
        submit()
    for n_done, content in enumerate(contents, 1):
        future = ahead.popleft()
        submit()
        try:
            yield n_done, content, future.result()
        except ImageReadError as error:
            unreadable[content] = str(error)


def _read_checked(path: Path, content: bytes, backbone: Backbone) -> np.ndarray:
    """Decode the very bytes that the features will be filed under."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ImageReadError(f"{path}: cannot be read: {error.strerror}") from error
    if hashlib.sha256(data).digest() != content:
        raise ImageReadError(f"{path}: changed while it was being read; run the command again")
    return read_pixels(
        path, backbone.input_size_px, backbone.preprocessing.resample, io.BytesIO(data)
    )


def _batches(
    decoded: Iterator[tuple[int, bytes, np.ndarray]],
) -> Iterator[tuple[int, list[bytes], np.ndarray]]:
    """Gather pictures into batches of one shape; the last is filled up with black."""
    size = defaults.EXTRACT_BATCH_SIZE
    contents: list[bytes] = []
    pixels: list[np.ndarray] = []

    def batch() -> np.ndarray:
        filler = np.zeros_like(pixels[0])
        return np.stack(pixels + [filler] * (size - len(pixels)))

    n_done = 0
    for n_done, content, picture in decoded:
        contents.append(content)
        pixels.append(picture)
        if len(contents) == size:
            yield n_done, contents, batch()
            contents, pixels = [], []
    if contents:
        yield n_done, contents, batch()

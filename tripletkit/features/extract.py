"""Features of image files: from the store where they are there, else from the backbone.

Files are hashed and decoded in threads beside the backbone, which works through every
distinct image once, in each view that is asked for. Each batch is stored before the next is
waited for, so a killed run loses at most one.
"""

from __future__ import annotations

import hashlib
import io
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tripletkit import defaults
from tripletkit.errors import ImageReadError
from tripletkit.features.backbone import Backbone
from tripletkit.features.image_views import ORIGINAL, View, read_views
from tripletkit.features.store import FeatureSpace, FeatureStore
from tripletkit.progress import Progress

# `(batch_size, side, side, 3)` uint8 -> `(batch_size, n_features)` float32, the columns of
# several spaces side by side
FeatureFunction = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class ImageFeatures:
    """Features of a list of image files.

    Attributes:
        values: `(n_images, n_features)` float32, the columns of several spaces side by side; a row
            of NaN where there is a problem.
        problems: index of an image -> why it has no features.
        computed: contents that the backbone had to look at; the others came from the store.
    """

    values: np.ndarray
    problems: dict[int, str]
    computed: frozenset[bytes]


def extract_features(
    paths: Sequence[Path | None],
    backbone: Backbone,
    spaces: Sequence[FeatureSpace],
    store: FeatureStore,
    load_function: Callable[[], FeatureFunction],
    progress: Progress | None = None,
    views: Sequence[View] = (ORIGINAL,),
) -> ImageFeatures:
    """Return the features of images, computing and storing those that are not there yet.

    An image's features depend on nothing but its content, the space and the views: batches
    have one shape, so neither the other images nor their order change a bit of them. Spaces
    of one network are computed together and stored apart.

    Args:
        paths: one an image; `None` gives a row of NaN.
        backbone: for its input size and resize filter.
        spaces: of the backbone, in the order of the columns that the function gives.
        store: where to look first and to keep what is computed, each view apart.
        load_function: makes the function from a batch of `defaults.EXTRACT_BATCH_SIZE`
            images to features; called only if something must be computed.
        progress: told (done, total) in images to be computed.
        views: what the features are the mean over.
    Raises:
        StoreError: if the store fails.
    """
    problems: dict[int, str] = {}
    spaces_of = {view: [view_space(space, view) for space in spaces] for view in views}
    ends = np.cumsum([space.n_features for space in spaces])[:-1]
    with _threads() as pool:
        contents = _hash_files(paths, store, pool, problems)
        path_of = {content: path for path, content in zip(paths, contents, strict=True) if content}
        missing = _find_missing(spaces_of, store, path_of)
        unreadable: dict[bytes, str] = {}
        compute = None
        decoded = _decode(missing, path_of, backbone, pool, unreadable)
        for n_done, view, batch, pixels in _batches(decoded):
            compute = compute or load_function()
            columns = np.split(compute(pixels)[: len(batch)], ends, axis=1)
            for space, features in zip(spaces_of[view], columns, strict=True):
                store.write(space, batch, features)
            if progress is not None:
                progress(n_done, len(missing))

    for index, content in enumerate(contents):
        if content in unreadable:
            # The same content may stand under several names; each has its own message.
            problems[index] = unreadable[content].replace(
                str(path_of[content]), str(paths[index]), 1
            )
    usable = [index for index, content in enumerate(contents) if content and index not in problems]
    found = [contents[index] for index in usable]
    n_features = sum(space.n_features for space in spaces)
    values = np.full((len(paths), n_features), np.nan, dtype=np.float32)
    for number, columns in enumerate(np.split(np.arange(n_features), ends)):
        in_views = [of_view[number] for of_view in spaces_of.values()]
        values[np.ix_(usable, columns)] = _read_mean(store, in_views, found)
    computed = frozenset(missing).difference(unreadable)
    return ImageFeatures(values, dict(sorted(problems.items())), computed)


def view_space(space: FeatureSpace, view: View) -> FeatureSpace:
    """Return the feature space of one view; that of the original is the backbone's own."""
    if view == ORIGINAL:
        return space
    return FeatureSpace({**space.facts, "view": view.name}, space.n_features)


def hash_images(paths: Sequence[Path | None], store: FeatureStore) -> list[bytes | None]:
    """Return the SHA-256 of each image file, read only where the store does not know it.

    Args:
        paths: one an image.
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


def _find_missing(
    spaces_of: Mapping[View, Sequence[FeatureSpace]],
    store: FeatureStore,
    contents: Iterable[bytes],
) -> dict[bytes, list[View]]:
    """Return content -> the views that it lacks in a space, in the order of the contents."""
    contents = list(contents)
    missing_of = {
        view: set().union(*(store.missing(space, contents) for space in spaces))
        for view, spaces in spaces_of.items()
    }
    missing = {
        content: [view for view, lacking in missing_of.items() if content in lacking]
        for content in contents
    }
    return {content: views for content, views in missing.items() if views}


def _read_mean(
    store: FeatureStore, spaces: Sequence[FeatureSpace], contents: Sequence[bytes]
) -> np.ndarray:
    """Return the mean of the features in several spaces, one of which is in memory at a time."""
    total = store.read(spaces[0], contents)
    for space in spaces[1:]:
        total += store.read(space, contents)
    return total / len(spaces) if len(spaces) > 1 else total


def _decode(
    missing: Mapping[bytes, Sequence[View]],
    path_of: dict[bytes, Path],
    backbone: Backbone,
    pool: ThreadPoolExecutor,
    unreadable: dict[bytes, str],
) -> Iterator[tuple[int, bytes, Mapping[View, np.ndarray]]]:
    """Yield (how many are done, content, pixels of views) of each readable image.

    Each is decoded once, ahead of the backbone.
    """
    ahead: deque[Future] = deque()
    waiting = iter(missing)

    def submit() -> None:
        content = next(waiting, None)
        if content is not None:
            ahead.append(
                pool.submit(_read_checked, path_of[content], content, backbone, missing[content])
            )

    for _ in range(defaults.DECODE_AHEAD):
        submit()
    for n_done, (content, views) in enumerate(missing.items(), 1):
        future = ahead.popleft()
        submit()
        try:
            yield n_done, content, dict(zip(views, future.result(), strict=True))
        except ImageReadError as error:
            unreadable[content] = str(error)


def _read_checked(
    path: Path, content: bytes, backbone: Backbone, views: Sequence[View]
) -> np.ndarray:
    """Decode the very bytes that the features will be filed under."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ImageReadError(f"{path}: cannot be read: {error.strerror}") from error
    if hashlib.sha256(data).digest() != content:
        raise ImageReadError(f"{path}: changed while it was being read; run the command again")
    how = backbone.preprocessing
    return read_views(
        path, backbone.input_size_px, how.resample, views, io.BytesIO(data), how.shortest_edge_px
    )


def _batches(
    decoded: Iterator[tuple[int, bytes, Mapping[View, np.ndarray]]],
) -> Iterator[tuple[int, View, list[bytes], np.ndarray]]:
    """Gather each view of images into batches of one shape; the last is filled up with black."""
    size = defaults.EXTRACT_BATCH_SIZE
    gathered: dict[View, dict[bytes, np.ndarray]] = {}

    def batch(view: View) -> tuple[View, list[bytes], np.ndarray]:
        images = gathered.pop(view)
        pixels = list(images.values())
        filler = np.zeros_like(pixels[0])
        return view, list(images), np.stack(pixels + [filler] * (size - len(pixels)))

    n_done = 0
    for n_done, content, pixels_of in decoded:
        for view, pixels in pixels_of.items():
            gathered.setdefault(view, {})[content] = pixels
            if len(gathered[view]) == size:
                yield n_done, *batch(view)
    for view in list(gathered):
        yield n_done, *batch(view)

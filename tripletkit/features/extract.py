"""Features of image files: from the store where they are there, else from the backbone.

Files are decoded in threads beside the backbone, which works through every distinct image once, in
each view that is asked for. Each batch is stored before the next is waited for, so a killed run
loses at most one.
"""

from __future__ import annotations

import hashlib
import io
import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

from tripletkit import defaults
from tripletkit.data.images import FileContents, hash_files, thread_pool
from tripletkit.errors import ImageReadError
from tripletkit.features.backbones import Backbone
from tripletkit.features.image_views import ORIGINAL, View, read_views
from tripletkit.features.store import FeatureSpace, FeatureStore, file_stamp
from tripletkit.progress import Progress, no_progress

# `(batch_size, side, side, 3)` uint8 -> `(batch_size, n_features)` float32, the columns of
# several spaces side by side
FeatureFunction = Callable[[np.ndarray], np.ndarray]

_LARGE_FILE_BYTES = 1 << 26

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


@dataclass(frozen=True)
class _ImageFeatures:
    """Features of a list of image files."""

    # (n_images, n_features) float32, the columns of several spaces side by side; a row of NaN where
    # there is a problem.
    values: np.ndarray
    problems: dict[int, str]  # index of an image -> why it has no features
    computed: set[bytes]  # contents that the backbone had to look at


def extract_features(
    paths: Sequence[Path | None],
    backbone: Backbone,
    spaces: Sequence[FeatureSpace],
    store: FeatureStore,
    compute: FeatureFunction,
    progress: Progress = no_progress,
    views: Sequence[View] = (ORIGINAL,),
    contents: FileContents | None = None,
) -> _ImageFeatures:
    """Return the features of images, computing and storing those that are not there yet.

    An image's features depend on nothing but its content, the space and the views: batches
    have one shape, so neither the other images nor their order change a bit of them.

    Args:
        paths: one an image; `None` gives a row of NaN.
        spaces: of the backbone, in the order of the columns that the function gives.
        compute: called only if something must be computed.
        progress: told (done, total) in images to be computed.
        views: what the features are the mean over; each is stored apart.
        contents: of the paths, where they were hashed already.
    """
    contents = contents or hash_files(paths, store)
    pairs = list(zip(paths, contents.hashes, strict=True))
    path_of = {content: path for path, content in pairs if path is not None and content}
    row_of = {content: row for row, content in enumerate(path_of)}
    of_views: dict[View, np.ndarray] = {}
    missing: dict[bytes, list[View]] = {}
    for view in views:
        found = [store.read(_view_space(space, view), list(path_of)) for space in spaces]
        of_views[view] = np.hstack(found)
        is_missing = np.isnan(of_views[view]).any(axis=1)
        for content, row in row_of.items():
            if is_missing[row]:
                missing.setdefault(content, []).append(view)
    failed: dict[bytes, str] = {}
    computed: set[bytes] = set()

    def read(content: bytes) -> np.ndarray | ImageReadError:
        try:
            return _read_checked(path_of[content], content, backbone, missing[content])
        except ImageReadError as error:
            return error

    def readable(
        decoded: Iterable[np.ndarray | ImageReadError],
    ) -> Iterator[tuple[int, View, bytes, np.ndarray]]:
        for n_done, (content, pixels) in enumerate(zip(missing, decoded, strict=True), 1):
            if isinstance(pixels, ImageReadError):
                failed[content] = str(pixels)
                continue
            for view, of_view in zip(missing[content], pixels, strict=True):
                yield n_done, view, content, of_view

    ends = np.cumsum([space.n_features for space in spaces])[:-1]
    with closing(read_ahead(read, missing, defaults.DECODE_AHEAD)) as decoded:
        for n_done, view, batch, pixels in _batches(readable(decoded), backbone.batch_size):
            values = compute(pixels)[: len(batch)]
            is_finite = np.isfinite(values).all(axis=1)
            for place in np.flatnonzero(~is_finite):
                where = path_of[batch[place]]
                failed[batch[place]] = f"{where}: the backbone gives no finite numbers for it"
            kept = [batch[place] for place in np.flatnonzero(is_finite)]
            columns = np.split(values[is_finite], ends, axis=1)
            for space, of_space in zip(spaces, columns, strict=True):
                store.write(_view_space(space, view), kept, of_space)
            of_views[view][[row_of[content] for content in kept]] = values[is_finite]
            computed.update(kept)
            progress(n_done, len(missing))

    # They may hold something else than was noted of them.
    store.forget_files([path_of[content] for content in failed])
    mean, *others = of_views.values()
    for further in others:
        mean += further
    mean /= len(of_views)
    result = np.full((len(paths), mean.shape[1]), np.nan, dtype=np.float32)
    problems = {index: why for index, why in contents.problems.items() if paths[index] is not None}
    for index, (path, known) in enumerate(pairs):
        if path is None or not known:
            continue
        result[index] = mean[row_of[known]]
        if why := failed.get(known):
            # The same content may stand under several names; each has its own message.
            problems[index] = why.replace(str(path_of[known]), str(path), 1)
    return _ImageFeatures(result, dict(sorted(problems.items())), computed - set(failed))


def _view_space(space: FeatureSpace, view: View) -> FeatureSpace:
    """Return the feature space of one view; that of the original is the backbone's own."""
    if view == ORIGINAL:
        return space
    return FeatureSpace({**space.facts, "view": view.name}, space.n_features)


def _read_checked(
    path: Path, content: bytes, backbone: Backbone, views: Sequence[View]
) -> np.ndarray:
    """Decode the very bytes that the features will be filed under."""
    try:
        with path.open("rb") as file:
            before = os.fstat(file.fileno())
            # A large file is read twice, not kept in memory beside its pixels.
            is_large = before.st_size > _LARGE_FILE_BYTES
            source = file if is_large else io.BytesIO(file.read())
            is_same = hashlib.file_digest(source, "sha256").digest() == content
            if is_same:
                source.seek(0)
                how = backbone.preprocessing
                pixels = read_views(path, backbone.input_size_px, how, views, source)
                is_same = not is_large or file_stamp(os.fstat(file.fileno())) == file_stamp(before)
    except ImageReadError:
        raise
    except OSError as error:
        raise ImageReadError(f"{path}: cannot be read: {error.strerror}") from error
    if not is_same:
        raise ImageReadError(f"{path}: changed while it was being read; run the command again")
    return pixels


def _batches(
    decoded: Iterable[tuple[int, View, bytes, np.ndarray]], size: int
) -> Iterator[tuple[int, View, list[bytes], np.ndarray]]:
    """Gather each view of images into batches of one shape; the last is filled up with black."""
    gathered: dict[View, dict[bytes, np.ndarray]] = {}

    def batch(view: View) -> tuple[View, list[bytes], np.ndarray]:
        images = gathered.pop(view)
        pixels = list(images.values())
        filler = np.zeros_like(pixels[0])
        return view, list(images), np.stack(pixels + [filler] * (size - len(pixels)))

    n_done = 0
    for n_done, view, content, pixels in decoded:
        gathered.setdefault(view, {})[content] = pixels
        if len(gathered[view]) == size:
            yield n_done, *batch(view)
    for view in list(gathered):
        yield n_done, *batch(view)


def read_ahead(
    function: Callable[[_Item], _Result], items: Iterable[_Item], n_ahead: int
) -> Generator[_Result, None, None]:
    """Yield a function's results in the order of the items, at most `n_ahead` computed ahead."""
    with thread_pool() as pool:
        ahead: deque[Future[_Result]] = deque()
        for item in items:
            ahead.append(pool.submit(function, item))
            if len(ahead) >= n_ahead:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()

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
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tripletkit import defaults
from tripletkit.data.images import FileContents, hash_files, thread_pool
from tripletkit.errors import ImageReadError, StoredFeaturesError
from tripletkit.features.backbones import Backbone
from tripletkit.features.image_views import ORIGINAL, View, read_views
from tripletkit.features.store import FeatureSpace, Store
from tripletkit.features.store_file import file_stamp
from tripletkit.progress import Progress

# `(batch_size, side, side, 3)` uint8 -> `(batch_size, n_features)` float32, the columns of
# several spaces side by side
FeatureFunction = Callable[[np.ndarray], np.ndarray]

_LARGE_FILE_BYTES = 1 << 26


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
    store: Store,
    load_function: Callable[[], FeatureFunction],
    progress: Progress | None = None,
    views: Sequence[View] = (ORIGINAL,),
    contents: FileContents | None = None,
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
        load_function: makes the function from a batch of the backbone's size
            of images to features; called only if something must be computed.
        progress: told (done, total) in images to be computed.
        views: what the features are the mean over.
        contents: of the paths, where they were hashed already. Defaults to hashing them.
    Raises:
        StoreError: if the store fails.
    """
    contents = contents or hash_files(paths, store)
    computed: set[bytes] = set()
    while True:
        try:
            return _extract(
                paths, contents, backbone, spaces, store, load_function, progress, views, computed
            )
        except StoredFeaturesError:
            # Another process cleared the store. What is computed from now on stays in memory, so
            # that each further turn has less to do.
            store.hold_written()


def _extract(
    paths: Sequence[Path | None],
    known: FileContents,
    backbone: Backbone,
    spaces: Sequence[FeatureSpace],
    store: Store,
    load_function: Callable[[], FeatureFunction],
    progress: Progress | None,
    views: Sequence[View],
    computed: set[bytes],
) -> ImageFeatures:
    """Return features as `extract_features` does, unless stored ones go missing meanwhile."""
    problems = {index: why for index, why in known.problems.items() if paths[index] is not None}
    contents = [
        None if path is None else content for path, content in zip(paths, known.hashes, strict=True)
    ]
    spaces_of = {view: [view_space(space, view) for space in spaces] for view in views}
    ends = np.cumsum([space.n_features for space in spaces])
    with thread_pool() as pool:
        path_of = {content: path for path, content in zip(paths, contents, strict=True) if content}
        missing = _find_missing(spaces_of, store, path_of)
        unreadable: dict[bytes, str] = {}
        changed: list[Path] = []
        compute = None
        decoded = _decode(missing, path_of, backbone, pool, unreadable, changed)
        for n_done, view, batch, pixels in _batches(decoded, backbone.batch_size):
            compute = compute or load_function()
            batch, features = _keep_finite(batch, compute(pixels), path_of, unreadable)
            columns = np.split(features, ends[:-1], axis=1)
            for space, values in zip(spaces_of[view], columns, strict=True):
                store.write(space, batch, values)
            computed.update(batch)
            if progress is not None:
                progress(n_done, len(missing))

    if changed:
        store.forget_files(changed)
    for index, content in enumerate(contents):
        if content in unreadable:
            # The same content may stand under several names; each has its own message.
            problems[index] = unreadable[content].replace(
                str(path_of[content]), str(paths[index]), 1
            )
    usable = [index for index, content in enumerate(contents) if content and index not in problems]
    found = [contents[index] for index in usable]
    values = np.full((len(paths), ends[-1]), np.nan, dtype=np.float32)
    for number, (space, end) in enumerate(zip(spaces, ends, strict=True)):
        in_views = [of_view[number] for of_view in spaces_of.values()]
        values[usable, end - space.n_features : end] = _read_mean(store, in_views, found)
    return ImageFeatures(
        values, dict(sorted(problems.items())), frozenset(computed - set(unreadable))
    )


def _keep_finite(
    batch: list[bytes],
    features: np.ndarray,
    path_of: Mapping[bytes, Path],
    unreadable: dict[bytes, str],
) -> tuple[list[bytes], np.ndarray]:
    """Return the contents and features of a batch without those that are no numbers."""
    features = features[: len(batch)]
    is_finite = np.isfinite(features).all(axis=1)
    for place in np.flatnonzero(~is_finite):
        content = batch[place]
        unreadable[content] = f"{path_of[content]}: the backbone gives no finite numbers for it"
    return [batch[place] for place in np.flatnonzero(is_finite)], features[is_finite]


def view_space(space: FeatureSpace, view: View) -> FeatureSpace:
    """Return the feature space of one view; that of the original is the backbone's own."""
    if view == ORIGINAL:
        return space
    return FeatureSpace({**space.facts, "view": view.name}, space.n_features)


def _find_missing(
    spaces_of: Mapping[View, Sequence[FeatureSpace]],
    store: Store,
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
    store: Store, spaces: Sequence[FeatureSpace], contents: Sequence[bytes]
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
    changed: list[Path],
) -> Iterator[tuple[int, bytes, Mapping[View, np.ndarray]]]:
    """Yield (how many are done, content, pixels of views) of each readable image.

    Each is decoded once, ahead of the backbone. Files that hold something else than their hash
    says are added to those that changed.
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
            if isinstance(error, _ChangedError):
                changed.append(path_of[content])


class _ChangedError(ImageReadError):
    """A file does not hold what its hash says."""


def _read_checked(
    path: Path, content: bytes, backbone: Backbone, views: Sequence[View]
) -> np.ndarray:
    """Decode the very bytes that the features will be filed under."""
    changed = f"{path}: changed while it was being read; run the command again"
    try:
        with path.open("rb") as file:
            before = os.fstat(file.fileno())
            # A large file is read twice, not kept in memory beside its pixels.
            is_large = before.st_size > _LARGE_FILE_BYTES
            source = file if is_large else io.BytesIO(file.read())
            if hashlib.file_digest(source, "sha256").digest() != content:
                raise _ChangedError(changed)
            source.seek(0)
            how = backbone.preprocessing
            pixels = read_views(path, backbone.input_size_px, how, views, source)
            if is_large and file_stamp(os.fstat(file.fileno())) != file_stamp(before):
                raise _ChangedError(changed)
            return pixels
    except ImageReadError:
        raise
    except OSError as error:
        raise ImageReadError(f"{path}: cannot be read: {error.strerror}") from error


def _batches(
    decoded: Iterator[tuple[int, bytes, Mapping[View, np.ndarray]]], size: int
) -> Iterator[tuple[int, View, list[bytes], np.ndarray]]:
    """Gather each view of images into batches of one shape; the last is filled up with black."""
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

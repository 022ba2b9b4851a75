"""Features of image files: from the store where they are there, else from the backbone.

Of several views of an image (the whole of it, its mirror image, crops) features are averaged, which
is known as test-time augmentation.

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
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, TypeVar

import numpy as np
from PIL import Image

from tripletkit import defaults
from tripletkit.data.decoding import read_image, resize_to_square
from tripletkit.data.images import FileContents, hash_files, thread_pool
from tripletkit.errors import BackboneError, ImageReadError, SettingsError
from tripletkit.features.backbones import Backbone, FeatureFunction, Preprocessing
from tripletkit.features.store import FeatureSpace, FeatureStore, file_stamp
from tripletkit.progress import Progress, no_progress
from tripletkit.registry import describe_unknown

_LARGE_FILE_BYTES = 1 << 26

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


# Crops are 224 pixels of 256 wherever the backbone takes 224, and in proportion elsewhere.
_ENLARGED = 256 / 224


@dataclass(frozen=True)
class View:
    """One way to look at an image."""

    name: str  # in the key of stored features: what shows other pixels gets another name
    # Left and top of a crop, as shares of the room there is; None for the whole image.
    place: tuple[float, float] | None = None
    is_mirrored: bool = False

    def resized_px(self, size_px: int) -> int:
        """Return the side of the square that an image is resized to before it is cut."""
        return size_px if self.place is None else round(size_px * _ENLARGED)

    def corner_px(self, size_px: int) -> tuple[int, int]:
        """Return left and top of what is cut out of that square."""
        room_px = self.resized_px(size_px) - size_px
        left, top = self.place or (0.0, 0.0)
        return int(left * room_px), int(top * room_px)

    def cut(self, resized: np.ndarray, size_px: int) -> np.ndarray:
        """Return the view's pixels of an image that was resized to `resized_px(size_px)`."""
        left, top = self.corner_px(size_px)
        pixels = resized[top : top + size_px, left : left + size_px]
        return pixels[:, ::-1] if self.is_mirrored else pixels


ORIGINAL = View("original")
_FLIP = View("flip", is_mirrored=True)
_FIVE_CROPS = (
    View("crop-top-left", (0.0, 0.0)),
    View("crop-top-right", (1.0, 0.0)),
    View("crop-bottom-left", (0.0, 1.0)),
    View("crop-bottom-right", (1.0, 1.0)),
    View("crop-center", (0.5, 0.5)),
)

# What can be asked for -> the views that are averaged then. Ten crops: Krizhevsky, Sutskever,
# Hinton. ImageNet classification with deep convolutional neural networks. NeurIPS 2012.
VIEW_SETS: dict[str, tuple[View, ...]] = {
    "original": (ORIGINAL,),
    "flip": (ORIGINAL, _FLIP),
    "five-crop": _FIVE_CROPS,
    "ten-crop": (
        *_FIVE_CROPS,
        *(View(f"{view.name}-flip", view.place, is_mirrored=True) for view in _FIVE_CROPS),
    ),
}
# Every view, in the order in which views are looked at and summed.
_VIEWS = {view.name: view for views in VIEW_SETS.values() for view in views}


def choose_views(names: Sequence[str]) -> tuple[View, ...]:
    """Return the views of one or several `VIEW_SETS`, each once and in an order of their own."""
    for name in names:
        if name not in VIEW_SETS:
            raise SettingsError("views", describe_unknown(name, VIEW_SETS))
    chosen = {view for name in names for view in VIEW_SETS[name]}
    return tuple(view for view in _VIEWS.values() if view in chosen)


def get_view(name: str) -> View:
    """Return one view by its own name."""
    if name not in _VIEWS:
        raise BackboneError(
            f'expected a view among {", ".join(_VIEWS)}, got "{name}". Update tripletkit.'
        )
    return _VIEWS[name]


@dataclass
class Collection:
    """Features of named images; two names of one content are one image."""

    problems: dict[int, str]  # index of a name -> why it has no features
    # (n_names, n_features) float32; NaN where an image is missing or broken
    features: np.ndarray = field(default_factory=lambda: np.empty((0, 0), np.float32))
    computed: set[bytes] = field(default_factory=set)  # contents that a backbone had to look at
    there: set[bytes] = field(default_factory=set)  # those of all images that could be read

    @property
    def n_computed(self) -> int:
        return len(self.computed)

    @property
    def n_stored(self) -> int:
        return len(self.there - self.computed)

    def is_usable(self) -> np.ndarray:
        """Return `(n_images,)` bool: the image has features."""
        return np.isfinite(self.features[:, 0])


def extract_features(
    paths: Sequence[Path | None],
    backbone: Backbone,
    spaces: Sequence[FeatureSpace],
    store: FeatureStore,
    compute: FeatureFunction,
    progress: Progress = no_progress,
    views: Sequence[View] = (ORIGINAL,),
    contents: FileContents | None = None,
) -> Collection:
    """Return the features of images, computing and storing those that are not there yet.

    Batches have one shape, so neither the other images nor their order change a bit of them. They
    are the mean over the views, each stored apart; a path of None gives a row of NaN. `compute` is
    called only if needed, and gives the columns of several spaces side by side.
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
    return Collection(
        dict(sorted(problems.items())), result, computed - set(failed), set(path_of) - set(failed)
    )


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
                pixels = _read_views(path, backbone.input_size_px, how, views, source)
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


def _read_views(
    path: Path,
    size_px: int,
    how: Preprocessing,
    views: Sequence[View],
    file: BinaryIO | None = None,
) -> np.ndarray:
    """Decode an image once and return views of it: `(n_views, size_px, size_px, 3)` uint8, RGB."""
    image = read_image(path, at_least_px=how.cut_from_px or size_px, file=file)
    if how.cut_from_px is not None:
        middle = _cut_middle(image, size_px, how)
        return np.stack([view.cut(middle, size_px) for view in views])
    sides = {view.resized_px(size_px) for view in views}
    resized = {side: resize_to_square(image, side, how.resample) for side in sides}
    return np.stack([view.cut(resized[view.resized_px(size_px)], size_px) for view in views])


def _cut_middle(image: Image.Image, size_px: int, how: Preprocessing) -> np.ndarray:
    """Resize an image and cut a square from its middle, as an encoder's own processor does."""
    if how.shortest_edge_px is None:
        width = height = how.square_px or size_px
    else:
        # Rounded down in this order, as Hugging Face's processors and torchvision do.
        shorter = min(image.size)
        width, height = (how.shortest_edge_px * side // shorter for side in image.size)
    resized = image.resize((width, height), Image.Resampling[how.resample.upper()])
    rooms = (side - size_px for side in (width, height))
    # Python rounds a half to the even number.
    left, top = (round(room / 2) if how.rounds_half else room // 2 for room in rooms)
    return np.asarray(resized.crop((left, top, left + size_px, top + size_px)))

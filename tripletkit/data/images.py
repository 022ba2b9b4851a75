"""The images that a run is given: their names, files, contents, and what is wrong with them."""

from __future__ import annotations

import os
import shutil
import weakref
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from stat import S_ISREG
from tempfile import mkdtemp
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypedDict

import numpy as np
from PIL import Image

from tripletkit.data.decoding import make_rgb
from tripletkit.data.folder import (
    IMAGE_SUFFIXES,
    find_meant_folder,
    list_images,
    locate_images,
    place_problems,
)
from tripletkit.data.outputs import hash_file, note_input, private_temporary_folder
from tripletkit.errors import (
    DataWarning,
    ImageNameError,
    ImageReadError,
    caution,
    describe_problems,
)

if TYPE_CHECKING:
    from typing_extensions import TypeIs

PathLike = str | os.PathLike[str]
_ImageLike = PathLike | np.ndarray | Image.Image


class ImagePolicy(TypedDict):
    """What to do with images that are bad or outside; see `Images`."""

    skip_bad: bool
    follow_outside: bool


class _ContentMemory(Protocol):
    """What remembers the hashes of files, so that each is read once: the feature stores."""

    def content_hashes(
        self, paths: Sequence[Path], stats: Sequence[os.stat_result]
    ) -> list[bytes | None]:
        """Return the hash of each file that did not change since; None for the others."""

    def remember_files(self, files: Sequence[tuple[Path, os.stat_result, bytes]]) -> None:
        """Keep the hashes of files."""


@dataclass(frozen=True)
class FileContents:
    """The content of a list of files."""

    hashes: list[bytes | None]  # SHA-256 of each; None where there is none that can be read
    problems: dict[int, str]  # index of a file -> why it cannot be read


class _Files(NamedTuple):
    """Named images, where each name was read, and the file of each or what is wrong with it."""

    names: Sequence[str]
    places: Sequence[str]
    paths: Sequence[Path | None]
    problems: dict[int, str]
    contents: FileContents | None = None


class _Scratch:
    """A folder for the files of arrays, gone when nothing refers to it any more."""

    def __init__(self) -> None:
        self.folder = Path(mkdtemp(prefix="tripletkit-", dir=private_temporary_folder()))
        weakref.finalize(self, shutil.rmtree, self.folder, ignore_errors=True)


@dataclass(frozen=True, eq=False)
class Images:
    """Images and what to do with those that are bad or outside; `open_images` makes it.

    A folder is listed when its names are first asked for, and `find` takes some of its images by
    name without listing the rest.

    Attributes:
        folder: of the images; None for a list of files, and for names that need no files.
        skip_bad: leave images out that are missing or cannot be read, instead of raising.
        follow_outside: allow names and links that lead out of the folder.
        has_files: whether there are image files at all; features may be given without.
    """

    folder: Path | None
    skip_bad: bool = False
    follow_outside: bool = False
    has_files: bool = True
    _given: _Files | None = field(default=None, repr=False)
    _scratch: _Scratch | None = field(default=None, repr=False)

    @cached_property
    def _files(self) -> _Files:
        if self._given is not None:
            return self._given
        assert self.folder is not None
        names = list_images(self.folder)
        return self._locate(names, [str(self.folder)] * len(names))

    @property
    def names(self) -> Sequence[str]:
        """Distinct names of the images."""
        return self._files.names

    @property
    def places(self) -> Sequence[str]:
        """Where each name was read (`train.txt:3`), for messages."""
        return self._files.places

    @property
    def paths(self) -> Sequence[Path | None]:
        """The file of each name; None where there is none."""
        return self._files.paths

    @property
    def problems(self) -> dict[int, str]:
        """Index of a name -> what is wrong with it."""
        return self._files.problems

    @property
    def policy(self) -> ImagePolicy:
        """What to do with images that are bad or outside, as `open_images` takes it."""
        return ImagePolicy(skip_bad=self.skip_bad, follow_outside=self.follow_outside)

    def usable(self) -> Images:
        """Return these images, to leave out those that are missing or cannot be read."""
        return replace(self, skip_bad=True)

    def in_folder(self, folder: Path) -> Images:
        """Return the images of another folder, treated in the same way."""
        return Images(folder, **self.policy)

    def or_folder(self, folder: Path | None) -> Images:
        """Return these; where none were given those of a folder, treated in the same way."""
        return self if self.has_files or folder is None else self.in_folder(folder)

    def is_there(self) -> np.ndarray:
        """Return `(n_names,)` bool: the image was found, or none has to be."""
        return np.array([not self.has_files or path is not None for path in self.paths], bool)

    def find(self, names: Sequence[str], places: Sequence[str] | None = None) -> Images:
        """Find the images of distinct names; cheap, so that it can come before anything slow."""
        places = [str(self.folder or "images")] * len(names) if places is None else places
        if not self.has_files:
            return self._with(_Files(names, places, [None] * len(names), {}))
        return self._with(self._locate(names, places))

    def take(self, rows: Sequence[int]) -> Images:
        """Return some of these images, in the order of their indices as given."""
        names, places, paths, problems, contents = self._files
        if contents is not None:
            contents = FileContents(
                [contents.hashes[row] for row in rows], _take_problems(contents.problems, rows)
            )
        return self._with(
            _Files(
                [names[row] for row in rows],
                [places[row] for row in rows],
                [paths[row] for row in rows],
                _take_problems(problems, rows),
                contents,
            )
        )

    def contents(self, memory: _ContentMemory) -> FileContents:
        """Return the content hash of each file: what an image is, whatever its name.

        They are computed when they are first asked for, and travel with the names from then on.
        """
        found = self._files.contents or hash_files(self.paths, memory)
        self.__dict__["_files"] = self._files._replace(contents=found)
        return found

    def first_of_same(self, memory: _ContentMemory) -> np.ndarray:
        """Return `(n_names,)` int64: for each name the first one whose file has the same content.

        So `7`, `7.jpg` and a copy of it are one image, and a split cannot part them. A name
        without a readable file stands for itself.
        """
        first_with: dict[bytes, int] = {}
        return np.array(
            [
                index if content is None else first_with.setdefault(content, index)
                for index, content in enumerate(self.contents(memory).hashes)
            ],
            dtype=np.int64,
        )

    def refuse(self, problems: dict[int, str], error: type[Exception] = ImageReadError) -> None:
        """Raise an error that names images with problems, unless bad ones are left out."""
        if problems and not self.skip_bad:
            shown = describe_problems(place_problems(problems, self.places))
            raise error(f"{shown}\nMend these, or leave them out with `skip_bad=True`.")

    def warn_of_missing(self) -> None:
        """Say which names stand for no image, and are left out."""
        if self.problems:
            shown = describe_problems(place_problems(self.problems, self.places))
            caution(f"{len(self.problems):,} images are left out:\n{shown}", DataWarning)

    def _with(self, files: _Files) -> Images:
        return replace(self, _given=files)

    def _locate(self, names: Sequence[str], places: Sequence[str]) -> _Files:
        if self.folder is None:
            row_of = {name: row for row, name in enumerate(self.names)}
            rows = [row_of.get(name) for name in names]
            paths = [None if row is None else self.paths[row] for row in rows]
            problems = {
                index: f'there is no image "{names[index]}"' if row is None else self.problems[row]
                for index, row in enumerate(rows)
                if row is None or row in self.problems
            }
        else:
            paths, problems = locate_images(names, self.folder, follow_outside=self.follow_outside)
            if len(names) > 1 and not any(paths) and not self.skip_bad:
                meant = find_meant_folder(names[0], self.folder)
                hint = "Is it the right folder?" if meant is None else f"Did you mean {meant}?"
                raise ImageNameError(
                    f"{self.folder}: none of {len(names):,} images found. {hint} The first:\n"
                    f"{places[0]}: {problems[0]}"
                )
        files = _Files(names, places, paths, problems)
        self._with(files).refuse(problems, ImageNameError)
        return files


# What the public functions take for images.
ImagesLike = Images | _ImageLike | Sequence[_ImageLike]


def open_images(
    given: ImagesLike | None,
    names: Sequence[str] | None = None,
    places: Sequence[str] | None = None,
    *,
    skip_bad: bool = False,
    follow_outside: bool = False,
) -> Images:
    """Take images, whatever they come as.

    Args:
        given: a folder, whose images are named by their paths in it; or one or several of: path
            of a file, `(height, width)` or `(height, width, 3 or 4)` array of uint8 (RGB, RGBA) or
            bool, PIL image. None where features are given and no file is needed. `Images` keep
            the choices that they were opened with.
        names: of a folder, the images to take. Defaults to all. Of several images, distinct names
            for them. Defaults to the paths as they were given, and to the places in the list of
            what has none.
        places: where each name was read (`train.txt:3`), for messages.
        skip_bad: leave images out that are missing or cannot be read, instead of raising. Defaults
            to `False`.
        follow_outside: allow names and links that lead out of the folder. Defaults to `False`.
    Returns:
        `Images`, which is what every function takes as `images`.
    Raises:
        ImageNameError: if there is no such folder, a name stands for no image, there are no
            images, or names are not one for each or not distinct.
        ImageReadError: if something is no image.
    """
    if given is None:
        nothing = _Files([], [], [], {})
        images = Images(None, skip_bad, follow_outside, has_files=False, _given=nothing)
    elif isinstance(given, Images):
        images = given
    elif is_path(given) and not _is_file(Path(given)):
        note_input(Path(given))
        images = Images(Path(given), skip_bad, follow_outside)
    else:
        return _open_list([given] if _is_one(given) else list(given), names, places, skip_bad)
    return images if names is None else images.find(names, places)


def open_usable_images(
    given: ImagesLike,
    names: Sequence[str] | None = None,
    places: Sequence[str] | None = None,
    *,
    follow_outside: bool = False,
) -> Images:
    """Take images as `open_images` does, but for those that are missing or cannot be read."""
    return open_images(given, names, places, skip_bad=True, follow_outside=follow_outside)


def hash_files(paths: Sequence[Path | None], memory: _ContentMemory) -> FileContents:
    """Hash image files, each read only where its size or time changed since it was hashed."""
    there: dict[int, tuple[Path, os.stat_result]] = {}
    problems: dict[int, str] = {}
    for index, path in enumerate(paths):
        if path is None:
            continue
        try:
            stat = path.stat()
        except OSError as error:
            problems[index] = f"{path}: cannot be read: {error.strerror}"
            continue
        if S_ISREG(stat.st_mode):
            there[index] = path, stat
        else:  # A pipe would be waited for.
            problems[index] = f"{path}: expected an image, got a folder, a pipe or a device"
    known = memory.content_hashes(*map(list, zip(*there.values(), strict=True))) if there else []
    hashes = dict(zip(there, known, strict=True))
    unknown = {index: there[index] for index, content in hashes.items() if content is None}
    new = []
    with thread_pool() as pool:
        hashed = pool.map(_hash_or_error, [path for path, _ in unknown.values()])
        for (index, (path, stat)), content in zip(unknown.items(), hashed, strict=True):
            if isinstance(content, OSError):
                problems[index] = f"{path}: cannot be read: {content.strerror}"
                continue
            hashes[index] = content
            new.append((path, stat, content))
    if new:
        memory.remember_files(new)
    return FileContents([hashes.get(index) for index in range(len(paths))], problems)


@contextmanager
def thread_pool() -> Iterator[ThreadPoolExecutor]:
    """Give a pool that drops what waits when the block fails or is interrupted."""
    pool = ThreadPoolExecutor(os.cpu_count())
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def is_path(value: Any) -> TypeIs[PathLike]:
    """Return whether a value names a file or a folder."""
    return isinstance(value, (str, os.PathLike))


def _hash_or_error(path: Path) -> bytes | OSError:
    try:
        return hash_file(path)
    except OSError as error:
        return error


def _open_list(
    given: list[Any], names: Sequence[str] | None, places: Sequence[str] | None, skip_bad: bool
) -> Images:
    if not given:
        raise ImageNameError("expected images, got none")
    if names is None:
        named = [str(image if is_path(image) else place) for place, image in enumerate(given)]
    else:
        named = [str(name) for name in names]
    if len(named) != len(given) or len(set(named)) != len(named):
        raise ImageNameError(
            f"expected a name of its own for each of {len(given):,} images, got {len(named):,} "
            f"names, {len(set(named)):,} of them distinct"
        )
    # There is one road from images to vectors, and it starts at a file's content, by which
    # features are stored; an array in memory is written as a PNG, which loses nothing.
    scratch = None if all(map(is_path, given)) else _Scratch()
    paths: list[Path | None] = []
    problems: dict[int, str] = {}
    for place, image in enumerate(given):
        if scratch is not None and not is_path(image):
            paths.append(_write(image, scratch.folder / f"{place}.png", named[place]))
            continue
        path = Path(image)
        note_input(path)
        if not path.is_file():
            problems[place] = f'there is no image "{path}"'
            if not skip_bad:
                raise ImageNameError(problems[place])
        paths.append(None if place in problems else path)
    files = _Files(named, named if places is None else places, paths, problems)
    return Images(None, skip_bad, _given=files, _scratch=scratch)


def _is_file(path: Path) -> bool:
    return path.is_file() or (path.suffix.lower() in IMAGE_SUFFIXES and not path.is_dir())


def _is_one(given: _ImageLike | Sequence[_ImageLike]) -> TypeIs[_ImageLike]:
    if is_path(given) or isinstance(given, Image.Image):
        return True
    return isinstance(given, np.ndarray) and (
        given.ndim == 2
        or (given.ndim == 3 and (given.shape[2] in (3, 4) or given.shape[0] in (3, 4)))
    )


def _write(image: Any, path: Path, name: str) -> Path:
    """Write pixels as they are, and return the file."""
    try:
        pixels = image if isinstance(image, Image.Image) else _from_array(np.asarray(image))
        # Hardly compressed, because it is read once and then gone.
        make_rgb(pixels).save(path, compress_level=1)
    except (OSError, ValueError, TypeError) as error:
        raise ImageReadError(f"image {name}: {error}") from error
    return path


def _from_array(pixels: np.ndarray) -> Image.Image:
    is_image = pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] in (3, 4))
    if pixels.dtype == bool:
        pixels = pixels.astype(np.uint8) * 255
    if not is_image or pixels.dtype != np.uint8 or not pixels.size:
        raise ValueError(
            "expected a path, a PIL image, or an array of uint8, 0 to 255, of the shape "
            f"(height, width) or (height, width, 3), got {pixels.dtype} of the shape "
            f"{pixels.shape}{_how_to_order(pixels)}"
        )
    return Image.fromarray(pixels)


def _how_to_order(pixels: np.ndarray) -> str:
    """Say how an array in another order, or of another type, becomes an image."""
    if pixels.ndim == 3 and pixels.shape[0] in (3, 4) and pixels.shape[2] not in (3, 4):
        return ". Its channels stand first: give array.transpose(1, 2, 0)"
    if pixels.ndim == 4:
        return ". Give several images as a list: list(array)"
    if pixels.dtype.kind == "f" and pixels.size and 0 <= pixels.min() <= pixels.max() <= 1:
        return ". Of numbers from 0 to 1 give (array * 255).round().astype('uint8')"
    return ""


def _take_problems(problems: dict[int, str], rows: Sequence[int]) -> dict[int, str]:
    return {place: problems[row] for place, row in enumerate(rows) if row in problems}

"""The images that a run is given: their names, files, contents, and what is wrong with them.

Names are compared with what a folder really lists, never with what the file system would accept, so
that they mean the same on every machine. An accent may be spelt in either way. Where no name is
there as it is written, all may be written with backslashes, with folders before them, or with
extensions in another case: then they are read so, if each is an image, which is told.
"""

from __future__ import annotations

import difflib
import errno
import logging
import os
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import takewhile
from pathlib import Path
from stat import S_ISREG
from typing import TYPE_CHECKING, Any, NamedTuple, TypedDict

import numpy as np
from PIL import Image

from tripletkit.data.decoding import HEIC_SUFFIXES, IMAGE_SUFFIXES, image_suffixes, make_rgb
from tripletkit.data.outputs import Scratch, hash_file, note_input
from tripletkit.errors import (
    DataWarning,
    ImageNameError,
    ImageReadError,
    OutputError,
    caution,
    describe_problems,
)

if TYPE_CHECKING:
    from typing_extensions import TypeIs

_HEIC_CURE = "HEIC is read with the extra heic: pip install 'tripletkit[heic]'"
# What network disks, archivers and systems leave in folders: thumbnails, resource forks, indexes.
_LEFT_FOLDERS = frozenset(["@eadir", "__macosx", "#recycle", "#snapshot", "$recycle.bin"])
_LEFT_FILES = frozenset(["thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r"])
_WINDOWS_PATH = re.compile(r"\\|^[A-Za-z]:")
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
# Names of one triplet.
_FEWEST_RESPELLED = 3

logger = logging.getLogger("tripletkit")

PathLike = str | os.PathLike[str]
_ImageLike = PathLike | np.ndarray | Image.Image


class ImagePolicy(TypedDict):
    """What to do with images that are bad or outside; see `Images`."""

    skip_bad: bool
    follow_outside: bool


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
    _scratch: Scratch | None = field(default=None, repr=False)

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

    def contents(self, memory: Any) -> FileContents:
        """Return the content hash of each file: what an image is, whatever its name.

        They are computed when they are first asked for, and travel with the names from then on.
        The memory is a feature store, which remembers the hashes of files.
        """
        found = self._files.contents or hash_files(self.paths, memory)
        self.__dict__["_files"] = self._files._replace(contents=found)
        return found

    def first_of_same(self, memory: Any) -> np.ndarray:
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
            paths, problems = _locate_images(names, self.folder, follow_outside=self.follow_outside)
            if len(names) > 1 and not any(paths) and not self.skip_bad:
                meant = _find_meant_folder(names[0], self.folder)
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
            of a file, `(height, width)` or `(height, width, 1, 3 or 4)` array of uint8 (grey, RGB,
            RGBA) or bool, PIL image. None where features are given and no file is needed. `Images`
            keep the choices that they were opened with.
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
        return _open_list([given] if is_one_image(given) else list(given), names, places, skip_bad)
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


def hash_files(paths: Sequence[Path | None], memory: Any) -> FileContents:
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
        named = [
            os.fspath(image) if is_path(image) else str(place) for place, image in enumerate(given)
        ]
    else:
        named = [str(name) for name in names]
    if len(named) != len(given) or len(set(named)) != len(named):
        raise ImageNameError(
            f"expected a name of its own for each of {len(given):,} images, got {len(named):,} "
            f"names, {len(set(named)):,} of them distinct"
        )
    # There is one road from images to vectors, and it starts at a file's content, by which
    # features are stored; an array in memory is written as a PNG, which loses nothing.
    scratch = None if all(map(is_path, given)) else Scratch()
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


def is_one_image(given: Any) -> TypeIs[_ImageLike]:
    """Return whether it is one image, not several; an array of up to four channels is one."""
    if is_path(given) or isinstance(given, Image.Image):
        return True
    return isinstance(given, np.ndarray) and (
        given.ndim == 2 or (given.ndim == 3 and (given.shape[2] <= 4 or given.shape[0] in (3, 4)))
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
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[:, :, 0]
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


# The path of each name, None where there is a problem; and what is wrong, by the index of a name.
_Located = tuple[list[Path | None], dict[int, str]]


def _locate_images(names: Sequence[str], folder: Path, *, follow_outside: bool = False) -> _Located:
    """Find the file of every name, a path below the folder, and say what is wrong with the others.

    An exact match always wins; without an extension two files (`7.jpg`, `7.png`) are a problem.
    """
    _check_folder(folder)
    listing = _Listing(folder, follow_outside)
    located = listing.locate(names)
    problems = located[1]
    if not problems or len(names) < _FEWEST_RESPELLED:
        return located
    first = next(iter(problems))
    for reading, how in _respell(names, none_found=len(problems) == len(names)):
        if reading == list(names):
            continue
        paths, left = listing.locate(reading)
        if left or (how == _OTHER_CASE and not _differ_in_case(names, paths)):
            continue
        logger.info(
            "%s: all %s names are read %s, such as %s as %s.",
            folder,
            f"{len(names):,}",
            how,
            names[first],
            os.path.relpath(paths[first] or "", folder),
        )
        return paths, {}
    return located


_OTHER_CASE = "with their extensions in the case of the files"


def _respell(names: Sequence[str], *, none_found: bool) -> Iterator[tuple[list[str], str]]:
    """Yield names as they may be meant, and how they are read then."""
    if all(map(_number, names)):
        for width in range(2, 10):
            padded = (Path(name).with_stem(Path(name).stem.zfill(width)) for name in names)
            yield [path.as_posix() for path in padded], "with the zeros that a table lost"
    # One name that is written otherwise than the others is more likely a mistake.
    if not none_found or any(map(_ADDRESS.match, names)):
        return
    plain = [name.replace("\\", "/") for name in names]
    yield plain, 'with "/" for "\\"'
    levels = [name.split("/") for name in plain]
    n_shared = len([*takewhile(lambda each: len(set(each)) == 1, zip(*levels, strict=False))])
    for n in range(1, n_shared + 1):
        yield ["/".join(below[n:]) for below in levels], "without what stands before the folder"
    yield [name.rpartition(".")[0] for name in plain], _OTHER_CASE


def _differ_in_case(names: Sequence[str], paths: Sequence[Path | None]) -> bool:
    return all(
        path is not None and Path(name).suffix.lower() == path.suffix.lower()
        for name, path in zip(names, paths, strict=True)
    )


def _find_meant_folder(name: str, folder: Path) -> Path | None:
    """Return the folder inside `folder`, beside or around it, that has a file of this name."""
    for around in folder.absolute().parents[:3]:
        if (around / name).is_file():
            return Path(os.path.relpath(around)) if not folder.is_absolute() else around
    for pattern in (folder, folder.parent):
        for path in sorted(pattern.glob("*/")):
            if (path / name).is_file() and not (path.is_symlink() or path == folder):
                return path
    return None


def place_problems(problems: dict[int, str], places: Sequence[str]) -> list[str]:
    """Put the place where a name was read before what is wrong with it."""
    return [f"{places[index]}: {message}" for index, message in problems.items()]


def _check_name(name: str) -> None:
    """Refuse a name that no image below a folder can have."""
    if _ADDRESS.match(name):
        raise ImageNameError(
            f'expected a path below the image folder, got the address "{name}"; download the '
            "images first, and name their files"
        )
    if _WINDOWS_PATH.search(name):
        raise ImageNameError(
            f'expected a path with "/" below the image folder, got the Windows path "{name}"'
        )
    if name.startswith("/") or ".." in name.split("/"):
        raise ImageNameError(
            f'expected a path below the image folder, got "{name}", which leads out of it. '
            "`follow_outside=True` allows it."
        )


def refuse_folder_of(names: Sequence[str], folder: Path) -> None:
    """Refuse to write into a folder that holds an image of one of the first thousand names."""
    if _is_folder(folder) and any(_locate_images(names[:1000], folder)[0]):
        raise OutputError(
            f"{folder}: is the image folder, into which nothing is written. Choose another place."
        )


def list_images(folder: Path) -> list[str]:
    """Return the names of all images below a folder, sorted, and say how many files are none.

    Left out are hidden files and folders, and what systems leave.
    """
    _check_folder(folder)
    names, others = [], Counter[str]()
    known = image_suffixes()
    for parent, folders, files in os.walk(folder):
        folders[:] = [
            name
            for name in folders
            if not name.startswith(".") and name.casefold() not in _LEFT_FOLDERS
        ]
        for file in files:
            suffix = Path(file).suffix.lower()
            if file.startswith(".") or file.casefold() in _LEFT_FILES:
                continue
            if suffix in known:
                names.append((Path(parent) / file).relative_to(folder).as_posix())
            else:
                others[suffix or "without extension"] += 1
    what = "none in it"
    if others:
        shown = ", ".join(f"{count:,} {suffix}" for suffix, count in others.most_common(5))
        what = f"{others.total():,} files that are not read ({shown})"
        if HEIC_SUFFIXES & set(others):
            what += f". {_HEIC_CURE}"
        logger.info("%s: %s images, %s", folder, f"{len(names):,}", what)
    if not names:
        raise ImageNameError(f"{folder}: expected a folder of images, there is {what}")
    return sorted(names)


def _check_folder(folder: Path) -> None:
    if not _is_folder(folder):
        got = "something else" if os.path.lexists(folder) else "none"
        raise ImageNameError(f"{folder}: expected a folder of images, there is {got}")


def _is_folder(path: Path) -> bool:
    # `Path.is_dir` makes an error of a name that is too long.
    return os.path.isdir(path)  # noqa: PTH112


class _Listing:
    """A folder's entries, each of its subfolders read once and only when a name needs it."""

    def __init__(self, folder: Path, follow_outside: bool) -> None:
        self.folder = folder
        self.real_folder = folder.resolve()
        self.follow_outside = follow_outside
        self.entries: dict[str, _Entries] = {}

    def locate(self, names: Sequence[str]) -> _Located:
        paths: list[Path | None] = []
        problems: dict[int, str] = {}
        for index, name in enumerate(names):
            try:
                paths.append(self.find(name))
            except ImageNameError as error:
                paths.append(None)
                problems[index] = str(error)
        return paths, problems

    def find(self, name: str) -> Path:
        if not (self.follow_outside or self._is_there(name)):
            _check_name(name)
        parent, _, base = name.rpartition("/")
        parent = parent or ("/" if name.startswith("/") else "")
        entries = self._entries_of(parent, name)
        found = base if base in entries.by_name else self._find_bare(name, base, entries)
        path = entries.folder / found
        is_link, other = entries.by_name[found]
        if other:
            raise ImageNameError(f'expected an image, "{name}" is {other}')
        _check_format(found)
        if is_link and not self.follow_outside:
            self._check_inside(path, name)
        return path

    def _is_there(self, name: str) -> bool:
        """Return whether a name with a backslash, which is a path elsewhere, is a file's own."""
        parent, _, base = name.rpartition("/")
        try:
            return "\\" in name and base in self._entries_of(parent, name).by_name
        except ImageNameError:
            return False

    def _find_bare(self, name: str, base: str, entries: _Entries) -> str:
        candidates = (
            entries.like(base, _stem)
            or entries.like(_spelling(base), _spelled_stem)
            or entries.like(_spelling(base), _spelling)
        )
        if len(candidates) == 1:
            return candidates[0]
        if candidates:
            raise ImageNameError(
                f'expected one image for "{name}", got {len(candidates)}: '
                f"{', '.join(sorted(candidates))}. Write the name with its extension."
            )
        for other in entries.by_name:
            if _stem(other) == base:
                _check_format(other)
        wide = entries.like(_number(base), _number)
        if _number(base) and len(wide) == 1:
            raise ImageNameError(
                f'there is no image "{name}" in {self._shown()}. Did the table lose zeros? '
                f"{wide[0]} is there: write the names as text, with all their zeros."
            )
        close = difflib.get_close_matches(base.lower(), entries.lowered, n=1, cutoff=0.8)
        hint = f". Did you mean {entries.lowered[close[0]]!r}?" if close else ""
        raise ImageNameError(f'there is no image "{name}" in {self._shown()}{hint}')

    def _shown(self) -> str:
        """Return the folder as it stands within a sentence, where `.` or `..` would be lost."""
        text = str(self.folder)
        return text if text.strip("./") else f"the folder '{text}'"

    def _entries_of(self, parent: str, name: str) -> _Entries:
        if parent not in self.entries:
            path = self.folder / parent
            if not _is_folder(path):
                raise ImageNameError(f'there is no image "{name}" in {self._shown()}')
            if not self.follow_outside:
                self._check_inside(path, name)
            try:
                self.entries[parent] = _Entries(path)
            except OSError as error:
                raise ImageNameError(
                    f'"{name}" cannot be looked for: {path}: {error.strerror}'
                ) from error
        return self.entries[parent]

    def _check_inside(self, path: Path, name: str) -> None:
        if not path.resolve().is_relative_to(self.real_folder):
            raise ImageNameError(
                f'expected an image inside the image folder, "{name}" is a link that leads '
                "out of it. `follow_outside=True` allows it."
            )


class _Entries:
    """The entries of one folder."""

    def __init__(self, path: Path) -> None:
        self.folder = path
        # Whether each is a link, and what it is instead of a file, empty for a file.
        with os.scandir(path) as entries:
            self.by_name = {each.name: (each.is_symlink(), _name_other(each)) for each in entries}
        self._tables: dict[Callable[[str], str], dict[str, list[str]]] = {}

    @cached_property
    def lowered(self) -> dict[str, str]:
        return {name.lower(): name for name in self.by_name}

    def like(self, value: str, key: Callable[[str], str]) -> list[str]:
        """Return the images whose names have this key; a table of each key is made once."""
        if key not in self._tables:
            self._tables[key] = defaultdict(list)
            for name in self.by_name:
                if Path(name).suffix.lower() in image_suffixes() and not name.startswith("."):
                    self._tables[key][key(name)].append(name)
        return self._tables[key].get(value, [])


def _name_other(entry: os.DirEntry) -> str:
    """Return what an entry is instead of a file, empty for a file."""
    try:
        if entry.is_file():
            return ""
        if entry.is_dir():
            return "a folder"
    except OSError as error:
        return "a link that leads to itself" if error.errno == errno.ELOOP else str(error.strerror)
    return "a broken link" if entry.is_symlink() else "a pipe, a socket or a device"


def _stem(name: str) -> str:
    return name.rpartition(".")[0]


def _spelling(name: str) -> str:
    """Return a name with accents in one piece."""
    return unicodedata.normalize("NFC", name)


def _spelled_stem(name: str) -> str:
    return _spelling(_stem(name))


def _number(name: str) -> str:
    """Return a name of digits, but for its extension, without zeros in front; else nothing."""
    stem = Path(name).stem
    return stem.lstrip("0") or "0" if stem.isdecimal() else ""


def _check_format(name: str) -> None:
    if Path(name).suffix.lower() in HEIC_SUFFIXES - image_suffixes():
        raise ImageNameError(f'expected an image that is read, got "{name}". {_HEIC_CURE}')

"""From names in a triplet file to image files below a folder.

Names are compared with what the folder really lists, never with what the file system would
accept, so that they mean the same on every machine. An accent may be spelt in either way. Where
no name is there as it is written, all may be written with backslashes, with folders before them, or
with extensions in another case: then they are read so, if each is an image, which is told.
"""

from __future__ import annotations

import difflib
import errno
import importlib.util
import logging
import os
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from functools import cache, cached_property
from itertools import takewhile
from pathlib import Path

from tripletkit.errors import ImageNameError, OutputError

IMAGE_SUFFIXES = frozenset(
    ".avif .bmp .gif .jp2 .jpe .jpeg .jpg .jfif .mpo .pbm .pgm .png .pnm .ppm .tga .tif .tiff "
    ".webp".split()
)
# Photos of phones, which are read with the extra `heic`.
_HEIC_SUFFIXES = frozenset([".heic", ".heif"])
_HEIC_CURE = "HEIC is read with the extra heic: pip install 'tripletkit[heic]'"
# What network disks, archivers and systems leave in folders: thumbnails, resource forks, indexes.
_LEFT_FOLDERS = frozenset(["@eadir", "__macosx", "#recycle", "#snapshot", "$recycle.bin"])
_LEFT_FILES = frozenset(["thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r"])
_WINDOWS_PATH = re.compile(r"\\|^[A-Za-z]:")
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
# Names of one triplet.
_FEWEST_RESPELLED = 3

logger = logging.getLogger("tripletkit")


@cache
def image_suffixes() -> frozenset[str]:
    """Return the extensions of images that can be read here, in lower case."""
    reads_heic = importlib.util.find_spec("pillow_heif") is not None
    return IMAGE_SUFFIXES | _HEIC_SUFFIXES if reads_heic else IMAGE_SUFFIXES


# The path of each name, None where there is a problem; and what is wrong, by the index of a name.
_Located = tuple[list[Path | None], dict[int, str]]


def locate_images(names: Sequence[str], folder: Path, *, follow_outside: bool = False) -> _Located:
    """Find the file of every name and say what is wrong with the others.

    A name is a path below the folder. With its extension it means exactly that file; without,
    the one image of that name, and two (`7.jpg` and `7.png`) are a problem. An exact match
    always wins.
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


def find_meant_folder(name: str, folder: Path) -> Path | None:
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
    if _is_folder(folder) and any(locate_images(names[:1000], folder)[0]):
        raise OutputError(
            f"{folder}: is the image folder, into which nothing is written. Choose another place."
        )


def list_images(folder: Path) -> list[str]:
    """Return the names of all images below a folder, sorted, and say how many files are none.

    Left out are hidden files and folders, and what systems leave: thumbnails of network disks,
    resource forks.
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
        if _HEIC_SUFFIXES & set(others):
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
    if Path(name).suffix.lower() in _HEIC_SUFFIXES - image_suffixes():
        raise ImageNameError(f'expected an image that is read, got "{name}". {_HEIC_CURE}')

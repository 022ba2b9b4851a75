"""From names in a triplet file to image files below a folder.

Names are compared with what the folder really lists, never with what the file system would
accept: so upper and lower case, and the two spellings of an accent, mean the same on every
machine.
"""

from __future__ import annotations

import difflib
import errno
import os
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tripletkit.errors import ImageNameError, OutputError

IMAGE_SUFFIXES = frozenset(
    ".avif .bmp .gif .jp2 .jpe .jpeg .jpg .jfif .mpo .pbm .pgm .png .pnm .ppm .tga .tif .tiff "
    ".webp".split()
)
_WINDOWS_PATH = re.compile(r"\\|^[A-Za-z]:")


@dataclass(frozen=True)
class LocatedImages:
    """Where the images of a list of names are.

    Attributes:
        paths: one a name, in their order; `None` where there is a problem.
        problems: index of a name -> what is wrong with it.
    """

    paths: list[Path | None]
    problems: dict[int, str]


def locate_images(
    names: Sequence[str], folder: Path, *, follow_outside: bool = False
) -> LocatedImages:
    """Find the file of every name and say what is wrong with the others.

    A name is a path below the folder. With its extension it means exactly that file; without,
    the one image of that name, and two (`7.jpg` and `7.png`) are a problem. An exact match
    always wins.

    Args:
        names: distinct names as a triplet file has them.
        folder: the image folder.
        follow_outside: allow names and links that lead out of the folder.
    Raises:
        ImageNameError: if there is no such folder.
    """
    _check_folder(folder)
    inside = _Listing(folder, follow_outside)
    paths: list[Path | None] = []
    problems: dict[int, str] = {}
    for index, name in enumerate(names):
        try:
            paths.append(inside.find(name))
        except ImageNameError as error:
            paths.append(None)
            problems[index] = str(error)
    return LocatedImages(paths, problems)


def find_meant_folder(name: str, folder: Path) -> Path | None:
    """Return the folder inside `folder`, or beside it, that has a file of this name, if any."""
    for around in (folder, folder.parent):
        try:
            inside = sorted(path for path in around.iterdir() if path.is_dir())
        except OSError:
            continue
        for path in inside:
            if (path / name).is_file():
                return path
    return None


def place_problems(problems: dict[int, str], places: Sequence[str] | None) -> list[str]:
    """Put the place where a name was read before what is wrong with it."""
    if places is None:
        return list(problems.values())
    return [f"{places[index]}: {message}" for index, message in problems.items()]


def check_name(name: str) -> None:
    """Refuse a name that no image below a folder can have.

    Raises:
        ImageNameError: if it is an absolute path, a Windows path, or leads out by `..`.
    """
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
    """Refuse to write into a folder that holds images of these names.

    Raises:
        OutputError: if it holds one of the first thousand.
    """
    if _is_folder(folder) and any(locate_images(names[:1000], folder).paths):
        raise OutputError(
            f"{folder}: is the image folder, into which nothing is written. Choose another place."
        )


def list_images(folder: Path) -> list[str]:
    """Return the names of all images below a folder, sorted; hidden files are left out.

    Raises:
        ImageNameError: if there is no such folder.
    """
    _check_folder(folder)
    names = []
    for parent, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        names += [
            (Path(parent) / file).relative_to(folder).as_posix()
            for file in files
            if not file.startswith(".") and Path(file).suffix.lower() in IMAGE_SUFFIXES
        ]
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

    def find(self, name: str) -> Path:
        if not self.follow_outside:
            check_name(name)
        parent, _, base = name.rpartition("/")
        parent = parent or ("/" if name.startswith("/") else "")
        entries = self._entries_of(parent, name)
        found = base if base in entries.by_name else self._find_bare(name, base, entries)
        path = entries.folder / found
        is_link, other = entries.by_name[found]
        if other:
            raise ImageNameError(f'expected an image, "{name}" is {other}')
        if is_link and not self.follow_outside:
            self._check_inside(path, name)
        return path

    def _find_bare(self, name: str, base: str, entries: _Entries) -> str:
        candidates = entries.by_stem.get(base, [])
        if len(candidates) == 1:
            return candidates[0]
        if candidates:
            raise ImageNameError(
                f'expected one image for "{name}", got {len(candidates)}: '
                f"{', '.join(sorted(candidates))}. Write the name with its extension."
            )
        close = difflib.get_close_matches(base.lower(), entries.lowered(), n=1, cutoff=0.8)
        hint = f". Did you mean {entries.lowered()[close[0]]!r}?" if close else ""
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
    """The entries of one folder by name, by stem and by lower-case name.

    Attributes:
        folder: whose they are.
        by_name: whether it is a link, and what it is instead of a file; empty for a file.
        by_stem: the names of images without their extension.
    """

    def __init__(self, path: Path) -> None:
        self.folder = path
        self.by_name: dict[str, tuple[bool, str]] = {}
        self.by_stem: dict[str, list[str]] = defaultdict(list)
        self._lowered: dict[str, str] | None = None
        with os.scandir(path) as entries:
            for entry in entries:
                self.by_name[entry.name] = (entry.is_symlink(), _name_other(entry))
                stem, _, suffix = entry.name.rpartition(".")
                if f".{suffix}".lower() in IMAGE_SUFFIXES and not entry.name.startswith("."):
                    self.by_stem[stem].append(entry.name)

    def lowered(self) -> dict[str, str]:
        if self._lowered is None:
            self._lowered = {name.lower(): name for name in self.by_name}
        return self._lowered


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

"""What is being written: hidden neighbours of its place, locked while their writer lives.

A file or folder is made under a hidden name beside the place that it is for, and moved there when
it is whole. A process that is killed leaves the hidden one behind. The system drops a lock when its
process ends, however it ends, so whatever can be locked has no writer any more: the next run that
writes into the folder removes it. Where the system has no such locks, nothing is removed.
"""

from __future__ import annotations

import atexit
import os
import re
import secrets
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import IO

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

_MARK = ".tripletkit-unfinished-"
_HIDDEN = re.compile(rf"\..{{1,40}}{re.escape(_MARK)}[a-z0-9_]{{8}}", re.DOTALL)
# In a hidden folder: what is being made, and what it replaces.
_NEW, _OLD = "new", "old"
# How a message about what is being made in one begins.
UNFINISHED_FOLDER = re.compile(rf".*{re.escape(_MARK)}\w{{8}}/{_NEW}")
# What is whole, and goes into the folder that it is in file by file.
_MOVES = ".tripletkit-moves"


@contextmanager
def unfinished_file(
    target: Path, mode: str, move_in: Callable[[Path, Path], object] = Path.replace
) -> Iterator[IO]:
    """Open a hidden neighbour of a file; it takes the file's place if the block ends well.

    Args:
        target: the file, links resolved.
        mode: `"w"` for text in UTF-8 with `\\n` line ends, `"wb"` for bytes.
        move_in: takes the hidden file and the target.
    """
    encoding, newline = (None, None) if "b" in mode else ("utf-8", "\n")
    descriptor, hidden = _make_locked(target.parent, target.name, is_folder=False)
    try:
        with os.fdopen(descriptor, mode, encoding=encoding, newline=newline) as file:
            yield file
            file.flush()
            os.fsync(descriptor)
            # Still open, so still locked: nobody takes it for litter before it has its place.
            move_in(hidden, target)
    finally:
        hidden.unlink(missing_ok=True)


@contextmanager
def unfinished_folder(target: Path) -> Iterator[Path]:
    """Make a hidden folder to fill; it takes a folder's place if the block ends well.

    What was there goes after that. A kill leaves the old folder or the new one, or none between
    two renames; then `remove_unfinished` puts the new one in its place.
    """
    with _locked_folder(target.parent, target.name) as hidden:
        new, old = (hidden / part / target.name for part in (_NEW, _OLD))
        new.mkdir(parents=True)
        old.parent.mkdir()
        yield new
        with _alone_in(target.parent):
            if target.exists():
                target.rename(old)
            try:
                new.rename(target)
            except OSError:
                old.rename(target)
                raise


@contextmanager
def unfinished_files(folder: Path, check: Callable[[], object] = lambda: None) -> Iterator[Path]:
    """Make a hidden folder; what is in it goes into a folder, all together, if the block ends well.

    The folder is made if it is missing; files in it are replaced, others stay. `check` is called
    right before, while no other run does the same; from then on whoever reads or writes there
    finishes what a kill has left (see `end_moves`).
    """
    is_new = not folder.exists()
    folder.parent.mkdir(parents=True, exist_ok=True)
    folder = folder.resolve()
    with _locked_folder(folder.parent if is_new else folder, folder.name) as hidden:
        new = hidden / _NEW
        new.mkdir()
        yield new
        with _alone_in(folder.parent), _alone_in(folder):
            check()
            if folder.exists():
                _move_in(folder)
                new.rename(folder / _MOVES)
                _move_in(folder)
            else:
                new.rename(folder)


def end_moves(folder: Path) -> bool:
    """Finish what a killed run began to put into a folder's place, or to move into it.

    A run that lives is waited for. Return whether all files of the folder belong together now.
    """
    if not _has_moves(folder):
        if not folder.exists():
            with _alone_in(folder.parent):
                remove_unfinished(folder.parent)
        return True
    with suppress(OSError), _alone_in(folder):
        _move_in(folder)
    return not _has_moves(folder)


def _has_moves(folder: Path) -> bool:
    moves = folder / _MOVES
    return moves.is_dir() and not moves.is_symlink()


def _move_in(folder: Path) -> None:
    if not _has_moves(folder):
        return
    moves = folder / _MOVES
    for path in sorted(moves.rglob("*")):
        target = folder / path.relative_to(moves)
        if path.is_dir():
            target.mkdir(exist_ok=True)
        else:
            path.replace(target)
    shutil.rmtree(moves)


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Keep other runs from putting their outputs in place beside this one."""
    with ExitStack() as stack:
        with suppress(OSError):  # a folder that is to be made, or a system without such locks
            descriptor = os.open(folder, os.O_RDONLY)
            stack.callback(os.close, descriptor)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield


def remove_unfinished(folder: Path) -> None:
    """Remove what killed runs have left in a folder, and finish what they had nearly done."""
    if fcntl is None:
        return
    with suppress(OSError):
        for path in [Path(entry) for entry in os.scandir(folder) if _HIDDEN.fullmatch(entry.name)]:
            with suppress(OSError):
                _remove_if_abandoned(path)


@cache
def private_temporary_folder() -> Path:
    """Return a folder for this process's temporary files, gone when the process ends.

    Libraries leave files in the temporary folder when their process is killed; the next run
    removes those of this folder.
    """
    parent = Path(tempfile.gettempdir()).resolve()
    remove_unfinished(parent)
    folder = _locked_folder(parent, "tripletkit")
    path, owner = folder.__enter__(), os.getpid()

    def remove() -> None:
        if os.getpid() == owner:  # not in a fork
            folder.__exit__(None, None, None)

    atexit.register(remove)
    return path


@contextmanager
def _locked_folder(parent: Path, name: str) -> Iterator[Path]:
    descriptor, hidden = _make_locked(parent, name, is_folder=True)
    try:
        yield hidden
    finally:
        shutil.rmtree(hidden, ignore_errors=True)
        os.close(descriptor)


def _make_locked(parent: Path, name: str, *, is_folder: bool) -> tuple[int, Path]:
    """Make and lock; once more if another run took it for litter before it was locked."""
    while True:
        path = parent / f".{name[:40]}{_MARK}{secrets.token_hex(4)}"
        if is_folder:
            path.mkdir(0o700)
        flags = os.O_RDONLY if is_folder else os.O_RDWR | os.O_CREAT | os.O_EXCL
        descriptor = os.open(path, flags, 0o666)
        if fcntl is None:
            return descriptor, path
        with suppress(OSError):  # a file system without locks: never seen as litter either
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        if _is_open_at(descriptor, path):
            return descriptor, path
        os.close(descriptor)


def _is_open_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.lstat())
    except FileNotFoundError:
        return False


def _remove_if_abandoned(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Its writer may have moved it in between the look and the lock.
        if not _is_open_at(descriptor, path):
            return
        if not stat.S_ISDIR(os.fstat(descriptor).st_mode):
            path.unlink()
            return
        for old in path.glob(f"{_OLD}/*"):
            new, target = path / _NEW / old.name, path.parent / old.name
            if new.exists() and not target.exists():
                new.rename(target)
        shutil.rmtree(path, ignore_errors=True)
    finally:
        os.close(descriptor)

"""What is being written: hidden neighbours of its place, locked while their writer lives.

A file or folder is made under a hidden name beside the place that it is for, and moved there when
it is whole. A process that is killed leaves the hidden one behind. The system drops a lock when its
process ends, however it ends, so whatever can be locked has no writer any more: the next run that
writes into the folder removes it. Where the system has no such locks, nothing is removed.
"""

from __future__ import annotations

import atexit
import ctypes
import os
import re
import shutil
import stat
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import IO

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

_MARK = ".tripletkit-unfinished-"
_HIDDEN = re.compile(rf"\..{{1,40}}{re.escape(_MARK)}[a-z0-9_]{{8}}", re.DOTALL)
# In a hidden folder: what is being made, what it replaces, and the name of its place, which is
# written when the new one is whole.
_NEW, _OLD, _PLACE = "new", "old", "place"
# In a folder that files are being moved into: says from which hidden folder.
_MOVING = ".tripletkit-moves"
_PATIENCE = 20  # tenths of a second that another run's moves are waited for
_EXCHANGE = 2  # RENAME_EXCHANGE of Linux's renameat2
_HERE = -100  # AT_FDCWD


@contextmanager
def unfinished_file(
    target: Path, mode: str, move_in: Callable[[Path, Path], object] = Path.replace
) -> Iterator[IO]:
    """Open a hidden neighbour of a file; it takes the file's place if the block ends well.

    Args:
        target: the file, links resolved.
        mode: `"w"` for text in UTF-8 with `\\n` line ends, `"wb"` for bytes.
        move_in: takes the hidden file and the target.
    Raises:
        OSError: if it cannot be written.
    """
    text = {} if "b" in mode else {"encoding": "utf-8", "newline": "\n"}
    descriptor, hidden = _make_locked(lambda: _make_file(target))
    try:
        with os.fdopen(descriptor, mode, **text) as file:
            yield file
            file.flush()
            os.fsync(descriptor)
            hidden.chmod(0o666 & ~current_umask())
            # Still open, so still locked: nobody takes it for litter before it has its place.
            move_in(hidden, target)
    finally:
        hidden.unlink(missing_ok=True)


@contextmanager
def unfinished_folder(target: Path, check: Callable[[], object] = lambda: None) -> Iterator[Path]:
    """Make a hidden folder beside a folder; it takes the folder's place if the block ends well.

    What was there goes after that. A kill at any moment leaves the old folder or the new one:
    the two are exchanged in one step where the system can, else `remove_unfinished` finishes.

    Args:
        target: the folder, links resolved.
        check: called right before, while no other run does the same beside it.
    Yields:
        The folder to fill.
    Raises:
        OSError: if it cannot be written.
    """
    with _locked_folder(target.parent, target.name) as hidden:
        new, old = hidden / _NEW, hidden / _OLD
        new.mkdir(0o777 & ~current_umask())
        yield new
        with _alone_in(target.parent):
            check()
            if not target.exists():
                new.rename(target)
            elif not _exchange(new, target):
                (hidden / _PLACE).write_bytes(os.fsencode(target.name))
                target.rename(old)
                try:
                    new.rename(target)
                except OSError:
                    old.rename(target)
                    raise


@contextmanager
def unfinished_files(folder: Path, check: Callable[[], object] = lambda: None) -> Iterator[Path]:
    """Make a hidden folder; what is in it goes into a folder, all together, if the block ends well.

    A folder that is new, or has no other files, is replaced in one step. Into any other the files
    are moved one by one; a run that is killed meanwhile leaves a list, by which the next that
    writes there, or reads one of them (`end_moves`), finishes.

    Args:
        folder: made if it is missing. Files in it are replaced, others stay; folders likewise.
        check: called right before, while no other run does the same.
    Yields:
        The folder to fill.
    Raises:
        OSError: if it cannot be written.
    """
    is_new = not folder.exists()
    folder.parent.mkdir(parents=True, exist_ok=True)
    folder = folder.resolve()
    place = folder.parent if is_new or os.access(folder.parent, os.W_OK) else folder
    if not is_new and folder.stat().st_dev != place.stat().st_dev:
        place = folder
    with _locked_folder(place, folder.name) as hidden:
        new = hidden / _NEW
        new.mkdir(0o777 & ~current_umask())
        yield new
        with _alone_in(place):
            check()
            if not folder.exists():
                new.rename(folder)
            elif place == folder or not _is_replaceable(folder, new) or not _exchange(new, folder):
                _move_files(hidden, folder)


def end_moves(folder: Path) -> bool:
    """Finish what a killed run began to move into a folder.

    Returns:
        Whether all files of the folder belong together now; False while another run moves them,
        or if this one may not finish.
    """
    if _read_list(folder) is None:
        return True
    for _ in range(_PATIENCE):
        remove_unfinished(folder)
        remove_unfinished(folder.parent)
        if (hidden := _read_list(folder)) is None:
            return True
        if not hidden.exists():
            return False
        time.sleep(0.1)
    return False


def _is_replaceable(folder: Path, new: Path) -> bool:
    """Return whether a folder has no files but those of the new one, and nobody works in it."""
    there, files = ({p.relative_to(of) for p in of.rglob("*")} for of in (folder, new))
    here = Path.cwd()
    return there <= files and folder not in (here, *here.parents)


def _move_files(hidden: Path, folder: Path) -> None:
    """Move what is in the hidden folder into another; what was begun can be finished."""
    new = hidden / _NEW
    if not new.exists():
        return
    marker = folder / _MOVING
    if not marker.exists():
        (hidden / _PLACE).write_bytes(os.fsencode(folder))
        (hidden / _MOVING).write_bytes(os.fsencode(hidden))
        (hidden / _MOVING).replace(marker)
    for path in sorted(new.rglob("*")):
        target = folder / path.relative_to(new)
        if path.is_dir():
            target.mkdir(exist_ok=True)
        else:
            path.replace(target)
    marker.unlink()


def _read_list(folder: Path) -> Path | None:
    """Return the hidden folder whose files are being moved into a folder."""
    try:
        return Path(os.fsdecode((folder / _MOVING).read_bytes()))
    except OSError:
        return None


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Keep other runs from putting their outputs in place beside this one."""
    if fcntl is None:
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # a file system without locks
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def remove_unfinished(folder: Path) -> None:
    """Remove what killed runs have left in a folder, and finish what they had nearly done."""
    if fcntl is None:
        return
    with suppress(OSError):
        hidden = [Path(entry) for entry in os.scandir(folder) if _is_hidden(entry.name)]
        for path in hidden:
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


def current_umask() -> int:
    """Return the permissions that new files must not have; temporary files are stricter."""
    mask = os.umask(0)
    os.umask(mask)
    return mask


@contextmanager
def _locked_folder(parent: Path, name: str) -> Iterator[Path]:
    descriptor, hidden = _make_locked(lambda: _make_folder(parent, name))
    try:
        yield hidden
    finally:
        shutil.rmtree(hidden, ignore_errors=True)
        os.close(descriptor)


def _make_file(target: Path) -> tuple[int, Path]:
    descriptor, name = tempfile.mkstemp(prefix=_hidden_prefix(target.name), dir=target.parent)
    return descriptor, Path(name)


def _make_folder(parent: Path, name: str) -> tuple[int, Path]:
    path = Path(tempfile.mkdtemp(prefix=_hidden_prefix(name), dir=parent))
    return os.open(path, os.O_RDONLY), path


def _make_locked(make: Callable[[], tuple[int, Path]]) -> tuple[int, Path]:
    """Make and lock; once more if another run took it for litter before it was locked."""
    while True:
        descriptor, path = make()
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
        _finish(path)
        shutil.rmtree(path, ignore_errors=True)
    finally:
        os.close(descriptor)


def _finish(hidden: Path) -> None:
    """Move in what is whole, if the kill came after the old had been touched."""
    if not (hidden / _NEW).exists():
        return
    if (hidden / _OLD).exists():
        target = hidden.parent / os.fsdecode((hidden / _PLACE).read_bytes())
        if not target.exists():
            (hidden / _NEW).rename(target)
    elif (hidden / _PLACE).exists():
        folder = Path(os.fsdecode((hidden / _PLACE).read_bytes()))
        if _read_list(folder) == hidden:
            _move_files(hidden, folder)


def _hidden_prefix(name: str) -> str:
    """Return how a hidden name starts, short enough for any name."""
    return f".{name[:40]}{_MARK}"


def _is_hidden(name: str) -> bool:
    return _HIDDEN.fullmatch(name) is not None


def _exchange(first: Path, second: Path) -> bool:
    """Let two paths change places in one step; False where the system cannot."""
    try:
        rename = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError, TypeError):
        return False
    return rename(_HERE, os.fsencode(first), _HERE, os.fsencode(second), _EXCHANGE) == 0

"""What a run may write: whole files or none, and never where they would do harm.

A file or folder is made under a hidden name beside the place that it is for, locked while its
writer lives, and moved there when it is whole. A process that is killed leaves the hidden one
behind. The system drops a lock when its process ends, however it ends, so whatever can be locked
has no writer any more: the next run that writes into the folder removes it. Where the system has no
such locks, nothing is removed.
"""

from __future__ import annotations

import atexit
import functools
import hashlib
import os
import re
import secrets
import shutil
import stat
import tempfile
import weakref
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, ParamSpec, TypeVar

import platformdirs

from tripletkit import defaults
from tripletkit.errors import OutputError, TripletkitError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

MODEL_RECORD = "model.json"

_MARK = ".tripletkit-unfinished-"
_HIDDEN = re.compile(rf"\..{{1,40}}{re.escape(_MARK)}[a-z0-9_]{{8}}", re.DOTALL)
# In a hidden folder: what is being made, and what it replaces.
_NEW, _OLD = "new", "old"
# How a message about what is being made in one begins.
_UNFINISHED_FOLDER = re.compile(rf".*{re.escape(_MARK)}\w{{8}}/{_NEW}")
# What is whole, and goes into the folder that it is in file by file.
_MOVES = ".tripletkit-moves"

# A mark or heading is within so many bytes of a file's start or end.
_LOOK_BYTES = 1 << 16


@dataclass(frozen=True)
class OutputForm:
    """How an output is known again: by any of what is said of it here.

    `is_at` tells whether it stands at a path; `headings` begin its first line, `mark` stands near
    its start or end, and `is_recorded` remembers what was written, if anybody could write it so.
    """

    name: str
    is_at: Callable[[Path], bool] | None = None
    headings: tuple[str, ...] = ()
    mark: str = ""
    is_recorded: bool = False
    suffixes: Collection[str] = ()

    def matches(self, path: Path) -> bool:
        """Return whether what stands at a path has this form; may raise what reading raises."""
        if self.is_at is not None:
            return self.is_at(path)
        ends = _read_ends(path)
        if ends[0].startswith(tuple(heading.encode() for heading in self.headings)):
            return True
        if self.mark and any(self.mark.encode() in end for end in ends):
            return True
        return self.is_recorded and (
            hash_file(path).hex() in _ledger().read_text(encoding="ascii").split()
        )


def _read_ends(path: Path) -> tuple[bytes, bytes]:
    with path.open("rb") as file:
        start = file.read(_LOOK_BYTES)
        file.seek(max(0, path.stat().st_size - _LOOK_BYTES))
        return start, file.read()


def _record_written(path: Path) -> None:
    """Remember what a file holds, so that it may be replaced as long as it holds that."""
    ledger = _ledger()
    with suppress(OSError):
        ledger.parent.mkdir(parents=True, exist_ok=True)
        with ledger.open("a", encoding="ascii") as file:
            file.write(f"{hash_file(path).hex()}\n")


def _ledger() -> Path:
    chosen = os.environ.get(defaults.CACHE_VARIABLE)
    return (Path(chosen) if chosen else platformdirs.user_state_path("tripletkit")) / ".written"


def hash_file(path: Path) -> bytes:
    """Return the SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


# Every image that tripletkit draws says so.
MARK = "made by tripletkit"
_DRAWN = "an image that tripletkit drew"
FIGURE_FORM = OutputForm(_DRAWN, mark=MARK, suffixes=(".svg", ".png", ".pdf"))
COLLAGE_FORM = OutputForm(_DRAWN, mark=MARK, suffixes=(".png", ".jpg", ".jpeg", ".webp"))
TRUTH_FORM = OutputForm("a file of truth as tripletkit wrote it", is_recorded=True)
TRIPLETS_FORM = OutputForm("a triplet file as tripletkit wrote it", is_recorded=True)
VOTES_FORM = OutputForm("a file of votes as tripletkit wrote it", is_recorded=True)
# Only their writers know these again.
_FOLDER_FORM = OutputForm("a folder", lambda _: True)
# A store of features or logs, of which nothing is replaced.
_ADDED_TO = OutputForm("a folder that files are added to", lambda _: True)
_ELSEWHERE = "Choose another place."


@dataclass
class _Run:
    """What one command or public call reads, and where it writes what."""

    inputs: dict[Path, None] = field(default_factory=dict)
    outputs: dict[Path, OutputForm] = field(default_factory=dict)


_run: ContextVar[_Run | None] = ContextVar("run", default=None)


def note_input(path: Path) -> None:
    """Remember that a file, folder or `-` (stdin) is read, so that nothing is written there."""
    given = path if str(path) == "-" else path.absolute()
    if not end_moves(given.parent):
        raise OutputError(
            f"{path}: its folder was left half written by another run of tripletkit, or is being "
            "written. Run that again."
        )
    if (run := _run.get()) is not None:
        run.inputs[given] = None
        for output in run.outputs:
            _check_not_read(output, run, [given])


def note_written(path: Path) -> None:
    """Remember that an output is in its place, so that the run may read it."""
    if (run := _run.get()) is not None:
        run.outputs.pop(path, None)


@contextmanager
def open_run() -> Iterator[_Run]:
    """Record what is read until the block ends; a block within another is of the same run."""
    if (run := _run.get()) is not None:
        yield run
        return
    run = _Run()
    token = _run.set(run)
    try:
        yield run
    finally:
        _run.reset(token)


_Given = ParamSpec("_Given")
_Result = TypeVar("_Result")


def as_one_run(function: Callable[_Given, _Result]) -> Callable[_Given, _Result]:
    """Let a public function be a run; what it returns is not written over what was read for it."""

    @functools.wraps(function)
    def call(*args: _Given.args, **kwargs: _Given.kwargs) -> _Result:
        with open_run() as run:
            for value in (*args, *kwargs.values()):
                if isinstance(earlier := getattr(value, "__dict__", {}).get("_run"), _Run):
                    run.inputs |= earlier.inputs
            result = function(*args, **kwargs)
        if type(result).__module__.startswith("tripletkit.") and hasattr(result, "__dict__"):
            # Its own record: another call's outputs are none of its.
            result.__dict__["_run"] = _Run(dict(run.inputs))
        return result

    return call


@dataclass(frozen=True)
class OutputFile:
    """A file, as the user named it, that may be written; `open_output` writes it."""

    path: Path
    outputs: Outputs
    form: OutputForm

    def __str__(self) -> str:
        return str(self.path)


class Outputs:
    """What a run may write; what it may not is refused by an `OutputError`.

    Whatever `overwrite` says, an output is refused where it would be written over something that
    the run reads (under whatever name), into a folder that it reads, into a model folder, or over
    another output of the run. Anything else that exists is replaced only with `overwrite`, and only
    if it has the form of what is written there, or is empty.

    All outputs are checked when they are named, before any slow work; against each input when that
    is opened; and once more when they take their places.
    """

    def __init__(self, *, overwrite: bool = False) -> None:
        self._overwrite = overwrite
        self._run = _run.get() or _Run()

    def file(self, path: Path, form: OutputForm) -> OutputFile:
        """Check a file that is to be written."""
        if form.suffixes and path.suffix.lower() not in form.suffixes:
            raise OutputError(
                f"{path}: expected a name that ends in {', '.join(form.suffixes)}, got "
                f"{path.suffix or 'no suffix'!r}"
            )
        self._announce(path, form)
        self.check(path, form)
        remove_unfinished(_resolve(path).parent)
        return OutputFile(path, self, form)

    def optional_file(self, path: Path | None, form: OutputForm) -> OutputFile | None:
        """Check a file that is to be written if it is named; see `file`."""
        return None if path is None else self.file(path, form)

    def folder(self, path: Path) -> None:
        """Check a folder to be written; its writer says whether what is there is replaced."""
        self._announce(path, _FOLDER_FORM)
        self._check_place(path, _FOLDER_FORM)
        remove_unfinished(_resolve(path).parent)

    def files_in(self, folder: Path, forms: Mapping[str, OutputForm]) -> None:
        """Check files, by their paths in a folder, which is made if it is missing."""
        first = _resolve(folder)
        end_moves(first)
        while not first.exists():
            first = first.parent
        if not first.is_dir():
            raise OutputError(f"{folder}: expected a folder to write to, got a file: {first}")
        if not os.access(first, os.W_OK):
            raise OutputError(f"{folder}: its folder {first} cannot be written")
        for place in (first, first.parent):
            remove_unfinished(place)
        for name, form in forms.items():
            self._announce(folder / name, form)
            self._check_place(folder / name, form)

    @contextmanager
    def write_files(self, folder: Path) -> Iterator[Path]:
        """Give a hidden folder to fill with the files of `files_in`, which then appear together.

        Files that are there are replaced, others stay. All are checked right before, while no other
        run writes there; a kill after that is finished by whoever comes next (see `end_moves`).
        """
        with explain_failure(folder):
            is_new = not folder.exists()
            folder.parent.mkdir(parents=True, exist_ok=True)
            place = folder.resolve()
            with _locked_folder(place.parent if is_new else place, place.name) as hidden:
                new = hidden / _NEW
                new.mkdir()
                yield new
                with _alone_in(place.parent), _alone_in(place):
                    for path, form in self._run.outputs.items():
                        self._check_place(path, form)
                        if form.is_recorded and path.is_relative_to(folder):
                            _record_written(new / path.relative_to(folder))
                    if place.exists():
                        _move_in(place)
                        new.rename(place / _MOVES)
                        _move_in(place)
                    else:
                        new.rename(place)

    def check(self, path: Path, form: OutputForm) -> None:
        """Refuse a file that may not be written, or cannot be."""
        if path.is_dir():
            raise OutputError(f"{path}: expected a file to write, got a folder")
        target = _resolve(path)
        check_parent(path if target == path.absolute() else target)
        self._check_place(path, form)

    def _announce(self, path: Path, form: OutputForm) -> None:
        target = _resolve(path)
        for other in self._run.outputs:
            # File systems without a difference of case would make one file of two.
            if str(_resolve(other)).casefold() == str(target).casefold():
                raise OutputError(f"{path}: is named for two outputs. {_ELSEWHERE}")
        self._run.outputs[path] = form

    def _check_place(self, path: Path, form: OutputForm) -> None:
        target = _resolve(path)
        there = _stat(target)
        if _is_device(there):
            return
        _check_not_read(path, self._run, self._run.inputs)
        _check_not_in_model(path, target.parents)
        if there is None or form in (_FOLDER_FORM, _ADDED_TO):
            return
        is_empty = not (any(target.iterdir()) if target.is_dir() else there.st_size)
        if is_empty and (target.is_dir() or self._overwrite):
            return
        if not self._overwrite:
            raise OutputError(
                f"{path}: is there already. Choose another place, or replace it with "
                "`overwrite=True`."
            )
        token = _run.set(None)  # What is read to know it again is no input.
        try:
            is_ours = form.matches(target)
        except Exception:  # whatever a damaged file makes a reader raise
            is_ours = False
        finally:
            _run.reset(token)
        if not is_ours:
            raise OutputError(
                f"{path}: is not {form.name}, so `overwrite=True` does not replace it. Move it "
                "away, or choose another place."
            )


def check_written_folder(folder: Path) -> None:
    """Refuse a folder that files are added to, where these would lie among inputs or in a model."""
    run = _run.get() or _Run()
    run.outputs.setdefault(folder, _ADDED_TO)
    _check_not_read(folder, run, run.inputs)
    target = _resolve(folder)
    _check_not_in_model(folder, (target, *target.parents))


def _check_not_in_model(path: Path, folders: Iterable[Path]) -> None:
    """Refuse a place in one of these that is a model, which only training writes, as a whole."""
    for parent in folders:
        if (parent / MODEL_RECORD).is_file():
            raise OutputError(
                f"{path}: lies in the model folder {parent}, which only training writes, as a "
                f"whole. {_ELSEWHERE}"
            )


def _check_not_read(path: Path, run: _Run, inputs: Iterable[Path]) -> None:
    """Refuse an output that is an input, lies in one, or as a folder to be replaced holds one."""
    target = _resolve(path)
    there = _stat(target)
    if _is_device(there):
        return
    whole = None if run.outputs.get(path) is _ADDED_TO else there
    for given in inputs:
        if (read := _stat(given)) is None:
            continue
        if whole is not None and os.path.samestat(whole, read):
            raise OutputError(f"{path}: is read, and would be overwritten. {_ELSEWHERE}")
        if stat.S_ISDIR(read.st_mode) and _is_within(target, read):
            raise OutputError(
                f"{path}: lies in the folder {given}, which is read, and into which nothing is "
                f"written. {_ELSEWHERE}"
            )
        if whole is None or not stat.S_ISDIR(whole.st_mode):
            continue
        if _is_within(_resolve(given), whole):
            raise OutputError(f"{path}: holds {given}, which is read. {_ELSEWHERE}")


def _is_within(path: Path, folder: os.stat_result) -> bool:
    """Return whether a resolved path is a folder or lies in it, by whatever name or case."""
    found = map(_stat, (path, *path.parents))
    return any(each is not None and os.path.samestat(folder, each) for each in found)


def _is_device(there: os.stat_result | None) -> bool:
    """Return whether it is a device or a pipe, which is written to as it is."""
    return there is not None and not (stat.S_ISREG(there.st_mode) or stat.S_ISDIR(there.st_mode))


# Where a writer writes: a path that is replaced whatever it holds, or one that was checked.
Destination = Path | OutputFile


@contextmanager
def open_output(destination: Destination, mode: str = "w") -> Iterator[IO]:
    """Open a file that takes its place only when the block ends without an error.

    A link leads to the file that is replaced; a device or pipe (`/dev/null`) is written to as it
    is. In the mode `"w"` text is UTF-8 with `\n` line ends.
    """
    path = destination.path if isinstance(destination, OutputFile) else destination
    encoding, newline = (None, None) if "b" in mode else ("utf-8", "\n")
    with explain_failure(path):
        target = _resolve(path)
        if target.exists() and not target.is_file():
            with target.open(mode, encoding=encoding, newline=newline) as file:
                yield file
            return
        descriptor, hidden = _make_locked(target.parent, target.name, is_folder=False)
        try:
            with os.fdopen(descriptor, mode, encoding=encoding, newline=newline) as file:
                yield file
                file.flush()
                os.fsync(descriptor)
                if isinstance(destination, OutputFile):
                    destination.outputs.check(path, destination.form)
                    if destination.form.is_recorded:
                        _record_written(hidden)
                # Still open, so still locked: nobody takes it for litter before it has its place.
                hidden.replace(target)
        finally:
            hidden.unlink(missing_ok=True)


@contextmanager
def open_folder(path: Path) -> Iterator[Path]:
    """Give a hidden folder to fill; it takes a folder's place if the block ends well.

    After a kill between two renames `remove_unfinished` puts the new one in its place.
    """
    target = path.resolve()
    remove_unfinished(target.parent)
    with explain_failure(path), _locked_folder(target.parent, target.name) as hidden:
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
                if old.exists():
                    old.rename(target)
                raise
    note_written(path)


@contextmanager
def explain_failure(path: Path) -> Iterator[None]:
    """Turn what the system says into an error that names the output."""
    try:
        yield
    except OSError as error:
        if isinstance(error, OutputError) and _UNFINISHED_FOLDER.match(str(error)):
            raise OutputError(_UNFINISHED_FOLDER.sub(lambda _: str(path), str(error))) from error
        if isinstance(error, TripletkitError):
            raise
        # A library's own words would name its hidden temporary file.
        of_hdf5 = re.search("error message = '([^']+)'", str(error))
        reason = os.strerror(error.errno) if error.errno else of_hdf5 and of_hdf5[1]
        reason = reason or "the system gave no reason; is the disk full?"
        raise OutputError(f"{path}: cannot be written: {reason}") from error


def check_parent(path: Path) -> None:
    """Refuse a path whose folder is missing or cannot be written."""
    parent = path.absolute().parent
    if not parent.is_dir():
        raise OutputError(f"{path}: its folder {parent} does not exist; make it first")
    if not os.access(parent, os.W_OK):
        raise OutputError(f"{path}: its folder {parent} cannot be written")


def _resolve(path: Path) -> Path:
    try:
        return path.resolve()
    except (OSError, RuntimeError) as error:  # RuntimeError: links in a circle
        raise OutputError(f"{path}: cannot be written: its links lead nowhere") from error


def _stat(path: Path) -> os.stat_result | None:
    """Return what is at a path, None if nothing is; `-` is standard input."""
    try:
        return os.fstat(0) if str(path) == "-" else path.stat()
    except OSError:
        return None


def end_moves(folder: Path) -> bool:
    """Finish what a killed run began to put into a folder, after waiting for one that lives; return
    whether all files of the folder belong together now."""
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


@functools.cache
def private_temporary_folder() -> Path:
    """Return this process's temporary folder; what a killed one left is removed by the next run."""
    parent = Path(tempfile.gettempdir()).resolve()
    remove_unfinished(parent)
    folder = _locked_folder(parent, "tripletkit")
    path, owner = folder.__enter__(), os.getpid()

    def remove() -> None:
        if os.getpid() == owner:  # not in a fork
            folder.__exit__(None, None, None)

    atexit.register(remove)
    return path


class Scratch:
    """A folder for files of what is in memory, gone when nothing refers to it any more."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="tripletkit-", dir=private_temporary_folder()))
        weakref.finalize(self, shutil.rmtree, self.folder, ignore_errors=True)


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

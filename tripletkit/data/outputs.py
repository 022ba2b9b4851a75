"""The one door for outputs: whole or not at all, and never where they would do harm."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from tripletkit.data.output_forms import OutputForm
from tripletkit.data.unfinished import remove_unfinished, unfinished_file
from tripletkit.errors import OutputError, TripletkitError

MODEL_RECORD = "model.json"


class Outputs:
    """What a command may write, given what it reads.

    Whatever `overwrite` says, an output is refused where it would be written over a file that the
    command reads (under whatever name), into an image folder, over a file inside a model folder,
    or over another output of the command. Anything else that exists is replaced only with
    `overwrite`, and only if it has the form of what the command writes there, or is empty.

    All outputs are checked when they are named, before any slow work, and once more when they
    take their places.

    Args:
        inputs: files and folders that the command reads; `-` is standard input, None is nothing.
        image_folders: folders of images, in which nothing is written.
        overwrite: replace what has the right form.
    """

    def __init__(
        self,
        inputs: Iterable[Path | None] = (),
        *,
        image_folders: Iterable[Path | None] = (),
        overwrite: bool = False,
    ) -> None:
        self._inputs = [path for path in inputs if path is not None]
        self._image_folders = [path for path in image_folders if path is not None]
        self._overwrite = overwrite
        self._announced: dict[Path, OutputForm] = {}

    def file(self, path: Path, form: OutputForm) -> OutputFile:
        """Check a file that is to be written.

        Raises:
            OutputError: if it may not be, or cannot be.
        """
        self._announce(path, form)
        output = OutputFile(path, self, form)
        output.check()
        remove_unfinished(_resolve(path).parent)
        return output

    def optional_file(self, path: Path | None, form: OutputForm) -> OutputFile | None:
        """Check a file that is to be written if it is named; see `file`."""
        return None if path is None else self.file(path, form)

    def folder(self, path: Path) -> None:
        """Check a folder that is to be written as a whole.

        Whether what is there may be replaced is for its writer to say, who knows its record.

        Raises:
            OutputError: if it may not be written there, or cannot be.
        """
        form = OutputForm("a folder", lambda _: True)
        self._announce(path, form)
        self._check_place(path, form, with_existing=False)
        target = _resolve(path)
        for given in [*self._inputs, *self._image_folders]:
            if target in given.resolve().parents:
                raise OutputError(f"{path}: holds {given}, which is read. {_ELSEWHERE}")
        remove_unfinished(target.parent)

    def files_in(self, folder: Path, forms: Mapping[str, OutputForm]) -> None:
        """Check files that are to be written into a folder, which is made if it is missing.

        Args:
            folder: where to.
            forms: by the files' paths in it.
        Raises:
            OutputError: if one may not be, or cannot be.
        """
        first = _resolve(folder)
        while not first.exists():
            first = first.parent
        if not first.is_dir():
            raise OutputError(f"{folder}: expected a folder to write to, got a file: {first}")
        if not os.access(first, os.W_OK):
            raise OutputError(f"{folder}: its folder {first} cannot be written")
        for name, form in forms.items():
            path = folder / name
            self._announce(path, form)
            self._check_place(path, form)
        remove_unfinished(first)

    def check_again(self) -> None:
        """Refuse what has come to be where an output is to be written.

        Raises:
            OutputError: saying why.
        """
        for path, form in self._announced.items():
            self._check_place(path, form)

    def check(self, path: Path, form: OutputForm) -> None:
        """Refuse what may not be written.

        Raises:
            OutputError: saying why, and what to try.
        """
        target = _resolve(path)
        check_parent(path if target == path.absolute() else target)
        self._check_place(path, form)

    def _check_place(self, path: Path, form: OutputForm, *, with_existing: bool = True) -> None:
        target = _resolve(path)
        there = _stat(target)
        if there is not None and not (stat.S_ISREG(there.st_mode) or stat.S_ISDIR(there.st_mode)):
            return  # a device or a pipe is written to as it is
        for given in self._inputs:
            if there is not None and _is_same(there, given):
                raise OutputError(f"{path}: is read, and would be overwritten. {_ELSEWHERE}")
        for folder in self._image_folders:
            if target == folder.resolve() or folder.resolve() in target.parents:
                raise OutputError(
                    f"{path}: lies in the image folder {folder}, into which nothing is written. "
                    f"{_ELSEWHERE}"
                )
        if there is None:
            return
        if (target.parent / MODEL_RECORD).is_file():
            raise OutputError(
                f"{path}: is a file of the model folder {path.absolute().parent}, which only "
                f"training replaces, as a whole. {_ELSEWHERE}"
            )
        if with_existing:
            self._check_existing(path, target, there, form)

    def _announce(self, path: Path, form: OutputForm) -> None:
        target = _resolve(path)
        if target in self._announced:
            raise OutputError(f"{path}: is named for two outputs. {_ELSEWHERE}")
        self._announced[target] = form

    def _check_existing(
        self, path: Path, target: Path, there: os.stat_result, form: OutputForm
    ) -> None:
        is_empty = not (any(target.iterdir()) if target.is_dir() else there.st_size)
        if is_empty and (target.is_dir() or self._overwrite):
            return
        if not self._overwrite:
            raise OutputError(
                f"{path}: is there already. Choose another place, or replace it with "
                "`overwrite=True`."
            )
        try:
            is_ours = form.is_at(target)
        except Exception:  # whatever a damaged file makes a reader raise
            is_ours = False
        if not is_ours:
            raise OutputError(
                f"{path}: is not {form.name}, so `overwrite=True` does not replace it. Move it "
                "away, or choose another place."
            )


_ELSEWHERE = "Choose another place."


@dataclass(frozen=True)
class OutputFile:
    """A file that went through the door; `open_output` writes it.

    Attributes:
        path: where, as the user named it.
        door: what checked it.
        form: what it is to be.
    """

    path: Path
    door: Outputs
    form: OutputForm

    def __str__(self) -> str:
        return str(self.path)

    def check(self) -> None:
        """Refuse it if it may not be written (now).

        Raises:
            OutputError: saying why.
        """
        if self.path.is_dir():
            raise OutputError(f"{self.path}: expected a file to write, got a folder")
        self.door.check(self.path, self.form)


# Where a writer writes: a path that is replaced whatever it holds, or one that went through the
# door.
Destination = Path | OutputFile


def destination_path(destination: Destination) -> Path:
    """Return the path of a destination."""
    return destination.path if isinstance(destination, OutputFile) else destination


@contextmanager
def open_output(destination: Destination, mode: str = "w") -> Iterator[IO]:
    """Open a file that takes its place only when the block ends without an error.

    What was there before stays until then, and stays for good if anything fails. A link leads
    to the file that is replaced; a device or pipe (`/dev/null`) is written to as it is.

    Args:
        destination: the file to write.
        mode: `"w"` for text in UTF-8 with `\\n` line ends, `"wb"` for bytes.
    Raises:
        OutputError: if the folder is missing or cannot be written, the disk is full, or the
            door refuses it.
    """
    path = destination_path(destination)
    with explain_failure(path):
        target = _resolve(path)
        if target.exists() and not target.is_file():
            text = {} if "b" in mode else {"encoding": "utf-8", "newline": "\n"}
            with target.open(mode, **text) as file:
                yield file
            return

        def move_in(hidden: Path, target: Path) -> None:
            if isinstance(destination, OutputFile):
                destination.check()
            hidden.replace(target)

        with unfinished_file(target, mode, move_in) as file:
            yield file


@contextmanager
def explain_failure(path: Path) -> Iterator[None]:
    """Turn what the system says into an error that names the output.

    Raises:
        OutputError: where the block raises another OSError that is none of tripletkit's.
    """
    try:
        yield
    except OSError as error:
        if isinstance(error, TripletkitError):
            raise
        raise OutputError(f"{path}: cannot be written: {_find_reason(error)}") from error


def check_parent(path: Path) -> None:
    """Refuse a path whose folder cannot take it.

    Raises:
        OutputError: if the folder is missing or cannot be written.
    """
    parent = path.absolute().parent
    if not parent.is_dir():
        raise OutputError(f"{path}: its folder {parent} does not exist; make it first")
    if not os.access(parent, os.W_OK):
        raise OutputError(f"{path}: its folder {parent} cannot be written")


def _find_reason(error: OSError) -> str:
    """Return the system's words; a library's own would name its hidden temporary file."""
    if error.errno:
        return os.strerror(error.errno)
    of_hdf5 = re.search("error message = '([^']+)'", str(error))
    return of_hdf5[1] if of_hdf5 else "the system gave no reason; is the disk full?"


def _resolve(path: Path) -> Path:
    try:
        return path.resolve()
    except (OSError, RuntimeError) as error:  # RuntimeError: links in a circle
        raise OutputError(f"{path}: cannot be written: its links lead nowhere") from error


def _stat(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None


def _is_same(there: os.stat_result, given: Path) -> bool:
    """Return whether an input is the file or folder that is there, by whatever name."""
    try:
        read = os.fstat(0) if str(given) == "-" else given.stat()
    except OSError:
        return False
    return os.path.samestat(there, read)

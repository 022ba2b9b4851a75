"""Outputs that appear whole or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from tripletkit.errors import OutputError


@contextmanager
def open_output(path: Path, mode: str = "w") -> Iterator[IO]:
    """Open a file that takes its place only when the block ends without an error.

    What was there before stays until then, and stays for good if anything fails. A link leads
    to the file that is replaced; a device or pipe (`/dev/null`) is written to as it is.

    Args:
        path: the file to write.
        mode: `"w"` for text in UTF-8 with `\\n` line ends, `"wb"` for bytes.
    Raises:
        OutputError: if the folder is missing or cannot be written, or the disk is full.
    """
    text = {} if "b" in mode else {"encoding": "utf-8", "newline": "\n"}
    try:
        target = path.resolve()
        if target.exists() and not target.is_file():
            with target.open(mode, **text) as file:
                yield file
            return
        with tempfile.NamedTemporaryFile(
            mode, dir=target.parent, prefix=temporary_prefix(target), delete=False, **text
        ) as file:
            temporary = Path(file.name)
            try:
                yield file
                file.flush()
                os.fsync(file.fileno())
                temporary.chmod(0o666 & ~current_umask())
                temporary.replace(target)
            except BaseException:
                temporary.unlink(missing_ok=True)
                raise
    except OSError as error:
        if isinstance(error, OutputError) or error.strerror is None:
            raise
        raise OutputError(f"{path}: cannot be written: {error.strerror}") from error


def check_output(path: Path) -> None:
    """Refuse early what `open_output` would refuse after hours of work.

    Raises:
        OutputError: if the path is a folder, or its folder is missing or cannot be written.
    """
    target = path.resolve()
    if target.is_dir():
        raise OutputError(f"{path}: expected a file to write, got a folder")
    if target.is_file() or not target.exists():
        check_parent(target)


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


def temporary_prefix(path: Path) -> str:
    """Return how the name of a hidden temporary neighbour starts, short enough for any name."""
    return f".{path.name[:40]}."


def current_umask() -> int:
    """Return the permissions that new files must not have; temporary files are stricter."""
    mask = os.umask(0)
    os.umask(mask)
    return mask

"""Text files as people and programs write them: bytes in, UTF-8 with `\\n` out, or a refusal."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from tripletkit.errors import TripletFileError

# Three paths as long as Linux allows, each in quotes that are doubled, fill a fifth of it. A longer
# line is a quote left open or no text at all, and cutting it would take a multiple of its size.
MAX_LINE_BYTES = 1 << 17


def read_bytes(source: Path | BinaryIO, name: str | None = None) -> tuple[bytes, str]:
    """Return the bytes of a path or an open binary file, and what to call it in messages.

    Raises:
        TripletFileError: if the file cannot be read.
    """
    if not isinstance(source, Path):
        return source.read(), name or "<stdin>"
    try:
        return source.read_bytes(), name or str(source)
    except OSError as error:
        raise TripletFileError(f"{name or source}: cannot be read: {error.strerror}") from error


def check_text(data: bytes, name: str) -> bytes:
    """Return UTF-8 bytes without byte order mark and with `\\n` as the only line end.

    Raises:
        TripletFileError: naming the first line that is not UTF-8 text, or is longer than
            `MAX_LINE_BYTES`.
    """
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise TripletFileError(
            f"{name}: expected UTF-8 text, got UTF-16 ('Unicode' in Windows editors). "
            "Save it again as UTF-8."
        )
    data = data.removeprefix(b"\xef\xbb\xbf")
    if b"\r" in data:
        data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    _check_line_lengths(data, name)
    try:
        data.isascii() or data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise TripletFileError(
            f"{name}:{line}: expected UTF-8 text, got the byte 0x{data[error.start]:02x}. "
            "Save the file again as UTF-8."
        ) from error
    return data


def content_lines(data: bytes) -> Iterator[tuple[int, int, str]]:
    """Yield the lines that hold something, neither blank nor a `#` comment.

    Args:
        data: as `check_text` returns it.
    Yields:
        The line's number, counted from 1; where the next line starts, in bytes; its text.
    """
    start, number = 0, 0
    while start < len(data):
        number += 1
        end = data.find(b"\n", start)
        end = len(data) if end < 0 else end
        line = data[start:end].decode()
        start = end + 1
        if line.strip() and not line.lstrip().startswith("#"):
            yield number, start, line


def _check_line_lengths(data: bytes, name: str) -> None:
    """Go from line end to line end in steps as long as a line may be."""
    start = 0
    while start + MAX_LINE_BYTES < len(data):
        end = data.rfind(b"\n", start, start + MAX_LINE_BYTES + 1)
        if end < 0:
            end = data.find(b"\n", start)
            n_bytes = (len(data) if end < 0 else end) - start
            line = data.count(b"\n", 0, start) + 1
            quote = " Is a quote left open?" if b'"' in data[start : start + 1000] else ""
            raise TripletFileError(
                f"{name}:{line}: expected a line of at most {MAX_LINE_BYTES:,} bytes, got one of "
                f"{n_bytes:,}.{quote}"
            )
        start = end + 1

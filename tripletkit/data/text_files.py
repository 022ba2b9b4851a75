"""Text files as people and programs write them: bytes in, UTF-8 with `\\n` out, or a refusal."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from tripletkit.data.names import unguard_formula
from tripletkit.data.outputs import note_input
from tripletkit.errors import TripletFileError

# Three paths as long as Linux allows, each in quotes that are doubled, fill a fifth of it. A longer
# line is a quote left open or no text at all, and cutting it would take a multiple of its size.
MAX_LINE_BYTES = 1 << 17


@dataclass(frozen=True)
class FileRecord:
    """One file that was read.

    Attributes:
        name: as it was given, for messages.
        path: absolute; None where there is no file to read again, as of standard input.
        sha256: of what was read, hexadecimal.
        read_as: how it was read, name and value of what was not left to the file itself.
    """

    name: str
    path: str | None
    sha256: str
    read_as: tuple[tuple[str, str], ...] = ()


def read_bytes(source: Path | BinaryIO) -> tuple[bytes, str]:
    """Return the bytes of a path or an open binary file, and what to call it in messages."""
    if not isinstance(source, Path):
        note_input(Path("-"))
        known = getattr(source, "name", None)
        return source.read(), known if isinstance(known, str) else "<stdin>"
    note_input(source)
    try:
        return source.read_bytes(), str(source)
    except OSError as error:
        raise TripletFileError(f"{source}: cannot be read: {error.strerror}") from error


def check_text(data: bytes, name: str) -> bytes:
    """Return UTF-8 bytes without byte order mark and with `\\n` as the only line end.

    The first line that is not UTF-8 text, or is longer than `MAX_LINE_BYTES`, is refused.
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

    Each as its number, counted from 1; where the next line starts, in bytes; its text.
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


SEPARATORS = (",", ";", "\t", "|")

_TOKEN = re.compile(r'[ \t]*+(?:"([^"]*(?:""[^"]*)*)"(?=[ \t]|\Z)|(#.*)|([^ \t"#][^ \t]*))')
_FIELDS = {
    separator: re.compile(
        r'[ \t]*+(?:"([^"]*(?:""[^"]*)*)"[ \t]*+|([^"SEP][^"SEP]*+|))(?=SEP|\Z)'.replace(
            "SEP", re.escape(separator)
        ).replace("[ \\t]*+", "[ ]*+" if separator == "\t" else "[ \\t]*+")
    )
    for separator in SEPARATORS
}
# Unquoted, these look like a blank to a person and like part of a name to a program.
_ODD_BLANK = re.compile(r"[^\S \t]")
_CONTROL = re.compile("[\x00-\x1f\x7f\u0085\u2028\u2029]")
# What `float` takes beyond this, such as 1_0 or digits of other scripts, is a slip or a trick.
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_SHOWN_CHARACTERS = 60


def split_line(line: str) -> list[str]:
    """Return the fields of a line that blanks or tabs separate, a comment left out."""
    names: list[str] = []
    position, end = 0, len(line.rstrip(" \t"))
    while position < end:
        match = _TOKEN.match(line, position, end)
        if match is None:
            raise ValueError(
                f'expected a closing quote (") before a blank, got {shorten_line(line)}'
            )
        quoted, comment, plain = match.groups()
        position = match.end()
        if comment is not None:
            break
        if plain is not None:
            _check_plain(plain, line)
            names.append(plain)
        else:
            names.append(quoted.replace('""', '"'))
    return names


def split_csv_line(line: str, separator: str = ",") -> list[str]:
    """Return the fields of a CSV row, which one of `SEPARATORS` separates.

    Blanks around a field belong to the layout unless they are in quotes. What guards a field
    from being taken for a formula is taken off; see `names.guard_formula`.

    Example:
        >>> split_csv_line('a, "b, c" ,d e')
        ['a', 'b, c', 'd e']
    """
    if '"' not in line:
        return [unguard_formula(field.strip(" \t")) for field in line.split(separator)]
    fields = []
    pattern, position = _FIELDS[separator], 0
    while position <= len(line):
        match = pattern.match(line, position)
        if match is None:
            raise ValueError(f"expected a CSV row with each quote closed, got {shorten_line(line)}")
        quoted, plain = match.groups()
        field = plain.rstrip(" \t") if quoted is None else quoted.replace('""', '"')
        fields.append(unguard_formula(field))
        position = match.end() + 1
    return fields


def parse_number(text: str) -> float:
    """Return a number written in plain ASCII, or NaN for anything else.

    Example:
        >>> parse_number("1e3"), parse_number("1_0"), parse_number("nan")
        (1000.0, nan, nan)
    """
    text = text.strip(" \t")
    return float(text) if _NUMBER.fullmatch(text) else math.nan


def shorten_line(line: str) -> str:
    """Return a line as messages show it: quoted, short, nothing invisible in it."""
    short = line if len(line) <= _SHOWN_CHARACTERS else line[:_SHOWN_CHARACTERS] + "..."
    return ascii(short) if _CONTROL.search(short) or _ODD_BLANK.search(short) else f'"{short}"'


def check_name(name: str) -> None:
    """Refuse a name that no image can have; raises `ValueError`."""
    if not name:
        raise ValueError("expected an image name, got an empty one")
    if control := _CONTROL.search(name):
        code = f"U+{ord(control.group()):04X}"
        raise ValueError(f"expected an image name, got one with the control character {code}")


def _check_plain(name: str, line: str) -> None:
    if odd := _ODD_BLANK.search(name):
        raise ValueError(
            f"expected spaces or tabs between names, got the blank U+{ord(odd.group()):04X} "
            f"in {shorten_line(line)}"
        )
    if name.startswith(",") or name.endswith(","):
        raise ValueError(
            f"expected names separated by blanks as in the lines before, got commas in "
            f"{shorten_line(line)}"
        )

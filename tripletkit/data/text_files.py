"""Text as people and programs write it: read as UTF-8 with `\\n`, and written to be read back.

A spreadsheet takes a field such as `=cmd|...` or `@SUM(A1)` for a formula, whoever wrote it, and
quotes do not keep it from that. Names of images may come from strangers, so every CSV that is
written here puts an apostrophe before a text that a spreadsheet would run, and every CSV that is
read here takes it off again. Triplet files of blanks, Parquet and NPZ files and labels of one 0
or 1 a line hold names, if any, as they are.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from tripletkit.data.outputs import note_input
from tripletkit.errors import ImageNameError, TripletFileError

# Three paths as long as Linux allows, each in quotes that are doubled, fill a fifth of it. A longer
# line is a quote left open or no text at all, and cutting it would take a multiple of its size.
MAX_LINE_BYTES = 1 << 17
CONTROL = re.compile("[\x00-\x1f\x7f\u0085\u2028\u2029]")
# Unquoted, these look like a blank to a person and like part of a name to a program.
ODD_BLANK = re.compile(r"[^\S \t]")
# Bytes of a file name that are not UTF-8 are surrogates in Python.
_UNENCODABLE = re.compile("[\ud800-\udfff]")
# Apostrophes and blanks may stand before: so a guarded text is of this form too, and one apostrophe
# more or less is all that guarding does.
_FORMULA = re.compile(r"['\s]*[=+\-@＝＋－＠]|'*[\t\r\n]")
# What `float` takes beyond this, such as 1_0 or digits of other scripts, is a slip or a trick.
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_SHOWN_CHARACTERS = 60


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


def read_text(source: Path | BinaryIO) -> str:
    """Return a whole text file; see `check_text`."""
    return check_text(*read_bytes(source)).decode()


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
    return ascii(short) if CONTROL.search(short) or ODD_BLANK.search(short) else f'"{short}"'


def check_encodable(names: Iterable[str], where: str) -> None:
    """Refuse names with bytes that are no text, before the work whose output cannot hold them."""
    for name in names:
        if _UNENCODABLE.search(name):
            raise ImageNameError(
                f"{where}: expected names in UTF-8, got {name!r}; rename the file, or leave it out"
            )


def quote_name(name: str) -> str:
    """Return a name as it must stand in a triplet file; refuse one that no such file can hold."""
    if not name or CONTROL.search(name) or _UNENCODABLE.search(name):
        raise TripletFileError(
            f"expected a name that a line of text can hold, got {name!r}; rename the image"
        )
    if re.search(r'[\s",;]', name) or name.startswith("#"):
        return _quote(name)
    return name


def quote_csv_field(text: str) -> str:
    """Return a text as a field of a CSV: no formula, quoted where a reader would cut or lose it.

    Example:
        >>> quote_csv_field("a,b.jpg"), quote_csv_field("=1+2.jpg")
        ('"a,b.jpg"', "'=1+2.jpg")
    """
    text = guard_formula(text)
    if re.search(r'[,;"\t\r\n]', text) or text != text.strip() or text.startswith("#"):
        return _quote(text)
    return text


def guard_formula(text: str) -> str:
    """Put an apostrophe before a text that a spreadsheet would take for a formula.

    Reference:
        OWASP. CSV Injection. https://owasp.org/www-community/attacks/CSV_Injection
    """
    return "'" + text if _FORMULA.match(text) else text


def unguard_formula(text: str) -> str:
    """Return what `guard_formula` was given."""
    return text[1:] if text.startswith("'") and _FORMULA.match(text, 1) else text


def _quote(text: str) -> str:
    return '"' + text.replace('"', '""') + '"'

"""Numbers and names in text files, written so that the same is read back.

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

from tripletkit.errors import ImageNameError, TripletFileError

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


def parse_number(text: str) -> float:
    """Return a number written in plain ASCII, or NaN for anything else."""
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
    if re.search(r'[\s",;|]', name) or name.startswith("#"):
        return _quote(name)
    return name


def quote_csv_field(text: str) -> str:
    """Return a text as a field of a CSV: no formula, quoted where a reader would cut or lose it."""
    text = guard_formula(text)
    if re.search(r'[,;"\t\r\n]', text) or text != text.strip() or text.startswith("#"):
        return _quote(text)
    return text


def guard_formula(text: str) -> str:
    """Put an apostrophe before a formula (https://owasp.org/www-community/attacks/CSV_Injection)."""
    return "'" + text if _FORMULA.match(text) else text


def unguard_formula(text: str) -> str:
    """Return what `guard_formula` was given."""
    return text[1:] if text.startswith("'") and _FORMULA.match(text, 1) else text


def _quote(text: str) -> str:
    return '"' + text.replace('"', '""') + '"'

"""Triplet files: read, check, write.

A triplet set is an integer array into a list of distinct names. Reading is the only place
that walks lines, and it does so in Python only where a line holds a quote, a comment or a
comma; a plain file is cut by numpy and pandas, some millions of lines in seconds.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, BinaryIO

import numpy as np
import pandas as pd

from tripletkit.data.outputs import open_output
from tripletkit.data.triplet_tables import find_columns, index_cells, index_used
from tripletkit.errors import MAX_SHOWN, TripletFileError, describe_problems

HEADINGS = {("anchor", "positive", "negative"), ("anchor", "first", "second")}
CSV_HEADINGS = HEADINGS | {("a", "b", "c")}

# Read in pieces, so that memory holds the tokens of one piece and not of the whole file.
_CHUNK_BYTES = 1 << 24
# A line with one of these needs more than cutting at blanks.
_SPECIAL = re.compile(rb'["#,\x00-\x08\x0b\x0c\x0e-\x1f\x7f\x80-\xff]')
_TOKEN = re.compile(r'[ \t]*(?:"((?:[^"]|"")*)"(?=[ \t]|$)|(#.*)|([^ \t"#][^ \t]*))')
# Unquoted, these look like a blank to a person and like part of a name to a program.
_ODD_BLANK = re.compile(r"[^\S \t]")
_SHARE = re.compile(r"0?\.\d+|[01](\.0*)?")
_CONTROL = re.compile("[\x00-\x1f\x7f\u0085\u2028\u2029]")
_SHOWN_CHARACTERS = 60


@dataclass(frozen=True)
class Triplets:
    """Questions "is the anchor nearer to the first or to the second?" over named images.

    In a training file the second column is the positive and the third the negative.

    Attributes:
        names: the distinct names, in order of first appearance.
        rows: `(n_triplets, 3)` int32, indices into `names`.
        lines: `(n_triplets,)` int64, the line of each row in its file, counted from 1.
        source: what to call the file in messages.
    """

    names: list[str]
    rows: np.ndarray
    lines: np.ndarray
    source: str

    @classmethod
    def from_frame(cls, frame: pd.DataFrame, columns: Sequence[str] | None = None) -> Triplets:
        """Return the triplets of a table, a row each; other columns are passed over.

        Args:
            frame: its cells are names of images, as text.
            columns: which three hold the names, anchor first. Defaults to those of a triplet
                file with a heading (anchor, positive, negative; anchor, first, second; a, b, c),
                in any case; a table of three columns without names is read by position.
        Returns:
            Triplets whose `lines` are positions of rows, counted from 0.
        Raises:
            TripletFileError: if there are no such columns, or a cell is not a name.
        Example:
            >>> frame = pd.DataFrame({"a": ["1.jpg"], "b": ["2.jpg"], "c": ["3.jpg"]})
            >>> Triplets.from_frame(frame).names
            ['1.jpg', '2.jpg', '3.jpg']
        """
        chosen = find_columns(frame, CSV_HEADINGS) if columns is None else list(columns)
        names, rows = index_cells(frame, chosen)
        return cls(names, rows, np.arange(len(rows)), "DataFrame")

    @classmethod
    def from_array(cls, rows: np.ndarray, names: Sequence[str]) -> Triplets:
        """Return triplets given as indices.

        Args:
            rows: `(n_triplets, 3)` integers, indices into `names`, anchor first.
            names: distinct; those that no row has are left out.
        Returns:
            Triplets whose `lines` are positions of rows, counted from 0.
        Raises:
            TripletFileError: if the rows are no such array, or a name is there twice.
        Example:
            >>> Triplets.from_array(np.array([[2, 0, 1]]), ["a.png", "b.png", "c.png"]).names
            ['c.png', 'a.png', 'b.png']
        """
        used, rows = index_used(np.asarray(rows), [str(name) for name in names])
        return cls(used, rows, np.arange(len(rows)), "array")

    def to_frame(self) -> pd.DataFrame:
        """Return a table of names with the columns a, b and c, a row a triplet."""
        names = np.array(self.names, dtype=object)
        return pd.DataFrame(names[self.rows].reshape(-1, 3), columns=["a", "b", "c"])

    def __len__(self) -> int:
        return len(self.rows)

    def place(self, row: int) -> str:
        """Return `file:line` of a row."""
        return f"{self.source}:{self.lines[row]}"

    def first_places(self) -> list[str]:
        """Return, for each name, `file:line` of the first row that has it."""
        first = np.full(len(self.names), np.iinfo(np.int64).max)
        np.minimum.at(first, self.rows.ravel(), np.repeat(self.lines, 3))
        return [f"{self.source}:{line}" for line in first]

    def take(self, rows: np.ndarray) -> Triplets:
        """Return the rows that a mask or an index array picks, over the same names."""
        return Triplets(self.names, self.rows[rows], self.lines[rows], self.source)

    def merge(self, same_as: np.ndarray) -> Triplets:
        """Return the rows with names that stand for one image made one.

        Args:
            same_as: `(n_names,)` indices, for each name the one to take instead.
        """
        return replace(self, rows=same_as[self.rows].astype(np.int32))

    def over(self, names: Sequence[str]) -> Triplets:
        """Return the same triplets over another list, which has all of their names."""
        index_of = {name: index for index, name in enumerate(names)}
        places = np.array([index_of[name] for name in self.names], dtype=np.int32)
        return replace(self, names=list(names), rows=places[self.rows])

    def is_degenerate(self) -> np.ndarray:
        """Return `(n_triplets,)` bool: the row names one image twice."""
        anchor, first, second = self.rows.T
        return (anchor == first) | (anchor == second) | (first == second)


@dataclass(frozen=True)
class LineProblem:
    """One line that cannot be read, and why."""

    line: int
    message: str


@dataclass(frozen=True)
class TripletScan:
    """What a triplet file holds: the rows that could be read and the lines that could not."""

    triplets: Triplets
    problems: list[LineProblem]

    def place_problems(self) -> Iterator[str]:
        """Yield `file:line: expected ..., got ...` of each line that could not be read."""
        for problem in self.problems:
            yield f"{self.triplets.source}:{problem.line}: {problem.message}"

    def checked(self) -> Triplets:
        """Return the triplets, or refuse the file.

        Raises:
            TripletFileError: if a line could not be read, or there is no triplet at all.
        """
        if self.problems:
            raise TripletFileError(describe_problems(list(self.place_problems())))
        if not len(self.triplets):
            raise TripletFileError(
                f"{self.triplets.source}: expected lines of three image names, "
                "got no triplet at all"
            )
        return self.triplets


def read_triplets(source: Path | BinaryIO, name: str | None = None) -> Triplets:
    """Read a triplet file, or refuse it with every bad line counted.

    Args:
        source: a path, or an open binary file such as standard input.
        name: what to call it in messages. Defaults to the path as given.
    Raises:
        TripletFileError: if a line is not three names, or there is none. The message holds
            the first ten problems as `file:line: expected ..., got ...` and their number.
    """
    return scan_triplets(source, name).checked()


def scan_triplets(source: Path | BinaryIO, name: str | None = None) -> TripletScan:
    """Read what can be read of a triplet file and list the lines that cannot.

    Args:
        source: a path, or an open binary file such as standard input.
        name: what to call it in messages. Defaults to the path as given.
    Raises:
        TripletFileError: if the file cannot be opened or is not text in UTF-8.
    """
    data, name = read_bytes(source, name)
    text_bytes = check_text(data, name)
    parse = _parse_csv_line if _is_csv(text_bytes, name) else _parse_line

    collected = _Collected()
    line_number = 1
    for chunk in _chunks(text_bytes):
        n_lines = chunk.count(b"\n") + (not chunk.endswith(b"\n"))
        if parse is _parse_line and not _SPECIAL.search(chunk):
            collected.add_plain(chunk, line_number)
        else:
            collected.add_lines(chunk.decode().split("\n")[:n_lines], line_number, parse)
        line_number += n_lines
    return TripletScan(collected.triplets(name), collected.problems)


def write_triplets(path: Path, names: Sequence[str], rows: np.ndarray) -> None:
    """Write a triplet file, names quoted where they need it; whole or not at all.

    Args:
        path: the file to write.
        names: the distinct names.
        rows: `(n_triplets, 3)` indices into `names`.
    Raises:
        TripletFileError: if a name cannot stand in a text file.
        OutputError: if the file cannot be written.
    """
    with open_output(path) as file:
        write_triplet_lines(file, names, rows)


def write_triplet_lines(file: IO[str], names: Sequence[str], rows: np.ndarray) -> None:
    """Write triplets into an open text file; see `write_triplets`."""
    quoted = np.array([quote_name(name) for name in names], dtype=object)
    for start in range(0, len(rows), 1 << 16):
        columns = quoted[rows[start : start + (1 << 16)]]
        file.write("".join(f"{a} {b} {c}\n" for a, b, c in columns.tolist()))


def quote_name(name: str) -> str:
    """Return a name as it must stand in a triplet file.

    Raises:
        TripletFileError: if no triplet file can hold it: it is empty, or has a line break,
            another control character, or bytes that are not text.
    """
    if not name or _CONTROL.search(name) or not _is_encodable(name):
        raise TripletFileError(
            f"expected a name that a line of text can hold, got {name!r}; rename the image"
        )
    if re.search(r'[\s",]', name) or name.startswith("#"):
        return '"' + name.replace('"', '""') + '"'
    return name


def describe_other_questions(asked: Triplets, expected: Triplets) -> str | None:
    """Compare two triplet sets row by row and name by name.

    Args:
        asked, expected: of equally many rows.
    Returns:
        The first ten rows that differ and their number; None if there are none.
    """
    index_of = {name: index for index, name in enumerate(expected.names)}
    numbers = np.array([index_of.get(name, -1) for name in asked.names], dtype=np.int64)
    wrong = np.flatnonzero((numbers[asked.rows] != expected.rows).any(axis=1))
    if not wrong.size:
        return None
    problems = [
        f"{asked.place(row)}: expected the question {_question(expected, row)} of "
        f"{expected.place(row)}, got {_question(asked, row)}"
        for row in wrong[:MAX_SHOWN]
    ]
    return describe_problems(problems, len(wrong))


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
        TripletFileError: naming the first line that is not UTF-8 text.
    """
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise TripletFileError(
            f"{name}: expected UTF-8 text, got UTF-16 ('Unicode' in Windows editors). "
            "Save it again as UTF-8."
        )
    data = data.removeprefix(b"\xef\xbb\xbf")
    if b"\r" in data:
        data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    try:
        data.isascii() or data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise TripletFileError(
            f"{name}:{line}: expected UTF-8 text, got the byte 0x{data[error.start]:02x}. "
            "Save the file again as UTF-8."
        ) from error
    return data


class _Collected:
    """Rows, names and problems gathered piece by piece."""

    def __init__(self) -> None:
        self.index_of: dict[str, int] = {}
        self.rows: list[np.ndarray] = []
        self.lines: list[np.ndarray] = []
        self.problems: list[LineProblem] = []
        # Only the first line that holds names can be the heading: a later one is a triplet.
        self.may_be_heading = True

    def triplets(self, source: str) -> Triplets:
        rows = np.concatenate(self.rows) if self.rows else np.empty((0, 3), np.int32)
        lines = np.concatenate(self.lines) if self.lines else np.empty(0, np.int64)
        return Triplets(list(self.index_of), rows, lines, source)

    def add_plain(self, chunk: bytes, first_line: int) -> None:
        """Add a chunk in which only blanks, line ends and printable ASCII occur."""
        characters = np.frombuffer(chunk, dtype=np.uint8)
        is_blank = (characters == 0x20) | (characters == 0x09) | (characters == 0x0A)
        is_start = ~is_blank
        is_start[1:] &= is_blank[:-1]
        line_ends = np.flatnonzero(characters == 0x0A)
        lines_of_tokens = np.searchsorted(line_ends, np.flatnonzero(is_start))
        n_tokens = np.bincount(lines_of_tokens, minlength=len(line_ends) + 1)
        is_heading = self.may_be_heading and _is_heading(chunk.split(None, 3)[:3])
        if is_heading or not np.isin(n_tokens, (0, 3)).all():
            # A line is bad or a heading: rare, and the careful way finds the same rows.
            self.add_lines(chunk.decode().split("\n"), first_line, _parse_line)
            return
        self.may_be_heading &= not n_tokens.any()
        self._add(chunk.split(), np.flatnonzero(n_tokens) + first_line, decode=True)

    def add_lines(self, lines: Iterable[str], first_line: int, parse) -> None:
        """Add lines one by one with a function that returns names or raises `ValueError`."""
        tokens: list[str] = []
        numbers: list[int] = []
        for number, line in enumerate(lines, first_line):
            try:
                names = parse(line)
            except ValueError as error:
                self.problems.append(LineProblem(number, str(error)))
                continue
            if not names:
                continue
            is_first, self.may_be_heading = self.may_be_heading, False
            if is_first and _is_heading(names, parse is _parse_csv_line):
                continue
            tokens += names
            numbers.append(number)
        self._add(tokens, np.array(numbers, dtype=np.int64), decode=False)

    def _add(self, tokens: list, lines: np.ndarray, decode: bool) -> None:
        numbers, distinct = pd.factorize(np.array(tokens, dtype=object))
        index_of = self.index_of
        global_numbers = np.array(
            [
                index_of.setdefault(name.decode() if decode else name, len(index_of))
                for name in distinct
            ],
            dtype=np.int32,
        )
        self.rows.append(global_numbers[numbers].reshape(-1, 3))
        self.lines.append(lines)


def _chunks(data: bytes) -> Iterator[bytes]:
    """Cut at line ends, so that no line is in two pieces."""
    start = 0
    while start < len(data):
        end = data.find(b"\n", start + _CHUNK_BYTES)
        end = len(data) if end < 0 else end + 1
        yield data[start:end]
        start = end


def _is_heading(names: Sequence[str | bytes], is_csv: bool = False) -> bool:
    lowered = tuple((n.decode() if isinstance(n, bytes) else n).lower() for n in names)
    return lowered in (CSV_HEADINGS if is_csv else HEADINGS)


def _is_csv(data: bytes, name: str) -> bool:
    """Decide by the first line that holds something; a doubtful one counts as CSV in a .csv.

    `comma,name.jpg x.jpg y.jpg` is three names in a text file and no CSV row;
    `a.jpg, b.jpg, c.jpg` is a CSV row although it also falls into three at the blanks.
    """
    for line in _first_lines(data):
        if "," not in line or not line.strip() or line.lstrip().startswith("#"):
            continue
        try:
            fields = _parse_csv_line(line)
        except ValueError:
            return False
        try:
            _parse_line(line)
        except ValueError:
            return True
        return name.lower().endswith(".csv") or _is_heading(fields, is_csv=True)
    return False


def _first_lines(data: bytes, n_lines: int = 1000) -> Iterator[str]:
    start = 0
    for _ in range(n_lines):
        if start >= len(data):
            return
        end = data.find(b"\n", start)
        end = len(data) if end < 0 else end
        line = data[start:end].decode()
        start = end + 1
        yield line
        if line.strip() and not line.lstrip().startswith("#"):
            return


def split_line(line: str) -> list[str]:
    """Return the fields of a line that blanks or tabs separate, a comment left out.

    Raises:
        ValueError: saying what was expected.
    """
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


def split_csv_line(line: str) -> list[str]:
    """Return the fields of a CSV row, or none of a blank or comment line.

    Raises:
        ValueError: saying what was expected.
    """
    if not line.strip() or line.lstrip().startswith("#"):
        return []
    try:
        fields = next(csv.reader([line], skipinitialspace=True, strict=True))
    except csv.Error as error:
        raise ValueError(f"expected a CSV row, got {shorten_line(line)} ({error})") from error
    # Blanks before a comma belong to the layout unless the field is quoted; csv keeps them.
    return [field.strip(" \t") for field in fields]


def check_names(names: list[str], line: str) -> list[str]:
    """Return the three names of a line, or none of a blank one.

    Raises:
        ValueError: if they are others, saying what was expected.
    """
    if names and len(names) != 3:
        hint = ' Put names with spaces in quotes (").' if len(names) > 3 else ""
        if len(names) == 4 and _SHARE.fullmatch(names[3]):
            hint = (
                " Where the fourth is the share of people who said the second, `train` and "
                "`score` take it with --fourth-column share."
            )
        raise ValueError(f"expected 3 image names, got {len(names)} ({shorten_line(line)}).{hint}")
    for name in names:
        if not name:
            raise ValueError(f"expected an image name, got an empty one in {shorten_line(line)}")
        if control := _CONTROL.search(name):
            raise ValueError(
                f"expected an image name, got one with the control character "
                f"U+{ord(control.group()):04X} in {shorten_line(line)}"
            )
    return names


def shorten_line(line: str) -> str:
    """Return a line as messages show it: quoted, short, nothing invisible in it."""
    short = line if len(line) <= _SHOWN_CHARACTERS else line[:_SHOWN_CHARACTERS] + "..."
    return ascii(short) if _CONTROL.search(short) or _ODD_BLANK.search(short) else f'"{short}"'


def _parse_line(line: str) -> list[str]:
    return check_names(split_line(line), line)


def _parse_csv_line(line: str) -> list[str]:
    return check_names(split_csv_line(line), line)


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


def _question(triplets: Triplets, row: int) -> str:
    return "(" + ", ".join(triplets.names[index] for index in triplets.rows[row]) + ")"


def _is_encodable(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True

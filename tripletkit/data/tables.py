"""Files as tables of texts: from lines of names, CSV, TSV, JSON, Parquet or pandas.

Lines are cut in Python only where one holds a quote, a comment or a separator; pandas cuts plain
files, some millions of lines in seconds.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pandas as pd

from tripletkit.data.columns import (
    FORMS,
    N_COMPARED,
    Wanted,
    find_roles,
    is_heading,
    resembles_heading,
)
from tripletkit.data.outputs import note_input
from tripletkit.data.text_files import ODD_BLANK, FileRecord, shorten_line, unguard_formula
from tripletkit.errors import MissingExtraError, TripletFileError, describe_problems

_SEPARATORS = (",", ";", "\t", "|")
_EXCEL = re.compile(r"sep=(.)", re.IGNORECASE)
# What other files begin with, and what to do.
_OTHER_KINDS = {
    b"PK\x03\x04": "an Excel workbook or another ZIP. Save the sheet as CSV.",
    b"\x1f\x8b": "a file compressed by gzip. Unpack it first.",
    b"\x93NUMPY": "a NumPy array. Load it in Python, and give it with `names`.",
    b"\x80": "a pickle, which can run code. Save the table as CSV.",
}
_SUFFIXES = {",": ".csv", ";": ".csv", "|": ".csv", "\t": ".tsv"}
_MORE_COLUMNS = (
    ' Names with spaces stand in quotes ("). More columns need a heading that names three, such as '
    "anchor,positive,negative; or say with `columns` what they are, as share=4 for the share of "
    "people who said the first of the two."
)
# A text with one of these needs more than cutting at blanks.
_SPECIAL = re.compile(rb'["#,\x00-\x08\x0b\x0c\x0e-\x1f\x7f\x80-\xff]')
_TOKEN = re.compile(r'[ \t]*+(?:"([^"]*(?:""[^"]*)*)"(?=[ \t]|\Z)|(#.*)|([^ \t"#][^ \t]*))')
_FIELDS = {
    separator: re.compile(
        r'[ \t]*+(?:"([^"]*(?:""[^"]*)*)"[ \t]*+|([^"SEP][^"SEP]*+|))(?=SEP|\Z)'.replace(
            "SEP", re.escape(separator)
        ).replace("[ \\t]*+", "[ ]*+" if separator == "\t" else "[ \\t]*+")
    )
    for separator in _SEPARATORS
}
# Three paths as long as Linux allows, each in quotes that are doubled, fill a fifth of it. A longer
# line is a quote left open or no text at all, and cutting it would take a multiple of its size.
_MOST_LINE_BYTES = 1 << 17
# Lines that a quoted field may go over; a quote that is left open would take the whole file.
_MOST_LINES = 1000


@dataclass(frozen=True)
class FileTable:
    """Rows of texts."""

    columns: tuple[str, ...]  # as they stand in the heading; empty without one
    cells: tuple[np.ndarray, ...]  # `(n_rows,)` objects each: texts, or what else a table holds
    lines: np.ndarray  # `(n_rows,)` int64, of each row in its file, counted from 1
    source: str
    problems: dict[int, str] = field(default_factory=dict)  # line -> why it is no row

    def __len__(self) -> int:
        return len(self.lines)

    @property
    def headings(self) -> tuple[str, ...]:
        """The columns, or without a heading their numbers from 1."""
        return self.columns or tuple(map(str, range(1, len(self.cells) + 1)))

    def has_files(self, column: int) -> bool:
        """Return whether the first cells of a column look like names of files."""
        cells = [cell for column in self.cells[column : column + 1] for cell in column[:20]]
        texts = [cell for cell in cells if isinstance(cell, str)]
        return bool(texts) and all("." in text or "/" in text for text in texts)

    def texts(self, column: int) -> np.ndarray:
        """Return `(n_rows,)` objects: the cells of a column as texts; empty where there is none."""
        cells = self.cells[column]
        return cells if are_texts(cells) else _objects(map(_as_text, cells))


def are_texts(cells: np.ndarray) -> bool:
    return pd.api.types.infer_dtype(cells, skipna=False) == "string"


def place_problems(problems: Mapping[int, str], source: str) -> list[str]:
    """Return `file:line: expected ..., got ...` of each problem, by their lines."""
    return [f"{source}:{line}: {said}" for line, said in sorted(problems.items())]


def _hash_frame(frame: pd.DataFrame) -> str:
    text = frame.to_csv(index=False)
    return hashlib.sha256(text.encode("utf-8", errors="surrogateescape")).hexdigest()


def open_table(
    given: Path | BinaryIO | pd.DataFrame, wanted: Wanted, columns: Mapping[str, str] | None = None
) -> tuple[FileTable, FileRecord]:
    """Return the table that something is, whatever its form; refuse a heading that is not known."""
    if isinstance(given, pd.DataFrame):
        return _table_of_frame(given), FileRecord("DataFrame", None, _hash_frame(given))
    data, source = _read_bytes(given)
    path = str(given.absolute()) if isinstance(given, Path) else None
    record = FileRecord(source, path, hashlib.sha256(data).hexdigest())
    if data.startswith(b"SQLite format 3\x00"):
        raise TripletFileError(
            f"{source}: a database of judgements can be read from its file alone; give its path"
        )
    if data.startswith(b"PAR1"):
        return _table_of_parquet(data, source), record
    text = _check_text(data, source)
    if _is_json(text):
        return _table_of_json(text, source, wanted), record
    layout = _find_layout(text, source, wanted, columns or None)
    if wanted in ("truth", "answers") and layout.separator is None:
        return _table_of_answers(text, source), record
    widths = frozenset(() if columns else FORMS[wanted].headless)
    table = _cut_plain(text, source, widths) if layout == _Layout() else None
    return table or _cut_lines(text, layout, source, widths, FORMS[wanted].expected), record


def read_text(source: Path | BinaryIO) -> str:
    """Return a whole text file of UTF-8, with `\\n` as its only line end."""
    return _check_text(*_read_bytes(source)).decode()


def _read_bytes(source: Path | BinaryIO) -> tuple[bytes, str]:
    """Return the bytes of a path or an open binary file, and what to call it in messages."""
    if not isinstance(source, Path):
        note_input(Path("-"))
        if not hasattr(source, "read"):
            raise TripletFileError(f"expected a file or a table, got {type(source).__name__}")
        data, known = source.read(), getattr(source, "name", None)
        data = data.encode(errors="surrogateescape") if isinstance(data, str) else data
        return data, known if isinstance(known, str) else "<stdin>"
    note_input(source)
    try:
        return source.read_bytes(), str(source)
    except OSError as error:
        raise TripletFileError(f"{source}: cannot be read: {error.strerror}") from error


def _check_text(data: bytes, name: str) -> bytes:
    """Return UTF-8 bytes without byte order mark and with `\\n` as the only line end."""
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise TripletFileError(
            f"{name}: expected UTF-8 text, got UTF-16 ('Unicode' in Windows editors). "
            "Save it again as UTF-8."
        )
    for first_bytes, kind in _OTHER_KINDS.items():
        if data.startswith(first_bytes):
            raise TripletFileError(f"{name}: expected a text, got {kind}")
    data = data.removeprefix(b"\xef\xbb\xbf")
    if b"\r" in data:
        data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    ends = np.flatnonzero(np.frombuffer(data, np.uint8) == ord("\n"))
    lengths = np.diff(np.concatenate([[-1], ends, [len(data)]])) - 1
    if lengths.max() > _MOST_LINE_BYTES:
        line = int((lengths > _MOST_LINE_BYTES).argmax())
        start = ends[line - 1] + 1 if line else 0
        quote = " Is a quote left open?" if b'"' in data[start : start + 1000] else ""
        raise TripletFileError(
            f"{name}:{line + 1}: expected a line of at most {_MOST_LINE_BYTES:,} bytes, got one of "
            f"{lengths[line]:,}.{quote}"
        )
    try:
        data.isascii() or data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise TripletFileError(
            f"{name}:{line}: expected UTF-8 text, got the byte 0x{data[error.start]:02x}. "
            "Save the file again as UTF-8."
        ) from error
    return data


@dataclass(frozen=True)
class _Layout:
    """How the lines of a text are cut."""

    separator: str | None = None  # None for blanks
    fields: tuple[str, ...] = ()  # of the heading
    n_above: int = 0  # lines above the first row
    is_of_labels: bool = False

    def cut(self, line: str) -> list[str]:
        """Return the fields of a line, none of a blank or comment line; raises `ValueError`."""
        if self.separator is None:
            return _split_line(line)
        is_blank, is_comment = not line.strip(), line.lstrip().startswith("#")
        if self.is_of_labels:
            # Spreadsheets leave rows of separators alone, and write `#1.jpg` without quotes.
            is_blank = not line.strip(f"{self.separator} \t")
            is_comment &= self.separator not in line
        return [] if is_blank or is_comment else _split_csv_line(line, self.separator)

    def try_to_cut(self, line: str) -> list[str]:
        """Return the fields of a line; none if it cannot be cut."""
        try:
            return self.cut(line)
        except ValueError:
            return []


def _content_lines(data: bytes) -> Iterator[tuple[int, str]]:
    """Yield number, from 1, and text of the lines that are neither blank nor a `#` comment."""
    for number, line in enumerate(io.BytesIO(data), 1):
        text = line.decode().removesuffix("\n")
        if text.strip() and not text.lstrip().startswith("#"):
            yield number, text


def _split_line(line: str) -> list[str]:
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


def _check_plain(name: str, line: str) -> None:
    if odd := ODD_BLANK.search(name):
        raise ValueError(
            f"expected spaces or tabs between names, got the blank U+{ord(odd.group()):04X} "
            f"in {shorten_line(line)}"
        )
    if name.startswith(",") or name.endswith(","):
        raise ValueError(
            f"expected names separated by blanks as in the lines before, got commas in "
            f"{shorten_line(line)}"
        )


def _split_csv_line(line: str, separator: str = ",") -> list[str]:
    """Return the fields of a CSV row; blanks around a field are layout unless in quotes."""
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


def _find_layout(
    text: bytes, source: str, wanted: Wanted, columns: Mapping[str, str] | None
) -> _Layout:
    """Tell by the first line that holds something how a file is to be read.

    Without a heading, a line that cuts at blanks into as many names as are wanted is a text, even
    if it also cuts at separators (`a, b, c`); a file called `.csv` or `.tsv` turns that round.
    """
    lines = _content_lines(text)
    number, line = next(lines, (0, ""))
    if not number:
        return _Layout()
    separators: Sequence[str] = _SEPARATORS
    n_above = 0
    # Excel's own line above a CSV says what separates.
    if (excel := _EXCEL.fullmatch(line.strip())) and (below := next(lines, None)):
        if excel.group(1) not in _SEPARATORS:
            raise TripletFileError(
                f"{source}:{number}: expected a comma, a semicolon, a tab or a bar after sep=, "
                f"got {shorten_line(excel.group(1))}"
            )
        separators, n_above = (excel.group(1),), number
        number, line = below
    following = [each for _, each in islice(lines, N_COMPARED)]
    is_of_labels, is_of_names = wanted == "labels", wanted in ("triplets", "votes")
    is_tsv = source.lower().endswith(".tsv")
    try:
        for separator in (*separators, None) if is_of_names else separators:
            layout = _Layout(separator, (), n_above, is_of_labels)
            fields = [field.strip() for field in layout.try_to_cut(line)]
            if len(fields) < (1 if separator is None else 2):
                continue
            # `a b c` between blanks are three images, unless the file says that it is a table.
            with_letters = columns is not None if separator is None else separator != "\t" or is_tsv
            rows = map(layout.try_to_cut, following)
            if is_heading(fields, rows, wanted, columns, with_letters=with_letters):
                return replace(layout, fields=tuple(fields), n_above=number)
        if is_of_names:
            separator = _separator_by_position(line, source, separators, FORMS[wanted].headless)
            layout = _Layout(separator, (), n_above)
            _check_comment(layout, text.split(b"\n", number)[max(number - 2, 0)].decode())
            if wanted == "triplets" and not _are_numbers(columns):
                _check_first_row(layout, line, following)
            return layout
        separator = next((each for each in separators if each in line), None)
        layout = _Layout(separator, (), n_above, is_of_labels)
        if separator is None or is_of_labels:
            return layout
        return replace(layout, fields=tuple(layout.cut(line)), n_above=number)
    except ValueError as error:
        raise TripletFileError(f"{source}:{number}: {error}") from error


def _are_numbers(columns: Mapping[str, str] | None) -> bool:
    return columns is not None and all(str(text).isdecimal() for text in columns.values())


def _check_comment(layout: _Layout, above: str) -> None:
    """Refuse a heading behind a # that names the columns in another order than they are read in."""
    fields = layout.try_to_cut(above.lstrip("# \t")) if above.startswith("#") else []
    roles = find_roles(fields) if len(fields) == 3 and is_heading(fields, []) else None
    if roles is not None and roles.names != (0, 1, 2):
        raise ValueError(
            f"expected the heading without a #, got {shorten_line(above)} above, which is passed "
            "over as a comment. Take the # away, or the line"
        )


def _check_first_row(layout: _Layout, line: str, following: Sequence[str]) -> None:
    """Refuse a first row that looks like a heading but is none that is known."""
    fields = layout.try_to_cut(line)
    if len(fields) >= 3 and resembles_heading(fields, map(layout.try_to_cut, following)):
        escape = "anchor first second".replace(" ", layout.separator or " ")
        raise ValueError(
            "expected a heading with anchor,positive,negative; a,b,c; query,first,second, or names "
            f"of images, got {shorten_line(line)}, which looks like a heading that is not known. "
            "Say with `columns` which columns hold the anchor, the nearer image and the other, "
            "such as anchor=...,positive=...,negative=...; if these are names of images, put the "
            f'line "{escape}" above.'
        )


def _separator_by_position(
    line: str, source: str, separators: Sequence[str], widths: Collection[int]
) -> str | None:
    texts = _Layout().try_to_cut(line)
    for separator in separators:
        # `a; b; c` is cut at blanks, too, but means what stands before them.
        is_text = len(texts) in widths and not all(text.endswith(separator) for text in texts[:-1])
        n_fields = len(_Layout(separator).try_to_cut(line))
        if n_fields in widths:
            if not is_text or source.lower().endswith(_SUFFIXES[separator]):
                return separator
        elif n_fields > 3 and not is_text and separator != "\t":
            return separator
    return None


def _cut_plain(text: bytes, source: str, widths: Collection[int]) -> FileTable | None:
    """Return the table of a text of blanks and printable ASCII; None if a line is odd."""
    text = text.rstrip()
    if not text or _SPECIAL.search(text):
        return None
    try:
        frame = pd.read_csv(
            io.BytesIO(text),
            sep=r"\s+",
            header=None,
            dtype=object,
            low_memory=False,
            na_filter=False,
            quoting=csv.QUOTE_NONE,
        )
    except pd.errors.ParserError:
        return None
    cells = tuple(frame[column].to_numpy() for column in frame.columns)
    # A blank line is passed over, and what a short line lacks is empty.
    is_whole = len(frame) == text.count(b"\n") + 1 and all((column != "").all() for column in cells)
    if not is_whole or (widths and len(cells) not in widths):
        return None
    return FileTable((), cells, np.arange(1, len(frame) + 1), source)


def _table_of_answers(text: bytes, source: str) -> FileTable:
    """Return one column. A blank line passed over would shift the truth of all later rows."""
    texts = [line.strip(" \t") for line in text.decode().rstrip("\n \t").split("\n")]
    if texts == [""]:
        raise TripletFileError(f"{source}: expected answers, one a line, got an empty file")
    heading = texts[0].strip('"')
    columns = (heading,) if find_roles([heading], "truth") else ()
    cells = _objects(texts[len(columns) :])
    lines = np.arange(len(columns) + 1, len(texts) + 1)
    said = "expected 0 or 1, got a blank line; every row needs its own"
    problems = dict.fromkeys(lines[cells == ""].tolist(), said)
    return FileTable(columns, (cells[cells != ""],), lines[cells != ""], source, problems)


def _cut_lines(
    text: bytes, layout: _Layout, source: str, widths: Collection[int], expected: str
) -> FileTable:
    """Return the table below a heading, or of all lines, as wide as the first."""
    n_columns = len(layout.fields)
    rows: dict[int, list[str]] = {}
    problems: dict[int, str] = {}
    for number, line in _whole_lines(text, layout):
        try:
            fields = layout.cut(line)
            if not fields:
                continue
            is_first = not n_columns or len(widths) == 1
            if not layout.fields and widths and len(fields) not in widths and is_first:
                hint = _MORE_COLUMNS if len(fields) > 3 and widths == {3} else ""
                raise ValueError(
                    f"expected {expected}, got {len(fields)} ({shorten_line(line)}){hint}"
                )
            n_columns = n_columns or len(fields)
            if len(fields) != n_columns:
                where = "heading" if layout.fields else "first line"
                raise ValueError(
                    f"expected {n_columns} columns as in the {where}, got {len(fields)} "
                    f"({shorten_line(line)})"
                )
        except ValueError as error:
            problems[number] = str(error)
            continue
        rows[number] = fields
    cells = tuple(map(_objects, zip(*rows.values(), strict=True)))
    cells = cells or tuple(_objects([]) for _ in range(n_columns))
    return FileTable(layout.fields, cells, np.array(list(rows), dtype=np.int64), source, problems)


def _whole_lines(text: bytes, layout: _Layout) -> Iterator[tuple[int, str]]:
    """Yield number and text of each line; of a CSV those that a quoted field joins as one."""
    lines = text.decode().split("\n")
    at = layout.n_above
    while at < len(lines):
        end = at + 1
        if layout.separator is not None and lines[at].count('"') % 2:
            last = min(len(lines), at + _MOST_LINES)
            closing = (n for n in range(end, last) if lines[n].count('"') % 2)
            end = next(closing, at) + 1
        yield at + 1, "\n".join(lines[at:end])
        at = end


def _table_of_frame(frame: pd.DataFrame, source: str = "DataFrame") -> FileTable:
    """Return a table of pandas; its lines are positions of rows, counted from 0."""
    is_named = list(frame.columns) != list(range(frame.shape[1]))
    columns = tuple(str(label).strip() for label in frame.columns) if is_named else ()
    cells = tuple(frame.iloc[:, place].to_numpy(dtype=object) for place in range(frame.shape[1]))
    return FileTable(columns, cells, np.arange(len(frame), dtype=np.int64), source)


def _table_of_parquet(data: bytes, source: str) -> FileTable:
    try:
        return _table_of_frame(pd.read_parquet(io.BytesIO(data)), source)
    except ImportError as error:
        raise MissingExtraError(
            f"{source}: reading Parquet needs pyarrow: pip install 'tripletkit[parquet]'"
        ) from error
    except (OSError, ValueError) as error:
        raise TripletFileError(f"{source}: expected a Parquet file, got a damaged one") from error


def _is_json(data: bytes) -> bool:
    """Return whether a text is JSON or JSON lines, and not lines of names."""
    start = data.lstrip()
    if start[:1] == b"{":
        return True
    return start[:1] == b"[" and start[1:].lstrip()[:1] in (b"{", b"[", b'"')


def _table_of_json(data: bytes, source: str, wanted: Wanted) -> FileTable:
    """Return the table of JSON lines, or of one value: rows (objects or lists), columns as pandas
    writes them, an object with a list of rows, or COCO's labels."""
    try:
        value = json.loads(data)
    except ValueError:
        return _table_of_rows(*_json_lines(data), source)
    if isinstance(value, dict):
        if wanted == "labels" and {"images", "annotations", "categories"} <= set(value):
            return _table_of_frame(_frame_of_coco(value, source), source)
        lists = [each for each in value.values() if isinstance(each, list)]
        if len(lists) == 1 and lists[0] and isinstance(lists[0][0], dict | list):
            value = lists[0]
        elif all(isinstance(each, dict | list) for each in value.values()):
            try:
                return _table_of_frame(pd.DataFrame(_split_lists(value)).astype(object), source)
            except ValueError as error:
                raise TripletFileError(
                    f"{source}: expected rows or columns of one length, got others: {error}"
                ) from error
        else:
            value = [value]
    if not isinstance(value, list):
        raise TripletFileError(f"{source}: expected JSON rows, got {shorten_line(str(value))}")
    return _table_of_rows(dict(enumerate(value, 1)), {}, source)


def _split_lists(columns: dict[str, Any]) -> dict[str, Any]:
    """Return columns without lists of one length in them: `answers` as `answers 1`, `answers 2`."""
    found: dict[str, Any] = {}
    for name, cells in columns.items():
        widths = {len(cell) if isinstance(cell, list) else 0 for cell in cells}
        if isinstance(cells, list) and len(widths) == 1 and min(widths) > 1:
            parts = enumerate(zip(*cells, strict=True), 1)
            found |= {f"{name} {number}": list(part) for number, part in parts}
        else:
            found[name] = cells
    return found


def _frame_of_coco(value: dict[str, Any], source: str) -> pd.DataFrame:
    """Return names and labels."""
    try:
        names = {image["id"]: image["file_name"] for image in value["images"]}
        classes = {category["id"]: str(category["name"]) for category in value["categories"]}
        pairs = [
            (names[each["image_id"]], classes[each["category_id"]]) for each in value["annotations"]
        ]
    except (LookupError, TypeError) as error:
        raise TripletFileError(
            f"{source}: expected COCO's images, categories and annotations"
        ) from error
    return pd.DataFrame(pairs, columns=["name", "label"])


def _json_lines(data: bytes) -> tuple[dict[int, Any], dict[int, str]]:
    """Return the values by their lines, and what is wrong with other lines."""
    rows: dict[int, Any] = {}
    problems: dict[int, str] = {}
    for number, line in enumerate(data.decode().split("\n"), 1):
        if not line.strip():
            continue
        try:
            rows[number] = json.loads(line)
        except ValueError:
            problems[number] = f"expected a JSON object a line, got {shorten_line(line)}"
    return rows, problems


def _table_of_rows(rows: dict[int, Any], problems: dict[int, str], source: str) -> FileTable:
    """Return the table of objects by name, or of lists."""
    kind = list if rows and all(isinstance(row, list) for row in rows.values()) else dict
    kept = {number: row for number, row in rows.items() if type(row) is kind}
    problems |= {
        number: f"expected a JSON object, got {shorten_line(json.dumps(row))}"
        for number, row in rows.items()
        if number not in kept
    }
    if kind is list and len(widths := sorted({len(row) for row in rows.values()})) > 1:
        raise TripletFileError(f"{source}: expected rows of one length, got {widths}")
    if not any(kept.values()):
        raise TripletFileError(
            describe_problems(place_problems(problems, source))
            or f"{source}: expected rows of columns, got none"
        )
    table = _table_of_frame(pd.DataFrame(list(kept.values()), dtype=object), source)
    return replace(table, lines=np.array(list(kept), dtype=np.int64), problems=problems)


def _as_text(value: Any) -> str:
    """Return a value as a file would have it: whole numbers without a point, nothing for none."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool | np.bool_):
        return str(bool(value)).lower()
    if isinstance(value, list | dict | tuple | np.ndarray):
        return json.dumps(value, default=str)
    if value is None or pd.isna(value):
        return ""
    if isinstance(value, float | np.floating) and float(value).is_integer():
        return str(int(value))
    return str(value)


def _objects(values: Iterable[Any]) -> np.ndarray:
    """Return `(n,)` objects, lists among them as they are."""
    values = list(values)
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array

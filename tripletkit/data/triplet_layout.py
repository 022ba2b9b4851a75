"""How the lines of a text are cut, and whether the first of them names columns."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

from tripletkit.data.columns import find_roles, split_words
from tripletkit.data.text_files import (
    SEPARATORS,
    check_names,
    content_lines,
    shorten_line,
    split_csv_line,
    split_line,
)
from tripletkit.errors import TripletFileError

_SHOWN_HEADINGS = "anchor,positive,negative; a,b,c; query,first,second"
# What is written above rows that would be taken for a heading; see `Triplets.is_answered`.
_TEXT_HEADINGS = {True: "anchor positive negative", False: "query first second"}
_CLEAR = ({"anchor", "positive", "negative"}, {"query", "first", "second"})
# Single letters are names of images as often as of columns.
_LETTERS = ("a", "b", "c")
_TELLING = frozenset(
    "anchor positive negative pos neg query probe reference ref votes share prediction margin "
    "label truth rater annotator worker".split()
)
_WORDS = _TELLING | frozenset(
    "image images img picture photo pic stimulus stim item object file filename name path id idx "
    "index row triplet trial target test first second third left right similar dissimilar closer "
    "farther nearer further near far winner loser choice chosen other candidate cand option opt "
    "comparison comp sample answer vote user subject".split()
)
_WORDLIKE = re.compile(r"[A-Za-z][A-Za-z0-9 _-]*")
# What names of images have and names of columns have not.
_FILE_SHAPES = (re.compile(r".*(\.\w+$|/)", re.DOTALL), re.compile("[0-9]"))


def resembles_heading(fields: Sequence[str], following: Sequence[Sequence[str]]) -> bool:
    """Return whether a first row seems to name columns, in words that are not known.

    It does if none of its texts comes again below, and

    - one is a word that only columns have (`anchor`, `pos`, `rater`), or
    - two are words that columns often have (`image1`, `left`) and no text below is, or
    - all are plain words and every text below has an extension or a folder, or starts with a digit.

    Args:
        fields: of the first row.
        following: of the rows below, as many as are to be looked at.
    """
    below = {text for row in following for text in row}
    if len({field.strip().lower() for field in fields}) < len(fields) or below & set(fields):
        return False
    words = [_words(field) for field in fields]
    if any(each & _TELLING for each in words):
        return True
    if sum(map(bool, words)) >= 2 and below and not any(map(_words, below)):
        return True
    return (
        bool(below)
        and all(map(_WORDLIKE.fullmatch, fields))
        and any(all(map(shape.match, below)) for shape in _FILE_SHAPES)
    )


def describe_unknown_heading(shown: str, escape: str) -> str:
    """Say what is wrong with a first row that seems to be a heading.

    Args:
        shown: the row.
        escape: the heading to put above, if they are names of images after all.
    """
    return (
        f"expected a heading with {_SHOWN_HEADINGS}, or names of images, got {shown}, which "
        f"looks like a heading that is not known. Say with `columns` which columns hold the "
        "anchor, the nearer image and the other, such as anchor=...,positive=...,negative=...; if "
        f'these are names of images, put the line "{escape}" above.'
    )


def _words(field: str) -> set[str]:
    """Return the words of a field that are all words of columns, numbers and letters left out."""
    if not _WORDLIKE.fullmatch(field):
        return set()
    words = {word for word in split_words(field) if word.isalpha() and word not in _LETTERS}
    return words if words <= _WORDS else set()


# Rows below the first that are looked at to tell a heading from names.
N_COMPARED = 100
_SHARE = re.compile(r"0?\.\d+|[01](\.0*)?", re.ASCII)
_SUFFIXES = {",": ".csv", ";": ".csv", "|": ".csv", "\t": ".tsv"}
_EXCEL = re.compile(r"sep=(.)", re.IGNORECASE)


@dataclass(frozen=True)
class Layout:
    """How the lines of a file are cut.

    Attributes:
        separator: between fields; None for blanks.
        fields: names of the columns; empty without a heading.
        start: where the first row starts, in bytes.
        line: its number.
    """

    separator: str | None = None
    fields: tuple[str, ...] = ()
    start: int = 0
    line: int = 1

    def split(self, line: str) -> list[str]:
        """Return the fields of a line, none of a blank or comment line; raises `ValueError`."""
        if self.separator is None:
            return split_line(line)
        if not line.strip() or line.lstrip().startswith("#"):
            return []
        return split_csv_line(line, self.separator)

    def parse(self, line: str) -> list[str]:
        """Return the three names of a line without a heading, or none; raises `ValueError`."""
        fields = self.split(line)
        try:
            return check_names(fields, line)
        except ValueError as error:
            raise ValueError(f"{error}{self._hint(fields)}") from error

    def _hint(self, fields: list[str]) -> str:
        if len(fields) <= 3:
            return ""
        if self.separator is not None:
            return " More columns need a heading that names three: anchor,positive,negative."
        if len(fields) == 4 and _SHARE.fullmatch(fields[3]):
            return (
                " Where the fourth is the share of people who said the second, read it as such "
                "with `fourth_column=share`."
            )
        return ' Put names with spaces in quotes (").'


def find_layout(data: bytes, name: str, columns: Mapping[str, str] | None = None) -> Layout:
    """Tell by the first line that holds something how a file is to be read.

    A line that names known columns is the heading of a CSV or TSV, or, of words between blanks,
    of a text. Without a heading, a line that cuts into three names at blanks is a text, even if
    it also does at separators, as `a, b, c` does; a name of the file that ends in `.csv` or
    `.tsv` turns that round.

    Args:
        data: as `text_files.check_text` returns it.
        name: of the file.
        columns: what the user calls the columns; see `find_roles`.
    Raises:
        TripletFileError: if the line looks like a heading but is not known.
    """
    lines = content_lines(data)
    first = next(lines, None)
    if first is None:
        return Layout()
    separators: Sequence[str] = SEPARATORS
    # Where the rows start if there is no heading.
    start_of_rows, line_of_rows = 0, 1
    # Excel's own line above a CSV says what separates.
    if (excel := _EXCEL.fullmatch(first[2].strip())) and (below := next(lines, None)):
        if excel.group(1) not in SEPARATORS:
            raise TripletFileError(
                f"{name}:{first[0]}: expected a comma, a semicolon, a tab or a bar after sep=, got "
                f"{shorten_line(excel.group(1))}"
            )
        separators, start_of_rows, line_of_rows = (excel.group(1),), first[1], first[0] + 1
        first = below
    number, start, line = first
    try:
        following = [text for *_, text in islice(lines, N_COMPARED)]
        layout = _layout_by_heading(line, name, separators, columns, following)
        if layout is not None:
            return Layout(layout.separator, layout.fields, start, number + 1)
        layout = _layout_by_position(line, name, separators)
        if columns is None or not all(str(text).isdecimal() for text in columns.values()):
            _check_first_row(layout, line, following)
    except ValueError as error:
        raise TripletFileError(f"{name}:{number}: {error}") from error
    return Layout(layout.separator, (), start_of_rows, line_of_rows)


def needs_heading(rows: Sequence[Sequence[str]]) -> bool:
    """Return whether a text of these rows would have its first row taken for a heading.

    Args:
        rows: names, three a row; no more are looked at than reading looks at.
    """
    if not rows:
        return False
    first, *below = rows[: 1 + N_COMPARED]
    try:
        is_known = find_roles(first) is not None and not _are_letters(first)
    except ValueError:
        is_known = True
    return is_known or resembles_heading(first, below)


def text_heading(is_answered: bool) -> str:
    """Return the heading of a text that says so much."""
    return _TEXT_HEADINGS[is_answered]


def _are_letters(fields: Sequence[str]) -> bool:
    return sorted(field.strip().lower() for field in fields) == list(_LETTERS)


def _layout_by_heading(
    line: str,
    name: str,
    separators: Sequence[str],
    columns: Mapping[str, str] | None,
    following: Sequence[str],
) -> Layout | None:
    """Return the layout if the line names known columns; raises `ValueError`."""
    for separator in separators:
        layout = Layout(separator)
        fields = _fields_of(layout, line) if separator in line else []
        if len(fields) < 3:
            continue
        # `a b c` between tabs are three images, unless the file says that it is a table.
        if separator == "\t" and _are_letters(fields) and not name.lower().endswith(".tsv"):
            continue
        if _is_heading(fields, columns, [_fields_of(layout, text) for text in following]):
            return Layout(separator, tuple(field.strip() for field in fields))
    fields = _fields_of(Layout(), line)
    if _are_letters(fields) and columns is None:
        return None
    below = [_fields_of(Layout(), text) for text in following]
    if len(fields) >= 3 and _is_heading(fields, columns, below):
        return Layout(None, tuple(fields))
    return None


def _is_heading(
    fields: Sequence[str], columns: Mapping[str, str] | None, below: Sequence[Sequence[str]]
) -> bool:
    if columns is not None:
        known = {field.strip().lower() for field in fields}
        called = [str(text).strip().lower() for text in columns.values()]
        return any(text in known for text in called if not text.isdecimal()) or (
            all(text.isdecimal() for text in called) and find_roles(fields) is not None
        )
    if find_roles(fields) is None:
        return False
    # Names of images come again below; those of columns hardly do, but for single letters.
    words = {field.strip().lower() for field in fields}
    if len(fields) > 3 or _are_letters(fields) or words in _CLEAR:
        return True
    return not {text for row in below for text in row} & set(fields)


def _layout_by_position(line: str, name: str, separators: Sequence[str]) -> Layout:
    is_text = len(_fields_of(Layout(), line)) == 3
    for separator in separators:
        if separator not in line:
            continue
        n_fields = len(_fields_of(Layout(separator), line))
        is_named = name.lower().endswith(_SUFFIXES[separator])
        if n_fields == 3 and (is_named or not is_text):
            return Layout(separator)
        if n_fields > 3 and not is_text and separator != "\t":
            return Layout(separator)
    return Layout()


def _check_first_row(layout: Layout, line: str, following: list[str]) -> None:
    fields = _fields_of(layout, line)
    below = [_fields_of(layout, text) for text in following]
    if len(fields) >= 3 and resembles_heading(fields, below):
        escape = "anchor first second".replace(" ", layout.separator or " ")
        raise ValueError(describe_unknown_heading(shorten_line(line), escape))


def _fields_of(layout: Layout, line: str) -> list[str]:
    """Return the fields of a line; none if it cannot be cut."""
    try:
        return layout.split(line)
    except ValueError:
        return []

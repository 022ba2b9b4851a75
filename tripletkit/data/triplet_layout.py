"""How lines become triplets: what separates fields, and which of them count."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

from tripletkit.data.text_files import (
    SEPARATORS,
    check_names,
    content_lines,
    shorten_line,
    split_csv_line,
    split_line,
)
from tripletkit.errors import TripletFileError

# Names of the three columns -> whether the second image is said to be the nearer one; None where
# the words leave it open.
HEADINGS: dict[tuple[str, str, str], bool | None] = {
    ("anchor", "positive", "negative"): True,
    ("query", "first", "second"): False,
    ("anchor", "first", "second"): None,
    ("a", "b", "c"): None,
}
VOTE_COLUMNS = ("votes_b", "votes_c")
SHARE_COLUMN = "share"

_SHOWN_HEADINGS = "anchor,positive,negative; a,b,c; query,first,second"
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
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+")
_WORDLIKE = re.compile(r"[A-Za-z][A-Za-z0-9 _-]*")
# What names of images have and names of columns have not.
_FILE_SHAPES = (re.compile(r".*(\.\w+$|/)", re.DOTALL), re.compile("[0-9]"))


def normalize(fields: Sequence[str]) -> list[str]:
    """Return names of columns as they are compared: in lower case, no blanks around."""
    return [field.strip().lower() for field in fields]


def find_columns(fields: Sequence[str]) -> tuple[str, str, str] | None:
    """Return the heading whose three names are all among the fields; None if there is none.

    Args:
        fields: see `normalize`.
    Raises:
        ValueError: if several are, or a column that counts is there twice.
    """
    found = [heading for heading in HEADINGS if set(heading) <= set(fields)]
    if len(found) > 1:
        raise ValueError(
            f"expected the columns of one kind of heading ({_SHOWN_HEADINGS}), got those of "
            f"several: {', '.join(fields)}"
        )
    if not found:
        return None
    twice = [name for name in found[0] if list(fields).count(name) > 1]
    if twice:
        raise ValueError(f'expected each column once, got "{twice[0]}" several times')
    return found[0]


def is_heading(fields: Sequence[str], *, letters_count: bool) -> bool:
    """Return whether exactly these three fields are a heading, in any order.

    Args:
        fields: see `normalize`.
        letters_count: `a b c` is one, too.
    """
    return len(fields) == 3 and any(
        set(fields) == set(heading) for heading in HEADINGS if letters_count or heading != _LETTERS
    )


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
    if len(set(normalize(fields))) < len(fields) or below & set(fields):
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
        f"looks like a heading that is not known. Rename its columns; if these are names of "
        f'images, put the line "{escape}" above.'
    )


def _words(field: str) -> set[str]:
    """Return the words of a field that are all words of columns, numbers and letters left out."""
    if not _WORDLIKE.fullmatch(field):
        return set()
    parts = {part.lower() for part in _WORD.findall(field)}
    words = {part for part in parts if part.isalpha() and part not in _LETTERS}
    return words if words <= _WORDS else set()


# Rows below the first that are looked at to tell a heading from names.
N_COMPARED = 100
_SHARE = re.compile(r"0?\.\d+|[01](\.0*)?", re.ASCII)
_SUFFIXES = {",": ".csv", ";": ".csv", "\t": ".tsv"}


@dataclass(frozen=True)
class Layout:
    """How the lines of a file become triplets.

    Attributes:
        separator: between fields; None for blanks.
        fields: names of the columns; empty without a heading.
        heading: those of the three columns that count; None without a heading.
        start: where the first row starts, in bytes.
        line: its number.
    """

    separator: str | None = None
    fields: tuple[str, ...] = ()
    heading: tuple[str, str, str] | None = None
    start: int = 0
    line: int = 1

    @property
    def places(self) -> tuple[int, int, int]:
        """Which fields are the anchor, the first and the second image."""
        return tuple(map(self.fields.index, self.heading)) if self.heading else (0, 1, 2)

    @property
    def ignored(self) -> tuple[str, ...]:
        return tuple(name or "(no name)" for name in self.fields if name not in self.heading)

    @property
    def is_plain(self) -> bool:
        """Whether lines are three names between blanks and nothing else."""
        return self.separator is None and len(self.fields) <= 3

    def split(self, line: str) -> list[str]:
        """Return the fields of a line, none of a blank or comment line; raises `ValueError`."""
        if self.separator is None:
            return split_line(line)
        if not line.strip() or line.lstrip().startswith("#"):
            return []
        return split_csv_line(line, self.separator)

    def parse(self, line: str) -> list[str]:
        """Return the three names of a line in its own order, or none; raises `ValueError`."""
        fields = self.split(line)
        if len(self.fields) > 3 and fields:
            if len(fields) != len(self.fields):
                raise ValueError(
                    f"expected {len(self.fields)} columns as in the heading, got {len(fields)} "
                    f"({shorten_line(line)})"
                )
            return check_names([fields[place] for place in sorted(self.places)], line)
        try:
            return check_names(fields, line)
        except ValueError as error:
            raise ValueError(f"{error}{self._hint(fields)}") from error

    def order(self) -> list[int]:
        """Return where in the names of a line the anchor, the first and the second image are."""
        return [sorted(self.places).index(place) for place in self.places]

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


def find_layout(data: bytes, name: str) -> Layout:
    """Tell by the first line that holds something how a file is to be read.

    A line that names three known columns is the heading of a CSV or TSV, or, of exactly three
    words between blanks, of a text. Without a heading, a line that cuts into three names at
    blanks is a text, even if it also does at separators, as `a, b, c` does; a name of the file
    that ends in `.csv` or `.tsv` turns that round.

    Args:
        data: as `text_files.check_text` returns it.
        name: of the file.
    Raises:
        TripletFileError: if the line looks like a heading but is not known.
    """
    lines = content_lines(data)
    first = next(lines, None)
    if first is None:
        return Layout()
    number, start, line = first
    try:
        layout = _layout_by_heading(line, name)
        if layout is not None:
            return Layout(layout.separator, layout.fields, layout.heading, start, number + 1)
        layout = _layout_by_position(line, name)
        _check_first_row(layout, line, [text for *_, text in islice(lines, N_COMPARED)])
    except ValueError as error:
        raise TripletFileError(f"{name}:{number}: {error}") from error
    return layout


def needs_heading(rows: Sequence[Sequence[str]]) -> bool:
    """Return whether a text of these rows would have its first row taken for a heading.

    Args:
        rows: names, three a row; no more are looked at than reading looks at.
    """
    if not rows:
        return False
    first, *below = rows[: 1 + N_COMPARED]
    return is_heading(normalize(first), letters_count=False) or resembles_heading(first, below)


def text_heading(is_answered: bool | None) -> tuple[str, str, str]:
    """Return the heading of a text that says so much and no more."""
    wanted = [heading for heading in HEADINGS if heading != ("a", "b", "c")]
    return next(heading for heading in wanted if HEADINGS[heading] is is_answered)


def _layout_by_heading(line: str, name: str) -> Layout | None:
    """Return the layout if the line names three known columns; raises `ValueError`."""
    for separator in SEPARATORS:
        fields = _fields_of(Layout(separator), line) if separator in line else []
        fields = tuple(normalize(fields))
        heading = find_columns(fields)
        # `a b c` between tabs are three images, unless the file says that it is a table.
        counts = separator != "\t" or name.lower().endswith(".tsv")
        if heading and (len(fields) > 3 or is_heading(fields, letters_count=counts)):
            return Layout(separator, fields, heading)
    fields = tuple(normalize(_fields_of(Layout(), line)))
    heading = find_columns(fields)
    if heading and heading != ("a", "b", "c"):
        return Layout(None, fields, heading)
    return None


def _layout_by_position(line: str, name: str) -> Layout:
    is_text = len(_fields_of(Layout(), line)) == 3
    for separator in SEPARATORS:
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
        escape = (layout.separator or " ").join(text_heading(is_answered=None))
        raise ValueError(describe_unknown_heading(shorten_line(line), escape))


def _fields_of(layout: Layout, line: str) -> list[str]:
    """Return the fields of a line; none if it cannot be cut."""
    try:
        return layout.split(line)
    except ValueError:
        return []

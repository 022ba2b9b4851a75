"""Which words over columns say what a triplet is made of, and which only seem to."""

from __future__ import annotations

import re
from collections.abc import Sequence

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

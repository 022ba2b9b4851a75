"""How many people said what of each triplet, and what training is to make of it."""

from __future__ import annotations

import hashlib
import io
import math
import os
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import BinaryIO, Literal

import numpy as np
import pandas as pd

from tripletkit.data.columns import find_roles
from tripletkit.data.text_files import (
    SEPARATORS,
    FileRecord,
    check_names,
    check_text,
    content_lines,
    parse_number,
    read_bytes,
    shorten_line,
    split_csv_line,
    split_line,
)
from tripletkit.data.triplets import Triplets, describe_other_questions
from tripletkit.errors import DataWarning, TripletFileError, VoteFileError, describe_problems

VOTE_COLUMNS = ("votes_b", "votes_c")
SHARE_COLUMN = "share"

VotesAs = Literal["soft", "weight", "majority"]


@dataclass(frozen=True)
class Votes:
    """Votes on questions "is the anchor nearer to the first or to the second?".

    Attributes:
        for_first, for_second: `(n_triplets,)` float64, >= 0, never both 0: how many people said
            so, or the share of them.
    """

    for_first: np.ndarray
    for_second: np.ndarray

    def __len__(self) -> int:
        return len(self.for_first)

    @classmethod
    def of_shares(cls, shares: np.ndarray) -> Votes:
        """Return votes of which only the share for the first image is known, 0 to 1."""
        return cls(shares, 1 - shares)

    @property
    def n_each(self) -> np.ndarray:
        """`(n_triplets,)` float64: votes on each question."""
        return self.for_first + self.for_second

    @property
    def share(self) -> np.ndarray:
        """`(n_triplets,)` float64: the share of votes for the first image, 0 to 1."""
        return self.for_first / self.n_each

    @property
    def is_tie(self) -> np.ndarray:
        """`(n_triplets,)` bool: as many votes for one image as for the other."""
        return self.for_first == self.for_second

    @property
    def is_for_second(self) -> np.ndarray:
        """`(n_triplets,)` bool: most votes are for the second image."""
        return self.for_second > self.for_first

    @property
    def majority(self) -> np.ndarray:
        """`(n_triplets,)` int8: 1 where most votes are for the first image, 0, or -1 for a tie."""
        return np.where(self.is_tie, -1, ~self.is_for_second).astype(np.int8)

    @property
    def are_counts(self) -> bool:
        """All are whole numbers, so that one voter can be told from the others."""
        return all(
            np.array_equal(part, np.rint(part)) for part in (self.for_first, self.for_second)
        )

    def take(self, rows: np.ndarray) -> Votes:
        """Return the rows that a mask or an index array picks."""
        return Votes(self.for_first[rows], self.for_second[rows])

    def turn(self, is_turned: np.ndarray) -> Votes:
        """Return the votes after first and second image changed places in some rows.

        Args:
            is_turned: `(n_triplets,)` bool.
        """
        return Votes(
            np.where(is_turned, self.for_second, self.for_first),
            np.where(is_turned, self.for_first, self.for_second),
        )


def turn_to_majority(triplets: Triplets, votes: Votes) -> tuple[Triplets, Votes]:
    """Return triplets whose second column is what most people chose, and the votes likewise.

    Ties stay as they are.
    """
    is_turned = votes.is_for_second
    rows = np.where(is_turned[:, None], triplets.rows[:, [0, 2, 1]], triplets.rows)
    return replace(triplets, rows=rows), votes.turn(is_turned)


def make_loss_weights(votes: Votes, votes_as: VotesAs) -> np.ndarray:
    """Return the weights of a triplet's loss as it stands, and of the loss the other way round.

    With p the share of votes for the first image, the loss of a triplet is
    `weights[0] * l(d(A, B), d(A, C)) + weights[1] * l(d(A, C), d(A, B))`:

    - `soft`: p and 1 - p, the expected loss over the voters. A tie pulls the two distances
      together.
    - `weight`: |2p - 1| where most are for the first, and 0. A tie counts for nothing.
    - `majority`: 1 where most are for the first, and 0. A tie counts for nothing.

    Where most are for the second, it is the other way round. The weights of the last two are
    divided by their mean over the triplets, so that losses compare.

    Args:
        votes: `n_triplets` of them.
        votes_as: one of the three.
    Returns:
        `(n_triplets, 2)` float32, >= 0.
    Example:
        >>> make_loss_weights(Votes(np.array([4., 2.]), np.array([1., 2.])), "soft").tolist()
        [[0.800000011920929, 0.20000000298023224], [0.5, 0.5]]
    """
    share = votes.share
    if votes_as == "soft":
        weights = np.stack([share, 1 - share], axis=1)
    else:
        lead = np.abs(2 * share - 1) if votes_as == "weight" else (~votes.is_tie).astype(float)
        lead /= lead.mean() if lead.any() else 1
        weights = np.stack([lead * (share > 0.5), lead * (share < 0.5)], axis=1)
    return weights.astype(np.float32)


# So many people nobody asks; far beyond, sums of votes would end at infinity and shares at NaN.
MAX_VOTES = 1e9


@dataclass(frozen=True)
class VotesFile:
    """The votes of a file, and what it says of the questions that they are on.

    Attributes:
        votes: in the order of the file.
        triplets: the questions, or None if the file does not hold them.
        source: what to call the file in messages.
    """

    votes: Votes
    triplets: Triplets | None
    source: str

    def __len__(self) -> int:
        return len(self.votes)

    def check_length(self, n_expected: int, source: str) -> None:
        """Refuse votes that cannot belong to a file because their numbers differ.

        Raises:
            VoteFileError: with both numbers.
        """
        if len(self) != n_expected:
            raise VoteFileError(
                f"{self.source}: expected {n_expected:,} rows of votes, one for each row of "
                f"{source}, got {len(self):,}. Do both belong to the same triplets?"
            )

    def check_questions(self, triplets: Triplets) -> None:
        """Refuse votes on other questions than these, or on the same in another order.

        Raises:
            VoteFileError: with the first ten rows that differ and their number.
        """
        self.check_length(len(triplets), triplets.source)
        asked = self.triplets
        if asked is not None and (problems := describe_other_questions(asked, triplets)):
            raise VoteFileError(problems)


@dataclass(frozen=True)
class _Layout:
    """Which fields of a row are what.

    Attributes:
        names: places of the three names, or none.
        numbers: places of the numbers.
        n_fields: how many fields a row has.
        ignored: names of other columns.
    """

    names: tuple[int, ...]
    numbers: tuple[int, ...]
    n_fields: int
    ignored: tuple[str, ...] = ()


@dataclass(frozen=True)
class _VotesForm:
    """What a kind of file looks like.

    Attributes:
        expected: of its first line, for messages.
        find_layout: from the fields of that line, in lower case; None if it is another kind.
        parse: the numbers of a row; raises `ValueError`.
    """

    expected: str
    find_layout: Callable[[Sequence[str]], _Layout | None]
    parse: Callable[[Sequence[str]], list[float]]


def read_votes(source: Path | BinaryIO, name: str | None = None) -> VotesFile:
    """Read a votes file: two numbers a line, or names and two numbers.

    Blanks, tabs, commas or semicolons separate; blank lines and `#` comments are passed over. A
    heading with `votes_b` and `votes_c` may have other columns, which are named in a
    `DataWarning` and left out.

    Args:
        source: a path, or an open binary file such as standard input.
        name: what to call it in messages. Defaults to the path as given.
    Raises:
        VoteFileError: if it is no such file. The message holds the first ten problems as
            `file:line: expected ..., got ...` and their number.
    """
    triplets, numbers, name = _read_table(source, name, _VOTES)
    return VotesFile(Votes(*numbers.T.copy()), triplets, name)


VotesLike = str | os.PathLike[str] | BinaryIO | Votes | pd.DataFrame | np.ndarray


def open_votes(given: VotesLike, triplets: Triplets) -> tuple[Votes, FileRecord]:
    """Return the votes on triplets, and the record of what was read.

    Args:
        given: a votes file, `Votes`, a table with the columns votes_b and votes_c, numbers of the
            shape (n_triplets, 2), or shares for the first image, (n_triplets,).
        triplets: that they are on, in the same order.
    Raises:
        VoteFileError: if they cannot be read, or are on other triplets.
    """
    if isinstance(given, str | os.PathLike):
        given = Path(given)
    if isinstance(given, Path) or hasattr(given, "read"):
        try:
            data, name = read_bytes(given)
        except TripletFileError as error:
            raise VoteFileError(str(error)) from error
        read = read_votes(io.BytesIO(data), name)
        read.check_questions(triplets)
        path = str(given.absolute()) if isinstance(given, Path) else None
        return read.votes, FileRecord(name, path, hashlib.sha256(data).hexdigest())
    votes = given if isinstance(given, Votes) else _votes_of_numbers(given)
    VotesFile(votes, None, "the votes").check_length(len(triplets), triplets.source)
    both = np.stack([votes.for_first, votes.for_second])
    return votes, FileRecord("the votes", None, hashlib.sha256(both.tobytes()).hexdigest())


def _votes_of_numbers(value: pd.DataFrame | np.ndarray) -> Votes:
    if isinstance(value, pd.DataFrame):
        if not set(VOTE_COLUMNS) <= set(value.columns):
            raise VoteFileError(
                f"expected a table with the columns {' and '.join(VOTE_COLUMNS)}, got "
                f"{', '.join(map(str, value.columns))}"
            )
        value = value[list(VOTE_COLUMNS)]
    numbers = np.asarray(value, dtype=np.float64)
    if numbers.ndim == 1:
        if not ((numbers >= 0) & (numbers <= 1)).all():
            raise VoteFileError("expected shares from 0 to 1 for the first image, got others")
        return Votes.of_shares(numbers)
    if numbers.ndim != 2 or numbers.shape[1] != 2:
        raise VoteFileError(
            "expected votes of the shape (n_triplets, 2), or shares of the shape (n_triplets,), "
            f"got {numbers.shape}"
        )
    if not ((numbers >= 0).all() and np.isfinite(numbers).all() and numbers.any(axis=1).all()):
        raise VoteFileError("expected numbers of votes, 0 or more and not both 0, got others")
    return Votes(*numbers.T.copy())


def read_triplets_with_shares(
    source: Path | BinaryIO, name: str | None = None
) -> tuple[Triplets, Votes]:
    """Read a triplet file whose fourth column is the share of people who said B.

    Args:
        source, name: see `read_votes`.
    Raises:
        VoteFileError: if it is no such file.
    """
    triplets, numbers, _ = _read_table(source, name, _SHARES)
    return triplets, Votes.of_shares(numbers[:, 0])


def warn_of_ignored(columns: Sequence[str], source: str, stacklevel: int = 3) -> None:
    """Name the columns of a file that are left out, if there are any."""
    if columns:
        shown = ", ".join(f'"{column}"' for column in columns[:10])
        more = f" and {len(columns) - 10:,} more" if len(columns) > 10 else ""
        warnings.warn(
            f"{source}: columns that are not read: {shown}{more}",
            DataWarning,
            stacklevel=stacklevel,
        )


def _read_table(
    source: Path | BinaryIO, name: str | None, form: _VotesForm
) -> tuple[Triplets | None, np.ndarray, str]:
    """Return the questions if there are any, `(n_rows, n_numbers)` float64, and the file's name."""
    try:
        data, name = read_bytes(source, name)
        lines = [(number, line) for number, _, line in content_lines(check_text(data, name))]
    except TripletFileError as error:
        raise VoteFileError(str(error)) from error
    if not lines:
        raise VoteFileError(f"{name}: expected {form.expected} a line, got nothing")
    split, layout, has_heading = _look_at(lines[0], name, form)
    index_of: dict[str, int] = {}
    rows, numbers, of_lines, problems = [], [], [], []
    for number, line in lines[has_heading:]:
        try:
            fields = split(line)
            if len(fields) != layout.n_fields:
                raise ValueError(
                    f"expected {layout.n_fields} fields as in the first line, got "
                    f"{len(fields)} ({shorten_line(line)})"
                )
            names = check_names([fields[place] for place in layout.names], line)
            numbers.append(form.parse([fields[place] for place in layout.numbers]))
        except ValueError as error:
            problems.append(f"{name}:{number}: {error}")
            continue
        rows.append([index_of.setdefault(each, len(index_of)) for each in names])
        of_lines.append(number)
    if problems:
        raise VoteFileError(describe_problems(problems))
    if not rows:
        raise VoteFileError(f"{name}: expected rows below the heading, got none")
    warn_of_ignored(layout.ignored, name, stacklevel=4)
    triplets = None
    if layout.names:
        triplets = Triplets(
            list(index_of),
            np.array(rows, np.int32),
            np.array(of_lines, np.int64),
            name,
        )
    return triplets, np.array(numbers, dtype=np.float64), name


def _look_at(
    first_line: tuple[int, str], name: str, form: _VotesForm
) -> tuple[Callable[[str], list[str]], _Layout, bool]:
    """Return how to split a line, which field is what, and whether the first line is a heading.

    A line that makes sense cut at commas or semicolons is a CSV row; else blanks separate. Tabs
    come before blanks where they separate a heading, as names below it may have blanks.
    """
    number, line = first_line
    split_tabs = partial(split_csv_line, separator="\t")
    ways = [partial(split_csv_line, separator=each) for each in SEPARATORS if each != "\t"]
    for split in (*ways, split_tabs, split_line, split_tabs):
        try:
            fields = [field.strip().lower() for field in split(line)]
            layout = form.find_layout(fields)
        except ValueError:
            continue
        if layout is None:
            continue
        has_heading = not _is_number(fields[layout.numbers[0]])
        if split is not split_tabs or has_heading or " " in line:
            return split, layout, has_heading
    raise VoteFileError(f"{name}:{number}: expected {form.expected}, got {shorten_line(line)}")


def _find_votes(fields: Sequence[str]) -> _Layout | None:
    if set(VOTE_COLUMNS) <= set(fields):
        return _by_heading(fields, VOTE_COLUMNS)
    n = len(fields)
    if tuple(fields) == ("b", "c") or (n in (2, 5) and all(map(_is_number, fields[-2:]))):
        return _Layout((0, 1, 2)[: n - 2], (n - 2, n - 1), n)
    return None


def _find_share(fields: Sequence[str]) -> _Layout | None:
    if SHARE_COLUMN in fields and (layout := _by_heading(fields, (SHARE_COLUMN,))).names:
        return layout
    return _Layout((0, 1, 2), (3,), 4) if len(fields) == 4 and _is_number(fields[3]) else None


def _by_heading(fields: Sequence[str], numbers: Sequence[str]) -> _Layout:
    roles = find_roles(fields)
    places = tuple(map(fields.index, numbers))
    names = () if roles is None else roles.names
    return _Layout(
        names=names,
        numbers=places,
        n_fields=len(fields),
        ignored=tuple(
            field or "(no name)"
            for place, field in enumerate(fields)
            if place not in (*names, *places)
        ),
    )


def _parse_votes(texts: Sequence[str]) -> list[float]:
    votes = [parse_number(text) for text in texts]
    if not all(0 <= number <= MAX_VOTES for number in votes):
        raise ValueError(
            f"expected two numbers of votes from 0 to {MAX_VOTES:,.0f}, got "
            f"{shorten_line(' '.join(texts))}"
        )
    if not any(votes):
        raise ValueError("expected at least one vote, got none; leave such a triplet out")
    return votes


def _parse_share(texts: Sequence[str]) -> list[float]:
    share = parse_number(texts[0])
    if not 0 <= share <= 1:
        raise ValueError(f"expected a share from 0 to 1, got {shorten_line(texts[0])}")
    return [share]


def _is_number(text: str) -> bool:
    return not math.isnan(parse_number(text))


_VOTES = _VotesForm(
    "two numbers of votes, or three names and two numbers, or a heading with votes_b and votes_c",
    _find_votes,
    _parse_votes,
)
_SHARES = _VotesForm(
    "three names and the share of people who said the second", _find_share, _parse_share
)

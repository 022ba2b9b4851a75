"""Triplets, questions over named images, and what people said of them: votes and truth.

Written as texts of three names a line, triplets are read back as they are.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import IO, Any, BinaryIO, Literal, cast

import numpy as np
import pandas as pd

from tripletkit.data.columns import N_COMPARED, is_heading, resembles_heading
from tripletkit.data.outputs import Destination, open_output
from tripletkit.data.text_files import quote_name
from tripletkit.errors import MAX_SHOWN, TripletFileError, describe_problems
from tripletkit.results import Result, Section, show_head

VotesAs = Literal["soft", "weight", "majority"]
# So many people nobody asks; far beyond, sums of votes would end at infinity and shares at NaN.
MAX_VOTES = 1e9
_NO_LINE = np.iinfo(np.int64).max
# What is written above rows that would be taken for a heading; see `Triplets.is_answered`.
_HEADINGS = {True: "anchor positive negative", False: "query first second"}


def check_rows(rows: np.ndarray, n_images: int | None) -> np.ndarray:
    """Return `(n_triplets, 3)` integers, indices of so many images; refuse what are none."""
    if rows.ndim != 2 or rows.shape[1] != 3 or not np.issubdtype(rows.dtype, np.integer):
        raise TripletFileError(
            "expected integer triplets of the shape (n_triplets, 3), got "
            f"{rows.dtype} of the shape {rows.shape}"
        )
    if n_images is not None and rows.size and not (rows.min() >= 0 and rows.max() < n_images):
        raise TripletFileError(
            f"expected indices of {n_images:,} images, from 0 to {n_images - 1:,}, got "
            f"{rows.min()} to {rows.max()}"
        )
    return rows


def _index_used(rows: np.ndarray, names: Sequence[str]) -> tuple[list[str], np.ndarray]:
    """Return the names that rows have, in order of appearance, and int32 indices into these."""
    if len(set(names)) != len(names):
        twice = pd.Series(names)[pd.Series(names).duplicated()].iloc[0]
        raise TripletFileError(f'expected distinct names, got "{twice}" more than once')
    numbers, used = pd.factorize(check_rows(rows, len(names)).ravel())
    return [names[index] for index in used], numbers.reshape(-1, 3).astype(np.int32)


@dataclass(frozen=True, repr=False)
class Triplets(Result):
    """Questions "is the anchor nearer to the first or to the second?" over named images.

    In a training file the second column is the positive and the third the negative.

    Attributes:
        names: the distinct names, in order of first appearance.
        rows: `(n_triplets, 3)` int32, indices into `names`.
        lines: `(n_triplets,)` int64, the line of each row in its file, counted from 1.
        source: what to call the file in messages.
        is_answered: whether the heading says that the second image is the nearer one; None
            where nothing says it.
        trials: `(n_triplets,)` int64: the number of the screen or trial that a row comes from, 0
            where it was asked alone. Rows of one trial are not independent. None without trials.
    """

    names: list[str]
    rows: np.ndarray
    lines: np.ndarray
    source: str
    is_answered: bool | None = None
    trials: np.ndarray | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return names and rows as JSON takes them."""
        return {"names": list(self.names), "rows": self.rows.tolist()}

    def _summary(self) -> str:
        return f"{len(self):,} triplets over {len(self.names):,} images, of {self.source}"

    def _sections(self) -> list[Section]:
        return [[self._summary(), show_head(self.take(np.arange(min(5, len(self)))).to_frame())]]

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
        used, rows = _index_used(np.asarray(rows), [str(name) for name in names])
        return cls(used, rows, np.arange(len(rows)), "array")

    def to_frame(self) -> pd.DataFrame:
        """Return a table of names with the columns a, b and c, a row a triplet."""
        names = np.array(self.names, dtype=object)
        return pd.DataFrame(names[self.rows].reshape(-1, 3), columns=["a", "b", "c"])

    def __len__(self) -> int:
        return len(self.rows)

    def place(self, row: int) -> str:
        """Return `file:line` of a row."""
        return _place(self.source, int(self.lines[row]))

    def first_places(self, further: Triplets | None = None) -> list[str]:
        """Return, for each name, `file:line` of its first row here, else in `further`."""
        first = np.full(len(self.names), _NO_LINE)
        np.minimum.at(first, self.rows.ravel(), np.repeat(self.lines, 3))
        places = [_place(self.source, int(line)) for line in first]
        if further is None:
            return places
        pairs = zip(first, places, further.first_places(), strict=True)
        return [other if line == _NO_LINE else place for line, place, other in pairs]

    def share_names(self, other: Triplets) -> tuple[Triplets, Triplets]:
        """Return both over one list of names, these before those only in the other."""
        index_of = {name: index for index, name in enumerate(self.names)}
        for name in other.names:
            index_of.setdefault(name, len(index_of))
        names = list(index_of)
        return replace(self, names=names), other.over(names)

    def take(self, rows: np.ndarray) -> Triplets:
        """Return the rows that a mask or an index array picks, over the same names."""
        trials = None if self.trials is None else self.trials[rows]
        return replace(self, rows=self.rows[rows], lines=self.lines[rows], trials=trials)

    def without_degenerate(self) -> Triplets:
        """Return the rows that name three images."""
        return self.take(~self.is_degenerate())

    def merge(self, same_as: np.ndarray) -> Triplets:
        """Return the rows over `same_as`: for each name the one to take instead."""
        return replace(self, rows=same_as[self.rows].astype(np.int32))

    def over(self, names: Sequence[str]) -> Triplets:
        """Return the same triplets over another list, which has all of their names."""
        index_of = {name: index for index, name in enumerate(names)}
        places = np.array([index_of[name] for name in self.names], dtype=np.int32)
        return replace(self, names=list(names), rows=places[self.rows])

    def over_contents(self, contents: Sequence[bytes | None]) -> Triplets:
        """Return the same triplets with the hash of each image's content for its name, if known."""
        pairs = zip(self.names, contents, strict=True)
        return replace(self, names=[content.hex() if content else name for name, content in pairs])

    def is_degenerate(self) -> np.ndarray:
        """Return `(n_triplets,)` bool: the row names one image twice."""
        anchor, first, second = self.rows.T
        return (anchor == first) | (anchor == second) | (first == second)

    def check_answered(self) -> None:
        """Refuse questions where judgements are needed."""
        if self.is_answered is False:
            raise TripletFileError(
                f"{self.source}: expected judgements (anchor, positive, negative), got questions: "
                "the heading says that the two other images stand in no order. Where the second "
                "is always the nearer one, name the columns anchor, positive and negative."
            )


@dataclass(frozen=True, repr=False)
class Truth:
    """What people answered, in the order of its file.

    Attributes:
        labels: `(n_triplets,)` int8: 1 where the first image is the nearer one, 0 where the
            second is, -1 where nobody can tell.
        source: what to call the file in messages.
        column: the heading over the labels; empty without one.
        triplets: the questions; None where they are not said.
        ids: which question each row is, where a column says it; None without one.
    """

    labels: np.ndarray
    source: str
    column: str = ""
    triplets: Triplets | None = None
    ids: tuple[str, ...] | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def __repr__(self) -> str:
        return (
            f"<Truth: {len(self):,} rows, {int(self.labels.sum()):,} of them 1, of {self.source}>"
        )


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
        """Return the votes after first and second image changed places in some rows, a mask."""
        return Votes(
            np.where(is_turned, self.for_second, self.for_first),
            np.where(is_turned, self.for_first, self.for_second),
        )


VotesLike = str | os.PathLike[str] | BinaryIO | Votes | pd.DataFrame | np.ndarray


def make_loss_weights(votes: Votes, votes_as: VotesAs) -> np.ndarray:
    """Return `(n_triplets, 2)` float32: weights of the loss as it stands, and the other way round.

    With p the share of votes for the first image, the loss of a triplet is
    `weights[0] * l(d(A, B), d(A, C)) + weights[1] * l(d(A, C), d(A, B))`:

    - `soft`: p and 1 - p, the expected loss over the voters. A tie pulls the two distances
      together.
    - `weight`: |2p - 1| where most are for the first, and 0. A tie counts for nothing.
    - `majority`: 1 where most are for the first, and 0. A tie counts for nothing.

    Where most are for the second, it is the other way round. The weights of the last two are
    divided by their mean over the triplets, so that losses compare.
    """
    share = votes.share
    if votes_as == "soft":
        weights = np.stack([share, 1 - share], axis=1)
    else:
        lead = np.abs(2 * share - 1) if votes_as == "weight" else (~votes.is_tie).astype(float)
        lead /= lead.mean() if lead.any() else 1
        weights = np.stack([lead * (share > 0.5), lead * (share < 0.5)], axis=1)
    return weights.astype(np.float32)


def _place(source: str, line: int) -> str:
    """Return `file:line`; the file alone for what stands in no line of it."""
    return source if not 0 <= line < _NO_LINE else f"{source}:{line}"


def describe_other_questions(asked: Triplets, expected: Triplets) -> str | None:
    """Return the first ten rows in which two sets differ, and their number; None if none does."""
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


def _question(triplets: Triplets, row: int) -> str:
    return "(" + ", ".join(triplets.names[index] for index in triplets.rows[row]) + ")"


def write_triplets(
    destination: Destination | IO[str],
    names: Sequence[str],
    rows: np.ndarray,
    *,
    is_answered: bool = True,
) -> None:
    """Write a triplet file, with a heading only if the first row would be taken for one."""
    quoted = np.array([quote_name(name) for name in names], dtype=object)
    opened = open_output(destination) if isinstance(destination, Destination) else None
    with opened or nullcontext(cast(IO[str], destination)) as file:
        if _needs_heading([[names[index] for index in row] for row in rows[: 1 + N_COMPARED]]):
            file.write(f"{_HEADINGS[is_answered]}\n")
        for start in range(0, len(rows), 1 << 16):
            columns = quoted[rows[start : start + (1 << 16)]]
            file.write("".join(f"{a} {b} {c}\n" for a, b, c in columns.tolist()))


def _needs_heading(rows: Sequence[Sequence[str]]) -> bool:
    """Return whether a text of these rows would have its first row taken for a heading."""
    if not rows:
        return False
    first, *below = rows
    try:
        return is_heading(first, below) or resembles_heading(first, below)
    except ValueError:
        return True

"""Judgements, votes and truth, from whatever they are given as: the only place that asks what.

A path, an open file, a table, rows of numbers or a database of collected judgements become one
`Judgements`; all that comes after works on that and never looks at what was given.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pandas as pd

from tripletkit.data.columns import FORMS
from tripletkit.data.decoding import IMAGE_SUFFIXES
from tripletkit.data.judgement_files import (
    CANT_TELL,
    DATABASE_FORM,
    GOLD,
    GRID,
    IMPORTED,
    read_answers_given,
)
from tripletkit.data.judgement_files import FIRST as FIRST_IMAGE
from tripletkit.data.judgement_files import SECOND as SECOND_IMAGE
from tripletkit.data.judgement_tables import FIRST, SECOND, UNDECIDED, labels_of_array, open_rows
from tripletkit.data.outputs import as_one_run
from tripletkit.data.tables import open_table, place_problems, read_text
from tripletkit.data.text_files import FileRecord, shorten_line
from tripletkit.data.triplets import Triplets, Truth, Votes, VotesLike, describe_other_questions
from tripletkit.errors import AnswerFileError, JudgementsError, SettingsError, TripletFileError

_PathLike = str | os.PathLike[str]


@dataclass(frozen=True)
class Judgements:
    """Questions "is the anchor nearer to the first or to the second?", and what is known of them.

    Made by `read_judgements` alone.

    Attributes:
        triplets: one row a question. Of a database: anchor, the image that most judges chose, the
            other; the line of a row is its number in the database, of a grid's, less than 0.
        record: of what was read, with its SHA-256.
        votes: how many people said what of each row. Of a database, each judge has one vote on a
            question; who answered it twice in two ways gave half a vote to each image, and so did
            who could not tell. None without any.
        truth: which image of each row is the nearer one, where that is known and is not always
            the first.
        is_random: `(n_triplets,)` bool: drawn by chance, not chosen by a model. Only these tell
            how good a model is. None where all are as good.
        weights: `(n_triplets,)` float64: how many questions a row stands for, the inverse of the
            probability with which it was drawn by chance; of mean 1 over those that were, 0
            elsewhere. None where all count alike.
        votes_record, truth_record: of what votes and truth were read from; None where they are
            in the file of the triplets, or there are none.
        problems: line -> why it could not be read, where that was wanted.
    """

    triplets: Triplets
    record: FileRecord
    votes: Votes | None = None
    truth: Truth | None = None
    is_random: np.ndarray | None = None
    weights: np.ndarray | None = None
    votes_record: FileRecord | None = None
    truth_record: FileRecord | None = None
    problems: dict[int, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.triplets)

    def __repr__(self) -> str:
        known = {"votes": self.votes, "truth": self.truth, "a random share": self.is_random}
        names = [name for name, value in known.items() if value is not None]
        beside = f", with {' and '.join(names)}" if names else ""
        return f"<Judgements: {repr(self.triplets).partition(': ')[2][:-1]}{beside}>"

    @property
    def source(self) -> str:
        """What they are called in messages."""
        return self.triplets.source

    def place_problems(self) -> list[str]:
        """Return `file:line: expected ..., got ...` of each line that could not be read."""
        return place_problems(self.problems, self.source)

    def take(self, rows: np.ndarray) -> Judgements:
        """Return some of the judgements, by a mask or indices, over the same names."""
        truth = self.truth and replace(self.truth, labels=self.truth.labels[rows])
        return replace(
            self,
            triplets=self.triplets.take(rows),
            votes=None if self.votes is None else self.votes.take(rows),
            truth=truth,
            is_random=None if self.is_random is None else self.is_random[rows],
            weights=None if self.weights is None else self.weights[rows],
        )

    def turned(self) -> Judgements:
        """Return the rows as anchor, nearer image, other image.

        Rows on which votes are tied stay as they are; rows that are said to be undecided are left
        out. What nobody has answered is refused.
        """
        if self.truth is not None:
            decided = self.take(self.truth.labels != UNDECIDED)
            is_turned = self.truth.labels[self.truth.labels != UNDECIDED] == SECOND
            return replace(decided._turn(is_turned), truth=None)
        if self.votes is not None:
            return self._turn(self.votes.is_for_second)
        self.triplets.check_answered()
        return self

    def decided(self) -> Judgements:
        """Return the rows of which it is known which image is nearer, as `turned` does."""
        turned = self.turned()
        return turned if turned.votes is None else turned.take(~turned.votes.is_tie)

    def as_truth(self) -> Truth:
        """Return which image of each row is the nearer one; -1 where people are tied."""
        if self.truth is not None:
            labels = self.truth.labels
        elif self.votes is not None:
            labels = self.votes.majority
        else:
            self.triplets.check_answered()
            labels = np.full(len(self), FIRST, dtype=np.int8)
        return Truth(labels, self.source, "", self.triplets)

    def find(self, asked: Triplets) -> tuple[np.ndarray, np.ndarray]:
        """Return which row answers each question, -1 for none, and whether it is turned round.

        Both `(n_asked,)`; a question is turned if its first image is the row's second.
        """
        index_of = {name: index for index, name in enumerate(self.triplets.names)}
        of_names = np.array([index_of.get(name, -1) for name in asked.names], dtype=np.int64)
        question_of = {tuple(row): n for n, row in enumerate(self.triplets.rows.tolist())}
        rows = of_names[asked.rows]
        ahead, turned = (
            np.array([question_of.get(tuple(row), -1) for row in each.tolist()], dtype=np.int64)
            for each in (rows, rows[:, [0, 2, 1]])
        )
        is_turned = (ahead < 0) & (turned >= 0)
        return np.where(is_turned, turned, ahead), is_turned

    def _turn(self, is_turned: np.ndarray) -> Judgements:
        rows = self.triplets.rows
        rows = np.where(is_turned[:, None], rows[:, [0, 2, 1]], rows)
        return replace(
            self,
            triplets=replace(self.triplets, rows=rows, is_answered=True),
            votes=None if self.votes is None else self.votes.turn(is_turned),
        )

    def _swap(self) -> Judgements:
        """Return the same rows with the other image for the nearer one."""
        if self.truth is None and self.votes is not None:
            return replace(self, votes=self.votes.turn(np.ones(len(self), dtype=bool)))
        labels = np.full(len(self), FIRST, dtype=np.int8) if not self.truth else self.truth.labels
        labels = np.where(labels == UNDECIDED, labels, FIRST + SECOND - labels).astype(np.int8)
        return replace(self, truth=Truth(labels, self.source))


JudgementsLike = (
    _PathLike
    | BinaryIO
    | pd.DataFrame
    | Triplets
    | np.ndarray
    | Sequence[Sequence[int]]
    | Judgements
)
TruthLike = (
    _PathLike
    | BinaryIO
    | Truth
    | Judgements
    | pd.DataFrame
    | pd.Series
    | np.ndarray
    | Sequence[int]
)


@as_one_run
def read_judgements(
    given: JudgementsLike,
    *,
    columns: Mapping[str, str] | None = None,
    names: Sequence[str] | _PathLike | None = None,
    swap: bool = False,
    votes: VotesLike | None = None,
    truth: TruthLike | None = None,
    exclude: Collection[str] = (),
    with_problems: bool = False,
) -> Judgements:
    """Read judgements, whatever they are given as, and log how they were understood.

    Every function that takes triplets reads them so; what it takes as it is can also be read here
    first, to say what the file or the table does not say by itself.

    Args:
        given: a file of any form that docs/files.md names, a table, or integer rows.
        columns: what the columns are: `anchor`, `positive`, `negative`, `first`, `second`,
            `answer`, `votes_first`, `votes_second`, `share`, `image1` to `image3` and `odd` ->
            heading, or place from 1. Where the same image of every row is the odd one, `odd` is
            `"last"`, `"first"` or `"second"`.
        names: of the images that numbers are places of, from 0: a list, or a file of names.
        swap: take the other image for the nearer one in every row. Defaults to `False`.
        votes: how many people said what of each row: a file or a table of two numbers a row, or
            numbers of the shape `(n_triplets, 2)`, or shares for the first image, `(n_triplets,)`.
        truth: which image of each row is the nearer one: a file, a table, or 1 and 0.
        exclude: of a database, names of judges whose answers are left out.
        with_problems: keep lines that cannot be read as `problems`, instead of refusing the file.
            Defaults to `False`.
    Returns:
        `Judgements`, which every function takes that takes triplets; their `triplets` are the rows.
    Raises:
        TripletFileError: if it cannot be read, or leaves a choice, or the votes are not on these
            rows, with the first ten problems.
        AnswerFileError: the same of the truth.
    Example:
        `tk.train(tk.read_judgements("r.csv", columns={"answer": "verdict"}), "images/")`
    """
    opened = _as_file(given)
    is_database = _is_database(opened)
    if exclude and not is_database:
        source = opened if isinstance(opened, Path) else type(given).__name__
        raise SettingsError(
            "exclude", f"{source}: expected a database of judgements: only that has judges"
        )
    if votes is not None and is_database:
        raise SettingsError("votes", f"{given} holds its votes itself: give no others.")
    read_as: dict[str, str] = {}
    if isinstance(opened, Judgements):
        found = opened
        read_as = dict(found.record.read_as)
    elif is_database:
        found = _open_database(opened, exclude)
        read_as = {"exclude": json.dumps(sorted(exclude))} if exclude else {}
    elif _is_table(opened):
        known_names = None if names is None else _read_names(names)
        read = open_rows(
            opened, "triplets", columns=columns, names=known_names, with_problems=with_problems
        )
        assert read.triplets is not None  # or it would have been refused
        labels = None if read.labels is None else Truth(read.labels, read.source)
        found = Judgements(read.triplets, read.record, read.votes, labels, problems=read.problems)
        if votes is not None or truth is not None:
            found = replace(found, votes=None, truth=None)
        read_as = {"columns": json.dumps(dict(columns))} if columns else {}
        if isinstance(names, str | os.PathLike):
            read_as |= {"names": str(Path(names).absolute()), "names_sha256": _hash(Path(names))}
        elif names is not None:
            # Without the list the file cannot be read again.
            found = replace(found, record=replace(found.record, path=None))
    else:
        triplets = opened if isinstance(opened, Triplets) else _take_rows(opened, names)
        _, record = open_table(triplets.to_frame(), "triplets")
        found = Judgements(triplets, replace(record, name=triplets.source))
    if votes is not None:
        of_rows, _, record = open_votes(votes, found.triplets)
        found = replace(found, votes=of_rows, votes_record=record)
    if truth is not None:
        known, record = open_truth(truth)
        if len(known) != len(found):
            raise AnswerFileError(
                f"{known.source}: expected {len(found):,} truths, one for each triplet of "
                f"{found.source}, got {len(known):,}"
            )
        found = replace(found, truth=known, truth_record=record)
    if swap:
        if found.triplets.trials is not None and found.is_random is None:
            raise SettingsError(
                "swap", "`swap` exchanges two images; of three images one is the odd one."
            )
        found = found._swap()
        # Swapped twice, they are as they were.
        if read_as.pop("swap", None) is None:
            read_as["swap"] = "true"
    return replace(found, record=replace(found.record, read_as=tuple(read_as.items())))


def _is_database(given: Any) -> bool:
    return isinstance(given, Path) and DATABASE_FORM.matches(given)


def _is_table(given: object) -> bool:
    return isinstance(given, pd.DataFrame | Path) or hasattr(given, "read")


def _as_file(given: Any) -> Any:
    return Path(given) if isinstance(given, str | os.PathLike) else given


def _open_database(path: Path, exclude: Collection[str] = ()) -> Judgements:
    """Count what judges said; answers to gold questions say nothing about the images."""
    index_of: dict[str, int] = {}
    votes_of: dict[tuple[int, int, int], dict[str, list[float]]] = {}
    # Number, probability and screen of each question.
    about: dict[tuple[int, int, int], tuple[int, float, int]] = {}
    ways = set()
    for answer in read_answers_given(path, exclude):
        if answer.how == GOLD:
            continue
        ways.add(answer.how)
        anchor, first, second = (index_of.setdefault(n, len(index_of)) for n in answer.triplet)
        vote = {FIRST_IMAGE: 1.0, SECOND_IMAGE: 0.0, CANT_TELL: 0.5}[answer.choice]
        key = (anchor, first, second)
        if (anchor, second, first) in votes_of:
            key, vote = (anchor, second, first), 1 - vote
        votes_of.setdefault(key, {}).setdefault(answer.judge, []).append(vote)
        screen = answer.screen if answer.side == GRID else 0
        number, probability, screen = about.get(key, (answer.question, 0.0, screen))
        # A question that a model chose may have been drawn by chance, too; then it is fair.
        about[key] = (number, probability or answer.probability, screen)
    if not votes_of:
        raise JudgementsError(f"{path}: expected judgements, there is no answer in it yet")
    for_first = np.array([sum(sum(v) / len(v) for v in of.values()) for of in votes_of.values()])
    votes = Votes(for_first, np.array([len(of) for of in votes_of.values()]) - for_first)
    numbers, chances, screens = (np.array(column) for column in zip(*about.values(), strict=True))
    is_random = chances > 0
    weights = np.zeros(len(chances))
    weights[is_random] = 1 / chances[is_random]
    weights[is_random] /= weights[is_random].mean() if is_random.any() else 1
    triplets = Triplets(
        list(index_of),
        np.array(list(votes_of), dtype=np.int32),
        numbers.astype(np.int64),
        str(path),
        True,
        screens.astype(np.int64),
    )
    # A hash of what judges said; the file itself changes in other ways, too.
    record = FileRecord(str(path), str(path.absolute()), "")
    found = Judgements(triplets, record, votes, is_random=is_random, weights=weights).turned()
    votes = votes.turn(votes.is_for_second)
    columns = (votes.for_first.tolist(), votes.for_second.tolist(), is_random.tolist())
    lines = [
        [*(triplets.names[index] for index in row), *of_row]
        for row, *of_row in zip(found.triplets.rows.tolist(), *columns, strict=True)
    ]
    digest = hashlib.sha256(json.dumps(lines).encode()).hexdigest()
    found = replace(found, record=replace(record, sha256=digest))
    # An old study alone is as good in all its rows.
    return replace(found, is_random=None, weights=None) if ways == {IMPORTED} else found


def _read_names(given: Sequence[str] | _PathLike) -> list[str]:
    """Return a list of names, from a file of one a line or of a JSON list where it is a path."""
    names: Any = given
    source = "the names"
    if isinstance(given, str | os.PathLike):
        source, text = str(given), read_text(Path(given))
        # `#1.png` is a name, other lines behind a # are comments; R writes names in quotes.
        lines = [line.strip() for line in text.split("\n")]
        lines = [line for line in lines if not re.match(r"$|#(?!\S+\.\w+$)", line)]
        names = [re.sub('^"(.*)"$', r"\1", line) for line in lines]
        is_image = [Path(name).suffix.lower() in IMAGE_SUFFIXES for name in names]
        if is_image[1:] and not is_image[0] and all(is_image[1:]):
            raise TripletFileError(
                f"{source}: expected names of images alone, got {shorten_line(names[0])} above "
                "them, which would be counted as one. Leave the heading out."
            )
        if re.match(r'\s*\[\s*"', text):
            try:
                names = json.loads(text)
            except ValueError as error:
                message = f"{source}: expected a JSON list of names: {error}"
                raise TripletFileError(message) from error
    found = [str(name) for name in names]
    texts = pd.Series(found, dtype=object)
    if len(twice := texts[texts.duplicated()]):
        raise TripletFileError(
            f'{source}: expected distinct names, got "{twice.iloc[0]}" more than once'
        )
    return found


def _take_rows(given: object, names: Sequence[str] | _PathLike | None) -> Triplets:
    if names is None:
        raise TripletFileError(
            f"expected a path, a DataFrame or Triplets, got {type(given).__name__} without "
            "`names`. Give the names of the images that its numbers are indices of."
        )
    return Triplets.from_array(np.asarray(given), _read_names(names))


def open_votes(
    given: VotesLike, triplets: Triplets | None = None
) -> tuple[Votes, Triplets | None, FileRecord]:
    """Return votes on `triplets`, the questions beside them if they have any, which must be the
    same in the same order, and the record."""
    opened, asked = _as_file(given), None
    if _is_table(opened):
        read = open_rows(opened, "votes")
        if read.votes is None:
            shown = ", ".join(read.table.columns)
            raise TripletFileError(
                f"{read.source}: expected {FORMS['votes'].expected}, got {shown}"
            )
        votes, asked, record = read.votes, read.triplets, read.record
    else:
        votes = opened if isinstance(opened, Votes) else _votes_of_numbers(opened)
        digest = hashlib.sha256(np.stack([votes.for_first, votes.for_second]).tobytes())
        record = FileRecord("the votes", None, digest.hexdigest())
    if triplets is not None and len(votes) != len(triplets):
        raise TripletFileError(
            f"{record.name}: expected {len(triplets):,} rows of votes, one for each row of "
            f"{triplets.source}, got {len(votes):,}. Do both belong to the same triplets?"
        )
    if triplets and asked and (problems := describe_other_questions(asked, triplets)):
        raise TripletFileError(problems)
    return votes, asked, record


def _votes_of_numbers(value: np.ndarray) -> Votes:
    numbers = np.asarray(value, dtype=np.float64)
    if numbers.ndim == 1:
        numbers = np.stack([numbers, 1 - numbers], axis=1)
    is_good = numbers.ndim == 2 and numbers.shape[1] == 2
    if not is_good or not ((numbers >= 0) & np.isfinite(numbers)).all() or not numbers.any(1).all():
        raise TripletFileError(
            "expected votes of the shape (n_triplets, 2), 0 or more and not both 0, or shares for "
            "the first image of the shape (n_triplets,), from 0 to 1, got others, of the shape "
            f"{np.shape(value)}"
        )
    return Votes(*numbers.T.copy())


def open_truth(given: TruthLike) -> tuple[Truth, FileRecord]:
    """Return a truth, whatever it is given as, and the record of what was read."""
    opened = _as_file(given)
    if _is_database(opened):
        opened = _open_database(opened)
    if isinstance(opened, Judgements):
        return opened.as_truth(), opened.record
    if not _is_table(opened):
        if not isinstance(opened, Truth):
            opened = Truth(labels_of_array(opened, "the truth"), "the truth")
        digest = hashlib.sha256(opened.labels.tobytes()).hexdigest()
        return opened, FileRecord("the truth", None, digest)
    # What the table says of the images' order counts where it holds them.
    read = open_rows(opened, "truth")
    labels = read.labels
    if labels is None and read.votes is not None:
        labels = read.votes.majority
    elif labels is None:
        if read.triplets is None or not read.triplets.is_answered:
            shown, expected = ",".join(read.table.columns), FORMS["truth"].expected
            raise AnswerFileError(f'{read.source}:1: expected {expected}, got "{shown}"')
        labels = np.full(len(read.triplets), FIRST, dtype=np.int8)
    return Truth(labels, read.source, read.column, read.triplets, read.ids), read.record


def find_unchanged(record: FileRecord) -> Path | None:
    """Return the path of a file that was read, if what it and its file of names say is still the
    same; else None."""
    if record.path is None or not (path := Path(record.path)).is_file():
        return None
    read_as = dict(record.read_as)
    if _is_database(path):
        digest = _open_database(path, json.loads(read_as.get("exclude", "[]"))).record.sha256
    else:
        digest = _hash(path)
    if "names" in read_as:
        names = Path(read_as["names"])
        if not names.is_file() or _hash(names) != read_as.get("names_sha256"):
            return None
    return path if digest == record.sha256 else None


def _hash(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def reopen_judgements(record: FileRecord, votes: FileRecord | None = None) -> Judgements | None:
    """Return judgements as they were once read; None where a file is gone or changed."""
    path = find_unchanged(record)
    of_votes = None if votes is None else find_unchanged(votes)
    if path is None or (votes is not None and of_votes is None):
        return None
    read_as = dict(record.read_as)
    return read_judgements(
        path,
        columns=json.loads(read_as.get("columns", "null")),
        names=read_as.get("names"),
        swap="swap" in read_as,
        votes=of_votes,
        exclude=json.loads(read_as.get("exclude", "[]")),
    )


def open_collected(given: Any) -> Judgements | None:
    """Return judgements of which some were drawn by chance; None of what is no such database."""
    given = _as_file(given)
    if _is_database(given):
        given = _open_database(given)
    return given if isinstance(given, Judgements) and given.is_random is not None else None

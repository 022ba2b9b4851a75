"""Judgements, from whatever they are given as: the only place that asks what that is.

A path, an open file, a table, rows of numbers or a database of collected judgements become one
`Judgements`; all that comes after works on that and never looks at what was given.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pandas as pd

from tripletkit.data.answer_values import SECOND, UNDECIDED
from tripletkit.data.judgement_files import is_judgements, is_judgements_bytes, tally_judgements
from tripletkit.data.judgement_tables import (
    ODD_PLACES,
    ReadRows,
    index_places,
    read_rows,
    unfold_trials,
)
from tripletkit.data.splits.policies import Split
from tripletkit.data.tables import (
    FileTable,
    LineProblem,
    is_json,
    is_parquet,
    place_problems,
    table_of_frame,
    table_of_json,
    table_of_lines,
    table_of_parquet,
)
from tripletkit.data.text_files import FileRecord, check_text, read_bytes
from tripletkit.data.triplet_files import scan_lines, write_triplet_lines
from tripletkit.data.triplet_layout import find_layout
from tripletkit.data.triplets import Triplets
from tripletkit.data.truth import Truth, TruthLike, open_truth
from tripletkit.data.votes import (
    Votes,
    VotesLike,
    open_votes,
    read_triplets_with_shares,
    warn_of_ignored,
)
from tripletkit.errors import (
    AnswerFileError,
    SettingsError,
    TripletFileError,
    VoteFileError,
    describe_problems,
)

logger = logging.getLogger("tripletkit")

PathLike = str | os.PathLike[str]


@dataclass(frozen=True)
class Judgements:
    """Questions "is the anchor nearer to the first or to the second?", and what is known of them.

    Made by `open_judgements` alone.

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
        problems: lines that could not be read, where these were wanted.
        notes: what was understood, a sentence each.
    """

    triplets: Triplets
    record: FileRecord
    votes: Votes | None = None
    truth: Truth | None = None
    is_random: np.ndarray | None = None
    weights: np.ndarray | None = None
    votes_record: FileRecord | None = None
    truth_record: FileRecord | None = None
    problems: tuple[LineProblem, ...] = ()
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.triplets)

    @property
    def source(self) -> str:
        """What they are called in messages."""
        return self.triplets.source

    def place_problems(self) -> Iterator[str]:
        """Return `file:line: expected ..., got ...` of each line that could not be read."""
        return place_problems(self.problems, self.source)

    def take(self, rows: np.ndarray) -> Judgements:
        """Return some of the judgements.

        Args:
            rows: which: a mask, `(n,)` bool, or indices.
        Returns:
            Those rows, over the same names.
        """
        return replace(
            self,
            triplets=self.triplets.take(rows),
            votes=None if self.votes is None else self.votes.take(rows),
            truth=None
            if self.truth is None
            else replace(self.truth, labels=self.truth.labels[rows]),
            is_random=None if self.is_random is None else self.is_random[rows],
            weights=None if self.weights is None else self.weights[rows],
        )

    def turned(self) -> Judgements:
        """Return the rows as anchor, nearer image, other image.

        Rows on which votes are tied stay as they are; rows that are said to be undecided are left
        out.

        Raises:
            TripletFileError: if the heading says that nobody has answered them.
        """
        if self.truth is not None:
            labels = self.truth.labels
            decided = self.take(labels != UNDECIDED)
            return decided._turn(labels[labels != UNDECIDED] == SECOND)
        if self.votes is not None:
            return self._turn(self.votes.is_for_second)
        self.triplets.check_answered()
        return self

    def decided(self) -> Judgements:
        """Return the rows of which it is known which image is nearer, as `turned` does."""
        turned = self.turned()
        return turned if turned.votes is None else turned.take(~turned.votes.is_tie)

    def as_truth(self) -> Truth:
        """Return which image of each row is the nearer one; -1 where people are tied.

        Raises:
            TripletFileError: if the heading says that nobody has answered them.
        """
        if self.truth is not None:
            labels = self.truth.labels
        elif self.votes is not None:
            labels = self.votes.majority
        else:
            self.triplets.check_answered()
            labels = np.ones(len(self), dtype=np.int8)
        return Truth(labels, self.source, "", self.triplets)

    def _turn(self, is_turned: np.ndarray) -> Judgements:
        rows = self.triplets.rows
        rows = np.where(is_turned[:, None], rows[:, [0, 2, 1]], rows)
        return replace(
            self,
            triplets=replace(self.triplets, rows=rows, is_answered=True),
            votes=None if self.votes is None else self.votes.turn(is_turned),
            truth=None,
        )

    def _swap(self) -> Judgements:
        """Return the same rows with the other image for the nearer one."""
        if self.truth is not None:
            labels = self.truth.labels
            labels = np.where(labels == UNDECIDED, UNDECIDED, 1 - labels).astype(np.int8)
            return replace(self, truth=replace(self.truth, labels=labels))
        if self.votes is not None:
            every = np.ones(len(self), dtype=bool)
            return replace(self, votes=self.votes.turn(every))
        labels = np.zeros(len(self), dtype=np.int8)
        return replace(self, truth=Truth(labels, self.source))


JudgementsLike = (
    PathLike
    | BinaryIO
    | pd.DataFrame
    | Triplets
    | np.ndarray
    | Sequence[Sequence[int]]
    | Judgements
)


def open_judgements(
    given: JudgementsLike,
    *,
    names: Sequence[str] | PathLike | None = None,
    columns: Mapping[str, str] | None = None,
    swap: bool = False,
    votes: VotesLike | None = None,
    fourth_column: str | None = None,
    truth: TruthLike | None = None,
    exclude: Collection[str] = (),
    with_problems: bool = False,
    prefix: str = "",
) -> Judgements:
    """Return judgements, whatever they are given as, and log how they were understood.

    Args:
        given: a file (text, CSV, TSV, JSON, JSON lines, Parquet, or a database of judgements), an
            open binary file, a table, `Triplets`, integer rows, or `Judgements`.
        names: of the images that numbers are places of, counted from 0: a list, or a file of one
            name a line or of a JSON list.
        columns: what the columns of a table are, where their headings do not say it: `anchor`,
            `positive`, `negative`, `first`, `second`, `answer`, `votes_first`, `votes_second`,
            `share`, `image1` to `image3` and `odd` -> heading, or place from 1. `odd` is also
            `"last"`, `"first"` or `"second"`, where it is that image of every row.
        swap: take the other image for the nearer one in every row.
        votes: how many people said what of each row; see `open_votes`.
        fourth_column: `"share"` where the fourth column of a file is the share of people who said
            that the first image is nearer.
        truth: which image of each row is the nearer one; see `open_truth`.
        exclude: of a database, names of judges to leave out.
        with_problems: keep lines that cannot be read as `problems`, instead of refusing the file.
        prefix: before the names of the settings `votes` and `truth` in messages, as `val_`.
    Raises:
        TripletFileError, VoteFileError, AnswerFileError: if something cannot be read, or does not
            belong together. The message holds the first ten problems as
            `file:line: expected ..., got ...` and their number.
        JudgementsError: if it is a database of judgements without any, or of another version.
        SettingsError: if settings exclude each other.
    """
    if votes is not None and fourth_column is not None:
        raise SettingsError(
            f"{prefix}votes", "`votes` excludes `fourth_column`: each says how people voted."
        )
    if isinstance(given, str | os.PathLike):
        given = Path(given)
    if exclude and not (isinstance(given, Path) and is_judgements(given)):
        source = given if isinstance(given, Path) else type(given).__name__
        raise SettingsError(
            "exclude", f"{source}: expected a database of judgements: only that has judges"
        )
    if isinstance(given, Judgements):
        if fourth_column is not None:
            raise SettingsError("fourth_column", "`fourth_column` is of a file.")
        found = given
    elif isinstance(given, Path) and is_judgements(given):
        if votes is not None or fourth_column is not None:
            raise SettingsError(
                f"{prefix}votes",
                f"{given} holds its votes: give no `{prefix}votes` and no `fourth_column`.",
            )
        found = _open_database(given, exclude)
        if exclude:
            found = _with_read_as(found, exclude=json.dumps(sorted(exclude)))
    else:
        known = None if names is None else read_names(names)
        if isinstance(given, Triplets) or not (
            isinstance(given, Path | pd.DataFrame) or hasattr(given, "read")
        ):
            found = _in_memory(_take_rows(given, known))
        else:
            form = _JudgementsForm.of(columns, known, fourth_column, with_problems)
            found = _open_table(given, form, ignores_answers=votes is not None or truth is not None)
            if isinstance(names, str | os.PathLike):
                found = _with_read_as(found, names=str(Path(names).absolute()))
            if columns is not None:
                found = _with_read_as(found, columns=json.dumps(dict(columns)))
    if votes is not None:
        of_rows, record = open_votes(votes, found.triplets)
        found = replace(found, votes=of_rows, votes_record=record)
    if truth is not None:
        found = _with_truth(found, truth)
    if swap:
        if found.triplets.trials is not None and found.is_random is None:
            raise SettingsError(
                "swap", "`swap` exchanges two images; of three images one is the odd one."
            )
        found = _with_read_as(found._swap(), swap="true")
    for note in found.notes:
        logger.info("%s: %s.", found.source, note)
    return replace(found, notes=())


def read_names(given: Sequence[str] | PathLike) -> list[str]:
    """Return a list of names, from a file of one a line or of a JSON list where it is a path.

    Raises:
        TripletFileError: if it cannot be read, or a name is there twice.
    """
    if not isinstance(given, str | os.PathLike):
        names, source = [str(name) for name in given], "the names"
    else:
        data, source = read_bytes(Path(given))
        data = check_text(data, source)
        if is_json(data):
            names = _names_of_json(data, source)
        else:
            names = [line.strip() for line in data.decode().split("\n") if line.strip()]
    twice = pd.Series(names, dtype=object)
    twice = twice[twice.duplicated()]
    if len(twice):
        raise TripletFileError(
            f'{source}: expected distinct names, got "{twice.iloc[0]}" more than once'
        )
    return names


def _names_of_json(data: bytes, source: str) -> list[str]:
    try:
        found = json.loads(data)
    except ValueError as error:
        raise TripletFileError(f"{source}: expected a JSON list of names: {error}") from error
    if not isinstance(found, list) or not all(isinstance(name, str) for name in found):
        raise TripletFileError(f"{source}: expected a JSON list of names, got another value")
    return found


@dataclass(frozen=True)
class _JudgementsForm:
    """How the user says that a file is to be read; see `open_judgements`.

    Attributes:
        columns: without `odd`, where that is a place of each row.
        odd_place: which of three images is the odd one of every row, from 0.
    """

    columns: Mapping[str, str] | None
    odd_place: int | None
    names: list[str] | None
    fourth_column: str | None
    with_problems: bool

    @classmethod
    def of(
        cls,
        columns: Mapping[str, str] | None,
        names: list[str] | None,
        fourth_column: str | None,
        with_problems: bool,
    ) -> _JudgementsForm:
        columns = dict(columns or {})
        odd_place = ODD_PLACES.get(columns.get("odd", ""))
        if odd_place is not None:
            del columns["odd"]
        return cls(columns or None, odd_place, names, fourth_column, with_problems)


def _open_database(path: Path, exclude: Collection[str]) -> Judgements:
    """Read what judges said, gold questions left out."""
    tally = tally_judgements(path, exclude)
    triplets = Triplets(tally.names, tally.rows, tally.numbers, str(path), True, tally.screens)
    votes = Votes(tally.for_first, tally.for_second)
    record = FileRecord(
        str(path), str(path.absolute()), _hash_judgements(triplets, votes, tally.is_random)
    )
    return Judgements(triplets, record, votes, is_random=tally.is_random, weights=tally.weights)


def _open_table(
    source: Path | BinaryIO | pd.DataFrame, form: _JudgementsForm, *, ignores_answers: bool
) -> Judgements:
    """Read a file or a table.

    Args:
        ignores_answers: votes or truth come from elsewhere.
    """
    if isinstance(source, pd.DataFrame):
        name, path, data = "DataFrame", None, b""
        read = _read_table(table_of_frame(source), form, in_file_order=False)
        digest = _hash_triplets(read.triplets)
    else:
        data, name = read_bytes(source)
        path = str(source.absolute()) if isinstance(source, Path) else None
        read = _read_bytes(data, name, form)
        digest = hashlib.sha256(data).hexdigest()
    if (read.problems and not form.with_problems) or not len(read.triplets):
        error = VoteFileError if read.votes is not None else TripletFileError
        raise error(
            describe_problems(list(place_problems(read.problems, name)))
            or f"{name}: expected lines of three image names, got no triplet at all"
        )
    warn_of_ignored(read.ignored, name, stacklevel=4)
    truth = None if read.labels is None else Truth(read.labels, name)
    read_as = () if form.fourth_column is None else (("fourth_column", form.fourth_column),)
    return Judgements(
        read.triplets,
        FileRecord(name, path, digest, read_as),
        None if ignores_answers else read.votes,
        None if ignores_answers else truth,
        problems=read.problems,
        notes=read.notes,
    )


def _read_bytes(data: bytes, name: str, form: _JudgementsForm) -> ReadRows:
    if is_judgements_bytes(data):
        raise TripletFileError(
            f"{name}: a database of judgements can be read from its file alone; give its path"
        )
    if is_parquet(data):
        return _read_table(table_of_parquet(data, name), form)
    text = check_text(data, name)
    if is_json(text):
        return _read_table(table_of_json(text, name), form)
    layout = find_layout(text, name, form.columns)
    if layout.fields or form.columns is not None:
        lines = enumerate(text[layout.start :].decode().split("\n"), layout.line)
        return _read_table(table_of_lines(lines, layout.split, layout.fields, name), form)
    if form.fourth_column is not None:
        triplets, votes = read_triplets_with_shares(io.BytesIO(data), name)
        return ReadRows(triplets, votes=votes)
    triplets, problems = scan_lines(text, layout, name)
    if form.names is not None:
        triplets, found = index_places(triplets, form.names)
        problems = sorted([*problems, *found], key=lambda problem: problem.line)
    if form.odd_place is not None:
        triplets, note = unfold_trials(triplets, form.odd_place)
        return ReadRows(triplets, problems=tuple(problems), notes=(note,))
    return ReadRows(triplets, problems=tuple(problems))


def _read_table(table: FileTable, form: _JudgementsForm, *, in_file_order: bool = True) -> ReadRows:
    try:
        read = read_rows(
            table, form.columns, form.odd_place, form.names, in_file_order=in_file_order
        )
    except ValueError as error:
        if isinstance(error, TripletFileError):
            raise
        raise TripletFileError(f"{table.source}: {error}") from error
    if read is None:
        shown = ", ".join(table.columns)
        raise TripletFileError(
            f"{table.source}: expected a table with the columns anchor, positive, negative or "
            f"others that are known, got {shown}. Say with `columns` which hold the images, such "
            "as anchor=...,positive=...,negative=..."
        )
    if form.fourth_column is not None and read.votes is None:
        raise VoteFileError(f"{table.source}: expected a column share, there is none")
    return read


def _with_read_as(judgements: Judgements, **options: str) -> Judgements:
    record = judgements.record
    read_as = (*record.read_as, *options.items())
    return replace(judgements, record=replace(record, read_as=read_as))


def _take_rows(
    given: Triplets | np.ndarray | Sequence[Sequence[int]], names: Sequence[str] | None
) -> Triplets:
    if isinstance(given, Triplets):
        return given
    if names is None:
        raise TripletFileError(
            f"expected a path, a DataFrame or Triplets, got {type(given).__name__} without "
            "`names`. Give the names of the images that its numbers are indices of."
        )
    return Triplets.from_array(np.asarray(given), names)


def _in_memory(triplets: Triplets) -> Judgements:
    return Judgements(triplets, FileRecord(triplets.source, None, _hash_triplets(triplets)))


def _hash_triplets(triplets: Triplets) -> str:
    text = io.StringIO()
    write_triplet_lines(text, triplets.names, triplets.rows)
    return hashlib.sha256(text.getvalue().encode("utf-8", errors="surrogateescape")).hexdigest()


def _with_truth(judgements: Judgements, given: TruthLike) -> Judgements:
    truth, record = open_truth(given)
    if len(truth) != len(judgements):
        raise AnswerFileError(
            f"{truth.source}: expected {len(judgements):,} truths, one for each triplet of "
            f"{judgements.source}, got {len(truth):,}"
        )
    return replace(judgements, truth=truth, truth_record=record)


def find_unchanged(record: FileRecord) -> Path | None:
    """Return the path of a file that was read, if what it says is still the same; else None."""
    if record.path is None or not (path := Path(record.path)).is_file():
        return None
    if is_judgements(path):
        exclude = json.loads(dict(record.read_as).get("exclude", "[]"))
        digest = open_judgements(path, exclude=exclude).record.sha256
    else:
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return path if digest == record.sha256 else None


def reopen_judgements(
    record: FileRecord, votes: FileRecord | None = None, truth: FileRecord | None = None
) -> Judgements | None:
    """Return judgements as they were once opened; None where a file is gone or changed."""
    paths = [None if each is None else find_unchanged(each) for each in (record, votes, truth)]
    if any(
        each is not None and path is None
        for each, path in zip((record, votes, truth), paths, strict=True)
    ):
        return None
    options = dict(record.read_as)
    columns = options.pop("columns", None)
    exclude = json.loads(options.pop("exclude", "[]"))
    return open_judgements(
        paths[0],
        votes=paths[1],
        truth=paths[2],
        columns=None if columns is None else json.loads(columns),
        swap=options.pop("swap", None) is not None,
        exclude=exclude,
        **options,
    )


def _hash_judgements(triplets: Triplets, votes: Votes, is_random: np.ndarray) -> str:
    """Return a hash of what judges said; the file itself changes in other ways, too."""
    names = triplets.names
    lines = [
        [*(names[index] for index in row), *of_row, chance]
        for row, of_row, chance in zip(
            triplets.rows.tolist(),
            np.stack([votes.for_first, votes.for_second], axis=1).tolist(),
            is_random.tolist(),
            strict=True,
        )
    ]
    return hashlib.sha256(json.dumps(lines).encode()).hexdigest()


def validate_on_random(split: Split, is_random: np.ndarray) -> Split:
    """Return a split whose validation rows were all drawn by chance; the others are dropped.

    Questions that a model chose are those it finds hard: a score on them would be too low.

    Args:
        split: of judgements.
        is_random: `(n_triplets,)` bool of the same.
    """
    is_kept = is_random[split.val_rows]
    dropped = np.sort(np.concatenate([split.dropped_rows, split.val_rows[~is_kept]]))
    return replace(split, val_rows=split.val_rows[is_kept], dropped_rows=dropped)


def find_questions(asked: Triplets, judgements: Judgements) -> tuple[np.ndarray, np.ndarray]:
    """Return which judged question each row asks.

    Args:
        asked: rows over names of their own.
        judgements: what judges said.
    Returns:
        `(n_asked,)` int64 indices of judged questions, -1 where nobody was asked; and
        `(n_asked,)` bool, whether the row's first image is the other one.
    """
    index_of = {name: index for index, name in enumerate(judgements.triplets.names)}
    of_names = np.array([index_of.get(name, -1) for name in asked.names], dtype=np.int64)
    question_of = {tuple(row): n for n, row in enumerate(judgements.triplets.rows.tolist())}
    found = np.full(len(asked), -1, dtype=np.int64)
    is_turned = np.zeros(len(asked), dtype=bool)
    for place, (anchor, first, second) in enumerate(of_names[asked.rows].tolist()):
        if (question := question_of.get((anchor, first, second))) is not None:
            found[place] = question
        elif (question := question_of.get((anchor, second, first))) is not None:
            found[place], is_turned[place] = question, True
    return found, is_turned

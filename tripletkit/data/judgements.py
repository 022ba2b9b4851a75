"""Judgements, from whatever they are given as: the only place that asks what that is.

A path, an open file, a table, rows of numbers or a database of collected judgements become one
`Judgements`; all that comes after works on that and never looks at what was given.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pandas as pd

from tripletkit.data import votes as vote_files
from tripletkit.data.judgement_files import is_judgements, is_judgements_bytes, tally_judgements
from tripletkit.data.splits.policies import Split
from tripletkit.data.text_files import FileRecord, read_bytes
from tripletkit.data.triplet_files import (
    LineProblem,
    read_triplets,
    scan_triplets,
    warn_of_ignored,
    write_triplet_lines,
)
from tripletkit.data.triplets import Triplets
from tripletkit.data.truth import Truth, TruthLike, open_truth
from tripletkit.data.votes import Votes, VotesLike, open_votes
from tripletkit.errors import AnswerFileError, SettingsError, TripletFileError

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
        trials: `(n_triplets,)` int64: the number of the screen or trial that a row comes from, 0
            where it was asked alone. Rows of one trial are not independent. None without trials.
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
    trials: np.ndarray | None = None
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
        """Yield `file:line: expected ..., got ...` of each line that could not be read."""
        for problem in self.problems:
            yield f"{self.source}:{problem.line}: {problem.message}"

    def take(self, rows: np.ndarray) -> Judgements:
        """Return the rows that a mask or an index array picks."""
        return replace(
            self,
            triplets=self.triplets.take(rows),
            votes=None if self.votes is None else self.votes.take(rows),
            truth=None
            if self.truth is None
            else replace(self.truth, labels=self.truth.labels[rows]),
            is_random=None if self.is_random is None else self.is_random[rows],
            trials=None if self.trials is None else self.trials[rows],
        )

    def turned(self) -> Judgements:
        """Return the rows as anchor, nearer image, other image; ties of votes stay as they are.

        Raises:
            TripletFileError: if the heading says that nobody has answered them.
        """
        if self.truth is not None:
            is_turned = self.truth.labels == 0
        elif self.votes is not None:
            is_turned = self.votes.is_for_second
        else:
            self.triplets.check_answered()
            return self
        rows = self.triplets.rows
        rows = np.where(is_turned[:, None], rows[:, [0, 2, 1]], rows)
        return replace(
            self,
            triplets=replace(self.triplets, rows=rows),
            votes=None if self.votes is None else self.votes.turn(is_turned),
            truth=None,
        )

    def decided(self) -> Judgements:
        """Return the rows of which it is known which image is nearer, as `turned` does."""
        turned = self.turned()
        return turned if turned.votes is None else turned.take(~turned.votes.is_tie)


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
    names: Sequence[str] | None = None,
    votes: VotesLike | None = None,
    fourth_column: str | None = None,
    truth: TruthLike | None = None,
    exclude: Collection[str] = (),
    with_problems: bool = False,
    prefix: str = "",
) -> Judgements:
    """Return judgements, whatever they are given as.

    Args:
        given: a triplet file, an open binary file, a database of judgements, a table
            (`Triplets.from_frame`), `Triplets`, integer rows, or `Judgements`.
        names: of the images that integer rows are indices of.
        votes: how many people said what of each row; see `open_votes`.
        fourth_column: `"share"` where the fourth column of a file is the share of people who said
            that the first image is nearer.
        truth: which image of each row is the nearer one; see `open_truth`.
        exclude: of a database, names of judges to leave out.
        with_problems: keep lines that cannot be read as `problems`, instead of refusing the file.
        prefix: before the names of the settings `votes` and `truth` in messages, as `val_`.
    Raises:
        TripletFileError, VoteFileError, AnswerFileError: if something cannot be read, or does not
            belong together.
        JudgementsError: if it is a database of judgements without any, or of another version.
        SettingsError: if settings exclude each other.
    """
    if votes is not None and fourth_column is not None:
        raise SettingsError(
            f"{prefix}votes", "`votes` excludes `fourth_column`: each says how people voted."
        )
    has_votes = votes is not None or fourth_column is not None
    if isinstance(given, str | os.PathLike):
        given = Path(given)
    if isinstance(given, Judgements):
        found = given
    elif isinstance(given, Path) and is_judgements(given):
        if has_votes:
            raise SettingsError(
                f"{prefix}votes",
                f"{given} holds its votes: give no `{prefix}votes` and no `fourth_column`.",
            )
        found = _open_database(given, exclude)
    elif isinstance(given, Path) or hasattr(given, "read"):
        found = _open_file(
            given,
            fourth_column,
            ignores_votes=votes is not None or truth is not None,
            with_problems=with_problems,
        )
    else:
        found = _in_memory(_take_triplets(given, names))
    if votes is not None:
        of_rows, record = open_votes(votes, found.triplets)
        found = replace(found, votes=of_rows, votes_record=record)
    if truth is not None:
        found = _with_truth(found, truth)
    return found


def _open_database(path: Path, exclude: Collection[str]) -> Judgements:
    """Read what judges said, gold questions left out."""
    tally = tally_judgements(path, exclude)
    triplets = Triplets(tally.names, tally.rows, tally.numbers, str(path), True)
    votes = Votes(tally.for_first, tally.for_second)
    record = FileRecord(
        str(path), str(path.absolute()), _hash_judgements(triplets, votes, tally.is_random)
    )
    return Judgements(triplets, record, votes, is_random=tally.is_random, trials=tally.screens)


def _open_file(
    source: Path | BinaryIO,
    fourth_column: str | None,
    *,
    ignores_votes: bool,
    with_problems: bool,
) -> Judgements:
    data, name = read_bytes(source)
    if is_judgements_bytes(data):
        raise TripletFileError(
            f"{name}: a database of judgements can be read from its file alone; give its path"
        )
    path = str(source.absolute()) if isinstance(source, Path) else None
    read_as = () if fourth_column is None else (("fourth_column", fourth_column),)
    record = FileRecord(name, path, hashlib.sha256(data).hexdigest(), read_as)
    opened = io.BytesIO(data)
    if with_problems:
        scan = scan_triplets(opened, name)
        if not len(scan.triplets):
            scan.checked()
        warn_of_ignored(scan.ignored, name, stacklevel=4)
        return Judgements(scan.triplets, record, problems=tuple(scan.problems))
    if fourth_column is not None:
        triplets, votes = vote_files.read_triplets_with_shares(opened, name)
    elif ignores_votes:
        triplets, votes = read_triplets(opened, name), None
    else:
        triplets, votes = vote_files.read_triplets_with_votes(opened, name)
    return Judgements(triplets, record, votes)


def _take_triplets(
    given: Triplets | pd.DataFrame | np.ndarray | Sequence[Sequence[int]],
    names: Sequence[str] | None,
) -> Triplets:
    if isinstance(given, Triplets):
        return given
    if isinstance(given, pd.DataFrame):
        return Triplets.from_frame(given)
    if names is None:
        raise TripletFileError(
            f"expected a path, a DataFrame or Triplets, got {type(given).__name__} without "
            "`names`. Give the names of the images that its numbers are indices of."
        )
    return Triplets.from_array(np.asarray(given), names)


def _in_memory(triplets: Triplets) -> Judgements:
    text = io.StringIO()
    write_triplet_lines(text, triplets.names, triplets.rows)
    digest = hashlib.sha256(text.getvalue().encode("utf-8", errors="surrogateescape")).hexdigest()
    return Judgements(triplets, FileRecord(triplets.source, None, digest))


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
        digest = open_judgements(path).record.sha256
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
    return open_judgements(paths[0], votes=paths[1], truth=paths[2], **dict(record.read_as))


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


def read_questions(
    triplets_file: Path | BinaryIO | None,
    votes_file: Path | BinaryIO | None,
    fourth_column: str | None,
) -> tuple[Triplets | None, Votes | None]:
    """Return the questions, where a file holds them, and the votes on them, where there are any."""
    if votes_file is not None and fourth_column is not None:
        raise SettingsError(
            "votes", "`votes` excludes `fourth_column`: each says how people voted."
        )
    if triplets_file is not None:
        judgements = open_judgements(triplets_file, votes=votes_file, fourth_column=fourth_column)
        return judgements.triplets, judgements.votes
    if votes_file is None:
        return None, None
    read = vote_files.read_votes(votes_file)
    return read.triplets, read.votes

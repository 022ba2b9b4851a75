"""Collected judgements as triplets with votes, and the share of them that scores rest on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

import numpy as np

from tripletkit.data import votes as vote_files
from tripletkit.data.judgement_files import is_judgements, tally_judgements
from tripletkit.data.splits.policies import Split
from tripletkit.data.triplet_files import read_triplets
from tripletkit.data.triplets import Triplets
from tripletkit.data.votes import Votes
from tripletkit.errors import SettingsError


@dataclass(frozen=True)
class Judgements:
    """What judges said, question by question.

    Each judge has one vote on a question; who answered it twice in two ways gave half a vote to
    each image, and so did who could not tell.

    Attributes:
        triplets: one row a question: anchor, the image that most judges chose, the other. Where
            as many chose the one as the other, the order is that of the question. The line of a
            row is its number in the database; of a grid's, less than 0.
        votes: on these rows.
        is_random: `(n_questions,)` bool: drawn by chance, not chosen by a model. Only these
            tell how good a model is.
        screens: `(n_questions,)` int64: the number of the grid that a row comes from, 0 where it
            was asked alone. Rows of one grid are not independent.
    """

    triplets: Triplets
    votes: Votes
    is_random: np.ndarray
    screens: np.ndarray

    def __len__(self) -> int:
        return len(self.triplets)

    def take(self, rows: np.ndarray) -> Judgements:
        """Return the rows that a mask or an index array picks."""
        return Judgements(
            self.triplets.take(rows),
            self.votes.take(rows),
            self.is_random[rows],
            self.screens[rows],
        )

    def decided(self) -> Judgements:
        """Return the rows on which more judges chose the one image than the other."""
        return self.take(~self.votes.is_tie)

    @property
    def sha256(self) -> str:
        """A hash of what the judges said; the file itself changes in other ways, too."""
        names = self.triplets.names
        lines = [
            [*(names[index] for index in row), *votes, is_random]
            for row, votes, is_random in zip(
                self.triplets.rows.tolist(),
                np.stack([self.votes.for_first, self.votes.for_second], axis=1).tolist(),
                self.is_random.tolist(),
                strict=True,
            )
        ]
        return hashlib.sha256(json.dumps(lines).encode()).hexdigest()


def read_judgements(path: Path, exclude: Collection[str] = ()) -> Judgements:
    """Read what judges said, gold questions left out.

    Args:
        path: a database that `tripletkit collect` wrote.
        exclude: names of judges to leave out.
    Raises:
        JudgementsError: if it is no such database, or there is no such judge, or no answer.
    """
    tally = tally_judgements(path, exclude)
    return Judgements(
        Triplets(tally.names, tally.rows, tally.numbers, str(path), True),
        Votes(tally.for_first, tally.for_second),
        tally.is_random,
        tally.screens,
    )


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


def read_voted_triplets(
    source: Path | BinaryIO, name: str | None = None
) -> tuple[Triplets, Votes | None]:
    """Read triplets with the votes that their file holds, a database of judgements among them.

    Args:
        source, name: see `vote_files.read_triplets_with_votes`.
    Raises:
        JudgementsError: if it is a database of judgements without any, or of another version.
        TripletFileError, VoteFileError: if it is no triplet file.
    """
    if is_judgements(source):
        judgements = read_judgements(source)
        return judgements.triplets, judgements.votes
    return vote_files.read_triplets_with_votes(source, name)


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
    if fourth_column is not None:
        return vote_files.read_triplets_with_shares(triplets_file)
    if votes_file is None:
        if triplets_file is None:
            return None, None
        return read_voted_triplets(triplets_file)
    triplets = None if triplets_file is None else read_triplets(triplets_file)
    read = vote_files.read_votes(votes_file)
    if triplets is None:
        return read.triplets, read.votes
    read.check_questions(triplets)
    return triplets, read.votes

"""Rows that ask the same question, and how often something was seen."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from unicodedata import normalize

import numpy as np
import pandas as pd

from tripletkit.data.pair_graph import pair_keys
from tripletkit.data.triplets import Triplets

_EXTENSION = re.compile(r"\.[A-Za-z0-9]{2,4}$")

_SHOWN_CHARACTERS = 60


@dataclass(frozen=True)
class Tally:
    """How often something was seen, and where first.

    Attributes:
        count: how often in all.
        examples: the first few, each as `file:line: what`.
    """

    count: int
    examples: list[str]


def tally(count: int, examples: Iterable[str], n_examples: int) -> Tally:
    """Count, and keep the first examples only; the others are never made."""
    return Tally(int(count), list(islice(examples, n_examples)))


def show_names(names: Sequence[str], indices: Iterable[int]) -> str:
    """Return some names as a message shows them: long ones cut, ones with blanks quoted."""
    return " ".join(_shorten(names[index]) for index in indices)


def _shorten(name: str) -> str:
    short = name if len(name) <= _SHOWN_CHARACTERS else name[:_SHOWN_CHARACTERS] + "..."
    return f'"{short}"' if " " in short else short


@dataclass(frozen=True)
class Questions:
    """Rows grouped by the question that they ask.

    Attributes:
        of_row: `(n_triplets,)` int64, the question of each row, counted from 0 in order of
            first appearance.
        is_mirrored: `(n_triplets,)` bool, the row has B and C the other way round than the
            first row of its question.
    """

    of_row: np.ndarray
    is_mirrored: np.ndarray

    @property
    def directed(self) -> np.ndarray:
        """`(n_triplets,)` int64: equal for rows that are equal name by name."""
        return self.of_row * 2 + self.is_mirrored

    @cached_property
    def votes(self) -> np.ndarray:
        """`(n_questions, 2)` int64: rows that agree with the question's first row, and others."""
        return np.bincount(self.directed, minlength=2 * self.n_questions).reshape(-1, 2)

    @property
    def n_questions(self) -> int:
        return int(self.of_row.max(initial=-1)) + 1

    @property
    def is_both_ways(self) -> np.ndarray:
        """`(n_questions,)` bool: asked as (A, B, C) and as (A, C, B)."""
        return (self.votes > 0).all(axis=1)

    def repeats(self) -> np.ndarray:
        """Return `(n_triplets,)` bool: the row equals an earlier one name by name."""
        return pd.Series(self.directed).duplicated().to_numpy()


@dataclass(frozen=True)
class RepeatedJudgements:
    """How far several judgements of one question agree.

    Attributes:
        n_questions: questions that were judged more than once.
        n_judgements: judgements of these questions.
        agreement: chance that two judgements of one such question are the same, 0 to 1.
        ceiling: accuracy of the best possible answerer on these judgements: the share of the
            majority. No model can score higher.
        overall_ceiling: the same over all judgements, those made once included.
    """

    n_questions: int
    n_judgements: int
    agreement: float
    ceiling: float
    overall_ceiling: float


def group_questions(rows: np.ndarray, n_names: int) -> Questions:
    """Group rows by their question.

    Args:
        rows: `(n_triplets, 3)` integer indices of names.
        n_names: how many names there are.
    """
    anchor, first, second = rows.T
    # Twice, because the product of three indices would overflow at two million names.
    others, distinct = pd.factorize(pair_keys(first, second, n_names))
    of_row, _ = pd.factorize(anchor.astype(np.int64) * len(distinct) + others)
    starts = np.flatnonzero(~pd.Series(of_row).duplicated().to_numpy())
    return Questions(of_row, first != first[starts][of_row])


_MIX = np.array([0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9], dtype=np.uint64)


def hash_questions(triplets: Triplets) -> np.ndarray:
    """Return `(n_triplets,)` uint64: equal for one question, whichever way round it is asked.

    Names count with or without their extension.
    """
    bare = [normalize("NFC", _EXTENSION.sub("", name)) for name in triplets.names]
    anchor, first, second = pd.util.hash_array(np.array(bare, dtype=object))[triplets.rows].T
    low, high = np.minimum(first, second), np.maximum(first, second)
    mixed = (anchor ^ _MIX[0]) * _MIX[1] ^ (low * _MIX[2] + high * _MIX[0])
    return mixed ^ (mixed >> np.uint64(31))


def compare_judgements(questions: Questions) -> RepeatedJudgements | None:
    """Measure the agreement of questions judged several times; none if there are none.

    Example:
        >>> rows = np.array([[0, 1, 2], [0, 1, 2], [0, 2, 1], [0, 1, 3]])
        >>> compare_judgements(group_questions(rows, 4)).ceiling  # two of three
        0.6666666666666667
    """
    n_each = questions.votes.sum(axis=1)
    is_several = n_each > 1
    if not is_several.any():
        return None
    votes, n_each = questions.votes[is_several], n_each[is_several]
    n_pairs = (n_each * (n_each - 1)).sum()
    n_agreeing = (votes * (votes - 1)).sum()
    n_lost = votes.min(axis=1).sum()
    return RepeatedJudgements(
        n_questions=len(votes),
        n_judgements=int(n_each.sum()),
        agreement=float(n_agreeing / n_pairs),
        ceiling=float(1 - n_lost / n_each.sum()),
        overall_ceiling=float(1 - n_lost / len(questions.of_row)),
    )

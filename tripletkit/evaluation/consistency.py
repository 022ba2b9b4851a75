"""Whether answers agree with one another, truth or no truth."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tripletkit.data.questions import Questions, group_questions
from tripletkit.evaluation.answers import Answers


@dataclass(frozen=True)
class Consistency:
    """How questions that were asked more than once were answered.

    Attributes:
        n_mirrored: questions asked as (A, B, C) and as (A, C, B), both decided.
        n_mirrored_broken: of them, those where the two answers name different images.
        n_repeated: questions asked several times in one order, decided at least twice.
        n_repeated_broken: of them, those where the answers differ.
        broken_rows: indices of the rows of both kinds of broken questions, ascending.
    """

    n_mirrored: int
    n_mirrored_broken: int
    n_repeated: int
    n_repeated_broken: int
    broken_rows: np.ndarray


def check_consistency(answers: Answers, rows: np.ndarray) -> Consistency:
    """Compare the answers to questions that were asked more than once.

    Ties and rows without a margin are left out: they are no answers. So are rows that name one
    image twice.

    Args:
        answers: of `n_triplets` rows.
        rows: `(n_triplets, 3)` integers, the images of each question.
    Example:
        >>> answers = Answers(np.array([1, 1, 0]), None, None, "answers")
        >>> rows = np.array([[0, 1, 2], [0, 2, 1], [0, 1, 3]])
        >>> check_consistency(answers, rows).n_mirrored_broken
        1
    """
    first, second = rows[:, 1], rows[:, 2]
    decided = np.flatnonzero(~answers.is_tie & ~answers.is_undecidable & (first != second))
    rows = rows[decided]
    questions = group_questions(rows, int(rows.max(initial=-1)) + 1)
    answered = answers.predictions[decided].astype(bool)
    is_split = _has_both(answered ^ questions.is_mirrored, questions)
    is_both_ways = questions.is_both_ways
    n_in_order, n_in_order_ones = (
        np.bincount(questions.directed, weights, 2 * questions.n_questions)
        for weights in (None, answered)
    )
    is_repeated = n_in_order > 1
    is_repeat_broken = (n_in_order_ones > 0) & (n_in_order_ones < n_in_order)
    is_broken_row = (is_split & is_both_ways)[questions.of_row]
    is_broken_row |= is_repeat_broken[questions.directed]
    return Consistency(
        n_mirrored=int(is_both_ways.sum()),
        n_mirrored_broken=int((is_both_ways & is_split).sum()),
        n_repeated=int(is_repeated.sum()),
        n_repeated_broken=int(is_repeat_broken.sum()),
        broken_rows=decided[is_broken_row],
    )


def _has_both(votes: np.ndarray, questions: Questions) -> np.ndarray:
    """Return `(n_questions,)` bool: its votes are neither all True nor all False."""
    n_rows = np.bincount(questions.of_row, minlength=questions.n_questions)
    n_true = np.bincount(questions.of_row, votes, questions.n_questions)
    return (n_true > 0) & (n_true < n_rows)

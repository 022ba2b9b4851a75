"""Whether answers belong to a truth file and to questions."""

from __future__ import annotations

import warnings

from tripletkit.data.triplets import Triplets, describe_other_questions
from tripletkit.errors import AnswerFileError, DataWarning
from tripletkit.evaluation.answers import Answers, Truth


def check_not_exchanged(answers: Answers, truth: Truth) -> None:
    """Refuse answers and truth that were given in each other's place, as far as headings tell.

    Where they leave doubt, a `DataWarning` says what is taken for what.

    Raises:
        AnswerFileError: if the answers are a truth file, and the truth is an answer file.
    """
    seems_true = answers.column in ("label", "truth")
    if seems_true and truth.column == "prediction":
        raise AnswerFileError(
            f"{answers.source}: expected answers, got the column {answers.column} of a truth "
            f"file, and {truth.source} has the column prediction of an answer file. Give the "
            "answers first, then the truth."
        )
    if truth.column == "prediction":
        warnings.warn(
            f"{truth.source}: has no column label or truth; its answers (prediction) are taken "
            "for the truth",
            DataWarning,
            stacklevel=2,
        )
    elif seems_true and not truth.column:
        warnings.warn(
            f"{answers.source}: has the column {answers.column} of a truth file, and is taken "
            f"for answers; {truth.source} is taken for the truth",
            DataWarning,
            stacklevel=2,
        )


def check_same_length(answers: Answers, n_expected: int, source: str) -> None:
    """Refuse answers that cannot belong to a file because their numbers differ.

    Raises:
        AnswerFileError: with both numbers.
    """
    if len(answers) != n_expected:
        raise AnswerFileError(
            f"{answers.source}: expected {n_expected:,} answers, one for each row of {source}, "
            f"got {len(answers):,}. Do both belong to the same triplets?"
        )


def check_same_questions(answers: Answers, triplets: Triplets) -> None:
    """Refuse answers that belong to other questions, or to the same in another order.

    Answers that do not hold their questions are checked for their number only.

    Raises:
        AnswerFileError: with the first ten rows that differ and their number.
    """
    check_same_length(answers, len(triplets), triplets.source)
    asked = answers.triplets
    if asked is not None and (problems := describe_other_questions(asked, triplets)):
        raise AnswerFileError(problems)

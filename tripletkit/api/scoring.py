"""Scores that can be believed: of answers, of several against each other, and of names alone."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from tripletkit import defaults
from tripletkit.api.inputs import (
    AnswersLike,
    TripletsLike,
    take_answers,
)
from tripletkit.data.judgements import open_judgements
from tripletkit.data.triplets import Triplets
from tripletkit.data.truth import TruthLike, open_truth
from tripletkit.errors import AnswerFileError, SettingsError
from tripletkit.evaluation.answer_checks import check_same_length, check_same_questions
from tripletkit.evaluation.answers import Answers
from tripletkit.evaluation.baselines import Baseline, run_baselines
from tripletkit.evaluation.comparison import Comparison, compare_answers
from tripletkit.evaluation.scoring import Score, TiePolicy, credit_rows, score_answers


def score(
    answers: AnswersLike,
    truth: TruthLike | None = None,
    *,
    triplets: TripletsLike | None = None,
    ties: TiePolicy = "answer",
    unique: bool = False,
) -> Score:
    """Return the accuracy of answers, with intervals and parts.

    Args:
        answers: `Answers`, an answer file, or 1 and 0 for each triplet.
        truth: a truth file, or 1 and 0 for each triplet. Defaults to all 1, as in judgements
            `anchor positive negative`.
        triplets: the questions, where the answers do not hold them; without them there is no
            interval that accounts for shared images.
        ties: `"answer"` counts a tie as the answer that stands for it, `"error"` as wrong, `"half"`
            as half right. Defaults to `"answer"`.
        unique: count rows that equal an earlier one no second time. Defaults to `False`.
    Returns:
        A `Score`: `accuracy`, `n`, `wilson`, `image_interval`, ties, and accuracy by size of the
        margin.
    Raises:
        AnswerFileError: if something cannot be read, or the numbers of rows differ.
        SettingsError: if `unique` is asked for and the questions are not known.
    Example:
        >>> score([1, 0, 1, 1], [1, 0, 0, 1]).accuracy
        0.75
    """
    answers = take_answers(answers)
    asked = _find_questions([answers], triplets)
    if unique and asked is None:
        raise SettingsError(
            "unique", "`unique=True` needs `triplets`, to know which rows are equal"
        )
    labels = _find_labels(answers, truth)
    rows = None if asked is None else asked.rows
    return score_answers(answers, labels, rows=rows, ties=ties, unique=unique)


def compare(
    answers: Mapping[str, AnswersLike],
    truth: TruthLike | None = None,
    *,
    triplets: TripletsLike | None = None,
) -> Comparison:
    """Tell which of several answers to the same questions is better, and how surely.

    Args:
        answers: name -> answers, at least two, all to the same triplets in the same order.
        truth, triplets: see `score`.
    Returns:
        A `Comparison`: `ranking`, best first, and `pairs` with the interval of the difference,
        exact McNemar tests and Holm's correction.
    Raises:
        AnswerFileError: if there are fewer than two, or something cannot be read or does not
            belong together.
    Example:
        >>> right = {"a": [1, 1, 1, 1, 0], "b": [1, 0, 0, 1, 0]}
        >>> compare(right, [1, 1, 1, 1, 1]).pairs[0].difference
        0.4
    """
    if len(answers) < 2:
        raise AnswerFileError(f"expected two or more answers to compare, got {len(answers)}")
    entries = {name: take_answers(given, name) for name, given in answers.items()}
    asked = _find_questions(list(entries.values()), triplets)
    labels = _find_labels(next(iter(entries.values())), truth)
    for name, entry in entries.items():
        check_same_length(entry, len(labels), f"the truth (answers {name!r})")
    credits = {name: credit_rows(entry, labels) for name, entry in entries.items()}
    return compare_answers(credits, None if asked is None else asked.rows)


def controls(
    train: TripletsLike,
    val: TripletsLike,
    truth: TruthLike | None = None,
    *,
    ordinal: bool | None = None,
    seed: int = defaults.SEED,
) -> list[Baseline]:
    """Return what validation triplets can be answered from names alone, without any image.

    A model is worth only what it scores above these shortcut baselines.

    Args:
        train: judgements: anchor, positive, negative.
        val: questions over the same names.
        truth: of `val`; see `score`.
        ordinal: embed the names by the training triplets, the slowest baseline. Defaults to
            `None`: where there are at most 200,000 of them.
        seed: start of that embedding. Defaults to `0`.
    Returns:
        `Baseline`s: pair memory, popularity, and names only.
    Raises:
        TripletkitError: if something cannot be read or does not belong together.
    Example:
        >>> import pandas as pd
        >>> frame = pd.DataFrame({"a": ["x"] * 3, "b": ["y"] * 3, "c": ["z"] * 3})
        >>> controls(frame, frame)[0].accuracy  # each pair was met before
        1.0
    """
    labels = None if truth is None else open_truth(truth)[0].labels
    return run_baselines(
        open_judgements(train).decided().triplets,
        open_judgements(val).triplets,
        labels,
        ordinal=ordinal,
        seed=seed,
    )


def _find_questions(entries: list[Answers], triplets: TripletsLike | None) -> Triplets | None:
    """Return the questions that are given, else those of the first answers that hold them."""
    held = (entry.triplets for entry in entries if entry.triplets is not None)
    asked = next(held, None) if triplets is None else open_judgements(triplets).triplets
    if asked is not None:
        for entry in entries:
            check_same_questions(entry, asked)
    return asked


def _find_labels(answers: Answers, truth: TruthLike | None) -> np.ndarray:
    if truth is None:
        return np.ones(len(answers), dtype=np.int8)
    read = open_truth(truth)[0]
    check_same_length(answers, len(read), read.source)
    return read.labels

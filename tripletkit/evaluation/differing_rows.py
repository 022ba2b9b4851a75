"""The rows on which several answer files differ, as a table."""

from __future__ import annotations

import csv
from collections.abc import Sequence

import numpy as np

from tripletkit.data.names import guard_formula
from tripletkit.data.outputs import Destination, open_output
from tripletkit.data.triplets import Triplets
from tripletkit.evaluation.answers import Answers, Truth
from tripletkit.evaluation.belonging import check_same_questions


def find_questions(entries: Sequence[Answers], triplets: Triplets | None) -> Triplets | None:
    """Take these triplets, else those of the first answers that hold any; check them all.

    Raises:
        AnswerFileError: if answers are to other questions.
    """
    if triplets is None:
        triplets = next((answers.triplets for answers in entries if answers.triplets), None)
    if triplets is not None:
        for answers in entries:
            check_same_questions(answers, triplets)
    return triplets


def write_differing_rows(
    destination: Destination, entries: Sequence[Answers], truth: Truth, triplets: Triplets | None
) -> int:
    """Write the rows on which not all files give the same answer; return how many."""
    predictions = np.stack([answers.predictions for answers in entries])
    differing = np.flatnonzero((predictions != predictions[0]).any(axis=0))
    names = ["a", "b", "c"] if triplets else []
    with open_output(destination) as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(
            ["row", *names, "truth", *(guard_formula(answers.source) for answers in entries)]
        )
        for row in differing:
            writer.writerow(
                [
                    row + 1,
                    *map(guard_formula, _names(triplets, row)),
                    truth.labels[row],
                    *predictions[:, row],
                ]
            )
    return len(differing)


def _names(triplets: Triplets | None, row: np.intp) -> list[str]:
    return [triplets.names[index] for index in triplets.rows[row]] if triplets else []

"""Triplets as competitions ask them: second and third image in chance order, and the truth."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tripletkit.data.outputs import Destination, open_output
from tripletkit.data.triplet_files import write_triplets


def draw_truth(n_questions: int, seed: int) -> np.ndarray:
    """Return `(n_questions,)` int64 in chance order: half 1, the rest 0; of an odd one more 0."""
    return np.random.default_rng(seed).permutation(np.arange(n_questions) % 2)


def write_questions(
    questions: Destination,
    truth_file: Destination,
    names: Sequence[str],
    rows: np.ndarray,
    truth: np.ndarray,
) -> None:
    """Write questions and, under the heading `label`, their truth; both or neither.

    Args:
        questions: the triplet file to write.
        truth_file: the file of truth to write.
        names: the distinct names.
        rows: `(n_questions, 3)` anchor, positive, negative, indices into `names`.
        truth: `(n_questions,)`, 1 where the positive is to stand first, 0 where it is not.
    Raises:
        TripletFileError: if a name cannot stand in a text file.
        OutputError: if a file cannot be written.
    """
    with open_output(truth_file) as file:
        file.write("label\n" + "".join(f"{label}\n" for label in truth))
        write_triplets(
            questions,
            names,
            np.where(truth[:, None] == 1, rows, rows[:, [0, 2, 1]]),
            is_answered=False,
        )

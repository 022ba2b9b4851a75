"""What can be said of an answer file without knowing the truth."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from tripletkit.data.cycles import find_distance_cycles
from tripletkit.data.triplets import Triplets
from tripletkit.evaluation.answers import Answers
from tripletkit.evaluation.belonging import check_same_length, check_same_questions
from tripletkit.evaluation.consistency import Consistency, check_consistency
from tripletkit.evaluation.intervals import Interval, wilson_interval


@dataclass(frozen=True)
class Agreement:
    """How far another answer file says the same.

    Attributes:
        source: the other file.
        share: rows with the same answer, 0 to 1.
    """

    source: str
    share: float


@dataclass(frozen=True)
class AnswerChecks:
    """What was found in an answer file.

    Attributes:
        n: rows.
        n_ones: answers that are 1.
        share_of_ones: 0 to 1; near 0.5 where the two images are asked in chance order.
        share_interval: its 95% Wilson interval.
        n_ties, n_undecidable: rows with margin 0, and with none; None without margins.
        n_margin_conflicts: rows whose prediction is not the sign of their margin; None as above.
        consistency: how questions that were asked more than once were answered.
        n_knots: groups of answers that go round in circles (AB < AC, AC < CD, CD < AB), so that
            no distances can satisfy them all.
        cycle_rows: indices of the rows within the knots.
        examples: for the first knots, indices of the rows of one shortest circle.
        agreements: with other answer files.
    """

    n: int
    n_ones: int
    share_of_ones: float
    share_interval: Interval
    n_ties: int | None
    n_undecidable: int | None
    n_margin_conflicts: int | None
    consistency: Consistency
    n_knots: int
    cycle_rows: np.ndarray
    examples: list[np.ndarray]
    agreements: list[Agreement]

    def to_json(self) -> dict[str, Any]:
        """Return the findings as JSON takes them.

        Of broken rows and rows within knots it gives how many there are; those of the examples
        are counted from 1.
        """
        return asdict(self) | {
            "share_interval": self.share_interval.to_json(),
            "consistency": asdict(self.consistency)
            | {"broken_rows": len(self.consistency.broken_rows)},
            "cycle_rows": len(self.cycle_rows),
            "examples": [(rows + 1).tolist() for rows in self.examples],
            "agreements": [asdict(agreement) for agreement in self.agreements],
        }


def check_answers(
    answers: Answers, triplets: Triplets, others: list[Answers], n_examples: int
) -> AnswerChecks:
    """Look for what is wrong with answers to triplets.

    Args:
        answers: in the order of `triplets`.
        triplets: the questions.
        others: other answers to the same triplets.
        n_examples: how many circles to give an example of.
    Raises:
        AnswerFileError: if some answers are not as many as the triplets, or hold other questions.
    """
    check_same_questions(answers, triplets)
    for other in others:
        check_same_length(other, len(triplets), triplets.source)
    implied, of_row = implied_triplets(answers, triplets)
    cycles = find_distance_cycles(implied, len(triplets.names), n_examples)
    has_margins = answers.margins is not None
    n_ones = int(answers.predictions.sum())
    return AnswerChecks(
        n=len(answers),
        n_ones=n_ones,
        share_of_ones=n_ones / len(answers),
        share_interval=wilson_interval(n_ones, len(answers)),
        n_ties=int(answers.is_tie.sum()) if has_margins else None,
        n_undecidable=int(answers.is_undecidable.sum()) if has_margins else None,
        n_margin_conflicts=_count_margin_conflicts(answers) if has_margins else None,
        consistency=check_consistency(answers, triplets.rows),
        n_knots=cycles.n_knots,
        cycle_rows=of_row[cycles.inside],
        examples=[of_row[example] for example in cycles.examples],
        agreements=[
            Agreement(other.source, float((other.predictions == answers.predictions).mean()))
            for other in others
        ],
    )


def implied_triplets(answers: Answers, triplets: Triplets) -> tuple[np.ndarray, np.ndarray]:
    """Turn answers into judgements: anchor, nearer image, other image.

    Ties, rows without a margin and rows that name one image twice say nothing and are left out.

    Returns:
        `(n, 3)` integers, and `(n,)` the row of each in the file.
    Example:
        >>> triplets = Triplets(["a", "b", "c"], np.array([[0, 1, 2]]), np.array([1]), "test.txt")
        >>> answers = Answers(np.array([0]), None, None, "answers.txt")
        >>> implied_triplets(answers, triplets)[0]  # c is nearer to a than b
        array([[0, 2, 1]])
    """
    decided = ~(answers.is_tie | answers.is_undecidable | triplets.is_degenerate())
    of_row = np.flatnonzero(decided)
    implied = triplets.rows[of_row].copy()
    is_swapped = answers.predictions[of_row] == 0
    implied[is_swapped, 1:] = implied[is_swapped, :0:-1]
    return implied, of_row


def _count_margin_conflicts(answers: Answers) -> int:
    is_known = ~answers.is_undecidable
    return int(((answers.margins > 0) != (answers.predictions == 1))[is_known].sum())

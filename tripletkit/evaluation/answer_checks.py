"""What can be said of an answer file without knowing the truth."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tripletkit.data.questions import PairGraph
from tripletkit.data.triplets import Triplets, Truth, describe_other_questions
from tripletkit.errors import AnswerFileError, DataWarning, caution
from tripletkit.evaluation.answers import Answers
from tripletkit.evaluation.intervals import Interval, wilson_interval
from tripletkit.evaluation.scoring import Consistency, check_consistency, check_same_length
from tripletkit.results import Result, Section, Table


def check_not_exchanged(answers: Answers, truth: Truth) -> None:
    """Refuse answers and truth that were given in each other's place, as far as headings tell.

    Where they leave doubt, a `DataWarning` says what is taken for what.
    """
    seems_true = answers.column in ("label", "truth")
    if seems_true and truth.column == "prediction":
        raise AnswerFileError(
            f"{answers.source}: expected answers, got the column {answers.column} of a truth "
            f"file, and {truth.source} has the column prediction of an answer file. Give the "
            "answers first, then the truth."
        )
    if truth.column == "prediction":
        caution(
            f"{truth.source}: has no column label or truth; its answers (prediction) are taken "
            "for the truth",
            DataWarning,
        )
    elif seems_true and not truth.column:
        caution(
            f"{answers.source}: has the column {answers.column} of a truth file, and is taken "
            f"for answers; {truth.source} is taken for the truth",
            DataWarning,
        )


def check_same_questions(answers: Answers, triplets: Triplets) -> None:
    """Refuse answers that belong to other questions, or to the same in another order.

    Answers that do not hold their questions are checked for their number only.
    """
    check_same_length(answers, len(triplets), triplets.source)
    asked = answers.triplets
    if asked is not None and (problems := describe_other_questions(asked, triplets)):
        raise AnswerFileError(problems)


@dataclass(frozen=True, repr=False)
class AnswerChecks(Result):
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
        agreements: the share of rows with the same answer, by the name of another answer file.
        triplets: that were answered.
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
    agreements: list[tuple[str, float]]
    triplets: Triplets | None

    def to_dict(self) -> dict[str, Any]:
        """Return the findings as JSON takes them.

        Of broken rows and rows within knots it gives how many there are; those of the examples
        are counted from 1.
        """
        consistency = self.consistency
        plain = Result.to_dict(replace(self, triplets=None))
        del plain["triplets"]
        return plain | {
            "consistency": vars(consistency) | {"broken_rows": len(consistency.broken_rows)},
            "cycle_rows": len(self.cycle_rows),
            "examples": [(rows + 1).tolist() for rows in self.examples],
            "agreements": [{"source": name, "share": share} for name, share in self.agreements],
        }

    def _summary(self) -> str:
        return (
            f"{self.n:,} rows, {self.share_of_ones:.1%} of them 1, {self.n_knots:,} groups that "
            "no distances can satisfy"
        )

    def _sections(self) -> list[Section]:
        assert self.triplets is not None
        consistency, source, at = self.consistency, self.triplets.source, self.triplets.lines
        rows = [
            ["rows", f"{self.n:,}", f"as many as {source} asks"],
            [
                "answers 1",
                f"{self.share_of_ones:.4f}",
                f"95% interval {self.share_interval}; about 0.5 where the two images stand in "
                "chance order",
            ],
            [
                "mirrored",
                f"{consistency.n_mirrored:,}",
                "questions also asked as (A, C, B); "
                f"{consistency.n_mirrored_broken:,} answered inconsistently",
            ],
            [
                "repeated",
                f"{consistency.n_repeated:,}",
                "rows asked several times; "
                f"{consistency.n_repeated_broken:,} answered inconsistently",
            ],
            [
                "circles",
                f"{self.n_knots:,}",
                f"groups of answers that no distances can satisfy, {len(self.cycle_rows):,} rows",
            ],
        ]
        if self.n_ties is not None:
            conflicts = f"{self.n_margin_conflicts:,}"
            rows += [
                ["ties", f"{self.n_ties:,}", "both images equally near"],
                ["undecidable", f"{self.n_undecidable:,}", "no margin"],
                ["conflicts", conflicts, "prediction is not the margin's sign"],
            ]
        rows += [["agreement", f"{share:.4f}", f"with {name}"] for name, share in self.agreements]
        circles = [
            f"  a circle: lines {', '.join(str(at[row]) for row in example)} of {source}"
            for example in self.examples
        ]
        return [[Table(rows, has_heading=False), *circles]]


def check_answers(
    answers: Answers, triplets: Triplets, others: list[Answers], n_examples: int
) -> AnswerChecks:
    """Look for what is wrong with answers to triplets, in their order, and compare with other
    answers."""
    check_same_questions(answers, triplets)
    for other in others:
        check_same_length(other, len(triplets), triplets.source)
    implied, of_row = _implied_triplets(answers, triplets)
    graph = PairGraph.of(implied, len(triplets.names))
    n_knots, inside, examples = graph.find_cycles(n_examples)
    has_margins = answers.margins is not None
    n_ones = int(answers.predictions.sum())
    return AnswerChecks(
        n=len(answers),
        n_ones=n_ones,
        share_of_ones=n_ones / len(answers),
        share_interval=wilson_interval(n_ones, len(answers)),
        n_ties=int(answers.is_tie.sum()) if has_margins else None,
        n_undecidable=int(answers.is_undecidable.sum()) if has_margins else None,
        n_margin_conflicts=_count_margin_conflicts(answers),
        consistency=check_consistency(answers, triplets.rows),
        n_knots=n_knots,
        cycle_rows=of_row[inside],
        examples=[of_row[example] for example in examples],
        agreements=[
            (other.source, float((other.predictions == answers.predictions).mean()))
            for other in others
        ],
        triplets=triplets,
    )


def _implied_triplets(answers: Answers, triplets: Triplets) -> tuple[np.ndarray, np.ndarray]:
    """Turn answers into judgements, anchor, nearer image, other image, with the row of each in the
    file.

    Ties, rows without a margin and rows that name one image twice say nothing and are left out.
    """
    decided = ~(answers.is_tie | answers.is_undecidable | triplets.is_degenerate())
    of_row = np.flatnonzero(decided)
    implied = triplets.rows[of_row].copy()
    is_swapped = answers.predictions[of_row] == 0
    implied[is_swapped, 1:] = implied[is_swapped, :0:-1]
    return implied, of_row


def _count_margin_conflicts(answers: Answers) -> int | None:
    if answers.margins is None:
        return None
    is_known = ~answers.is_undecidable
    return int(((answers.margins > 0) != (answers.predictions == 1))[is_known].sum())

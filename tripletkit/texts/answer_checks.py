"""Checks of an answer file as lines of text."""

from __future__ import annotations

from tripletkit.data.triplets import Triplets
from tripletkit.evaluation.answer_checks import AnswerChecks
from tripletkit.texts.scores import describe_interval
from tripletkit.texts.tables import align_columns


def describe_checks(found: AnswerChecks, triplets: Triplets) -> str:
    """Return the findings as lines of text."""
    consistency = found.consistency
    lines = [
        ["rows", f"{found.n:,}", f"as many as {triplets.source} asks"],
        [
            "answers 1",
            f"{found.share_of_ones:.4f}",
            f"95% interval {describe_interval(found.share_interval)}; about 0.5 where the two "
            "images stand in chance order",
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
            f"rows asked several times; {consistency.n_repeated_broken:,} answered inconsistently",
        ],
        [
            "circles",
            f"{found.n_knots:,}",
            f"groups of answers that no distances can satisfy, {len(found.cycle_rows):,} rows",
        ],
    ]
    if found.n_ties is not None:
        lines += [
            ["ties", f"{found.n_ties:,}", "both images equally near"],
            ["undecidable", f"{found.n_undecidable:,}", "no margin"],
            ["conflicts", f"{found.n_margin_conflicts:,}", "prediction is not the margin's sign"],
        ]
    lines += [
        ["agreement", f"{agreement.share:.4f}", f"with {agreement.source}"]
        for agreement in found.agreements
    ]
    text = align_columns(lines)
    for example in found.examples:
        places = ", ".join(f"{triplets.lines[row]}" for row in example)
        text += f"\n  a circle: lines {places} of {triplets.source}"
    return text

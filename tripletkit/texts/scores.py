"""Scores and their intervals as lines of text."""

from __future__ import annotations

from tripletkit.evaluation.baselines import Baseline
from tripletkit.evaluation.intervals import Interval, NoInterval
from tripletkit.evaluation.scoring import Score, Slice
from tripletkit.evaluation.vote_scoring import VoteScore
from tripletkit.texts.tables import align_columns, show_count

# What a tie earned; see `TiePolicy`.
_EARNED = {"answer": "counted as answer 0", "error": "counted as wrong", "half": "counted as half"}


def describe_score(score: Score, by_votes: VoteScore | None = None) -> str:
    """Return the score as lines of text."""
    lines = [
        [
            "accuracy",
            f"{score.accuracy:.4f}",
            f"{show_count(score.n_correct)} of {score.n:,} right",
        ],
        ["95% interval", describe_interval(score.wilson), "Wilson, rows taken as independent"],
    ]
    lines.append(_describe_image_interval(score))
    for label, n, n_correct in (
        ("1", score.n_ones, score.n_ones_correct),
        ("0", score.n_zeros, score.n_zeros_correct),
    ):
        share = f"{n_correct / n:.4f}" if n else "-"
        lines.append([f"truth {label}", share, _describe_right(n_correct, n)])
    lines.append(["answers 1", f"{score.share_of_ones:.4f}", "share of ones among the answers"])
    lines += _describe_counts(score)
    parts = [align_columns(lines)]
    if by_votes is not None:
        parts.append(f"agreement with the votes\n{align_columns(describe_votes(by_votes))}")
    for title, slices in (
        ("by size of the margin", score.by_margin),
        ("by rows with the same anchor", score.by_anchor_frequency),
    ):
        if len(slices) > 1:
            parts.append(f"accuracy {title}\n{_describe_slices(slices)}")
    return "\n\n".join(parts)


def describe_votes(score: VoteScore) -> list[list[str]]:
    """Return the rows of a table: agreement, its intervals, and what it could be."""
    tied = f"; {score.n_tied:,} tied" if score.n_tied else ""
    mean = "" if score.mean_votes is None else f", {score.mean_votes:.3g} votes each"
    rows = [
        ["agreement", f"{score.agreement:.4f}", "share of the voters who say what the answer says"],
        ["95% interval", describe_interval(score.wilson), "Wilson, rows taken as independent"],
    ]
    if score.image_interval is not None:
        rows.append(_image_interval_row(score.image_interval))
    rows.append(["ceiling", f"{score.ceiling:.4f}", "if every answer were that of the majority"])
    if (voters := score.voters) is not None:
        of = "" if voters.n == score.n else f" ({voters.n:,} questions with two votes or more)"
        rows += [
            ["a voter", f"{voters.one_another:.4f}", f"with another voter{of}"],
            ["a voter", f"{voters.with_majority:.4f}", f"with most of the other voters{of}"],
        ]
    rows.append(["questions", f"{score.n:,}", f"with votes{mean}{tied}"])
    return rows


def describe_interval(interval: Interval) -> str:
    """Return the two ends with the digits that an accuracy is given."""
    return f"{interval.low:.4f} to {interval.high:.4f}"


def _describe_right(n_correct: float, n: int) -> str:
    return f"{show_count(n_correct)} of {n:,} right"


def describe_image_interval(interval: Interval | NoInterval | None) -> str:
    """Return what a column of a table says of an interval that allows for shared images."""
    if isinstance(interval, Interval):
        return describe_interval(interval)
    return interval.reason if isinstance(interval, NoInterval) else "-"


def _describe_image_interval(score: Score) -> list[str]:
    if score.image_interval is None:
        reason = "allows for shared images: needs the `triplets`"
        return ["95% interval", "-", reason]
    return _image_interval_row(score.image_interval)


def _image_interval_row(interval: Interval | NoInterval) -> list[str]:
    if isinstance(interval, NoInterval):
        return ["95% interval", "-", f"allows for shared images: {interval.detail}"]
    return ["95% interval", describe_interval(interval), "allows for shared images"]


def _describe_counts(score: Score) -> list[list[str]]:
    if score.n_ties is None:
        lines = [["ties", "-", "not known: the answers have no margins"]]
    else:
        lines = [
            ["ties", f"{score.n_ties:,}", f"both images equally near; {_EARNED[score.ties]}"],
            [
                "undecidable",
                f"{score.n_undecidable:,}",
                f"no margin; {_EARNED['answer' if score.ties == 'answer' else 'error']}",
            ],
        ]
    if score.n_repeats:
        counted = "left out" if score.is_unique else "counted again (`unique` leaves them out)"
        lines.append(["repeats", f"{score.n_repeats:,}", f"equal an earlier row; {counted}"])
    if score.n_mirrored:
        broken = f"also asked as (A, C, B); {score.n_mirrored_broken:,} answered inconsistently"
        lines.append(["mirrored", f"{score.n_mirrored:,}", broken])
    return lines


def _describe_slices(slices: list[Slice]) -> str:
    rows = [
        [f"  {part.low:.4g}", "to", f"{part.high:.4g}", f"{part.accuracy:.4f}", f"{part.n:,} rows"]
        for part in slices
    ]
    return align_columns(rows, right=[0, 2, 4])


def describe_baselines(found: list[Baseline]) -> str:
    """Return the baselines as lines of text."""
    table = [["baseline", "accuracy", "95% interval", "rows", "undecided (half right)"]]
    table += [
        [
            baseline.name,
            f"{baseline.accuracy:.4f}",
            describe_interval(baseline.wilson),
            f"{baseline.n:,}",
            f"{baseline.n_undecided:,}",
        ]
        for baseline in found
    ]
    return align_columns(table, right=[3, 4])

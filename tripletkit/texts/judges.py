"""A report about judges as lines of text."""

from __future__ import annotations

from tripletkit.collecting.judges import JudgesReport, Share
from tripletkit.texts.tables import align_columns


def describe_judges(report: JudgesReport) -> str:
    """Return a table of the judges, how far they agree, and who looks careless."""
    rows = [
        ["judge", "answers", "seconds", "can't tell", "same again", "agrees", "left", "gold wrong"]
    ]
    rows += [
        [
            judge.name,
            f"{judge.n_screens:,}",
            "-" if judge.median_ms is None else f"{judge.median_ms / 1000:.1f}",
            *map(
                _percent,
                (judge.cant_tell, judge.consistency, judge.agreement, judge.left, judge.gold),
            ),
        ]
        for judge in report.judges
    ]
    parts = [align_columns(rows, right=range(1, 8))]
    if report.n_shared:
        lines = [f"{report.n_shared:,} questions were answered by several judges."]
        if report.alpha is not None:
            lines.append(
                f"Krippendorff's alpha {report.alpha:.3f} (1: perfect agreement, 0: as guessed)"
            )
        parts.append("\n".join(lines))
        pairs = [
            [f"{a} and {b}", _percent(share), f"of {share.of:,}"]
            for (a, b), share in report.pairs.items()
            if share.of
        ]
        parts.append("same answer\n" + align_columns(pairs, right=[1]))
    else:
        parts.append("No question was answered by two judges; an overlap of 2 asks each of two.")
    careless = [
        f"{judge.name} looks careless: {'; '.join(judge.reasons)}"
        for judge in report.judges
        if judge.reasons
    ]
    if careless:
        parts.append("\n".join(careless))
    return "\n\n".join(parts)


def _percent(share: Share) -> str:
    return "-" if share.value is None else f"{share.value:.0%}"

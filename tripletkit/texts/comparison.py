"""A comparison of answer files as lines of text."""

from __future__ import annotations

from tripletkit.evaluation.comparison import Comparison, PairComparison
from tripletkit.evaluation.intervals import NoInterval
from tripletkit.texts.scores import describe_image_interval, describe_interval
from tripletkit.texts.tables import align_columns


def describe_comparison(result: Comparison) -> str:
    """Return the comparison as lines of text."""
    table = [["accuracy", "95% interval (rows)", "95% interval (images)", "file"]]
    for ranked in result.ranking:
        images = describe_image_interval(ranked.image_interval)
        wilson = describe_interval(ranked.wilson)
        table.append([f"{ranked.accuracy:.4f}", wilson, images, ranked.name])
    parts = [f"{result.n:,} rows\n\n{align_columns(table)}"]
    parts += [_describe_pair(pair, len(result.pairs)) for pair in result.pairs]
    return "\n\n".join(parts)


def _describe_pair(pair: PairComparison, n_pairs: int) -> str:
    percent = 100 / max(1, _count_rows(pair))
    lines = [
        ["  difference", f"{pair.difference:+.4f}"],
        ["  95% interval", _describe_difference(pair)],
        ["  McNemar exact p", f"{pair.mcnemar_p:.3g} (takes rows as independent)"],
    ]
    if n_pairs > 1:
        lines.append(["  Holm p", f"{pair.holm_p:.3g} (corrected for {n_pairs} pairs)"])
    lines += [
        [f"  {what}", f"{n:,} rows ({n * percent:.1f}%)"]
        for what, n in (
            ("both right", pair.n_both_right),
            ("only the first right", pair.n_left_only),
            ("only the second right", pair.n_right_only),
            ("both wrong", pair.n_both_wrong),
        )
    ]
    smallest = "not known: the two are right on the same rows"
    if pair.smallest_difference is not None:
        smallest = f"{pair.smallest_difference:.4f} (found at 5% in 80% of such files)"
    lines.append(["  smallest difference shown", smallest])
    return f"{pair.left} against {pair.right}\n{align_columns(lines)}\n  {_verdict(pair)}"


def _describe_difference(pair: PairComparison) -> str:
    interval = pair.image_interval
    if interval is None:
        return "not known: needs the `triplets`"
    if isinstance(interval, NoInterval):
        return f"none: {interval.detail}"
    return f"{interval.low:+.4f} to {interval.high:+.4f} (paired, allows for shared images)"


def _verdict(pair: PairComparison) -> str:
    """Say it in a sentence: the test for many pairs must show it, and the interval if known."""
    interval = pair.image_interval
    if pair.holm_p < 0.05 and isinstance(interval, NoInterval):
        return f"On these rows {pair.left} is better; whether on others: {interval.detail}."
    is_shown = pair.holm_p < 0.05 and (interval is None or interval.low > 0)
    return f"{pair.left} is better." if is_shown else "No sign that either is truly better."


def _count_rows(pair: PairComparison) -> int:
    return pair.n_both_right + pair.n_left_only + pair.n_right_only + pair.n_both_wrong

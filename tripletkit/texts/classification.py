"""How well classes are told apart, as lines of text."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from tripletkit.texts.scores import describe_image_interval
from tripletkit.texts.tables import align_columns

if TYPE_CHECKING:
    from tripletkit.evaluation.classification import ClassificationScores

_TITLES = {
    "nearest_center": "nearest class center",
    "nearest_neighbors": "vote of {k} nearest",
    "precision_at_1": "precision at 1",
    "precision_at_10": "precision at 10",
    "mean_average_precision": "mean average precision",
}


def describe_measures(scores: ClassificationScores) -> Iterator[tuple[str, str, str]]:
    """Yield title, value and interval of each measure."""
    for name, measured in scores.measures().items():
        interval = describe_image_interval(measured.interval)
        yield _TITLES[name].format(k=scores.k), f"{measured.value:.4f}", interval


def describe_classification(
    scores: dict[str, ClassificationScores], distances: dict[str, str]
) -> str:
    """Return how classes are told apart in each space as lines of text."""
    first = next(iter(scores.values()))
    lines = [
        f"{first.n_queries:,} held-out images of {first.n_classes:,} classes, classified by "
        f"{first.n_reference:,} others. Always saying the commonest class: "
        f"{first.commonest_class:.4f} right."
    ]
    if first.n_unknown:
        lines.append(f"Held-out images of classes that no other has: {first.n_unknown:,}.")
    heading = [""]
    for name in scores:
        heading += [f"{name}, {distances[name]}", "95% interval"]
    rows = [heading]
    for parts in zip(*map(describe_measures, scores.values()), strict=True):
        title = parts[0][0]
        rows.append([title, *(text for part in parts for text in part[1:])])
    for title, attribute, form in (
        ("variance within classes", "within", ".4f"),
        ("variance between classes", "between", ".4f"),
        ("share within classes", "within_share", ".1%"),
    ):
        row = [title]
        for score in scores.values():
            row += [format(getattr(score.variances, attribute), form), ""]
        rows.append(row)
    right = range(1, len(heading), 2)
    return "\n".join([*lines, "", align_columns(rows, right=list(right))])

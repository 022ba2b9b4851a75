"""How scores of classes are told: by `classify`, and by `train` at its end."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from tripletkit.cli.score import describe_image_interval

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

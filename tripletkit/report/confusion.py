"""Which labels a model mixes up."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from tripletkit.report.views import ModelView
from tripletkit.search.label_votes import count_confusions, vote_labels


@dataclass(frozen=True)
class Confusion:
    """How often each label was taken for another.

    Attributes:
        labels: their names, sorted.
        counts: `(n_labels, n_labels)` int64, the true label in the row.
    """

    labels: list[str]
    counts: np.ndarray

    @property
    def accuracy(self) -> float:
        """Share of pictures whose neighbours say the true label."""
        return float(np.trace(self.counts) / self.counts.sum())

    def worst(self) -> tuple[str, str, int]:
        """Return the true label, the label said instead, and the count of the commonest mix-up."""
        wrong = self.counts - np.diag(np.diag(self.counts))
        row, column = np.unravel_index(wrong.argmax(), wrong.shape)
        return self.labels[row], self.labels[column], int(wrong[row, column])


def confuse_labels(view: ModelView) -> Confusion | None:
    """Let each labelled picture's neighbours say its label; None for fewer than two of them."""
    pictures = view.labelled
    if len(pictures) < 2:
        return None
    codes, names = pd.factorize(
        np.array([view.label_of(picture) for picture in pictures], dtype=object), sort=True
    )
    predicted = vote_labels(view.codes[pictures], codes, view.model.distance)
    return Confusion(list(names), count_confusions(codes, predicted))

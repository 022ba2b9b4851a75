"""Which labels a model mixes up."""

from __future__ import annotations

import numpy as np
import pandas as pd

from tripletkit import defaults
from tripletkit.evaluation.classification import Confusion, count_confusions, vote
from tripletkit.reporting.model_view import ModelView
from tripletkit.search.exact import NOBODY, find_neighbors


def _vote_labels(
    embeddings: np.ndarray, labels: np.ndarray, distance: str, k: int = defaults.NEIGHBORS
) -> np.ndarray:
    """Return the label that most of each image's k nearest others have; see `vote`.

    Example:
        >>> embeddings = np.array([[0.0], [0.1], [0.2], [5.0], [5.1]], dtype=np.float32)
        >>> vote_labels(embeddings, np.array([0, 0, 1, 1, 1]), "l2", k=2)
        array([0, 0, 0, 1, 1])
    """
    itself = list(np.arange(len(embeddings))[:, None])
    found = find_neighbors(embeddings, embeddings, min(k, len(embeddings) - 1), distance, itself)
    return vote(labels[found.rows], found.rows != NOBODY)


def confuse_labels(view: ModelView) -> Confusion | None:
    """Let each labelled image's neighbours say its label; None for fewer than two of them."""
    images = view.labelled
    if len(images) < 2:
        return None
    numbers, names = pd.factorize(
        np.array([view.label_of(image) for image in images], dtype=object), sort=True
    )
    predicted = _vote_labels(view.embeddings[images], numbers, view.model.distance)
    return Confusion(list(names), count_confusions(numbers, predicted, len(names)))

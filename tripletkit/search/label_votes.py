"""What label a picture would get from its neighbours, itself left out."""

from __future__ import annotations

import numpy as np

from tripletkit import defaults
from tripletkit.evaluation.classification import vote
from tripletkit.search.exact import NOBODY, find_neighbors


def vote_labels(
    codes: np.ndarray, labels: np.ndarray, distance: str, k: int = defaults.NEIGHBORS
) -> np.ndarray:
    """Return the label that most of each picture's k nearest others have; see `vote`.

    Args:
        codes: `(n_images, n_dims)` float32, finite; at least two pictures.
        labels: `(n_images,)` integers from 0.
        distance: a name that `pair_distances` takes.
        k: neighbours that vote; fewer where there are fewer.
    Returns:
        `(n_images,)` integers.
    Example:
        >>> codes = np.array([[0.0], [0.1], [0.2], [5.0], [5.1]], dtype=np.float32)
        >>> vote_labels(codes, np.array([0, 0, 1, 1, 1]), "l2", k=2)
        array([0, 0, 0, 1, 1])
    """
    itself = list(np.arange(len(codes))[:, None])
    found = find_neighbors(codes, codes, min(k, len(codes) - 1), distance, itself)
    return vote(labels[found.rows], found.rows != NOBODY)

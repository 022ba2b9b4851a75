"""What label an image would get from its neighbours, itself left out."""

from __future__ import annotations

import numpy as np

from tripletkit import defaults
from tripletkit.evaluation.classification import vote
from tripletkit.search.exact import NOBODY, find_neighbors


def vote_labels(
    embeddings: np.ndarray, labels: np.ndarray, distance: str, k: int = defaults.NEIGHBORS
) -> np.ndarray:
    """Return the label that most of each image's k nearest others have; see `vote`.

    Args:
        embeddings: `(n_images, n_dims)` float32, finite; at least two images.
        labels: `(n_images,)` integers from 0.
        distance: a name that `pair_distances` takes.
        k: neighbours that vote; fewer where there are fewer.
    Returns:
        `(n_images,)` integers.
    Example:
        >>> embeddings = np.array([[0.0], [0.1], [0.2], [5.0], [5.1]], dtype=np.float32)
        >>> vote_labels(embeddings, np.array([0, 0, 1, 1, 1]), "l2", k=2)
        array([0, 0, 0, 1, 1])
    """
    itself = list(np.arange(len(embeddings))[:, None])
    found = find_neighbors(embeddings, embeddings, min(k, len(embeddings) - 1), distance, itself)
    return vote(labels[found.rows], found.rows != NOBODY)

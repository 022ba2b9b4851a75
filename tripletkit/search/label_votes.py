"""What label a picture would get from its neighbours, itself left out."""

from __future__ import annotations

import numpy as np

from tripletkit import defaults
from tripletkit.search.exact import NOBODY, find_neighbors


def vote_labels(
    codes: np.ndarray, labels: np.ndarray, distance: str, k: int = defaults.NEIGHBORS
) -> np.ndarray:
    """Return the label that most of each picture's k nearest others have.

    Of labels with equally many votes the one whose nearest picture is nearer wins.

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
    is_there = found.rows != NOBODY
    picture, rank = np.nonzero(is_there)
    voted = labels[found.rows[is_there]]
    n_labels = int(labels.max()) + 1
    votes = np.zeros((len(codes), n_labels))
    np.add.at(votes, (picture, voted), 1)
    first = np.full((len(codes), n_labels), len(codes))
    np.minimum.at(first, (picture, voted), rank)
    # A share of a vote that falls with the rank decides between equals and nothing else.
    return np.argmax(votes - first / (len(codes) + 1), axis=1)


def count_confusions(labels: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Return `(n_labels, n_labels)` int64: how often a label (row) was taken for another."""
    n_labels = int(max(labels.max(), predicted.max())) + 1
    counts = np.zeros((n_labels, n_labels), dtype=np.int64)
    np.add.at(counts, (labels, predicted), 1)
    return counts

"""Distances and margins by their formulas, in plain NumPy: what the fast ones must agree with."""

from __future__ import annotations

import numpy as np

DISTANCE_NAMES = ("l2", "l1", "squared-l2", "cosine")
NO_LABEL = -1  # of an image without a class


def pair_distances(left: np.ndarray, right: np.ndarray, distance: str) -> np.ndarray:
    """Return the distance of each row of `left` to that of `right`, `(n_pairs,)` float64."""
    left, right = np.asarray(left, np.float64), np.asarray(right, np.float64)
    if distance == "cosine":
        return 1 - (unit_vectors(left) * unit_vectors(right)).sum(axis=1)
    if distance == "l1":
        return np.abs(left - right).sum(axis=1)
    square = ((left - right) ** 2).sum(axis=1)
    return square if distance == "squared-l2" else np.sqrt(square)


def triplet_margins(embeddings: np.ndarray, rows: np.ndarray, distance: str) -> np.ndarray:
    """Return d(anchor, second) - d(anchor, first) of each row, `(n_triplets,)` float64."""
    anchor, first, second = (embeddings[column] for column in np.asarray(rows).T)
    return pair_distances(anchor, second, distance) - pair_distances(anchor, first, distance)


def unit_vectors(vectors: np.ndarray) -> np.ndarray:
    """Return rows of length 1; rows of zeros stay."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.where(lengths > 0, lengths, 1.0)

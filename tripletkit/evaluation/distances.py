"""Distances of triplets for answers: numpy, and the same bits whatever rows stand beside."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

# Rows at a time: the gathered columns of a block stay in the processor's cache.
_BLOCK_ROWS = 1 << 16
# Numbers of candidates at a time, for the same reason.
_BLOCK_NUMBERS = 1 << 18

Term = Callable[[np.ndarray, np.ndarray], np.ndarray]


def _squared_difference(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    difference = a - b
    return difference * difference


def _absolute_difference(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.abs(a - b)


# Name -> what one dimension adds, and what is made of the sum.
_TERMS: dict[str, tuple[Term, Callable[[np.ndarray], np.ndarray]]] = {
    "l2": (_squared_difference, np.sqrt),
    "l1": (_absolute_difference, lambda total: total),
    "squared-l2": (_squared_difference, lambda total: total),
    "cosine": (np.multiply, lambda total: 1.0 - total),
}
DISTANCE_NAMES = tuple(_TERMS)

# How the frozen features of a backbone are compared; L2 does worse on every set tried.
FROZEN_DISTANCE = "cosine"


def triplet_margins(embeddings: np.ndarray, rows: np.ndarray, distance: str) -> np.ndarray:
    """Return d(anchor, second) - d(anchor, first): positive where the first is nearer.

    Summed dimension by dimension in float64, so that a row's margin depends on its three
    embeddings alone, and swapping first and second flips the sign and nothing else.

    Args:
        embeddings: `(n_images, n_dims)` float32; NaN where an image has none.
        rows: `(n_triplets, 3)` indices into `embeddings`.
        distance: one of `DISTANCE_NAMES`.
    Returns:
        `(n_triplets,)` float32, in units of the distance; NaN where an embedding is.
    Example:
        >>> embeddings = np.array([[0.0, 0.0], [3.0, 4.0], [0.0, 1.0]])
        >>> triplet_margins(embeddings, np.array([[0, 1, 2]]), "l2")   # 1 - 5
        array([-4.], dtype=float32)
    """
    margins = np.empty(len(rows), dtype=np.float32)
    for block, to_first, to_second in _measure_triplets(embeddings, rows, distance):
        margins[block] = to_second - to_first
    return margins


def triplet_distances(embeddings: np.ndarray, rows: np.ndarray, distance: str) -> np.ndarray:
    """Return the distances that `triplet_margins` takes the difference of.

    Args:
        embeddings, rows, distance: as `triplet_margins` takes them.
    Returns:
        `(n_triplets, 2)` float64: from the anchor to the first and to the second.
    """
    distances = np.empty((len(rows), 2))
    for block, *columns in _measure_triplets(embeddings, rows, distance):
        distances[block] = np.column_stack(columns)
    return distances


def pair_distances(left: np.ndarray, right: np.ndarray, distance: str) -> np.ndarray:
    """Return distances as `triplet_distances` measures them.

    Args:
        left, right: `(n_pairs, n_dims)`, one pair a row.
        distance: one of `DISTANCE_NAMES`.
    Returns:
        `(n_pairs,)` float64; NaN where a number is.
    Example:
        >>> pair_distances(np.array([[0.0, 0.0]]), np.array([[3.0, 4.0]]), "l2")
        array([5.])
    """
    term, finish = _TERMS[distance]
    total = np.zeros(len(left))
    for of_left, of_right in zip(_columns(left, distance), _columns(right, distance), strict=True):
        total += term(of_left, of_right)
    return finish(total)


def candidate_measure(
    embeddings: np.ndarray, distance: str
) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    """Return a function from `(m,)` rows and `(m, k)` candidate rows to `(m, k)` distances.

    In float32, many times as fast as `pair_distances`: to choose by, not to answer by.

    Args:
        embeddings: `(n_images, n_dims)` float32.
        distance: one of `DISTANCE_NAMES`.
    Example:
        >>> measure = candidate_measure(np.array([[0.0], [3.0], [1.0]], dtype=np.float32), "l2")
        >>> measure(np.array([0]), np.array([[1, 2]]))
        array([[3., 1.]], dtype=float32)
    """
    term, finish = _TERMS[distance]
    if distance == "cosine":
        embeddings = _unit_length(embeddings)

    def measure(rows: np.ndarray, candidates: np.ndarray) -> np.ndarray:
        distances = np.empty(candidates.shape, dtype=np.float32)
        n_block = max(1, _BLOCK_NUMBERS // (candidates.shape[1] * embeddings.shape[1]))
        for start in range(0, len(rows), n_block):
            block = slice(start, start + n_block)
            terms = term(embeddings[rows[block]][:, None], embeddings[candidates[block]])
            distances[block] = finish(terms.sum(axis=2))
        return distances

    return measure


def _measure_triplets(
    embeddings: np.ndarray, rows: np.ndarray, distance: str
) -> Iterator[tuple[slice, np.ndarray, np.ndarray]]:
    """Yield a block of triplets with its distances to the first and to the second image."""
    columns = _columns(embeddings, distance)
    term, finish = _TERMS[distance]
    for block in _blocks(len(rows)):
        anchor, first, second = np.ascontiguousarray(rows[block].T)
        to_first = np.zeros(len(anchor))
        to_second = np.zeros(len(anchor))
        for column in columns:
            of_anchor = column[anchor]
            to_first += term(of_anchor, column[first])
            to_second += term(of_anchor, column[second])
        yield block, finish(to_first), finish(to_second)


def _columns(embeddings: np.ndarray, distance: str) -> np.ndarray:
    """Return embeddings as `(n_dims, n)` float64, for the cosine at length 1."""
    columns = np.array(embeddings, dtype=np.float64)
    if distance == "cosine":
        columns = _unit_length(columns)
    return np.ascontiguousarray(columns.T)


def _unit_length(vectors: np.ndarray) -> np.ndarray:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.where(lengths > 0, lengths, 1.0)


def _blocks(n_rows: int) -> Iterator[slice]:
    return (slice(start, start + _BLOCK_ROWS) for start in range(0, n_rows, _BLOCK_ROWS))

"""Distances of triplets for answers: numpy, and the same bits whatever rows stand beside."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from threadpoolctl import threadpool_limits

from tripletkit.features.unit_length import scale_to_unit_length

# Rows at a time: the gathered columns of a block stay in the processor's cache.
_BLOCK_ROWS = 1 << 16
# Bytes of the columns that are turned to float64 at a time.
_BLOCK_BYTES = 1 << 25

_Term = Callable[[np.ndarray, np.ndarray], np.ndarray]


def _squared_difference(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    difference = a - b
    return difference * difference


def _absolute_difference(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.abs(a - b)


# Name -> what one dimension adds, and what is made of the sum.
_TERMS: dict[str, tuple[_Term, Callable[[np.ndarray], np.ndarray]]] = {
    "l2": (_squared_difference, np.sqrt),
    "l1": (_absolute_difference, lambda total: total),
    "squared-l2": (_squared_difference, lambda total: total),
    # Rounding leaves a vector less than nothing from itself.
    "cosine": (np.multiply, lambda total: np.maximum(1.0 - total, 0.0)),
}
DISTANCE_NAMES = tuple(_TERMS)


def triplet_margins(embeddings: np.ndarray, rows: np.ndarray, distance: str) -> np.ndarray:
    """Return d(anchor, second) - d(anchor, first): positive where the first is nearer.

    A row's margin depends on its three embeddings alone, and swapping first and second flips the
    sign and nothing else.

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
    to_first, to_second = triplet_distances(embeddings, rows, distance).T
    return (to_second - to_first).astype(np.float32)


def triplet_distances(embeddings: np.ndarray, rows: np.ndarray, distance: str) -> np.ndarray:
    """Return `(n_triplets, 2)` float64 distances of the anchor to the first and to the second."""
    anchors, others = np.tile(rows[:, 0], 2), rows[:, 1:].T.ravel()
    return distances_between(embeddings, anchors, embeddings, others, distance).reshape(2, -1).T


def distances_between(
    left: np.ndarray,
    left_rows: np.ndarray,
    right: np.ndarray,
    right_rows: np.ndarray,
    distance: str,
) -> np.ndarray:
    """Return the distances of pairs of rows.

    They are summed dimension by dimension in float64, so that a distance depends on its two rows
    alone. The embeddings of the pairs are never gathered: beside the arguments, memory is a few
    numbers a pair and some tens of megabytes, whatever the number of dimensions.

    Args:
        left, right: `(n_left, n_dims)` and `(n_right, n_dims)`.
        left_rows, right_rows: `(n_pairs,)` indices into them.
        distance: one of `DISTANCE_NAMES`.
    Returns:
        `(n_pairs,)` float64; NaN where a number is.
    Example:
        >>> embeddings = np.array([[0.0, 0.0], [3.0, 4.0]])
        >>> distances_between(embeddings, np.array([1, 1]), embeddings, np.array([0, 1]), "l2")
        array([5., 0.])
    """
    sides = [_named_rows(left, left_rows), _named_rows(right, right_rows)]
    term, finish = _TERMS[distance]
    total = np.zeros(len(left_rows))
    for of_left, of_right in _columns([(left, sides[0][0]), (right, sides[1][0])], distance):
        for start in range(0, len(total), _BLOCK_ROWS):
            block = slice(start, start + _BLOCK_ROWS)
            places = (sides[0][1][block], sides[1][1][block])
            for left_column, right_column in zip(of_left, of_right, strict=True):
                total[block] += term(left_column[places[0]], right_column[places[1]])
    return finish(total)


def _named_rows(embeddings: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray | None, np.ndarray]:
    """Return the rows that are used, None for all, and the place of each among them.

    A few pairs of a large collection should not turn all of it.
    """
    if rows.size >= len(embeddings):
        return None, rows
    used, places = np.unique(rows, return_inverse=True)
    return used, places.reshape(rows.shape)


def _columns(
    sides: Sequence[tuple[np.ndarray, np.ndarray | None]], distance: str
) -> Iterator[list[np.ndarray]]:
    """Yield some dimensions of embeddings, in order: for each side `(n_some_dims, n_used)` float64.

    A side is embeddings and the rows that are used, None for all. For the cosine they get length 1.
    """
    lengths = [_lengths(*side) if distance == "cosine" else None for side in sides]
    n_dims = sides[0][0].shape[1]
    n_used = sum(len(embeddings if used is None else used) for embeddings, used in sides)
    step = max(1, _BLOCK_BYTES // (8 * max(n_used, 1)))
    for start in range(0, n_dims, step):
        of_sides = []
        for (embeddings, used), length in zip(sides, lengths, strict=True):
            some = embeddings[:, start : start + step]
            columns = np.array((some if used is None else some[used]).T, np.float64, order="C")
            if length is not None:
                columns /= length
            of_sides.append(columns)
        yield of_sides


def _lengths(embeddings: np.ndarray, used: np.ndarray | None) -> np.ndarray:
    """Return `(n_used,)` float64 lengths, 1 for a vector of zeros."""
    n_used = len(embeddings if used is None else used)
    lengths = np.empty(n_used)
    step = max(1, _BLOCK_BYTES // (8 * max(embeddings.shape[1], 1)))
    for start in range(0, n_used, step):
        part = slice(start, start + step)
        vectors = embeddings[part if used is None else used[part]].astype(np.float64)
        lengths[part] = np.linalg.norm(vectors, axis=1)
    return np.where(lengths > 0, lengths, 1.0)


# Distances in a block, 32 MB of them; a matrix product gains nothing from more.
_BLOCK_PAIRS = 1 << 23
_MOST_BLOCK_ROWS = 1024
# Columns of an L1 block, which SciPy copies to float64.
_L1_COLUMNS = 4096
# BLAS's threads wait for each other longer than products of fewer dimensions take.
_MIN_THREADED_DIMS = 64


class PairwiseDistances:
    """All distances between embeddings, of which only a block is ever in memory.

    Attributes:
        limit: what no distance exceeds.
    """

    def __init__(self, embeddings: np.ndarray, distance: str) -> None:
        """Prepare embeddings, `(n_images, n_dims)` float32, finite."""
        self.distance = distance
        if distance == "cosine":
            self._embeddings = scale_to_unit_length(embeddings)
        else:
            # Embeddings that are far from 0 would lose their small distances to rounding.
            middle = embeddings.mean(axis=0, dtype=np.float64) if len(embeddings) else 0.0
            self._embeddings = embeddings - np.asarray(middle, dtype=np.float32)
        self._squares = np.einsum("ij,ij->i", self._embeddings, self._embeddings)
        longest = float(self._squares.max(initial=0.0))
        self.limit = {
            "cosine": 2.0,
            "l2": 2 * longest**0.5,
            "squared-l2": 4 * longest,
            "l1": 2 * float(np.abs(self._embeddings).sum(axis=1).max(initial=0.0)),
        }[distance]

    def __len__(self) -> int:
        return len(self._embeddings)

    def blocks(self) -> Iterator[slice]:
        """Cut all rows into blocks whose distances to all embeddings take some 32 MB."""
        n_rows = min(max(_BLOCK_PAIRS // max(len(self), 1), 1), _MOST_BLOCK_ROWS)
        for start in range(0, len(self), n_rows):
            yield slice(start, min(start + n_rows, len(self)))

    def measure(self, rows: slice, columns: slice = slice(None)) -> np.ndarray:
        """Return `(n_rows, n_columns)` float32 distances."""
        left, right = self._embeddings[rows], self._embeddings[columns]
        found = np.empty((len(left), len(right)), dtype=np.float32)
        if self.distance == "l1":
            from scipy.spatial.distance import cdist

            for start in range(0, len(right), _L1_COLUMNS):
                part = slice(start, start + _L1_COLUMNS)
                found[:, part] = cdist(left, right[part], "cityblock")
            return found
        n_threads = 1 if left.shape[1] < _MIN_THREADED_DIMS else None
        with threadpool_limits(n_threads, "blas"):
            np.matmul(left, right.T, out=found)
        if self.distance == "cosine":
            np.subtract(1, found, out=found)
        else:
            found *= -2
            found += self._squares[rows, None]
            found += self._squares[columns]
        np.maximum(found, 0, out=found)
        return np.sqrt(found, out=found) if self.distance == "l2" else found

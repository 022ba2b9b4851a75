"""Distances of triplets for answers: numpy, and the same bits whatever rows stand beside."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np

# Rows at a time: the gathered columns of a block stay in the processor's cache.
_BLOCK_ROWS = 1 << 16
# Bytes of the columns that are turned to float64 at a time.
_BLOCK_BYTES = 1 << 25

_Term = Callable[[np.ndarray, np.ndarray], np.ndarray]


# Name -> what one dimension adds, and what is made of the sum.
_TERMS: dict[str, tuple[_Term, Callable[[np.ndarray], np.ndarray]]] = {
    "l2": (lambda a, b: np.square(a - b), np.sqrt),
    "l1": (lambda a, b: np.abs(a - b), lambda total: total),
    "squared-l2": (lambda a, b: np.square(a - b), lambda total: total),
    # Rounding leaves a vector less than nothing from itself.
    "cosine": (np.multiply, lambda total: np.maximum(1.0 - total, 0.0)),
}
DISTANCE_NAMES = tuple(_TERMS)


def triplet_margins(embeddings: np.ndarray, rows: np.ndarray, distance: str) -> np.ndarray:
    """Return d(anchor, second) - d(anchor, first): positive where the first is nearer. A row's
    margin depends on its three embeddings alone, and swapping first and second flips the sign and
    nothing else. Margins, `(n_triplets,)` float32, are NaN where an embedding is."""
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
    """Return `(n_pairs,)` float64 distances of pairs of rows; NaN where a number is.

    They are summed dimension by dimension in float64, so that a distance depends on its two rows
    alone. The embeddings of the pairs are never gathered: beside the arguments, memory is a few
    numbers a pair and some tens of megabytes, whatever the number of dimensions.
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
    """Return the rows that are used, None for all, and the place of each among them. A few pairs of
    a large collection should not turn all of it."""
    if rows.size >= len(embeddings):
        return None, rows
    used, places = np.unique(rows, return_inverse=True)
    return used, places.reshape(rows.shape)


def _columns(
    sides: Sequence[tuple[np.ndarray, np.ndarray | None]], distance: str
) -> Iterator[list[np.ndarray]]:
    """Yield some dimensions of embeddings, in order: for each side `(n_some_dims, n_used)` float64.
    A side is embeddings and the rows that are used, None for all; of length 1 for the cosine."""
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

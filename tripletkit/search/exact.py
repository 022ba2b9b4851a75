"""Exact nearest neighbours, found in blocks and measured in float64.

One pass of float32 arithmetic finds who may be near, with room for its rounding errors; only
those few are then measured as answers measure. So the result is that of comparing every pair,
ties included, at the speed of a matrix product.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from threadpoolctl import threadpool_limits

from tripletkit.evaluation.distances import distances_between
from tripletkit.features.unit_length import scale_to_unit_length

# Queries and candidates at a time: 16 MB of numbers.
_BLOCK_QUERIES, _BLOCK_EMBEDDINGS = 128, 1 << 15
# Each block is first looked at through the smallest of so many distances; its size is a multiple.
_GROUP = 64
NOBODY = -1


@dataclass(frozen=True)
class Neighbors:
    """The nearest embeddings of each query, nearest first."""

    rows: np.ndarray  # (n_queries, k) int64 rows of the collection; `NOBODY` where it has no more
    distances: np.ndarray  # (n_queries, k) float64, NaN there

    def of(self, query: int) -> Iterator[tuple[int, float]]:
        """Yield row and distance of each neighbour of a query."""
        for row, distance in zip(self.rows[query], self.distances[query], strict=True):
            if row != NOBODY:
                yield int(row), float(distance)


def find_neighbors(
    embeddings: np.ndarray,
    queries: np.ndarray,
    k: int,
    distance: str,
    excluded: Sequence[np.ndarray] | None = None,
) -> Neighbors:
    """Return the k nearest embeddings of each query; of equally near ones the lower row first.

    Memory beside the embeddings is some ten megabytes, whatever their number, unless very many are
    equally near. A row of NaN is nobody's neighbour, `excluded` has rows for each query that are
    not its neighbours, such as itself; where the collection is smaller, fewer than k are found.

    Example:
        >>> embeddings = np.array([[0.0], [3.0], [1.0], [1.0]], dtype=np.float32)
        >>> find_neighbors(embeddings, embeddings[:1], 2, "l2", [np.array([0])]).rows
        array([[2, 3]])
    """
    excluded = excluded or [np.empty(0, dtype=np.int64)] * len(queries)
    usable = np.flatnonzero(np.isfinite(embeddings).all(axis=1))
    bounds = _Bounds(embeddings[usable], distance)
    k_with_excluded = min(k + max(map(len, excluded), default=0), len(usable))
    # BLAS's threads wait for each other longer than products of so few dimensions take: one is
    # twice as fast on an idle machine, and more on a busy one.
    with threadpool_limits(1, "blas"):
        found = [
            _measure(embeddings, queries[block], usable, candidates, k, distance, excluded[block])
            for block, candidates in bounds.candidates(queries, k_with_excluded)
        ]
    if not found:
        return Neighbors(np.empty((0, k), dtype=np.int64), np.empty((0, k)))
    rows, distances = (np.concatenate(parts) for parts in zip(*found, strict=True))
    return Neighbors(rows, distances)


def find_neighbors_in_parts(
    parts: Iterator[tuple[int, np.ndarray]],
    queries: np.ndarray,
    k: int,
    distance: str,
    excluded: Sequence[np.ndarray],
) -> Neighbors:
    """Return what `find_neighbors` returns over all parts of a collection."""
    best: Neighbors | None = None
    for start, vectors in parts:
        inside = [
            rows[(rows >= start) & (rows < start + len(vectors))] - start for rows in excluded
        ]
        found = find_neighbors(vectors, queries, k, distance, inside)
        rows = np.where(found.rows >= 0, found.rows + start, found.rows)
        if best is not None:
            rows = np.hstack([best.rows, rows])
            found = Neighbors(rows, np.hstack([best.distances, found.distances]))
        query_of, place = np.nonzero(rows >= 0)
        best = rank_candidates(
            query_of, rows[query_of, place], found.distances[query_of, place], len(queries), k, []
        )
    return best or find_neighbors(np.empty((0, queries.shape[1])), queries, k, distance, excluded)


def rank_candidates(
    query_of: np.ndarray,
    rows: np.ndarray,
    distances: np.ndarray,
    n_queries: int,
    k: int,
    excluded: Sequence[np.ndarray],
) -> Neighbors:
    """Keep the k nearest candidates of each query, by distance and then by row."""
    is_open = np.ones(len(rows), dtype=bool)
    for query, without in enumerate(excluded):
        if len(without):
            is_open &= (query_of != query) | ~np.isin(rows, without)
    query_of, rows, distances = query_of[is_open], rows[is_open], distances[is_open]
    order = np.lexsort((rows, distances, query_of))
    query_of, rows, distances = query_of[order], rows[order], distances[order]
    rank = np.arange(len(rows)) - np.searchsorted(query_of, query_of)
    first = rank < k
    kept = Neighbors(np.full((n_queries, k), NOBODY), np.full((n_queries, k), np.nan))
    kept.rows[query_of[first], rank[first]] = rows[first]
    kept.distances[query_of[first], rank[first]] = distances[first]
    return kept


def _measure(
    embeddings: np.ndarray,
    queries: np.ndarray,
    usable: np.ndarray,
    candidates: tuple[np.ndarray, np.ndarray],
    k: int,
    distance: str,
    excluded: Sequence[np.ndarray],
) -> tuple[np.ndarray, np.ndarray]:
    query_of, rows = candidates[0], usable[candidates[1]]
    measured = distances_between(queries, query_of, embeddings, rows, distance)
    kept = rank_candidates(query_of, rows, measured, len(queries), k, excluded)
    return kept.rows, kept.distances


class _Bounds:
    """Who can be among the k nearest, by float32 numbers that sort as the distances do."""

    def __init__(self, embeddings: np.ndarray, distance: str) -> None:
        self.distance = distance
        self.embeddings = scale_to_unit_length(embeddings) if distance == "cosine" else embeddings
        self.lengths = np.einsum("ij,ij->i", self.embeddings, self.embeddings)

    def candidates(
        self, queries: np.ndarray, k: int
    ) -> Iterator[tuple[slice, tuple[np.ndarray, np.ndarray]]]:
        """Yield a block of queries, and query and row of everybody who may be near one."""
        if self.distance == "cosine":
            queries = scale_to_unit_length(queries)
        for start in range(0, len(queries), _BLOCK_QUERIES):
            block = slice(start, min(start + _BLOCK_QUERIES, len(queries)))
            yield block, self._candidates_of(queries[block], k)

    def _candidates_of(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        limit = np.full(len(queries), np.inf, dtype=np.float32)
        slack = self._slack(queries)
        pieces = [(np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64))]
        for start in range(0, len(self.embeddings), _BLOCK_EMBEDDINGS):
            near = self._compare(queries, slice(start, start + _BLOCK_EMBEDDINGS))
            smallest = near.min(axis=1)
            # k groups reach down to the k-th smallest of them, so k embeddings are at most that
            # far.
            if 0 < k <= smallest.shape[1]:
                np.minimum(limit, np.partition(smallest, k - 1, axis=1)[:, k - 1], out=limit)
            reach = limit + slack
            query_of, group = np.nonzero(smallest <= reach[:, None])
            which, place = np.nonzero(near[query_of, :, group] <= reach[query_of, None])
            pieces.append((query_of[which], start + group[which] + place * near.shape[2]))
        query_of, rows = (np.concatenate(part) for part in zip(*pieces, strict=True))
        is_real = rows < len(self.embeddings)
        return query_of[is_real], rows[is_real]

    def _compare(self, queries: np.ndarray, block: slice) -> np.ndarray:
        """Return `(n_queries, _GROUP, n_groups)` float32, infinite past the last embedding."""
        embeddings = self.embeddings[block]
        n_groups = -(-len(embeddings) // _GROUP)
        near = np.full((len(queries), n_groups * _GROUP), np.inf, dtype=np.float32)
        inside = near[:, : len(embeddings)]
        if self.distance == "l1":
            from scipy.spatial.distance import cdist

            inside[:] = cdist(queries, embeddings, "cityblock")
        else:
            np.matmul(queries, embeddings.T, out=inside)
            inside *= -2.0
            if self.distance != "cosine":
                inside += self.lengths[block]
        return near.reshape(len(queries), _GROUP, n_groups)

    def _slack(self, queries: np.ndarray) -> np.ndarray:
        """Return how far two of the numbers can be out of order by rounding, doubled."""
        n_dims = queries.shape[1]
        largest = np.sqrt(self.lengths.max(initial=0.0))
        own = np.sqrt(np.einsum("ij,ij->i", queries, queries))
        scale = n_dims**0.5 * (own + largest) if self.distance == "l1" else (own + largest) ** 2
        return (4 * (n_dims + 4) * np.finfo(np.float32).eps * scale).astype(np.float32)

"""Distances of all images to all others, block by block, in float32.

For looking at millions of pairs: rounding is about 1e-6 of the largest distance, and for L2
near 0 the root of that. `tripletkit.evaluation.distances` measures a few pairs exactly.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from threadpoolctl import threadpool_limits

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
        """Prepare embeddings.

        Args:
            embeddings: `(n_images, n_dims)` float32, finite.
            distance: `"l2"`, `"squared-l2"`, `"l1"` or `"cosine"`.
        """
        self.distance = distance
        if distance == "cosine":
            lengths = np.linalg.norm(embeddings, axis=1, keepdims=True)
            self._embeddings = embeddings / np.where(lengths > 0, lengths, 1)
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
        if self.distance == "l1":
            from scipy.spatial.distance import cdist

            found = np.empty((len(left), len(right)), dtype=np.float32)
            for start in range(0, len(right), _L1_COLUMNS):
                part = slice(start, start + _L1_COLUMNS)
                found[:, part] = cdist(left, right[part], "cityblock")
            return found
        n_threads = 1 if left.shape[1] < _MIN_THREADED_DIMS else None
        with threadpool_limits(n_threads, "blas"):
            found = left @ right.T
        if self.distance == "cosine":
            np.subtract(1, found, out=found)
        else:
            found *= -2
            found += self._squares[rows, None]
            found += self._squares[columns]
        np.maximum(found, 0, out=found)
        return np.sqrt(found, out=found) if self.distance == "l2" else found

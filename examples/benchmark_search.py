"""Measure exact and approximate search (`tripletkit neighbors`).

    python examples/benchmark_search.py

Exact: 1,000 queries over 100,000 embeddings of 10 dimensions. Approximate: recall at 10 against
exact search over a million embeddings, of the index that tripletkit makes and of a graph (HNSW).
Embeddings are directions drawn evenly on the sphere, the hardest case for an index, since there
are no clusters that it could follow.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import faiss
import numpy as np

from tripletkit.evaluation.distances import DISTANCE_NAMES
from tripletkit.search.image_search import _ApproximateIndex, find_neighbors

N_DIMS, N_QUERIES, K = 10, 1_000, 10
# Of the graph: faiss's usual numbers.
N_LINKS, N_LOOKED_AT = 32, 40
T = TypeVar("T")


def main() -> None:
    """Print both measurements."""
    rng = np.random.default_rng(0)
    embeddings, queries = make_embeddings(rng, 1_000_000), make_embeddings(rng, N_QUERIES)
    print(f"Exact: {N_QUERIES:,} queries, 100,000 embeddings of {N_DIMS} dimensions, k = {K}")
    for distance in DISTANCE_NAMES:
        times = [
            timed(lambda: find_neighbors(embeddings[:100_000], queries, K, distance))[1]  # noqa: B023
            for _ in range(5)
        ]
        print(f"  {distance:<7} {np.median(times):.2f} s (median of 5)")

    print(
        f"Approximate: {N_QUERIES:,} queries, {len(embeddings):,} embeddings of {N_DIMS} dimensions"
    )
    exact, exact_s = timed(lambda: find_neighbors(embeddings, queries, K, "l2"))
    print(f"  exact search  {exact_s:.2f} s")
    made_of = {"distance": "l2", "n_images": len(embeddings)}
    index, build_s = timed(lambda: _ApproximateIndex([(0, embeddings)], embeddings, made_of))
    print(f"  build         {build_s:.2f} s")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "index.npz"
        _, save_s = timed(lambda: index.save(path))
        index, load_s = timed(lambda: _ApproximateIndex.load(path, made_of))
        print(f"  save, load    {save_s:.2f} s, {load_s:.2f} s, {path.stat().st_size / 1e6:.0f} MB")
    found, search_s = timed(lambda: index.search(queries, K))
    print(f"  search        {search_s:.2f} s")
    print(f"  recall at {K}  {measure_recall(exact.rows, found.rows):.4f}")
    compare_graph(embeddings, queries, exact.rows)


def compare_graph(embeddings: np.ndarray, queries: np.ndarray, exact: np.ndarray) -> None:
    """Print the same of a graph index (HNSW), which tripletkit does not use."""
    graph = faiss.IndexHNSWFlat(N_DIMS, N_LINKS)
    graph.hnsw.efConstruction = N_LOOKED_AT
    _, build_s = timed(lambda: graph.add(embeddings))
    print(f"A graph (HNSW, {N_LINKS} links, {N_LOOKED_AT} looked at in building) instead")
    size_mb = faiss.serialize_index(graph).nbytes / 1e6
    print(f"  build         {build_s:.2f} s, {size_mb:.0f} MB")
    for n_looked_at in (16, 64, 256):
        graph.hnsw.efSearch = n_looked_at
        (_, rows), search_s = timed(lambda: graph.search(queries, K))
        recall = measure_recall(exact, rows)
        print(f"  search        {search_s:.3f} s, recall {recall:.4f} ({n_looked_at} looked at)")


def measure_recall(exact: np.ndarray, found: np.ndarray) -> float:
    """Return the share of the nearest, `(n_queries, K)` rows, that were found."""
    hits = [len(np.intersect1d(*pair)) for pair in zip(exact, found, strict=True)]
    return sum(hits) / exact.size


def make_embeddings(rng: np.random.Generator, n: int) -> np.ndarray:
    """Return `(n, N_DIMS)` float32 of length 1, evenly over all directions."""
    embeddings = rng.normal(size=(n, N_DIMS)).astype(np.float32)
    return embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)


def timed(work: Callable[[], T]) -> tuple[T, float]:
    """Return what work returns, and the seconds it took."""
    started_s = time.perf_counter()
    return work(), time.perf_counter() - started_s


if __name__ == "__main__":
    main()

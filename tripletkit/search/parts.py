"""Vectors of a collection a part at a time, so that only a part's features are in memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from tripletkit import defaults
from tripletkit.features.collection import Collection, NamedFiles, load_collection, tell_collection
from tripletkit.features.stores import Store
from tripletkit.progress import Progress, no_progress
from tripletkit.search.encoders import Encoder
from tripletkit.search.exact import Neighbors, find_neighbors, rank_candidates


def encode_in_parts(
    files: NamedFiles,
    encoder: Encoder,
    store: Store,
    *,
    skip_bad: bool = False,
    progress: Progress | None = None,
    tell: bool = True,
) -> Iterator[tuple[int, np.ndarray]]:
    """Yield (first row, vectors) of some thousand images at a time.

    Args:
        files: of the collection.
        encoder: what makes vectors of images.
        store: where features are kept.
        skip_bad: give NaN where an image cannot be read.
        progress: told (done, total) images.
        tell: say at the end how many features were computed, and what is left out.
    Yields:
        `(n, n_dims)` float32.
    Raises:
        ImageReadError: if an image cannot be read, unless bad ones are to be skipped.
    """
    n_images = len(files.names)
    # Given features are in memory as a whole anyway.
    size = defaults.ENCODE_PART_IMAGES if encoder.source.parts else n_images
    progress = progress or no_progress
    problems: list[str] = []
    n_computed = n_stored = 0
    for start in range(0, n_images, max(size, 1)):
        end = min(start + size, n_images)
        part = files if end - start == n_images else files.take(range(start, end))

        def told(done: int, total: int, end: int = end) -> None:
            progress(end - total + done, n_images)

        loaded = load_collection(part, encoder.source, store, skip_bad=skip_bad, progress=told)
        problems += loaded.problems
        n_computed += loaded.n_computed
        n_stored += loaded.n_stored
        yield start, encoder.encode(loaded.features)
    if tell:
        none = np.empty((0, 1), np.float32)
        whole = Collection(none, problems, n_computed, n_stored)
        tell_collection(whole, encoder.source, n_images)


def encode_all(
    files: NamedFiles,
    encoder: Encoder,
    store: Store,
    *,
    skip_bad: bool = False,
    progress: Progress | None = None,
) -> np.ndarray:
    """Return the vectors of a collection: `(n_images, n_dims)` float32; see `encode_in_parts`."""
    vectors = np.empty((0, 0), np.float32)
    for start, part in encode_in_parts(files, encoder, store, skip_bad=skip_bad, progress=progress):
        if len(part) == len(files.names):
            vectors = part
            continue
        if start == 0:
            vectors = np.empty((len(files.names), part.shape[1]), np.float32)
        vectors[start : start + len(part)] = part
    return vectors


def find_neighbors_in_parts(
    parts: Iterator[tuple[int, np.ndarray]],
    queries: np.ndarray,
    k: int,
    distance: str,
    excluded: Sequence[np.ndarray],
) -> Neighbors:
    """Return what `find_neighbors` returns over all parts of a collection.

    Args:
        parts: (first row, vectors).
        queries, k, distance, excluded: as `find_neighbors` takes them.
    """
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

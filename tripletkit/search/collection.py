"""Search of images in a collection of images: their vectors, and which of them are the same."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np

from tripletkit.data.outputs import OutputFile
from tripletkit.errors import ImageReadError
from tripletkit.features.collection import NamedFiles, open_collection
from tripletkit.features.stores import open_store
from tripletkit.progress import Progress
from tripletkit.search.approximate import ApproximateIndex, IndexOrigin, fingerprint_collection
from tripletkit.search.encoders import Encoder
from tripletkit.search.exact import Neighbors, find_neighbors

logger = logging.getLogger("tripletkit")


class CollectionSearch:
    """A search of query images in a collection, exactly or by an index.

    Args:
        encoder: what makes vectors of images.
        files: of the collection.
        query_files: of the queries.
        cache: folder of the feature store; None for the user's.
        skip_bad: leave out images of the collection that cannot be read.
        progress: told (done, total) images.
    """

    def __init__(
        self,
        encoder: Encoder,
        files: NamedFiles,
        query_files: NamedFiles,
        cache: Path | None,
        *,
        skip_bad: bool = False,
        progress: Progress | None = None,
    ) -> None:
        self.encoder, self.files, self.query_files = encoder, files, query_files
        self._cache, self._skip_bad, self._progress = cache, skip_bad, progress

    def exactly(self, k: int, same: list) -> Neighbors:
        queries, embeddings = self._encode(self.files)
        return find_neighbors(embeddings, queries, k, self.encoder.distance, same)

    def by_index(self, k: int, same: list, place: Path | OutputFile, contents: list) -> Neighbors:
        """Search by the index at a path, or make it in a file that may be written."""
        origin = IndexOrigin(
            self.encoder.fingerprint,
            self.encoder.distance,
            fingerprint_collection(self.files.names, contents),
            len(self.files.names),
        )
        if isinstance(place, Path):
            index = ApproximateIndex.load(place, origin)
            queries, _ = self._encode(None)
        else:
            queries, embeddings = self._encode(self.files)
            index = ApproximateIndex(embeddings, origin)
            index.save(place)
            logger.info("Wrote the index %s.", place)
        return index.search(queries, k, same)

    def _encode(self, files: NamedFiles | None) -> tuple:
        """Return the vectors of the queries and of the collection, if it is asked for."""
        query_files, encoder = self.query_files, self.encoder
        n_queries = len(query_files.names)
        both = query_files if files is None else query_files.joined(files)
        with open_store(self._cache) as store:
            collection = open_collection(
                both, encoder.source, store, skip_bad=self._skip_bad, progress=self._progress
            )
        is_usable = collection.is_usable()
        for name, usable in zip(query_files.names, is_usable[:n_queries], strict=True):
            if not usable:
                raise ImageReadError(f"`query` {name}: expected an image, cannot be read as one")
        vectors = encoder.encode(collection.features)
        return vectors[:n_queries], vectors[n_queries:]


def find_same(own: list[bytes | None], contents: list[bytes | None]) -> list:
    """Return, for each query, the rows of the collection that are the same file or a copy."""
    rows_of: dict[bytes, list[int]] = {}
    for row, content in enumerate(contents):
        if content is not None:
            rows_of.setdefault(content, []).append(row)
    return [np.array(rows_of.get(content, []), dtype=np.int64) for content in own]


def list_neighbors(query: str, found: list[tuple[int, float]], names: list[str]) -> dict[str, Any]:
    """Return the neighbors of a query, as plain JSON values."""
    neighbors = [
        {"rank": rank, "name": names[row], "distance": distance}
        for rank, (row, distance) in enumerate(found, 1)
    ]
    return {"query": query, "neighbors": neighbors}


def add_labels(answer: dict[str, Any], names: list[str], label_of: dict[str, str]) -> None:
    """Add the labels that are known, the query's by the first of its names that has one."""
    answer["label"] = next((label_of[name] for name in names if name in label_of), None)
    for neighbor in answer["neighbors"]:
        neighbor["label"] = label_of.get(neighbor["name"])
        known = None not in (answer["label"], neighbor["label"])
        neighbor["same_label"] = answer["label"] == neighbor["label"] if known else None

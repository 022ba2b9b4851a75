"""Search of images in a collection of images: their vectors, and which of them are the same."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tripletkit import defaults
from tripletkit.data.images import Images
from tripletkit.data.outputs import OutputFile
from tripletkit.errors import ImageReadError
from tripletkit.features.encoder import Encoder
from tripletkit.features.store import FeatureStore
from tripletkit.progress import Progress
from tripletkit.results import Result, Section, Table
from tripletkit.search.approximate import (
    ApproximateIndex,
    IndexOrigin,
    count_cells,
    fingerprint_collection,
    needs_codes,
)
from tripletkit.search.exact import Neighbors, find_neighbors_in_parts

# Vectors that train each cell, and images by which an index is measured against exact search.
_INDEX_TRAIN_PER_CELL = 40
_RECALL_QUERIES = 200

logger = logging.getLogger("tripletkit")


class CollectionSearch:
    """A search of query images in a collection of files, exactly or by an index."""

    def __init__(
        self,
        encoder: Encoder,
        files: Images,
        query_files: Images,
        cache: Path | None,
        progress: Progress | None = None,
    ) -> None:
        self.encoder, self.files, self.query_files = encoder, files, query_files
        self._cache, self._told = cache, progress

    def exactly(self, k: int, same: list) -> Neighbors:
        with FeatureStore(self._cache) as store:
            queries = self._encode_queries(store)
            return find_neighbors_in_parts(
                self._parts(store), queries, k, self.encoder.distance, same
            )

    def by_index(self, k: int, same: list, place: Path | OutputFile, contents: list) -> Neighbors:
        """Search by the index at a path, or make it in a file; it is `index` afterwards."""
        n_images = len(self.files.names)
        distance = self.encoder.distance
        origin = IndexOrigin(
            self.encoder.fingerprint,
            distance,
            fingerprint_collection(self.files.names, contents),
            n_images,
        )
        with FeatureStore(self._cache) as store:
            queries = self._encode_queries(store, tell=isinstance(place, Path))
            if isinstance(place, Path):
                self.index = ApproximateIndex.load(place, origin)
            else:
                if needs_codes(n_images, queries.shape[1], distance):
                    parts = self._parts(store)
                    sample = self._fetch(store)(_draw_rows(n_images))
                else:
                    sample = self.encoder.encode(self.files, store, progress=self._told)
                    parts = iter([(0, sample)])
                self.index = ApproximateIndex(parts, sample, origin)
                self.index.save(place)
                logger.info("Wrote the index %s (%s).", place, self.index.describe())
            return self.index.search(queries, k, same, self._fetch(store))

    def measure_recall(self, k: int, seed: int = defaults.SEED) -> float:
        """Return the share of true neighbours that the index finds of images drawn by chance.

        It reads the features of the whole collection once. `by_index` comes first.
        """
        n_images = len(self.files.names)
        n_queries = min(_RECALL_QUERIES, n_images)
        rows = np.sort(np.random.default_rng(seed).choice(n_images, n_queries, replace=False))
        with FeatureStore(self._cache) as store:
            fetch = self._fetch(store)
            queries = fetch(rows)
            usable = np.isfinite(queries).all(axis=1)
            queries, itself = queries[usable], list(rows[usable][:, None])
            parts = self._parts(store, tell=False)
            exact = find_neighbors_in_parts(parts, queries, k, self.encoder.distance, itself)
            found = self.index.search(queries, k, itself, fetch)
        hits = [
            len(np.intersect1d(true[true >= 0], got))
            for true, got in zip(exact.rows, found.rows, strict=True)
        ]
        return float(np.sum(hits) / max(np.sum(exact.rows >= 0), 1))

    def _parts(self, store: FeatureStore, *, tell: bool = True) -> Iterator[tuple[int, np.ndarray]]:
        return self.encoder.encode_in_chunks(self.files, store, progress=self._told, tell=tell)

    def _fetch(self, store: FeatureStore) -> Callable[[np.ndarray], np.ndarray]:
        """Return what gives the vectors of rows of the collection."""

        def fetch(rows: np.ndarray) -> np.ndarray:
            drawn = self.files.take(rows.tolist()).usable()
            chunks = self.encoder.encode_in_chunks(drawn, store, tell=False)
            return np.vstack([vectors for _, vectors in chunks])

        return fetch

    def _encode_queries(self, store: FeatureStore, *, tell: bool = False) -> np.ndarray:
        """Return the vectors of the queries."""
        queries = self.query_files
        vectors = self.encoder.encode(queries, store, progress=self._told, tell=tell)
        for name, usable in zip(queries.names, np.isfinite(vectors[:, 0]), strict=True):
            if not usable:
                raise ImageReadError(f"`query` {name}: expected an image, cannot be read as one")
        return vectors


def _draw_rows(n_images: int) -> np.ndarray:
    """Return the rows that train an index of codes, drawn by chance, always the same."""
    n_rows = max(count_cells(n_images), 256) * _INDEX_TRAIN_PER_CELL
    rng = np.random.default_rng(defaults.SEED)
    return np.sort(rng.choice(n_images, min(n_rows, n_images), replace=False))


def find_same(
    own: Sequence[bytes | str | None], contents: Sequence[bytes | str | None]
) -> list[np.ndarray]:
    """Return, for each query, the rows of the collection that are the same file or a copy."""
    rows_of: dict[bytes | str, list[int]] = {}
    for row, content in enumerate(contents):
        if content is not None:
            rows_of.setdefault(content, []).append(row)
    found = [[] if content is None else rows_of.get(content, []) for content in own]
    return [np.array(rows, dtype=np.int64) for rows in found]


@dataclass(frozen=True, repr=False)
class NearestImages(Result):
    """The images of a collection that are nearest to queries.

    Attributes:
        distance: by which embeddings are compared.
        queries: for each query `query`, its name, and `neighbors`, nearest first: `rank`, `name`,
            `distance`; with labels, also `label` and `same_label`.
        recall: the share of true neighbours that an index found; None where it was not measured.
    """

    distance: str
    queries: list[dict[str, Any]]
    recall: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return all of it as JSON takes it."""
        of_index = {} if self.recall is None else {"recall": self.recall}
        return {"distance": self.distance, **of_index, "queries": self.queries}

    def to_frame(self) -> pd.DataFrame:
        """Return a table with a row for each neighbour of each query, nearest first.

        Returns:
            The columns query, rank (from 1), name and distance; with labels, also label and
            same_label.
        """
        columns = ["query", "rank", "name", "distance"]
        if self._has_labels:
            columns += ["label", "same_label"]
        rows = [
            {"query": answer["query"], **neighbor}
            for answer in self.queries
            for neighbor in answer["neighbors"]
        ]
        return pd.DataFrame(rows, columns=columns)

    @property
    def _has_labels(self) -> bool:
        return any("label" in answer for answer in self.queries)

    def _summary(self) -> str:
        n = sum(len(answer["neighbors"]) for answer in self.queries)
        return f"{n:,} of {len(self.queries):,} queries, {self.distance} distance"

    def _sections(self) -> list[Section]:
        heading = ["query", "rank", "name", "distance"]
        rows = [[*heading, "label", "same"] if self._has_labels else heading]
        for answer in self.queries:
            for neighbor in answer["neighbors"]:
                row = [
                    answer["query"],
                    str(neighbor["rank"]),
                    neighbor["name"],
                    f"{neighbor['distance']:.4f}",
                ]
                if self._has_labels:
                    same = {True: "yes", False: "no", None: ""}[neighbor["same_label"]]
                    row += [neighbor["label"] or "", same]
                rows.append(row)
        return [[Table(rows, right=[1, 3])]]


def list_neighbors(query: str, found: list[tuple[int, float]], names: list[str]) -> dict[str, Any]:
    """Return the neighbors of a query, as plain JSON values."""
    neighbors = [
        {"rank": rank, "name": names[row], "distance": distance}
        for rank, (row, distance) in enumerate(found, 1)
    ]
    return {"query": query, "neighbors": neighbors}


def add_labels(answer: dict[str, Any], names: list[str], label_of: Mapping[str, str]) -> None:
    """Add the labels that are known, the query's by the first of its names that has one."""
    answer["label"] = next((label_of[name] for name in names if name in label_of), None)
    for neighbor in answer["neighbors"]:
        neighbor["label"] = label_of.get(neighbor["name"])
        known = None not in (answer["label"], neighbor["label"])
        neighbor["same_label"] = answer["label"] == neighbor["label"] if known else None

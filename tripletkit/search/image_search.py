"""Search of images in a collection of images, exactly or by an approximate index.

Exact search compares all in blocks of float32 arithmetic to find who may be near, with room for its
rounding errors; only those few are then measured in float64, as answers measure. So the result is
that of comparing every pair, ties included, at the speed of a matrix product.

An index is Faiss's inverted file: k-means cuts the embeddings into cells, and a query is compared
with those in the nearest cells only. (A graph index such as HNSW finds as much but takes minutes
instead of a second to build over a million embeddings, and room for its links.) Vectors that would
not fit in memory beside each other are kept as codes instead (IVF-PQ): a part of them trains the
cells and the codes, all are added a part at a time, and the nearest by their codes are then
measured by their own vectors.
"""

from __future__ import annotations

import hashlib
import json
import logging
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits

from tripletkit import defaults
from tripletkit.data.array_files import read_array_file
from tripletkit.data.images import Images
from tripletkit.data.outputs import Destination, OutputFile, OutputForm, open_output
from tripletkit.errors import FeatureFileError, ImageReadError
from tripletkit.evaluation.distances import distances_between
from tripletkit.features.encoder import Encoder
from tripletkit.features.store import FeatureStore
from tripletkit.features.unit_length import scale_to_unit_length
from tripletkit.progress import Progress
from tripletkit.registry import import_extra
from tripletkit.results import Result, Section, Table

# Queries and candidates that are compared at a time: 16 MB of numbers.
_BLOCK_QUERIES, _BLOCK_EMBEDDINGS = 128, 1 << 15
# Each block is first looked at through the smallest of so many distances; its size is a multiple.
_GROUP = 64
NOBODY = -1

# Up to this vectors are kept as they are: a million of 250 numbers. Past it they are kept as codes,
# a byte for every so many numbers, and so many candidates for each neighbour are measured.
_INDEX_FLAT_BYTES = 1 << 30
_INDEX_CODE_DIMS = 8
_INDEX_CANDIDATES = 20
# Share of its cells that an index looks into, and how many at least. An eighth finds over
# 99% of the true neighbours among a million embeddings of 10 dimensions.
_INDEX_CELLS_SHARE = 1 / 8
_INDEX_MIN_CELLS = 16
# Vectors that train each cell, and images by which an index is measured against exact search.
_INDEX_TRAIN_PER_CELL = 40
_RECALL_QUERIES = 200
# The 256 values of each byte of a code: trained on so many vectors each, in so many rounds of
# k-means. Faiss's own 256 and 25 are ten times the work.
_POINTS_PER_CODE, _CODE_ROUNDS = 64, 10
# Increase when an older tripletkit could not read a newer file rightly.
_FORMAT_VERSION = 2
INDEX_FORM = OutputForm(
    "an index of `neighbors`",
    lambda path: sorted(zipfile.ZipFile(path).namelist()) == ["facts.npy", "index.npy"],
)

logger = logging.getLogger("tripletkit")


@dataclass(frozen=True)
class _Neighbors:
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
    excluded: Sequence[np.ndarray] = (),
) -> _Neighbors:
    """Return the k nearest embeddings of each query; of equally near ones the lower row first.

    Memory beside the embeddings is some ten megabytes, unless very many are equally near. A row of
    NaN is nobody's neighbour, `excluded` has rows for each query that are not its neighbours, such
    as itself; where the collection is smaller, fewer than k are found.
    """
    usable = np.flatnonzero(np.isfinite(embeddings).all(axis=1))
    bounds = _Bounds(embeddings[usable], distance)
    k_with_excluded = min(k + max(map(len, excluded), default=0), len(usable))
    found = [(np.empty((0, k), dtype=np.int64), np.empty((0, k)))]
    # BLAS's threads wait for each other longer than products of so few dimensions take: one is
    # twice as fast on an idle machine, and more on a busy one.
    with threadpool_limits(1, "blas"):
        for start in range(0, len(queries), _BLOCK_QUERIES):
            block = slice(start, start + _BLOCK_QUERIES)
            query_of, places = bounds.candidates(queries[block], k_with_excluded)
            rows = usable[places]
            measured = distances_between(queries[block], query_of, embeddings, rows, distance)
            n_queries = len(queries[block])
            kept = rank_candidates(query_of, rows, measured, n_queries, k, excluded[block])
            found.append((kept.rows, kept.distances))
    return _Neighbors(*(np.concatenate(parts) for parts in zip(*found, strict=True)))


def _find_neighbors_in_parts(
    parts: Iterable[tuple[int, np.ndarray]],
    queries: np.ndarray,
    k: int,
    distance: str,
    excluded: Sequence[np.ndarray],
) -> _Neighbors:
    """Return what `find_neighbors` returns over parts, (first row, vectors), of a collection."""
    best = find_neighbors(queries[:0], queries, k, distance)
    for start, vectors in parts:
        inside = [
            rows[(rows >= start) & (rows < start + len(vectors))] - start for rows in excluded
        ]
        found = find_neighbors(vectors, queries, k, distance, inside)
        rows = np.hstack([best.rows, np.where(found.rows >= 0, found.rows + start, NOBODY)])
        distances = np.hstack([best.distances, found.distances])
        query_of, place = np.nonzero(rows >= 0)
        best = rank_candidates(
            query_of, rows[query_of, place], distances[query_of, place], len(queries), k
        )
    return best


def rank_candidates(
    query_of: np.ndarray,
    rows: np.ndarray,
    distances: np.ndarray,
    n_queries: int,
    k: int,
    excluded: Sequence[np.ndarray] = (),
) -> _Neighbors:
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
    kept = _Neighbors(np.full((n_queries, k), NOBODY), np.full((n_queries, k), np.nan))
    kept.rows[query_of[first], rank[first]] = rows[first]
    kept.distances[query_of[first], rank[first]] = distances[first]
    return kept


class _Bounds:
    """Who can be among the k nearest, by float32 numbers that sort as the distances do."""

    def __init__(self, embeddings: np.ndarray, distance: str) -> None:
        self.distance = distance
        self.embeddings = _arrange(embeddings, distance)
        self.lengths = np.einsum("ij,ij->i", self.embeddings, self.embeddings)

    def candidates(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Return query and row of everybody who may be near one."""
        queries = _arrange(queries, self.distance)
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


def _arrange(vectors: np.ndarray, distance: str) -> np.ndarray:
    """At length 1 the order by L2 distance is the order by cosine."""
    if distance == "cosine":
        vectors = scale_to_unit_length(vectors)
    return np.ascontiguousarray(vectors, dtype=np.float32)


# What an index is made of, as a message says it; it is refused for anything else.
_MADE_OF = {
    "format_version": "of format {}",
    "vectors": "made with {}",  # fingerprint of the model or backbone that made the embeddings
    "distance": "for the distance {}",
    "n_images": "of a collection of {} images",
    "collection": "of the images with the sha256 {}",
}


def _describe_collection(
    names: Sequence[str], contents: Sequence[bytes | None], vectors: str, distance: str
) -> dict[str, Any]:
    """Return what an index of a collection is made of: by names and contents, in any order."""
    pairs = sorted(
        (name, content.hex() if content else "")
        for name, content in zip(names, contents, strict=True)
    )
    collection = hashlib.sha256(json.dumps(pairs).encode()).hexdigest()
    values = (_FORMAT_VERSION, vectors, distance, len(names), collection)
    return dict(zip(_MADE_OF, values, strict=True))


class _ApproximateIndex:
    """Embeddings of a collection, arranged so that near ones are found without comparing all.

    `parts` are (first row, embeddings), `sample` those that it is trained on.
    """

    def __init__(
        self, parts: Iterable[tuple[int, np.ndarray]], sample: np.ndarray, made_of: dict[str, Any]
    ) -> None:
        faiss = import_faiss()
        self.made_of = made_of
        n_dims, distance, n_images = sample.shape[1], made_of["distance"], made_of["n_images"]
        # "np", not polysemous: else faiss sorts the codes for a search that is not done here, which
        # takes seconds for each byte of a code.
        is_coded = _needs_codes(n_images, n_dims, distance)
        kind = f"PQ{_count_codes(n_dims)}np" if is_coded else "Flat"
        metric = faiss.METRIC_L1 if distance == "l1" else faiss.METRIC_L2
        sample = _arrange(sample[np.isfinite(sample).all(axis=1)], distance)
        cells = f"IVF{min(_count_cells(n_images), max(len(sample), 1))}"
        self._index = faiss.index_factory(n_dims, f"{cells},{kind}", metric)
        # Small cells are fine here; faiss would warn of them on stderr.
        self._index.cp.min_points_per_centroid = 1
        if is_coded:
            codes = self._index.pq.cp
            codes.min_points_per_centroid, codes.max_points_per_centroid = 1, _POINTS_PER_CODE
            codes.niter = _CODE_ROUNDS
        # BLAS's threads wait for each other longer than products of a code's few numbers take.
        with threadpool_limits(1 if is_coded else None, "blas"):
            self._index.train(sample)
        for start, embeddings in parts:
            usable = np.flatnonzero(np.isfinite(embeddings).all(axis=1))
            self._index.add_with_ids(_arrange(embeddings[usable], distance), usable + start)

    @property
    def has_codes(self) -> bool:
        """Whether it holds codes instead of embeddings."""
        return not isinstance(self._index, import_faiss().IndexIVFFlat)

    def describe(self) -> str:
        """Return what kind of index it is, in words."""
        kind = f"IVF-PQ, {self._index.code_size} bytes a vector" if self.has_codes else "IVF-Flat"
        return f"{kind}, {self._index.nlist:,} cells"

    def search(
        self,
        queries: np.ndarray,
        k: int,
        excluded: Sequence[np.ndarray] = (),
        fetch: Callable[[np.ndarray], np.ndarray] | None = None,
    ) -> _Neighbors:
        """Return about the k nearest embeddings; with codes, `fetch` gets those of rows."""
        distance = self.made_of["distance"]
        queries = _arrange(queries, distance)
        n_found = k + max(map(len, excluded), default=0)
        n_found *= _INDEX_CANDIDATES if self.has_codes else 1
        n_found = max(min(n_found, self._index.ntotal), 1)
        self._index.nprobe = max(_INDEX_MIN_CELLS, round(self._index.nlist * _INDEX_CELLS_SHARE))
        if self.has_codes:
            assert fetch is not None, "an index of codes needs the embeddings themselves"
            _, rows = self._index.search(queries, n_found)
            distinct = np.unique(rows[rows >= 0])
            vectors = _arrange(fetch(distinct), distance)
            query_of, place = np.nonzero(rows >= 0)
            places = np.searchsorted(distinct, rows[query_of, place])
        else:
            _, rows, vectors = self._index.search_and_reconstruct(queries, n_found)
            query_of, place = np.nonzero(rows >= 0)
            places = query_of * rows.shape[1] + place
            vectors = vectors.reshape(-1, vectors.shape[-1])
        distances = distances_between(queries, query_of, vectors, places, distance)
        rows = rows[query_of, place]
        return rank_candidates(query_of, rows, distances, len(queries), k, excluded)

    def save(self, destination: Destination) -> None:
        """Write the index as one NPZ file, whole or not at all."""
        index = import_faiss().serialize_index(self._index)
        facts = self.made_of | {"sha256": hashlib.sha256(index.tobytes()).hexdigest()}
        with open_output(destination, "wb") as file:
            np.savez(file, facts=np.array(json.dumps(facts)), index=index)

    @classmethod
    def load(cls, path: Path, made_of: dict[str, Any]) -> _ApproximateIndex:
        """Read an index and check that it is whole and was made of what is expected."""
        faiss = import_faiss()
        again = "Name another file with `index`, or make it anew with `overwrite=True`."
        try:
            arrays = read_array_file(path)
            index, facts = arrays["index"], dict(json.loads(str(arrays["facts"])))
        except (ValueError, LookupError, TypeError, RecursionError) as error:
            reason = error if isinstance(error, FeatureFileError) else "it holds something else"
            raise FeatureFileError(
                f"{path}: expected an index that `tripletkit neighbors` wrote, cannot be "
                f"read as one: {reason}. {again}"
            ) from error
        except OSError as error:
            raise FeatureFileError(f"{path}: cannot be read: {error.strerror}") from error
        for fact, what in _MADE_OF.items():
            if (got := facts.get(fact)) != (wanted := made_of.get(fact)):
                raise FeatureFileError(
                    f"{path}: expected an index {what.format(_short(wanted))}, got {_short(got)}. "
                    f"{again}"
                )
        loaded = cls.__new__(cls)
        loaded.made_of, loaded._index = made_of, None
        if hashlib.sha256(index.tobytes()).hexdigest() == facts.get("sha256"):
            with suppress(RuntimeError, AssertionError, TypeError, ValueError, MemoryError):
                loaded._index = faiss.deserialize_index(index)
        is_index = isinstance(loaded._index, faiss.IndexIVFFlat | faiss.IndexIVFPQ)
        if not is_index or loaded._index.ntotal > made_of["n_images"]:
            raise FeatureFileError(
                f"{path}: is damaged: it holds no index of the sha256 that it says. {again}"
            )
        return loaded


def _needs_codes(n_images: int, n_dims: int, distance: str) -> bool:
    """Tell whether an index needs codes, which know no L1 and need 256 images for each byte."""
    return distance != "l1" and n_images > 256 and 4 * n_images * n_dims > _INDEX_FLAT_BYTES


def _count_cells(n_images: int) -> int:
    return max(1, round(n_images**0.5))


def _count_codes(n_dims: int) -> int:
    """Return the bytes of a code: one for each of equal pieces of at least so many numbers."""
    most = max(1, n_dims // _INDEX_CODE_DIMS)
    return max(n for n in range(1, most + 1) if n_dims % n == 0)


def import_faiss() -> Any:
    """Return Faiss, which is an extra."""
    missing = (
        "an approximate index needs the package faiss-cpu, which is not installed. Install it with "
        "`pip install 'tripletkit[search]'`, or leave out `index`: exact search needs nothing."
    )
    return import_extra(missing, "faiss")[0]


def _short(value: object) -> str:
    text = f"{value:,}" if isinstance(value, int) else str(value)
    return text if len(text) <= 40 else f"{text[:40]}..."


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

    def exactly(self, k: int, same: list) -> _Neighbors:
        with FeatureStore(self._cache) as store:
            queries = self._encode_queries(store)
            return _find_neighbors_in_parts(
                self._parts(store), queries, k, self.encoder.distance, same
            )

    def by_index(self, k: int, same: list, place: Path | OutputFile, contents: list) -> _Neighbors:
        """Search by the index at a path, or make it in a file; it is `index` afterwards."""
        names, distance = self.files.names, self.encoder.distance
        made_of = _describe_collection(names, contents, self.encoder.fingerprint, distance)
        with FeatureStore(self._cache) as store:
            queries = self._encode_queries(store, tell=isinstance(place, Path))
            if isinstance(place, Path):
                self.index = _ApproximateIndex.load(place, made_of)
            else:
                if _needs_codes(len(names), queries.shape[1], distance):
                    parts = self._parts(store)
                    sample = self._fetch(store)(_draw_rows(len(names)))
                else:
                    sample = self.encoder.encode(self.files, store, progress=self._told)
                    parts = iter([(0, sample)])
                self.index = _ApproximateIndex(parts, sample, made_of)
                self.index.save(place)
                logger.info("Wrote the index %s (%s).", place, self.index.describe())
            return self.index.search(queries, k, same, self._fetch(store))

    def measure_recall(self, k: int) -> float:
        """Return the share of true neighbours found; it reads the whole collection once."""
        n_images = len(self.files.names)
        rng = np.random.default_rng(defaults.SEED)
        rows = np.sort(rng.choice(n_images, min(_RECALL_QUERIES, n_images), replace=False))
        with FeatureStore(self._cache) as store:
            fetch = self._fetch(store)
            queries = fetch(rows)
            usable = np.isfinite(queries).all(axis=1)
            queries, itself = queries[usable], list(rows[usable][:, None])
            parts = self._parts(store, tell=False)
            exact = _find_neighbors_in_parts(parts, queries, k, self.encoder.distance, itself)
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
        queries = self.query_files
        vectors = self.encoder.encode(queries, store, progress=self._told, tell=tell)
        for name, usable in zip(queries.names, np.isfinite(vectors[:, 0]), strict=True):
            if not usable:
                raise ImageReadError(f"`query` {name}: expected an image, cannot be read as one")
        return vectors


def _draw_rows(n_images: int) -> np.ndarray:
    """Return the rows that train an index of codes, drawn by chance, always the same."""
    n_rows = max(_count_cells(n_images), 256) * _INDEX_TRAIN_PER_CELL
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
        if any("label" in answer for answer in self.queries):
            columns += ["label", "same_label"]
        table = pd.json_normalize(self.queries, "neighbors", "query")
        return table.reindex(columns=columns)

    def _summary(self) -> str:
        n = sum(len(answer["neighbors"]) for answer in self.queries)
        return f"{n:,} of {len(self.queries):,} queries, {self.distance} distance"

    def _sections(self) -> list[Section]:
        table = self.to_frame()
        rows = [[str(column).removesuffix("_label") for column in table]]
        for query, rank, name, distance, *labels in table.itertuples(index=False):
            if labels:
                label, same = labels
                known = label if isinstance(label, str) else ""
                labels = [known, {True: "yes", False: "no"}.get(same, "")]
            rows.append([query, str(rank), name, f"{distance:.4f}", *labels])
        return [[Table(rows, right=[1, 3])]]


def list_answers(
    found: _Neighbors,
    queries: Sequence[str],
    names: Sequence[str],
    label_of: Mapping[str, str] | None = None,
    names_of: Sequence[Sequence[str]] = (),
) -> list[dict[str, Any]]:
    """Return plain JSON values; a query's label is the first that one of its `names_of` has."""
    answers: list[dict[str, Any]] = []
    for number, query in enumerate(queries):
        neighbors: list[dict[str, Any]] = [
            {"rank": rank, "name": names[row], "distance": distance}
            for rank, (row, distance) in enumerate(found.of(number), 1)
        ]
        answers.append({"query": query, "neighbors": neighbors})
        if not label_of:
            continue
        label = next((label_of[name] for name in names_of[number] if name in label_of), None)
        answers[-1]["label"] = label
        for neighbor in neighbors:
            neighbor["label"] = other = label_of.get(neighbor["name"])
            neighbor["same_label"] = None if None in (label, other) else label == other
    return answers

"""An approximate index over embeddings, for collections too large to compare each time.

Faiss's inverted file: k-means cuts the embeddings into cells, and a query is compared with those in
the nearest cells only. (A graph index such as HNSW finds as much but takes minutes instead of a
second to build over a million embeddings, and room for its links.)

Vectors that would not fit in memory beside each other are kept as codes instead (IVF-PQ): a part of
them trains the cells and the codes, all are added a part at a time, and the nearest by their codes
are then measured by their own vectors.

An index knows what it was made of and is refused for anything else.
"""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from tripletkit.data.array_files import read_array_file
from tripletkit.data.outputs import Destination, OutputForm, open_output
from tripletkit.errors import ArrayFileError, MissingExtraError, SearchIndexError
from tripletkit.evaluation.distances import distances_between
from tripletkit.search.exact import Neighbors, rank_candidates

# Up to this vectors are kept as they are: a million of 250 numbers. Past it they are kept as codes,
# a byte for every so many numbers, and so many candidates for each neighbour are measured.
INDEX_FLAT_BYTES = 1 << 30
INDEX_CODE_DIMS = 8
INDEX_CANDIDATES = 20
# Share of its cells that an index looks into, and how many at least. An eighth finds over
# 99% of the true neighbours among a million embeddings of 10 dimensions.
INDEX_CELLS_SHARE = 1 / 8
INDEX_MIN_CELLS = 16

# Increase when an older tripletkit could not read a newer file rightly.
FORMAT_VERSION = 1
# The 256 values of each byte of a code: trained on so many vectors each, in so many rounds of
# k-means. Faiss's own 256 and 25 are ten times the work.
_POINTS_PER_CODE, _CODE_ROUNDS = 64, 10
INDEX_FORM = OutputForm(
    "an index of `neighbors`",
    lambda path: sorted(zipfile.ZipFile(path).namelist()) == ["facts.npy", "index.npy"],
)


@dataclass(frozen=True)
class IndexOrigin:
    """What an index was made of; another origin, another index.

    Attributes:
        vectors: the model or backbone that made the embeddings, by its fingerprint.
        distance: a name that `pair_distances` takes.
        collection: fingerprint of the images' names and contents.
        n_images: their number.
    """

    vectors: str
    distance: str
    collection: str
    n_images: int

    def check(self, expected: IndexOrigin, path: Path) -> None:
        """Refuse an index that was made of something else than expected.

        Raises:
            SearchIndexError: naming what differs.
        """
        for what, wanted, got in (
            ("made with {}", expected.vectors, self.vectors),
            ("for the distance {}", expected.distance, self.distance),
            ("of a collection of {} images", expected.n_images, self.n_images),
            ("of the images with the sha256 {}", expected.collection, self.collection),
        ):
            if wanted != got:
                raise SearchIndexError(
                    f"{path}: expected an index {what.format(_short(wanted))}, got {_short(got)}. "
                    "Name another file with `index`, or make it anew with `overwrite=True`."
                )


class ApproximateIndex:
    """Embeddings of a collection, arranged so that near ones are found without comparing all.

    Args:
        embeddings: `(n_images, n_dims)` float32; a row of NaN is left out.
        origin: what they are embeddings of.
    Raises:
        MissingExtraError: if faiss is not installed.
    """

    def __init__(self, embeddings: np.ndarray, origin: IndexOrigin) -> None:
        faiss = _import_faiss()
        usable = np.flatnonzero(np.isfinite(embeddings).all(axis=1))
        vectors = self._arrange(embeddings[usable], origin.distance)
        n_cells = count_cells(len(vectors))
        metric = faiss.METRIC_L1 if origin.distance == "l1" else faiss.METRIC_L2
        self._index = faiss.index_factory(embeddings.shape[1], f"IVF{n_cells},Flat", metric)
        # Small cells are fine here; faiss would warn of them on stderr.
        self._index.cp.min_points_per_centroid = 1
        self._index.train(vectors)
        self._index.add_with_ids(vectors, usable)
        self.origin = origin

    @classmethod
    def of_parts(
        cls,
        parts: Iterable[tuple[int, np.ndarray]],
        sample: np.ndarray,
        origin: IndexOrigin,
    ) -> ApproximateIndex:
        """Make an index of codes without having all embeddings in memory.

        Args:
            parts: (first row, embeddings) of the collection.
            sample: `(n, n_dims)` float32: embeddings that it is trained on.
            origin: what they are embeddings of; its distance is not L1.
        """
        faiss = _import_faiss()
        index = cls.__new__(cls)
        index.origin = origin
        n_dims = sample.shape[1]
        n_cells = count_cells(origin.n_images)
        # "np", not polysemous: else faiss sorts the codes for a search that is not done here, which
        # takes seconds for each byte of a code.
        index._index = faiss.index_factory(n_dims, f"IVF{n_cells},PQ{count_codes(n_dims)}np")
        index._index.cp.min_points_per_centroid = 1
        codes = index._index.pq.cp
        codes.min_points_per_centroid, codes.max_points_per_centroid = 1, _POINTS_PER_CODE
        codes.niter = _CODE_ROUNDS
        # BLAS's threads wait for each other longer than products of so few numbers take.
        with threadpool_limits(1, "blas"):
            index._index.train(cls._arrange(sample, origin.distance))
        for start, embeddings in parts:
            usable = np.flatnonzero(np.isfinite(embeddings).all(axis=1))
            vectors = cls._arrange(embeddings[usable], origin.distance)
            index._index.add_with_ids(vectors, usable + start)
        return index

    @property
    def has_codes(self) -> bool:
        """Whether it holds codes instead of embeddings."""
        return not isinstance(self._index, _import_faiss().IndexIVFFlat)

    def describe(self) -> str:
        """Return what kind of index it is, in words."""
        kind = f"IVF-PQ, {self._index.code_size} bytes a vector" if self.has_codes else "IVF-Flat"
        return f"{kind}, {self._index.nlist:,} cells"

    def search(
        self,
        queries: np.ndarray,
        k: int,
        excluded: Sequence[np.ndarray] | None = None,
        fetch: Callable[[np.ndarray], np.ndarray] | None = None,
    ) -> Neighbors:
        """Return about the k nearest embeddings of each query, measured as `find_neighbors` does.

        Args:
            queries: `(n_queries, n_dims)` float32, finite.
            k: how many.
            excluded: one array of rows a query, which are not its neighbours.
            fetch: returns the embeddings of rows; needed where the index has codes.
        """
        excluded = excluded or [np.empty(0, dtype=np.int64)] * len(queries)
        queries = self._arrange(queries, self.origin.distance)
        n_found = k + max(map(len, excluded), default=0)
        n_found *= INDEX_CANDIDATES if self.has_codes else 1
        n_found = max(min(n_found, self._index.ntotal), 1)
        self._index.nprobe = max(INDEX_MIN_CELLS, round(self._index.nlist * INDEX_CELLS_SHARE))
        if self.has_codes:
            assert fetch is not None, "an index of codes needs the embeddings themselves"
            _, rows = self._index.search(queries, n_found)
            distinct = np.unique(rows[rows >= 0])
            vectors = self._arrange(fetch(distinct), self.origin.distance)
            query_of, place = np.nonzero(rows >= 0)
            places = np.searchsorted(distinct, rows[query_of, place])
        else:
            _, rows, vectors = self._index.search_and_reconstruct(queries, n_found)
            query_of, place = np.nonzero(rows >= 0)
            places = query_of * rows.shape[1] + place
            vectors = vectors.reshape(-1, vectors.shape[-1])
        distances = distances_between(queries, query_of, vectors, places, self.origin.distance)
        rows = rows[query_of, place]
        return rank_candidates(query_of, rows, distances, len(queries), k, excluded)

    def save(self, destination: Destination) -> None:
        """Write the index as one NPZ file, whole or not at all.

        Raises:
            OutputError: if it cannot be written.
        """
        index = _import_faiss().serialize_index(self._index)
        facts = {
            "format_version": FORMAT_VERSION,
            "origin": asdict(self.origin),
            "sha256": hashlib.sha256(index.tobytes()).hexdigest(),
        }
        with open_output(destination, "wb") as file:
            np.savez(file, facts=np.array(json.dumps(facts)), index=index)

    @classmethod
    def load(cls, path: Path, expected: IndexOrigin) -> ApproximateIndex:
        """Read an index and check that it is whole and was made of what is expected.

        Raises:
            SearchIndexError: if it is damaged, no index, or of another model or collection.
            MissingExtraError: if faiss is not installed.
        """
        faiss = _import_faiss()
        try:
            arrays = read_array_file(path)
            index = arrays["index"]
            facts = json.loads(str(arrays["facts"]))
            version, digest = facts["format_version"], facts["sha256"]
            origin = IndexOrigin(**facts["origin"])
        except (ValueError, LookupError, TypeError, RecursionError) as error:
            reason = error if isinstance(error, ArrayFileError) else "it holds something else"
            raise SearchIndexError(
                f"{path}: expected an index that `tripletkit neighbors` wrote, cannot be "
                f"read as one: {reason}. Name another file, or make it anew with `overwrite=True`."
            ) from error
        except OSError as error:
            raise SearchIndexError(f"{path}: cannot be read: {error.strerror}") from error
        if version != FORMAT_VERSION:
            raise SearchIndexError(
                f"{path}: expected an index of format {FORMAT_VERSION}, got {version!r}. "
                "Make it anew with `overwrite=True`."
            )
        origin.check(expected, path)
        if hashlib.sha256(index.tobytes()).hexdigest() != digest:
            raise SearchIndexError(
                f"{path}: is damaged: its sha256 is not the one written with it. "
                "Make it anew with `overwrite=True`."
            )
        loaded = cls.__new__(cls)
        try:
            loaded._index = faiss.deserialize_index(index)
            kinds = (faiss.IndexIVFFlat, faiss.IndexIVFPQ)
            is_index = isinstance(loaded._index, kinds)
            is_index = is_index and loaded._index.ntotal <= origin.n_images
        except (RuntimeError, AssertionError, TypeError, ValueError, MemoryError):
            is_index = False
        if not is_index:
            raise SearchIndexError(
                f"{path}: holds no index, although its sha256 is as written. "
                "Make it anew with `overwrite=True`."
            )
        loaded.origin = origin
        return loaded

    @staticmethod
    def _arrange(vectors: np.ndarray, distance: str) -> np.ndarray:
        """At length 1 the order by L2 distance is the order by cosine."""
        if distance == "cosine":
            lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
            vectors = vectors / np.where(lengths > 0, lengths, 1.0)
        return np.ascontiguousarray(vectors, dtype=np.float32)


def needs_codes(n_images: int, n_dims: int, distance: str) -> bool:
    """Tell whether a collection is too large for an index of its embeddings as they are.

    Codes know no L1 distance, and each of their bytes is learned from 256 images at least.
    """
    return distance != "l1" and n_images > 256 and 4 * n_images * n_dims > INDEX_FLAT_BYTES


def count_cells(n_images: int) -> int:
    """Return how many cells an index of so many embeddings has."""
    return max(1, round(n_images**0.5))


def count_codes(n_dims: int) -> int:
    """Return the bytes of a code: one for each of equal pieces of at least so many numbers."""
    most = max(1, n_dims // INDEX_CODE_DIMS)
    return max(n for n in range(1, most + 1) if n_dims % n == 0)


def fingerprint_collection(names: Sequence[str], contents: Sequence[bytes | None]) -> str:
    """Return a hash of which images a collection has, whatever their order.

    Args:
        names: of the images.
        contents: SHA-256 of each file; None where it cannot be read.
    """
    pairs = sorted(
        (name, content.hex() if content else "")
        for name, content in zip(names, contents, strict=True)
    )
    return hashlib.sha256(json.dumps(pairs).encode()).hexdigest()


def check_faiss() -> None:
    """Refuse early what an index will need.

    Raises:
        MissingExtraError: if faiss is not installed.
    """
    _import_faiss()


def _import_faiss() -> Any:
    try:
        import faiss
    except ImportError as error:
        raise MissingExtraError(
            "an approximate index needs the package faiss-cpu, which is not installed. "
            "Install it with `pip install 'tripletkit[search]'`, or leave out `index`: exact "
            "search needs nothing."
        ) from error
    return faiss


def _short(value: object) -> str:
    text = f"{value:,}" if isinstance(value, int) else str(value)
    return text if len(text) <= 40 else f"{text[:40]}..."

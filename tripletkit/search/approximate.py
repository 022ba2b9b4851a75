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
from tripletkit.errors import FeatureFileError, MissingExtraError
from tripletkit.evaluation.distances import distances_between
from tripletkit.features.unit_length import scale_to_unit_length
from tripletkit.search.exact import Neighbors, rank_candidates

# Up to this vectors are kept as they are: a million of 250 numbers. Past it they are kept as codes,
# a byte for every so many numbers, and so many candidates for each neighbour are measured.
INDEX_FLAT_BYTES = 1 << 30
_INDEX_CODE_DIMS = 8
_INDEX_CANDIDATES = 20
# Share of its cells that an index looks into, and how many at least. An eighth finds over
# 99% of the true neighbours among a million embeddings of 10 dimensions.
INDEX_CELLS_SHARE = 1 / 8
_INDEX_MIN_CELLS = 16

# Increase when an older tripletkit could not read a newer file rightly.
_FORMAT_VERSION = 1
# The 256 values of each byte of a code: trained on so many vectors each, in so many rounds of
# k-means. Faiss's own 256 and 25 are ten times the work.
_POINTS_PER_CODE, _CODE_ROUNDS = 64, 10
INDEX_FORM = OutputForm(
    "an index of `neighbors`",
    lambda path: sorted(zipfile.ZipFile(path).namelist()) == ["facts.npy", "index.npy"],
)


@dataclass(frozen=True)
class IndexOrigin:
    """What an index was made of; another origin, another index."""

    vectors: str  # fingerprint of the model or backbone that made the embeddings
    distance: str  # one of `DISTANCE_NAMES`
    collection: str  # fingerprint of the images' names and contents
    n_images: int

    def check(self, expected: IndexOrigin, path: Path) -> None:
        """Refuse an index that was made of something else than expected."""
        for what, wanted, got in (
            ("made with {}", expected.vectors, self.vectors),
            ("for the distance {}", expected.distance, self.distance),
            ("of a collection of {} images", expected.n_images, self.n_images),
            ("of the images with the sha256 {}", expected.collection, self.collection),
        ):
            if wanted != got:
                raise FeatureFileError(
                    f"{path}: expected an index {what.format(_short(wanted))}, got {_short(got)}. "
                    "Name another file with `index`, or make it anew with `overwrite=True`."
                )


class ApproximateIndex:
    """Embeddings of a collection, arranged so that near ones are found without comparing all.

    Args:
        parts: (first row, embeddings) of the collection; a row of NaN is left out.
        sample: `(n, n_dims)` float32: embeddings that it is trained on.
        origin: what they are embeddings of.
    """

    def __init__(
        self, parts: Iterable[tuple[int, np.ndarray]], sample: np.ndarray, origin: IndexOrigin
    ) -> None:
        faiss = import_faiss()
        self.origin = origin
        n_dims, distance = sample.shape[1], origin.distance
        # "np", not polysemous: else faiss sorts the codes for a search that is not done here, which
        # takes seconds for each byte of a code.
        is_coded = needs_codes(origin.n_images, n_dims, distance)
        kind = f"PQ{_count_codes(n_dims)}np" if is_coded else "Flat"
        metric = faiss.METRIC_L1 if distance == "l1" else faiss.METRIC_L2
        sample = self._arrange(sample[np.isfinite(sample).all(axis=1)], distance)
        cells = f"IVF{min(count_cells(origin.n_images), max(len(sample), 1))}"
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
            self._index.add_with_ids(self._arrange(embeddings[usable], distance), usable + start)

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
        excluded: Sequence[np.ndarray] | None = None,
        fetch: Callable[[np.ndarray], np.ndarray] | None = None,
    ) -> Neighbors:
        """Return about the k nearest embeddings of each query, measured as `find_neighbors` does.

        Where the index has codes, `fetch` returns the embeddings of rows.
        """
        excluded = excluded or [np.empty(0, dtype=np.int64)] * len(queries)
        queries = self._arrange(queries, self.origin.distance)
        n_found = k + max(map(len, excluded), default=0)
        n_found *= _INDEX_CANDIDATES if self.has_codes else 1
        n_found = max(min(n_found, self._index.ntotal), 1)
        self._index.nprobe = max(_INDEX_MIN_CELLS, round(self._index.nlist * INDEX_CELLS_SHARE))
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
        """Write the index as one NPZ file, whole or not at all."""
        index = import_faiss().serialize_index(self._index)
        facts = {
            "format_version": _FORMAT_VERSION,
            "origin": asdict(self.origin),
            "sha256": hashlib.sha256(index.tobytes()).hexdigest(),
        }
        with open_output(destination, "wb") as file:
            np.savez(file, facts=np.array(json.dumps(facts)), index=index)

    @classmethod
    def load(cls, path: Path, expected: IndexOrigin) -> ApproximateIndex:
        """Read an index and check that it is whole and was made of what is expected."""
        faiss = import_faiss()
        again = "Make it anew with `overwrite=True`."
        try:
            arrays = read_array_file(path)
            index = arrays["index"]
            facts = json.loads(str(arrays["facts"]))
            version, digest = facts["format_version"], facts["sha256"]
            origin = IndexOrigin(**facts["origin"])
        except (ValueError, LookupError, TypeError, RecursionError) as error:
            reason = error if isinstance(error, FeatureFileError) else "it holds something else"
            raise FeatureFileError(
                f"{path}: expected an index that `tripletkit neighbors` wrote, cannot be "
                f"read as one: {reason}. Name another file, or make it anew with `overwrite=True`."
            ) from error
        except OSError as error:
            raise FeatureFileError(f"{path}: cannot be read: {error.strerror}") from error
        if version != _FORMAT_VERSION:
            raise FeatureFileError(
                f"{path}: expected an index of format {_FORMAT_VERSION}, got {version!r}. {again}"
            )
        origin.check(expected, path)
        if hashlib.sha256(index.tobytes()).hexdigest() != digest:
            raise FeatureFileError(
                f"{path}: is damaged: its sha256 is not the one written with it. {again}"
            )
        loaded = cls.__new__(cls)
        loaded.origin = origin
        try:
            loaded._index = faiss.deserialize_index(index)
        except (RuntimeError, AssertionError, TypeError, ValueError, MemoryError):
            loaded._index = None
        if (
            not isinstance(loaded._index, faiss.IndexIVFFlat | faiss.IndexIVFPQ)
            or loaded._index.ntotal > origin.n_images
        ):
            raise FeatureFileError(
                f"{path}: holds no index, although its sha256 is as written. {again}"
            )
        return loaded

    @staticmethod
    def _arrange(vectors: np.ndarray, distance: str) -> np.ndarray:
        """At length 1 the order by L2 distance is the order by cosine."""
        if distance == "cosine":
            vectors = scale_to_unit_length(vectors)
        return np.ascontiguousarray(vectors, dtype=np.float32)


def needs_codes(n_images: int, n_dims: int, distance: str) -> bool:
    """Tell whether a collection is too large for an index of its embeddings as they are.

    Codes know no L1 distance, and each of their bytes is learned from 256 images at least.
    """
    return distance != "l1" and n_images > 256 and 4 * n_images * n_dims > INDEX_FLAT_BYTES


def count_cells(n_images: int) -> int:
    """Return how many cells an index of so many embeddings has."""
    return max(1, round(n_images**0.5))


def _count_codes(n_dims: int) -> int:
    """Return the bytes of a code: one for each of equal pieces of at least so many numbers."""
    most = max(1, n_dims // _INDEX_CODE_DIMS)
    return max(n for n in range(1, most + 1) if n_dims % n == 0)


def fingerprint_collection(names: Sequence[str], contents: Sequence[bytes | None]) -> str:
    """Return a hash of which images a collection has, whatever their order."""
    pairs = sorted(
        (name, content.hex() if content else "")
        for name, content in zip(names, contents, strict=True)
    )
    return hashlib.sha256(json.dumps(pairs).encode()).hexdigest()


def import_faiss() -> Any:
    """Return Faiss, which is an extra."""
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

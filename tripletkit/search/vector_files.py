"""Vectors with their names as files that other programs read."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO

import numpy as np
import pandas as pd

from tripletkit.data.names import guard_formula
from tripletkit.data.outputs import (
    Destination,
    OutputForm,
    check_suffix,
    destination_path,
    open_output,
    recorded_form,
)
from tripletkit.features.given_features import import_pyarrow
from tripletkit.search.exact import Neighbors, find_neighbors, rank_candidates


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


def check_vector_suffix(path: Path) -> None:
    """Refuse early what `write_vectors` would refuse after the work."""
    check_suffix(path, _WRITERS)
    if path.suffix.lower() == ".parquet":
        import_pyarrow()


def write_vectors(destination: Destination, names: Sequence[str], vectors: np.ndarray) -> None:
    """Write vectors with their names, in the format that the suffix says; whole or not at all.

    - `.parquet`: the columns `name` and `vector` (a list of float32 of fixed length).
    - `.csv`: the columns `name`, `0`, `1`, ...; shortest decimals that read back the same. An
      apostrophe is before a name that a spreadsheet would take for a formula.
    - `.npz`: the arrays `names` (text) and `vectors` (float32), for `numpy.load`.
    """
    path = destination_path(destination)
    check_vector_suffix(path)
    with open_output(destination, "wb") as file:
        _WRITERS[path.suffix.lower()](file, names, vectors)


def vectors_form(path: Path) -> OutputForm:
    """Return what tells the file that `write_vectors` writes there."""
    return recorded_form(f"a {path.suffix} file of vectors")


def _write_parquet(file: IO[bytes], names: Sequence[str], vectors: np.ndarray) -> None:
    pa, pq = import_pyarrow()
    values = pa.array(np.ascontiguousarray(vectors).ravel())
    column = pa.FixedSizeListArray.from_arrays(values, vectors.shape[1])
    pq.write_table(pa.table({"name": pa.array(names, pa.string()), "vector": column}), file)


def _write_csv(file: IO[bytes], names: Sequence[str], vectors: np.ndarray) -> None:
    table = pd.DataFrame(vectors)
    table.insert(0, "name", [guard_formula(name) for name in names])
    table.to_csv(file, index=False, lineterminator="\n", encoding="utf-8")


def _write_npz(file: IO[bytes], names: Sequence[str], vectors: np.ndarray) -> None:
    np.savez(file, names=np.array(names, dtype=np.str_), vectors=vectors)


_WRITERS: dict[str, Callable[[IO[bytes], Sequence[str], np.ndarray], None]] = {
    ".parquet": _write_parquet,
    ".csv": _write_csv,
    ".npz": _write_npz,
}

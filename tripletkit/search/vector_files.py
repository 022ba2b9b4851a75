"""Vectors with their names as files that other programs read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO

import numpy as np
import pandas as pd

from tripletkit.data.names import guard_formula
from tripletkit.data.output_forms import OutputForm, archive_form, csv_form
from tripletkit.data.outputs import Destination, destination_path, open_output
from tripletkit.errors import OutputError
from tripletkit.features.given_features import import_pyarrow


def check_vector_suffix(path: Path) -> None:
    """Refuse early what `write_vectors` would refuse after the work.

    Raises:
        OutputError: if the suffix is none of those known.
        MissingExtraError: if it is a Parquet file and pyarrow is not installed.
    """
    if path.suffix.lower() not in _WRITERS:
        raise OutputError(
            f"{path}: expected a name that ends in {', '.join(_WRITERS)}, got "
            f"{path.suffix or 'no suffix'!r}"
        )
    if path.suffix.lower() == ".parquet":
        import_pyarrow()


def write_vectors(destination: Destination, names: Sequence[str], vectors: np.ndarray) -> None:
    """Write vectors with their names, in the format that the suffix says; whole or not at all.

    - `.parquet`: the columns `name` and `vector` (a list of float32 of fixed length).
    - `.csv`: the columns `name`, `0`, `1`, ...; shortest decimals that read back the same. An
      apostrophe is before a name that a spreadsheet would take for a formula.
    - `.npz`: the arrays `names` (text) and `vectors` (float32), for `numpy.load`.

    Args:
        destination: see above.
        names: distinct.
        vectors: `(n_images, n_dims)` float32.
    Raises:
        OutputError: if the suffix is another, or the file cannot be written.
    """
    path = destination_path(destination)
    check_vector_suffix(path)
    with open_output(destination, "wb") as file:
        _WRITERS[path.suffix.lower()](file, names, vectors)


def vectors_form(path: Path) -> OutputForm:
    """Return what the file looks like that `write_vectors` writes there."""
    return _FORMS[path.suffix.lower()]


def _is_parquet(path: Path) -> bool:
    _, pq = import_pyarrow()
    return pq.read_schema(path).names == ["name", "vector"]


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

_FORMS = {
    ".parquet": OutputForm("a Parquet file of the columns name and vector", _is_parquet),
    ".csv": csv_form("a CSV of vectors with the heading name,0,1, ...", "name,0,", "name,0\n"),
    ".npz": archive_form(
        "an NPZ file of the arrays names and vectors", ["names.npy", "vectors.npy"]
    ),
}

"""Features that were made elsewhere, of anything: a file of names and vectors."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from types import ModuleType

import numpy as np

from tripletkit.data.images import Images, open_images
from tripletkit.errors import FeatureFileError, MissingExtraError
from tripletkit.features.weights_files import file_sha256

# What the array of an `.npz` file is called, the first that is there.
_ARRAYS = ("features", "vectors", "embeddings")
_LIST_COLUMNS = (*_ARRAYS, "vector", "embedding")


@dataclass(frozen=True)
class GivenFeatures:
    """Named vectors from a file.

    Attributes:
        names: distinct.
        values: `(n_names, n_features)` float32, finite.
        path: the file.
        sha256: of the file, hexadecimal.
    """

    names: Sequence[str]
    values: np.ndarray
    path: Path
    sha256: str

    @property
    def images(self) -> Images:
        """The names, which need no files."""
        return open_images(None, self.names, [str(self.path)] * len(self.names))

    def find_rows(self, names: Sequence[str]) -> np.ndarray:
        """Return the row of each name, -1 where there is none.

        As image names, they may be with or without an extension where that is no doubt.

        Args:
            names: as a triplet file or a folder has them.
        Raises:
            FeatureFileError: if a name without an extension could be several.
        """
        row_of = {name: row for row, name in enumerate(self.names)}
        rows_of_stem: dict[str, list[int]] = {}
        for row, name in enumerate(self.names):
            rows_of_stem.setdefault(_stem(name), []).append(row)
        rows = np.full(len(names), -1, dtype=np.int64)
        for index, name in enumerate(names):
            found = [row_of[name]] if name in row_of else rows_of_stem.get(name, [])
            if not found and _stem(name) in row_of:
                found = [row_of[_stem(name)]]
            if len(found) > 1:
                raise FeatureFileError(
                    f"{self.path}: {name} could be {self.names[found[0]]} or "
                    f"{self.names[found[1]]}. Write names with their extensions."
                )
            if found:
                rows[index] = found[0]
        return rows

    def take(self, names: Sequence[str]) -> np.ndarray:
        """Return the vectors of names: `(n_names, n_features)`; a row of NaN where there is none.

        Raises:
            FeatureFileError: see `find_rows`.
        """
        rows = self.find_rows(names)
        return np.where(rows[:, None] >= 0, self.values[rows], np.float32(np.nan))


def read_features(path: Path) -> GivenFeatures:
    """Read named vectors.

    - `.npz`: the array `names` (text), and `features` (or `vectors`, `embeddings`), floats of
      `(n_names, n_features)`; as `embed` writes it.
    - `.parquet`: the column `name`, and either one column of lists (`vector`, `features`, ...) or
      all other columns numbers.

    Raises:
        FeatureFileError: saying what was expected and what is there.
        MissingExtraError: if it is a Parquet file and pyarrow is not installed.
    """
    readers = {".npz": _read_npz, ".parquet": _read_parquet}
    if path.suffix.lower() not in readers:
        raise FeatureFileError(
            f"{path}: expected a file of features, {' or '.join(readers)}, got "
            f"{path.suffix or 'no suffix'!r}"
        )
    try:
        names, values = readers[path.suffix.lower()](path)
    except (FeatureFileError, MissingExtraError):
        raise
    # NumPy, zipfile and pyarrow raise many kinds for broken files.
    except Exception as error:
        raise FeatureFileError(f"{path}: cannot be read: {error}") from error
    _check(path, names, values)
    values = np.ascontiguousarray(values, dtype=np.float32)
    return GivenFeatures(names, values, path, file_sha256(path))


def import_pyarrow() -> tuple[ModuleType, ModuleType]:
    """Return pyarrow and its Parquet part.

    Raises:
        MissingExtraError: if it is not installed.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise MissingExtraError(
            "Parquet files need pyarrow. Run: pip install 'tripletkit[parquet]', or take a name "
            "that ends in .npz."
        ) from error
    return pyarrow, pyarrow.parquet


def _check(path: Path, names: list[str], values: np.ndarray) -> None:
    if values.ndim != 2 or values.dtype.kind not in "fiu" or len(values) != len(names):
        raise FeatureFileError(
            f"{path}: expected numbers of shape ({len(names)}, n_features), one row for each name, "
            f"got {values.dtype} of shape {values.shape}"
        )
    if not values.size:
        raise FeatureFileError(f"{path}: expected features, got none")
    if len(set(names)) != len(names):
        twice = next(name for name, count in Counter(names).items() if count > 1)
        raise FeatureFileError(f'{path}: expected distinct names, got "{twice}" twice')
    if not (is_finite := np.isfinite(values).all(axis=1)).all():
        name = names[int(np.argmin(is_finite))]
        raise FeatureFileError(f"{path}: expected finite numbers, {name} has others")


def _read_npz(path: Path) -> tuple[list[str], np.ndarray]:
    with np.load(path, allow_pickle=False) as arrays:
        found = [name for name in _ARRAYS if name in arrays]
        if "names" not in arrays or not found:
            raise FeatureFileError(
                f"{path}: expected the arrays names and features, got {', '.join(arrays)}"
            )
        names = arrays["names"]
        if names.ndim != 1 or names.dtype.kind != "U":
            raise FeatureFileError(
                f"{path}: expected names as text of one dimension, got {names.dtype} of shape "
                f"{names.shape}"
            )
        return names.tolist(), arrays[found[0]]


def _read_parquet(path: Path) -> tuple[list[str], np.ndarray]:
    pa, pq = import_pyarrow()
    table = pq.read_table(path)
    if "name" not in table.column_names:
        raise FeatureFileError(
            f"{path}: expected a column name, got {', '.join(table.column_names)}"
        )
    names = [str(name) for name in table["name"].to_pylist()]
    others = [name for name in table.column_names if name != "name"]
    is_list = {
        name: pa.types.is_list(table[name].type)
        or pa.types.is_large_list(table[name].type)
        or pa.types.is_fixed_size_list(table[name].type)
        for name in others
    }
    lists = [name for name in others if is_list[name]]
    if len(lists) > 1:
        lists = [name for name in _LIST_COLUMNS if name in lists][:1]
    if lists:
        rows = table[lists[0]].to_pylist()
        if len({len(row) if row is not None else -1 for row in rows}) != 1:
            raise FeatureFileError(f"{path}: expected lists of one length in {lists[0]}")
        return names, np.array(rows)
    return names, np.column_stack([table[name].to_numpy() for name in others])


def _stem(name: str) -> str:
    """Return a name without its extension."""
    suffix = PurePosixPath(name).suffix
    return name.removesuffix(suffix) if suffix else name

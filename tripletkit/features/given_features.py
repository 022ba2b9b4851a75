"""Features that were made before, of anything: names and vectors, from files or from memory.

Those of very many images are a Parquet dataset: files of some hundred rows in a folder, with the
columns `name`, `content` (SHA-256 of the file), `vector` (a list of fixed length), and `problem`
where an image has none. Files appear whole or not at all, their pages have checksums, and the
metadata of each says what encoder the vectors are of. Any engine reads them.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from types import ModuleType
from typing import Any, NamedTuple, Protocol

import numpy as np
import pandas as pd

from tripletkit.data.images import Images, open_images, thread_pool
from tripletkit.data.outputs import note_input, open_output
from tripletkit.data.text_files import unguard_formula
from tripletkit.errors import FeatureFileError, MissingExtraError
from tripletkit.features.backbones import file_sha256
from tripletkit.registry import import_extra

# What the array of an `.npz` file is called, the first that is there.
_ARRAYS = ("features", "vectors", "embeddings")
_LIST_COLUMNS = (*_ARRAYS, "vector", "embedding")
_NAME_COLUMNS = ("name", "image", "path", "file", "filename", "file_name", "image_name")
# What pandas calls an index that it writes as a column.
_INDEX_COLUMN = re.compile(r"__index_level_\d+__|Unnamed: 0|")
_IN_MEMORY = "the features"
# How numbers of a dataset are kept.
DTYPES = ("float32", "float16")
_ABOUT = b"tripletkit"
_FORMAT = 1
_log = logging.getLogger("tripletkit")


@dataclass(frozen=True)
class GivenFeatures:
    """Named vectors."""

    names: Sequence[str]  # distinct
    # (n_names, n_features) float32, finite; those of a folder are read when they are asked for.
    values: np.ndarray | _DatasetRows
    source: str  # the file, or what to call them in messages
    sha256: str  # of the file, or of names and numbers from memory
    notes: tuple[str, ...] = ()  # how they were read, where that is not plain
    facts: Mapping[str, Any] | None = None  # what decided them, as an encoder's own, if known

    @property
    def images(self) -> Images:
        """The names, which need no files."""
        return open_images(None, self.names, [self.source] * len(self.names))

    def take(self, names: Sequence[str]) -> np.ndarray:
        """Return the vectors of names, with or without extension; NaN where there is none."""
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
                    f"{self.source}: {name} could be {self.names[found[0]]} or "
                    f"{self.names[found[1]]}. Write names with their extensions."
                )
            rows[index] = found[0] if found else -1
        taken = np.full((len(rows), self.values.shape[1]), np.nan, np.float32)
        taken[rows >= 0] = self.values[rows[rows >= 0]]
        return taken


class _NamedVectors(Protocol):
    """What `Model.embed` gives, which stands above this module."""

    @property
    def names(self) -> Sequence[str]: ...

    @property
    def vectors(self) -> np.ndarray: ...


FeaturesLike = (
    Path
    | str
    | GivenFeatures
    | _NamedVectors
    | Mapping[str, Sequence[float]]
    | pd.DataFrame
    | tuple[Sequence[str], np.ndarray]
)


def open_features(given: FeaturesLike) -> GivenFeatures:
    """Return named vectors, whatever they are given as, and say how they were read.

    - A folder that `extract` wrote, or a file: `.npz` with the arrays `names` (text) and `features`
      (or `vectors`, `embeddings`), as `embed` writes it; `.parquet` or `.csv` (`.tsv`) with the
      column `name` and either one column of lists (`vector`, `features`, ...) or columns of
      numbers; `.npy` beside a text file of the same name, `.txt`, with a name a line.
    - A mapping of names to vectors, a table as above (names may be its index), what `Model.embed`
      gives, or a pair of names and an array `(n_names, n_features)`.
    """
    if isinstance(given, GivenFeatures):
        return given
    if isinstance(given, (str, Path)):
        found = _read_features(Path(given))
    else:
        notes: tuple[str, ...] = ()
        if isinstance(given, pd.DataFrame):
            names, values, notes = _take_table(_IN_MEMORY, given, set())
        elif isinstance(given, Mapping):
            names = list(given)
            rows = [np.asarray(row) for row in given.values()]
            values = _stack(_IN_MEMORY, names, rows)
        else:
            try:
                pair = given if isinstance(given, tuple) else (given.names, given.vectors)
                names, values = list(pair[0]), np.asarray(pair[1])
            except (AttributeError, LookupError, TypeError):
                raise FeatureFileError(
                    "`features`: expected a file, a table, a mapping of names, embeddings, or a "
                    f"pair (names, array), got {type(given).__name__} without names."
                ) from None
        values = _checked(_IN_MEMORY, names, values)
        text = json.dumps(names, ensure_ascii=False).encode("utf-8", "surrogateescape")
        sha256 = hashlib.sha256(text + values.tobytes()).hexdigest()
        found = GivenFeatures(names, values, _IN_MEMORY, sha256, notes)
    for note in found.notes:
        _log.info("%s: %s", found.source, note)
    return found


def _read_features(path: Path) -> GivenFeatures:
    if path.is_dir():
        return _read_dataset(path)
    suffix = path.suffix.lower()
    if suffix not in _READERS:
        raise FeatureFileError(
            f"{path}: expected a file of features, {', '.join(_READERS)}, got "
            f"{suffix or 'no suffix'!r}"
        )
    note_input(path)
    try:
        names, values, notes = _READERS[suffix](path)
    except (FeatureFileError, MissingExtraError):
        raise
    # NumPy, zipfile, pandas and pyarrow raise many kinds for broken files.
    except Exception as error:
        reason = " ".join(str(error).split())
        raise FeatureFileError(f"{path}: cannot be read: {reason}") from error
    values = _checked(str(path), names, values)
    return GivenFeatures(names, values, str(path), file_sha256(path), notes)


def _checked(source: str, names: list[str], values: np.ndarray) -> np.ndarray:
    """Return vectors as float32."""
    if values.ndim != 2 or values.dtype.kind not in "fiu" or len(values) != len(names):
        raise FeatureFileError(
            f"{source}: expected numbers of shape ({len(names)}, n_features), one row for each "
            f"name, got {values.dtype} of shape {values.shape}"
        )
    if not values.size:
        raise FeatureFileError(f"{source}: expected features, got none")
    if strange := next((name for name in names if not isinstance(name, str) or not name), None):
        raise FeatureFileError(f"{source}: expected names as text, got {strange!r}")
    _check_distinct(source, names)
    return _cast_features(values, np.float32, names, source)


def _check_distinct(source: str, names: Sequence[str]) -> None:
    name, n_times = Counter(names).most_common(1)[0]
    if n_times > 1:
        raise FeatureFileError(f'{source}: expected distinct names, got "{name}" twice')


_Read = tuple[list[str], np.ndarray, tuple[str, ...]]


def _read_npz(path: Path) -> _Read:
    with np.load(path, allow_pickle=False) as arrays:
        found = [name for name in _ARRAYS if name in arrays]
        if "names" not in arrays or not found:
            raise FeatureFileError(
                f"{path}: expected the arrays names and features, got {', '.join(arrays)}"
            )
        names = arrays["names"]
        if names.ndim != 1 or names.dtype.kind not in "US":
            raise FeatureFileError(
                f"{path}: expected names as text of one dimension, got {names.dtype} of shape "
                f"{names.shape}"
            )
        if names.dtype.kind == "S":
            names = np.char.decode(names, "utf-8")
        return names.tolist(), arrays[found[0]], ()


def _read_npy(path: Path) -> _Read:
    beside = path.with_suffix(".txt")
    if not beside.is_file():
        raise FeatureFileError(
            f"{path}: expected the names of its rows in {beside}, a name a line, there is none"
        )
    names = beside.read_text(encoding="utf-8-sig").splitlines()
    return names, np.load(path, allow_pickle=False), (f"the names are those of {beside.name}.",)


def _read_csv(path: Path) -> _Read:
    with path.open(encoding="utf-8-sig") as file:
        heading = file.readline()
    separator = max("\t;,", key=heading.count)
    how: dict[str, Any] = {"sep": separator, "encoding": "utf-8-sig"}
    names = [name for name in pd.read_csv(path, nrows=0, **how) if _is_of_names(str(name))]
    # A converter is given the text as it stands: `007` and `NA` are names.
    converters = dict.fromkeys(names, unguard_formula)
    table = pd.read_csv(path, dtype_backend="numpy_nullable", converters=converters, **how)
    return _take_table(str(path), table, set())


def _read_parquet(path: Path) -> _Read:
    _, pq = import_pyarrow()
    table = pq.read_table(path)
    about = json.loads((table.schema.metadata or {}).get(b"pandas", b"{}"))
    indices = {name for name in about.get("index_columns", []) if isinstance(name, str)}
    return _take_table(str(path), table.to_pandas(ignore_metadata=True), indices)


def _take_table(source: str, table: pd.DataFrame, indices: set[str]) -> _Read:
    """Return names and vectors of a table, some of whose columns were an index."""
    table = table.rename(columns=str)
    columns = [str(column) for column in table]
    named = list(filter(_is_of_names, columns))
    if not named:
        named = [column for column in columns if column in indices and _is_text(table[column])]
    if len(named) == 1:
        names = [str(name) if isinstance(name, int) else name for name in table[named[0]]]
    elif not named and _is_text(table.index):
        names = table.index.tolist()
    else:
        raise FeatureFileError(f"{source}: expected a column name, got {', '.join(columns)}")
    others = table.drop(columns=named)
    found = [column for column in others.columns.tolist() if _has_lists(others[column])]
    lists = [name for name in _LIST_COLUMNS if name in found][:1] if len(found) > 1 else found
    if found and not lists:
        raise FeatureFileError(
            f"{source}: expected one column of lists, got {', '.join(found)}. Call that of the "
            "features vector."
        )
    if lists:
        rows = [None if row is None else np.asarray(row) for row in others[lists[0]]]
        others = others.drop(columns=lists)
        left_out = others.columns.tolist()
        notes = (_describe_columns(lists, left_out),) if left_out else ()
        return names, _stack(source, names, rows), notes
    taken, left_out = _choose_columns(source, others, indices)
    values = others[taken].to_numpy(dtype=np.float64, na_value=np.nan)
    return names, values, (_describe_columns(taken, left_out),)


def _choose_columns(
    source: str, table: pd.DataFrame, indices: set[str]
) -> tuple[list[str], list[str]]:
    """Return which columns are features, and which are left out; it has to be clear of each."""
    columns: list[str] = table.columns.tolist()
    numbers = set(table.select_dtypes("number", exclude="timedelta").columns)
    taken = [
        column
        for column in columns
        if column in numbers - indices and not _INDEX_COLUMN.fullmatch(column)
    ]
    left_out = [column for column in columns if column not in taken]
    if not taken:
        raise FeatureFileError(
            f"{source}: expected columns of numbers, got {', '.join(columns) or 'none'}"
        )
    stems = Counter(re.sub(r"\d+$", "", column) for column in taken if column[-1:].isdigit())
    stem, count = stems.most_common(1)[0] if stems else ("", 0)
    is_numbered = count >= 2 and 2 * count > len(taken)
    strange = [
        column
        for column in taken
        if (is_numbered and not re.fullmatch(re.escape(stem) + r"\d+", column))
        or (len(taken) > 1 and _numbers_rows(table[column]))
    ]
    if strange:
        raise FeatureFileError(
            f"{source}: expected features alone beside the names, got the column {strange[0]}, "
            "which is of another kind than the others. Leave it out, or name all columns of "
            "features alike."
        )
    return taken, left_out


def _numbers_rows(column: pd.Series) -> bool:
    """Return whether a column counts the rows, in whatever order."""
    if not pd.api.types.is_integer_dtype(column) or len(column) < 3 or column.isna().any():
        return False
    values = np.sort(column.to_numpy(dtype=np.int64))
    return bool((np.diff(values) == 1).all() and values[0] in (0, 1))


def _describe_columns(taken: Sequence[str], left_out: Sequence[str]) -> str:
    shown = ", ".join(taken if len(taken) <= 3 else [taken[0], "...", taken[-1]])
    note = f"features are of {len(taken):,} columns ({shown})"
    return f"{note}; left out: {', '.join(left_out)}." if left_out else f"{note}."


def _has_lists(column: pd.Series) -> bool:
    first = next((value for value in column if value is not None), None)
    return isinstance(first, (list, tuple, np.ndarray))


def _is_of_names(column: str) -> bool:
    return column.lower() in _NAME_COLUMNS


def _is_text(values: pd.Series | pd.Index) -> bool:
    return len(values) > 0 and all(isinstance(value, str) for value in values)


def _stack(source: str, names: list[str], rows: Sequence[np.ndarray | None]) -> np.ndarray:
    lengths = [-1 if row is None or row.ndim != 1 else len(row) for row in rows]
    for name, length in zip(names, lengths, strict=True):
        if length != lengths[0] or length < 0:
            raise FeatureFileError(
                f"{source}: expected vectors of one length, {lengths[0]} numbers, {name} has "
                f"{length if length >= 0 else 'none'}"
            )
    return np.stack([row for row in rows if row is not None]) if rows else np.empty((0, 0))


def _stem(name: str) -> str:
    return name.removesuffix(PurePosixPath(name).suffix)


_READERS = {
    ".npz": _read_npz,
    ".npy": _read_npy,
    ".parquet": _read_parquet,
    ".csv": _read_csv,
    ".tsv": _read_csv,
}


def _cast_features(values: np.ndarray, dtype: Any, names: Sequence[str], source: str) -> np.ndarray:
    """Return `(n_names, n_features)` numbers in a smaller type, refusing what is not finite, too
    large, or too small beside the others of its row."""
    kind = np.dtype(dtype)
    with np.errstate(over="ignore", under="ignore"):
        cast = np.ascontiguousarray(values, dtype=kind)
    is_given = np.isfinite(values).all(axis=1)
    is_kept = np.isfinite(cast).all(axis=1)
    largest = np.abs(values).max(axis=1, initial=0)
    lost = np.abs(cast.astype(np.float64) - values).max(axis=1, initial=0)
    is_near = lost <= max(1e-4, 4 * float(np.finfo(kind).eps)) * largest
    for is_good, what in (
        (is_given, "finite numbers, {name} has others"),
        (is_kept, f"numbers that {kind} can hold, {{name}} has larger ones"),
        (is_near, f"numbers that {kind} can hold, those of {{name}} are too small and would be "
                  "rounded. Multiply all features by one number"),
    ):  # fmt: skip
        if not is_good.all():
            name = names[int(np.argmin(is_good))]
            raise FeatureFileError(f"{source}: expected {what.format(name=name)}")
    return cast


def import_pyarrow() -> tuple[ModuleType, ModuleType]:
    """Return pyarrow and its Parquet part, which are an extra."""
    missing = (
        "Parquet files need pyarrow. Run: pip install 'tripletkit[parquet]', or take a name that "
        "ends in .npz."
    )
    pyarrow, parquet = import_extra(missing, "pyarrow", "pyarrow.parquet")
    return pyarrow, parquet


class DatasetPart(NamedTuple):
    """One file of a dataset, without its vectors."""

    path: Path
    names: list[str]
    contents: list[bytes | None]  # None where a file could not be read
    problems: list[str | None]  # None where there is a vector
    about: dict[str, Any]  # see `describe_vectors`

    def keep_rows(self, rows: Sequence[int]) -> None:
        """Write the file once more with some of its rows, and take the old one away."""
        if rows:
            _write_table(self.path.parent, _read_columns(self.path, None).take(rows))
        self.path.unlink()


def describe_vectors(features: Mapping[str, Any], n_features: int, dtype: str) -> dict[str, Any]:
    """Return what vectors of a dataset are: by which encoder, as its `facts`, and how kept."""
    about = {"format_version": _FORMAT, "features": features}
    return about | {"n_features": n_features, "dtype": dtype}


def list_parts(folder: Path) -> list[DatasetPart]:
    """Return what is in a dataset; all of one encoder."""
    import_pyarrow()
    with thread_pool() as pool:
        parts = list(pool.map(_read_part, sorted(folder.glob("part-*.parquet"))))
    for part in parts:
        if part.about != parts[0].about:
            raise FeatureFileError(
                f"{part.path}: expected features of the encoder that the other files there are "
                "of, got those of another"
            )
    return parts


def _read_part(path: Path) -> DatasetPart:
    table = _read_columns(path, ["name", "content", "problem"])
    about = json.loads(table.schema.metadata[_ABOUT])
    names, contents, problems = (column.to_pylist() for column in table.columns)
    return DatasetPart(path, names, contents, problems, about)


def _read_vectors(path: Path) -> np.ndarray:
    """Return all vectors of a file: `(n_rows, n_features)`, NaN where there is none."""
    vectors = _read_columns(path, ["vector"])["vector"].combine_chunks()
    values = vectors.values.to_numpy(zero_copy_only=False).astype(np.float32)
    return values.reshape(len(vectors), vectors.type.list_size)


def _read_columns(path: Path, columns: list[str] | None) -> Any:
    """Return columns of a file that `extract` wrote, all for None, as a table."""
    _, pq = import_pyarrow()
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            _check_schema(path, file.schema_arrow)
            return file.read(columns, use_threads=False)
    except FeatureFileError:
        raise
    # pyarrow raises many kinds for damaged files.
    except Exception as error:
        raise FeatureFileError(
            f"{path}: is damaged ({' '.join(str(error).split())}). Take the file away and run "
            "`extract` again, which makes it anew."
        ) from error


def _check_schema(path: Path, schema: Any) -> None:
    try:
        about = json.loads((schema.metadata or {})[_ABOUT])
        is_known = about["format_version"] == _FORMAT
        is_whole = not is_known or (
            isinstance(about["features"], dict) and schema.remove_metadata().equals(_schema(about))
        )
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise FeatureFileError(f"{path}: expected a file that `extract` wrote") from error
    if not is_known:
        raise FeatureFileError(
            f"{path}: expected features of format {_FORMAT}, got {about['format_version']}. "
            "Update tripletkit."
        )
    if not is_whole:
        raise FeatureFileError(
            f"{path}: expected a file that `extract` wrote, got the columns "
            + ", ".join(f"{field.name} ({field.type})" for field in schema)
        )


def _schema(about: Mapping[str, Any]) -> Any:
    pa, _ = import_pyarrow()
    number = {"float32": pa.float32(), "float16": pa.float16()}[about["dtype"]]
    return pa.schema(
        {
            "name": pa.string(),
            "content": pa.binary(32),
            "vector": pa.list_(number, about["n_features"]),
            "problem": pa.string(),
        }
    )


def write_part(
    folder: Path,
    names: Sequence[str],
    contents: Sequence[bytes | None],
    vectors: np.ndarray,
    problems: Sequence[str | None],
    about: Mapping[str, Any],
) -> None:
    """Write rows as one file, whole or not at all; vectors of rows with a problem do not count."""
    pa, _ = import_pyarrow()
    is_bad = np.array([problem is not None for problem in problems], bool)
    kept = np.where(is_bad[:, None], 0, vectors)
    values = _cast_features(kept, about["dtype"], names, str(folder))
    vector = pa.FixedSizeListArray.from_arrays(
        pa.array(values.ravel()), about["n_features"], mask=pa.array(is_bad)
    )
    schema = _schema(about).with_metadata({_ABOUT: _about_bytes(about)})
    table = pa.table(
        {"name": names, "content": contents, "vector": vector, "problem": problems}, schema
    )
    _write_table(folder, table)


def _write_table(folder: Path, table: Any) -> None:
    _, pq = import_pyarrow()
    names = _as_bytes(table["name"].to_pylist())
    path = folder / f"part-{hashlib.sha256(names).hexdigest()[:24]}.parquet"
    with open_output(path, "wb") as file:
        pq.write_table(
            table, file, compression="none", use_dictionary=False, write_page_checksum=True
        )


def _read_dataset(folder: Path) -> GivenFeatures:
    """Return the features in a folder that `extract` wrote."""
    parts = list_parts(folder)
    every = [name for part in parts for name in part.names]
    if not every:
        raise FeatureFileError(
            f"{folder}: expected a folder of features as `extract` writes it, there are none"
        )
    digest = hashlib.sha256(_about_bytes(parts[0].about))
    for part in parts:
        digest.update(_as_bytes(part.names) + b"".join(each or b"\0" for each in part.contents))
    _check_distinct(str(folder), every)
    names = [
        name
        for part in parts
        for name, problem in zip(part.names, part.problems, strict=True)
        if problem is None
    ]
    n_bad = len(every) - len(names)
    notes = (f"{n_bad:,} images have no features.",) if n_bad else ()
    facts = parts[0].about["features"]
    return GivenFeatures(names, _DatasetRows(parts), str(folder), digest.hexdigest(), notes, facts)


class _DatasetRows:
    """Vectors of a dataset, read when they are asked for, some files at a time."""

    def __init__(self, parts: Sequence[DatasetPart]) -> None:
        is_there = [np.array([each is None for each in part.problems], bool) for part in parts]
        self._paths = [part.path for part in parts]
        self._part_of = np.repeat(np.arange(len(parts)), [int(each.sum()) for each in is_there])
        self._row_of = np.concatenate([np.flatnonzero(each) for each in is_there])
        self.shape = (len(self._row_of), parts[0].about["n_features"])

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        """Return vectors: `(len(rows), n_features)` float32."""
        found = np.empty((len(rows), self.shape[1]), np.float32)
        part_of, row_of = self._part_of[rows], self._row_of[rows]
        order = np.argsort(part_of, kind="stable")
        asked = np.split(order, np.flatnonzero(np.diff(part_of[order])) + 1)

        def read(places: np.ndarray) -> None:
            if len(places):
                path = self._paths[part_of[places[0]]]
                found[places] = _read_vectors(path)[row_of[places]]

        with thread_pool() as pool:
            list(pool.map(read, asked))
        return found


def _about_bytes(about: Mapping[str, Any]) -> bytes:
    return json.dumps(about, sort_keys=True, ensure_ascii=False).encode()


def _as_bytes(names: Sequence[str]) -> bytes:
    return "\n".join(names).encode("utf-8", "surrogateescape")

"""Features of very many images as a Parquet dataset: files of some hundred rows in a folder.

Each row has the columns `name`, `content` (SHA-256 of the file), `vector` (a list of fixed length),
and `problem` where an image has none. Files appear whole or not at all, their pages have checksums,
and the metadata of each says what encoder the vectors are of. Any engine reads them.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from tripletkit.data.images import thread_pool
from tripletkit.data.outputs import open_output
from tripletkit.errors import FeatureFileError, MissingExtraError, StoreError

DTYPES = ("float32", "float16")
_ABOUT = b"tripletkit"
_FORMAT = 1
_PATTERN = "part-*.parquet"
_CONTENT_BYTES = 32


def import_pyarrow() -> tuple[ModuleType, ModuleType]:
    """Return pyarrow and its Parquet part, which are an extra."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise MissingExtraError(
            "Parquet files need pyarrow. Run: pip install 'tripletkit[parquet]', or take a name "
            "that ends in .npz."
        ) from error
    return pyarrow, pyarrow.parquet


def cast_features(values: np.ndarray, dtype: Any, names: Sequence[str], source: str) -> np.ndarray:
    """Return `(n_names, n_features)` numbers in a smaller type, refusing what it cannot hold.

    That is what is not finite, too large, or too small beside the others of its row.
    """
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


@dataclass(frozen=True)
class DatasetFacts:
    """What the vectors of a dataset are."""

    features: Mapping[str, Any]  # what decides them; see `Encoder.facts`
    n_features: int
    dtype: str  # one of `DTYPES`

    def to_metadata(self) -> dict[bytes, bytes]:
        about = {"format_version": _FORMAT, **vars(self)}
        return {_ABOUT: json.dumps(about, sort_keys=True, ensure_ascii=False).encode()}


@dataclass(frozen=True)
class DatasetPart:
    """One file of a dataset, without its vectors."""

    path: Path
    names: list[str]
    contents: list[bytes | None]  # None where a file could not be read
    problems: list[str | None]  # None where there is a vector
    facts: DatasetFacts


def list_parts(folder: Path) -> list[DatasetPart]:
    """Return what is in a dataset; all of one encoder."""
    import_pyarrow()
    with thread_pool() as pool:
        parts = list(pool.map(_read_part, sorted(folder.glob(_PATTERN))))
    for part in parts:
        if part.facts != parts[0].facts:
            raise FeatureFileError(
                f"{part.path}: expected features of the encoder that the other files there are "
                "of, got those of another"
            )
    return parts


def _read_part(path: Path) -> DatasetPart:
    wanted = ["name", "content", "problem"]
    table, metadata = _read_columns(path, wanted)
    facts = _read_facts(path, metadata)
    names, contents, problems = (table[name].to_pylist() for name in wanted)
    return DatasetPart(path, names, contents, problems, facts)


def _read_columns(path: Path, columns: list[str]) -> tuple[Any, Mapping[bytes, bytes] | None]:
    """Return columns of a file as a table, and its metadata."""
    _, pq = import_pyarrow()
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            return file.read(columns, use_threads=False), file.schema_arrow.metadata
    # pyarrow raises many kinds for damaged files.
    except Exception as error:
        raise FeatureFileError(
            f"{path}: is damaged ({' '.join(str(error).split())}). Take the file away and run "
            "`extract` again, which makes it anew."
        ) from error


def write_part(
    folder: Path,
    names: Sequence[str],
    contents: Sequence[bytes | None],
    vectors: np.ndarray,
    problems: Sequence[str | None],
    facts: DatasetFacts,
) -> Path:
    """Write rows as one file, whole or not at all; vectors of rows with a problem do not count."""
    pa, pq = import_pyarrow()
    is_bad = np.array([problem is not None for problem in problems], bool)
    kept = np.where(is_bad[:, None], 0, vectors)
    values = cast_features(kept, facts.dtype, names, str(folder))
    vector = pa.FixedSizeListArray.from_arrays(
        pa.array(values.ravel()), facts.n_features, mask=pa.array(is_bad)
    )
    columns = {
        "name": pa.array(names, pa.string()),
        "content": pa.array(contents, pa.binary(_CONTENT_BYTES)),
        "vector": vector,
        "problem": pa.array(problems, pa.string()),
    }
    table = pa.table(columns).replace_schema_metadata(facts.to_metadata())
    path = folder / f"part-{hashlib.sha256(_as_bytes(names)).hexdigest()[:24]}.parquet"
    try:
        with open_output(path, "wb") as file:
            pq.write_table(
                table, file, compression="none", use_dictionary=False, write_page_checksum=True
            )
    except OSError as error:
        raise StoreError(
            f"{folder}: the features cannot be written: {error.strerror or error}. Make room "
            "there, or choose another folder."
        ) from error
    return path


def keep_rows(part: DatasetPart, rows: Sequence[int]) -> None:
    """Write a file once more with some of its rows, and take the old one away."""
    if rows:
        write_part(
            part.path.parent,
            [part.names[row] for row in rows],
            [part.contents[row] for row in rows],
            np.nan_to_num(_read_vectors(part.path, part.facts.n_features))[list(rows)],
            [part.problems[row] for row in rows],
            part.facts,
        )
    part.path.unlink()


class DatasetRows:
    """Vectors of a dataset, read when they are asked for, some files at a time."""

    def __init__(self, parts: Sequence[DatasetPart]) -> None:
        is_there = [np.array([each is None for each in part.problems], bool) for part in parts]
        self._paths = [part.path for part in parts]
        self._part_of = np.repeat(np.arange(len(parts)), [int(each.sum()) for each in is_there])
        self._row_of = np.concatenate([np.flatnonzero(each) for each in is_there])
        self.shape = (len(self._row_of), parts[0].facts.n_features)

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
                found[places] = _read_vectors(path, self.shape[1])[row_of[places]]

        with thread_pool() as pool:
            list(pool.map(read, asked))
        return found


class FeatureDataset:
    """A folder that `extract` wrote, opened for reading.

    Attributes:
        names: of the images that have features, distinct.
        rows: their vectors.
        facts: what decides these.
        sha256: of names, contents and facts, hexadecimal.
        n_bad: images that have none.
    """

    def __init__(self, folder: Path) -> None:
        parts = list_parts(folder)
        if not parts:
            raise FeatureFileError(
                f"{folder}: expected a folder of features as `extract` writes it, there are none"
            )
        facts = parts[0].facts
        digest = hashlib.sha256(facts.to_metadata()[_ABOUT])
        for part in parts:
            digest.update(_as_bytes(part.names) + b"".join(each or b"\0" for each in part.contents))
        every = Counter(name for part in parts for name in part.names)
        if (n_rows := every.total()) > len(every):
            name = every.most_common(1)[0][0]
            raise FeatureFileError(f'{folder}: expected distinct names, got "{name}" twice')
        self.rows = DatasetRows(parts)
        self.names = [
            name
            for part in parts
            for name, problem in zip(part.names, part.problems, strict=True)
            if problem is None
        ]
        self.facts = facts.features
        self.sha256 = digest.hexdigest()
        self.n_bad = n_rows - len(self.names)


def _as_bytes(names: Sequence[str]) -> bytes:
    return "\n".join(names).encode("utf-8", "surrogateescape")


def _read_facts(path: Path, metadata: Mapping[bytes, bytes] | None) -> DatasetFacts:
    try:
        about = json.loads((metadata or {})[_ABOUT])
        version = about.pop("format_version")
        facts = DatasetFacts(**about)
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise FeatureFileError(f"{path}: expected a file that `extract` wrote") from error
    if version != _FORMAT:
        raise FeatureFileError(
            f"{path}: expected features of format {_FORMAT}, got {version}. Update tripletkit."
        )
    return facts


def _read_vectors(path: Path, n_features: int) -> np.ndarray:
    """Return all vectors of a file: `(n_rows, n_features)`, NaN where there is none."""
    table, _ = _read_columns(path, ["vector"])
    vectors = table["vector"].combine_chunks()
    if not hasattr(vectors, "values"):
        vectors = vectors.chunk(0)
    values = vectors.values.to_numpy(zero_copy_only=False).astype(np.float32)
    return values.reshape(len(vectors), n_features)

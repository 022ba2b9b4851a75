"""Features of very many images as a Parquet dataset: files of some hundred rows in a folder.

Each row has the columns `name`, `content` (SHA-256 of the file), `vector` (a list of fixed length),
and `problem` where an image has none. Files appear whole or not at all, their pages have checksums,
and the metadata of each says what encoder the vectors are of. Any engine reads them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from tripletkit.data.unfinished import unfinished_file
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
    """What the vectors of a dataset are.

    Attributes:
        features: what decides them; see `Encoder.facts`.
        n_features: numbers of each.
        dtype: how they are kept, one of `DTYPES`.
    """

    features: Mapping[str, Any]
    n_features: int
    dtype: str

    def to_metadata(self) -> dict[bytes, bytes]:
        about = {"format_version": _FORMAT, **vars(self)}
        return {_ABOUT: json.dumps(about, sort_keys=True, ensure_ascii=False).encode()}


@dataclass(frozen=True)
class DatasetPart:
    """One file of a dataset, without its vectors.

    Attributes:
        path: the file.
        names, contents: of its rows; the content is None where a file could not be read.
        problems: of its rows; None where there is a vector.
    """

    path: Path
    names: list[str]
    contents: list[bytes | None]
    problems: list[str | None]


def list_parts(folder: Path) -> tuple[list[DatasetPart], DatasetFacts | None]:
    """Return what is in a dataset, and of what encoder; None where there is nothing yet."""
    _, pq = import_pyarrow()
    parts, facts = [], None
    for path in sorted(folder.glob(_PATTERN)):
        try:
            with pq.ParquetFile(path, page_checksum_verification=True) as file:
                own = _read_facts(path, file.schema_arrow.metadata)
                table = file.read(["name", "content", "problem"], use_threads=False)
        except FeatureFileError:
            raise
        # pyarrow raises many kinds for damaged files.
        except Exception as error:
            raise _damaged(path, error) from error
        if facts is not None and own != facts:
            raise FeatureFileError(
                f"{path}: expected features of the encoder that the other files there are of, "
                "got those of another"
            )
        facts = own
        columns = table.to_pydict()
        parts.append(DatasetPart(path, columns["name"], columns["content"], columns["problem"]))
    return parts, facts


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
    text = "\n".join(names).encode("utf-8", "surrogateescape")
    path = folder / f"part-{hashlib.sha256(text).hexdigest()[:24]}.parquet"
    try:
        with unfinished_file(path, "wb") as file:
            pq.write_table(
                table, file, compression="none", use_dictionary=False, write_page_checksum=True
            )
    except OSError as error:
        raise StoreError(
            f"{folder}: the features cannot be written: {error.strerror or error}. Make room "
            "there, or choose another folder."
        ) from error
    return path


def keep_rows(part: DatasetPart, rows: Sequence[int], facts: DatasetFacts) -> None:
    """Write a file once more with some of its rows, and take the old one away."""
    if rows:
        vectors = np.nan_to_num(_read_vectors(part.path, facts.n_features))
        write_part(
            part.path.parent,
            [part.names[row] for row in rows],
            [part.contents[row] for row in rows],
            vectors[list(rows)],
            [part.problems[row] for row in rows],
            facts,
        )
    part.path.unlink()


class DatasetRows:
    """Vectors of a dataset, read when they are asked for, one file at a time."""

    def __init__(self, parts: Sequence[DatasetPart], n_features: int) -> None:
        rows = [
            (number, row)
            for number, part in enumerate(parts)
            for row, problem in enumerate(part.problems)
            if problem is None
        ]
        self._paths = [part.path for part in parts]
        self._places = np.array(rows, np.int64).reshape(len(rows), 2)
        self.shape = (len(rows), n_features)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        """Return vectors: `(len(rows), n_features)` float32."""
        found = np.empty((len(rows), self.shape[1]), np.float32)
        places = self._places[rows]
        order = np.argsort(places[:, 0], kind="stable")
        ends = np.flatnonzero(np.diff(places[order, 0])) + 1
        for asked in np.split(order, ends):
            if len(asked):
                path = self._paths[places[asked[0], 0]]
                found[asked] = _read_vectors(path, self.shape[1])[places[asked, 1]]
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
        parts, facts = list_parts(folder)
        if facts is None:
            raise FeatureFileError(
                f"{folder}: expected a folder of features as `extract` writes it, there are none"
            )
        digest = hashlib.sha256(facts.to_metadata()[_ABOUT])
        seen: set[str] = set()
        for part in parts:
            for name, content in zip(part.names, part.contents, strict=True):
                if name in seen:
                    raise FeatureFileError(
                        f'{part.path}: expected distinct names, got "{name}" twice'
                    )
                seen.add(name)
                digest.update(name.encode("utf-8", "surrogateescape") + b"\0" + (content or b""))
        self.rows = DatasetRows(parts, facts.n_features)
        self.names = [
            name
            for part in parts
            for name, problem in zip(part.names, part.problems, strict=True)
            if problem is None
        ]
        self.facts = facts.features
        self.sha256 = digest.hexdigest()
        self.n_bad = sum(map(len, (part.names for part in parts))) - len(self.names)


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
    pa, pq = import_pyarrow()
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            column = file.read(["vector"], use_threads=False)["vector"].combine_chunks()
        if isinstance(column, pa.ChunkedArray):
            column = column.chunk(0)
        values = column.values.to_numpy(zero_copy_only=False).astype(np.float32)
        return values.reshape(len(column), n_features)
    # pyarrow raises many kinds for damaged files.
    except Exception as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> FeatureFileError:
    why = " ".join(str(error).split())
    return FeatureFileError(
        f"{path}: is damaged ({why}). Take the file away and run `extract` again, which makes it "
        "anew."
    )

"""Embeddings of images with their names: what `Model.embed` gives."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import IO

import numpy as np
import pandas as pd

from tripletkit.api.given import PathLike
from tripletkit.data.outputs import OutputFile, OutputForm, Outputs, as_one_run, open_output
from tripletkit.data.text_files import guard_formula
from tripletkit.features.given_features import import_pyarrow
from tripletkit.results import Result, Section, Table


@dataclass(frozen=True, repr=False)
class Embeddings(Result):
    """Vectors of images, in the order of their names; `embeddings[name]` is that of one image.

    Attributes:
        names: of the images, distinct.
        vectors: `(n_images, n_dims)` float32.
        distance: that belongs to the vectors: `"l2"`, `"l1"`, `"squared-l2"` or `"cosine"`.
        contents: SHA-256 of each image's content, by which copies are known; None where features
            are given without an image.
    """

    names: list[str]
    vectors: np.ndarray
    distance: str
    contents: Sequence[bytes | None]

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, names: str | Sequence[str]) -> np.ndarray:
        """Return the vector of an image, `(n_dims,)`, or those of several, `(n_names, n_dims)`."""
        if isinstance(names, str):
            return np.asarray(self.vectors[self._place(names)])
        return self.vectors[[self._place(name) for name in names]]

    def __contains__(self, name: object) -> bool:
        return name in self._places

    def take(self, names: Sequence[str]) -> Embeddings:
        """Return those of some images, by name."""
        places = [self._place(name) for name in names]
        contents = [self.contents[place] for place in places]
        return Embeddings(list(names), self.vectors[places], self.distance, contents)

    def to_dict(self) -> dict[str, list[float]]:
        """Return name -> vector, as JSON takes them."""
        return dict(zip(self.names, self.vectors.tolist(), strict=True))

    def _summary(self) -> str:
        width = f"{self.vectors.shape[1]:,} numbers each"
        return f"{len(self):,} images, {width}, {self.distance} distance"

    def _sections(self) -> list[Section]:
        rows = [
            [name, " ".join(f"{number:.3f}" for number in vector[:6]) + " ..." * (len(vector) > 6)]
            for name, vector in zip(self.names[:5], self.vectors[:5], strict=True)
        ]
        return [[self._summary(), *([Table(rows, has_heading=False)] if rows else [])]]

    @cached_property
    def _places(self) -> dict[str, int]:
        return {name: place for place, name in enumerate(self.names)}

    def _place(self, name: str) -> int:
        if name not in self._places:
            near = difflib.get_close_matches(name, self.names, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise KeyError(f"no image is called {name!r}{hint}")
        return self._places[name]

    def __array__(self, dtype: np.dtype | None = None, copy: bool | None = None) -> np.ndarray:
        """Return the vectors, so that NumPy and scikit-learn take embeddings as they are."""
        return np.array(self.vectors, dtype=dtype, copy=copy)

    def identities(self) -> list[bytes | str]:
        """Return by what each image is known again: its content, or its name without an image."""
        pairs = zip(self.contents, self.names, strict=True)
        return [name if content is None else content for content, name in pairs]

    def to_frame(self) -> pd.DataFrame:
        """Return a table with a row for each image, indexed by `name`, and a column a number."""
        return pd.DataFrame(self.vectors, index=pd.Index(self.names, name="name"))

    @as_one_run
    def write(self, path: PathLike, *, overwrite: bool = False) -> None:
        """Write names and vectors to a file, whole or not at all.

        Args:
            path: its suffix says the format: `.parquet` (columns name and vector, a list of
                float32 of fixed length), `.csv` (name, 0, 1, ...; with an apostrophe before a name
                that a spreadsheet would take for a formula), or `.npz` (arrays names and vectors).
            overwrite: replace a file of embeddings that is there; nothing else ever is.
        Raises:
            OutputError: if the suffix is another, or the file cannot be written, or would replace
                something it may not.
        """
        self._write(open_vector_file(path, overwrite=overwrite))

    def _write(self, file: OutputFile) -> None:
        with open_output(file, "wb") as out:
            _WRITERS[file.path.suffix.lower()](out, self.names, self.vectors)


def open_vector_file(path: PathLike, *, overwrite: bool) -> OutputFile:
    """Refuse early what writing would refuse after the work."""
    path = Path(path)
    if path.suffix.lower() == ".parquet":
        import_pyarrow()
    form = OutputForm(
        f"a {path.suffix} file of vectors as tripletkit wrote it",
        is_recorded=True,
        suffixes=_WRITERS,
    )
    return Outputs(overwrite=overwrite).file(path, form)


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

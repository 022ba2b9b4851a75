"""Images by the names that triplet files have for them, for the benchmarks beside it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

import tripletkit as tk


def paths_of(images: Path, names: Sequence[str]) -> list[Path]:
    """Return the file of each name, which may be with or without its extension."""
    paths = {path.stem: path for path in images.rglob("*") if path.is_file()}
    paths |= {path.relative_to(images).as_posix(): path for path in paths.values()}
    return [paths[name] for name in names]


def vectors_of(model: tk.Model, images: Path, names: Sequence[str]) -> np.ndarray:
    """Return the embeddings of named images, `(n_names, n_dims)` float32."""
    return model.embed(paths_of(images, names), names=names).vectors

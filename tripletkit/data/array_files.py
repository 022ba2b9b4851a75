"""NumPy archives of named arrays, read with suspicion."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np

from tripletkit.data.outputs import note_input
from tripletkit.errors import FeatureFileError


def read_array_file(path: Path) -> dict[str, np.ndarray]:
    """Read all arrays of an `.npz` file; refuse one with objects, which would run code."""
    note_input(path)
    data = io.BytesIO(path.read_bytes())
    if not zipfile.is_zipfile(data):
        raise FeatureFileError("it is no NumPy archive (.npz)")
    try:
        with zipfile.ZipFile(data) as archive:
            # The checksum of every member; NumPy alone would miss damage behind an array's end.
            if (damaged := archive.testzip()) is not None:
                raise FeatureFileError(f"its array {damaged.removesuffix('.npy')} is damaged")
        data.seek(0)
        with np.load(data, allow_pickle=False) as arrays:
            return {name: np.asarray(arrays[name]) for name in arrays.files}
    except FeatureFileError:
        raise
    # Damage raises anything; NumPy's advice to load unsafely is not handed on.
    except Exception as error:
        raise FeatureFileError("it is damaged, or no NumPy archive of plain arrays") from error

"""NumPy archives of named arrays, read with suspicion."""

from __future__ import annotations

import io
import zipfile
import zlib
from pathlib import Path

import numpy as np

from tripletkit.data.outputs import note_input
from tripletkit.errors import ArrayFileError


def read_array_file(path: Path) -> dict[str, np.ndarray]:
    """Read all arrays of an `.npz` file that `numpy.savez` wrote.

    Raises:
        ArrayFileError: saying what is wrong, if it is another file, damaged, or holds objects,
            which would run code.
        OSError: if it cannot be read at all.
    """
    note_input(path)
    data = io.BytesIO(path.read_bytes())
    if not zipfile.is_zipfile(data):
        raise ArrayFileError("it is no NumPy archive (.npz)")
    try:
        with zipfile.ZipFile(data) as archive:
            # The checksum of every member; NumPy alone would miss damage behind an array's end.
            if (damaged := archive.testzip()) is not None:
                raise ArrayFileError(f"its array {damaged.removesuffix('.npy')} is damaged")
        data.seek(0)
        with np.load(data, allow_pickle=False) as arrays:
            return {name: np.asarray(arrays[name]) for name in arrays.files}
    except ArrayFileError:
        raise
    # What damaged archives make zipfile and NumPy raise; NumPy's advice to load unsafely is not
    # handed on.
    except (
        zipfile.BadZipFile,
        zlib.error,
        ArithmeticError,
        EOFError,
        LookupError,
        MemoryError,
        RuntimeError,
        SyntaxError,
        TypeError,
        ValueError,
    ) as error:
        raise ArrayFileError("it is damaged, or no NumPy archive of plain arrays") from error

"""A file of arrays comes back as it was written, or is refused in words of ours."""

from __future__ import annotations

import io
import pickle

import numpy as np
import pytest

from tripletkit.data.array_files import read_array_file
from tripletkit.errors import FeatureFileError

ARRAYS = {
    "text": np.frombuffer(b'{"version": 1}', np.uint8),
    "state/0": np.arange(12, dtype=np.float32).reshape(3, 4),
    "empty": np.empty((0, 2)),
    "name": np.array("é"),
}


def write(path, **arrays):
    np.savez(path, **arrays)
    return path


def same(found):
    return found.keys() == ARRAYS.keys() and all(
        found[name].dtype == array.dtype and np.array_equal(found[name], array)
        for name, array in ARRAYS.items()
    )


def test_arrays_come_back(tmp_path):
    assert same(read_array_file(write(tmp_path / "a.npz", **ARRAYS)))


@pytest.mark.slow
@pytest.mark.parametrize("bit", range(8))
def test_a_flipped_bit_never_changes_an_array(tmp_path, bit):
    path = write(tmp_path / "a.npz", **ARRAYS)
    whole = path.read_bytes()
    n_refused = 0
    for place in range(len(whole)):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << bit
        path.write_bytes(damaged)
        try:
            # A bit of a date, or of a name's spelling, is no part of what was stored.
            found = read_array_file(path)
            assert found.keys() != ARRAYS.keys() or same(found), place
        except FeatureFileError:
            n_refused += 1
    assert n_refused > len(whole) / 2


def objects():
    buffer = io.BytesIO()
    np.savez(buffer, text=np.array([{}], dtype=object))
    return buffer.getvalue()


@pytest.mark.parametrize(
    "content",
    [b"", b"PK\x03\x04 no archive", b"text\n", pickle.dumps([1]), objects()],
    ids=["empty", "cut", "text", "pickle", "objects"],
)
def test_another_file_is_refused_without_advice_to_load_it(tmp_path, content):
    path = tmp_path / "a.npz"
    path.write_bytes(content)
    with pytest.raises(FeatureFileError) as caught:
        read_array_file(path)
    for word in ("pickle", "unsafe", "allow"):
        assert word not in str(caught.value)

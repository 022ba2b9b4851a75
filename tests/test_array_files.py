"""A file of arrays comes back as it was written, or is refused in words of ours."""

from __future__ import annotations

import io
import pickle

import numpy as np
import pytest

from tripletkit import TripletkitError
from tripletkit.data.array_files import read_array_file

ARRAYS = {
    "text": np.frombuffer(b'{"version": 1}', np.uint8),
    "state/0": np.arange(12, dtype=np.float32).reshape(3, 4),
    "empty": np.empty((0, 2)),
    "name": np.array("é"),
}


def archive(**arrays):
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def same(found):
    return found.keys() == ARRAYS.keys() and all(
        found[name].dtype == array.dtype and np.array_equal(found[name], array)
        for name, array in ARRAYS.items()
    )


@pytest.mark.slow
def test_arrays_come_back_and_a_flipped_bit_never_changes_one(tmp_path):
    path, whole = tmp_path / "a.npz", archive(**ARRAYS)
    path.write_bytes(whole)
    assert same(read_array_file(path))
    n_refused = 0
    for place in range(len(whole)):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << place % 8
        path.write_bytes(damaged)
        try:
            # A bit of a date, or of a name's spelling, is no part of what was stored.
            found = read_array_file(path)
            assert found.keys() != ARRAYS.keys() or same(found), place
        except TripletkitError:
            n_refused += 1
    assert n_refused > len(whole) / 2


@pytest.mark.parametrize(
    "content",
    [b"", b"PK\x03\x04 no archive", b"text\n", pickle.dumps([1]), archive(x=np.array([{}]))],
    ids=["empty", "cut", "text", "pickle", "objects"],
)
def test_another_file_is_refused_without_advice_to_load_it(tmp_path, content):
    path = tmp_path / "a.npz"
    path.write_bytes(content)
    with pytest.raises(TripletkitError) as caught:
        read_array_file(path)
    for word in ("pickle", "unsafe", "allow"):
        assert word not in str(caught.value)

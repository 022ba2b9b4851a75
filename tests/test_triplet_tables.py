"""Triplets come as tables and arrays, too; what is no triplet must be refused with its place."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from opened import rows_of as named

from tripletkit import TripletkitError, Triplets, read_judgements

FRAME = pd.DataFrame(
    {"judge": [1, 2], "negative": ["c", "b"], "Anchor": ["a", "00123"], "positive": ["b", "a"]}
)


def test_a_frame_is_read_by_its_columns_in_any_order():
    triplets = read_judgements(FRAME).triplets
    assert named(triplets) == [("a", "b", "c"), ("00123", "a", "b")]
    assert triplets.rows.dtype == np.int32
    assert triplets.place(1) == "DataFrame:1"
    no_heading = read_judgements(pd.DataFrame([["x", "y", "z"]]))
    assert named(no_heading.triplets) == [("x", "y", "z")]


@pytest.mark.parametrize(
    ("frame", "columns", "message"),
    [
        (pd.DataFrame({"x": ["a"], "y": ["b"], "z": ["c"]}), None, "got x, y, z"),
        (FRAME, {"anchor": "Anchor", "negative": "other"}, 'a column "other"'),
        (FRAME, {"anchor": "Anchor", "winner": "judge", "x": "y"}, "expected one of"),
        (pd.DataFrame({"a": [123], "b": ["x"], "c": ["y"]}), None, 'column "a".*got 123'),
        (pd.DataFrame({"a": ["x"], "b": [None], "c": ["y"]}), None, 'column "b".*got None'),
        (pd.DataFrame({"a": ["x"], "b": [""], "c": ["y"]}), None, "an empty one"),
    ],
)
def test_other_frames_are_refused(frame, columns, message):
    with pytest.raises(TripletkitError, match=message):
        read_judgements(frame, columns=columns)


def test_from_array_leaves_out_names_that_no_row_has():
    triplets = Triplets.from_array([[3, 0, 1]], ["p", "q", "unused", "r"])
    assert triplets.names == ["r", "p", "q"]
    assert named(triplets) == [("r", "p", "q")]


@pytest.mark.parametrize(
    ("rows", "names", "message"),
    [
        ([[0, 1]], ["a", "b"], r"shape \(n_triplets, 3\)"),
        ([[0.0, 1.0, 2.0]], ["a", "b", "c"], "integer array.*got float64"),
        ([[0, 1, 3]], ["a", "b", "c"], "from 0 to 2, got 0 to 3"),
        ([[0, 1, -1]], ["a", "b", "c"], "got -1 to 1"),
        ([[0, 1, 2]], ["a", "b", "a"], 'distinct names, got "a"'),
    ],
)
def test_from_array_refuses_other_arrays(rows, names, message):
    with pytest.raises(TripletkitError, match=message):
        Triplets.from_array(np.array(rows), names)

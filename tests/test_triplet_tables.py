"""Triplets come as tables and arrays, too; what is no triplet must be refused with its place."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tripletkit.data.triplets import Triplets
from tripletkit.errors import TripletFileError

FRAME = pd.DataFrame(
    {"judge": [1, 2], "negative": ["c", "b"], "Anchor": ["a", "00123"], "positive": ["b", "a"]}
)


def named(triplets: Triplets) -> list[tuple[str, ...]]:
    return [tuple(triplets.names[index] for index in row) for row in triplets.rows]


def test_from_frame_takes_columns_by_name_in_any_order():
    triplets = Triplets.from_frame(FRAME)
    assert named(triplets) == [("a", "b", "c"), ("00123", "a", "b")]
    assert triplets.rows.dtype == np.int32
    assert triplets.place(1) == "DataFrame:1"


def test_from_frame_takes_the_columns_that_are_named():
    triplets = Triplets.from_frame(FRAME, columns=["positive", "Anchor", "negative"])
    assert named(triplets)[0] == ("b", "a", "c")


def test_from_frame_takes_columns_without_names_by_position():
    assert named(Triplets.from_frame(pd.DataFrame([["x", "y", "z"]]))) == [("x", "y", "z")]


@pytest.mark.parametrize(
    ("frame", "columns", "message"),
    [
        (pd.DataFrame({"x": ["a"], "y": ["b"], "z": ["c"]}), None, "a, b, c.*got x, y, z"),
        (FRAME, ["Anchor", "positive", "other"], "there is no 'other'"),
        (FRAME, ["Anchor"], "three columns of the table"),
        (pd.DataFrame({"a": [123], "b": ["x"], "c": ["y"]}), None, "column 'a'.*got 123"),
        (pd.DataFrame({"a": ["x"], "b": [None], "c": ["y"]}), None, "column 'b'.*got None"),
        (pd.DataFrame({"a": ["x"], "b": [""], "c": ["y"]}), None, "column 'b'.*got ''"),
    ],
)
def test_from_frame_refuses_other_tables(frame, columns, message):
    with pytest.raises(TripletFileError, match=message):
        Triplets.from_frame(frame, columns)


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
    with pytest.raises(TripletFileError, match=message):
        Triplets.from_array(np.array(rows), names)


@pytest.mark.slow
@given(st.lists(st.tuples(*[st.integers(0, 6)] * 3), max_size=20))
def test_a_table_of_triplets_gives_them_back(rows):
    names = [f"image {number}.png" for number in range(7)]
    triplets = Triplets.from_array(np.array(rows, dtype=np.int64).reshape(-1, 3), names)
    again = Triplets.from_frame(triplets.to_frame())
    assert named(again) == named(triplets) == [tuple(names[index] for index in row) for row in rows]

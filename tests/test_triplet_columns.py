"""Columns are taken by their names, and a heading that is not known is never read as a triplet."""

from __future__ import annotations

import io
import warnings

import numpy as np
import pandas as pd
import pytest
from opened import open_text, read_triplets, rows_of, scan_triplets

from tripletkit import DataWarning, TripletkitError, Triplets, read_judgements


def read(text, name="t.csv"):
    return rows_of(read_triplets(io.BytesIO(text.encode()), name))


def error_of(text, name="t.csv"):
    with pytest.raises(TripletkitError) as caught:
        read(text, name)
    return str(caught.value)


@pytest.mark.parametrize("name", ["t.csv", "t.txt", "<stdin>"])
@pytest.mark.parametrize(
    "text",
    [
        "negative,anchor,positive\nz.jpg,x.jpg,y.jpg\n",
        "Negative; Anchor; Positive\nz.jpg; x.jpg; y.jpg\n",
        "negative\tanchor\tpositive\nz.jpg\tx.jpg\ty.jpg\n",
        "negative anchor positive\nz.jpg x.jpg y.jpg\n",
        "c,b,a\nz.jpg,y.jpg,x.jpg\n",
        "second,first,query\nz.jpg,y.jpg,x.jpg\n",
        "second,first,anchor\nz.jpg,y.jpg,x.jpg\n",
        "imgC;imgB;imgA\nz.jpg;y.jpg;x.jpg\n",
        "far|anchor|close\nz.jpg|x.jpg|y.jpg\n",
        "sep=|\nneg|query_path|pos\nz.jpg|x.jpg|y.jpg\n",
        '{"negative": "z.jpg", "anchor": "x.jpg", "positive": "y.jpg"}\n',
        '[["x.jpg", "y.jpg", "z.jpg"]]',
        '# of May\n\n"negative","anchor","positive"\n"z.jpg","x.jpg","y.jpg"\n',
        "x.jpg,y.jpg,z.jpg\n",
        "x.jpg;y.jpg;z.jpg\n",
        "x.jpg; y.jpg; z.jpg\n",
        "x.jpg, y.jpg, z.jpg\n",
    ],
)
def test_columns_are_taken_by_name_in_any_order(text, name):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read(text, name) == [("x.jpg", "y.jpg", "z.jpg")]


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_other_columns_are_named_once_and_ignored(separator):
    lines = [
        ["", "rater", "negative", "anchor", "note", "positive"],
        ["0", "ann", "z z.jpg", "x.jpg", '"a, ""b""; \t\nc"', "y.jpg"],
        ["1", "bob", "x.jpg", '"y.jpg"', "", "z z.jpg"],
    ]
    text = "\n".join(separator.join(line) for line in lines)
    with pytest.warns(DataWarning) as caught:
        rows = read(text)
    assert rows == [("x.jpg", "y.jpg", "z z.jpg"), ("y.jpg", "z z.jpg", "x.jpg")]
    assert [str(warning.message) for warning in caught] == [
        't.csv: columns that are not read: "(no name)", "rater", "note"'
    ]


def test_rows_that_do_not_fit_the_heading_are_refused_by_line():
    text = "id,anchor,positive,negative\n1,x,y,z\n2,x,y\n\n3,x,,z\n4,x,y,z,w\n"
    scan = scan_triplets(io.BytesIO(text.encode()), "t.csv")
    assert list(scan.place_problems()) == [
        't.csv:3: expected 4 columns as in the heading, got 3 ("2,x,y")',
        't.csv:5: expected an image name, got an empty one in "x,,z"',
        't.csv:6: expected 4 columns as in the heading, got 5 ("4,x,y,z,w")',
    ]
    assert scan.triplets.lines.tolist() == [2]


@pytest.mark.parametrize(
    "text",
    [
        "ref,x,y\n1.jpg,2.jpg,3.jpg\n",
        "image1,image2,image3\nx,y,z\n",
        "cat,dog,horse\n1.jpg,2.jpg,3.jpg\n",
        "cat dog horse\n001 002 003\n",
        "cat,dog,horse\nx/1,x/2,y/2\n",
        "rater,img1,img2,img3\nann,x,y,z\n",
    ],
)
def test_a_heading_that_is_not_known_is_refused(text):
    for name in ("t.csv", "t.txt"):
        message = error_of(text, name)
        assert message.startswith(f"{name}:1: expected a heading with anchor,positive,negative; ")
        assert "looks like a heading that is not known" in message


@pytest.mark.parametrize(
    "text",
    [
        "cat,dog,horse\nhorse,cow,cat\n",
        "cat dog horse\ncow pig hen\n",
        "cat dog horse\n",
        "image1 image2 image3\nimage4 image5 image6\n",
        "image1 image2 image3\n",
        "left target right\nright left target\n",
        "00001.jpg 00002.jpg 00003.jpg\n4 5 6\n",
        "a b c\n1.jpg a 2.jpg\n",
    ],
)
def test_names_without_extension_stay_names(text):
    rows = text.replace(",", " ").splitlines()
    assert read(text) == [tuple(row.split()) for row in rows]


def test_names_that_look_like_a_heading_can_be_read_below_one():
    text = "ref,x,y\n1.jpg,2.jpg,3.jpg\n"
    escape = error_of(text).partition('put the line "')[2].partition('"')[0]
    assert read(f"{escape}\n{text}")[0] == ("ref", "x", "y")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b,c,anchor,positive,negative\n1,2,3,4,5,6\n", "t.csv:1: expected the columns of one"),
        ("anchor,positive,negative,anchor\n1,2,3,4\n", 't.csv:1: expected each column once, got "'),
        ("7,x,y,z\n", "t.csv:1: expected 3 image names, got 4 .*More columns need a heading"),
    ],
)
def test_headings_that_leave_a_choice_are_refused(text, message):
    with pytest.raises(TripletkitError, match=message):
        read(text)


@pytest.mark.parametrize(
    ("heading", "is_answered"),
    [
        (("anchor", "positive", "negative"), True),
        (("head", "winner", "loser"), True),
        (("query", "first", "second"), False),
        (("ref", "left", "right"), False),
        (("anchor", "first", "second"), None),
        (("a", "b", "c"), None),
    ],
)
def test_the_heading_says_whether_triplets_are_answered(heading, is_answered):
    triplets = read_triplets(io.BytesIO(f"{','.join(heading)}\nx,y,z\n".encode()), "t.csv")
    assert triplets.is_answered is is_answered
    assert triplets.take(np.array([0])).is_answered is is_answered
    if is_answered is False:
        with pytest.raises(TripletkitError, match=r"t\.csv: expected judgements"):
            triplets.check_answered()
    else:
        triplets.check_answered()


def test_tabs_are_blanks_unless_the_file_is_a_table():
    assert read("a\tb\tc\nx\ty\tz\n", "t.txt") == [("a", "b", "c"), ("x", "y", "z")]
    assert read("a\tb\tc\nx\ty\tz\n", "t.tsv") == [("x", "y", "z")]
    assert read("my x\ty\tz\n", "t.txt") == [("my x", "y", "z")]


@pytest.mark.parametrize(
    ("columns", "rows", "share"),
    [
        ("votes_b,votes_c,c,b,a", ["4,1,z,y,x", "2,2,y,z,x"], [0.8, 0.5]),
        ("a,b,c,share", ["x,y,z,0.8", "x,z,y,.5"], [0.8, 0.5]),
        ("anchor;first;second;votes_c;votes_b", ["x;y;z;1;4", "x;z;y;2;2"], [0.8, 0.5]),
        ("a\tb\tc\tvotes_b\tvotes_c", ["x\ty\tz\t4\t1", "x\tz\ty\t2\t2"], [0.8, 0.5]),
        ("anchor,positive,negative", ["x,y,z", "x,z,y"], None),
    ],
)
def test_columns_of_votes_are_votes(columns, rows, share):
    text = "\n".join([columns, *rows]) + "\n"
    judgements = open_text(text)
    triplets, votes = judgements.triplets, judgements.votes
    assert triplets.rows.tolist() == [[triplets.names.index(name) for name in row]
                                      for row in ("xyz", "xzy")]  # fmt: skip
    assert votes is None if share is None else votes.share.tolist() == share


def test_votes_that_cannot_be_read_are_refused_by_line():
    with pytest.raises(TripletkitError, match=r"t\.csv:2: expected two numbers of votes"):
        open_text("a,b,c,votes_b,votes_c\nx,y,z,1,1e308\n")


FRAME = pd.DataFrame(
    {"judge": [1, 2], "negative": ["c", "b"], "Anchor": ["a", "00123"], "positive": ["b", "a"]}
)


def test_a_frame_is_read_by_its_columns_in_any_order():
    triplets = read_judgements(FRAME).triplets
    assert rows_of(triplets) == [("a", "b", "c"), ("00123", "a", "b")]
    assert triplets.rows.dtype == np.int32
    assert triplets.place(1) == "DataFrame:1"
    no_heading = read_judgements(pd.DataFrame([["x", "y", "z"]]))
    assert rows_of(no_heading.triplets) == [("x", "y", "z")]


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
    assert rows_of(triplets) == [("r", "p", "q")]


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

"""Triplet files as text: every layout and heading, refusals with their place, odd lines."""

from __future__ import annotations

import subprocess
import sys
import warnings

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opened import NamedBytes, open_text, read_labels, read_triplets, rows_of

import tripletkit as tk
from tripletkit import DataWarning, TripletkitError, Triplets
from tripletkit.data.text_files import parse_number
from tripletkit.data.triplets import write_triplets

ROWS = [("a", "b", "c"), ("d", "e", "f")]
PLAIN = "a b c\nd e f\n"


def read(data, name="t.txt"):
    return rows_of(open_text(data, name).triplets)


@pytest.mark.parametrize(
    "data",
    [
        *(PLAIN, "\ufeff" + PLAIN, "a b c\r\nd e f\n", PLAIN.replace("\n", "\r"), "a b c\nd e f"),
        "a\tb\tc\nd \t e  f \t\n",
        "  a b c\n\n \n\td e f\n\n",
        "# judged in May\na b c # sure\nd e f\n",
        "anchor positive negative\na b c\nd e f\n",
        "\n# heading\nANCHOR first Second\na b c\nd e f\n",
        '"a" b "c"\nd e f\n',
        "A,B,C\n\na, b ,c\nd , e,\tf\n# end\n",
        'a,b,c\n"a","b","c"\n"d",e,f\n',
        "negative,anchor,positive\nc,a,b\nf,d,e\n",
        "Negative; Anchor; Positive\nc; a; b\nf; d; e\n",
        "negative\tanchor\tpositive\nc\ta\tb\nf\td\te\n",
        "c,b,a\nc,b,a\nf,e,d\n",
        "second,first,query\nc,b,a\nf,e,d\n",
        "second,first,anchor\nc,b,a\nf,e,d\n",
        "imgC;imgB;imgA\nc;b;a\nf;e;d\n",
        "far|anchor|close\nc|a|b\nf|d|e\n",
        "sep=|\nneg|query_path|pos\nc|a|b\nf|d|e\n",
        '{"negative": "c", "anchor": "a", "positive": "b"}\n'
        '{"negative": "f", "anchor": "d", "positive": "e"}\n',
        '[["a", "b", "c"], ["d", "e", "f"]]',
        '# of May\n\n"negative","anchor","positive"\n"c","a","b"\n"f","d","e"\n',
    ],
)
@pytest.mark.parametrize("name", ["t.csv", "t.txt"])
def test_every_layout_is_read_alike(data, name):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read(data, name) == ROWS


@pytest.mark.parametrize(
    ("data", "name", "rows"),
    [
        # One heading only; names that may look like others stay what they are.
        ("anchor positive negative\n" * 2, "t.txt", [("anchor", "positive", "negative")]),
        ("00123 1e5 -7\n", "t.txt", [("00123", "1e5", "-7")]),
        ("comma,name.jpg x y\n", "t.txt", [("comma,name.jpg", "x", "y")]),
        ("1.jpg, 2.jpg, 3.jpg\n", "t.csv", [("1.jpg", "2.jpg", "3.jpg")]),
        ("1.jpg; 2.jpg; 3.jpg\n", "t.txt", [("1.jpg", "2.jpg", "3.jpg")]),
        ('"a ""b""" "#c" d\n', "t.txt", [('a "b"', "#c", "d")]),
        ('"a ""b""","#c",d\n', "t.txt", [('a "b"', "#c", "d")]),
        # Tabs are blanks unless the file is a table.
        ("a\tb\tc\nx\ty\tz\n", "t.txt", [("a", "b", "c"), ("x", "y", "z")]),
        ("a\tb\tc\nx\ty\tz\n", "t.tsv", [("x", "y", "z")]),
        ("a b c\nx y z\n", "t.tsv", [("a", "b", "c"), ("x", "y", "z")]),
        ("my x\ty\tz\n", "t.txt", [("my x", "y", "z")]),
        # Words that are names of images.
        ("cat,dog,hen\nhen,cow,cat\n", "t.csv", [("cat", "dog", "hen"), ("hen", "cow", "cat")]),
        ("cat dog horse\ncow pig hen\n", "t.csv", [("cat", "dog", "horse"), ("cow", "pig", "hen")]),
        ("image1 image2 image3\nimage4 image5 image6\n", "t.txt",
         [("image1", "image2", "image3"), ("image4", "image5", "image6")]),
        ("left target right\nright left target\n", "t.txt",
         [("left", "target", "right"), ("right", "left", "target")]),
        ("1.jpg 2.jpg 3.jpg\n4 5 6\n", "t.txt", [("1.jpg", "2.jpg", "3.jpg"), ("4", "5", "6")]),
        ("a b c\n1.jpg a 2.jpg\n", "t.txt", [("a", "b", "c"), ("1.jpg", "a", "2.jpg")]),
        # A field that goes over two lines.
        ('a,b,c,note\nx,y,z,"two\nlines"\n', "t.csv", [("x", "y", "z")]),
    ],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore::tripletkit.DataWarning")
def test_names_are_what_stands_there(data, name, rows):
    assert read(data, name) == rows


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("a b c\na b\n", "t.txt:2: expected 3 image names, got 2"),
        ("a b c\r\n\r\na b c d\r\n", "t.txt:3: expected 3 image names, got 4"),
        ("a b c\nmy photo.jpg b c\n", "t.txt:2: .* Names with spaces"),
        ("7,x,y,z\n", "t.txt:1: expected 3 image names, got 4 .* need a heading"),
        ("x y z 0.8\n", "t.txt:1: expected 3 image names, got 4 .*`columns`.*share=4"),
        ("a,b,c\nd,e\n", "t.txt:2: expected 3 columns as in the heading, got 2"),
        ("a,b,c\nd,,f\n", 't.txt:2: expected an image name, got an empty one in "d,,f"'),
        ("a b c\nd, e, f\n", "t.txt:2: expected names separated by blanks"),
        ('a b c\n"d e f\n', "t.txt:2: expected a closing quote"),
        ('a,b,c\nx,"y,z\n', "t.txt:2: expected a CSV row with each quote closed"),
        ('a,b,c\nx,y"z,"w\n', "t.txt:2: expected a CSV row with each quote closed"),
        ("a b c\nd\u00a0e\u00a0f\n", r"t.txt:2: .*the blank U\+00A0"),
        ("a b c\na\x00 b c\n", r"t.txt:2: .*control character U\+0000"),
        (b"a b c\n\xe9 b c\n", "t.txt:2: expected UTF-8 text, got the byte 0xe9"),
        ("a b c\n".encode("utf-16"), "t.txt: expected UTF-8 text, got UTF-16"),
        ("", "t.txt: expected lines of three image names, got no triplet at all"),
        ("# nothing\n\n", "t.txt: expected lines of three image names, got no triplet at all"),
        ("a b c\n" + "a b\n" * 25, r"(?s)(.*\n){10}\.\.\. and 15 more \(25 in all\)$"),
        ("a,b,c,anchor,positive,negative\n1,2,3,4,5,6\n", "t.txt:1: expected the columns of one"),
        ("anchor,positive,negative,anchor\n1,2,3,4\n", 't.txt:1: expected each column once, got "'),
    ],
)
def test_what_is_no_triplet_is_refused_with_its_place(data, message):
    with pytest.raises(TripletkitError, match=message):
        read(data)


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
    with pytest.raises(TripletkitError, match="heading that is not known") as caught:
        read(text)
    assert str(caught.value).startswith("t.txt:1: expected a heading with anchor,positive,negative")
    # The message says what to put above names that look so.
    escape = str(caught.value).partition('put the line "')[2].partition('"')[0]
    if text.count(",") < 6:
        first = text.splitlines()[0]
        assert read(f"{escape}\n{text}")[0] == tuple(first.replace(",", " ").split())


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_other_columns_are_named_once_and_ignored(separator):
    lines = [
        ["", "rater", "negative", "anchor", "note", "positive"],
        ["0", "ann", "z z.jpg", "x.jpg", '"a, ""b""; \t\nc"', "y.jpg"],
        ["1", "bob", "x.jpg", '"y.jpg"', "", "z z.jpg"],
    ]
    with pytest.warns(DataWarning) as caught:
        rows = read("\n".join(separator.join(line) for line in lines), "t.csv")
    assert rows == [("x.jpg", "y.jpg", "z z.jpg"), ("y.jpg", "z z.jpg", "x.jpg")]
    assert [str(warning.message) for warning in caught] == [
        't.csv: columns that are not read: "(no name)", "rater", "note"'
    ]


def test_places_are_those_of_the_file_and_bad_lines_can_be_kept_apart():
    triplets = open_text("# one\n\na b c\n\nc d a\n", "t.txt").triplets
    assert triplets.first_places() == ["t.txt:3", "t.txt:3", "t.txt:3", "t.txt:5"]
    assert triplets.take(np.array([False, True])).place(0) == "t.txt:5"
    text = "id,anchor,positive,negative\n1,x,y,z\n2,x,y\n\n3,x,,z\n4,x,y,z,w\n"
    with pytest.warns(DataWarning, match='"id"'):
        scan = open_text(text, with_problems=True)
    assert scan.place_problems() == [
        't.csv:3: expected 4 columns as in the heading, got 3 ("2,x,y")',
        't.csv:5: expected an image name, got an empty one in "x,,z"',
        't.csv:6: expected 4 columns as in the heading, got 5 ("4,x,y,z,w")',
    ]
    assert scan.triplets.lines.tolist() == [2]


@pytest.mark.parametrize(
    ("heading", "is_answered"),
    [
        ("anchor,positive,negative", True),
        ("head,winner,loser", True),
        ("query,first,second", False),
        ("ref,left,right", False),
        ("anchor,first,second", None),
        ("a,b,c", None),
    ],
)
def test_the_heading_says_whether_triplets_are_answered(heading, is_answered):
    judgements = open_text(f"{heading}\nx,y,z\n")
    assert judgements.triplets.is_answered is is_answered
    if is_answered is False:
        with pytest.raises(TripletkitError, match=r"t\.csv: expected judgements"):
            judgements.decided()
    else:
        assert len(judgements.decided()) == 1


@pytest.mark.parametrize("seed", range(3))
def test_plain_lines_are_read_fast_as_all_others_are(seed):
    rng = np.random.default_rng(seed)
    blanks = np.array([" ", "\t", "   ", " \t "])
    lines = [
        "".join(f"{blanks[rng.integers(0, 4)]}n{name}" for name in rng.integers(0, 30, 3))
        for _ in range(200)
    ]
    if seed == 2:
        for at in rng.integers(0, 200, 6):
            lines.insert(at, str(rng.choice(["", "one two", "one two three four", "\t"])))
    text = "\n\n" * (seed % 2) + "\n".join(lines) + "\n" * seed
    # A comment takes the way of lines that need more than cutting at blanks.
    fast, slow = (open_text(each, with_problems=True) for each in (text, text + "\n# end\n"))
    assert len(fast) == 200
    assert (fast.triplets.names, fast.problems) == (slow.triplets.names, slow.problems)
    np.testing.assert_array_equal(fast.triplets.rows, slow.triplets.rows)
    np.testing.assert_array_equal(fast.triplets.lines, slow.triplets.lines)


def test_triplets_of_arrays_and_those_of_one_image_twice():
    triplets = Triplets.from_array([[3, 0, 1]], ["p", "q", "unused", "r"])
    assert (triplets.names, rows_of(triplets)) == (["r", "p", "q"], [("r", "p", "q")])
    twice = open_text("a a b\na b a\nb a a\na b c\n", "t.txt").triplets
    assert twice.is_degenerate().tolist() == [True, True, True, False]


@pytest.mark.parametrize(
    ("rows", "names", "message"),
    [
        ([[0, 1]], ["a", "b"], r"shape \(n_triplets, 3\)"),
        ([[0.0, 1.0, 2.0]], ["a", "b", "c"], "integer triplets.*got float64"),
        ([[0, 1, 3]], ["a", "b", "c"], "from 0 to 2, got 0 to 3"),
        ([[0, 1, -1]], ["a", "b", "c"], "got -1 to 1"),
        ([[0, 1, 2]], ["a", "b", "a"], 'distinct names, got "a"'),
    ],
)
def test_other_arrays_are_refused(rows, names, message):
    with pytest.raises(TripletkitError, match=message):
        Triplets.from_array(np.array(rows), names)


def test_a_file_that_cannot_be_written_leaves_what_was_there(tmp_path):
    path = tmp_path / "t.txt"
    path.write_text("old")
    with pytest.raises(TripletkitError):
        write_triplets(path, ["a", "b\n", "c"], np.array([[0, 1, 2]]))
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["t.txt"]
    with pytest.raises(TripletkitError, match="none"):
        write_triplets(tmp_path / "none" / "t.txt", ["a", "b", "c"], np.array([[0, 1, 2]]))
    with pytest.raises(TripletkitError, match=r"none\.txt: cannot be read"):
        read_triplets(tmp_path / "none.txt")


PIECES = ["a.jpg", "b", "anchor,positive,negative\n", "a b c\n", "sep=;\n", "0.5", "寿司"]
PIECES += [*'""#,;|\t \n\n\r\x00\x85\u00a0\ufeff[{', '{"a": "x"}', "\r\n"]


@settings(max_examples=300)
@given(
    st.lists(st.sampled_from(PIECES), max_size=25).map("".join).map(str.encode)
    | st.binary(max_size=40),
    st.sampled_from(["t.txt", "t.csv"]),
)
def test_whatever_stands_in_a_file_raises_only_our_errors(data, name):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DataWarning)
        try:
            triplets = open_text(data, name, with_problems=True).triplets
            assert triplets.rows.shape == (len(triplets), 3)
            assert all(triplets.names)
            open_text(data, name)
        except TripletkitError as error:
            assert name in str(error)


def as_votes(given):
    return tk.read_judgements(pd.DataFrame([["x", "y", "z"]]), votes=given)


def as_truth(given):
    return tk.read_judgements(pd.DataFrame([["x", "y", "z"]]), truth=given)


@pytest.mark.parametrize("n_before", [0, 5])
def test_lines_may_be_as_long_as_is_said_and_no_longer(n_before):
    longest = "x" * (131_072 - 4)
    for end in ("", "\n", "\n" + "y y y\n" * 100_000):
        text = "a b c\n" * n_before + longest + " b c" + end
        assert len(open_text(text, "t.txt")) == n_before + 1 + 100_000 * (len(end) > 1)
        with pytest.raises(TripletkitError) as caught:
            open_text(text.replace(longest, "x" + longest), "t.txt")
        assert str(caught.value) == (
            f"t.txt:{n_before + 1}: expected a line of at most 131,072 bytes, got one of 131,073."
        )


@pytest.mark.parametrize(
    "reader", [tk.read_judgements, as_votes, tk.read_labels, tk.read_answers, as_truth]
)
@pytest.mark.parametrize("before", [b"", b"name,label\nx,y\n"])
def test_readers_refuse_endless_lines(reader, before):
    for line in (b'"' + b"x" * 200_000, b'a,"' + b'""' * 100_000, b"," * 200_000):
        with pytest.raises(TripletkitError, match=r"in\.csv:\d+: expected a line of at most 131,"):
            reader(NamedBytes(before + line, "in.csv"))


def test_fields_over_many_lines_have_an_end():
    text = 'name,label,note\na,x,"' + "word " * 10 + "\n" + "more words\n" * 20_000
    with pytest.raises(TripletkitError, match=r"labels\.csv:2: .* with each quote closed"):
        read_labels(text)


@pytest.mark.integration
@pytest.mark.parametrize("quote", ['"', ""])
def test_a_line_of_50_mb_takes_little_memory(tmp_path, quote):
    path = tmp_path / "long.txt"
    path.write_text(quote + "x" * 50_000_000)
    script = (
        "import sys\n"
        "from tripletkit.cli.main import tripletkit\n"
        "try:\n"
        "    tripletkit(['audit', sys.argv[1]])\n"
        "finally:\n"
        "    print(open('/proc/self/status').read().split('VmHWM:')[1].split()[0])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, path],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 1
    assert "long.txt:1: expected a line of at most 131,072 bytes, got one of 50,000" in done.stderr
    assert int(done.stdout) < 500_000  # kB; Python with pandas alone takes 150,000


def test_numbers_are_plain_digits():
    for text in ["1_0", "١", "１", "nan", "inf", "0x1", "1e", "", "--1", "1 0", "²"]:
        assert parse_number(text) != parse_number(text)
    for text in ["1", "-1", "+1.", ".5", "1e5", "1.5E-3", " 7 "]:
        assert parse_number(text) == float(text)

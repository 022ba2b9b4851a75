"""Reading triplet files: every form, every refusal with its place."""

from __future__ import annotations

import io

import numpy as np
import pytest
from opened import read_triplets, rows_of, scan_triplets

from tripletkit import TripletkitError
from tripletkit.data import tables
from tripletkit.data.triplets import write_triplets

PLAIN = b"a b c\nd e f\n"


def read(data: bytes, name: str = "t.txt"):
    return rows_of(read_triplets(io.BytesIO(data), name))


@pytest.mark.parametrize(
    "data",
    [
        PLAIN,
        b"\xef\xbb\xbf" + PLAIN,
        PLAIN.replace(b"\n", b"\r\n"),
        PLAIN.replace(b"\n", b"\r"),
        b"a b c\r\nd e f\n",
        b"a b c\nd e f",
        b"a\tb\tc\nd \t e  f \t\n",
        b"  a b c\n\n \n\td e f\n\n",
        b"# judged in May\na b c # sure\nd e f\n",
        b"anchor positive negative\na b c\nd e f\n",
        b"\n# heading\nANCHOR first Second\na b c\nd e f\n",
        b'"a" b "c"\nd e f\n',
        b"a,b,c\na,b,c\nd,e,f\n",
        b"A,B,C\n\na, b ,c\nd , e,\tf\n# end\n",
        b"anchor,positive,negative\na,b,c\nd,e,f\n",
        b'a,b,c\n"a","b","c"\n"d",e,f\n',
    ],
)
def test_read_triplets_takes_every_form(data):
    assert read(data) == [("a", "b", "c"), ("d", "e", "f")]


def test_read_triplets_takes_one_heading_only():
    heading = ("anchor", "positive", "negative")
    data = b"# note\n\n" + b"anchor positive negative\n" * 2 + PLAIN
    assert read(data) == [heading, ("a", "b", "c"), ("d", "e", "f")]


def test_read_triplets_keeps_names_as_text():
    assert read(b"00123 1e5 -7\n") == [("00123", "1e5", "-7")]


def test_read_triplets_keeps_commas_in_a_text_file():
    assert read(b"comma,name.jpg x.jpg y.jpg\n") == [("comma,name.jpg", "x.jpg", "y.jpg")]
    assert read(b"1.jpg, 2.jpg, 3.jpg\n", "t.csv") == [("1.jpg", "2.jpg", "3.jpg")]


def test_read_triplets_unquotes_blanks_quotes_and_signs():
    expected = [('a "b"', "#c", "d")]
    assert read(b'"a ""b""" "#c" d\n') == expected
    assert read(b'"a ""b""","#c",d\n') == expected


def test_read_triplets_remembers_lines():
    triplets = read_triplets(io.BytesIO(b"# one\n\na b c\n\nc d a\n"), "t.txt")
    assert triplets.lines.tolist() == [3, 5]
    assert triplets.place(1) == "t.txt:5"
    assert triplets.first_places() == ["t.txt:3", "t.txt:3", "t.txt:3", "t.txt:5"]
    assert triplets.take(np.array([False, True])).place(0) == "t.txt:5"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"a b c\na b\n", "t.txt:2: expected 3 image names, got 2"),
        (b"a b c\r\n\r\na b c d\r\n", "t.txt:3: expected 3 image names, got 4"),
        (b"a b c\nmy photo.jpg b c\n", "t.txt:2: .*Put names with spaces in quotes"),
        (b"a,b,c\nd,e\n", "t.txt:2: expected 3 columns as in the heading, got 2"),
        (b"a,b,c\nd,,f\n", "t.txt:2: expected an image name, got an empty one"),
        (b"a b c\nd, e, f\n", "t.txt:2: expected names separated by blanks"),
        (b'a b c\n"d e f\n', "t.txt:2: expected a closing quote"),
        ("a b c\nd\u00a0e\u00a0f\n".encode(), r"t.txt:2: .*the blank U\+00A0"),
        (b"a b c\na\x00 b c\n", r"t.txt:2: .*control character U\+0000"),
        (b"a b c\n\xe9 b c\n", "t.txt:2: expected UTF-8 text, got the byte 0xe9"),
        ("a b c\n".encode("utf-16"), "t.txt: expected UTF-8 text, got UTF-16"),
        (b"", "t.txt: expected lines of three image names, got no triplet at all"),
        (b"# nothing\n\n", "t.txt: expected lines of three image names, got no triplet at all"),
    ],
)
def test_read_triplets_refuses_with_the_place(data, message):
    with pytest.raises(TripletkitError, match=message):
        read(data)


def test_read_triplets_counts_all_problems_and_shows_ten():
    with pytest.raises(TripletkitError) as caught:
        read(b"a b c\n" + b"a b\n" * 25)
    assert len(str(caught.value).splitlines()) == 11
    assert str(caught.value).endswith("... and 15 more (25 in all)")


def test_read_triplets_names_a_file_that_is_not_there(tmp_path):
    with pytest.raises(TripletkitError, match=r"none\.txt: cannot be read"):
        read_triplets(tmp_path / "none.txt")


def test_scan_triplets_keeps_what_can_be_read():
    scan = scan_triplets(io.BytesIO(b"a b c\na b\nc b a\n"), "t.txt")
    assert scan.triplets.rows.tolist() == [[0, 1, 2], [2, 1, 0]]
    assert list(scan.problems) == [2]
    [placed] = scan.place_problems()
    assert placed.startswith("t.txt:2: expected 3")


@pytest.mark.parametrize("seed", range(6))
def test_fast_path_equals_slow_path(monkeypatch, seed):
    rng = np.random.default_rng(seed)
    blanks = np.array([" ", "\t", "   ", " \t "])
    lines = [
        "".join(f"{blanks[rng.integers(0, 4)]}n{name}" for name in rng.integers(0, 30, 3))
        for _ in range(200)
    ]
    if seed >= 4:
        for at in rng.integers(0, 200, 6):
            lines.insert(at, str(rng.choice(["", "one two", "one two three four", "\t"])))
    data = ("\n\n" * (seed % 2) + "\n".join(lines)).encode() + b"\n" * (seed % 3)
    fast = scan_triplets(io.BytesIO(data), "t.txt")
    assert len(fast.triplets) == 200
    monkeypatch.setattr(tables, "_cut_plain", lambda *_: None)
    assert_same(fast, scan_triplets(io.BytesIO(data), "t.txt"))


def assert_same(one, other):
    assert one.triplets.names == other.triplets.names
    np.testing.assert_array_equal(one.triplets.rows, other.triplets.rows)
    np.testing.assert_array_equal(one.triplets.lines, other.triplets.lines)
    assert one.problems == other.problems


def test_is_degenerate_finds_every_kind():
    triplets = read_triplets(io.BytesIO(b"a a b\na b a\nb a a\na b c\n"), "t.txt")
    assert triplets.is_degenerate().tolist() == [True, True, True, False]


def test_write_triplets_keeps_the_old_file_when_it_fails(tmp_path):
    path = tmp_path / "t.txt"
    path.write_text("old")
    with pytest.raises(TripletkitError):
        write_triplets(path, ["a", "b\n", "c"], np.array([[0, 1, 2]]))
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["t.txt"]


def test_write_triplets_names_a_folder_that_is_missing(tmp_path):
    with pytest.raises(TripletkitError, match="none"):
        write_triplets(tmp_path / "none" / "t.txt", ["a", "b", "c"], np.array([[0, 1, 2]]))


SEEDS = [
    b"a.jpg b.jpg c.jpg\nd.jpg e.jpg f.jpg\n",
    b'"a b.jpg" c,d.jpg "#e"\r\n# comment\r\n\r\nx y z',
    b'anchor,positive,negative\na,b,c\n"d,e",f,g\n',
    "\ufeff寿司 café b\n".encode(),
]


def mutate(data: bytes, rng: np.random.Generator) -> bytes:
    """Change, drop, double or insert a few bytes, sometimes cut the end."""
    mutated = bytearray(data)
    awkward = b'"#,\t \r\n\x00\xff\xfe\xef\xbb\xbf\xc2\xa0\x85'
    for _ in range(rng.integers(1, 6)):
        at = int(rng.integers(0, max(len(mutated), 1)))
        match rng.integers(0, 5):
            case 0:
                mutated[at : at + 1] = bytes([rng.integers(0, 256)])
            case 1:
                del mutated[at : at + int(rng.integers(1, 8))]
            case 2:
                mutated[at:at] = mutated[at : at + int(rng.integers(1, 8))]
            case 3:
                mutated[at:at] = bytes([awkward[rng.integers(0, len(awkward))]])
            case 4:
                del mutated[at:]
    return bytes(mutated)


@pytest.mark.parametrize("data", SEEDS, ids=range(len(SEEDS)))
@pytest.mark.parametrize("name", ["t.txt", "t.csv"])
def test_mutated_triplet_files_raise_only_our_errors(data, name):
    rng = np.random.default_rng(1)
    for _ in range(400):
        mutated = mutate(data, rng)
        try:
            triplets = scan_triplets(io.BytesIO(mutated), name).triplets
            assert triplets.rows.shape == (len(triplets), 3)
            assert all(triplets.names)
            read_triplets(io.BytesIO(mutated), name)
        except TripletkitError as error:
            assert name in str(error)

"""Answer files come in from other programs, so the reader must refuse clearly and guess nothing."""

import contextlib
import io
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from opened import read_answers, read_truth

import tripletkit as tk
from tripletkit import Answers, DataWarning, Triplets
from tripletkit.errors import AnswerFileError

CSV = b"a,b,c,prediction,margin\nx,y,z,1,0.5\nx,z,y,0,-0.5\ny,x,z,0,0.0\nz,x,y,0,\n"

names = st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1) | st.sampled_from(
    ['with "quotes"', "a,b", " blanks ", "NA", "00123", "日本語.jpg"]
)
margins = st.floats(width=32, allow_infinity=False)


def make_triplets(names: list[str], rows: list[list[int]]) -> Triplets:
    return Triplets(names, np.array(rows, dtype=np.int32), np.arange(len(rows)) + 1, "test.txt")


def made(triplets: Triplets, predictions, margins) -> Answers:
    return Answers(np.array(predictions), np.array(margins, np.float32), triplets, "preds.csv")


def written(triplets: Triplets, predictions, margins, form: str = "csv") -> str:
    stream = io.StringIO(newline="")
    made(triplets, predictions, margins).write(stream, form)
    return stream.getvalue()


def read(data: bytes) -> Answers:
    return read_answers(io.BytesIO(data), "preds.csv")


def error_of(reader, data: bytes) -> str:
    with pytest.raises(AnswerFileError) as caught:
        reader(io.BytesIO(data), "preds.csv")
    return str(caught.value)


def test_read_answers_takes_every_column_of_a_csv():
    answers = read(CSV)
    assert answers.predictions.tolist() == [1, 0, 0, 0]
    np.testing.assert_array_equal(answers.margins, [0.5, -0.5, 0, np.nan])
    assert answers.triplets.names == ["x", "y", "z"]
    assert answers.triplets.rows.tolist() == [[0, 1, 2], [0, 2, 1], [1, 0, 2], [2, 0, 1]]
    assert answers.triplets.place(1) == "preds.csv:3"
    assert answers.is_tie.tolist() == [False, False, True, False]
    assert answers.is_undecidable.tolist() == [False, False, False, True]


@pytest.mark.parametrize(
    "change",
    [
        lambda data: data.rstrip(b"\n"),
        lambda data: data.replace(b"\n", b"\r\n"),
        lambda data: b"\xef\xbb\xbf" + data,
        lambda data: data + b"\n\n",
        lambda data: data.replace(b"a,b,c", b"A, B, C"),
        lambda data: data.replace(b",", b";"),
        lambda data: data.replace(b",", b"\t"),
        lambda data: data.replace(b"\nx,z,y", b"\n\nx,z,y"),
    ],
)
def test_read_answers_does_not_mind_the_layout(change):
    answers = read(data := change(CSV))
    assert answers.predictions.tolist() == [1, 0, 0, 0]
    assert answers.triplets.rows.tolist() == read(CSV).triplets.rows.tolist()
    is_apart = b"\n\nx" in data
    assert answers.triplets.lines.tolist() == ([2, 4, 5, 6] if is_apart else [2, 3, 4, 5])


@pytest.mark.parametrize(
    "data",
    [b"1\n0\n1\n", b"1\r\n0\r\n1", b"prediction\n1\n0\n1\n", b"\xef\xbb\xbflabel\n1\n0\n1\n\n"],
)
def test_read_answers_takes_labels(data):
    answers = read(data)
    assert answers.predictions.tolist() == [1, 0, 1]
    assert answers.margins is None and answers.triplets is None
    assert not answers.is_tie.any() and not answers.is_undecidable.any()


@pytest.mark.parametrize(
    "data",
    [
        b"1\n0\n",
        b"truth\n1\n0\n",
        b"label\r\n1\r\n0",
        b"id,label\n7,1\n8,0\n",
        b"truth,prediction\n1,0\n0,1\n",
        b"a,b,c,prediction,margin\nx,y,z,1,\nx,z,y,0,\n",
    ],
)
def test_read_truth_takes_every_form(data):
    assert read_truth(io.BytesIO(data), "truth.csv").labels.tolist() == [1, 0]


@pytest.mark.parametrize(
    ("reader", "data", "message"),
    [
        (read_answers, b"", "preds.csv: expected answers, one a line, got an empty file"),
        (read_answers, b"label\n", "preds.csv: expected rows below the heading, got none"),
        (read_answers, b"a,b,c,prediction,margin\n", "expected rows below the heading, got none"),
        (read_answers, b"1\n0\n0\n0\ny y\nx\n", 'preds.csv:5: expected 0 or 1, got "y y"'),
        (read_answers, b"1\n2\n0\n0\n", "1 and 2 choose and 0 is a tie"),
        (read_answers, b"1 0\n", 'preds.csv:1: expected 0 or 1, got "1 0"'),
        (read_answers, b"x,y,1\n", "preds.csv:1: expected the heading a,b,c,prediction,margin"),
        (read_answers, b"prediction,margin\n1,inf\n", "preds.csv:2: expected a number or nothing"),
        (read_answers, b"prediction,margin\n1,two\n", 'as margin, got "two"'),
        (read_answers, b"prediction,margin\n1\n", "preds.csv:2: expected 2 columns as in the"),
        (read_answers, b"prediction,margin\n1,2,3\n", "heading, got 3"),
        (
            read_answers,
            b"a,b,c,prediction\nx,,z,1\n",
            'preds.csv:2: expected an image name, got an empty one in "x,,z"',
        ),
        (read_answers, b'a,b,c,prediction\n"x,y,z,1\nx,y,z,1\n', "with each quote closed"),
        (read_answers, b"1\n\xff\n", "preds.csv:2: expected UTF-8 text, got the byte 0xff"),
        (read_answers, b"id,label\n1,1\n", 'got "id,label". It seems to be a truth file; the answ'),
        (read_truth, b"id,other\n1,1\n", "one of the columns label, truth, prediction"),
        (
            read_answers,
            b'prediction,margin\n1,"' + b"0" * 200_000 + b'"\n',
            "preds.csv:2: expected a line of at most 131,072 bytes, got one of 200,004",
        ),
        (read_truth, b"id,label\n1,x\n", 'preds.csv:2: expected 0 or 1, got "x"'),
    ],
)
def test_readers_say_line_expected_and_got(reader, data, message):
    assert message in error_of(reader, data)


def test_readers_show_ten_problems_and_the_total():
    lines = error_of(read_answers, b"x\n" * 1234).splitlines()
    assert len(lines) == 11
    assert lines[-1] == "... and 1,224 more (1,234 in all)"
    table = error_of(read_answers, b"prediction,margin\n" + b"x,y\n" * 1234).splitlines()
    assert table[0] == 'preds.csv:2: expected 0 or 1, got "x"'
    assert table[-1] == "... and 1,224 more (1,234 in all)"


def test_readers_raise_nothing_but_their_error():
    generator = np.random.default_rng(0)
    for _ in range(500):
        data = bytearray(CSV if generator.random() < 0.7 else b"label\n1\n0\n1\n")
        for _ in range(generator.integers(1, 6)):
            start, end = sorted(generator.integers(0, len(data) + 1, 2))
            data[start:end] = generator.choice([b"", b"\n", b",", b'"', b"\x00", b"\xe9", b"1e999"])
        for reader in (read_answers, read_truth):
            with contextlib.suppress(AnswerFileError):
                reader(io.BytesIO(bytes(data)), "preds.csv")


def test_rows_in_another_order_are_found():
    answers = read(CSV)
    rows = [["x", "y", "z"], ["x", "y", "z"], ["y", "x", "z"], ["z", "x", "y"]]
    asked = make_triplets(["z", "y", "x"], [["zyx".index(n) for n in row] for row in rows])
    with pytest.raises(AnswerFileError) as caught:
        tk.score(answers, triplets=asked)
    assert str(caught.value) == (
        "preds.csv:3: expected the question (x, y, z) of test.txt:2, got (x, z, y)"
    )
    with pytest.raises(AnswerFileError, match=r'row of "0" where that has "1"\. Sort both'):
        tk.score(read(b"id,prediction\n0,1\n1,0"), read_truth(io.BytesIO(b"id,label\n1,1\n0,0")))


def test_write_answers_writes_the_contract_byte_by_byte():
    triplets = make_triplets(["p.jpg", 'q "x", y', "é"], [[0, 1, 2], [2, 0, 1], [1, 2, 0]])
    assert written(triplets, [1, 0, 0], [0.1, np.nan, 0]) == (
        "a,b,c,prediction,margin\n"
        'p.jpg,"q ""x"", y",é,1,0.1\n'
        'é,p.jpg,"q ""x"", y",0,\n'
        '"q ""x"", y",é,p.jpg,0,0.0\n'
    )
    assert written(triplets, [1, 0, 0], [0.1, np.nan, 0], "labels") == "1\n0\n0\n"


def test_a_path_gets_the_same_text_and_nothing_that_the_answers_do_not_hold(tmp_path: Path):
    path = tmp_path / "preds.csv"
    answers = made(make_triplets(["x", "y", "z"], [[0, 1, 2]]), [1], [0.25])
    answers.write(path)
    assert path.read_bytes() == b"a,b,c,prediction,margin\nx,y,z,1,0.25\n"
    answers.write(str(path), "labels", overwrite=True)
    assert path.read_bytes() == b"1\n"
    bare = Answers(np.array([1]), None, None, "answers.txt")
    with pytest.raises(AnswerFileError, match="expected answers with their questions"):
        bare.write(tmp_path / "a.csv")
    with pytest.raises(AnswerFileError, match="one of the forms csv, labels, got 'json'"):
        bare.write(tmp_path / "a.csv", "json")
    assert not (tmp_path / "a.csv").exists()


def test_answers_as_a_table_have_the_columns_of_the_file():
    triplets = make_triplets(["x", "y", "z"], [[0, 1, 2], [2, 1, 0]])
    frame = made(triplets, [1, 0], [0.25, np.nan]).to_frame()
    assert list(frame.columns) == ["a", "b", "c", "prediction", "margin"]
    assert frame.iloc[1].tolist()[:4] == ["z", "y", "x", 0]
    bare = Answers(np.array([1]), None, None, "answers.txt").to_frame()
    assert bare.to_dict("list") == {"prediction": [1]}


@pytest.mark.slow
@given(
    st.lists(names, min_size=1, max_size=6, unique=True),
    st.lists(st.tuples(st.integers(0, 99), margins), min_size=1, max_size=20),
)
def test_answers_survive_writing_and_reading(names, answered):
    rows = [[pick % len(names), pick % 7 % len(names), 0] for pick, _ in answered]
    triplets = make_triplets(names, rows)
    expected = np.float32([margin for _, margin in answered])
    predictions = expected > 0
    answers = read(written(triplets, predictions, expected).encode())
    np.testing.assert_array_equal(answers.margins.astype(np.float32), expected)
    assert answers.predictions.tolist() == predictions.tolist()
    asked = triplets.to_frame().set_axis(["a", "b", "c"], axis=1)
    assert answers.to_frame().iloc[:, :3].equals(asked)


def test_margins_are_the_shortest_decimals_that_read_back():
    generator = np.random.default_rng(0)
    size = 10 ** generator.uniform(-5, 6, 20_000)
    values = np.float32([*(size * generator.choice([-1, 1], 20_000)), 1e-5, 5e-5, 0, -0.0, 1e-9])
    triplets = make_triplets(["x", "y", "z"], [[0, 1, 2]] * len(values))
    lines = written(triplets, values > 0, values).splitlines()[1:]
    texts = [line.rpartition(",")[2] for line in lines]
    assert texts[-3:] == ["0.0", "0.0", "1e-09"]
    shortest = [np.format_float_positional(value, unique=True, trim="0") for value in values[:-3]]
    assert texts[:-3] == shortest


@pytest.mark.parametrize("reader", [read_answers, read_truth])
@pytest.mark.parametrize(
    ("data", "line"), [(b"1\n\n0\n", 2), (b"label\n1\n \t\n0", 3), (b"\n1\n0\n", 1)]
)
def test_a_blank_line_among_labels_is_refused(reader, data, line):
    message = error_of(reader, data)
    assert message == (
        f"preds.csv:{line}: expected 0 or 1, got a blank line; every row needs its own"
    )


@pytest.mark.parametrize("margin", ["1_0", "١", "１.0", "nan", "inf", "1e999", "0x1", "1 0", "--1"])
def test_margins_are_plain_numbers(margin):
    data = f"prediction,margin\n1,0.5\n1,{margin}\n0,\n".encode()
    assert "preds.csv:3: expected a number or nothing as margin" in error_of(read_answers, data)


ANSWER_FILE = b"a,b,c,prediction,margin\nx,y,z,1,0.5\n"


@pytest.mark.parametrize(
    ("answers", "truth", "outcome"),
    [
        (ANSWER_FILE, b"label\n1\n", None),
        (b"1\n", b"1\n", None),
        (b"prediction\n1\n", b"label\n1\n", None),
        (b"label\n1\n", b"label\n1\n", None),
        (b"label\n1\n", ANSWER_FILE, AnswerFileError),
        (b"truth\n1\n", b"prediction\n1\n", AnswerFileError),
        (b"label\n1\n", b"1\n", DataWarning),
        (b"1\n", ANSWER_FILE, DataWarning),
        (ANSWER_FILE, ANSWER_FILE, DataWarning),
    ],
)
def test_exchanged_answers_and_truth_are_told(answers, truth, outcome):
    given_answers, given_truth = read(answers), read_truth(io.BytesIO(truth), "truth.csv")
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        if outcome is AnswerFileError:
            with pytest.raises(AnswerFileError, match="Give the answers first, then the truth"):
                tk.score(given_answers, given_truth)
        else:
            tk.score(given_answers, given_truth)
    taken = [each for each in said if "taken for" in str(each.message)]
    assert [each.category for each in taken] == [outcome] * (outcome is DataWarning)

"""A name that is written by one command is the same name when another reads it."""

from __future__ import annotations

import csv
import warnings

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opened import open_text, read_labels, read_triplets
from opened import rows_of as named_rows
from PIL import Image

import tripletkit as tk
from tripletkit import Answers, DataWarning, TripletkitError, Triplets
from tripletkit.data.splits.held_out_draws import read_held_out
from tripletkit.data.splits.policies import write_questions
from tripletkit.data.text_files import guard_formula, quote_csv_field, quote_name, unguard_formula
from tripletkit.data.triplets import write_triplets
from tripletkit.evaluation.classification import Confusion

FORMULAS = ["=cmd|calc!A0.jpg", "+1.jpg", "-1.jpg", "@SUM(A1)", " =1", "＝1.jpg", "'=1", "''-x"]
HEADING_WORDS = ["anchor", "positive", "negative", "a", "b", "c", "ref", "image1", "left", "rater"]

# What a file system may hold and a line of text can, awkward ones most of all.
names = (
    st.text(st.characters(exclude_categories=["Cc", "Cs", "Zl", "Zp"]), min_size=1, max_size=8)
    | st.text("ab1 ,;\"#'=+-@.\u00a0", min_size=1, max_size=6)
    | st.sampled_from(
        FORMULAS + HEADING_WORDS + ["1.jpg", "NA", "nan", "00123", "1e5", "#", "寿司"]
    )
)
rows_of_names = st.lists(st.tuples(names, names, names), min_size=1, max_size=6)
distinct_names = st.lists(names, min_size=1, max_size=6, unique=True)
fast = settings(max_examples=50)


def as_triplets(named) -> Triplets:
    distinct = list(dict.fromkeys(name for row in named for name in row))
    rows = np.array([[distinct.index(name) for name in row] for row in named], dtype=np.int32)
    return Triplets(distinct, rows, np.arange(len(rows)) + 1, "made")


def table(columns, rows, separator=",") -> bytes:
    lines = [columns, *([quote_csv_field(field) for field in row] for row in rows)]
    return "".join(separator.join(line) + "\n" for line in lines).encode()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("names")


@given(st.text() | st.sampled_from([*FORMULAS, "\tx", "\rx"]))
def test_guarding_is_undone_and_leaves_no_formula(text):
    guarded = guard_formula(text)
    assert unguard_formula(guarded) == text
    assert guarded.lstrip()[:1] not in tuple("=+-@＝＋－＠")
    assert guarded[:1] not in ("\t", "\r", "\n")
    assert guarded in (text, "'" + text)


def test_names_that_are_no_formula_stay_as_they_are():
    for harmless in ("a=b.jpg", "x-1.jpg", "00123", "it's.jpg", "'quoted'"):
        assert guard_formula(harmless) == harmless


@pytest.mark.parametrize("suffix", [".txt", ".csv", ".tsv"])
@fast
@given(named=rows_of_names)
def test_triplet_files_read_back(folder, suffix, named):
    triplets = as_triplets(named)
    path = folder / f"triplets{suffix}"
    write_triplets(path, triplets.names, triplets.rows)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert named_rows(read_triplets(path)) == named
    write_questions(path, folder / "truth.csv", triplets.names, triplets.rows, seed=0)
    read = read_triplets(path)
    assert [row[0] for row in named_rows(read)] == [row[0] for row in named]
    assert [sorted(row) for row in named_rows(read)] == [sorted(row) for row in named]
    # As unanswered, where a heading is needed.
    assert read.is_answered in (None, False)


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@fast
@given(named=rows_of_names)
def test_tables_of_triplets_and_votes_read_back(separator, named):
    columns = ["votes_c", "anchor", "first", "second", "votes_b"]
    judgements = open_text(table(columns, [("1", *row, "3") for row in named], separator))
    assert named_rows(judgements.triplets) == named
    assert judgements.votes.share.tolist() == [0.75] * len(named)


@fast
@given(named=rows_of_names)
def test_predicted_answers_score_against_the_same_triplets(folder, named):
    triplets = as_triplets(named)
    margins = np.linspace(-1, 1, len(named), dtype=np.float32)
    Answers.from_margins(margins, triplets, "asked").write(folder / "preds.csv", overwrite=True)
    answers = tk.read_answers(folder / "preds.csv")
    assert named_rows(answers.triplets) == named
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DataWarning)
        assert named_rows(read_triplets(folder / "preds.csv")) == named
    cells = [row[:3] for row in csv.reader((folder / "preds.csv").open(newline=""))][1:]
    assert not [cell for row in cells for cell in row if cell.lstrip()[:1] in tuple("=+-@＝")]


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@fast
@given(distinct=distinct_names)
def test_labels_and_lists_of_held_out_names_read_back(folder, separator, distinct):
    path = folder / "held_out.txt"
    path.write_text("".join(f'"{name.replace(chr(34), chr(34) * 2)}"\n' for name in distinct))
    assert list(read_held_out(path, folder)) == distinct
    expected = {name: name.strip() or "x" for name in distinct if name.strip()}
    data = table(["label", "name"], [(label, name) for name, label in expected.items()], separator)
    if expected:
        assert read_labels(data) == expected


@pytest.mark.slow
@fast
@given(distinct=distinct_names)
def test_vectors_and_confusions_hold_the_names(folder, distinct):
    vectors = np.ones((len(distinct), 2), np.float32)
    embeddings = tk.Embeddings(distinct, vectors, "l2", [None] * len(distinct))
    embeddings.write(folder / "vectors.csv", overwrite=True)
    kept = {"dtype": {"name": str}, "keep_default_na": False}
    read = pd.read_csv(folder / "vectors.csv", **kept)["name"]
    assert [unguard_formula(name) for name in read] == distinct
    embeddings.write(folder / "vectors.npz", overwrite=True)
    assert np.load(folder / "vectors.npz")["names"].tolist() == distinct
    embeddings.write(folder / "vectors.parquet", overwrite=True)
    assert pd.read_parquet(folder / "vectors.parquet")["name"].tolist() == distinct
    Confusion(distinct, np.eye(len(distinct), dtype=int)).write(folder / "confusion.csv")
    heading, *lines = csv.reader((folder / "confusion.csv").open(newline=""))
    assert [unguard_formula(name) for name in heading[1:]] == distinct
    assert [unguard_formula(line[0]) for line in lines] == distinct


@pytest.mark.parametrize("name", ["", "a\nb", "a\rb", "a\u2028b", "\udcff", "\x7f", "\t=1"])
def test_quote_name_refuses_what_no_line_can_hold(name):
    with pytest.raises(TripletkitError, match="rename the image"):
        quote_name(name)


def test_compare_writes_rows_without_formulas(tmp_path):
    triplets = as_triplets([("=1", "b", "c"), ("+1", "-1", "@x")])
    answers = {
        name: Answers(np.array(said), np.ones(2), triplets, name)
        for name, said in (("p", [1, 1]), ("q", [0, 0]))
    }
    tk.compare(answers, [1, 0], rows=tmp_path / "rows.csv")
    lines = list(csv.reader((tmp_path / "rows.csv").open(newline="")))
    assert [line[1:4] for line in lines[1:]] == [["'=1", "b", "c"], ["'+1", "'-1", "'@x"]]


def test_names_that_are_no_text_are_refused_before_the_work(tmp_path):
    images = tmp_path / "images"
    images.mkdir()
    try:
        (images / "caf\udce9.png").touch()
    except (OSError, UnicodeError):
        pytest.skip("this file system takes names in UTF-8 alone")
    for number in range(3):
        Image.new("RGB", (8, 8), (number, 0, 0)).save(images / f"{number}.png")
    database = tmp_path / "judgements.sqlite"
    with pytest.raises(TripletkitError, match="expected names in UTF-8, got 'caf"):
        tk.collect(images, database, judge=["anna"], port=None)
    assert not database.exists()

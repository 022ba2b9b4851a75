"""Judgements in every form that people have, and nothing that a file says passed over."""

from __future__ import annotations

import io
import itertools
import json
import warnings

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opened import NamedBytes, open_text, rows_of

import tripletkit as tk
from tripletkit import DataWarning, TripletkitError

TRIPLETS = [("a.png", "b.png", "c.png"), ("c.png", "a.png", "d.png"), ("d.png", "e.png", "a.png"),
            ("b.png", "d.png", "e.png")]  # fmt: skip
# Which rows of a file have the nearer image second.
TURNED = (True, False, True, False)
POOL = sorted({name for row in TRIPLETS for name in row})


def decided(judgements):
    return rows_of(judgements.decided().triplets)


# Heading and row of tables that people publish; `{n}` counts, `{b}` and `{c}` are as they stand.
FORMS = {
    "Salmon": "head,left,right,winner,loser,puid {a},{b},{c},{near},{far},u{n}",
    "Salmon with numbers": "head,winner,loser,head_object,winner_object,loser_object,response_time "
    "{is_b},{is_c},{is_b},{a},{near},{far},0.{n}",
    "tripletTools": "worker_id,Center,Left,Right,Answer w{n},{a},{b},{c},{near}",
    "NIGHTS": "id,left_vote,right_vote,votes,ref_path,left_path,right_path,split,is_imagenet "
    "{n},{is_b},{is_c},8,{a},{b},{c},train,True",
    "preds.csv of tripletkit": "a,b,c,prediction,margin {a},{b},{c},{is_b},0.25",
    "triplet-network-pytorch": "anchor,far,close {a},{far},{near}",
    "cblearn's food set, with a heading": "query,negative,positive {a},{far},{near}",
    "label": "a,b,c,label {a},{b},{c},{is_b}",
    "left or right": "ref,left,right,left_n,right_n,response {a},{b},{c},7,{n},{side}",
    "name": "reference,option1,option2,selected_image {a},{b},{c},{near}",
    "winner among two": "anchor,img1,img2,winner {a},{b},{c},{near}",
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.filterwarnings("ignore::tripletkit.DataWarning")
def test_tables_of_public_projects_are_read(form):
    heading, row = FORMS[form].split(" ")
    lines = [heading]
    for number, ((anchor, near, far), turned) in enumerate(zip(TRIPLETS, TURNED, strict=True)):
        shown = {"b": far, "c": near} if turned else {"b": near, "c": far}
        said = {"is_b": int(not turned), "is_c": int(turned), "side": ["left", "right"][turned]}
        lines.append(row.format(n=number, a=anchor, near=near, far=far, **shown, **said))
    for separator in ",;\t|":
        text = "\n".join(lines).replace(",", separator)
        judgements = open_text(text, "t.tsv" if separator == "\t" else "t.csv")
        assert decided(judgements) == TRIPLETS


def test_what_cblearn_reads_is_read():
    # Food-100 (all-triplets.csv): folders in the names, blanks behind the semicolons.
    food = "".join("; ".join(f"images/{name}" for name in row) + "\n" for row in TRIPLETS)
    assert decided(open_text(food)) == [tuple(f"images/{name}" for name in r) for r in TRIPLETS]
    # MusicSeer: judgement, survey, user, then target, chosen and other in numbers.
    numbers = [[POOL.index(name) for name in row] for row in TRIPLETS]
    text = "".join(f"{n} S u{n} {a} {p} {o}\n" for n, (a, p, o) in enumerate(numbers))
    columns = {"anchor": "4", "positive": "5", "negative": "6"}
    assert decided(open_text(text, "r.txt", columns=columns, names=POOL)) == TRIPLETS
    # Materials: lists of three places, and how many people said which.
    votes = [[1, 4] if turned else [4, 1] for turned in TURNED]
    shown = [[a, o, p] if t else [a, p, o] for (a, p, o), t in zip(numbers, TURNED, strict=True)]
    text = json.dumps({"answers": shown, "agreement": votes})
    places = ("anchor", "first", "second")
    columns = {name: f"answers {n}" for n, name in enumerate(places, 1)}
    columns |= {"votes_first": "agreement 1", "votes_second": "agreement 2"}
    assert decided(open_text(text, "t.json", columns=columns, names=POOL)) == TRIPLETS
    with pytest.raises(TripletkitError, match="got answers 1, answers 2, answers 3, agreement 1"):
        open_text(text, "t.json")
    # Arrays: list-order; list-boolean and list-count, whose responses are True or 1 for the first.
    places, is_turned = np.array(numbers), np.array(TURNED)
    assert decided(tk.read_judgements(places, names=POOL)) == TRIPLETS
    shown = np.where(is_turned[:, None], places[:, [0, 2, 1]], places)
    for response in (~is_turned, np.where(is_turned, -1, 1)):
        frame = pd.DataFrame(shown, columns=["a", "b", "c"]).assign(response=response)
        assert decided(tk.read_judgements(frame, names=POOL)) == TRIPLETS


def test_what_datasets_writes_is_read(tmp_path):
    datasets = pytest.importorskip("datasets")
    frame = pd.DataFrame(TRIPLETS, columns=["anchor", "positive", "negative"])
    judged = datasets.Dataset.from_pandas(frame)
    judged.to_csv(tmp_path / "t.csv")
    judged.to_json(tmp_path / "t.jsonl")
    judged.to_json(tmp_path / "t.json", lines=False)
    judged.to_parquet(tmp_path / "t.parquet")
    for path in tmp_path.glob("t.*"):
        assert decided(tk.read_judgements(path)) == TRIPLETS
    kinds = datasets.Features({"file_name": datasets.Value("string"),
                               "label": datasets.ClassLabel(names=["cat", "dog"])})  # fmt: skip
    labels = datasets.Dataset.from_dict({"file_name": POOL, "label": [0, 1, 0, 1, 0]}, kinds)
    labels.to_csv(tmp_path / "metadata.csv")
    labels.to_json(tmp_path / "metadata.jsonl")
    labels.to_parquet(tmp_path / "metadata.parquet")
    for path in tmp_path.glob("metadata.*"):
        assert tk.read_labels(path) == dict(zip(POOL, "01010", strict=True))
    images = {"image": [{"bytes": b"x", "path": name} for name in POOL], "label": [0] * len(POOL)}
    datasets.Dataset.from_dict(images).to_parquet(tmp_path / "images.parquet")
    with pytest.raises(TripletkitError, match="the column image holds images themselves"):
        tk.read_labels(tmp_path / "images.parquet")


# What stands for the first image, the second, and neither.
VALUES = [
    ("1", "0", "tie"), ("1", "2", "?"), ("1", "-1", "can't tell"), ("1.0", "0.0", "0.5"),
    ("true", "false", ""), ("True", "False", "neither"), ("left", "right", "tie"),
    ("First", "Second", "cant-tell"), ("B", "C", "both"), ("yes", "no", "unsure"), ("L", "R", "NA"),
]  # fmt: skip


@pytest.mark.parametrize(("first", "second", "tie"), VALUES)
def test_answers_are_read_as_people_write_them(first, second, tie, caplog):
    caplog.set_level("INFO", logger="tripletkit")
    rows = [["x", "y", "z", first], ["x", "z", "w", second], ["y", "z", "w", tie]]
    text = "a,b,c,answer\n" + "".join(",".join(row) + "\n" for row in rows)
    judgements = open_text(text)
    # What is asked stays in the order of the file.
    assert rows_of(judgements.triplets) == [("x", "y", "z"), ("x", "z", "w"), ("y", "z", "w")]
    assert decided(judgements) == [("x", "y", "z"), ("x", "w", "z")]
    assert f"answers from column `answer`: {first.lower().removesuffix('.0')}" in caplog.text
    assert "1 of 3 rows turned; 1 undecided" in caplog.text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b,c,label\nx,y,z,0\nx,z,y,1\ny,x,z,2\n", "two ways: 1 and 2 choose and 0 is a tie"),
        ("a,b,c,label\nx,y,z,0\nx,z,y,1\ny,x,z,-1\n", "two ways"),
        ("a,b,c,label\nx,y,z,cat\nx,z,y,dog\n", 'column "label": expected 1 and 0'),
        ("a,b,c,answer,label2,choice\nx,y,z,1,1,1\n", 'say which with `columns`'),
        ("ref,left,right,sure\nx,y,z,1\nx,z,y,0\ny,z,x,0\n", '"sure" ("1", "0") may say'),
        ("ref,left,right,who\nx,y,z,y\nx,z,y,z\n", 'the column "who" ("y", "z") may say'),
        ("anchor,positive,negative,label\nx,y,z,1\nx,z,w,0\nx,z,y,0\n", '"label" ("1", "0")'),
        ("a,b,c,label\nx,y,z,1\nx,z,y,0\nx,z,w,maybe\nw,x,y,1\n", "t.csv:4: column \"label\": exp"),
        ("i,j,k,odd\nx,y,z,1\nx,z,y,2\n", "counted from 0 or from 1"),
        ("a,b,c,user_choice\nx,y,z,C\nx,z,y,B\nx,y,w,C\n", '"user_choice" ("C", "B") may say'),
        ("a,b,c,choice_image\nx.png,y.png,z.png,y\nx.png,z.png,w.png,-\n", '"choice_image"'),
        ("a,b,c,judge\nx,y,z,1\nx,z,y,2\ny,z,x,1\n", '"judge" ("1", "2") may say'),
        ("a,b,c,said\nx,y,z,l\nx,z,y,r\ny,z,x,tie\nx,y,w,skip\n", '"said" ("l", "r", "tie")'),
        ("a,b,c,rating\nx,y,z,1\nx,z,y,3\ny,z,x,5\nx,y,w,4\nx,w,y,4\n", '"rating"'),
        ("ref,left,right,least_similar\nx,y,z,z\nx,z,y,z\n", "=least_similar and `swap`; if"),
        ("a,b,c,votes_a,votes_b,votes_c\nx,y,z,1,2,3\n", 'for two images, got "votes_a" too'),
        ("ref,left,right,vote1,vote2\nx,y,z,1,2\n", '"vote1" and "vote2" may be'),
        ("ref,left,right,winner_idx\nx,y,z,0\nx,w,z,1\n", "0 and 1, which leave open"),
        ("ref,left,right,truth,response\nx,y,z,1,0\n", '"truth", "response"; say which'),
        ("i,j,k,odd,response\nx,y,z,1,3\n", '"odd", "response"; say which'),
        ("#anchor,negative,positive\nx,y,z\n", "t.csv:2: expected the heading without a #"),
        ('{"anchor": {"path": "x"}, "pos": "y", "neg": "z"}\n', "got {'path': 'x'}"),
        ("PK\x03\x04", "expected a text, got an Excel workbook"),
        ("head,left,right,winner,loser\nx,y,z,z,y\nx,y,z,w,y\n", "t.csv:3: expected one of"),
    ],
)  # fmt: skip
def test_what_is_not_understood_is_refused(text, message):
    with pytest.raises(TripletkitError) as caught:
        open_text(text)
    assert message in str(caught.value)


def test_columns_say_what_no_heading_says(tmp_path, caplog):
    caplog.set_level("INFO")
    text = "p,q,r,verdict\nx,y,z,1\nx,z,w,2\n"
    columns = {"anchor": "p", "first": "q", "second": "r", "answer": "verdict"}
    assert decided(open_text(text, columns=columns)) == [("x", "y", "z"), ("x", "w", "z")]
    far_first = {"anchor": "1", "negative": "2", "positive": "3"}
    assert decided(open_text("x y z\nx w y\n", "t.txt", columns=far_first)) == [
        ("x", "z", "y"), ("x", "y", "w")]  # fmt: skip
    some = {"answer": "verdict"}
    named = text.replace("p,q,r", "a,b,c")
    assert decided(open_text(named, columns=some)) == [("x", "y", "z"), ("x", "w", "z")]
    (tmp_path / "names.json").write_text('["x.png", "y.png", "z.png"]')
    (tmp_path / "names.txt").write_text("x.png\ny.png\nz.png\n")
    for names in (tmp_path / "names.json", tmp_path / "names.txt", ["x.png", "y.png", "z.png"]):
        read = open_text("0 2 1\n2 0 1\n", "t.txt", names=names)
        assert decided(read) == [("x.png", "z.png", "y.png"), ("z.png", "x.png", "y.png")]
    (tmp_path / "names.txt").write_text('# of May\n"#x.png"\n"y.png"\n"z.png"\n')
    read = open_text("1 3 2\n", "t.txt", names=tmp_path / "names.txt")
    assert decided(read) == [("#x.png", "z.png", "y.png")]
    assert "places in the list of names, counted from 1" in caplog.text
    (tmp_path / "names.txt").write_text("file\nx.png\ny.png\n")
    with pytest.raises(TripletkitError, match='names of images alone, got "file" above them'):
        open_text("0 2 1\n", "t.txt", names=tmp_path / "names.txt")
    with pytest.raises(TripletkitError, match=r"t\.txt:2: expected places in the list of 3"):
        open_text("0 2 1\n2 0 7\n", "t.txt", names=["x", "y", "z"])
    with pytest.raises(TripletkitError, match='expected a column "q", there are "a", "b", "c"'):
        open_text("a,b,c\nx,y,z\n", columns={"anchor": "q", "positive": "b", "negative": "c"})


FRAME = pd.DataFrame({"judge": [1], "negative": ["c"], "Anchor": ["00123"], "positive": ["b"]})


@pytest.mark.filterwarnings("ignore::tripletkit.DataWarning")
def test_a_frame_is_read_by_its_columns_and_its_rows_are_counted_from_0():
    triplets = tk.read_judgements(FRAME).triplets
    assert rows_of(triplets) == [("00123", "b", "c")]
    assert (triplets.rows.dtype, triplets.place(0)) == (np.int32, "DataFrame:0")
    assert decided(tk.read_judgements(pd.DataFrame([["x", "y", "z"]]))) == [("x", "y", "z")]
    others = {"": [0, 1] * 2, "entropy": [0.1, 0.2, 0.3, 0.4], "worker": [1, 2] * 2}
    shown = pd.DataFrame(TRIPLETS, columns=["a", "b", "c"]).assign(b_path=POOL[:4], **others)
    assert decided(tk.read_judgements(shown)) == TRIPLETS


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
        tk.read_judgements(frame, columns=columns)


def test_swap_exchanges_what_is_said():
    for text in ("x y z\n", "anchor,positive,negative\nx,y,z\n", "a,b,c,label\nx,y,z,1\n",
                 "a,b,c,votes_b,votes_c\nx,y,z,3,1\n"):  # fmt: skip
        swapped = open_text(text, swap=True)
        assert decided(swapped) == [("x", "z", "y")]
        again = tk.read_judgements(swapped, swap=True)
        assert decided(again) == [("x", "y", "z")]
        # So a model that learns again from them is told.
        assert [dict(each.record.read_as) for each in (swapped, again)] == [{"swap": "true"}, {}]


ODD = [("x", "y", "z"), ("y", "x", "z"), ("y", "w", "x"), ("w", "y", "x")]


@pytest.mark.parametrize(
    ("text", "options"),
    [
        ("image1,image2,image3,odd\nx,y,z,z\nx,y,w,x\n", {}),
        ("odd_one_out,a,b,c\n3,x,y,z\n1,x,y,w\n", {}),
        ("i,j,k,odd\nx,y,z,2\nx,y,w,0\n", {}),
        ("img_a,img_b,img_c,oddball\nx,y,z,c\nx,y,w,A\n", {}),
        ("first,second,third,odd\nx,y,z,third\nx,y,w,first\n", {}),
        ("x y z\ny w x\n", {"columns": {"odd": "last"}}),
        (
            "left,middle,right,which\nx,y,z,right\nx,y,w,left\n",
            {"columns": {"image1": "left", "image2": "middle", "image3": "right", "odd": "which"}},
        ),
    ],
)
def test_an_odd_one_out_is_two_triplets_of_one_trial(text, options):
    judgements = open_text(text, "t.txt" if " " in text else "t.csv", **options)
    assert rows_of(judgements.triplets) == ODD
    assert judgements.triplets.trials.tolist() == [1, 1, 2, 2]


def test_trials_are_never_divided():
    rng = np.random.default_rng(0)
    rows = [" ".join(f"i{n}" for n in rng.permutation(30)[:3]) for _ in range(200)]
    triplets = open_text("\n".join(rows), "t.txt", columns={"odd": "last"}).triplets
    for by in ("random", "component", "image"):
        splits = [tk.split(triplets, by, val_fraction=0.2)]
        splits += tk.split(triplets, by, folds=4) if by == "random" else []
        for train, val, _ in splits:
            assert len(val) and not set(train.trials) & set(val.trials)


# One table of judgements, written in every form: all must be read alike.
image = st.sampled_from([f"k{n}/{n}.jpg" for n in range(6)])
judged = st.lists(st.tuples(image, image, image, st.booleans()).filter(
    lambda row: len(set(row[:3])) == 3), min_size=4, max_size=20)  # fmt: skip
WORDS = [
    ("anchor", "first", "second", "answer"), ("a", "b", "c", "label"),
    ("ref_path", "left_path", "right_path", "choice"), ("Query", "Option1", "Option2", "Picked"),
]  # fmt: skip


def columns_of(judged, words, form):
    """Return the columns of a table, with answers in one of the forms."""
    anchor, first, second, answer = words
    shown = [(a, n, p) if turned else (a, p, n) for a, p, n, turned in judged]
    columns = {anchor: [r[0] for r in shown], first: [r[1] for r in shown],
               second: [r[2] for r in shown]}  # fmt: skip
    answers = {
        "number": [0 if turned else 1 for *_, turned in judged],
        "side": [2 if turned else 1 for *_, turned in judged],
        "bool": [not turned for *_, turned in judged],
        "word": ["second" if turned else "first" for *_, turned in judged],
        "name": [p for _, p, *_ in judged],
    }
    if form == "near and far":
        return {"anchor": columns[anchor], "loser": [n for _, _, n, _ in judged],
                "winner": [p for _, p, *_ in judged]}  # fmt: skip
    if form == "votes":
        return columns | {"votes_first": [int(not t) * 3 for *_, t in judged],
                          "votes_second": [int(t) * 3 for *_, t in judged]}  # fmt: skip
    return columns | {answer: answers[form]}


def files_of(frame, kind):
    if kind in ",;\t|":
        text = frame.to_csv(index=False, sep=kind)
        return NamedBytes(text, "t.tsv" if kind == "\t" else "t.csv")
    if kind == "frame":
        return frame
    if kind == "parquet":
        data = io.BytesIO()
        frame.to_parquet(data)
        return NamedBytes(data.getvalue(), "t.parquet")
    return NamedBytes(
        frame.to_json(orient="records" if kind != "columns" else "columns", lines=kind == "lines"),
        "t.json",
    )


@settings(max_examples=40)
@given(
    judged,
    st.sampled_from(WORDS),
    st.sampled_from(["number", "side", "bool", "word", "name", "near and far", "votes"]),
    st.sampled_from([*",;\t|", "frame", "parquet", "lines", "records", "columns"]),
    st.randoms(use_true_random=False),
)
def test_every_form_gives_the_same_judgements(judged, words, form, kind, chance):
    columns = list(columns_of(judged, words, form).items())
    chance.shuffle(columns)
    read = tk.read_judgements(files_of(pd.DataFrame(dict(columns)), kind))
    assert decided(read) == [row[:3] for row in judged]


other_cells = st.one_of(st.integers(-1, 3), st.text("ab01", max_size=2), st.floats(0, 1), image)


@settings(max_examples=40)
@given(judged, st.text("mqxz_", min_size=1, max_size=6), st.data())
def test_other_columns_never_change_a_row_in_silence(judged, heading, data):
    cells = data.draw(st.lists(other_cells, min_size=len(judged), max_size=len(judged)))
    frame = pd.DataFrame(columns_of(judged, WORDS[0], "near and far")).assign(**{heading: cells})
    shown = pd.DataFrame({"query": [r[0] for r in judged], "left": [r[1] for r in judged],
                          "right": [r[2] for r in judged], heading: cells})  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DataWarning)
        assert decided(tk.read_judgements(frame)) == [row[:3] for row in judged]
        try:
            read = tk.read_judgements(shown)
        except TripletkitError:
            return
    assert read.truth is None and read.triplets.is_answered is False
    # As the table has them: 0 and 0.0 are one value.
    assert len({str(cell) for cell in shown[heading]}) not in (2, 3)


def test_forms_of_json_that_people_publish():
    rows = [{"query": a, "pos": [p], "neg": [n, "z.png"]} for a, p, n in TRIPLETS]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    read = open_text(text, "t.jsonl")
    assert decided(read) == list(itertools.chain.from_iterable(
        [(a, p, n), (a, p, "z.png")] for a, p, n in TRIPLETS))  # fmt: skip
    assert read.triplets.trials.tolist() == [1, 1, 2, 2, 3, 3, 4, 4]
    lists = "".join(json.dumps(row) + "\n" for row in TRIPLETS)
    assert decided(open_text(lists, "t.jsonl")) == TRIPLETS
    whole = json.dumps({"version": 1, "data": [dict(zip("abc", r, strict=True)) for r in TRIPLETS]})
    assert decided(open_text(whole, "t.json")) == TRIPLETS
    with pytest.raises(TripletkitError, match=r"t\.jsonl:2: expected a JSON object a line"):
        open_text('{"a": "x", "b": "y", "c": "z"}\nx y z\n', "t.jsonl")


def test_scores_of_trials_say_how_often_the_odd_one_was_found(tripletkit, tmp_path):
    rng = np.random.default_rng(0)
    trials = [rng.permutation(40)[:3] for _ in range(60)]
    (tmp_path / "trials.csv").write_text(
        "image1,image2,image3,odd\n" + "".join(f"i{a},i{b},i{c},{n % 3 + 1}\n"
                                               for n, (a, b, c) in enumerate(trials)))  # fmt: skip
    asked = tk.read_judgements(tmp_path / "trials.csv").triplets
    right = np.array([[1, 1]] * 30 + [[1, 0]] * 30).ravel()
    rows = [",".join((*names, str(answer))) for names, answer in
            zip(rows_of(asked), right, strict=True)]  # fmt: skip
    for name, answers in (("a", rows), ("b", [row[:-1] + "1" for row in rows])):
        (tmp_path / f"{name}.csv").write_text("\n".join(["a,b,c,prediction", *answers]) + "\n")
    files = [tmp_path / f"{name}.csv" for name in ("a", "b", "trials")]
    scored = json.loads(tripletkit("score", files[0], files[2], "--json", code=0).stdout)
    assert (scored["accuracy"], scored["odd_one_out"]["accuracy"]) == (0.75, 0.5)
    assert scored["odd_one_out"]["n"] == 60
    assert "odd one out" in tripletkit("score", files[0], files[2], code=0).stdout
    compared = json.loads(tripletkit("compare", *files, "--json", code=0).stdout)
    assert [each["odd_one_out"]["accuracy"] for each in compared["ranking"]] == [1.0, 0.5]


def test_exchanged_images_are_said_first_and_swap_exchanges_them(tripletkit, tmp_path):
    lines = [f"x{n} y{n} z{n}" for n in range(40)]
    (tmp_path / "t.csv").write_text("\n".join(["query,far,near", *lines]).replace(" ", ",") + "\n")
    (tmp_path / "preds.csv").write_text(
        "a,b,c,prediction\n" + "".join(f"x{n},z{n},y{n},{int(n < 4)}\n" for n in range(40))
    )
    scoring = ["score", tmp_path / "preds.csv", tmp_path / "t.csv"]
    said = tripletkit(*scoring, code=0)
    assert "the nearer and the other image seem to be exchanged. --swap" in said.stderr
    said = tripletkit(*scoring, "--swap", "--json", code=0)
    assert json.loads(said.stdout)["accuracy"] == 0.9
    assert "seem to be exchanged" not in said.stderr
    for name, n_right in (("a", 4), ("b", 6)):
        answers = "".join(f"{int(n < n_right)}\n" for n in range(40))
        (tmp_path / f"{name}.txt").write_text(answers)
    (tmp_path / "truth.txt").write_text("1\n" * 40)
    files = [tmp_path / f"{name}.txt" for name in ("a", "b", "truth")]
    first = tripletkit("compare", *files, code=0).stderr.splitlines()[0]
    assert "b.txt are right on 15.0% of the triplets" in first
    assert "seem to be exchanged" in first


def test_columns_are_those_of_the_questions_where_the_truth_stands_alone(tripletkit, tmp_path):
    (tmp_path / "t.txt").write_text("x y z 0.8\nx z y 0.4\n")
    (tmp_path / "truth.txt").write_text("1\n0\n")
    words = ["score", tmp_path / "truth.txt", tmp_path / "truth.txt", "--json"]
    words += ["--triplets", tmp_path / "t.txt", "--columns", "share=4"]
    scored = json.loads(tripletkit(*words, code=0).stdout)
    assert (scored["accuracy"], scored["votes"]["agreement"]) == (1, pytest.approx(0.7))


def test_training_on_exchanged_images_says_so_before_any_number(
    tripletkit, tiny_backbone, toy_competition, tmp_path
):
    rows = [line.split() for line in toy_competition.train.read_text().splitlines()]
    text = "query,near,far\n" + "".join(f"{a},{c},{b}\n" for a, b, c in rows)
    (tmp_path / "t.csv").write_text(text)
    command = ["train", tmp_path / "t.csv", toy_competition.images, "-o", tmp_path / "m"]
    command += ["--backbone", "tiny", "--recipe", "map", "--val-fraction", "0.2"]
    said = tripletkit(*command, code=0)
    told = "the frozen features are right on"
    assert told in said.stderr and "seem to be exchanged. --swap" in said.stderr
    assert said.stderr.index(told) < said.stderr.index("accuracy")
    assert told not in tripletkit(*command, "--swap", "--force", code=0).stderr
    # Of a file for validation, too, whose frozen accuracy would be printed.
    command = ["train", toy_competition.train, *command[2:], "--val", tmp_path / "t.csv", "--force"]
    said = tripletkit(*command[: command.index("--val-fraction")], *command[-3:], code=0)
    assert f"{tmp_path / 't.csv'}: the frozen features are right on" in said.stderr


def test_answers_to_what_a_model_learned_from_are_told(
    tripletkit, toy_model, tiny_backbone, toy_competition, tmp_path
):
    preds, lines = tmp_path / "preds.csv", toy_competition.train.read_text().splitlines()
    other = " ".join(lines[0].split()[::-1])
    (tmp_path / "t.txt").write_text("\n".join([*lines[:20], other]) + "\n")
    asked = ["predict", tmp_path / "t.txt", "--model", toy_model]
    said = tripletkit(*asked, "-o", preds, code=0).stderr
    assert "the model learned from 95.2% of these questions" in said
    assert "learned from" not in tripletkit(*asked, "--frozen", code=0).stderr
    scoring = ["score", preds, "--model", toy_model]
    said = tripletkit(*scoring, code=0).stderr
    assert "95.2% of these questions and their answers are among those" in said
    # The same images under other names, elsewhere.
    renamed = tmp_path / "renamed"
    renamed.mkdir()
    for path in toy_competition.images.iterdir():
        (renamed / f"r-{path.name}").write_bytes(path.read_bytes())
    rows = [" ".join(f"r-{name}" for name in line.split()) for line in lines[:20]]
    (tmp_path / "r.txt").write_text("\n".join(rows) + "\n")
    asked = ["predict", tmp_path / "r.txt", "--model", toy_model, "--images", renamed]
    said = tripletkit(*asked, "-o", preds, "--force", code=0).stderr
    assert "the model learned from 100.0% of these questions" in said
    said = tripletkit(*scoring, code=0).stderr
    assert "among those that the model" not in said
    assert f" images are not in {toy_competition.images}: whether the model learned" in said
    (tmp_path / "labels.txt").write_text("1\n" * 20)
    for scoring[1] in (preds, tmp_path / "labels.txt"):
        given = ["--triplets", tmp_path / "r.txt", "--images", renamed]
        said = tripletkit(*scoring, *given, code=0).stderr
        assert "100.0% of these questions and their answers are among those" in said

"""`tripletkit score` as a script and as a person sees it."""

import json
from pathlib import Path

import pytest

PREDICTIONS = """a,b,c,prediction,margin
x.jpg,y.jpg,z.jpg,1,0.5
x.jpg,z.jpg,y.jpg,0,-0.5
u.jpg,v.jpg,w.jpg,1,0.25
u.jpg,v.jpg,w.jpg,1,0.25
p.jpg,q.jpg,r.jpg,0,0.0
"""


@pytest.fixture
def predictions(tmp_path: Path) -> Path:
    path = tmp_path / "preds.csv"
    path.write_text(PREDICTIONS)
    return path


@pytest.fixture
def truth(tmp_path: Path) -> Path:
    path = tmp_path / "truth.csv"
    path.write_text("label\n1\n0\n0\n0\n0\n")
    return path


@pytest.fixture
def labels(tmp_path: Path) -> Path:
    path = tmp_path / "answers.txt"
    path.write_text("1\n0\n1\n1\n0\n")
    return path


def test_score_without_truth_says_what_it_takes_for_granted(tripletkit, predictions):
    result = tripletkit("score", predictions, "-q", code=0)
    said = result.stderr.splitlines()
    assert said[0] == (
        "warning: no truth file: taking every first image for the nearer one (truth all 1)"
    )
    found = json.loads(tripletkit("score", predictions, "--json").stdout)
    assert found["truth"] is None
    assert result.stdout.startswith("accuracy      0.6000 ")


def test_score_says_why_there_is_no_interval_over_images(tripletkit, predictions, labels):
    result = tripletkit("score", labels)
    assert "needs the --triplets" in result.stdout
    all_right = predictions.with_name("right.csv")
    all_right.write_text("a,b,c,prediction,margin\nx,y,z,1,0.5\nu,v,w,1,0.5\n")
    result = tripletkit("score", all_right)
    assert "allows for shared images: all rows are alike" in result.stdout


def test_score_of_labels_needs_the_triplets_for_unique(tripletkit, labels, truth, tmp_path):
    result = tripletkit("score", labels, truth, "--unique", code=2)
    assert "does not hold them. Add --triplets FILE." in result.stderr
    triplets = tmp_path / "test.txt"
    triplets.write_text("x y z\nx z y\nu v w\nu v w\np q r\n")
    result = tripletkit("score", labels, truth, "--unique", "--triplets", triplets, "--json")
    assert json.loads(result.stdout)["n"] == 4


def test_score_reads_standard_input(tripletkit, predictions, truth):
    result = tripletkit("score", "-", truth, input=PREDICTIONS)
    beside = tripletkit("score", predictions, truth)
    assert result.exit_code == 0
    assert result.stdout == beside.stdout


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1\n0\n", "truth.csv, got 5. Do both belong to the same triplets?"),
        ("1\n0\n1\n0\nyes\n", 'truth.csv:5: expected 0 or 1, got "yes"'),
        ("id,other\n1,1\n", "truth.csv:1: expected a heading with one of the columns label"),
    ],
)
def test_score_refuses_a_truth_that_does_not_fit(tripletkit, predictions, truth, text, message):
    truth.write_text(text)
    result = tripletkit("score", predictions, truth, code=1)
    assert message in result.stderr
    assert result.stdout == ""


def test_score_refuses_triplets_of_another_file(tripletkit, predictions, truth, tmp_path):
    triplets = tmp_path / "test.txt"
    triplets.write_text("x.jpg y.jpg z.jpg\n" * 5)
    result = tripletkit("score", predictions, truth, "--triplets", triplets, code=1)
    assert "preds.csv:3: expected the question (x.jpg, y.jpg, z.jpg) of" in result.stderr


@pytest.fixture
def votes(tmp_path: Path) -> Path:
    path = tmp_path / "votes.csv"
    path.write_text("votes_b,votes_c\n4,1\n5,0\n3,2\n2,2\n1,4\n")
    return path


def test_score_json_with_votes_and_truth_holds_both(tripletkit, predictions, truth, votes):
    arguments = ["score", str(predictions), str(truth), "--json"]
    plain = json.loads(tripletkit(*arguments).stdout)
    found = json.loads(tripletkit(*arguments, "--votes", votes).stdout)
    by_votes = found.pop("votes")
    assert plain.pop("votes") is None
    assert found == plain
    assert by_votes["agreement"] == pytest.approx(0.54)
    assert by_votes["wilson"][0] < 0.54 < by_votes["wilson"][1]
    # Voters who agree: 6+0, 10, 3+1, 1+1, 0+6 of 10, 10, 10, 6, 10 pairs.
    assert by_votes["voters"]["one_another"] == pytest.approx((0.6 + 1 + 0.4 + 1 / 3 + 0.6) / 5)


def test_score_takes_a_fourth_column(tripletkit, predictions, labels, tmp_path):
    triplets = tmp_path / "test.txt"
    triplets.write_text(
        "x.jpg y.jpg z.jpg 0.8\nx.jpg z.jpg y.jpg 1\nu.jpg v.jpg w.jpg 0.6\n"
        "u.jpg v.jpg w.jpg 0.5\np.jpg q.jpg r.jpg 0.2\n"
    )
    options = ["--triplets", str(triplets), "--columns", "share=4", "--json"]
    found = json.loads(tripletkit("score", predictions, *options).stdout)
    assert found["n"] == 4
    assert found["votes"]["agreement"] == pytest.approx(0.54)
    assert found["votes"]["voters"] is None
    refused = tripletkit("score", labels, *options[:2], code=1)
    assert "test.txt:1: expected 3 image names, got 4" in refused.stderr


def test_votes_with_names_bring_the_triplets(tripletkit, predictions, labels, tmp_path):
    rows = [line.split(",")[:3] for line in PREDICTIONS.splitlines()[1:]]
    votes = tmp_path / "votes.csv"
    votes.write_text(
        "a,b,c,votes_b,votes_c\n"
        + "".join(f"{','.join(row)},3,{n}\n" for n, row in enumerate(rows))
    )
    arguments = ["--votes", str(votes), "--json"]
    found = json.loads(tripletkit("score", labels, *arguments).stdout)
    assert found["no_image_interval"].startswith("too few rows")
    votes.write_text(votes.read_text().replace("x.jpg,z.jpg,y.jpg", "x.jpg,y.jpg,z.jpg"))
    refused = tripletkit("score", predictions, *arguments, code=1)
    assert "preds.csv:3: expected the question (x.jpg, y.jpg, z.jpg) of" in refused.stderr


@pytest.mark.parametrize(
    ("options", "exit_code", "message"),
    [
        (["--votes", "v.csv", "--unique"], 2, "--unique excludes votes"),
        (["--votes", "v.csv"], 1, "expected 2 answers, one for each row of v.csv"),
    ],
)
def test_votes_that_do_not_fit_are_refused(
    tripletkit, predictions, tmp_path, monkeypatch, options, exit_code, message
):
    monkeypatch.chdir(tmp_path)
    Path("v.csv").write_text("3 2\n1 1\n")
    result = tripletkit("score", predictions, *options, code=exit_code)
    assert message in result.stderr
    assert result.stdout == ""


def test_score_refuses_exchanged_arguments(tripletkit, predictions, truth):
    result = tripletkit("score", truth, predictions, code=1)
    assert result.stdout == ""
    assert "Give the answers first, then the truth." in result.stderr


def test_score_warns_of_a_truth_that_is_another_answer_file(tripletkit, predictions):
    result = tripletkit("score", predictions, predictions, "-q", code=0)
    assert "preds.csv: has no column label or truth; its answers" in result.stderr


def test_score_judges_ties_of_labels_only_as_answers(tripletkit, labels, truth):
    result = tripletkit("score", labels, truth, "--ties", "half", code=1)
    assert "answers.txt: expected margins" in result.stderr
    assert "(--ties answer)" in result.stderr


def test_score_takes_columns_of_votes(tripletkit, predictions, labels, votes, tmp_path):
    named = [line.split(",")[:3] for line in PREDICTIONS.splitlines()[1:]]
    of_votes = votes.read_text().splitlines()
    rows = [",".join([vote, *row]) for vote, row in zip(of_votes[-5:], named, strict=True)]
    triplets = tmp_path / "judged.csv"
    triplets.write_text("\n".join(["votes_b,votes_c,a,b,c", *rows]) + "\n")
    beside = ["score", str(predictions), "--votes", str(votes), "--json"]
    within = ["score", str(predictions), "--triplets", str(triplets), "--json"]
    expected, found = (json.loads(tripletkit(*each).stdout) for each in (beside, within))
    assert found == expected
    refused = tripletkit(*within, "--unique", code=2)
    assert "--unique excludes votes" in refused.stderr


def test_questions_without_a_truth_are_not_scored(tripletkit, labels, tmp_path):
    triplets = tmp_path / "asked.csv"
    triplets.write_text("query,first,second\n" + "x,y,z\n" * 5)
    result = tripletkit("score", labels, "--triplets", triplets, code=1)
    assert "asked.csv: expected judgements (anchor, positive, negative)" in result.stderr

"""`tripletkit train` with votes: rows turned to the majority, told, recorded, read back."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from conftest import read_record
from opened import read_triplets

import tripletkit as tk
from tripletkit.training.inputs import read_training_triplets


@pytest.fixture
def judged(toy_competition, tmp_path):
    """Return files of triplets in chance order, of votes on them, and of both in one file."""
    rng = np.random.default_rng(0)
    lines, votes, with_share = [], [], []
    for number, line in enumerate(toy_competition.train.read_text().splitlines()):
        a, b, c = line.split()
        n_right = (5, 4, 3, 2)[number % 4] if number % 16 else 2
        n_wrong = 2 if number % 16 == 0 else 5 - n_right
        if rng.integers(2):
            b, c, n_right, n_wrong = c, b, n_wrong, n_right
        lines.append(f"{a} {b} {c}\n")
        votes.append(f"{n_right},{n_wrong}\n")
        with_share.append(f"{a} {b} {c} {n_right / (n_right + n_wrong)}\n")
    for name, text in (
        ("judged.txt", "".join(lines)),
        ("votes.csv", "votes_b,votes_c\n" + "".join(votes)),
        ("shares.txt", "".join(with_share)),
    ):
        (tmp_path / name).write_text(text)
    return tmp_path


@pytest.fixture
def train(tripletkit, tiny_backbone, toy_competition, judged):
    def train(*options, triplets="judged.txt", **extra):
        return tripletkit(
            *("train", judged / triplets, toy_competition.images, "-o", judged / "m"),
            *("--backbone", "tiny", "--epochs", 3, "-s", "hidden=16", "--no-refit", "--force"),
            *options,
            **extra,
        )

    return train


@pytest.mark.slow
@pytest.mark.parametrize(("votes_as", "recipe"), [("soft", "residual"), ("majority", "mlp")])
def test_votes_are_learned_from_told_recorded_and_read_back(train, judged, votes_as, recipe):
    votes = judged / "votes.csv"
    result = train("--votes", votes, "--votes-as", votes_as, "--recipe", recipe, code=0)
    assert "turned round, because most people chose the third image; 25 tied" in result.stderr
    record = read_record(judged / "m")
    of_votes = record["inputs"]["votes"]
    assert of_votes["file"]["sha256"] == hashlib.sha256(votes.read_bytes()).hexdigest()
    assert (of_votes["taken_as"], of_votes["n_tied"]) == (votes_as, 25)
    # Of the 25, some are dropped by the split; a soft one still teaches.
    n_tied = record["split"]["n_tied"]
    assert n_tied < 10 if votes_as == "soft" else 10 < n_tied < 25
    trained, frozen = record["validation"]["trained"], record["validation"]["frozen"]
    assert trained["votes"]["ceiling"] == frozen["votes"]["ceiling"] > 0.5
    assert trained["n"] == trained["votes"]["n"]
    # Read again, it is anchor, what most people chose, the other; ties are left out.
    inputs = tk.load(judged / "m").folder.record.inputs
    found, plain = read_training_triplets(inputs), read_triplets(judged / "judged.txt")
    assert len(found) == len(plain) - 25
    counts = np.loadtxt(votes, delimiter=",", skiprows=1)[found.lines - 1]
    asked = plain.rows[found.lines - 1]
    is_first = (counts[:, 0] > counts[:, 1])[:, None]
    np.testing.assert_array_equal(found.rows, np.where(is_first, asked, asked[:, [0, 2, 1]]))
    votes.write_text("1 2\n")
    assert read_training_triplets(inputs) is None


@pytest.mark.slow
def test_a_fourth_column_teaches_the_same_as_the_votes(train, judged):
    found = []
    for options, triplets in (
        (["--votes", judged / "votes.csv"], "judged.txt"),
        (["--columns", "share=4"], "shares.txt"),
    ):
        train(*options, triplets=triplets, code=0)
        model = tk.load(judged / "m")
        found.append((model.embed().vectors, model.validation.trained.accuracy))
    np.testing.assert_allclose(found[0][0], found[1][0], atol=1e-4)
    assert found[0][1] == found[1][1]


@pytest.mark.slow
def test_validation_can_have_votes_of_its_own(train, judged, toy_competition):
    truth = toy_competition.truth.read_text().splitlines()[1:]
    votes = judged / "val_votes.csv"
    votes.write_text("".join("4,1\n" if label == "1" else "1,4\n" for label in truth))
    scores = []
    for option, file in (("--val-votes", votes), ("--val-truth", toy_competition.truth)):
        val = ("--val", toy_competition.test, option, file)
        train("--votes", judged / "votes.csv", *val, code=0)
        scores.append(read_record(judged / "m")["validation"]["trained"])
    by_votes, by_truth = scores
    of_votes = by_votes.pop("votes")
    assert by_truth.pop("votes") is None
    assert by_truth == by_votes
    right = by_votes["accuracy"]
    # A tie of embeddings agrees with nobody.
    expected = 0.8 * right + 0.2 * (1 - right) - 0.2 * by_votes["n_ties"] / by_votes["n"]
    assert of_votes["agreement"] == pytest.approx(expected)
    assert of_votes["ceiling"] == pytest.approx(0.8)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--votes-as", "soft"], "--votes-as needs votes"),
        (["--votes", __file__, "--val-votes", __file__], "--val-votes needs --val"),
        (["--val-votes", __file__, "--val", __file__, "--val-truth", __file__], "excludes --val-t"),
        (["--votes", "votes.csv", "--labels", __file__, "--loss", "center"], "looks at classes"),
        (["--votes", "votes.csv", "--labels", __file__, "--mining", "batch-hard"], "at classes"),
    ],
)
def test_votes_that_do_not_go_with_the_rest_are_wrong_calls(
    train, judged, monkeypatch, options, message
):
    monkeypatch.chdir(judged)
    assert message in train(*options, code=2).stderr


def test_votes_of_other_triplets_or_of_none_are_refused(train, judged, tripletkit, toy_competition):
    (judged / "short.csv").write_text("3,2\n1,1\n")
    result = train("--votes", judged / "short.csv", code=1)
    assert "short.csv: expected 400 rows of votes, one for each row of" in result.stderr
    given = [toy_competition.images, "--labels", judged / "votes.csv", "--votes", __file__]
    assert "give TRIPLETS" in tripletkit("train", *given, code=2).stderr

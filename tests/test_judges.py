"""What is said of judges, with judges whose faults are known."""

from __future__ import annotations

from functools import partial

import krippendorff
import numpy as np
import pytest
from collected import answer_all, by_label, read_answers_given, report_of, start

import tripletkit as tk

NAMES = [f"p{n:02}.png" for n in range(30)]
LABELS = {name: n % 2 for n, name in enumerate(NAMES)}


@pytest.fixture
def report(tmp_path):
    """Return a function that reports on answers."""
    return partial(report_of, tmp_path / "told.sqlite")


def answer(judge, question, choice, side="left", how="random", response_ms=1000.0):
    triplet = ("a", f"b{question}", f"c{question}")
    told = {"judge": judge, "triplet": triplet, "choice": choice, "side": side}
    return told | {"how": how, "response_ms": response_ms}


def test_one_judge_by_hand(report):
    found = report(
        [
            answer("anna", 1, "first", response_ms=400),
            answer("anna", 2, "second", "right", response_ms=1000),
            answer("anna", 3, "cant-tell", "neither", response_ms=3000),
            answer("anna", 1, "first", "right", response_ms=2000),
            answer("anna", 2, "first", response_ms=0),
        ]
    )
    (anna,) = found.judges
    assert (anna.n_screens, anna.median_ms) == (5, 1500)
    assert str(anna.cant_tell) == "1 of 5"
    assert str(anna.consistency) == "1 of 2"
    assert str(anna.left) == "2 of 4"
    assert str(anna.fast) == "1 of 4"
    assert anna.agreement.value is None
    assert (found.alpha, found.n_shared) == (None, 0)


def test_a_question_turned_round_is_the_same_and_those_who_agree_have_no_alpha(report):
    turned = answer("ben", 1, "second") | {"triplet": ("a", "c1", "b1")}
    found = report([answer("anna", 1, "first"), turned])
    assert str(found.pairs["anna", "ben"]) == "1 of 1"
    assert (found.alpha, found.n_shared) == (None, 1)


def judged(n_questions, n_differing):
    """Two judges, of whom the second differs on the first questions."""
    for question in range(n_questions):
        choice = "first" if question % 2 else "second"
        other = {"first": "second", "second": "first"}[choice]
        yield answer("anna", question, choice)
        yield answer("ben", question, other if question < n_differing else choice)


def test_alpha_is_that_of_another_program(report):
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 2, (4, 40)).astype(float)
    codes[1] = codes[0]
    codes[rng.random(codes.shape) < 0.2] = np.nan
    answers = [
        answer(judge, question, "second" if codes[place, question] else "first")
        for place, judge in enumerate(("anna", "ben", "cleo", "dan"))
        for question in np.flatnonzero(~np.isnan(codes[place])).tolist()
    ]
    asked_twice = codes[:, (~np.isnan(codes)).sum(axis=0) > 1]
    expected = krippendorff.alpha(asked_twice, level_of_measurement="nominal")
    found = report(answers)
    assert found.alpha == pytest.approx(expected)
    assert found.alpha_interval.low < expected < found.alpha_interval.high


@pytest.mark.parametrize(
    ("n", "n_differing", "said"),
    [
        (7, 3, "too few questions for an interval (7; it takes 20)"),
        (60, 4, "too few questions that judges answer differently for an interval (4; it takes 5)"),
    ],
)
def test_alpha_of_few_questions_has_no_interval(report, n, n_differing, said):
    found = report([*judged(n, n_differing)])
    assert found.alpha is not None
    assert said in str(found)
    assert found.to_dict()["krippendorff_interval"] is None


def test_every_share_has_an_interval(report):
    found = report([*judged(60, 6)])
    low, high = found.to_dict()["krippendorff_interval"]
    assert low < found.alpha < high
    assert f"95% interval {low:.4f} to {high:.4f}" in str(found)
    # Wilson's interval of 54 of 60.
    assert found.to_dict()["pairs"][0]["interval"] == pytest.approx([0.7986, 0.9534], abs=1e-4)
    assert str(found).count("90% (80 to 95)") == 3


def test_gold_is_of_the_collection_or_given(report, tmp_path):
    answers = [answer("anna", n, choice, how="gold") for n, choice in ((1, "first"), (2, "second"))]
    (anna,) = report([*answers, answer("anna", 3, "first")]).judges
    assert str(anna.gold) == "1 of 2"
    (tmp_path / "gold.txt").write_text("a c3 b3\n")
    (anna,) = tk.judges(tmp_path / "told.sqlite", gold=tmp_path / "gold.txt").judges
    assert str(anna.gold) == "2 of 3"


@pytest.mark.parametrize(
    ("answers", "reason"),
    [
        ([answer("x", n, "first", response_ms=200) for n in range(30)], "less than 0.5 s"),
        ([answer("x", n, "first", "left") for n in range(40)], "40 of 40 choices are on the left"),
        (
            [answer("x", n % 15, ("first", "second")[n // 15]) for n in range(30)],
            "0 of 15 repeated",
        ),
        ([answer("x", n, "second", how="gold") for n in range(4)], "4 of 4 gold"),
        ([answer("x", n, "cant-tell", "neither") for n in range(30)], "30 of 30 answers are"),
        (
            [answer("x", n, "first") for n in range(200)]
            + [answer("y", n, ("first", "second")[n % 2]) for n in range(200)],
            "100 of 200 answers agree",
        ),
    ],
)
def test_a_careless_judge_is_told_and_why(report, answers, reason):
    reasons = report(answers).judges[0].reasons
    assert any(reason in said for said in reasons), reasons


def test_where_nobody_can_tell_nobody_is_careless(tmp_path):
    unsure = [answer(j, n, "cant-tell", "neither") for j in ("x", "y") for n in range(30)]
    found = report_of(tmp_path / "unsure.sqlite", unsure)
    assert [judge.reasons for judge in found.judges] == [[], []]
    sides = ("left", "right")
    sure = [answer(j, n, "first", sides[n % 2]) for j in ("y", "z") for n in range(30)]
    found = report_of(tmp_path / "sure.sqlite", [*unsure[:30], *sure])
    assert [len(judge.reasons) for judge in found.judges] == [1, 0, 0]


@pytest.mark.slow
def test_a_careful_judge_is_not_called_careless(tmp_path):
    gold = [("p00.png", "p02.png", "p01.png")]
    database, asker = start(tmp_path / "j.sqlite", NAMES, gold, n_questions=120, overlap=2)
    answer_all(database, asker, "anna", by_label(LABELS, error=0.05, seed=1))
    answer_all(database, asker, "ben", by_label(LABELS, error=0.05, seed=2))
    report = tk.judges(database.path)
    for judge in report.judges:
        assert judge.reasons == []
        assert judge.consistency.of >= 1 and judge.consistency.value > 0.5
        assert judge.agreement.value > 0.8
    assert report.alpha > 0.6


def test_the_command(tmp_path, tripletkit):
    path = tmp_path / "j.sqlite"
    database, asker = start(path, NAMES, n_questions=60, overlap=2)
    answer_all(database, asker, "anna", by_label(LABELS))
    answer_all(database, asker, "ben", lambda anchor, shown: "left", response_ms=120)
    result = tripletkit("judges", path, code=0)
    assert "ben looks careless: 60 of 60 answers took less than 0.5 s" in result.stdout
    only = tripletkit("judges", path, "--exclude", "ben")
    assert "ben" not in only.stdout
    assert "overlap of 2" in only.stdout
    gold = tmp_path / "gold.txt"
    gold.write_text(" ".join(read_answers_given(path)[0].triplet) + "\n")
    assert "gold wrong" in tripletkit("judges", path, "--gold", gold, code=0).stdout
    start(tmp_path / "none.sqlite", NAMES)
    refused = tripletkit("judges", tmp_path / "none.sqlite", code=1)
    assert refused.stdout == ""
    assert "no answer in it yet" in refused.stderr

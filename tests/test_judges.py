"""What is said of judges, with judges whose faults are known."""

from __future__ import annotations

import json

import krippendorff
import numpy as np
import pytest
from collected import answer_all, by_label, start

from tripletkit.collecting.judges import report_judges
from tripletkit.data.judgement_files import Answer, read_answers_given
from tripletkit.evaluation.intervals import wilson_interval

NAMES = [f"p{n:02}.png" for n in range(30)]
LABELS = {name: n % 2 for n, name in enumerate(NAMES)}


def answer(judge, question, choice, side="left", how="random", response_ms=1000.0, screen=0):
    triplet = ("a", f"b{question}", f"c{question}")
    return Answer(judge, question, triplet, how, choice, side, response_ms, screen)


def told(*answers):
    """Give each a screen of its own."""
    from dataclasses import replace

    return [replace(each, screen=n) for n, each in enumerate(answers, 1)]


def test_one_judge_by_hand():
    report = report_judges(
        told(
            answer("anna", 1, "first", response_ms=400),
            answer("anna", 2, "second", "right", response_ms=1000),
            answer("anna", 3, "cant-tell", "neither", response_ms=3000),
            answer("anna", 1, "first", "right", response_ms=2000),
            answer("anna", 2, "first", response_ms=0),
        )
    )
    (anna,) = report.judges
    assert (anna.n_screens, anna.median_ms) == (5, 1500)
    assert str(anna.cant_tell) == "1 of 5"
    assert str(anna.consistency) == "1 of 2"
    assert str(anna.left) == "2 of 4"
    assert str(anna.fast) == "1 of 4"
    assert anna.agreement.value is None
    assert (report.alpha, report.n_shared) == (None, 0)


def test_a_question_turned_round_is_the_same():
    turned = Answer("ben", 9, ("a", "c1", "b1"), "random", "second", "left", 900.0, 0)
    report = report_judges(told(answer("anna", 1, "first"), turned))
    assert str(report.pairs["anna", "ben"]) == "1 of 1"


def judged(n_questions, n_differing):
    """Two judges, of whom the second differs on the first questions."""
    for question in range(n_questions):
        choice = "first" if question % 2 else "second"
        other = {"first": "second", "second": "first"}[choice]
        yield answer("anna", question, choice)
        yield answer("ben", question, other if question < n_differing else choice)


def test_alpha_is_that_of_another_program():
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
    report = report_judges(told(*answers))
    assert report.alpha == pytest.approx(expected)
    assert report.alpha_interval.low < expected < report.alpha_interval.high


def test_alpha_of_few_questions_has_no_interval():
    for n, n_differing, said in (
        (7, 3, "too few questions for an interval (7; it takes 20)"),
        (60, 4, "too few questions that judges answer differently for an interval (4; it takes 5)"),
    ):
        report = report_judges(told(*judged(n, n_differing)))
        assert report.alpha is not None
        assert said in str(report)
        assert report.to_dict()["krippendorff_interval"] is None


def test_every_share_has_an_interval():
    report = report_judges(told(*judged(60, 6)))
    low, high = report.to_dict()["krippendorff_interval"]
    assert low < report.alpha < high
    assert f"95% interval {low:.4f} to {high:.4f}" in str(report)
    interval = wilson_interval(54, 60)
    assert report.to_dict()["pairs"][0]["interval"] == interval.to_list()
    ends = f"({100 * interval.low:.0f} to {100 * interval.high:.0f})"
    assert str(report).count(f"90% {ends}") == 3


def test_those_who_all_say_the_same_have_no_alpha():
    report = report_judges(told(answer("anna", 1, "first"), answer("ben", 1, "first")))
    assert (report.alpha, report.n_shared) == (None, 1)


def test_gold_is_of_the_collection_or_given():
    answers = told(
        answer("anna", 1, "first", how="gold"),
        answer("anna", 2, "second", how="gold"),
        answer("anna", 3, "first"),
    )
    (anna,) = report_judges(answers).judges
    assert str(anna.gold) == "1 of 2"
    (anna,) = report_judges(answers, [("a", "c3", "b3")]).judges
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
def test_a_careless_judge_is_told_and_why(answers, reason):
    report = report_judges(told(*answers))
    assert any(reason in said for said in report.judges[0].reasons), report.judges[0].reasons


def test_where_nobody_can_tell_nobody_is_careless():
    unsure = [answer(j, n, "cant-tell", "neither") for j in ("x", "y") for n in range(30)]
    assert [judge.reasons for judge in report_judges(told(*unsure)).judges] == [[], []]
    sure = [answer(j, n, "first", "neither") for j in ("y", "z") for n in range(30)]
    report = report_judges(told(*unsure[:30], *sure))
    assert [len(judge.reasons) for judge in report.judges] == [1, 0, 0]


@pytest.mark.slow
def test_a_careful_judge_is_not_called_careless(tmp_path):
    gold = [("p00.png", "p02.png", "p01.png")]
    database, asker = start(tmp_path / "j.sqlite", NAMES, gold, n_questions=120, overlap=2)
    answer_all(database, asker, "anna", by_label(LABELS, error=0.05, seed=1))
    answer_all(database, asker, "ben", by_label(LABELS, error=0.05, seed=2))
    report = report_judges(read_answers_given(database.path))
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
    heading, anna, ben = result.stdout.splitlines()[:3]
    assert heading.split()[:3] == ["judge", "answers", "seconds"]
    assert anna.split()[:3] == ["anna", "60", "1.5"]
    assert ben.split()[:3] == ["ben", "60", "0.1"]
    assert "ben looks careless: 60 of 60 answers took less than 0.5 s" in result.stdout
    assert "Krippendorff's alpha" in result.stdout
    as_json = json.loads(tripletkit("judges", path, "--json").stdout)
    assert [judge["n_screens"] for judge in as_json["judges"]] == [60, 60]
    only = tripletkit("judges", path, "--exclude", "ben")
    assert "ben" not in only.stdout
    assert "overlap of 2" in only.stdout
    gold = tmp_path / "gold.txt"
    given = read_answers_given(path)[0]
    gold.write_text(" ".join(given.triplet) + "\n")
    tripletkit("judges", path, "--gold", gold, code=0)
    nothing = tmp_path / "none.sqlite"
    start(nothing, NAMES)
    refused = tripletkit("judges", nothing)
    assert (refused.exit_code, refused.stdout) == (1, "")
    assert "no answer in it yet" in refused.stderr

"""What judges are asked: shares, repeats, overlap, gold, sides; all read from the database."""

from __future__ import annotations

import json
from collections import Counter

import numpy as np
import pytest
from collected import (
    Drawn,
    answer_all,
    by_label,
    names_of,
    read_answers_given,
    rows_of,
    sent,
    start,
)

from tripletkit import TripletkitError

NAMES = [f"p{n:02}.png" for n in range(30)]
LABELS = {name: n % 3 for n, name in enumerate(NAMES)}
ALIKE = 1 / (30 * 29 * 28 / 2)  # the probability of a question where all are alike


@pytest.fixture
def begin(tmp_path):
    """Return a function that makes a database and what asks."""

    def begin(names=NAMES, gold=(), **settings):
        return start(tmp_path / "j.sqlite", names, gold, **{"n_questions": 60} | settings)

    return begin


def screens_of(database, judge=1):
    return database.connection.execute(
        "SELECT screens.*, questions.how, questions.first, questions.model FROM screens "
        "LEFT JOIN questions ON questions.id = question WHERE judge = ? ORDER BY screens.id",
        (judge,),
    ).fetchall()


def add_chosen(database, n, how="disagreement"):
    """Add a model that chose `n` questions."""
    rng = np.random.default_rng(5)
    rows = [rng.permutation(np.arange(1, 31))[:3].tolist() for _ in range(n)]
    questions = [{"images": row, "how": how, "score": 0.1, "expected": 0.4} for row in rows]
    return database.add_model(100, {}, questions)


def test_without_a_model_all_is_random_or_repeated_and_sides_are_balanced(begin):
    database, asker = begin()
    answer_all(database, asker, "anna", by_label(LABELS))
    screens = screens_of(database)
    assert len(screens) == 60
    assert {screen["how"] for screen in screens} == {"random"}
    repeats = [screen for screen in screens if screen["purpose"] == "repeat"]
    assert 5 <= len(repeats) <= 9
    place_of = {screen["id"]: place for place, screen in enumerate(screens)}
    for screen in repeats:
        original = screens[place_of[screen["repeats"]]]
        assert original["question"] == screen["question"]
        assert place_of[screen["id"]] - place_of[original["id"]] > 10
    assert len({screen["repeats"] for screen in repeats}) == len(repeats)
    assert asker.screens(1) == []
    is_left = [json.loads(screen["shown"])[0] == screen["first"] for screen in screens]
    assert sum(is_left) == 30
    assert len(set(zip(is_left[::2], is_left[1::2], strict=True))) > 2
    # Of another judge some questions are the first one's.
    answer_all(database, asker, "ben", by_label(LABELS))
    assert Counter(screen["purpose"] for screen in screens_of(database, 2))["overlap"] >= 3


def test_chosen_questions_have_their_share_and_the_rest_stays_random(begin):
    database, asker = begin(n_questions=100)
    model = add_chosen(database, 200)
    answer_all(database, asker, "anna", by_label(LABELS))
    screens = screens_of(database)
    # Of every twenty.
    for block in range(0, 100, 20):
        how = Counter(s["how"] for s in screens[block : block + 20] if s["purpose"] == "fresh")
        assert how["disagreement"] == 14
    assert {screen["model"] for screen in screens if screen["how"] != "random"} == {model}
    ((probability,),) = rows_of(
        database.path, "SELECT DISTINCT probability FROM questions WHERE how = 'random'"
    )
    assert probability == pytest.approx(ALIKE)


def test_questions_of_an_older_model_are_not_asked(begin):
    database, asker = begin(n_questions=20)
    add_chosen(database, 50, "margin")
    newer = add_chosen(database, 5)
    answer_all(database, asker, "anna", by_label(LABELS))
    found = Counter(screen["model"] for screen in screens_of(database))
    # Five chosen ones, then chance again.
    assert found[newer] == 5
    assert set(found) == {newer, None}


def test_overlap_asks_each_question_of_so_many_judges(begin):
    database, asker = begin(n_questions=40, overlap=3)

    def count():
        query = "SELECT count(DISTINCT judge) FROM screens GROUP BY question"
        return Counter(n for (n,) in rows_of(database.path, query))

    for judge in ("anna", "ben", "carla"):
        answer_all(database, asker, judge, by_label(LABELS))
    # Three are asked each question, and nobody else.
    assert count()[3] >= 30 and max(count()) == 3
    answer_all(database, asker, "dora", by_label(LABELS))
    assert max(count()) == 3
    for judge in (1, 2, 3):
        own = [s["question"] for s in screens_of(database, judge) if s["purpose"] != "repeat"]
        assert max(Counter(own).values()) == 1


def test_gold_is_mixed_in_and_is_no_judgement(begin):
    gold = [("p00.png", "p03.png", "p01.png"), ("p01.png", "p04.png", "p02.png")]
    database, asker = begin(gold=gold, n_questions=40)
    answer_all(database, asker, "anna", by_label(LABELS))
    golden = [n for n, screen in enumerate(screens_of(database)) if screen["how"] == "gold"]
    # One in twenty.
    assert [number // 20 for number in golden] == [0, 1]
    answers = [a for a in read_answers_given(database.path) if a.how == "gold"]
    assert {answer.triplet for answer in answers} == set(gold)
    # Started again, they are the same two.
    begin(gold=gold)
    assert rows_of(database.path, "SELECT count(*) FROM questions WHERE how = 'gold'") == [(2,)]


def test_images_that_are_gone_or_left_out_are_not_shown(begin):
    database, asker = begin(n_questions=30)
    answer_all(database, asker, "anna", by_label(LABELS), n=3)
    names = names_of(database)
    gone, broken = (screen.anchor for screen in asker.screens(1)[:2])
    _, asker = begin([name for number, name in names.items() if number != gone], n_questions=30)
    asker.leave_out(broken)
    seen = answer_all(database, asker, "anna", by_label(LABELS))
    assert not {gone, broken} & {image for screen in seen for image in screen.images}
    # The ones that showed them are replaced.
    assert database.n_answers(1) == 30


def test_so_many_images_stay_that_there_is_something_to_ask(begin):
    database, asker = begin(NAMES[:4])
    for number in range(1, 5):
        asker.leave_out(number)
    assert asker.screens(database.add_judge("anna").id)
    with pytest.raises(TripletkitError, match="at least 3 images"):
        begin(NAMES[:2])
    with pytest.raises(TripletkitError, match="at least 9 images"):
        begin(NAMES[:8], screen="grid", grid_of=8)


def test_numbers_tell_nothing_of_names(begin):
    database, _ = begin()
    numbers = [database.add_images(NAMES)[name] for name in NAMES]
    assert sorted(numbers) == list(range(1, 31))
    assert numbers != sorted(numbers)


def test_grids_are_repeated_in_another_order(begin):
    database, asker = begin(screen="grid", grid_of=4, grid_pick=1)
    answer_all(database, asker, "anna", lambda anchor, shown: "neither")
    shown = {screen["id"]: json.loads(screen["shown"]) for screen in screens_of(database)}
    pairs = [(shown[s["id"]], shown[s["repeats"]]) for s in screens_of(database) if s["repeats"]]
    assert len(pairs) >= 3
    assert all(sorted(now) == sorted(before) for now, before in pairs)
    assert any(now != before for now, before in pairs)


def test_what_was_drawn_is_asked_with_its_probability(begin):
    database, asker = begin()
    asker.drawn.extend([Drawn([1, 2, 99], 0.5), Drawn([1, 2, 3], 0.25), Drawn([4, 5, 6], 0.125)])
    answer_all(database, asker, "anna", by_label(LABELS), n=3)
    query = "SELECT anchor, first, second, probability FROM questions ORDER BY id LIMIT 3"
    rows = rows_of(database.path, query)
    # Images that are gone are passed over; where nothing is drawn, all questions are alike.
    assert rows[:2] == [(1, 2, 3, 0.25), (4, 5, 6, 0.125)]
    assert rows[2][3] == pytest.approx(ALIKE)


def test_pairs_of_a_grid_have_the_probability_of_their_layers(begin):
    database, asker = begin(n_questions=1, screen="grid", grid_of=4, grid_pick=1)
    layers = {"near": [2, 3, 4], "n_nearest": 12, "n_others": 17}
    asker.drawn.append(Drawn([1, 2, 3, 4, 5], layers=layers))
    (screen,) = asker.screens(database.add_judge("anna").id)
    database.add_answer(1, sent(screen.id, side="grid", places=[0]))
    number = {name: n for n, name in names_of(database).items()}
    found = {number[a.triplet[2]]: a.probability * 30 for a in read_answers_given(database.path)}
    # Three of the twelve nearest, and one of the 17 others.
    near = pytest.approx(3 * 2 / (12 * 11))
    assert found == {3: near, 4: near, 5: pytest.approx(3 / 12 / 17)}

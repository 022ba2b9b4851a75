"""What judges are asked: shares, repeats, overlap, gold, sides; all read from the database."""

from __future__ import annotations

import json
from collections import Counter

import numpy as np
import pytest
from collected import answer_all, by_label, names_of, start

from tripletkit import TripletkitError
from tripletkit.collecting import asking as schedule
from tripletkit.collecting.choosing import Drawn
from tripletkit.collecting.database import GivenAnswer
from tripletkit.data.judgement_files import read_answers_given

NAMES = [f"p{n:02}.png" for n in range(30)]
LABELS = {name: n % 3 for n, name in enumerate(NAMES)}


def screens_of(database, judge=1):
    return database.connection.execute(
        "SELECT screens.*, questions.how, questions.first FROM screens "
        "LEFT JOIN questions ON questions.id = question WHERE judge = ? ORDER BY screens.id",
        (judge,),
    ).fetchall()


def add_chosen(database, n, how="disagreement"):
    """Add a model that chose `n` questions."""
    rng = np.random.default_rng(5)
    rows = [rng.permutation(np.arange(1, 31))[:3].tolist() for _ in range(n)]
    questions = [{"images": row, "how": how, "score": 0.1, "expected": 0.4} for row in rows]
    return database.add_model(100, {}, questions)


def test_every_block_has_the_shares():
    for judge in (1, 2):
        for block in range(4):
            numbers = range(block * 20, block * 20 + 20)
            slots = Counter(schedule._slot_of(0, judge, number) for number in numbers)
            assert slots[schedule.CHOSEN] == 14
            assert slots[schedule.BY_CHANCE] == 3
            assert slots[schedule.REPEAT_OWN] + slots[schedule.REPEAT_OTHER] == 3
    golden = Counter(schedule._slot_of(0, 1, number, has_gold=True) for number in range(20))
    assert golden[schedule.GOLD] == 1 and golden[schedule.BY_CHANCE] == 3


def test_without_a_model_all_is_random_or_repeated(tmp_path):
    database, asker = start(tmp_path / "j.sqlite", NAMES, n_questions=60)
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


def test_chosen_questions_have_their_share_and_the_rest_stays_random(tmp_path):
    database, asker = start(tmp_path / "j.sqlite", NAMES, n_questions=100)
    model = add_chosen(database, 200)
    answer_all(database, asker, "anna", by_label(LABELS))
    how = Counter(screen["how"] for screen in screens_of(database) if screen["purpose"] == "fresh")
    assert how["disagreement"] == 70
    rows = database.connection.execute(
        "SELECT DISTINCT model, expected FROM questions WHERE how = 'disagreement' "
        "AND id IN (SELECT question FROM screens)"
    ).fetchall()
    assert [tuple(row) for row in rows] == [(model, 0.4)]
    (probability,) = database.connection.execute(
        "SELECT DISTINCT probability FROM questions WHERE how = 'random'"
    ).fetchone()
    assert probability == pytest.approx(1 / (30 * 29 * 28 / 2))


def test_questions_of_an_older_model_are_not_asked(tmp_path):
    database, asker = start(tmp_path / "j.sqlite", NAMES, n_questions=20)
    add_chosen(database, 50, "margin")
    newer = add_chosen(database, 5)
    answer_all(database, asker, "anna", by_label(LABELS))
    models = database.connection.execute(
        "SELECT model FROM questions JOIN screens ON screens.question = questions.id"
    )
    found = Counter(model for (model,) in models)
    # Five chosen ones, then chance again.
    assert found[newer] == 5
    assert set(found) == {newer, None}


def test_overlap_asks_each_question_of_so_many_judges(tmp_path):
    database, asker = start(tmp_path / "j.sqlite", NAMES, n_questions=40, overlap=3)
    for judge in ("anna", "ben", "carla"):
        answer_all(database, asker, judge, by_label(LABELS))
    rows = database.connection.execute(
        "SELECT count(DISTINCT judge) AS n FROM screens GROUP BY question"
    )
    n_judges = Counter(n for (n,) in rows)
    # Three are asked each question, and nobody else.
    assert n_judges[3] >= 30
    assert max(n_judges) == 3
    answer_all(database, asker, "dora", by_label(LABELS))
    rows = database.connection.execute(
        "SELECT count(DISTINCT judge) AS n FROM screens GROUP BY question"
    )
    assert max(n for (n,) in rows) == 3
    for judge in (1, 2, 3):
        own = Counter(
            s["question"] for s in screens_of(database, judge) if s["purpose"] != "repeat"
        )
        assert max(own.values()) == 1


def test_without_overlap_some_questions_are_another_judges(tmp_path):
    database, asker = start(tmp_path / "j.sqlite", NAMES, n_questions=60)
    for judge in ("anna", "ben"):
        answer_all(database, asker, judge, by_label(LABELS))
    purposes = Counter(screen["purpose"] for screen in screens_of(database, 2))
    assert purposes["overlap"] >= 3 and purposes["repeat"] >= 3


def test_gold_is_mixed_in_and_is_no_judgement(tmp_path):
    gold = [("p00.png", "p03.png", "p01.png"), ("p01.png", "p04.png", "p02.png")]
    database, asker = start(tmp_path / "j.sqlite", NAMES, gold, n_questions=40)
    answer_all(database, asker, "anna", by_label(LABELS))
    golden = [screen for screen in screens_of(database) if screen["how"] == "gold"]
    assert len(golden) == 2
    answers = [a for a in read_answers_given(database.path) if a.how == "gold"]
    assert {answer.triplet for answer in answers} == set(gold)
    # Started again, they are the same two.
    start(tmp_path / "j.sqlite", NAMES, gold, n_questions=40)
    (n,) = database.connection.execute(
        "SELECT count(*) FROM questions WHERE how = 'gold'"
    ).fetchone()
    assert n == 2


def test_left_and_right_are_balanced(tmp_path):
    database, asker = start(tmp_path / "j.sqlite", NAMES, n_questions=80)
    answer_all(database, asker, "anna", by_label(LABELS))
    is_left = [json.loads(s["shown"])[0] == s["first"] for s in screens_of(database)]
    assert sum(is_left) == 40
    assert len(set(zip(is_left[::2], is_left[1::2], strict=True))) > 2


def test_images_that_are_gone_are_not_shown(tmp_path):
    database, asker = start(tmp_path / "j.sqlite", NAMES, n_questions=30)
    answer_all(database, asker, "anna", by_label(LABELS), n=3)
    names = dict(database.connection.execute("SELECT name, id FROM images").fetchall())
    pending = asker.screens(1)[0]
    kept = [name for name, number in names.items() if number != pending.anchor]
    _, asker = start(tmp_path / "j.sqlite", kept, n_questions=30)
    seen = answer_all(database, asker, "anna", by_label(LABELS))
    assert all(pending.anchor not in (screen.anchor, *screen.shown) for screen in seen)


def test_an_image_that_is_left_out_is_asked_about_no_more(tmp_path):
    database, asker = start(tmp_path / "j.sqlite", NAMES, n_questions=30)
    answer_all(database, asker, "anna", by_label(LABELS), n=3)
    broken = asker.screens(1)[0].anchor
    asker.leave_out(broken)
    seen = answer_all(database, asker, "anna", by_label(LABELS))
    # The ones that showed it are replaced.
    assert database.n_answers(1) == 30
    assert seen and all(broken not in (screen.anchor, *screen.shown) for screen in seen)


def test_so_many_images_stay_that_there_is_something_to_ask(tmp_path):
    database, asker = start(tmp_path / "j.sqlite", NAMES[:4])
    for number in range(1, 5):
        asker.leave_out(number)
    assert asker.screens(database.add_judge("anna").id)


def test_numbers_tell_nothing_of_names(tmp_path):
    database, _ = start(tmp_path / "j.sqlite", NAMES)
    numbers = [database.add_images(NAMES)[name] for name in NAMES]
    assert sorted(numbers) == list(range(1, 31))
    assert numbers != sorted(numbers)


def test_too_few_images_are_refused(tmp_path):
    with pytest.raises(TripletkitError, match="at least 3 images"):
        start(tmp_path / "a.sqlite", NAMES[:2])
    with pytest.raises(TripletkitError, match="at least 9 images"):
        start(tmp_path / "b.sqlite", NAMES[:8], screen="grid", grid_of=8)


def test_grids_are_repeated_in_another_order(tmp_path):
    database, asker = start(
        tmp_path / "j.sqlite", NAMES, n_questions=60, screen="grid", grid_of=4, grid_pick=1
    )
    answer_all(database, asker, "anna", lambda anchor, shown: "neither")
    screens = screens_of(database)
    repeats = [screen for screen in screens if screen["repeats"]]
    assert len(repeats) >= 3
    by_id = {screen["id"]: screen for screen in screens}
    shown = [(json.loads(s["shown"]), json.loads(by_id[s["repeats"]]["shown"])) for s in repeats]
    assert all(sorted(now) == sorted(before) for now, before in shown)
    assert any(now != before for now, before in shown)


def test_what_was_drawn_is_asked_with_its_probability(tmp_path):
    database, asker = start(tmp_path / "j.sqlite", NAMES, n_questions=10)
    asker.drawn.extend([Drawn([1, 2, 99], 0.5), Drawn([1, 2, 3], 0.25), Drawn([4, 5, 6], 0.125)])
    answer_all(database, asker, "anna", by_label(LABELS), n=3)
    rows = database.connection.execute(
        "SELECT anchor, first, second, probability FROM questions ORDER BY id LIMIT 3"
    ).fetchall()
    # Images that are gone are passed over; where nothing is drawn, all questions are alike.
    assert [tuple(row) for row in rows[:2]] == [(1, 2, 3, 0.25), (4, 5, 6, 0.125)]
    assert rows[2]["probability"] == pytest.approx(1 / (30 * 29 * 28 / 2))


def test_pairs_of_a_grid_have_the_probability_of_their_layers(tmp_path):
    database, asker = start(
        tmp_path / "j.sqlite", NAMES, n_questions=1, screen="grid", grid_of=4, grid_pick=1
    )
    asker.drawn.extend([Drawn([1, 2, 3, 4, 5], near=[2, 3, 4], n_images=30)])
    (screen,) = asker.screens(database.add_judge("anna").id)
    answer = GivenAnswer("client-0001", screen.id, "grid", (0,), 900.0, "mouse")
    database.add_answer(1, answer)
    number = {name: n for n, name in names_of(database).items()}
    found = {number[a.triplet[2]]: a.probability * 30 for a in read_answers_given(database.path)}
    # Three of the twelve nearest, and one of the 17 others.
    near = pytest.approx(3 * 2 / (12 * 11))
    assert found == {3: near, 4: near, 5: pytest.approx(3 / 12 / 17)}

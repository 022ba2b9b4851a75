"""Training beside the server: what it chooses, what it says of itself, and that it may die."""

from __future__ import annotations

import json
import os
import time
from dataclasses import replace

import numpy as np
import pytest
from collected import answer_all, by_label, start
from hypothesis import given
from hypothesis import strategies as st

import tripletkit as tk
from tripletkit import Triplets, defaults
from tripletkit.collecting import background
from tripletkit.collecting.background import (
    BackgroundTrainer,
    TrainerTask,
    _choose_next,
    _extrapolate,
    _measure_curve,
    _measure_model,
)
from tripletkit.collecting.choosing import Committee, question_keys
from tripletkit.data.judgement_files import read_shown_questions
from tripletkit.data.triplets import Votes
from tripletkit.progress import no_progress

NAMES = [f"p{n:02}.png" for n in range(40)]
LABELS = {name: n % 4 for n, name in enumerate(NAMES)}


def make_features(progress=no_progress) -> np.ndarray:
    """Features that tell the four classes apart, if one looks at the right ones."""
    rng = np.random.default_rng(0)
    features = rng.normal(0, 1.0, (40, 24))
    for n in range(40):
        features[n, n % 4] += 2.5
    return features.astype(np.float32)


def fail(progress) -> np.ndarray:
    raise RuntimeError("no weights at hand")


def die(progress) -> np.ndarray:
    os._exit(9)


def follow(*points, n_more):
    curve = [dict(zip(("n_questions", "accuracy"), each, strict=True)) for each in points]
    return _extrapolate(curve, n_more)


def test_the_error_falls_by_the_power_that_it_fell_by():
    # Halved when the answers were quadrupled: a power of a half.
    assert follow((100, 0.6), (400, 0.8), n_more=1200) == pytest.approx(0.9)
    # What rises is not taken to rise for ever, and what never errs has no power.
    assert follow((100, 0.8), (400, 0.7), n_more=200) == pytest.approx(0.7)
    assert follow((100, 0.8), (400, 1.0), n_more=200) is None
    assert follow((100, 0.8), n_more=200) is None


@given(st.lists(st.floats(0.01, 0.99), min_size=2, max_size=3), st.integers(1, 10_000))
def test_more_answers_never_make_it_worse(accuracies, n_more):
    found = follow(*zip((50, 100, 200), accuracies, strict=False), n_more=n_more)
    assert accuracies[-1] - 1e-9 <= found < 1


def judged(n, is_random):
    rows = np.stack([np.random.default_rng(n).permutation(9)[:3] for n in range(n)])
    triplets = Triplets(list("abcdefghi"), rows, np.arange(n), "f")
    return replace(
        tk.read_judgements(triplets),
        votes=Votes(np.ones(n), np.zeros(n)),
        is_random=is_random,
        weights=np.where(is_random, 1.0, 0.0),
    )


def test_the_curve_asks_the_random_share_alone_and_never_what_was_learned():
    n = 120
    is_random = np.arange(n) % 2 == 0
    judgements = judged(n, is_random)
    learned = []

    def train(rows):
        learned.append(set(rows.tolist()))
        return np.random.default_rng(0).normal(size=(9, 3)), "l2"

    points, margins = _measure_curve(judgements, train, seed=0)
    assert (np.isfinite(margins) == is_random).all()
    assert [len(rows) for rows in learned] == [25, 50, 100] * 3
    left_out = [set(range(n)) - rows for rows in learned[2::3]]
    assert sorted(set.union(*left_out)) == np.flatnonzero(is_random).tolist()
    assert sum(map(len, left_out)) == 60
    assert [p["n_questions"] for p in points] == [25, 50, 100]
    assert points[-1]["accuracy"] == pytest.approx(np.mean(margins[is_random] > 0))


def test_too_small_a_random_share_says_nothing():
    is_random = np.arange(100) < 20
    assert _measure_curve(judged(100, is_random), lambda rows: pytest.fail(), seed=0) is None


@pytest.fixture
def collected(tmp_path):
    database, asker = start(tmp_path / "j.sqlite", NAMES, n_questions=400)
    return database, asker


@pytest.mark.slow
@pytest.mark.parametrize("way", ["margin", "disagreement"])
def test_it_chooses_what_it_is_unsure_of(collected, way):
    database, asker = collected
    answer_all(database, asker, "anna", by_label(LABELS), n=120)
    task = TrainerTask(database.path, database.add_images(NAMES), make_features, way)
    features = make_features()
    found = _choose_next(task, features, 120)
    questions = found["questions"]
    if way == "disagreement":
        # The same answers, the same choice.
        assert _choose_next(task, features, 120)["questions"] == questions
    # No image more than twice.
    assert len(questions) <= 40 * 2 // 3
    used = [image for q in questions for image in q["images"]]
    assert max(np.bincount(used)) <= 2
    assert {q["how"] for q in questions} == {way}
    unsure = np.mean([abs(q["expected"] - 0.5) for q in questions])
    assert unsure < 0.4
    scores = [q["score"] for q in questions]
    assert scores == sorted(scores, reverse=True)
    asked = {
        (row["anchor"], frozenset((row["first"], row["second"])))
        for row in database.connection.execute("SELECT anchor, first, second FROM questions")
    }
    assert not asked & {(q["images"][0], frozenset(q["images"][1:])) for q in questions}
    about = found["about"] | _measure_model(task, features, 120)
    assert about["n_random"] == int(tk.read_judgements(database.path).decided().is_random.sum())
    assert len(about["curve"]) == 3
    assert all(hard["margin"] < 0 for hard in about["hardest"])
    json.dumps(about)
    model = database.add_model(120, about, questions)
    answer_all(database, asker, "anna", by_label(LABELS), n=30)
    models = database.connection.execute(
        "SELECT DISTINCT questions.model FROM screens JOIN questions ON questions.id = question "
        "WHERE how = ?",
        (way,),
    ).fetchall()
    assert [m for (m,) in models] == [model]


def test_what_was_shown_is_not_chosen_whatever_was_said(tmp_path, monkeypatch):
    # Most of the 30 possible questions are shown, and most cannot be told.
    names = NAMES[:5]
    database, asker = start(tmp_path / "j.sqlite", names, n_questions=28)
    answer_all(database, asker, "anna", by_label(dict(zip(names, "aabcd", strict=True))))
    asker.screens(database.add_judge("ben").id)
    shown = read_shown_questions(database.path)
    members = np.random.default_rng(0).normal(size=(2, 5, 3)).astype(np.float32)
    monkeypatch.setattr(
        background, "_train_committee", lambda *args, **kwargs: Committee(list(members), "l2", 0.1)
    )
    monkeypatch.setattr(defaults, "MAX_PER_IMAGE", 99)
    task = TrainerTask(database.path, database.add_images(names), make_features, "margin")
    monkeypatch.setattr(background, "_FEWEST_ANSWERS", 1)
    questions = _choose_next(task, make_features()[:5], 28)["questions"]
    chosen = [q["images"] for q in questions]
    keys = {*question_keys(np.array(chosen)).tolist()}
    assert keys
    assert not keys & {*question_keys(np.array(shown)).tolist()}


def wait_for(condition, timeout_s=120):
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.1)


@pytest.mark.slow
@pytest.mark.integration
def test_a_model_comes_while_answers_go_on(collected):
    database, asker = collected
    images = database.add_images(NAMES)
    task = TrainerTask(database.path, images, make_features, "disagreement")
    trainer = BackgroundTrainer(asker, task, first_after=60, again_after=40)
    trainer.start()
    try:
        answer_all(database, asker, "anna", by_label(LABELS), n=59)
        time.sleep(2)
        assert database.last_model() is None
        answer_all(database, asker, "anna", by_label(LABELS), n=5)
        wait_for(lambda: database.last_model() is not None)
        # Judges are asked by it at once; what it is worth comes later.
        wait_for(lambda: "n_random" in json.loads(database.last_model()["about"]))
        assert database.last_model()["n_answers"] == 64
        answer_all(database, asker, "anna", by_label(LABELS), n=40)
        wait_for(lambda: database.last_model()["id"] == 2)
        assert database.last_model()["n_answers"] == 104
        assert len(asker.drawn) > 1000
    finally:
        trainer.stop()
    assert not trainer._process.is_alive()


@pytest.mark.slow
@pytest.mark.integration
@pytest.mark.parametrize(
    ("make", "said"), [(fail, "no weights at hand"), (die, "its process ended")]
)
def test_without_it_questions_are_random_and_that_is_said(collected, make, said, caplog):
    database, asker = collected
    trainer = BackgroundTrainer(
        asker, TrainerTask(database.path, database.add_images(NAMES), make, "margin")
    )
    trainer.start()
    try:
        wait_for(lambda: "drawn at random" in trainer.status["text"])
    finally:
        trainer.stop()
    assert said in trainer.status["text"]
    assert said in caplog.text
    assert len(answer_all(database, asker, "anna", by_label(LABELS), n=5)) == 5

"""Which questions are chosen, by whom, and what the training beside the server says of itself."""

from __future__ import annotations

import json
import os
import time
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from collected import answer_all, by_label, rows_of, start
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit

import tripletkit as tk
from tripletkit import defaults
from tripletkit.collecting import choosing
from tripletkit.evaluation.distances import triplet_margins
from tripletkit.evaluation.intervals import (
    effective_count,
    image_interval,
    weigh_values,
    wilson_interval,
)

NAMES = [f"p{n:02}.png" for n in range(40)]
LABELS = {name: n % 4 for n, name in enumerate(NAMES)}
NONE = np.empty((0, 3))


def classes(n_images, n_classes=5, seed=0, spread=0.6):
    """Features of classes that overlap, and the class of each image."""
    rng = np.random.default_rng(seed)
    of = np.arange(n_images) % n_classes
    features = np.eye(n_classes + 3)[of] + rng.normal(0, spread / 2, (n_images, n_classes + 3))
    return features, of


def can_tell(of, rows):
    """Judges tell by the class, and cannot where it does not differ."""
    alike = of[rows[:, 1:]] == of[rows[:, :1]]
    return alike[:, 0] != alike[:, 1]


@pytest.mark.slow
def test_questions_come_as_often_as_they_are_said_to():
    features, _ = classes(6)
    rng, n_each = np.random.default_rng(1), 20_000
    rows, probability = choosing._draw_questions(features, np.arange(6), n_each, rng)
    keys = choosing._question_keys(rows)
    keys, first, counts = np.unique(keys, return_index=True, return_counts=True)
    # Whichever way round, each of the 60 that there are; as often as its probability says.
    assert len(keys) == 60
    assert probability[first].sum() == pytest.approx(1)
    expected = probability[first] * len(rows)
    assert np.sum((counts - expected) ** 2 / expected) < 110  # chi squared, 54 degrees of freedom
    assert 0.49 < np.mean(rows[:, 1] < rows[:, 2]) < 0.51


@pytest.mark.slow
def test_weighted_accuracy_is_unbiased_and_its_interval_holds():
    """The model is right the oftener the nearer the one candidate is, so weights do matter."""
    features, of = classes(120)
    every = np.array(list(combinations(range(120), 3)))
    every = np.concatenate([every, every[:, [1, 0, 2]], every[:, [2, 0, 1]]])
    told = every[can_tell(of, every)]
    rng = np.random.default_rng(2)
    model = features + rng.normal(0, 0.5, features.shape)

    def is_right(rows):
        nearer = triplet_margins(model, rows, "cosine") > 0
        return (nearer == (of[rows[:, 1]] == of[rows[:, 0]])).astype(float)

    truth = is_right(told).mean()
    weighted, plain, held, held_by_images = [], [], [], []
    for _ in range(300):
        rows, probability = choosing._draw_questions(features, rng.permutation(120), 3, rng)
        is_told = can_tell(of, rows)
        rows, weights = rows[is_told], 1 / probability[is_told]
        values = is_right(rows)
        spread = weigh_values(values, weights)
        n = effective_count(weights)
        weighted.append(spread.mean())
        plain.append(values.mean())
        wilson, by_images = wilson_interval(spread.mean() * n, n), image_interval(spread, rows)
        held.append(wilson.low <= truth <= wilson.high)
        held_by_images.append(by_images.low <= truth <= by_images.high)
    standard_error = np.std(weighted) / 300**0.5
    assert abs(np.mean(weighted) - truth) < 4 * standard_error
    assert np.mean(plain) - truth > 0.01  # what goes wrong without weights
    assert np.mean(held) >= 0.92
    assert np.mean(held_by_images) >= 0.92


def test_grids_show_the_nearest_and_some_by_chance():
    features, _ = classes(60)
    rng = np.random.default_rng(0)
    for images, near, n_nearest in choosing._draw_grids(features, np.arange(60), 8, rng):
        anchor, *shown = images
        assert len(set(images)) == 9 and set(near) < set(shown)
        assert (len(near), n_nearest) == (5, 24)
        unit = features / np.linalg.norm(features, axis=1, keepdims=True)
        order = [k for k in np.argsort(-(unit @ unit[anchor]), kind="stable") if k != anchor]
        assert set(near) <= set(order[:24])
        assert not set(shown) - set(near) & set(order[:24])


def test_who_can_tell_is_learned_and_saves_time(monkeypatch):
    monkeypatch.setattr(defaults, "MAX_PER_IMAGE", 9)
    features, of = classes(200, n_classes=8)
    rng = np.random.default_rng(0)
    rows, _ = choosing._draw_questions(features, np.arange(200), 3, rng)
    committee = choosing._Committee([features], "cosine", 0.1)
    told = can_tell(of, rows[:300])
    measures = choosing._measure_nearness(features, committee, rows)
    chance = choosing._expect_answers(measures[:300], told, measures)
    assert chance[300:][can_tell(of, rows[300:])].mean() > chance[300:].mean() + 0.05
    plain, *_ = choosing._choose_questions(committee, rows, 100, "margin")
    timed, *_ = choosing._choose_questions(committee, rows, 100, "margin", chance)
    assert can_tell(of, timed).mean() > 1.5 * can_tell(of, plain).mean()
    # With too few answers of a kind all questions are alike.
    few = choosing._expect_answers(np.zeros((9, 4)), np.arange(9) < 5, np.zeros((2, 4)))
    assert few == 5 / 9


@settings(max_examples=50)
@given(st.integers(3, 30), st.integers(1, 60), st.integers(0, 100))
def test_candidates_are_new_and_distinct(n_images, n_candidates, seed):
    rng = np.random.default_rng(seed)
    usable = np.sort(rng.permutation(2 * n_images)[:n_images])
    asked = choosing._draw_candidates(usable, 5, rng, NONE)
    rows = choosing._draw_candidates(usable, n_candidates, rng, asked[:, [0, 2, 1]])
    assert len(rows) <= n_candidates
    assert np.isin(rows, usable).all()
    assert all(len(set(row)) == 3 for row in rows.tolist())
    keys = choosing._question_keys(np.concatenate([asked, rows]))
    assert len(set(keys.tolist())) == len(keys)


def line(*places):
    return np.array(places, dtype=np.float32)[:, None]


def test_margin_takes_the_closest_calls_and_no_image_too_often(monkeypatch):
    # Image 0 is the anchor; 1 and 2 are equally far, 1 and 3 nearly so.
    committee = choosing._Committee([line(0, 1, -1, 1.1, 5)], "l2", 1.0)
    candidates = np.array([[0, 1, 4], [0, 1, 3], [0, 1, 2], [0, 3, 4]])
    spread, *_ = choosing._choose_questions(committee, candidates, 4, "margin")
    assert spread.tolist() == [[0, 1, 2], [0, 1, 3]]
    monkeypatch.setattr(defaults, "MAX_PER_IMAGE", 9)
    chosen, scores, expected = choosing._choose_questions(committee, candidates, 4, "margin")
    assert chosen.tolist() == [[0, 1, 2], [0, 1, 3], [0, 3, 4], [0, 1, 4]]
    # Nothing is known of a close call: ln 2 nats, in 2.3 s.
    assert scores[0] == pytest.approx(np.log(2) / 2.3)
    assert expected[0] == pytest.approx(0.5)


def test_disagreement_passes_over_what_all_members_find_close():
    # All find 1 and 2 equally far; about 3 and 4 each is sure, and they contradict each other.
    committee = choosing._Committee([line(0, 1, -1, 1, 3), line(0, 1, -1, 3, 1)], "l2", 0.5)
    candidates = np.array([[0, 1, 2], [0, 3, 4]])
    chosen, scores, _ = choosing._choose_questions(committee, candidates, 1, "disagreement")
    assert chosen.tolist() == [[0, 3, 4]]
    chances = expit(np.array([2.0, -2.0]) / 0.5)
    entropy = -(chances * np.log(chances) + (1 - chances) * np.log(1 - chances)).mean()
    assert scores[0] == pytest.approx((np.log(2) - entropy) / 2.3)
    margin, *_ = choosing._choose_questions(committee, candidates, 1, "margin")
    assert margin.tolist() == [[0, 1, 2]]


def test_temperature_is_found_again():
    rng = np.random.default_rng(0)
    margins = np.abs(rng.normal(0, 1, 4000))
    is_right = (rng.random(4000) < expit(margins / 0.4)).astype(float)
    assert choosing._fit_temperature(margins, is_right) == pytest.approx(0.4, rel=0.15)


def make_features(progress=None, n_images=40) -> np.ndarray:
    """Features that tell the four classes apart, if one looks at the right ones."""
    features = np.random.default_rng(0).normal(0, 1.0, (n_images, 24))
    features[np.arange(n_images), np.arange(n_images) % 4] += 2.5
    return features.astype(np.float32)


def fail(progress) -> np.ndarray:
    raise RuntimeError("no weights at hand")


def die(progress) -> np.ndarray:
    os._exit(9)


def follow(*points, n_more):
    curve = [dict(zip(("n_questions", "accuracy"), each, strict=True)) for each in points]
    return choosing._extrapolate(curve, n_more)


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


def task_of(database, names, way="margin"):
    numbers = database.add_images(names)
    return choosing._Task(Path(database.path), numbers, make_features, way, 0, 200)


def test_the_curve_asks_the_random_share_alone_and_never_what_was_learned(monkeypatch):
    n = 120
    rows = np.stack([np.random.default_rng(n).permutation(9)[:3] for n in range(n)])
    is_random = np.arange(n) % 2 == 0
    judgements = replace(
        tk.read_judgements(tk.Triplets(list("abcdefghi"), rows, np.arange(n), "f")),
        is_random=is_random,
        weights=np.where(is_random, 1.0, 0.0),
    )
    learned = []
    embeddings = np.random.default_rng(0).normal(size=(9, 3))

    class Votes:
        def take(self, places):
            learned.append(set(places.tolist()))

    committee = choosing._Committee([embeddings], "l2", 1.0)
    monkeypatch.setattr(choosing, "_train_committee", lambda *given: committee)
    points, found = choosing._measure_curve(judgements, rows, Votes(), None, 0)
    assert [len(rows) for rows in learned] == [25, 50, 100] * 3
    left_out = [set(range(n)) - rows for rows in learned[2::3]]
    assert sorted(set.union(*left_out)) == np.flatnonzero(is_random).tolist()
    assert sum(map(len, left_out)) == 60
    assert [p["n_questions"] for p in points] == [25, 50, 100]
    margins = triplet_margins(embeddings, rows[is_random], "l2")
    assert points[-1]["accuracy"] == pytest.approx(np.mean(margins > 0))
    np.testing.assert_allclose(found[is_random], margins)
    assert np.isnan(found[~is_random]).all()


@pytest.fixture
def collected(tmp_path):
    return start(tmp_path / "j.sqlite", NAMES, n_questions=400)


@pytest.mark.slow
@pytest.mark.parametrize("way", ["margin", "disagreement"])
def test_it_chooses_what_it_is_unsure_of(collected, way):
    database, asker = collected
    answer_all(database, asker, "anna", by_label(LABELS), n=20)
    task, features = task_of(database, NAMES, way), make_features()
    # Too small a random share says nothing.
    assert set(choosing._measure_model(task, features, 20)) == {"n_random"}
    answer_all(database, asker, "anna", by_label(LABELS), n=100)
    found = choosing._choose_next(task, features, 120)
    questions = found["questions"]
    if way == "disagreement":
        # The same answers, the same choice.
        assert choosing._choose_next(task, features, 120)["questions"] == questions
    # No image more than twice.
    assert len(questions) <= 40 * 2 // 3
    used = [image for q in questions for image in q["images"]]
    assert max(np.bincount(used)) <= 2
    assert {q["how"] for q in questions} == {way}
    assert np.mean([abs(q["expected"] - 0.5) for q in questions]) < 0.4
    scores = [q["score"] for q in questions]
    assert scores == sorted(scores, reverse=True)
    about = found["about"] | choosing._measure_model(task, features, 120)
    assert about["n_random"] == int(tk.read_judgements(database.path).decided().is_random.sum())
    assert len(about["curve"]) == 3
    for hard in about["hardest"]:
        assert hard["votes"][0] > hard["votes"][1]
        assert len({hard["anchor"], hard["chosen"], hard["other"]}) == 3
    json.dumps(about)
    model = database.add_model(120, about, questions)
    answer_all(database, asker, "anna", by_label(LABELS), n=30)
    models = rows_of(
        database.path,
        "SELECT DISTINCT questions.model FROM screens JOIN questions ON questions.id = question "
        "WHERE how = ?",
        way,
    )
    assert models == [(model,)]


def test_what_was_shown_is_not_chosen_whatever_was_said(tmp_path, monkeypatch):
    # Most of the 30 possible questions are shown, and most cannot be told.
    names = NAMES[:5]
    database, asker = start(tmp_path / "j.sqlite", names, n_questions=28)
    answer_all(database, asker, "anna", by_label(dict(zip(names, "aabcd", strict=True))))
    asker.screens(database.add_judge("ben").id)
    members = np.random.default_rng(0).normal(size=(2, 5, 3)).astype(np.float32)
    committee = choosing._Committee(list(members), "l2", 0.1)
    monkeypatch.setattr(choosing, "_train_committee", lambda *given, **more: committee)
    monkeypatch.setattr(defaults, "MAX_PER_IMAGE", 99)
    monkeypatch.setattr(choosing, "_FEWEST_ANSWERS", 1)
    found = choosing._choose_next(task_of(database, names), make_features(n_images=5), 28)
    chosen = [q["images"] for q in found["questions"]]
    shown = rows_of(
        database.path,
        "SELECT anchor, first, second FROM questions WHERE id IN (SELECT question FROM screens)",
    )
    keys = {*choosing._question_keys(np.array(chosen)).tolist()}
    assert keys and not keys & {*choosing._question_keys(np.array(shown)).tolist()}


def wait_for(condition, timeout_s=120):
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.1)


@pytest.fixture
def train(collected):
    """Return a function that starts the training beside a server."""
    database, asker = collected
    trainers = []

    def train(make):
        trainer = choosing.BackgroundTrainer(asker, database.add_images(NAMES), make, "margin")
        trainer.start()
        trainers.append(trainer)
        return trainer

    yield train
    for trainer in trainers:
        trainer.stop()
        assert not trainer._process.is_alive()


@pytest.mark.slow
@pytest.mark.integration
def test_a_model_comes_while_answers_go_on(collected, train, monkeypatch):
    # At the last of the answers that are given at once: the trainer looks at any moment.
    monkeypatch.setattr(defaults, "FIRST_RANDOM", 64)
    monkeypatch.setattr(choosing, "_RETRAIN_EVERY", 40)
    database, asker = collected
    train(make_features)
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


@pytest.mark.slow
@pytest.mark.integration
@pytest.mark.parametrize(
    ("make", "said"), [(fail, "no weights at hand"), (die, "its process ended")]
)
def test_without_it_questions_are_random_and_that_is_said(collected, train, make, said, caplog):
    database, asker = collected
    trainer = train(make)
    wait_for(lambda: "drawn at random" in trainer.status["text"])
    assert said in trainer.status["text"]
    assert said in caplog.text
    assert len(answer_all(database, asker, "anna", by_label(LABELS), n=5)) == 5

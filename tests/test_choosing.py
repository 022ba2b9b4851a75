"""Which questions are chosen: pure functions, checked against what can be worked out by hand."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit

from tripletkit.collecting.choosing import (
    Committee,
    _disagreement,
    choose_questions,
    draw_candidates,
    draw_grids,
    draw_questions,
    expect_answers,
    fit_temperature,
    grid_layers,
    measure_nearness,
    question_keys,
)
from tripletkit.evaluation.distances import triplet_margins
from tripletkit.evaluation.intervals import (
    effective_count,
    image_interval,
    weigh_values,
    wilson_interval,
)


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
    rows, probability = draw_questions(features, np.arange(6), n_each, rng)
    keys, first, counts = np.unique(question_keys(rows), return_index=True, return_counts=True)
    # Whichever way round, each of the 60 that there are; as often as its probability says.
    assert len(keys) == 60
    assert probability[first].sum() == pytest.approx(1)
    expected = probability[first] * len(rows)
    assert np.sum((counts - expected) ** 2 / expected) < 110  # chi squared, 54 degrees of freedom
    assert 0.49 < np.mean(rows[:, 1] < rows[:, 2]) < 0.51


def test_twice_as_many_can_be_answered():
    features, of = classes(300, n_classes=10)
    rng = np.random.default_rng(0)
    rows, _ = draw_questions(features, np.arange(300), 10, rng)
    alike = draw_candidates(np.arange(300), 3000, rng, np.empty((0, 3)))
    assert can_tell(of, rows).mean() > 2 * can_tell(of, alike).mean()


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
        rows, probability = draw_questions(features, rng.permutation(120), 3, rng)
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
    n_near, n_nearest = grid_layers(60, 8)
    assert (n_near, n_nearest) == (5, 24)
    for images, near in draw_grids(features, np.arange(60), 8, rng):
        anchor, *shown = images
        assert len(set(images)) == 9 and set(near) < set(shown) and len(near) == 5
        unit = features / np.linalg.norm(features, axis=1, keepdims=True)
        order = [k for k in np.argsort(-(unit @ unit[anchor]), kind="stable") if k != anchor]
        assert set(near) <= set(order[:24])
        assert not set(shown) - set(near) & set(order[:24])


def test_who_can_tell_is_learned_and_saves_time():
    features, of = classes(200, n_classes=8)
    rng = np.random.default_rng(0)
    rows, _ = draw_questions(features, np.arange(200), 3, rng)
    committee = Committee([features], "cosine", 0.1)
    told = can_tell(of, rows[:300])
    measures = measure_nearness(features, committee, rows)
    chance = expect_answers(measures[:300], told, measures)
    assert chance[300:][can_tell(of, rows[300:])].mean() > chance[300:].mean() + 0.05
    plain = choose_questions(committee, rows, 100, "margin", max_per_image=9)
    timed = choose_questions(committee, rows, 100, "margin", max_per_image=9, answerable=chance)
    assert can_tell(of, timed.rows).mean() > 1.5 * can_tell(of, plain.rows).mean()
    # With too few answers of a kind all questions are alike.
    assert expect_answers(np.zeros((9, 4)), np.arange(9) < 5, np.zeros((2, 4))) == 5 / 9


@settings(max_examples=50)
@given(st.integers(3, 30), st.integers(1, 60), st.integers(0, 100))
def test_candidates_are_new_and_distinct(n_images, n_candidates, seed):
    rng = np.random.default_rng(seed)
    usable = np.sort(rng.permutation(2 * n_images)[:n_images])
    asked = draw_candidates(usable, 5, rng, np.empty((0, 3)))
    rows = draw_candidates(usable, n_candidates, rng, asked[:, [0, 2, 1]])
    assert len(rows) <= n_candidates
    assert np.isin(rows, usable).all()
    assert all(len(set(row)) == 3 for row in rows.tolist())
    keys = question_keys(np.concatenate([asked, rows]))
    assert len(set(keys.tolist())) == len(keys)


def test_disagreement_by_hand():
    expected = np.array([[0.9, 0.5], [0.1, 0.5]])
    entropy = -(0.9 * np.log(0.9) + 0.1 * np.log(0.1))
    np.testing.assert_allclose(_disagreement(expected), [np.log(2) - entropy, 0], atol=1e-12)


@given(st.lists(st.lists(st.floats(0, 1), min_size=3, max_size=3), min_size=2, max_size=6))
def test_disagreement_is_between_nothing_and_a_bit(chances):
    found = _disagreement(np.array(chances))
    assert (found >= 0).all() and (found <= np.log(2) + 1e-9).all()


def line(*places):
    return np.array(places, dtype=np.float32)[:, None]


def test_margin_takes_the_closest_calls_and_no_image_too_often():
    # Image 0 is the anchor; 1 and 2 are equally far, 1 and 3 nearly so.
    committee = Committee([line(0, 1, -1, 1.1, 5)], "l2", 1.0)
    candidates = np.array([[0, 1, 4], [0, 1, 3], [0, 1, 2], [0, 3, 4]])
    choice = choose_questions(committee, candidates, 4, "margin", max_per_image=9)
    assert choice.rows.tolist() == [[0, 1, 2], [0, 1, 3], [0, 3, 4], [0, 1, 4]]
    # Nothing is known of a close call: ln 2 nats, in 2.3 s.
    assert choice.scores[0] == pytest.approx(np.log(2) / 2.3)
    assert choice.expected[0] == pytest.approx(0.5)
    spread = choose_questions(committee, candidates, 4, "margin", max_per_image=2)
    assert spread.rows.tolist() == [[0, 1, 2], [0, 1, 3]]


def test_disagreement_passes_over_what_all_members_find_close():
    # All find 1 and 2 equally far; about 3 and 4 each is sure, and they contradict each other.
    committee = Committee([line(0, 1, -1, 1, 3), line(0, 1, -1, 3, 1)], "l2", 0.5)
    candidates = np.array([[0, 1, 2], [0, 3, 4]])
    choice = choose_questions(committee, candidates, 1, "disagreement")
    assert choice.rows.tolist() == [[0, 3, 4]]
    assert choice.scores[0] > 0.3 / 2.3
    margin = choose_questions(committee, candidates, 1, "margin")
    assert margin.rows.tolist() == [[0, 1, 2]]


def test_temperature_is_found_again():
    rng = np.random.default_rng(0)
    margins = np.abs(rng.normal(0, 1, 4000))
    is_right = (rng.random(4000) < expit(margins / 0.4)).astype(float)
    assert fit_temperature(margins, is_right) == pytest.approx(0.4, rel=0.15)
    # The same, told as margins towards what was chosen.
    signed = np.where(is_right == 1, margins, -margins)
    assert fit_temperature(signed, np.ones(4000)) == pytest.approx(0.4, rel=0.15)

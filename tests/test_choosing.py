"""Which questions are chosen: pure functions, checked against what can be worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit

from tripletkit.collecting.choosing import (
    Committee,
    choose_questions,
    deal_grid,
    deal_question,
    disagreement,
    draw_candidates,
    fit_temperature,
    pick_spread,
    question_keys,
)


def test_deal_question_spreads_over_the_images():
    rng = np.random.default_rng(0)
    times = np.zeros(10, dtype=int)
    for _ in range(40):
        question = deal_question(times, rng)
        assert len(set(question.tolist())) == 3
        times[question] += 1
    assert times.max() - times.min() <= 1


@pytest.mark.slow
def test_deal_question_is_as_likely_to_ask_one_thing_as_another():
    rng = np.random.default_rng(1)
    times, counts = np.zeros(4, dtype=int), {}
    for _ in range(6000):
        question = tuple(deal_question(times, rng).tolist())
        times[list(question)] += 1
        counts[question] = counts.get(question, 0) + 1
    # 24 rows: each is expected 250 times.
    assert len(counts) == 24
    assert 190 < min(counts.values()) <= max(counts.values()) < 320


def test_deal_question_leaves_out_images_that_are_gone():
    times = np.array([-1, 5, -1, 7, 6])
    for seed in range(20):
        assert set(deal_question(times, np.random.default_rng(seed)).tolist()) == {1, 3, 4}
    with pytest.raises(ValueError, match="at least 3"):
        deal_question(np.array([0, -1, 0]), np.random.default_rng(0))


def test_deal_grid_has_distinct_images():
    grid = deal_grid(np.zeros(9, dtype=int), 8, np.random.default_rng(0))
    assert sorted(grid.tolist()) == list(range(9))


@settings(max_examples=50, deadline=None)
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
    np.testing.assert_allclose(disagreement(expected), [np.log(2) - entropy, 0], atol=1e-12)


@given(st.lists(st.lists(st.floats(0, 1), min_size=3, max_size=3), min_size=2, max_size=6))
def test_disagreement_is_between_nothing_and_a_bit(chances):
    found = disagreement(np.array(chances))
    assert (found >= 0).all() and (found <= np.log(2) + 1e-9).all()


def line(*places):
    return np.array(places, dtype=np.float32)[:, None]


def test_margin_takes_the_closest_calls_and_no_image_too_often():
    # Image 0 is the anchor; 1 and 2 are equally far, 1 and 3 nearly so.
    committee = Committee([line(0, 1, -1, 1.1, 5)], "l2", 0.1)
    candidates = np.array([[0, 1, 4], [0, 1, 3], [0, 1, 2], [0, 3, 4]])
    choice = choose_questions(committee, candidates, 4, "margin", max_per_image=9)
    assert choice.rows.tolist() == [[0, 1, 2], [0, 1, 3], [0, 3, 4], [0, 1, 4]]
    np.testing.assert_allclose(choice.scores, [0, 0.1, 3.9, 4.0], atol=1e-6)
    assert choice.expected[0] == pytest.approx(0.5)
    spread = choose_questions(committee, candidates, 4, "margin", max_per_image=2)
    assert spread.rows.tolist() == [[0, 1, 2], [0, 1, 3]]


def test_disagreement_passes_over_what_all_members_find_close():
    # All find 1 and 2 equally far; about 3 and 4 each is sure, and they contradict each other.
    committee = Committee([line(0, 1, -1, 1, 3), line(0, 1, -1, 3, 1)], "l2", 0.5)
    candidates = np.array([[0, 1, 2], [0, 3, 4]])
    choice = choose_questions(committee, candidates, 1, "disagreement")
    assert choice.rows.tolist() == [[0, 3, 4]]
    assert choice.scores[0] > 0.3
    margin = choose_questions(committee, candidates, 1, "margin")
    assert margin.rows.tolist() == [[0, 1, 2]]


def test_choose_refuses_another_way():
    committee = Committee([line(0, 1, 2)], "l2", 1.0)
    with pytest.raises(ValueError, match="margin"):
        choose_questions(committee, np.array([[0, 1, 2]]), 1, "random")


def test_pick_spread_counts_all_three_places():
    rows = np.array([[0, 1, 2], [3, 0, 4], [5, 6, 0], [7, 8, 9]])
    assert pick_spread(rows, 9, 2).tolist() == [0, 1, 3]
    assert pick_spread(rows, 1, 2).tolist() == [0]
    assert pick_spread(rows[:0], 3, 2).tolist() == []


def test_temperature_is_found_again():
    rng = np.random.default_rng(0)
    margins = np.abs(rng.normal(0, 1, 4000))
    is_right = (rng.random(4000) < expit(margins / 0.4)).astype(float)
    assert fit_temperature(margins, is_right) == pytest.approx(0.4, rel=0.15)
    # The same, told as margins towards what was chosen.
    signed = np.where(is_right == 1, margins, -margins)
    assert fit_temperature(signed, np.ones(4000)) == pytest.approx(0.4, rel=0.15)

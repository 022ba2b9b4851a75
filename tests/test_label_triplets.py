"""Triplets drawn from labels against a plain loop: every one allowed, none twice, no bias."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from plain import NO_LABEL

from tripletkit import TripletkitError
from tripletkit.data import label_triplets
from tripletkit.data.label_triplets import Difficulty, draw_triplets
from tripletkit.data.splits.policies import hold_out_images

# Classes of 2, 3 and 6 images, one of a single image, one image without a label.
LABELS = np.array([7, 7, 2, 2, 2, 4, 4, 4, 4, 4, 4, 9, NO_LABEL], dtype=np.int32)


def list_all(labels, images=None):
    """Return every triplet that there is, by a plain loop."""
    places = range(len(labels)) if images is None else images
    return {
        (a, p, n)
        for a in places
        for p in places
        for n in places
        if a != p and labels[a] == labels[p] != labels[n] and NO_LABEL not in labels[[a, n]]
    }


def by_number(anchors, candidates):
    """Distances of images whose places are their numbers."""
    return np.abs(anchors[:, None] - candidates).astype(float)


@pytest.mark.slow
@settings(max_examples=60)
@given(
    labels=st.lists(st.integers(-1, 3), min_size=4, max_size=12),
    count=st.integers(1, 400),
    balance=st.sampled_from(["image", "class"]),
    level=st.sampled_from([None, True, False]),
    seed=st.integers(0, 9),
)
def test_as_many_as_asked_or_as_there_are_and_none_twice(labels, count, balance, level, seed):
    labels = np.array(labels)
    difficulty = None if level is None else Difficulty(level, by_number, 3)
    allowed = list_all(labels)
    if not allowed:
        with pytest.raises(TripletkitError, match="at least two classes"):
            draw_triplets(labels, count=count)
        return
    settings_ = {"seed": seed, "balance": balance, "difficulty": difficulty}
    rows = draw_triplets(labels, count=count, **settings_)
    assert rows.dtype == np.int32
    assert rows.shape == (min(count, len(allowed)), 3)
    drawn = set(map(tuple, rows.tolist()))
    assert len(drawn) == len(rows)
    assert drawn <= allowed
    np.testing.assert_array_equal(rows, draw_triplets(labels, count=count, **settings_))


def test_each_anchor_has_as_many():
    rows = draw_triplets(LABELS, per_anchor=5)
    counts = np.bincount(rows[:, 0], minlength=len(LABELS))
    assert counts.tolist() == [5] * 11 + [0, 0]
    assert 11 in rows[:, 2]


def test_classes_are_balanced_if_asked():
    rows = draw_triplets(LABELS, count=45, balance="class")
    assert Counter(LABELS[rows[:, 0]].tolist()) == {7: 15, 2: 15, 4: 15}
    assert sorted(Counter(rows[:, 0].tolist()).values()) == [2] * 3 + [3] * 3 + [5] * 3 + [7, 8]


def test_an_anchor_with_few_triplets_leaves_its_share_to_others():
    labels = np.array([0, 0, 1, 1, 1, 1])
    # 8 of class 0, 24 of class 1.
    by_class = draw_triplets(labels, count=20, balance="class")
    assert Counter(labels[by_class[:, 0]].tolist()) == {0: 8, 1: 12}
    assert len(draw_triplets(labels, per_anchor=100)) == 32


def test_only_the_given_images_are_used():
    images = np.array([0, 2, 3, 5, 6, 11])
    rows = draw_triplets(LABELS, count=1000, images=images)
    assert set(map(tuple, rows.tolist())) == list_all(LABELS, images.tolist())


@pytest.mark.parametrize("balance", ["image", "class"])
@pytest.mark.parametrize("level", [None, True, False])
def test_drawing_and_listing_give_the_same_chances(balance, level):
    difficulty = None if level is None else Difficulty(level, by_number, 3)
    labels = LABELS[:12]
    pool = label_triplets._Pool(np.arange(12), labels, balance, difficulty)
    anchor, n_draws = 4, 60_000
    drawn = pool.draw(np.full(n_draws, anchor), np.random.default_rng(1))
    assert (drawn[:, 0] == anchor).all()
    positives, negatives, chances = pool.list_all(anchor)
    assert chances.sum() == pytest.approx(1)
    counted = Counter(map(tuple, drawn[:, 1:].tolist()))
    counts = np.array([[counted[p, n] for n in negatives] for p in positives])
    assert counts.sum() == n_draws
    # Five standard errors, for at most 40 pairs.
    error = np.sqrt(chances * (1 - chances) / n_draws)
    np.testing.assert_array_less(np.abs(counts / n_draws - chances), 5 * error + 1e-12)


def test_chances_by_class_and_by_difficulty_are_those_of_a_hand_calculation():
    labels = np.array([0, 0, 0, 1, 1, 1, 2])
    pool = label_triplets._Pool(np.arange(7), labels, "class", None)
    _, negatives, chances = pool.list_all(0)
    assert negatives.tolist() == [3, 4, 5, 6]
    # Each other class has one half, its images equal parts of it; two positives.
    np.testing.assert_allclose(chances, np.outer([1 / 2, 1 / 2], [1 / 6, 1 / 6, 1 / 6, 1 / 2]))
    pool = label_triplets._Pool(np.arange(7), labels, "image", Difficulty(True, by_number, 2))
    # Of two draws among four: the nearest is drawn with chance 1 - (3/4)^2 = 7/16, and so on.
    # Of two draws among two positives the farther is kept with chance 3/4.
    expected = np.outer([1 / 4, 3 / 4], np.array([7, 5, 3, 1]) / 16)
    np.testing.assert_allclose(pool.list_all(0)[2], expected)


@pytest.mark.slow
def test_passing_over_repeats_changes_no_chance(monkeypatch):
    """Three of six triplets of one anchor, drawn either way: each set equally likely."""
    labels = np.array([0, 0, 1, 2, 3, 4, 5, 6])
    counts = []
    for rounds in (label_triplets._ROUNDS, 0):
        monkeypatch.setattr(label_triplets, "_ROUNDS", rounds)
        drawn = [draw_triplets(labels, count=6, seed=seed) for seed in range(800)]
        sets = Counter(tuple(sorted(rows[rows[:, 0] == 0][:, 2].tolist())) for rows in drawn)
        assert len(sets) == 20
        counts.append(sets)
    for sets in counts:
        # 40 of each are expected; the standard deviation is 6.2.
        assert max(abs(number - 40) for number in sets.values()) < 28


def test_hard_ones_are_harder():
    rng = np.random.default_rng(5)
    vectors = rng.normal(size=(60, 3))
    labels = np.repeat([0, 1, 2], 20)

    def measure(anchors, candidates):
        return np.linalg.norm(vectors[anchors][:, None] - vectors[candidates], axis=2)

    def margin(difficulty):
        a, p, n = vectors[draw_triplets(labels, per_anchor=5, difficulty=difficulty)].swapaxes(0, 1)
        return (np.linalg.norm(a - n, axis=1) - np.linalg.norm(a - p, axis=1)).mean()

    hard, easy = margin(Difficulty(True, measure)), margin(Difficulty(False, measure))
    assert hard < -0.5 < margin(None) < 0.5 < easy


def test_one_class_or_single_images_make_no_triplet():
    for labels in ([0, 0, 0], [0, 1, 2], [NO_LABEL] * 3, []):
        with pytest.raises(TripletkitError, match="expected images of at least two classes"):
            draw_triplets(np.array(labels, dtype=np.int32), per_anchor=1)


@pytest.mark.slow
@settings(max_examples=100)
@given(
    labels=st.lists(st.integers(-1, 5), min_size=8, max_size=80),
    fraction=st.floats(0.01, 0.95),
    seed=st.integers(0, 5),
)
def test_pairs_are_left_on_both_sides(labels, fraction, seed):
    labels = np.array(labels)
    sizes = np.bincount(labels[labels != NO_LABEL], minlength=6)
    if (sizes >= 4).sum() < 2:
        with pytest.raises(TripletkitError, match="at least two classes of 4 images"):
            hold_out_images(labels, fraction, seed)
        return
    is_held_out = hold_out_images(labels, fraction, seed)
    np.testing.assert_array_equal(is_held_out, hold_out_images(labels, fraction, seed))
    assert not is_held_out[labels == NO_LABEL].any()
    held_out = np.bincount(labels[is_held_out], minlength=6)
    assert (held_out != 1).all()
    assert np.count_nonzero(held_out) >= 2
    assert (held_out[sizes < 4] == 0).all()
    assert (held_out[sizes >= 4] <= sizes[sizes >= 4] - 2).all()
    assert len(draw_triplets(labels, count=3, images=np.flatnonzero(is_held_out)))
    assert len(draw_triplets(labels, count=3, images=np.flatnonzero(~is_held_out)))


def test_the_share_is_kept_where_a_class_is_too_small_for_it():
    """Flowers 102: ten images of each class, a tenth held out: pairs of half the classes."""
    labels = np.repeat(np.arange(102), 10)
    held_out = hold_out_images(labels, 0.1).reshape(102, 10).sum(axis=1)
    assert set(held_out.tolist()) == {0, 2}
    assert held_out.sum() in (100, 102, 104)
    assert hold_out_images(labels, 0.25).sum() in range(254, 257)


def test_which_images_are_held_out_is_chance():
    labels = np.repeat([0, 1, 2], 20)
    shares = np.mean([hold_out_images(labels, 0.3, seed) for seed in range(400)], axis=0)
    assert np.abs(shares - 0.3).max() < 0.12


def test_only_the_given_images_are_held_out():
    labels = np.repeat([0, 1], 10)
    images = np.r_[0:5, 10:15]
    is_held_out = hold_out_images(labels, 0.4, images=images)
    assert is_held_out.sum() == 4
    assert not np.delete(is_held_out, images).any()
    assert not hold_out_images(labels, 0).any()

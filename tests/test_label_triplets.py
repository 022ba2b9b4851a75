"""Triplets drawn from labels against a plain loop: every one allowed, none twice, no bias."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from plain import NO_LABEL

from tripletkit import TripletkitError
from tripletkit.data.label_triplets import Difficulty, draw_triplets
from tripletkit.data.splits.held_out_draws import hold_out_images

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


@settings(max_examples=40)
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
    assert (rows.dtype, rows.shape) == (np.int32, (min(count, len(allowed)), 3))
    drawn = set(map(tuple, rows.tolist()))
    assert len(drawn) == len(rows) and drawn <= allowed
    np.testing.assert_array_equal(rows, draw_triplets(labels, count=count, **settings_))


def test_anchors_have_as_many_and_classes_are_balanced_if_asked():
    rows = draw_triplets(LABELS, per_anchor=5)
    counts = np.bincount(rows[:, 0], minlength=len(LABELS))
    assert counts.tolist() == [5] * 11 + [0, 0]
    assert 11 in rows[:, 2]
    rows = draw_triplets(LABELS, count=45, balance="class")
    assert Counter(LABELS[rows[:, 0]].tolist()) == {7: 15, 2: 15, 4: 15}
    assert sorted(Counter(rows[:, 0].tolist()).values()) == [2] * 3 + [3] * 3 + [5] * 3 + [7, 8]


def test_an_anchor_with_few_triplets_leaves_its_share_to_others():
    labels = np.array([0, 0, 1, 1, 1, 1])
    # 8 of class 0, 24 of class 1.
    by_class = draw_triplets(labels, count=20, balance="class")
    assert Counter(labels[by_class[:, 0]].tolist()) == {0: 8, 1: 12}
    assert len(draw_triplets(labels, per_anchor=100)) == 32
    images = np.array([0, 2, 3, 5, 6, 11])
    rows = draw_triplets(LABELS, count=1000, images=images)
    assert set(map(tuple, rows.tolist())) == list_all(LABELS, images.tolist())


@pytest.mark.parametrize("balance", ["image", "class"])
def test_negatives_are_drawn_alike_by_image_or_by_class(balance):
    labels = np.repeat([0, 1, 2], [100, 40, 160])
    rows = draw_triplets(labels, count=6000, balance=balance)
    negatives = rows[labels[rows[:, 0]] == 0, 2]
    share = 40 / 200 if balance == "image" else 1 / 2
    error = np.sqrt(share * (1 - share) / len(negatives))
    assert np.mean(labels[negatives] == 1) == pytest.approx(share, abs=5 * error)
    # Within a class every image is as likely.
    counts = np.bincount(negatives[labels[negatives] == 1] - 100, minlength=40)
    assert counts.var() < 2 * counts.mean()


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


@settings(max_examples=50)
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
    assert (held_out != 1).all() and np.count_nonzero(held_out) >= 2
    assert (held_out[sizes < 4] == 0).all()
    assert (held_out[sizes >= 4] <= sizes[sizes >= 4] - 2).all()


def test_which_images_are_held_out_is_chance_and_the_share_is_kept():
    """Flowers 102: ten images of each class, a tenth held out: pairs of half the classes."""
    labels = np.repeat(np.arange(102), 10)
    held_out = hold_out_images(labels, 0.1).reshape(102, 10).sum(axis=1)
    assert set(held_out.tolist()) == {0, 2}
    assert held_out.sum() in (100, 102, 104)
    assert hold_out_images(labels, 0.25).sum() in range(254, 257)
    labels = np.repeat([0, 1, 2], 20)
    shares = np.mean([hold_out_images(labels, 0.3, seed) for seed in range(400)], axis=0)
    assert np.abs(shares - 0.3).max() < 0.12
    images = np.r_[0:5, 20:25]
    is_held_out = hold_out_images(labels, 0.4, images=images)
    assert is_held_out.sum() == 4
    assert not np.delete(is_held_out, images).any()

"""Distances: numpy for answers, Keras operations for losses, and a plain loop agree."""

from __future__ import annotations

import tracemalloc

import numpy as np
import plain
import pytest

from tripletkit.evaluation import distances
from tripletkit.evaluation.classification import ClassDistances
from tripletkit.evaluation.distances import DISTANCE_NAMES, triplet_margins
from tripletkit.losses.functions import DISTANCES
from tripletkit.search.image_search import find_neighbors
from tripletkit.search.offline_mining import _mine_images


@pytest.fixture
def embeddings():
    return np.random.default_rng(0).normal(size=(50, 7)).astype(np.float32)


@pytest.fixture
def rows():
    return np.random.default_rng(1).integers(0, 50, (300, 3))


def test_answers_and_losses_know_the_same_distances():
    assert set(DISTANCE_NAMES) == set(DISTANCES)


@pytest.mark.parametrize("name", DISTANCE_NAMES)
def test_margins_equal_a_plain_loop(embeddings, rows, name):
    expected = plain.triplet_margins(embeddings, rows, name)
    np.testing.assert_allclose(triplet_margins(embeddings, rows, name), expected, atol=1e-6)


@pytest.mark.parametrize("name", DISTANCE_NAMES)
def test_keras_operations_equal_a_plain_loop(embeddings, name):
    got = DISTANCES[name](embeddings[:25], embeddings[25:]).numpy()
    expected = plain.pair_distances(embeddings[:25], embeddings[25:], name)
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", DISTANCE_NAMES)
def test_other_rows_and_block_sizes_change_no_bit(embeddings, rows, name, monkeypatch):
    margins = triplet_margins(embeddings, rows, name)
    # Swapping the images flips the sign and no other bit.
    np.testing.assert_array_equal(triplet_margins(embeddings, rows[:, [0, 2, 1]], name), -margins)
    order = np.random.default_rng(2).permutation(len(rows))
    np.testing.assert_array_equal(triplet_margins(embeddings, rows[order], name), margins[order])
    np.testing.assert_array_equal(triplet_margins(embeddings, rows[7:8], name), margins[7:8])
    more = np.concatenate([embeddings, embeddings * 100])
    np.testing.assert_array_equal(triplet_margins(more, rows, name), margins)
    for block in (1, 7, 299, 300):
        monkeypatch.setattr(distances, "_BLOCK_ROWS", block)
        np.testing.assert_array_equal(triplet_margins(embeddings, rows, name), margins)


@pytest.mark.parametrize("name", DISTANCE_NAMES)
def test_equal_images_tie_exactly_and_missing_ones_have_no_margin(embeddings, name):
    embeddings[1] = embeddings[2]
    embeddings[3] = np.nan
    rows = np.array([[0, 1, 2], [0, 1, 1], [0, 1, 3], [3, 1, 2], [0, 1, 4]])
    margins = triplet_margins(embeddings, rows, name)
    assert (margins[:2] == 0).all()
    assert np.isnan(margins).tolist() == [False, False, True, True, False]
    assert triplet_margins(embeddings, rows[:0], name).shape == (0,)
    # One of length zero is equally far from all of length 1.
    corner = np.array([[0, 0], [1, 0], [0, 1]], np.float32)
    assert triplet_margins(corner, np.array([[0, 1, 2]]), name) == 0


def test_slope_of_the_euclidean_distance_at_zero_is_finite():
    import tensorflow as tf

    embedding = tf.Variable([[1.0, 2.0]])
    with tf.GradientTape() as tape:
        distance = DISTANCES["l2"](embedding, tf.constant([[1.0, 2.0]]))
    assert np.isfinite(tape.gradient(distance, embedding).numpy()).all()


@pytest.mark.parametrize("name", DISTANCE_NAMES)
@pytest.mark.parametrize("n_pairs", [0, 7, 300])
def test_distances_between_rows_are_those_of_gathered_pairs(embeddings, name, n_pairs, monkeypatch):
    embeddings[3] = 0
    embeddings[5] = np.nan
    rng = np.random.default_rng(2)
    left, right = rng.integers(0, 50, n_pairs), rng.integers(0, 25, n_pairs)
    other = embeddings[25:]
    found = distances.distances_between(embeddings, left, other, right, name)
    expected = plain.pair_distances(embeddings[left], other[right], name)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    # A dimension at a time, and blocks that end within the pairs, change no bit.
    monkeypatch.setattr(distances, "_BLOCK_BYTES", 8)
    monkeypatch.setattr(distances, "_BLOCK_ROWS", 64)
    again = distances.distances_between(embeddings, left, other, right, name)
    assert again.tobytes() == found.tobytes()


def peak_bytes(function):
    tracemalloc.start()
    try:
        function()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.slow
@pytest.mark.parametrize("use", ["neighbors", "mining", "triplets"])
def test_memory_does_not_grow_with_pairs_times_dimensions(use):
    """Each of these looks at some 10,000 pairs; gathered, their numbers would take 320 MB."""
    embeddings = np.random.default_rng(0).normal(size=(100, 4000)).astype(np.float32)
    labels = np.arange(100) % 2
    near = (0.0, np.inf)

    def mine():
        images = ClassDistances(embeddings, labels, "cosine")
        _mine_images(embeddings, images, (near, near), per_image=50)

    rows = np.random.default_rng(1).integers(0, 100, (10_000, 3))
    uses = {
        "neighbors": lambda: find_neighbors(embeddings, embeddings, 100, "cosine"),
        "mining": mine,
        "triplets": lambda: triplet_margins(embeddings, rows, "cosine"),
    }
    assert peak_bytes(uses[use]) < 60e6

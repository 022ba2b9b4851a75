"""Losses equal plain loops, are 0 and not NaN where there is nothing, and centers follow."""

from __future__ import annotations

import math

import keras
import numpy as np
import pytest

import tripletkit
from tripletkit.errors import LossError
from tripletkit.losses.functions import (
    ClassCenters,
    _center_loss,
    _move_centers,
    cross_entropy_loss,
    mean_loss,
    ratio_loss,
    soft_margin_loss,
    triplet_margin_loss,
)
from tripletkit.registry import load_object
from tripletkit.training.batch_learner import _CosineClassifier


@pytest.fixture
def distances():
    return np.random.default_rng(0).uniform(0, 2, (2, 100)).astype(np.float32)


def margin_of_one(p, n):
    return max(p - n + 0.2, 0)


def soft_margin_of_one(p, n):
    return math.log(1 + math.exp(p - n))


def ratio_of_one(p, n):
    return (math.exp(p) / (math.exp(p) + math.exp(n))) ** 2


@pytest.mark.parametrize(
    ("loss", "of_one"),
    [
        (lambda p, n: triplet_margin_loss(p, n, 0.2), margin_of_one),
        (soft_margin_loss, soft_margin_of_one),
        (ratio_loss, ratio_of_one),
    ],
)
def test_triplet_losses_equal_a_plain_loop(distances, loss, of_one):
    expected = [of_one(float(p), float(n)) for p, n in distances.T]
    np.testing.assert_allclose(loss(*distances).numpy(), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("loss", "expected"),
    [
        (lambda p, n: triplet_margin_loss(p, n, 0.5), 0.5),
        (soft_margin_loss, math.log(2)),
        (ratio_loss, 0.25),
    ],
)
def test_equal_embeddings_give_a_known_loss_and_no_nan(loss, expected):
    zeros = np.zeros(3, np.float32)
    np.testing.assert_allclose(loss(zeros, zeros), expected, rtol=1e-6)


@pytest.mark.parametrize("loss", [soft_margin_loss, ratio_loss])
def test_losses_stay_finite_far_out(loss):
    far = np.float32([1e4, -1e4])
    assert np.isfinite(loss(far, -far).numpy()).all()


def test_triplet_margin_loss_ends_exactly_at_the_margin():
    got = triplet_margin_loss(np.float32([0, 0, 0]), np.float32([0.5, 0.25, 0.75]), 0.5)
    np.testing.assert_array_equal(got, [0.0, 0.25, 0.0])


@pytest.mark.parametrize("reduction", ["all", "active"])
def test_the_mean_equals_a_plain_loop_and_is_0_of_nothing(distances, reduction):
    losses = [margin_of_one(float(p), float(n)) for p, n in distances.T]
    counted = [loss for loss in losses if reduction == "all" or loss > 0]
    assert len(counted) > 0
    got = float(mean_loss(triplet_margin_loss(*distances, 0.2), reduction))
    assert got == pytest.approx(sum(counted) / len(counted), rel=1e-5)
    assert float(mean_loss(np.zeros(0, np.float32), reduction)) == 0
    assert float(mean_loss(np.zeros(4, np.float32), reduction)) == 0


def test_center_loss_equals_a_plain_loop():
    embeddings, centers = np.random.default_rng(0).normal(size=(2, 6, 4)).astype(np.float32)
    expected = [0.5 * sum((c - m) ** 2) for c, m in zip(embeddings, centers, strict=True)]
    np.testing.assert_allclose(_center_loss(embeddings, centers), expected, rtol=1e-5)
    np.testing.assert_array_equal(_center_loss(embeddings, embeddings), np.zeros(6))


def test_cross_entropy_equals_a_plain_loop():
    logits = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    labels = np.array([0, 2, 1, 1, 0], np.int32)
    expected = [
        math.log(sum(math.exp(float(value)) for value in row)) - float(row[label])
        for row, label in zip(logits, labels, strict=True)
    ]
    np.testing.assert_allclose(cross_entropy_loss(logits, labels), expected, rtol=1e-5)


def test_centers_move_as_a_plain_loop_does():
    rng = np.random.default_rng(0)
    expected: dict[int, np.ndarray] = {}
    centers, is_placed = np.zeros((4, 3), np.float32), np.zeros(4, np.float32)
    for _ in range(5):
        embeddings = rng.normal(size=(8, 3)).astype(np.float32)
        labels = rng.integers(-1, 3, 8).astype(np.int32)
        for label in set(labels.tolist()) - {-1}:
            mean = embeddings[labels == label].mean(axis=0)
            before = expected.get(label)
            expected[label] = mean if before is None else 0.9 * before + 0.1 * mean
        centers, is_placed = _move_centers(centers, is_placed, embeddings, labels, 0.9)
    for label in range(4):
        assert bool(is_placed[label]) == (label in expected)
        np.testing.assert_allclose(centers[label], expected.get(label, np.zeros(3)), rtol=1e-4)


def test_centers_converge_to_the_class_means():
    # The sources' centers were a mean over dimensions, all began as class 0's, and each entered
    # the loss of one image alone.
    rng = np.random.default_rng(0)
    means = rng.normal(size=(3, 5)).astype(np.float32)
    layer = ClassCenters(3, decay=0.9)
    for _ in range(200):
        labels = rng.integers(0, 3, 64).astype(np.int32)
        embeddings = means[labels] + 0.1 * rng.normal(size=(64, 5)).astype(np.float32)
        losses = layer(embeddings, labels, training=True).numpy()
    np.testing.assert_allclose(layer.centers.numpy(), means, atol=0.05)
    expected = [0.5 * sum((c - means[i]) ** 2) for c, i in zip(embeddings, labels, strict=True)]
    np.testing.assert_allclose(losses, expected, atol=0.05)


def test_every_image_counts_and_centers_stay_put_outside_training():
    layer = ClassCenters(2, decay=0.0)
    embeddings, labels = np.float32([[0, 0], [4, 0], [1, 1]]), np.int32([0, 0, -1])
    # Nothing to be drawn to yet, and nothing for an image without a class.
    np.testing.assert_array_equal(layer(embeddings, labels, training=True), [0, 0, 0])
    np.testing.assert_array_equal(layer.centers.numpy(), [[2, 0], [0, 0]])
    np.testing.assert_array_equal(layer(embeddings + 1, labels), [1, 5, 0])
    np.testing.assert_array_equal(layer.centers.numpy(), [[2, 0], [0, 0]])
    assert not layer.trainable_variables


def semi_hard_of_addons(distances, labels, margin):
    """`TripletSemiHardLoss` of tensorflow-addons 0.23, in loops."""
    terms = []
    for anchor, positive in zip(*np.nonzero(labels[:, None] == labels[None]), strict=True):
        if anchor == positive:
            continue
        others = distances[anchor][labels != labels[anchor]]
        farther = others[others > distances[anchor, positive]]
        negative = farther.min() if len(farther) else others.max()
        terms.append(max(margin + distances[anchor, positive] - negative, 0))
    return np.mean(terms)


def hard_of_addons(distances, labels, margin, is_soft=False):
    """`TripletHardLoss` of tensorflow-addons 0.23, in loops."""
    terms = []
    for row, label in zip(distances, labels, strict=True):
        difference = row[labels == label].max() - row[labels != label].min()
        terms.append(np.log1p(np.exp(difference)) if is_soft else max(difference + margin, 0))
    return np.mean(terms)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"margin": 0.4}, lambda d, labels: semi_hard_of_addons(d, labels, 0.4)),
        (
            {"margin": 0.4, "mining": "batch-hard"},
            lambda d, labels: hard_of_addons(d, labels, 0.4),
        ),
        (
            {"loss": "soft-margin", "mining": "batch-hard"},
            lambda d, labels: hard_of_addons(d, labels, 0.0, is_soft=True),
        ),
    ],
)
def test_the_keras_loss_is_that_of_tensorflow_addons(options, expected):
    rng = np.random.default_rng(0)
    embeddings, labels = rng.normal(size=(12, 4)).astype(np.float32), np.arange(12) % 3
    distances = np.linalg.norm(embeddings[:, None] - embeddings, axis=-1)
    loss = tripletkit.losses.TripletLoss(**options)
    got = float(loss(labels, embeddings))
    assert got == pytest.approx(expected(distances, labels), rel=1e-5)
    # The name brings it back, as it does in a saved model.
    again = keras.losses.deserialize(keras.losses.serialize(loss))
    assert float(again(labels[:, None], embeddings)) == got


def test_a_keras_model_learns_by_it():
    keras.utils.set_random_seed(0)
    labels = np.arange(48) % 3
    features = np.random.default_rng(0).normal(size=(48, 8)) + 3 * np.eye(3, 8)[labels]
    model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4)])
    model.compile(keras.optimizers.Adam(0.05), tripletkit.losses.TripletLoss(margin=1.0))
    losses = model.fit(features, labels, batch_size=48, epochs=20, verbose=0).history["loss"]
    assert losses[-1] < losses[0] / 2
    with pytest.raises(LossError, match='got "center" and "semi-hard"'):
        tripletkit.losses.TripletLoss("center")


def test_the_classifier_is_the_scaled_cosine():
    embeddings = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
    layer = _CosineClassifier(5)
    got = layer(embeddings).numpy()
    kernel, scale = layer.kernel.numpy(), float(layer.scale)
    for embedding, row in zip(embeddings, got, strict=True):
        for column, value in zip(kernel.T, row, strict=True):
            cosine = embedding @ column / np.linalg.norm(embedding) / np.linalg.norm(column)
            assert value == pytest.approx(scale * cosine, rel=1e-4, abs=1e-5)


def test_every_registered_loss_has_a_paper_and_a_function():
    from tripletkit.losses.loss_registry import LOSSES

    for loss in LOSSES.values():
        assert loss.formula
        assert "arXiv" in loss.paper or "doi" in loss.paper
        assert loss.of_triplets or loss.has_cross_entropy
        if loss.of_triplets:
            assert callable(load_object(loss.of_triplets))

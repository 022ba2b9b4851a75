"""Objectives: the parts of a loss on a batch equal plain numbers; nothing gives 0 and no NaN."""

from __future__ import annotations

from dataclasses import replace

import keras
import numpy as np
import pytest
import tensorflow as tf
from plain import NO_LABEL

from tripletkit.losses.batch_mining import MINERS
from tripletkit.losses.loss_registry import LOSSES
from tripletkit.model.settings import Settings
from tripletkit.training.batch_learner import Objective

SETTINGS = Settings(margin=0.3)
NO_TRIPLETS = np.empty((0, 3), np.int32)
EVERY_WAY = [
    (loss, mining)
    for loss, facts in LOSSES.items()
    for mining in (("none", *MINERS) if facts.of_triplets else ("none",))
]


@pytest.fixture
def embeddings():
    drawn = np.random.default_rng(0).normal(size=(8, 4)).astype(np.float32)
    return drawn / np.linalg.norm(drawn, axis=1, keepdims=True)


def measure(settings, embeddings, labels, triplets=NO_TRIPLETS, **options):
    """Return loss, violations and the gradient by the embeddings."""
    embeddings = tf.constant(embeddings)
    objective = Objective(settings, 3, embeddings.shape[1], **options)
    with tf.GradientTape() as tape:
        tape.watch(embeddings)
        loss, active = objective(embeddings, tf.constant(labels, tf.int32), tf.constant(triplets))
    return float(loss), float(active), tape.gradient(loss, embeddings)


@pytest.mark.parametrize(("loss", "mining"), EVERY_WAY)
@pytest.mark.parametrize("reduction", ["all", "active"])
def test_a_batch_without_anything_to_learn_gives_0_and_no_nan(embeddings, loss, mining, reduction):
    settings = replace(SETTINGS, loss=loss, mining=mining, reduction=reduction)
    for labels in ([NO_LABEL] * 8, [1] * 8):
        if labels[0] == 1 and LOSSES[loss].has_cross_entropy:
            continue
        value, active, gradient = measure(settings, embeddings, labels)
        assert (value, active) == (0, 0)
        assert gradient is None or np.isfinite(tf.convert_to_tensor(gradient)).all()


@pytest.mark.parametrize("distance", ["l2", "l1", "squared-l2", "cosine"])
@pytest.mark.parametrize(("loss", "mining"), EVERY_WAY)
def test_embeddings_that_are_all_alike_give_no_nan(loss, mining, distance):
    settings = replace(SETTINGS, loss=loss, mining=mining, distance=distance)
    alike = np.full((8, 4), 0.5, np.float32)
    triplets = np.array([[0, 1, 2]], np.int32)
    value, _, gradient = measure(settings, alike, [0, 0, 1, 1, 2, 2, 0, 1], triplets)
    assert np.isfinite(value)
    assert np.isfinite(tf.convert_to_tensor(gradient)).all()


def test_a_loss_of_triplets_equals_a_plain_loop(embeddings):
    triplets = np.array([[0, 1, 2], [3, 4, 5], [6, 7, 0]], np.int32)
    losses = []
    for a, p, n in triplets:
        to_positive, to_negative = (
            np.linalg.norm(embeddings[a] - embeddings[other]) for other in (p, n)
        )
        losses.append(max(0, to_positive - to_negative + 0.3))
    value, active, _ = measure(SETTINGS, embeddings, [0] * 8, triplets)
    assert value == pytest.approx(np.mean(losses), rel=1e-5)
    assert active == pytest.approx(np.mean(np.array(losses) > 0))


def test_distances_are_squared_where_the_recipe_says_so(embeddings):
    triplets = np.array([[0, 1, 2], [3, 4, 5]], np.int32)
    squared = measure(SETTINGS, embeddings, [0] * 8, triplets, squared=True)[0]
    by_name = replace(SETTINGS, distance="squared-l2")
    assert squared == pytest.approx(measure(by_name, embeddings, [0] * 8, triplets)[0], rel=1e-5)


def test_the_sum_is_the_sum_of_its_parts(embeddings):
    triplets, labels = np.array([[0, 1, 2], [3, 4, 5]], np.int32), [0, 0, 1, 2, 2, 0, 1, 1]

    def loss_of(name, **changes):
        keras.utils.set_random_seed(0)
        return measure(replace(SETTINGS, loss=name, **changes), embeddings, labels, triplets)[0]

    whole = loss_of("triplet+cross-entropy", cross_entropy_weight=0.25)
    assert whole == pytest.approx(loss_of("triplet") + 0.25 * loss_of("cross-entropy"), rel=1e-5)


def test_the_center_loss_enters_with_its_weight_once_centers_are_there(embeddings):
    labels = tf.constant([0, 0, 1, 1, 2, 2, 0, 1])
    objective = Objective(replace(SETTINGS, loss="center", center_weight=2.0), 3, 4)
    first, _ = objective(embeddings, labels, NO_TRIPLETS)
    centers = np.stack([embeddings[labels.numpy() == label].mean(axis=0) for label in range(3)])
    np.testing.assert_allclose(objective.centers.centers, centers, rtol=1e-5)
    second, _ = objective(embeddings, labels, NO_TRIPLETS)
    pull = 0.5 * np.sum((embeddings - centers[labels.numpy()]) ** 2, axis=1).mean()
    assert float(second) - float(first) == pytest.approx(2.0 * pull, rel=1e-4)

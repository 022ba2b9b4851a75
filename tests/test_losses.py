"""Losses, their objectives, mining and batches equal plain loops; nothing gives 0 and no NaN."""

from __future__ import annotations

import math
from dataclasses import replace

import keras
import numpy as np
import pytest
import tensorflow as tf
from plain import NO_LABEL

import tripletkit
from tripletkit.errors import SettingsError
from tripletkit.losses.batch_mining import (
    MINERS,
    _batch_all,
    _batch_hard,
    _pairwise_distances,
    _semi_hard,
)
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
from tripletkit.losses.loss_registry import LOSSES
from tripletkit.model.settings import Settings
from tripletkit.registry import load_object
from tripletkit.training.batch_learner import (
    Batches,
    Objective,
    _CosineClassifier,
)


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
    with pytest.raises(SettingsError, match='got "center" and "semi-hard"'):
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


def measure(settings, embeddings, labels, triplets=NO_TRIPLETS):
    """Return loss, violations and the gradient by the embeddings."""
    embeddings = tf.constant(embeddings)
    objective = Objective(settings, 3, embeddings.shape[1])
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
    squared = measure(replace(SETTINGS, recipe="residual"), embeddings, [0] * 8, triplets)[0]
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


@pytest.fixture
def batch():
    rng = np.random.default_rng(0)
    labels = np.array([0, 0, 0, 1, 1, 2, NO_LABEL, NO_LABEL, 3, 3, 3], np.int32)
    return _pairwise_distances(rng.normal(size=(11, 4)).astype(np.float32), "l2").numpy(), labels


def positives_of(labels, a):
    return [p for p in range(len(labels)) if p != a and labels[p] == labels[a] != NO_LABEL]


def negatives_of(labels, a):
    return [
        n
        for n in range(len(labels))
        if labels[n] != labels[a] and NO_LABEL not in (labels[n], labels[a])
    ]


def plain_all(d, labels):
    n = range(len(labels))
    return [(a, p, q) for a in n for p in positives_of(labels, a) for q in negatives_of(labels, a)]


def plain_hard(d, labels):
    return [
        (
            a,
            max(positives_of(labels, a), key=lambda p: d[a, p]),
            min(negatives_of(labels, a), key=lambda n: d[a, n]),
        )
        for a in range(len(labels))
        if positives_of(labels, a) and negatives_of(labels, a)
    ]


def plain_semi_hard(d, labels):
    found = []
    for a in range(len(labels)):
        for p in positives_of(labels, a):
            farther = [n for n in negatives_of(labels, a) if d[a, n] > d[a, p]]
            if farther:
                found.append((a, p, min(farther, key=lambda n: d[a, n])))
            elif negatives_of(labels, a):
                found.append((a, p, max(negatives_of(labels, a), key=lambda n: d[a, n])))
    return found


@pytest.mark.parametrize(
    ("miner", "plain"),
    [(_batch_all, plain_all), (_batch_hard, plain_hard), (_semi_hard, plain_semi_hard)],
)
def test_mining_equals_a_plain_loop(batch, miner, plain):
    got = [tuple(row) for row in miner(*batch).numpy().tolist()]
    assert sorted(got) == sorted(plain(*batch))
    assert got


@pytest.mark.parametrize("name", list(MINERS))
@pytest.mark.parametrize("labels", [[0, 0, 0], [0, 1, 2], [NO_LABEL] * 3])
def test_a_batch_that_allows_no_triplet_gives_none(name, labels):
    got = MINERS[name](np.ones((3, 3), np.float32), np.array(labels, np.int32))
    assert got.shape == (0, 3)


@pytest.mark.parametrize("name", list(MINERS))
def test_images_of_one_class_are_never_negatives_whatever_the_distances(name):
    rng = np.random.default_rng(1)
    for _ in range(20):
        labels = rng.integers(-1, 4, 12).astype(np.int32)
        distances = _pairwise_distances(rng.normal(size=(12, 2)).astype(np.float32), "l1")
        anchor, positive, negative = MINERS[name](distances, labels).numpy().T
        assert (anchor != positive).all()
        assert (labels[anchor] == labels[positive]).all()
        assert (labels[anchor] != labels[negative]).all()
        assert (labels[anchor] >= 0).all()
        assert (labels[negative] >= 0).all()


def class_batches(images, labels, n_classes, n_images):
    settings = Settings(mining="batch-all", classes_per_batch=n_classes, images_per_class=n_images)
    return Batches(images, labels, settings)


def epoch(batches, seed=0):
    return list(batches.epoch(np.random.default_rng(seed)))


def test_triplet_batches_show_every_triplet_once():
    rows = np.random.default_rng(0).integers(0, 30, (100, 3))
    labels = np.arange(30, dtype=np.int32) % 4
    found = []
    for batch in epoch(Batches(rows, labels, Settings(batch_size=16))):
        assert len(np.unique(batch.images)) == len(batch.images)
        np.testing.assert_array_equal(batch.labels, labels[batch.images])
        found += batch.images[batch.triplets].tolist()
    assert sorted(found) == sorted(rows.tolist())


def test_class_batches_have_so_many_classes_with_so_many_images():
    labels = np.repeat(np.arange(6, dtype=np.int32), 10)
    batches = epoch(class_batches(np.arange(60), labels, 3, 4))
    assert len(batches) == 5
    for batch in batches:
        assert len(np.unique(batch.images)) == 12
        np.testing.assert_array_equal(np.unique(batch.labels, return_counts=True)[1], [4, 4, 4])
    # They take turns: two and a half rounds of six classes.
    shown = np.concatenate([np.unique(batch.labels) for batch in batches])
    assert set(np.bincount(shown)) <= {2, 3}


def test_small_classes_give_all_they_have_and_singleton_images_are_left_out():
    labels = np.array([0, 0, 0, 1, 1, 2, NO_LABEL, NO_LABEL], np.int32)
    for batch in epoch(class_batches(np.arange(8), labels, 5, 4)):
        assert sorted(batch.images) == [0, 1, 2, 3, 4]


def test_injected_positives_come_along_with_their_class():
    # The source drew them by chance and took images of one class for negatives.
    labels = np.repeat(np.arange(5, dtype=np.int32), 10)
    positives = np.arange(50) - np.arange(50) % 10 + 9
    positives[9::10] -= 9
    positives[:10] = -1
    batches = class_batches(np.arange(50), labels, 2, 3)
    batches.positives = positives
    for batch in epoch(batches):
        assert len(np.unique(batch.images)) == len(batch.images)
        wanted = positives[batch.images[:6]]
        assert set(wanted[wanted >= 0]) <= set(batch.images)
        np.testing.assert_array_equal(batch.labels, labels[batch.images])

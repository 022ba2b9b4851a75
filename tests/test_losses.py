"""Losses, their objectives, mining and batches equal plain loops; nothing gives 0 and no NaN."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial

import keras
import numpy as np
import pytest
import tensorflow as tf
from plain import NO_LABEL

import tripletkit
from tripletkit.errors import SettingsError
from tripletkit.losses.functions import MINERS, mean_loss
from tripletkit.losses.loss_registry import LOSSES, Loss
from tripletkit.model.settings import Settings
from tripletkit.training.batch_learner import Batches, Objective

SETTINGS = Settings(margin=0.3)
NO_TRIPLETS = np.empty((0, 3), np.int32)
EVERY_WAY = [
    (loss, mining)
    for loss, facts in LOSSES.items()
    for mining in (("none", *MINERS) if facts.of_triplets else ("none",))
]

OF_ONE = {
    "triplet": lambda p, n: max(p - n + 0.2, 0),
    "soft-margin": lambda p, n: math.log(1 + math.exp(p - n)),
    "ratio": lambda p, n: (math.exp(p) / (math.exp(p) + math.exp(n))) ** 2,
}


def test_every_loss_of_two_distances_is_compared_with_its_formula():
    formulas = {LOSSES[name].of_triplets for name in OF_ONE}
    assert {facts.of_triplets for facts in LOSSES.values()} - {None} == formulas


@pytest.mark.parametrize(
    ("of_triplets", "message"),
    [
        (lambda p, n, margin: p - n, "function of two distances, written.*TypeError"),
        (lambda p, n: np.maximum(p, n.numpy()), "has no attribute 'numpy'"),
        (lambda p, n: tf.reduce_mean(p - n), r"gives the shape \(\)"),
        ("no_such_module:loss", "No module named 'no_such_module'"),
    ],
)
def test_a_loss_that_cannot_be_computed_is_refused_by_its_name(of_triplets, message):
    with pytest.raises(SettingsError, match=f'"own": expected a.*{message}'):
        Loss("own", "", "", "", of_triplets).of_distances(0.2)


@pytest.mark.parametrize("name", OF_ONE)
def test_triplet_losses_equal_a_plain_loop_and_stay_finite_far_out(name):
    loss, of_one = LOSSES[name].of_distances(0.2), OF_ONE[name]
    distances = np.random.default_rng(0).uniform(0, 2, (2, 100)).astype(np.float32)
    distances[:, 0] = 0
    expected = [of_one(float(p), float(n)) for p, n in distances.T]
    np.testing.assert_allclose(loss(*distances).numpy(), expected, rtol=1e-5, atol=1e-6)
    far = np.float32([1e4, -1e4])
    assert np.isfinite(loss(far, -far).numpy()).all()


@pytest.mark.parametrize("reduction", ["all", "active"])
def test_the_mean_is_that_of_all_or_active_losses_and_0_of_nothing(reduction):
    losses = np.float32([0, 1, 0, 2])
    assert float(mean_loss(losses, reduction)) == {"all": 0.75, "active": 1.5}[reduction]
    assert float(mean_loss(losses[:0], reduction)) == 0
    assert float(mean_loss(losses[:1], reduction)) == 0


def test_centers_move_and_draw_as_a_plain_loop_has_it():
    rng, expected = np.random.default_rng(0), {}
    objective = Objective(replace(SETTINGS, loss="center", center_decay=0.9), 4, 3)
    for _ in range(5):
        embeddings = rng.normal(size=(8, 3)).astype(np.float32)
        labels = rng.integers(-1, 3, 8).astype(np.int32)
        # No pull without a class, nor to a center that is not there yet.
        pulls = [
            0.5 * np.sum((each - expected[label]) ** 2) if label in expected else 0
            for each, label in zip(embeddings, labels.tolist(), strict=True)
        ]
        got = objective._draw_to_centers(tf.constant(embeddings), tf.constant(labels))
        np.testing.assert_allclose(got, pulls, rtol=1e-4)
        for label in set(labels.tolist()) - {-1}:
            mean = embeddings[labels == label].mean(axis=0)
            before = expected.get(label)
            expected[label] = mean if before is None else 0.9 * before + 0.1 * mean
    centers, is_placed = (variable.numpy() for variable in objective.centers)
    for label in range(4):
        assert bool(is_placed[label]) == (label in expected)
        np.testing.assert_allclose(centers[label], expected.get(label, np.zeros(3)), rtol=1e-4)


def semi_hard_of_addons(distances, labels, margin=0.4):
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


def hard_of_addons(distances, labels, of_one=lambda difference: max(difference + 0.4, 0)):
    """`TripletHardLoss` of tensorflow-addons 0.23, in loops."""
    same = labels[:, None] == labels
    hardest = zip(distances, same, strict=True)
    return np.mean([of_one(row[is_own].max() - row[~is_own].min()) for row, is_own in hardest])


SOFT = partial(hard_of_addons, of_one=lambda difference: np.log1p(np.exp(difference)))


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"margin": 0.4}, semi_hard_of_addons),
        ({"margin": 0.4, "mining": "batch-hard"}, hard_of_addons),
        ({"loss": "soft-margin", "mining": "batch-hard"}, SOFT),
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
    with pytest.raises(SettingsError, match="sample_weight"):
        model.fit(features, labels, verbose=0, class_weight=dict.fromkeys(range(3), 1.0))
    wrong = {
        "loss": "center",
        "mining": "x",
        "distance": "x",
        "reduce_over": "x",
        "margin": math.nan,
    }
    for name, value in wrong.items():
        with pytest.raises(SettingsError, match=f"`{name}`: expected"):
            tripletkit.losses.TripletLoss(**{name: value})


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


def test_the_classifier_is_the_cross_entropy_of_scaled_cosines(embeddings):
    labels = np.int32([0, 1, 2, 0, 1, NO_LABEL, 2, 2])
    objective = Objective(replace(SETTINGS, loss="cross-entropy"), 3, 4)
    vectors, scale = (variable.numpy() for variable in objective.classifier)
    logits = scale * embeddings @ (vectors / np.linalg.norm(vectors, axis=0))
    terms = [
        math.log(sum(math.exp(value) for value in row)) - row[label]
        for row, label in zip(logits.tolist(), labels, strict=True)
        if label != NO_LABEL
    ]
    loss, active = objective(tf.constant(embeddings), tf.constant(labels), NO_TRIPLETS)
    assert float(loss) == pytest.approx(np.mean(terms), rel=1e-4)
    is_known = labels != NO_LABEL
    is_wrong = logits.argmax(axis=1)[is_known] != labels[is_known]
    assert float(active) == pytest.approx(np.mean(is_wrong))


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
            max(positives_of(labels, a), key=d[a].item),
            min(negatives_of(labels, a), key=d[a].item),
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
    ("name", "plain"),
    [("batch-all", plain_all), ("batch-hard", plain_hard), ("semi-hard", plain_semi_hard)],
)
def test_mining_equals_a_plain_loop(name, plain):
    rng = np.random.default_rng(0)
    batches = [[0, 0, 0], [0, 1, 2], [NO_LABEL] * 3, *rng.integers(-1, 4, (9, 11)).tolist()]
    for labels in batches:
        drawn = rng.normal(size=(len(labels), 4)).astype(np.float32)
        distances = np.linalg.norm(drawn[:, None] - drawn, axis=-1)
        got = MINERS[name](tf.constant(distances), tf.constant(labels, tf.int32)).numpy()
        expected = sorted(plain(distances, np.int32(labels)))
        assert sorted(tuple(row) for row in got.tolist()) == expected
        assert got.shape == (len(expected), 3)


def class_batches(images, labels, n_classes, n_images):
    settings = Settings(mining="batch-all", classes_per_batch=n_classes, images_per_class=n_images)
    return Batches(images, labels, settings)


def test_triplet_batches_show_every_triplet_once():
    rows = np.random.default_rng(0).integers(0, 30, (100, 3))
    labels = np.arange(30, dtype=np.int32) % 4
    found = []
    for batch in Batches(rows, labels, Settings(batch_size=16)).epoch(0):
        assert len(np.unique(batch.images)) == len(batch.images)
        np.testing.assert_array_equal(batch.labels, labels[batch.images])
        found += batch.images[batch.triplets].tolist()
    assert sorted(found) == sorted(rows.tolist())


def test_class_batches_have_so_many_classes_with_so_many_images():
    labels = np.repeat(np.arange(6, dtype=np.int32), 10)
    batches = list(class_batches(np.arange(60), labels, 3, 4).epoch(0))
    assert len(batches) == 5
    for batch in batches:
        assert len(np.unique(batch.images)) == 12
        np.testing.assert_array_equal(np.unique(batch.labels, return_counts=True)[1], [4, 4, 4])
    # They take turns: two and a half rounds of six classes.
    shown = np.concatenate([np.unique(batch.labels) for batch in batches])
    assert set(np.bincount(shown)) <= {2, 3}


def test_small_classes_give_all_they_have_and_singleton_images_are_left_out():
    labels = np.array([0, 0, 0, 1, 1, 2, NO_LABEL, NO_LABEL], np.int32)
    for batch in class_batches(np.arange(8), labels, 5, 4).epoch(0):
        assert sorted(batch.images) == [0, 1, 2, 3, 4]


def test_injected_positives_come_along_with_their_class():
    # The source drew them by chance and took images of one class for negatives.
    labels = np.repeat(np.arange(5, dtype=np.int32), 10)
    positives = np.arange(50) - np.arange(50) % 10 + 9
    positives[9::10] -= 9
    positives[:10] = -1
    batches = class_batches(np.arange(50), labels, 2, 3)
    batches.positives = positives
    for batch in batches.epoch(0):
        assert len(np.unique(batch.images)) == len(batch.images)
        wanted = positives[batch.images[:6]]
        assert set(wanted[wanted >= 0]) <= set(batch.images)
        np.testing.assert_array_equal(batch.labels, labels[batch.images])


def test_hardest_positives_are_those_of_training_and_looked_for_as_often_as_asked():
    labels = np.array([0, 0, 0, 1, 1, 0], np.int32)
    settings = Settings(mining="batch-hard", inject_positives=True, refresh=3)
    batches = Batches(np.arange(5), labels, settings)
    found = []
    for epoch in range(7):
        # The third image moves away; the last one is not learned from.
        embeddings = np.array([[0], [1], [2 - epoch], [0], [1], [9]], np.float32)
        batches.find_positives(epoch, lambda embeddings=embeddings: embeddings, "l2")
        found.append(batches.positives.tolist())
    assert found == 3 * [[2, 0, 0, 4, 3, -1]] + 3 * [[1, 2, 1, 4, 3, -1]] + [[2, 2, 1, 4, 3, -1]]

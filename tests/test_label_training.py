"""Training by labels: every loss and way of mining learns, repeats itself, and says why not."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from plain import NO_LABEL

from tripletkit import TripletkitError
from tripletkit.data.labels import ImageLabels
from tripletkit.evaluation.classification import measure_variances
from tripletkit.losses.functions import MINERS
from tripletkit.losses.loss_registry import LOSSES
from tripletkit.model.head_layers import embed
from tripletkit.model.settings import Settings
from tripletkit.search.offline_mining import hardest_positives
from tripletkit.training.epochs import _share_right
from tripletkit.training.trainer import Examples, make_trainer

N_CLASSES, N_IMAGES, N_TRAIN = 6, 90, 60
SMALL = Settings(
    hidden=32, dim=4, epochs=12, batch_size=32, classes_per_batch=4, images_per_class=4
)
LABEL_LOSSES = [name for name, loss in LOSSES.items() if loss.needs_labels]
TRIPLET_LOSSES = [name for name, loss in LOSSES.items() if loss.of_triplets]


@pytest.fixture(scope="module")
def features():
    """Images of six classes, which only some of the features tell apart."""
    rng = np.random.default_rng(0)
    deviation = np.where(np.arange(20) < 8, 0.6, 2)
    kinds = rng.normal(size=(N_CLASSES, 20)) * (np.arange(20) < 8)
    of_image = np.arange(N_IMAGES) % N_CLASSES
    return (kinds[of_image] + deviation * rng.normal(size=(N_IMAGES, 20)) + 5).astype(np.float32)


@pytest.fixture(scope="module")
def labels():
    classes = [f"class {number}" for number in range(N_CLASSES)]
    return ImageLabels(classes, (np.arange(N_IMAGES) % N_CLASSES).astype(np.int32))


def draw_rows(low, high, n_rows, seed=1):
    drawn = np.random.default_rng(seed).integers(low, high, (40 * n_rows, 3))
    anchor, positive, negative = (drawn % N_CLASSES).T
    is_right = (anchor == positive) & (anchor != negative) & (drawn[:, 0] != drawn[:, 1])
    return drawn[is_right][:n_rows].astype(np.int32)


TRAIN, VAL = draw_rows(0, N_TRAIN, 400), draw_rows(N_TRAIN, N_IMAGES, 300)


def train(features, labels, **changes):
    settings = dataclasses.replace(SMALL, **changes)
    return make_trainer(Examples(features, TRAIN, labels=labels), settings).fit()


def accuracy(trained, features, distance="l2"):
    return _share_right(embed(trained.head, features), VAL, distance)


@pytest.mark.parametrize("loss", LABEL_LOSSES)
def test_every_loss_by_labels_learns(features, labels, loss):
    trained = train(features, labels, loss=loss, epochs=15, learning_rate=1e-2)
    assert accuracy(trained, features) > _share_right(features, VAL, "cosine") + 0.1
    assert trained.history[-1].loss < trained.history[0].loss
    assert trained.history[-1].active < trained.history[0].active
    assert (trained.centers is not None) == LOSSES[loss].has_centers


# Mining gives rows of a batch, whatever the loss does with them: each way once, and each loss.
WAYS = [("triplet", mining) for mining in MINERS]
WAYS += [(loss, "semi-hard") for loss in TRIPLET_LOSSES if loss != "triplet"]


@pytest.mark.slow
@pytest.mark.parametrize(("loss", "mining"), WAYS)
def test_every_way_of_mining_learns(features, labels, loss, mining):
    trained = train(features, labels, loss=loss, mining=mining, epochs=15, learning_rate=1e-2)
    assert accuracy(trained, features) > _share_right(features, VAL, "cosine") + 0.1


@pytest.mark.slow
def test_centers_are_where_the_classes_are_and_classes_draw_together(features, labels):
    def measure(weight):
        changes = {"loss": "center", "center_weight": weight, "learning_rate": 5e-3}
        trained = train(features, labels, epochs=60, dropout=0.0, **changes)
        embeddings = embed(trained.head, features[:N_TRAIN])
        return trained.centers, embeddings, measure_variances(embeddings, labels.of_image[:N_TRAIN])

    centers, embeddings, drawn = measure(1.0)
    means = np.stack([embeddings[number::N_CLASSES].mean(axis=0) for number in range(N_CLASSES)])
    np.testing.assert_allclose(centers, means, atol=0.1)
    _, _, free = measure(0.0)
    assert drawn.within < 0.7 * free.within


@pytest.mark.slow
def test_centers_stay_among_the_embeddings_of_a_residual_head(features, labels):
    settings = Settings.of_recipe(
        "residual", loss="center", epochs=30, hidden=16, dropout=0.0, learning_rate=5e-3
    )
    assert (settings.strength, settings.frozen_share) == (1.0, 0.0)
    trained = make_trainer(Examples(features, TRAIN, labels=labels), settings).fit()
    embeddings = embed(trained.head, features[:N_TRAIN])
    means = np.stack([embeddings[number::N_CLASSES].mean(axis=0) for number in range(N_CLASSES)])
    np.testing.assert_allclose(trained.centers, means, atol=0.1)


@pytest.mark.slow
def test_images_without_a_class_take_part_in_triplets_alone(features, labels):
    of_image = labels.of_image.copy()
    of_image[:12] = NO_LABEL
    some = ImageLabels(labels.classes, of_image)
    for changes in ({"loss": "triplet+cross-entropy"}, {"loss": "center"}, {"mining": "semi-hard"}):
        assert np.isfinite(train(features, some, epochs=3, **changes).history[-1].loss)


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["triplet", "cross-entropy"])
def test_dropout_is_on_in_training_and_off_in_embeddings(features, labels, loss):
    # The sources left it off: they called the model without saying that it trains.
    def first_loss(dropout):
        changes = {"loss": loss, "mining": "batch-all" if loss == "triplet" else "none"}
        return train(features, labels, epochs=1, dropout=dropout, **changes)

    calm, shaken = first_loss(0.0), first_loss(0.9)
    assert calm.history[0].loss != pytest.approx(shaken.history[0].loss, rel=1e-3)
    embeddings = embed(shaken.head, features)
    np.testing.assert_array_equal(embeddings, embed(shaken.head, features))


@pytest.mark.slow
def test_validation_images_are_never_learned_from(features, labels):
    changed = features.copy()
    changed[N_TRAIN:] = 7
    for changes in ({"loss": "center"}, {"mining": "batch-hard", "inject_positives": True}):
        one, other = (train(each, labels, epochs=3, **changes) for each in (features, changed))
        np.testing.assert_array_equal(one.head.get_weights()[0], other.head.get_weights()[0])


@pytest.mark.slow
def test_hardest_positives_are_looked_for_anew_as_often_as_asked(features, labels, monkeypatch):
    found = []

    def spy(*given):
        found.append(hardest_positives(*given))
        return found[-1]

    monkeypatch.setattr("tripletkit.training.batch_learner.hardest_positives", spy)
    train(features, labels, mining="batch-hard", inject_positives=True, refresh=5, epochs=11)
    assert len(found) == 3
    assert not np.array_equal(found[0], found[2])
    for positives in found:
        anchors = np.flatnonzero(positives >= 0)
        assert set(anchors) == set(np.unique(TRAIN))
        assert set(positives[anchors]) <= set(anchors)
        np.testing.assert_array_equal(anchors % N_CLASSES, positives[anchors] % N_CLASSES)


@pytest.mark.slow
@pytest.mark.parametrize("changes", [{"loss": "center"}, {"mining": "batch-hard"}])
def test_collapse_is_told_for_every_kind_of_training(features, labels, changes):
    with pytest.raises(TripletkitError, match=r"all embeddings are alike|broke down|lie on a line"):
        train(np.full_like(features, 3), labels, **changes)

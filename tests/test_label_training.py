"""Training by labels: every loss and way of mining learns, repeats itself, and says why not."""

from __future__ import annotations

from functools import partial

import numpy as np
import pandas as pd
import pytest

import tripletkit as tk

N_CLASSES, N_IMAGES, N_TRAIN = 6, 90, 60
NAMES = [f"p{number:02}" for number in range(N_IMAGES)]
CLASS_OF = np.arange(N_IMAGES) % N_CLASSES
LABELS = {name: f"class {number}" for name, number in zip(NAMES, CLASS_OF, strict=True)}
SMALL = {"hidden": 32, "dim": 4, "epochs": 15, "batch_size": 32, "learning_rate": 1e-2}
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::tripletkit.TripletkitWarning")]


@pytest.fixture(scope="module")
def features():
    """Images of six classes, which only some of the features tell apart."""
    rng = np.random.default_rng(0)
    deviation = np.where(np.arange(20) < 8, 0.6, 2)
    kinds = rng.normal(size=(N_CLASSES, 20)) * (np.arange(20) < 8)
    return (kinds[CLASS_OF] + deviation * rng.normal(size=(N_IMAGES, 20)) + 5).astype(np.float32)


def draw_rows(low, high, n_rows, seed=1):
    drawn = np.random.default_rng(seed).integers(low, high, (40 * n_rows, 3))
    anchor, positive, negative = (drawn % N_CLASSES).T
    is_right = (anchor == positive) & (anchor != negative) & (drawn[:, 0] != drawn[:, 1])
    return drawn[is_right][:n_rows].astype(np.int32)


TRAIN, VAL = draw_rows(0, N_TRAIN, 400), draw_rows(N_TRAIN, N_IMAGES, 300)


def train(features, labels=LABELS, **settings):
    data = {"features": features, "names": NAMES, "labels": labels, "val": VAL}
    if "mining" in settings:
        settings |= {"classes_per_batch": 4, "images_per_class": 4}
    return tk.train(TRAIN, **data, refit=False, unseen_classes=0.0, **{**SMALL, **settings})


# Each loss by labels; each way of mining once, and each loss of triplets with mining.
WAYS = [{"loss": name} for name in ("cross-entropy", "center", "triplet+cross-entropy")]
WAYS += [{"mining": name} for name in ("batch-all", "batch-hard", "semi-hard")]
WAYS += [{"loss": name, "mining": "semi-hard"} for name in ("soft-margin", "ratio")]


@pytest.mark.parametrize("way", WAYS, ids=lambda way: " ".join(way.values()))
def test_every_loss_and_way_of_mining_learns(features, way):
    model = train(features, **way)
    assert model.validation.trained.accuracy > model.validation.frozen.accuracy + 0.1
    if "mining" not in way:
        assert model.history["loss"].iloc[-1] < model.history["loss"].iloc[0]


@pytest.mark.parametrize(
    "recipe", [{"hidden": 32}, {"recipe": "residual", "hidden": 16, "dim": None}]
)
def test_centers_are_where_the_classes_are(features, tmp_path, recipe):
    model = train(
        features, loss="center", epochs=60, dropout=0.0, learning_rate=5e-3, patience=60, **recipe
    )
    model.save(tmp_path / "m")
    centers = pd.read_csv(tmp_path / "m" / "class_centers.csv", index_col="label").to_numpy()
    embeddings = model.embed().vectors
    means = [embeddings[:N_TRAIN][number::N_CLASSES].mean(axis=0) for number in range(N_CLASSES)]
    np.testing.assert_allclose(centers, means, atol=0.1)


def test_images_without_a_class_take_part_in_triplets_alone(features):
    some = {name: label for name, label in LABELS.items() if name >= "p12"}
    for way in ({"loss": "triplet+cross-entropy"}, {"loss": "center"}, {"mining": "semi-hard"}):
        history = train(features, some, epochs=3, **way).history
        assert np.isfinite(history["loss"].iloc[-1])


@pytest.mark.parametrize("way", [{"mining": "batch-all"}, {"loss": "cross-entropy"}])
def test_dropout_is_on_in_training_and_off_in_embeddings(features, way):
    # The sources left it off: they called the model without saying that it trains.
    calm, shaken = (train(features, epochs=1, dropout=dropout, **way) for dropout in (0.0, 0.9))
    first = calm.history["loss"].iloc[0]
    assert first != pytest.approx(shaken.history["loss"].iloc[0], rel=1e-3)
    np.testing.assert_array_equal(shaken.embed().vectors, shaken.embed().vectors)


def test_validation_images_are_never_learned_from(features):
    changed = features.copy()
    changed[N_TRAIN:] = 7 + np.random.default_rng(0).normal(size=(N_IMAGES - N_TRAIN, 20))
    for way in ({"loss": "center"}, {"mining": "batch-hard", "inject_positives": True}):
        # As many epochs, whatever the validation says.
        fit = partial(train, epochs=3, patience=99, **way)
        one, other = (fit(each).history["loss"] for each in (features, changed))
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("way", [{"loss": "center"}, {"mining": "batch-hard"}])
def test_collapse_is_told_for_every_kind_of_training(features, way):
    with pytest.raises(tk.TripletkitError, match=r"alike|broke down|lie on a line"):
        train(np.full_like(features, 3), **way)

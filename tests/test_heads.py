"""Heads of all recipes: what they give, run by NumPy as by Keras, and how all come back."""

from __future__ import annotations

import json
import logging
import re

import h5py
import keras
import numpy as np
import pytest
from plain import triplet_margins, unit_vectors

import tripletkit as tk
from tripletkit import TripletkitError
from tripletkit.model import head_layers
from tripletkit.model.head_layers import NumpyHead, Scaling, embed, write_head
from tripletkit.model.heads import build_model, frozen_scale
from tripletkit.model.recipes import RECIPES, get_recipe
from tripletkit.model.settings import Settings
from tripletkit.training.head_trainer import HeadTrainer, _HeadTraining
from tripletkit.training.trainer import Examples

N_FEATURES = 40
# Of the heads that are trained.
N_TRAINED = 20
RNG = np.random.default_rng(0)
FEATURES = np.maximum(RNG.normal(size=(1500, N_FEATURES)), 0).astype(np.float32)
HEADS = {
    "mlp": Settings(hidden=16, dim=5),
    "linear": Settings(recipe="linear", dim=5),
    "residual": Settings(recipe="residual", dim=None, hidden=16),
    "several": Settings(recipe="best", dim=None, hidden=16, members=3),
    "with frozen features": Settings(
        recipe="best", dim=None, hidden=16, members=2, frozen_share=0.2
    ),
    # Models four deep.
    "compressed": Settings(recipe="best", dim=7, hidden=16, members=2, frozen_share=0.5),
}


def shake(head):
    rng = np.random.default_rng(1)
    head.set_weights(
        [
            rng.uniform(0.5, 2, w.shape) if w.ndim == 1 else rng.normal(0, 0.3, w.shape)
            for w in head.get_weights()
        ]
    )
    return head


@pytest.fixture
def write(tmp_path):
    def write(head):
        path = tmp_path / "head.weights.h5"
        write_head(head, path)
        return path

    return write


@pytest.mark.slow
@pytest.mark.parametrize("settings", HEADS.values(), ids=HEADS)
def test_embeddings_equal_those_of_keras(settings, write):
    head = shake(build_model(N_FEATURES, settings))
    path = write(head)
    numpy_head, want = NumpyHead.read(path), embed(head, FEATURES)
    assert numpy_head.output_shape == head.output_shape
    np.testing.assert_allclose(embed(numpy_head, FEATURES), want, atol=1e-5 * np.abs(want).max())
    zero = np.zeros((1, N_FEATURES), np.float32)
    np.testing.assert_allclose(embed(numpy_head, zero), embed(head, zero), atol=1e-6)
    assert np.isnan(embed(numpy_head, np.full_like(zero, np.nan))).all()
    # An embedding is the same bits alone and among others.
    together = embed(numpy_head, FEATURES)
    order = RNG.permutation(len(FEATURES))
    np.testing.assert_array_equal(embed(numpy_head, FEATURES[order]), together[order])
    for row in (0, 1023, 1024, 1499):
        np.testing.assert_array_equal(embed(numpy_head, FEATURES[row : row + 1])[0], together[row])
    # The file stays one that Keras loads.
    head.set_weights([np.zeros_like(w) for w in head.get_weights()])
    head.load_weights(path)
    np.testing.assert_array_equal(embed(head, FEATURES), want)


def test_columns_of_the_features(write):
    features = keras.Input((N_FEATURES,))
    parts = [
        keras.layers.Dense(3, activation="tanh")(features[:, :8]),
        keras.layers.Average()([features[:, 8:24], features[:, 24:]]),
    ]
    head = keras.Model(features, keras.layers.Concatenate()(parts))
    got = embed(NumpyHead.read(write(head)), FEATURES)
    np.testing.assert_allclose(got, embed(head, FEATURES), atol=1e-5)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda x: keras.layers.Dense(3, activation="mish")(x), "expected an activation among"),
        (lambda x: keras.layers.Reshape((4, 10))(x), "expected one of .*, got Reshape"),
        (lambda x: x[:, ::2], "expected columns like"),
    ],
)
def test_other_layers_are_left_to_keras(write, caplog, build, message):
    features = keras.Input((N_FEATURES,))
    with caplog.at_level(logging.WARNING, "tripletkit"):
        assert NumpyHead.read(write(keras.Model(features, build(features)))) is None
    assert "the head is run by TensorFlow, not by NumPy" in caplog.text
    assert re.search(message, caplog.text)


def test_a_head_that_gives_other_numbers_is_left_to_keras(write, caplog, monkeypatch):
    monkeypatch.setitem(
        head_layers._RUN, "UnitNormalization", lambda inputs, _arrays: inputs[0] * 1.001
    )
    head = shake(build_model(N_FEATURES, HEADS["mlp"]))
    assert NumpyHead.read(write(head)) is None
    assert "expected the embeddings that Keras gives, got others" in caplog.text


@pytest.mark.parametrize(
    "change",
    [
        lambda steps: steps[0].update(kind="Unknown"),
        lambda steps: steps[0].update(weights="layers/gone/"),
        lambda steps: steps[0].pop("settings"),
        lambda steps: steps[0].update(inputs=[9]),
    ],
)
def test_a_list_that_cannot_be_run_is_refused(write, change):
    path = write(shake(build_model(N_FEATURES, HEADS["mlp"])))
    with h5py.File(path, "a") as file:
        described = json.loads(file.attrs["tripletkit_layers"])
        change(described["steps"])
        file.attrs["tripletkit_layers"] = json.dumps(described)
    with pytest.raises(TripletkitError, match=r"head.weights.h5: expected the layers of a head"):
        NumpyHead.read(path)


@pytest.fixture
def features():
    rng = np.random.default_rng(0)
    kinds = rng.normal(size=(6, N_TRAINED)) * (np.arange(N_TRAINED) < 8)
    return (kinds[np.arange(60) % 6] + rng.normal(size=(60, N_TRAINED)) + 3).astype(np.float32)


@pytest.fixture
def rows():
    drawn = np.random.default_rng(1).integers(0, 60, (6000, 3))
    anchor, positive, negative = drawn.T
    is_right = (anchor % 6 == positive % 6) & (anchor % 6 != negative % 6) & (anchor != positive)
    return drawn[is_right][:400].astype(np.int32)


def settings_of(recipe, **given):
    return Settings.of_recipe(recipe, **{"hidden": 16, "epochs": 2} | given)


@pytest.fixture
def train(features, rows):
    def train(recipe, **given):
        return HeadTrainer(Examples(features, rows), settings_of(recipe, **given)).fit().head

    return train


def test_an_unknown_recipe_is_refused_with_a_hint():
    with pytest.raises(
        TripletkitError, match=r'mlp, linear, residual, map, auto, best, got "residul".*"residual"'
    ):
        get_recipe("residul")
    with pytest.raises(TripletkitError, match="registered already"):
        tk.register_recipe("best")


def test_a_recipe_fills_in_what_is_not_given():
    settings = Settings.of_recipe("best", margin=0.7, members=5, dim=None, epochs=None)
    assert (settings.margin, settings.dim, settings.members) == (0.7, None, 5)
    assert settings.epochs == RECIPES["best"].epochs
    assert Settings.of_recipe("mlp") == Settings()


@pytest.mark.slow
def test_the_distance_is_a_mean_of_the_frozen_and_the_trained_one(train, features, rows):
    mixed = embed(train("residual", frozen_share=0.3), features)
    trained = embed(train("residual", frozen_share=0.0), features)
    unit = unit_vectors(features)
    assert mixed.shape == (60, 2 * N_TRAINED)
    np.testing.assert_allclose(np.linalg.norm(mixed, axis=1), 1, rtol=1e-5)
    images = np.unique(rows)
    pairs = np.array([(a, b) for a in images for b in images])

    def squared(embeddings):
        return ((embeddings[pairs[:, 0]] - embeddings[pairs[:, 1]]) ** 2).sum(axis=1)

    # Each relative to its mean over the training images, so that the share is what it says.
    expected = 0.3 * squared(unit) / squared(unit).mean()
    expected += 0.7 * squared(trained) / squared(trained).mean()
    got = squared(mixed)
    np.testing.assert_allclose(got / got.mean(), expected, rtol=1e-3, atol=1e-5)


def test_images_that_are_all_alike_have_nothing_to_balance():
    unit = np.tile(np.eye(1, 4), (5, 1))
    assert frozen_scale(unit, unit_vectors(np.eye(5)), 0.5) == 1.0


def test_an_untrained_residual_head_is_the_standardised_features(features, rows):
    training = _HeadTraining(features, rows, settings_of("residual"))
    embeddings = embed(training.finish(training.weights()), features)
    unit = unit_vectors(features)
    expected = unit_vectors(Scaling.of(unit[np.unique(rows)]).apply(unit))
    np.testing.assert_allclose(embeddings, expected, atol=1e-5)
    same = triplet_margins(embeddings, rows, "l2") > 0
    assert (same == (triplet_margins(expected, rows, "cosine") > 0)).mean() > 0.99


def test_no_strength_is_no_step_and_full_strength_the_trained_one(features, rows):
    training = _HeadTraining(features, rows, settings_of("residual"))
    untrained = training.embed()
    training.run_epoch()
    np.testing.assert_array_equal(training.embed(0.0), untrained)
    whole = training.embed()
    assert not np.allclose(whole, untrained)
    np.testing.assert_array_equal(training.embed(1.0), whole)
    half = training.embed(0.5)
    to_whole = np.linalg.norm(half - whole), np.linalg.norm(untrained - whole)
    assert 0 < to_whole[0] < to_whole[1]


@pytest.mark.slow
def test_squared_distance_of_an_ensemble_is_the_mean_over_its_members(train, features):
    settings = settings_of("residual", members=3)
    seeds = [settings.of_member(member).seed for member in range(3)]
    assert seeds[0] == settings.seed and len(set(seeds)) == 3
    options = {"frozen_share": 0.0, "strength": 1.0}
    heads = [train("residual", seed=seed, **options) for seed in seeds]
    ensemble = train("residual", members=3, **options)

    def squared(head):
        embeddings = embed(head, features)
        return ((embeddings[:30] - embeddings[30:]) ** 2).sum(axis=1)

    expected = np.mean([squared(head) for head in heads], axis=0)
    np.testing.assert_allclose(squared(ensemble), expected, rtol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["residual", "best"])
def test_dim_compresses_to_unit_embeddings(train, features, rows, recipe):
    wide = embed(train(recipe, members=2), features)
    embeddings = embed(train(recipe, members=2, dim=5), features)
    assert embeddings.shape == (60, 5)
    np.testing.assert_allclose(np.linalg.norm(embeddings, axis=1), 1, rtol=1e-5)
    agree = (triplet_margins(embeddings, rows, "l2") > 0) == (triplet_margins(wide, rows, "l2") > 0)
    assert agree.mean() > 0.7
    with pytest.raises(TripletkitError, match=r"`dim=41`: expected at most 40"):
        train(recipe, dim=41)


@pytest.mark.slow
@pytest.mark.parametrize(
    "given",
    [
        {"recipe": "mlp"},
        {"recipe": "residual"},
        {"recipe": "residual", "frozen_share": 0.0},
        {"recipe": "residual", "dim": 4},
        {"recipe": "best", "members": 3},
        {"recipe": "best", "members": 2, "dim": 4},
    ],
)
def test_weights_and_keras_files_give_the_same_bits(train, features, tmp_path, given):
    head = train(**given)
    embeddings = embed(head, features)
    head.save_weights(tmp_path / "head.weights.h5")
    built = build_model(N_TRAINED, settings_of(**given))
    built.load_weights(tmp_path / "head.weights.h5")
    np.testing.assert_array_equal(embed(built, features), embeddings)
    head.save(tmp_path / "head.keras")
    loaded = keras.saving.load_model(tmp_path / "head.keras", safe_mode=True)
    np.testing.assert_allclose(embed(loaded, features), embeddings, atol=1e-6)

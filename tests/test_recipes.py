"""Recipes: the residual head, ensembles, compressed embeddings, and how all come back."""

from __future__ import annotations

import dataclasses

import keras
import numpy as np
import pytest
from plain import triplet_margins, unit_vectors

import tripletkit as tk
from tripletkit import TripletkitError
from tripletkit.model.head_layers import Scaling, embed
from tripletkit.model.heads import build_model, frozen_scale, join_heads
from tripletkit.model.recipes import RECIPES, get_recipe
from tripletkit.model.settings import Settings
from tripletkit.training.head_trainer import HeadTrainer, _HeadTraining
from tripletkit.training.trainer import Examples

N_FEATURES = 20


@pytest.fixture
def features():
    rng = np.random.default_rng(0)
    kinds = rng.normal(size=(6, N_FEATURES)) * (np.arange(N_FEATURES) < 8)
    return (kinds[np.arange(60) % 6] + rng.normal(size=(60, N_FEATURES)) + 3).astype(np.float32)


@pytest.fixture
def rows():
    drawn = np.random.default_rng(1).integers(0, 60, (6000, 3))
    anchor, positive, negative = drawn.T
    is_right = (anchor % 6 == positive % 6) & (anchor % 6 != negative % 6) & (anchor != positive)
    return drawn[is_right][:400].astype(np.int32)


def settings_of(recipe, **given):
    return Settings.of_recipe(recipe, **{"hidden": 16, "epochs": 2} | given)


def train(features, rows, recipe, **given):
    return HeadTrainer(Examples(features, rows), settings_of(recipe, **given)).fit().head


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
def test_the_distance_is_a_mean_of_the_frozen_and_the_trained_one(features, rows):
    mixed = embed(train(features, rows, "residual", frozen_share=0.3), features)
    trained = embed(train(features, rows, "residual", frozen_share=0.0), features)
    unit = unit_vectors(features)
    assert mixed.shape == (60, 2 * N_FEATURES)
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
def test_squared_distance_of_an_ensemble_is_the_mean_over_its_members(features, rows):
    heads = [train(features, rows, "residual", seed=seed) for seed in (0, 1, 2)]

    def squared(head):
        embeddings = embed(head, features)
        return ((embeddings[:30] - embeddings[30:]) ** 2).sum(axis=1)

    expected = np.mean([squared(head) for head in heads], axis=0)
    np.testing.assert_allclose(squared(join_heads(heads)), expected, rtol=1e-4)


@pytest.mark.slow
def test_members_differ_and_the_first_is_the_single_head(features, rows):
    settings = settings_of("residual", members=3)
    assert len({settings.of_member(member).seed for member in range(3)}) == 3
    embeddings = embed(train(features, rows, "residual", members=2, frozen_share=0.0), features)
    single = embed(train(features, rows, "residual", frozen_share=0.0), features)
    np.testing.assert_allclose(embeddings[:, :N_FEATURES] * np.sqrt(2), single, atol=1e-6)
    assert not np.allclose(embeddings[:, N_FEATURES:] * np.sqrt(2), single, atol=1e-3)


@pytest.mark.slow
def test_the_last_members_follow_the_source(features, rows):
    settings = Settings.of_recipe("residual", members=5, mlp_members=2)
    recipes = [settings.of_member(member).recipe for member in range(5)]
    assert recipes == ["residual"] * 3 + ["mlp"] * 2
    assert settings.of_member(4).epochs == RECIPES["mlp"].epochs
    twice = dataclasses.replace(settings, epochs=2 * settings.epochs)
    assert twice.of_member(4).epochs == 2 * RECIPES["mlp"].epochs
    embeddings = embed(train(features, rows, "best", members=3, mlp_members=2), features)
    assert embeddings.shape == (60, 2 * N_FEATURES + 2 * Settings().dim)


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["residual", "best"])
def test_dim_compresses_to_unit_embeddings(features, rows, recipe):
    wide = embed(train(features, rows, recipe, members=2), features)
    embeddings = embed(train(features, rows, recipe, members=2, dim=5), features)
    assert embeddings.shape == (60, 5)
    np.testing.assert_allclose(np.linalg.norm(embeddings, axis=1), 1, rtol=1e-5)
    agree = (triplet_margins(embeddings, rows, "l2") > 0) == (triplet_margins(wide, rows, "l2") > 0)
    assert agree.mean() > 0.7


def test_more_dimensions_than_embeddings_have_are_refused(features, rows):
    with pytest.raises(TripletkitError, match=r"`dim=41`: expected at most 40"):
        train(features, rows, "residual", dim=41)


@pytest.mark.slow
@pytest.mark.parametrize(
    "given",
    [
        {"recipe": "mlp"},
        {"recipe": "residual"},
        {"recipe": "residual", "frozen_share": 0.0},
        {"recipe": "residual", "dim": 4},
        {"recipe": "best", "members": 3, "mlp_members": 1},
        {"recipe": "best", "members": 2, "dim": 4},
    ],
)
def test_weights_and_keras_files_give_the_same_bits(features, rows, tmp_path, given):
    settings = settings_of(**given)
    head = HeadTrainer(Examples(features, rows), settings).fit().head
    embeddings = embed(head, features)
    head.save_weights(tmp_path / "head.weights.h5")
    built = build_model(N_FEATURES, Settings(**dataclasses.asdict(settings)))
    built.load_weights(tmp_path / "head.weights.h5")
    np.testing.assert_array_equal(embed(built, features), embeddings)
    head.save(tmp_path / "head.keras")
    loaded = keras.saving.load_model(tmp_path / "head.keras", safe_mode=True)
    np.testing.assert_allclose(embed(loaded, features), embeddings, atol=1e-6)

"""Compiled steps go from one training to the next, and leave no trace in it."""

from __future__ import annotations

import dataclasses
import gc

import numpy as np
import pytest
from tensorflow.python.eager import context

from tripletkit.data.labels import ImageLabels
from tripletkit.features.keras_backend import keras, seed_layers, tf
from tripletkit.model.head_layers import embed
from tripletkit.model.heads import build_body
from tripletkit.model.settings import Settings
from tripletkit.training import head_trainer as reuse
from tripletkit.training.trainer import Examples

LABELS = ImageLabels([str(label) for label in range(4)], np.arange(40, dtype=np.int32) % 4)


@pytest.fixture(autouse=True)
def nothing_idle(monkeypatch):
    monkeypatch.setattr(reuse, "_idle", type(reuse._idle)())


def draw(seed):
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(40, 6)).astype(np.float32)
    rows = np.stack([rng.permutation(40)[:3] for _ in range(60)]).astype(np.int32)
    return features, rows


def make_training(features, rows, settings):
    examples = Examples(features, rows, labels=LABELS)
    return reuse._make_training(examples, np.arange(len(rows)), settings)


def train(seed, **settings):
    features, rows = draw(seed)
    given = Settings(hidden=16, dim=3, seed=seed, batch_size=16, **settings)
    training = make_training(features, rows, given)
    found = [training.run_epoch() for _ in range(2)]
    return found, embed(training.finish(training.weights()), features)


WAYS = [{}, {"loss": "center"}, {"loss": "triplet+cross-entropy"}, {"mining": "batch-hard"}]


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS, ids=str)
def test_a_training_on_reused_steps_is_the_same_bit_for_bit(way):
    losses, embeddings = train(1, **way)
    reuse._idle.clear()
    train(0, **way)
    assert sum(map(len, reuse._idle.values())) == 1
    again, embedded = train(1, **way)
    assert sum(map(len, reuse._idle.values())) == 1
    assert np.array_equal(again, losses)
    assert np.array_equal(embedded, embeddings)


@pytest.mark.slow
def test_seeds_are_those_of_keras_and_leave_tensorflow_alone():
    """TensorFlow's own seed has it optimise every compiled function anew."""
    given = Settings(hidden=8, dim=3)
    tf.random.set_seed(7)
    seed_layers(3)
    weights = build_body(5, given).get_weights()
    train(0)
    assert context.global_seed() == 7
    keras.utils.set_random_seed(3)
    for ours, theirs in zip(weights, build_body(5, given).get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.slow
def test_two_trainings_at_once_do_not_share(monkeypatch):
    features, rows = draw(0)
    settings = Settings(hidden=8, dim=3, batch_size=16)
    one, other = (make_training(features, rows, settings) for _ in range(2))
    one.run_epoch()
    before = other.embed()
    one.run_epoch()
    assert np.array_equal(other.embed(), before)
    assert not np.array_equal(one.embed(), before)
    del one, other
    gc.collect()
    assert sum(map(len, reuse._idle.values())) == 2


@pytest.mark.slow
def test_other_settings_have_steps_of_their_own_and_few_forms_are_kept():
    for hidden in range(4, 4 + 2 * reuse._MAX_FORMS):
        features, rows = draw(0)
        make_training(features, rows, Settings(hidden=hidden, dim=3))
    assert len(reuse._idle) == reuse._MAX_FORMS


@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(Settings)])
def test_a_setting_decides_a_step_or_is_not_in_its_form(name):
    usual = Settings()
    value = getattr(usual, name)
    other = {"recipe": "residual", "loss": "center", "mining": "batch-hard", "distance": "l1"}
    other |= {"reduction": "active"}
    if name not in other:
        other[name] = not value if isinstance(value, bool) else value + 1
    is_same = reuse._form_of(dataclasses.replace(usual, **{name: other[name]})) == reuse._form_of(
        usual
    )
    assert is_same == (name in reuse._OUTSIDE_STEPS)


def test_the_width_that_embeddings_are_compressed_to_decides_no_step():
    wide, narrow = (Settings.of_recipe("residual", dim=dim) for dim in (8, 4))
    assert reuse._form_of(wide) == reuse._form_of(narrow)

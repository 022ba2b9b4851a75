"""Heads run by NumPy: the numbers that Keras gives, from the file that Keras wrote."""

from __future__ import annotations

import json
import logging
import re

import h5py
import keras
import numpy as np
import pytest

from tripletkit import TripletkitError
from tripletkit.model import head_layers
from tripletkit.model.head_layers import embed, read_numpy_head, write_head_layers
from tripletkit.model.heads import build_model, compress_head, keep_frozen
from tripletkit.model.settings import Settings

N_FEATURES = 40
RNG = np.random.default_rng(0)
FEATURES = np.maximum(RNG.normal(size=(1500, N_FEATURES)), 0).astype(np.float32)
HEADS = {
    "mlp": Settings(hidden=16, dim=5),
    "linear": Settings(recipe="linear", dim=5),
    "residual": Settings(recipe="residual", dim=None, hidden=16),
    "several": Settings(recipe="best", dim=None, hidden=16, members=3),
    "several, two kinds": Settings(recipe="best", dim=None, hidden=16, members=3, mlp_members=1),
    "with frozen features": Settings(
        recipe="best", dim=None, hidden=16, members=2, frozen_share=0.2
    ),
    "compressed": Settings(recipe="best", dim=7, hidden=16, members=2),
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
        head.save_weights(path)
        write_head_layers(head, path)
        return path

    return write


@pytest.fixture(params=HEADS)
def head(request):
    return shake(build_model(N_FEATURES, HEADS[request.param]))


@pytest.mark.slow
def test_embeddings_equal_those_of_keras(head, write):
    numpy_head = read_numpy_head(write(head))
    want = embed(head, FEATURES)
    assert numpy_head.output_shape == head.output_shape
    np.testing.assert_allclose(embed(numpy_head, FEATURES), want, atol=1e-5 * np.abs(want).max())
    zero = np.zeros((1, N_FEATURES), np.float32)
    np.testing.assert_allclose(embed(numpy_head, zero), embed(head, zero), atol=1e-6)
    assert np.isnan(embed(numpy_head, np.full_like(zero, np.nan))).all()


def test_an_embedding_is_the_same_bits_alone_and_among_others(head, write):
    numpy_head = read_numpy_head(write(head))
    together = embed(numpy_head, FEATURES)
    order = RNG.permutation(len(FEATURES))
    np.testing.assert_array_equal(embed(numpy_head, FEATURES[order]), together[order])
    for row in (0, 1023, 1024, 1499):
        np.testing.assert_array_equal(embed(numpy_head, FEATURES[row : row + 1])[0], together[row])


def test_the_file_stays_one_that_keras_loads(head, write):
    path = write(head)
    want = head.get_weights()
    head.set_weights([np.zeros_like(w) for w in want])
    head.load_weights(path)
    for got, expected in zip(head.get_weights(), want, strict=True):
        np.testing.assert_array_equal(got, expected)


def test_columns_of_the_features(write):
    features = keras.Input((N_FEATURES,))
    parts = [
        keras.layers.Dense(3, activation="tanh")(features[:, :8]),
        keras.layers.Average()([features[:, 8:24], features[:, 24:]]),
    ]
    head = keras.Model(features, keras.layers.Concatenate()(parts))
    got = embed(read_numpy_head(write(head)), FEATURES)
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
        assert read_numpy_head(write(keras.Model(features, build(features)))) is None
    assert "the head is run by TensorFlow, not by NumPy" in caplog.text
    assert re.search(message, caplog.text)


def test_a_head_that_gives_other_numbers_is_left_to_keras(write, caplog, monkeypatch):
    monkeypatch.setitem(
        head_layers._RUN, "UnitNormalization", lambda inputs, _arrays: inputs[0] * 1.001
    )
    head = shake(build_model(N_FEATURES, HEADS["mlp"]))
    assert read_numpy_head(write(head)) is None
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
        read_numpy_head(path)


@pytest.mark.slow
def test_heads_inside_heads(write):
    """Frozen features beside a compressed head of two members: models four deep."""
    inner = build_model(N_FEATURES, HEADS["several"])
    head = shake(compress_head(keep_frozen(inner, 0.5), 6))
    got = embed(read_numpy_head(write(head)), FEATURES)
    np.testing.assert_allclose(got, embed(head, FEATURES), atol=1e-5)

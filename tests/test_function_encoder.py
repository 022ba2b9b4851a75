"""Python functions as encoders: tried, cached under their name and version, given again."""

from __future__ import annotations

import pickle
import sys
import threading

import numpy as np
import pytest

import tripletkit as tk

CALLS = []


def colours(pixels):
    """Mean and deviation of each channel, and their products: `(n, 9)`."""
    CALLS.append(len(pixels))
    mean, deviation = (f(pixels / 255.0, axis=(1, 2)) for f in (np.mean, np.std))
    return np.hstack([mean, deviation, mean * deviation])


def make(function=colours, **changes):
    return tk.Encoder(function, **{"name": "colours", "version": "1", "size": 32} | changes)


def test_a_function_is_an_encoder_and_its_vectors_are_kept(toy_competition, tmp_path):
    encoder = pickle.loads(pickle.dumps(make()))
    embeddings = tk.pretrained(encoder, cache=tmp_path).embed(toy_competition.images)
    assert embeddings.vectors.shape == (60, 9)
    CALLS.clear()
    again = tk.pretrained(make(), cache=tmp_path).embed(toy_competition.images)
    np.testing.assert_array_equal(again.vectors, embeddings.vectors)
    assert max(CALLS) == 2, "only the trial ran"
    tk.pretrained(make(version="2"), cache=tmp_path).embed(toy_competition.images)
    assert max(CALLS) > 2


def test_a_model_is_trained_on_a_function_and_asks_for_it_again(toy_competition, tmp_path, caplog):
    caplog.set_level("INFO", "tripletkit")
    options = {"output": tmp_path / "m", "epochs": 1, "unseen_classes": 0}
    model = tk.train(
        toy_competition.train, toy_competition.images, backbone=make(), cache=tmp_path, **options
    )
    assert "is not kept with a model; give it again" in caplog.text
    want = model.answer(toy_competition.test)
    # What is stored needs no function.
    stored = tk.load(tmp_path / "m", cache=tmp_path).answer(toy_competition.test)
    np.testing.assert_array_equal(stored.margins, want.margins)
    other = tmp_path / "other"
    with pytest.raises(tk.TripletkitError, match='expected the function "colours" of version "1"'):
        tk.load(tmp_path / "m", cache=other).answer(toy_competition.test)
    given = tk.load(tmp_path / "m", backbone=make(), cache=other).answer(toy_competition.test)
    np.testing.assert_array_equal(given.margins, want.margins)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda pixels: colours(pixels)[:1], "expected a vector for each image, got 1 for 2"),
        (lambda pixels: colours(pixels) - colours(pixels).mean(axis=0), "alone than among others"),
        (
            lambda pixels: colours(pixels) + np.random.default_rng().random((len(pixels), 9)),
            "when it is asked again",
        ),
        (lambda pixels: colours(pixels)[0, 0], r"got float64 of shape \(\)"),
        (lambda pixels: ["a"] * len(pixels), "expected a vector for each image, got <U1"),
        (lambda pixels: 1 / 0, "mine: failed on images of shape .*ZeroDivisionError: division"),
        (lambda pixels: sys.exit("done"), "mine: failed on images of shape .*SystemExit: done"),
    ],
)
def test_functions_that_answer_wrongly_are_refused(function, message):
    with pytest.raises(tk.TripletkitError, match=message) as caught:
        tk.pretrained(make(function, name="mine"))
    assert "\n" not in str(caught.value)


def test_a_function_that_never_returns_is_refused(monkeypatch):
    monkeypatch.setattr("tripletkit.features.function_encoder._TRIAL_LIMIT_S", 0.2)
    stop = threading.Event()
    with pytest.raises(tk.TripletkitError, match="mine: took longer than 0 s on 1 images"):
        tk.pretrained(make(lambda _pixels: stop.wait(60), name="mine"))
    stop.set()


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "resnet50"},
        {"name": ""},
        {"name": "hf:a/b"},
        {"version": 1},
        {"size": 0},
        {"resample": "cubic"},
    ],
)
def test_what_cannot_be_a_function_encoder_is_refused(changes):
    with pytest.raises(tk.TripletkitError, match=f"`{next(iter(changes))}`: "):
        make(**changes)

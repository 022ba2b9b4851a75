"""Several backbones and views from the command line: every command does with them as with one."""

from __future__ import annotations

import numpy as np
import pytest
import tiny_backbone as tiny
from conftest import read_record

import tripletkit as tk


@pytest.fixture
def run(tripletkit, other_backbone):
    return tripletkit


@pytest.fixture
def train(run, toy_competition, tmp_path):
    def train(*options, **extra):
        toy, output = toy_competition, ("-o", tmp_path / "m", "--recipe", "map")
        return run("train", toy.train, toy.images, *output, *options, **extra)

    return train


@pytest.mark.slow
def test_a_model_of_two_backbones_and_views_works_everywhere(
    run, train, toy_competition, tmp_path, cache_dir
):
    result = train("--backbone", "tiny,tiny-other", "--views", "flip", code=0)
    assert "Features: 42 images computed, 0 from the store.\n" in result.stderr
    record = read_record(tmp_path / "m")
    assert [part["backbone"] for part in record["features"]["parts"]] == ["tiny", "tiny-other"]
    assert record["features"]["views"] == ["original", "flip"]
    assert record["n_features"] == 48

    ask = ("predict", toy_competition.test, "--model", tmp_path / "m")
    first = run(*ask, code=0)
    assert first.stdout.count("\n") == 201
    tk.clear_cache(cache_dir)
    again = run(*ask, code=0)
    assert "Features: 18 images computed, 0 from the store.\n" in again.stderr
    assert again.stdout == first.stdout
    assert run(*ask, "--frozen", code=0).stdout != first.stdout

    images = toy_competition.images
    for arguments in (
        ("embed", images, "-o", tmp_path / "v.npz", "--model", tmp_path / "m", "--frozen"),
        ("neighbors", images, "--query", images / "p00.png", "--model", tmp_path / "m"),
        ("plot", "map", tmp_path / "m", "-o", tmp_path / "map.svg"),
        ("export", "--model", tmp_path / "m", "-o", tmp_path / "exported"),
    ):
        done = run(*arguments, code=0)
    assert "The encoder takes 2 inputs: pixels_32px_bilinear, pixels_32px_bicubic" in done.stderr
    alone = ("--backbone", "tiny, tiny-other", "--views", "original,flip")
    without = run("embed", images, "-o", tmp_path / "w.npz", *alone, code=0)
    assert "Features: 0 images computed, 60 from the store.\n" in without.stderr
    with np.load(tmp_path / "v.npz") as of_model, np.load(tmp_path / "w.npz") as file:
        np.testing.assert_array_equal(file["vectors"], of_model["vectors"])
        assert of_model["vectors"].shape == (60, 48)


@pytest.mark.slow
def test_each_backbone_gets_its_own_weights(run, train, toy_competition, tmp_path):
    own = tmp_path / "own=6.weights.h5"
    tiny.write_weights(own, seed=6)
    train("--backbone", "tiny,tiny-other", "--weights", f"tiny-other={own}", code=0)
    record = read_record(tmp_path / "m")
    assert record["weights_files"] == [None, str(own)]
    first, second = record["features"]["parts"]
    assert first["weights_sha256"] != second["weights_sha256"]
    moved = own.rename(tmp_path / "moved.h5")
    ask = ("predict", toy_competition.test, "--model", tmp_path / "m")
    refused = run(*ask, code=1)
    assert "Say where it is now with --weights tiny-other=FILE" in refused.stderr
    run(*ask, "--weights", moved, code=2)
    run(*ask, "--weights", f"tiny-other={moved}", code=0)
    result = run(*ask, "--views", "flip", code=2)
    assert "--views needs --backbone" in result.stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--backbone", "tiny,tiny"], '"tiny" is there twice'),
        (["--backbone", "auto,tiny"], '"auto" chooses one backbone'),
        (["--backbone", "tiny,"], 'got ""'),
        (["--backbone", "tiny,tiny-othr"], 'Did you mean "tiny-other"'),
        (["--backbone", "tiny", "--views", "flop"], 'Did you mean "flip"'),
        (["--backbone", "tiny", "--views", ""], 'got ""'),
        (["--backbone", "tiny,tiny-other", "--weights", "FILE"], "expected NAME=FILE"),
        (["--backbone", "tiny", "--weights", "tiny-other=FILE"], "a backbone among tiny."),
        (["--backbone", "tiny", "--weights", "tiny=none.h5"], "File 'none.h5' does not exist"),
        (["--backbone", "tiny", "--weights", "tyni=FILE"], "File 'tyni=FILE' does not exist"),
        (["--backbone", "tiny", "--weights", "FILE", "--weights", "FILE"], "one weights file"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_does_not_go_together_is_a_wrong_call(
    run, train, tmp_path, monkeypatch, options, message
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "FILE").write_text("")
    result = train(*options)
    assert (result.exit_code, result.stdout) == (2, "")
    assert message in " ".join(result.stderr.split())
    assert [path.name for path in tmp_path.iterdir()] == ["FILE"]

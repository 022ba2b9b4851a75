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
        return run(
            "train", toy_competition.train, toy_competition.images, "-o", tmp_path / "m",
            "--epochs", "2", *options, **extra,
        )  # fmt: skip

    return train


@pytest.mark.slow
def test_a_model_of_two_backbones_and_views_works_everywhere(
    run, train, toy_competition, tmp_path, cache_dir
):
    result = train(
        "--backbone", "tiny,tiny-other", "--views", "flip", "--recipe", "residual", code=0
    )
    assert "Features: 42 images computed, 0 from the store.\n" in result.stderr
    record = read_record(tmp_path / "m")
    assert [part["backbone"] for part in record["features"]["parts"]] == ["tiny", "tiny-other"]
    assert record["features"]["views"] == ["original", "flip"]
    assert record["n_features"] == 48

    ask = ("predict", toy_competition.test, "--model", tmp_path / "m")
    first = run(*ask)
    assert (first.exit_code, first.stdout.count("\n")) == (0, 201)
    tk.clear_cache(cache_dir)
    again = run(*ask)
    assert "Features: 18 images computed, 0 from the store.\n" in again.stderr
    assert again.stdout == first.stdout
    assert run(*ask, "--frozen").stdout != first.stdout

    images = toy_competition.images
    for arguments in (
        ("embed", images, "-o", tmp_path / "v.npz", "--model", tmp_path / "m", "--frozen"),
        ("neighbors", images, "--query", images / "p00.png", "--model", tmp_path / "m"),
        ("plot", "map", tmp_path / "m", "-o", tmp_path / "map.svg"),
        ("export", "--model", tmp_path / "m", "-o", tmp_path / "exported"),
    ):
        done = run(*arguments, code=0)
    assert "The encoder takes 2 inputs: pixels_32px_bilinear, pixels_32px_bicubic" in done.stderr
    with np.load(tmp_path / "v.npz") as file:
        of_model = file["vectors"]
    without = run(
        "embed", images, "-o", tmp_path / "w.npz", "--backbone", "tiny, tiny-other",
        "--views", "original,flip",
    )  # fmt: skip
    assert "Features: 0 images computed, 60 from the store.\n" in without.stderr
    with np.load(tmp_path / "w.npz") as file:
        np.testing.assert_array_equal(file["vectors"], of_model)
    assert of_model.shape == (60, 48)


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
    assert run(*ask, "--weights", moved).exit_code == 2
    assert run(*ask, "--weights", f"tiny-other={moved}").exit_code == 0


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
    train, run, toy_competition, tmp_path, monkeypatch, options, message
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "FILE").write_text("")
    embed = run("embed", toy_competition.images, "-o", tmp_path / "v.csv", *options)
    for result in (train(*options), embed):
        assert (result.exit_code, result.stdout) == (2, "")
        assert message in " ".join(result.stderr.split())
    assert [path.name for path in tmp_path.iterdir()] == ["FILE"]


def test_a_model_has_its_own_views(run, toy_competition, toy_model, tmp_path):
    result = run(
        "embed", toy_competition.images, "-o", tmp_path / "v.csv", "--model", toy_model,
        "--views", "flip",
        code=2,
    )  # fmt: skip
    assert "--views needs --backbone" in result.stderr

"""Encoders from files on the command line: trained on, answered with, refused."""

from __future__ import annotations

import json

import pytest
import tiny_encoders

HOW = "size=32,resample=bicubic,mean=0.5,std=0.5"


@pytest.fixture
def encoder(tmp_path):
    return tiny_encoders.export(tiny_encoders.build_convolutions(), tmp_path / "conv.onnx")


@pytest.fixture
def run(tripletkit):
    def run(*arguments):
        return tripletkit(*arguments, code=0)

    return run


@pytest.mark.slow
def test_a_model_of_a_file_answers_without_it(run, encoder, toy_competition, tmp_path):
    model = tmp_path / "m"
    data = toy_competition
    run("train", data.train, data.images, "-o", model, "--epochs", 3, "--backbone", encoder,
        "--preprocess", HOW)  # fmt: skip
    record = json.loads((model / "model.json").read_text())
    assert record["features"]["backbone"] == "onnx"
    assert record["features"]["output"] == "image_embeds"
    assert record["features"]["mean"] == [127.5] * 3
    assert record["weights_files"] == [str(encoder)]
    first = run("predict", data.test, "--model", model).stdout
    encoder.rename(tmp_path / "away.onnx")
    assert run("predict", data.test, "--model", model).stdout == first


def test_what_is_not_said_names_the_flag(tripletkit, encoder, toy_competition, tmp_path):
    arguments = ["embed", toy_competition.images, "-o", tmp_path / "f.npz", "--backbone", encoder]
    result = tripletkit(*arguments, code=1)
    assert "expected preprocessor_config.json beside it" in result.stderr
    assert "--preprocess size=224," in result.stderr


@pytest.mark.slow
def test_a_model_of_all_depths_remembers_them(run, tiny_backbone, toy_competition, tmp_path):
    data, model = toy_competition, tmp_path / "m"
    run("train", data.train, data.images, "-o", model, "--epochs", 3, "--backbone", "tiny",
        "--depth", "all")  # fmt: skip
    record = json.loads((model / "model.json").read_text())
    assert record["n_features"] == 96
    assert run("predict", data.test, "--model", model).stdout.startswith("a,b,c,prediction,margin")
    spaces = json.loads(run("cache", "info", "--json").stdout)["spaces"]
    assert {space["stage"] for space in spaces} == {"last", "stem_relu", "widen"}
    run("report", model, "-o", tmp_path / "r.html")
    page = (tmp_path / "r.html").read_text()
    assert "tiny (weights" in page
    assert "tiny at stem_relu (weights" in page

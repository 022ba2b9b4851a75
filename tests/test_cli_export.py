"""`tripletkit export`: Keras files, or a reason why not."""

from __future__ import annotations

import keras
import numpy as np
import onnxruntime
import pytest
import tiny_encoders
from PIL import Image
from plain import triplet_margins


@pytest.fixture
def export(tripletkit, tiny_backbone, toy_model):
    def export(*options, model=toy_model, **extra):
        return tripletkit("export", "--model", model, *options, **extra)

    return export


@pytest.mark.slow
def test_exported_embeddings_give_the_answers_of_predict(
    export, tripletkit, toy_competition, toy_model, tmp_path
):
    folder = tmp_path / "exported"
    result = export("-o", folder)
    assert (result.exit_code, result.stdout) == (0, "")
    assert result.stderr == (
        f"Wrote {folder / 'encoder.keras'}.\nWrote {folder / 'triplet_network.keras'}.\n"
    )
    encoder = keras.saving.load_model(folder / "encoder.keras", safe_mode=True)
    queries = [line.split() for line in toy_competition.test.read_text().splitlines()]
    names = sorted({name for row in queries for name in row})
    pixels = np.stack(
        [
            np.asarray(
                Image.open(toy_competition.images / name).resize(
                    (32, 32), Image.Resampling.BILINEAR
                )
            )
            for name in names
        ]
    )
    rows = np.array([[names.index(name) for name in row] for row in queries])
    margins = triplet_margins(encoder.predict(pixels, verbose=0), rows, "l2")
    predicted = tripletkit("predict", toy_competition.test, "--model", toy_model)
    answers = [float(line.split(",")[-1]) for line in predicted.stdout.splitlines()[1:]]
    np.testing.assert_allclose(margins, answers, atol=1e-4)


@pytest.mark.parametrize(
    ("options", "exit_code", "message"),
    [
        ([], 2, "Missing option '-o'"),
        (["-o", "FILE"], 2, "is a file"),
        (["-o", "FILE/none/exported"], 1, "expected a folder to write to, got a file"),
        (["-o", "x", "--model", "none"], 1, "expected a model folder"),
        (["-o", "x", "--weights", "FILE"], 1, "expected the weights that"),
    ],
)
def test_export_refuses_what_cannot_be_done(
    export, tmp_path, monkeypatch, options, exit_code, message
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "FILE").write_text("")
    result = export(*options)
    assert (result.exit_code, result.stdout) == (exit_code, "")
    assert message in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["FILE"]


@pytest.mark.slow
def test_onnx_files_give_the_embeddings_of_the_keras_file(
    export, tripletkit, toy_competition, toy_model, tmp_path
):
    result = export("-o", tmp_path / "e", "--onnx")
    assert (result.exit_code, result.stdout) == (0, "")
    assert "encoder.onnx" in result.stderr
    written = sorted(path.name for path in (tmp_path / "e").iterdir())
    assert written == ["encoder.onnx", "head.onnx", "preprocessor_config.json"]
    # The configuration beside it says what images go through.
    own = ["--model", toy_model]
    for name, how in (("own", own), ("file", ["--backbone", tmp_path / "e" / "encoder.onnx"])):
        output = tmp_path / f"{name}.npz"
        tripletkit("embed", toy_competition.images, "-o", output, *how, code=0)
    vectors = [np.load(tmp_path / f"{name}.npz")["vectors"] for name in ("own", "file")]
    np.testing.assert_allclose(*vectors, atol=1e-5)
    export("-o", tmp_path / "k")
    encoder = keras.saving.load_model(tmp_path / "k" / "encoder.keras", safe_mode=True)
    pixels = np.random.default_rng(0).uniform(0, 255, (3, 32, 32, 3)).astype(np.float32)
    session = onnxruntime.InferenceSession(tmp_path / "e" / "encoder.onnx")
    assert [value.name for value in session.get_inputs()] == ["pixels"]
    (got,) = session.run(["embedding"], {"pixels": pixels})
    np.testing.assert_allclose(got, encoder.predict(pixels, verbose=0), atol=1e-5)
    head = onnxruntime.InferenceSession(tmp_path / "e" / "head.onnx")
    (of_zero,) = head.run(["embedding"], {"features": np.zeros((2, 24), np.float32)})
    assert of_zero.shape == (2, 10)


@pytest.mark.slow
def test_all_of_depths_views_and_backbones_is_in_one_onnx_file(
    tripletkit, other_backbone, toy_competition, tmp_path
):
    data, model = toy_competition, tmp_path / "m"
    train = ["train", data.train, data.images, "-o", model, "--epochs", 2]
    how = ["--backbone", "tiny,tiny-other", "--depth", "all", "--views", "flip"]
    tripletkit(*train + how, code=0)
    for options in ([], ["--onnx"]):
        arguments = ["export", "--model", model, "-o", tmp_path / "e", *options]
        tripletkit(*arguments, code=0)
    vectors = tmp_path / "v.npz"
    arguments = ["embed", data.images, "-o", vectors, "--model", model]
    tripletkit(*arguments, code=0)
    images = [Image.open(path) for path in sorted(data.images.iterdir())[:5]]
    forms = {
        f"pixels_32px_{name}": np.stack(
            [np.asarray(image.resize((32, 32), Image.Resampling[name.upper()])) for image in images]
        ).astype(np.float32)
        for name in ("bilinear", "bicubic")
    }
    session = onnxruntime.InferenceSession(tmp_path / "e" / "encoder.onnx")
    (got,) = session.run(None, forms)
    encoder = keras.saving.load_model(tmp_path / "e" / "encoder.keras", safe_mode=True)
    np.testing.assert_allclose(got, encoder.predict(forms, verbose=0), atol=1e-5)
    with np.load(vectors) as arrays:
        np.testing.assert_allclose(got, arrays["vectors"][:5], atol=1e-4)


@pytest.mark.slow
def test_a_model_of_an_onnx_file_has_only_a_head_to_write(tripletkit, toy_competition, tmp_path):
    file = tiny_encoders.export(tiny_encoders.build_convolutions(), tmp_path / "conv.onnx")
    data, model = toy_competition, tmp_path / "m"
    train = ["train", data.train, data.images, "-o", model, "--epochs", 2, "--backbone", file]
    train += ["--preprocess", "size=32,resample=box,mean=0,std=1"]
    tripletkit(*train, code=0)
    arguments = ["export", "--model", model, "-o", tmp_path / "e"]
    result = tripletkit(*arguments, code=1)
    assert "features come from the ONNX file conv.onnx" in result.stderr
    result = tripletkit(*[*arguments, "--onnx"])
    assert [path.name for path in (tmp_path / "e").iterdir()] == ["head.onnx"]

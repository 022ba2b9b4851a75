"""Exported networks give the embeddings of the fast path, and need nothing but Keras or ONNX."""

from __future__ import annotations

import subprocess
import sys

import keras
import numpy as np
import onnxruntime
import pytest
import tiny_backbone as tiny
import tiny_encoders
from model_records import SETTINGS, make_record
from PIL import Image

import tripletkit as tk
from tripletkit import TripletkitError
from tripletkit.features.encoder import open_encoder
from tripletkit.model.export import _build_triplet_network, _join_encoder
from tripletkit.model.heads import build_body
from tripletkit.model.model_folder import save_model

IMAGES = [f"p{number:02}.png" for number in range(8)]
ROLES = ("anchor", "positive", "negative")

LOAD = """
import sys
sys.modules["tripletkit"] = None  # An import of it fails.
import keras, numpy
folder = sys.argv[1]
pixels = numpy.load(folder + "/pixels.npy")
encoder = keras.saving.load_model(folder + "/encoder.keras", safe_mode=True)
triplet = keras.saving.load_model(folder + "/triplet_network.keras", safe_mode=True)
numpy.save(folder + "/uint8.npy", encoder.predict(pixels, verbose=0))
numpy.save(folder + "/float.npy", encoder.predict(pixels.astype("float32"), verbose=0))
three = {name: pixels[n:n + 4] for n, name in enumerate(("anchor", "positive", "negative"))}
numpy.save(folder + "/by_name.npy", triplet.predict(three, verbose=0))
numpy.save(folder + "/by_order.npy", triplet.predict(list(three.values()), verbose=0))
"""


def read_pixels(folder, name="pixels", side=32):
    """Return images as an input takes them, `(n_images, side, side, 3)` uint8.

    Its name says the filter that resizes for it, tiny's where it says none.
    """
    how = Image.Resampling[name.split("_")[-1].upper() if "_" in name else "BILINEAR"]
    opened = (Image.open(folder / each) for each in IMAGES)
    return np.stack([np.asarray(image.resize((side, side), how)) for image in opened])


@pytest.fixture
def head():
    keras.utils.set_random_seed(0)
    return build_body(tiny.N_FEATURES, SETTINGS)


@pytest.fixture
def model(tmp_path, head, tiny_backbone, tiny_weights):
    save_model(tmp_path / "m", head, [], make_record(open_encoder(["tiny"]), images=None))
    return tk.load(tmp_path / "m")


@pytest.mark.integration
def test_exported_files_need_only_keras_and_give_the_same_embeddings(
    model, toy_competition, tmp_path
):
    folder = tmp_path / "exported"
    written = model.export(folder)
    assert model.export(folder, overwrite=True) == written
    assert written == [folder / "encoder.keras", folder / "triplet_network.keras"]
    assert sorted(folder.iterdir()) == written
    np.save(folder / "pixels.npy", read_pixels(toy_competition.images))
    subprocess.run([sys.executable, "-c", LOAD, folder], check=True, timeout=120)
    paths = [toy_competition.images / name for name in IMAGES]
    embeddings = model.embed(paths).vectors
    three = np.concatenate([embeddings[:4], embeddings[1:5], embeddings[2:6]], axis=1)
    for name, expected in (
        ("uint8", embeddings),
        ("float", embeddings),
        ("by_name", three),
        ("by_order", three),
    ):
        np.testing.assert_allclose(np.load(folder / f"{name}.npy"), expected, atol=1e-4)
    assert np.abs(embeddings[:4] - embeddings[1:5]).max() > 0.01


@pytest.mark.slow
@pytest.mark.parametrize(
    ("names", "how", "inputs"),
    [
        (["tiny"], {"views": ["flip"]}, ["pixels"]),
        (["tiny"], {"views": ["ten-crop"]}, ["pixels"]),
        (
            ["tiny", "tiny-other"],
            {"views": ["flip"], "depth": "all"},
            ["pixels_32px_bilinear", "pixels_32px_bicubic"],
        ),
        (
            ["tiny", "tiny-other"],
            {"views": ["flip", "five-crop"]},
            [
                "pixels_32px_bilinear",
                "pixels_37px_bilinear",
                "pixels_32px_bicubic",
                "pixels_37px_bicubic",
            ],
        ),
    ],
)
def test_a_network_of_several_backbones_depths_and_views_gives_the_embeddings(
    other_backbone, toy_competition, tmp_path, names, how, inputs
):
    source = open_encoder(names, **how)
    head = build_body(source.n_features, SETTINGS)
    save_model(tmp_path / "m", head, [], make_record(source, images=None))
    model, folder = tk.load(tmp_path / "m"), tmp_path / "exported"
    model.export(folder)
    encoder = keras.saving.load_model(folder / "encoder.keras", safe_mode=True)
    assert [tensor.name for tensor in encoder.inputs] == inputs
    forms = [
        read_pixels(toy_competition.images, tensor.name, tensor.shape[1])
        for tensor in encoder.inputs
    ]
    # Called as they are: compiling networks of so many views takes seconds.
    embeddings = encoder(forms if len(forms) > 1 else forms[0], training=False).numpy()
    expected = model.embed([toy_competition.images / name for name in IMAGES]).vectors
    np.testing.assert_allclose(embeddings, expected, atol=1e-4)
    assert np.abs(embeddings[:4] - embeddings[4:]).max() > 0.01

    triplet = keras.saving.load_model(folder / "triplet_network.keras", safe_mode=True)
    three = [form[start : start + 4] for start in range(3) for form in forms]
    side_by_side = np.concatenate([embeddings[:4], embeddings[1:5], embeddings[2:6]], axis=1)
    np.testing.assert_allclose(triplet(three, training=False), side_by_side, atol=1e-4)
    assert [tensor.name for tensor in triplet.inputs] == [
        name.replace("pixels", role) for role in ROLES for name in inputs
    ]
    if "depth" in how:
        model.export(folder, onnx=True)
        session = onnxruntime.InferenceSession(folder / "encoder.onnx")
        given = {name: np.float32(form) for name, form in zip(inputs, forms, strict=True)}
        np.testing.assert_allclose(session.run(None, given)[0], embeddings, atol=1e-5)


@pytest.mark.slow
def test_each_variable_appears_once_and_the_backbones_are_frozen(tiny_backbone, tiny_weights, head):
    encoder = _join_encoder(
        open_encoder(["tiny"]), [(tiny_backbone, tiny.build(tiny_weights))], head
    )
    network = _build_triplet_network(encoder)
    paths = [variable.path for variable in network.variables]
    assert len(set(map(id, network.variables))) == len(paths) == len(set(paths))
    n_of_backbone = len(tiny.build(tiny_weights).variables)
    of_head = {variable.path for variable in head.trainable_variables}
    assert {variable.path for variable in network.trainable_variables} == of_head
    assert len(of_head) == 4
    # Beside the backbone's and the head's: mean, variance and count of the preprocessing, and the
    # seed of dropout.
    others = {"mean", "variance", "count", "seed_generator_state"}
    left = [v for v in network.variables if v.path not in of_head]
    assert len([v for v in left if v.name not in others]) == n_of_backbone


@pytest.mark.slow
def test_onnx_files_give_the_embeddings_and_say_what_images_go_through(
    tripletkit, tiny_backbone, toy_competition, toy_model, tmp_path
):
    result = tripletkit("export", "--model", toy_model, "-o", tmp_path / "e", "--onnx", code=0)
    assert result.stdout == "" and "encoder.onnx" in result.stderr
    written = sorted(path.name for path in (tmp_path / "e").iterdir())
    assert written == ["encoder.onnx", "head.onnx", "preprocessor_config.json"]
    own = tk.load(toy_model).embed(toy_competition.images).vectors
    # The configuration beside it says what images go through.
    from_file = tk.pretrained(tmp_path / "e" / "encoder.onnx").embed(toy_competition.images)
    np.testing.assert_allclose(from_file.vectors, own, atol=1e-5)
    head = onnxruntime.InferenceSession(tmp_path / "e" / "head.onnx")
    (of_zero,) = head.run(["embedding"], {"features": np.zeros((2, 24), np.float32)})
    assert of_zero.shape == (2, 10)


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
    tripletkit(*arguments, "--onnx", code=0)
    assert [path.name for path in (tmp_path / "e").iterdir()] == ["head.onnx"]


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
    tripletkit, model, tmp_path, monkeypatch, options, exit_code, message
):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    (tmp_path / "here" / "FILE").write_text("")
    result = tripletkit("export", "--model", tmp_path / "m", *options)
    assert (result.exit_code, result.stdout) == (exit_code, "")
    assert message in result.stderr
    assert [path.name for path in (tmp_path / "here").iterdir()] == ["FILE"]


def test_files_that_are_there_are_kept_and_so_they_are_by_a_failing_export(
    model, tmp_path, monkeypatch
):
    folder = tmp_path / "exported"
    folder.mkdir()
    (folder / "encoder.keras").write_text("old")
    with pytest.raises(TripletkitError, match=r"encoder\.keras: is there already.*`overwrite=T"):
        model.export(folder)
    with pytest.raises(TripletkitError, match=r"encoder\.keras: is not the network encoder"):
        model.export(folder, overwrite=True)
    (folder / "encoder.keras").unlink()
    (before,) = [path for path in model.export(folder) if path.name == "encoder.keras"]
    content = before.read_bytes()

    def fail(_self, path):
        path.write_text("half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(keras.Model, "save", fail)
    with pytest.raises(TripletkitError, match="exported: cannot be written: No space left"):
        model.export(folder, overwrite=True)
    assert sorted(path.name for path in folder.iterdir()) == [
        "encoder.keras",
        "triplet_network.keras",
    ]
    assert before.read_bytes() == content

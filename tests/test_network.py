"""The exported network gives the embeddings of the fast path, and needs nothing but Keras."""

from __future__ import annotations

import subprocess
import sys

import keras
import numpy as np
import pytest
import tiny_backbone as tiny
from model_records import SETTINGS, make_record

from tripletkit import TripletkitError, open_images
from tripletkit.data.decoding import read_pixels
from tripletkit.data.outputs import Outputs
from tripletkit.features.encoder import open_encoder
from tripletkit.features.keras_backbones import make_keras_function
from tripletkit.features.store import FeatureStore
from tripletkit.model import export
from tripletkit.model.export import (
    _INPUT_NAMES,
    _build_triplet_network,
    _join_encoder,
    check_export_folder,
    export_networks,
)
from tripletkit.model.head_layers import embed
from tripletkit.model.heads import build_body
from tripletkit.model.model_folder import load_model, save_model

N_IMAGES = 8

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


@pytest.fixture(scope="module")
def pixels():
    return np.random.default_rng(0).integers(0, 256, (N_IMAGES, 32, 32, 3), dtype=np.uint8)


@pytest.fixture
def head():
    keras.utils.set_random_seed(0)
    return build_body(tiny.N_FEATURES, SETTINGS)


@pytest.fixture
def model(tmp_path, head, tiny_backbone, tiny_weights):
    save_model(tmp_path / "m", head, [], make_record(open_encoder(["tiny"])))
    return load_model(tmp_path / "m")


@pytest.fixture
def encoder(tiny_backbone, tiny_weights, head):
    return _join_encoder(open_encoder(["tiny"]), [(tiny_backbone, tiny.build(tiny_weights))], head)


@pytest.fixture
def embeddings(tiny_backbone, tiny_weights, head, pixels):
    """What `predict` computes."""
    compute = make_keras_function(tiny_backbone, tiny.build(tiny_weights))
    return embed(head, compute(pixels))


@pytest.mark.integration
def test_exported_files_need_only_keras_and_give_the_same_embeddings(
    model, tiny_weights, embeddings, pixels, tmp_path
):
    folder = tmp_path / "exported"
    written = export_networks(model, folder, model.open_encoder(), Outputs())
    check_export_folder(folder, Outputs(overwrite=True))
    assert written == [folder / "encoder.keras", folder / "triplet_network.keras"]
    assert sorted(folder.iterdir()) == written
    np.save(folder / "pixels.npy", pixels)
    subprocess.run([sys.executable, "-c", LOAD, folder], check=True, timeout=120)
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
    ("names", "views", "inputs"),
    [
        (["tiny"], "flip", ["pixels"]),
        (["tiny"], "ten-crop", ["pixels"]),
        (["tiny", "tiny-other"], "original", ["pixels_32px_bilinear", "pixels_32px_bicubic"]),
        (
            ["tiny", "tiny-other"],
            "flip,five-crop",
            [
                "pixels_32px_bilinear",
                "pixels_37px_bilinear",
                "pixels_32px_bicubic",
                "pixels_37px_bicubic",
            ],
        ),
    ],
)
def test_a_network_of_several_backbones_and_views_gives_the_embeddings_of_predict(
    other_backbone, toy_competition, tmp_path, names, views, inputs
):
    source = open_encoder(names, views=views.split(","))
    head = build_body(source.n_features, SETTINGS)
    save_model(tmp_path / "m", head, [], make_record(source))
    model = load_model(tmp_path / "m")
    export_networks(model, tmp_path / "exported", model.open_encoder(), Outputs())
    encoder = keras.saving.load_model(tmp_path / "exported" / "encoder.keras", safe_mode=True)
    assert [tensor.name for tensor in encoder.inputs] == inputs

    images = [f"p{number:02}.png" for number in range(N_IMAGES)]
    files = open_images(toy_competition.images, images)
    with FeatureStore(tmp_path / "store") as store:
        features = source.load(files, store).features
    forms = [
        np.stack([read_pixels(path, tensor.shape[1], how_of(tensor.name)) for path in files.paths])
        for tensor in encoder.inputs
    ]
    # Called as they are: compiling networks of so many views takes seconds.
    embeddings = encoder(forms if len(forms) > 1 else forms[0], training=False).numpy()
    np.testing.assert_allclose(embeddings, embed(head, features), atol=1e-4)
    assert np.abs(embeddings[:4] - embeddings[4:]).max() > 0.01

    triplet = keras.saving.load_model(
        tmp_path / "exported" / "triplet_network.keras", safe_mode=True
    )
    three = [form[start : start + 4] for start in range(3) for form in forms]
    expected = np.concatenate([embeddings[:4], embeddings[1:5], embeddings[2:6]], axis=1)
    np.testing.assert_allclose(triplet(three, training=False), expected, atol=1e-4)
    assert [tensor.name for tensor in triplet.inputs] == [
        name.replace("pixels", image) for image in _INPUT_NAMES for name in inputs
    ]


def how_of(name):
    """Return what an input says of the filter that resizes for it; tiny's where it says none."""
    return name.split("_")[-1] if "_" in name else "bilinear"


@pytest.mark.slow
def test_each_variable_appears_once_and_the_backbones_are_frozen(encoder, tiny_weights, head):
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


def test_export_is_refused_where_files_are(model, tiny_weights, tmp_path):
    folder = tmp_path / "exported"
    folder.mkdir()
    check_export_folder(folder, Outputs())
    (folder / "encoder.keras").write_text("old")
    with pytest.raises(
        TripletkitError, match=r"encoder\.keras: is there already.*`overwrite=True`"
    ):
        check_export_folder(folder, Outputs())
    with pytest.raises(TripletkitError, match=r"encoder\.keras: is not the network encoder"):
        check_export_folder(folder, Outputs(overwrite=True))
    with pytest.raises(TripletkitError, match="expected a folder to write to, got a file"):
        check_export_folder(folder / "encoder.keras" / "exported", Outputs())


@pytest.mark.slow
def test_a_failing_export_keeps_the_old_file(model, tiny_weights, tmp_path, monkeypatch):
    folder = tmp_path / "exported"
    folder.mkdir()
    (folder / "encoder.keras").write_text("old")

    def fail(_self, path):
        path.write_text("half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(keras.Model, "save", fail)
    with pytest.raises(TripletkitError, match="exported: cannot be written: No space left"):
        export_networks(model, folder, model.open_encoder(), Outputs())
    assert [path.name for path in folder.iterdir()] == ["encoder.keras"]
    assert (folder / export._ENCODER_FILE).read_text() == "old"

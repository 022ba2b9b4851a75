"""The registry of backbones, and where their weights come from."""

from __future__ import annotations

import dataclasses
import hashlib
import inspect
import socket
import sys
from functools import partial
from importlib import import_module
from types import SimpleNamespace

import keras
import numpy as np
import pytest
import tiny_backbone as tiny

import tripletkit as tk
from tripletkit.errors import BackboneError, TripletkitError, WeightsError
from tripletkit.features.backbones import (
    BACKBONES,
    KerasDownload,
    Preprocessing,
    get_backbone,
    load_plugins,
)
from tripletkit.features.encoder import open_encoder
from tripletkit.features.keras_backbones import (
    build_backbone,
    build_EfficientNetB0,
    save_trained_weights,
    write_random_weights,
)

NO_NETWORK = "URL fetch failure: no network"


@pytest.fixture(autouse=True)
def keras_home(monkeypatch, tmp_path):
    """An empty cache of Keras, and no network."""
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))

    def fail(*_args, **_kwargs):
        raise Exception(NO_NETWORK)

    monkeypatch.setattr(keras.utils, "get_file", fail)
    folder = tmp_path / "keras" / "models"
    folder.mkdir(parents=True)
    return folder


@pytest.fixture
def downloadable(monkeypatch, keras_home):
    """A resnet50 whose weights, as far as their hash says, are ten letters."""
    origin = KerasDownload("https://example.org/w.h5", hashlib.md5(b"0123456789").hexdigest(), 1)
    backbone = dataclasses.replace(BACKBONES["resnet50"], weights=origin)
    monkeypatch.setitem(BACKBONES, "resnet50", backbone)
    return backbone


def choose_backbone(name, weights=None, size_px=None):
    (part,) = open_encoder([name], weights=weights and {name: weights}, size_px=size_px).parts
    return part


def test_an_unknown_name_lists_near_matches_and_all():
    with pytest.raises(BackboneError) as caught:
        get_backbone("resnet-50")
    assert str(caught.value) == (
        f'expected one of {", ".join(BACKBONES)}, got "resnet-50". Did you mean "resnet50"?'
    )


def test_a_name_is_registered_once(tiny_backbone):
    assert get_backbone("tiny") is tiny_backbone
    with pytest.raises(BackboneError, match='"tiny" is registered already'):
        tiny.register()
    with pytest.raises(BackboneError, match='"auto" is registered already'):
        tk.register_backbone("auto", tiny.build, n_features=24, input_size_px=32)


def test_all_networks_of_keras_have_a_record():
    functions = inspect.getmembers(keras.applications, inspect.isfunction)
    others = {"cnn", *(f"efficientnet-lite{number}" for number in range(3))}
    assert {name.lower() for name, _ in functions} == set(BACKBONES) - others
    assert next(iter(BACKBONES)) == "resnet50"


@pytest.mark.parametrize("name", ["efficientnet-lite0", "efficientnet-lite2", "cnn"])
def test_every_backbone_takes_images_of_another_size(short_efficientnets, name):
    backbone = get_backbone(name)
    resized = backbone.resized(64)
    assert build_backbone(resized, None).input_shape == (None, 64, 64, 3)
    assert resized.facts() == backbone.facts() | {"input_size_px": 64}
    assert backbone.resized(None) is backbone


@pytest.mark.slow
@pytest.mark.parametrize("name", ["efficientnet-lite0", "efficientnetb0", "cnn"])
def test_trained_weights_come_back_exactly(short_efficientnets, tmp_path, name):
    """Also where the ImageNet weights are in a form of their own, or are changed when loaded."""
    backbone = get_backbone(name).resized(32)
    keras.utils.set_random_seed(0)
    model = build_backbone(backbone, None)
    rng = np.random.default_rng(0)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization | keras.layers.Normalization):
            layer.set_weights([rng.uniform(0.5, 1.5, w.shape) for w in layer.get_weights()])
    for path in (tmp_path / "a.weights.h5", tmp_path / "b.weights.h5"):
        save_trained_weights(model, name, path)
    assert (tmp_path / "a.weights.h5").read_bytes() == path.read_bytes()
    pixels = rng.uniform(-1, 1, (2, 32, 32, 3)).astype(np.float32)
    again = build_backbone(backbone, path)
    for got, want in zip(again.weights, model.weights, strict=True):
        np.testing.assert_array_equal(got, want)
    if name != "efficientnetb0":  # Its Normalization was changed behind its back.
        np.testing.assert_array_equal(again(pixels), model(pixels))
    with pytest.raises(WeightsError, match=f"got those of a trained {name}"):
        build_backbone(get_backbone("mobilenetv2"), path)


def test_a_backbone_without_weights_says_that_it_must_be_trained(tmp_path, tiny_backbone):
    with pytest.raises(BackboneError, match="cnn: has no weights of its own"):
        choose_backbone("cnn")
    start, again, other = (tmp_path / f"{name}.weights.h5" for name in ("a", "b", "c"))
    for path, seed in ((start, 3), (again, 3), (other, 4)):
        write_random_weights(get_backbone("cnn"), seed, path)
    assert choose_backbone("cnn", start, 48).backbone.input_size_px == 48
    assert again.read_bytes() == start.read_bytes() != other.read_bytes()


@pytest.mark.parametrize("field", [field.name for field in dataclasses.fields(Preprocessing)])
def test_every_fact_of_the_preprocessing_is_in_the_fingerprint(tiny_backbone, field):
    other = {
        "resample": "bicubic",
        "reverse_channels": True,
        "mean": (1.0, 2.0, 3.0),
        "divisor": 2.0,
        "shortest_edge_px": 64,
        "square_px": 64,
        "rounds_half": True,
        "is_gray": True,
    }
    how = dataclasses.replace(tiny_backbone.preprocessing, **{field: other[field]})
    assert dataclasses.replace(tiny_backbone, preprocessing=how).facts() != tiny_backbone.facts()


@pytest.mark.slow
def test_efficientnetb0_from_a_file_is_what_keras_builds(
    short_efficientnets, monkeypatch, tmp_path
):
    keras.utils.set_random_seed(1)
    path = tmp_path / "b0.weights.h5"
    source = keras.applications.EfficientNetB0(
        weights=None, include_top=False, input_shape=(64, 64, 3)
    )
    rng = np.random.default_rng(0)
    normalization = next(
        layer for layer in source.layers if isinstance(layer, keras.layers.Normalization)
    )
    mean, variance, count = normalization.get_weights()
    normalization.set_weights([mean + 0.4, variance * 0.05, count])
    source.save_weights(path)
    monkeypatch.setattr(keras.src.utils.file_utils, "get_file", lambda *_a, **_k: str(path))
    expected = keras.applications.EfficientNetB0(
        weights="imagenet", include_top=False, pooling="avg", input_shape=(64, 64, 3)
    )
    pixels = rng.uniform(0, 255, (1, 64, 64, 3)).astype(np.float32)
    want, got = expected(pixels).numpy(), build_EfficientNetB0(path, 64)(pixels).numpy()
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=np.abs(want).max() * 1e-5)
    # The factor does something: without it the features are others.
    plain = source(pixels).numpy().mean(axis=(1, 2))
    assert np.abs(plain - want).max() > np.abs(want).max() * 1e-3


def test_auto_takes_resnet50_where_its_weights_are(downloadable, keras_home):
    (keras_home / "w.h5").write_bytes(b"0123456789")
    assert downloadable.is_ready()
    chosen = choose_backbone("auto")
    assert (chosen.backbone, chosen.find_weights()) == (downloadable, keras_home / "w.h5")
    assert chosen.reason.startswith("resnet50: ")
    assert choose_backbone("resnet50").reason == ""


def test_auto_downloads_where_it_can_and_says_nothing_on_stdout(
    downloadable, keras_home, monkeypatch, capsys
):
    def get_file(name, url, cache_subdir, file_hash):
        assert (url, file_hash) == (downloadable.weights.url, downloadable.weights.file_hash)
        # A dead line is not waited for for ever.
        assert socket.getdefaulttimeout() > 0
        (keras_home / name).write_bytes(b"0123456789")
        print("Downloading data from somewhere")
        return str(keras_home / name)

    monkeypatch.setattr(keras.utils, "get_file", get_file)
    assert choose_backbone("auto").find_weights() == keras_home / "w.h5"
    assert capsys.readouterr().out == ""
    assert socket.getdefaulttimeout() is None


@pytest.mark.weights
def test_auto_falls_back_where_a_download_fails_and_says_why(downloadable, monkeypatch):
    def get_file(*_args, **_kwargs):
        raise ValueError("Incomplete or corrupted file detected.")

    monkeypatch.setattr(keras.utils, "get_file", get_file)
    chosen = choose_backbone("auto")
    assert chosen.backbone.name == "efficientnet-lite0"
    assert chosen.find_weights() == get_backbone("efficientnet-lite0").find_weights()
    assert chosen.reason == (
        "efficientnet-lite0: the weights of resnet50 are not in Keras's cache and cannot be "
        "downloaded (Incomplete or corrupted file detected)"
    )


def test_resnet50_offline_says_how_to_go_on(downloadable, keras_home):
    with pytest.raises(BackboneError) as caught:
        choose_backbone("resnet50")
    message = str(caught.value)
    for part in (NO_NETWORK, "`weights=FILE`", f"put w.h5 into {keras_home}", "efficientnet-lite0"):
        assert part in message


@pytest.mark.weights
@pytest.mark.parametrize("name", ["auto", "resnet50"])
def test_a_cached_file_with_a_wrong_hash_is_said_and_not_used(downloadable, keras_home, name):
    broken = keras_home / "w.h5"
    broken.write_bytes(b"012345")
    assert not downloadable.is_ready()
    try:
        chosen = choose_backbone(name)
    except BackboneError as error:
        message = str(error)
    else:
        assert chosen.find_weights() != broken
        message = chosen.reason
    assert f"the weights of resnet50 at {broken} are broken" in message


def test_weights_from_a_file_need_no_download(tiny_weights, tmp_path):
    chosen = choose_backbone("resnet50", tiny_weights)
    assert chosen.find_weights() == tiny_weights
    sha256 = hashlib.sha256(tiny_weights.read_bytes()).hexdigest()
    assert chosen.facts["weights_sha256"] == sha256
    with pytest.raises(WeightsError, match="cannot be read"):
        choose_backbone("resnet50", tmp_path)


def test_the_cache_is_where_keras_looks(monkeypatch, tmp_path):
    origin = KerasDownload("https://example.org/a/w.h5", None, 1)
    assert origin.path == tmp_path / "keras" / "models" / "w.h5"
    monkeypatch.delenv("KERAS_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert origin.path == tmp_path / "home" / ".keras" / "models" / "w.h5"


@pytest.mark.parametrize(
    "error",
    [
        BackboneError("Run: pip install it"),
        WeightsError("are cut off"),
        KeyError("where"),
        SystemExit("it ends Python"),
    ],
)
def test_weights_that_a_package_does_not_find_are_told(tiny_backbone, monkeypatch, error):
    def fail():
        raise error

    monkeypatch.setattr(tiny, "weights_path", fail)
    with pytest.raises(TripletkitError, match=str(error)):
        tiny_backbone.find_weights()
    listed = tk.list_backbones().facts
    assert (listed["tiny"]["ready"], listed["cnn"]["ready"]) == (False, True)
    assert listed["tiny"]["weights"] == "pip package tiny_backbone"


def test_a_plug_in_that_fails_is_left_out(tiny_backbone, monkeypatch, caplog):
    """As one that another package could have: it gives a function that registers."""
    functions = (
        partial(tiny.register, "tiny"),
        lambda: 1 / 0,
        partial(sys.exit, "it ends Python"),
        partial(tiny.register, tiny.OTHER_NAME),
    )
    loads = [partial(import_module, "no.such"), *(lambda each=each: each for each in functions)]
    how = {"name": "plugged", "value": "package.module:make"}
    points = {"tripletkit.backbones": [SimpleNamespace(**how, load=load) for load in loads]}
    monkeypatch.setattr("tripletkit.features.backbones.entry_points", lambda group: points[group])
    load_plugins.cache_clear()
    found = get_backbone(tiny.OTHER_NAME)
    assert (found.preprocessing, found.stages) == (
        tiny_backbone.preprocessing,
        tiny_backbone.stages,
    )
    assert "plugged (package.module:make) is left out: No module named 'no'" in caplog.text
    assert '"tiny" is registered already' in caplog.text
    assert "division by zero" in caplog.text
    assert "it ends Python" in caplog.text

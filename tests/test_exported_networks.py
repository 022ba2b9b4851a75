"""Backbones that ONNX Runtime runs: checked, kept, the same bits, and TensorFlow where it fails."""

from __future__ import annotations

import dataclasses
import logging
import os
import subprocess
import sys

import keras
import numpy as np
import pytest
import tiny_backbone as tiny

from tripletkit import defaults
from tripletkit.errors import NetworkFileError
from tripletkit.features import exported_networks, onnx_writer
from tripletkit.features.backbones import Preprocessing
from tripletkit.features.encoder import open_encoder
from tripletkit.features.exported_networks import (
    _relative_difference,
    load_network_function,
    remove_networks,
)
from tripletkit.features.keras_backbones import add_preprocessing, make_keras_function
from tripletkit.features.onnx_engine import make_onnx_function, prepare_pixels

SIZE = defaults.EXTRACT_BATCH_SIZE


@pytest.fixture(scope="module")
def pixels():
    return np.random.default_rng(0).integers(0, 256, (SIZE, 32, 32, 3), dtype=np.uint8)


@pytest.fixture
def parts(tiny_backbone):
    return open_encoder(["tiny"], depth="all").parts


@pytest.fixture
def load(parts, tmp_path):
    return lambda: load_network_function(parts, tmp_path)


def kept(folder):
    return sorted((folder / "networks").iterdir())


@pytest.mark.slow
def test_features_equal_those_of_tensorflow(load, parts, tiny_backbone, tiny_weights, pixels):
    stages = [part.stage for part in parts]
    model = tiny.build(tiny_weights)
    want = make_keras_function(tiny_backbone, model, stages)(pixels)
    got = load()(pixels)
    assert got.shape == want.shape == (SIZE, 24 + 2 * 12 + 2 * 24)
    assert got.dtype == np.float32
    assert _relative_difference(got, want) < 1e-5


def test_the_network_is_kept_and_needs_no_keras(load, pixels, tmp_path, monkeypatch):
    features = load()(pixels)
    assert len(kept(tmp_path)) == 1
    monkeypatch.setattr(exported_networks, "build_backbone", lambda *_: pytest.fail("Keras"))
    np.testing.assert_array_equal(load()(pixels), features)


@pytest.mark.slow
def test_each_set_of_depths_has_a_network_of_its_own(parts, pixels, tmp_path):
    everything = load_network_function(parts, tmp_path)(pixels)
    last = load_network_function(parts[:1], tmp_path)(pixels)
    assert len(kept(tmp_path)) == 2
    np.testing.assert_allclose(last, everything[:, :24], rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_a_damaged_file_is_made_anew(load, pixels, tmp_path):
    features = load()(pixels)
    (path,) = kept(tmp_path)
    whole = path.read_bytes()
    path.write_bytes(whole[:-1000] + bytes(1000))
    np.testing.assert_array_equal(load()(pixels), features)
    assert kept(tmp_path) == [path]
    assert path.read_bytes() == whole


def test_neighbours_change_no_bit(load, pixels):
    rng = np.random.default_rng(1)
    compute = load()
    features = compute(pixels)
    assert len(np.unique(features, axis=0)) == SIZE
    for _ in range(3):
        order = rng.permutation(SIZE)
        np.testing.assert_array_equal(compute(pixels[order]), features[order])
        others = rng.integers(0, 256, pixels.shape, dtype=np.uint8)
        others[5] = pixels[order[0]]
        np.testing.assert_array_equal(compute(others)[5], features[order[0]])


@pytest.mark.weights
@pytest.mark.slow
@pytest.mark.parametrize("name", ["efficientnet-lite0", "efficientnet-lite2"])
def test_neighbours_change_no_bit_of_a_real_network(name, tmp_path):
    parts = open_encoder([name], depth="all").parts
    side = parts[0].backbone.input_size_px
    images = np.random.default_rng(0).integers(0, 256, (SIZE, side, side, 3), dtype=np.uint8)
    compute = load_network_function(parts, tmp_path)
    features = compute(images)
    # At other places, and half of them beside others.
    images = images[::-1].copy()
    images[::2] = 0
    np.testing.assert_array_equal(compute(images)[1::2], features[::-1][1::2])


def break_graph(monkeypatch):
    """Let the graph be one that gives other numbers, as a wrong writer would."""
    real = onnx_writer.make_onnx_model

    def wrong(model, *arguments):
        made = real(model, *arguments)
        for node in made.graph.node:
            if node.op_type == "Conv" and len(node.input) == 3:
                del node.input[2]
        return made

    monkeypatch.setattr(onnx_writer, "make_onnx_model", wrong)


def refuse_graph(monkeypatch):
    def refuse(*_arguments):
        raise NetworkFileError("layer odd: cannot be written")

    monkeypatch.setattr(onnx_writer, "make_onnx_model", refuse)


def refuse_session(monkeypatch):
    def refuse(*_arguments):
        raise NetworkFileError("cannot be run")

    monkeypatch.setattr(exported_networks, "open_session", refuse)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (break_graph, "expected the features that Keras gives, got others in its last features"),
        (refuse_graph, "layer odd: cannot be written"),
        (refuse_session, "cannot be run"),
    ],
)
def test_tensorflow_runs_what_cannot_be_written(
    load, pixels, parts, tiny_backbone, tiny_weights, tmp_path, monkeypatch, caplog, fault, message
):
    fault(monkeypatch)
    with caplog.at_level(logging.WARNING, "tripletkit"):
        got = load()(pixels)
    assert "tiny is run by TensorFlow, not by ONNX Runtime: " in caplog.text
    assert message in caplog.text
    assert not (tmp_path / "networks").exists()
    stages = [part.stage for part in parts]
    want = make_keras_function(tiny_backbone, tiny.build(tiny_weights), stages)(pixels)
    np.testing.assert_array_equal(got, want)


def test_a_place_that_cannot_be_written_costs_time_only(load, pixels, tmp_path, caplog):
    (tmp_path / "networks").write_text("a file")
    assert np.isfinite(load()(pixels)).all()
    assert "the network cannot be kept there" in caplog.text


def test_kept_networks_are_removed(load, pixels, tmp_path):
    load()(pixels)
    (path,) = kept(tmp_path)
    # What somebody put there stays, whatever it is called.
    own = [path.with_name(name) for name in ("dinov2.onnx", f"{'a' * 32}-{'b' * 32}.onnx")]
    for file in own:
        file.write_bytes(b"mine")
        os.utime(file, (0, 0))
    assert remove_networks(tmp_path, path.stat().st_mtime - 1) == 0
    os.utime(path, (0, 0))
    assert remove_networks(tmp_path, 1.0) > 1000
    assert remove_networks(tmp_path) == 0
    assert sorted(kept(tmp_path)) == sorted(own)
    assert remove_networks(tmp_path / "nothing") == 0


@pytest.mark.parametrize(
    "how",
    [
        Preprocessing(),
        Preprocessing(mean=(127.0, 126.0, 125.0), divisor=128.0),
        Preprocessing(reverse_channels=True, mean=(103.939, 116.779, 123.68)),
        Preprocessing(mean=(123.7, 116.3, 103.5), divisor=(58.4, 57.1, 57.4)),
    ],
)
def test_preprocessing_without_keras_is_that_of_the_layers(pixels, how):
    image = keras.Input((32, 32, 3))
    layers = keras.Model(image, add_preprocessing(image, how))
    before = pixels.copy()
    want = layers(pixels.astype(np.float32)).numpy()
    np.testing.assert_allclose(prepare_pixels(pixels, how), want, rtol=1e-6, atol=1e-5)
    np.testing.assert_array_equal(pixels, before)


@pytest.mark.integration
def test_the_engine_opens_no_socket_and_loads_no_tensorflow(load, pixels, tmp_path):
    load()(pixels)
    script = (
        "import sys\n"
        "def watch(event, arguments):\n"
        "    if event.startswith('socket.'): raise SystemExit(event)\n"
        "sys.addaudithook(watch)\n"
        "import numpy as np\n"
        "from pathlib import Path\n"
        "from tripletkit.features.onnx_engine import open_session\n"
        "session = open_session(Path(sys.argv[1]))\n"
        "session.run(None, {'image': np.zeros((1, 32, 32, 3), np.float32)})\n"
        "assert not {'tensorflow', 'keras', 'onnx'} & set(sys.modules)\n"
    )
    # What compiled code does shows no event: ONNX Runtime's telemetry leaves files behind, unless
    # it takes the machine for one that only runs tests.
    home = tmp_path / "home"
    home.mkdir()
    test_machine = ("CI", "GITHUB_ACTIONS", "XDG_CACHE_HOME", "ORT_", "TF_BUILD")
    environment = {k: v for k, v in os.environ.items() if not k.startswith(test_machine)}
    environment |= {"HOME": str(home), "TMPDIR": str(home), "TMP": str(home), "TEMP": str(home)}
    arguments = [sys.executable, "-c", script, str(kept(tmp_path)[0])]
    subprocess.run(arguments, check=True, timeout=60, env=environment)
    assert list(home.rglob("*")) == []


def test_features_of_changed_preprocessing_are_checked_too(parts, pixels, tmp_path, monkeypatch):
    """The check covers what an image goes through before the network."""

    def make_wrong(session, how):
        return make_onnx_function(session, dataclasses.replace(how, divisor=2.0))

    monkeypatch.setattr(exported_networks, "make_onnx_function", make_wrong)
    load_network_function(parts, tmp_path)(pixels)
    assert not (tmp_path / "networks").exists()

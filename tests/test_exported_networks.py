"""Backbones that ONNX Runtime runs: checked, kept, the same bits, and TensorFlow where it fails."""

from __future__ import annotations

import dataclasses
import logging
import os
import subprocess
import sys
from unittest.mock import Mock

import numpy as np
import onnx
import pytest
import tiny_backbone as tiny

from tripletkit import defaults
from tripletkit.errors import NetworkFileError
from tripletkit.features.encoder import open_encoder
from tripletkit.features.keras_backbones import make_keras_function, take_stages
from tripletkit.features.onnx_engine import make_onnx_function, open_session

SIZE = defaults.EXTRACT_BATCH_SIZE


@pytest.fixture(scope="module")
def pixels():
    return np.random.default_rng(0).integers(0, 256, (SIZE, 32, 32, 3), dtype=np.uint8)


@pytest.fixture
def encoder(tiny_backbone):
    return open_encoder(["tiny"], depth="all")


@pytest.fixture
def load(encoder, tmp_path):
    return lambda: encoder.network_functions(tmp_path)[0]


@pytest.fixture
def of_keras(encoder, tiny_backbone, tiny_weights):
    """The same by TensorFlow."""
    stages = [part.stage for part in encoder.parts]
    return make_keras_function(tiny_backbone, take_stages(tiny.build(tiny_weights), stages))


def kept(folder):
    return sorted((folder / "networks").iterdir())


@pytest.mark.slow
def test_features_equal_those_of_tensorflow(load, of_keras, pixels):
    got, want = load()(pixels), of_keras(pixels)
    assert got.shape == want.shape == (SIZE, 24 + 2 * 12 + 2 * 24)
    assert got.dtype == np.float32
    np.testing.assert_array_less(np.abs(got - want).max(axis=1), 1e-5 * np.abs(want).max(axis=1))


@pytest.mark.slow
def test_the_network_of_each_set_of_depths_is_kept_and_needs_no_keras(
    load, pixels, tmp_path, monkeypatch
):
    features = load()(pixels)
    assert len(kept(tmp_path)) == 1
    (last,) = open_encoder(["tiny"]).network_functions(tmp_path)
    np.testing.assert_allclose(last(pixels), features[:, :24], rtol=1e-5, atol=1e-6)
    assert len(kept(tmp_path)) == 2
    built = "tripletkit.features.keras_backbones.build_backbone"
    monkeypatch.setattr(built, lambda *_: pytest.fail("Keras"))
    # When it was used cannot be noted of a file of somebody else.
    monkeypatch.setattr("os.utime", Mock(side_effect=PermissionError))
    np.testing.assert_array_equal(load()(pixels), features)


@pytest.mark.slow
def test_a_damaged_file_is_made_anew(load, pixels, tmp_path):
    features = load()(pixels)
    (path,) = kept(tmp_path)
    whole = path.read_bytes()
    path.write_bytes(whole[:-1000] + bytes(1000))
    np.testing.assert_array_equal(load()(pixels), features)
    assert kept(tmp_path) == [path]
    assert path.read_bytes() == whole


@pytest.mark.parametrize(
    "name",
    [
        "tiny",
        pytest.param("efficientnet-lite0", marks=[pytest.mark.weights, pytest.mark.slow]),
        pytest.param("efficientnet-lite2", marks=[pytest.mark.weights, pytest.mark.slow]),
    ],
)
def test_neighbours_change_no_bit(tiny_backbone, tmp_path, name):
    rng = np.random.default_rng(1)
    encoder = open_encoder([name], depth="all")
    side = encoder.parts[0].backbone.input_size_px
    pixels = rng.integers(0, 256, (SIZE, side, side, 3), dtype=np.uint8)
    (compute,) = encoder.network_functions(tmp_path)
    features = compute(pixels)
    assert len(np.unique(features, axis=0)) == SIZE
    for _ in range(3):
        order = rng.permutation(SIZE)
        np.testing.assert_array_equal(compute(pixels[order]), features[order])
        others = rng.integers(0, 256, pixels.shape, dtype=np.uint8)
        others[5] = pixels[order[0]]
        np.testing.assert_array_equal(compute(others)[5], features[order[0]])


def refuse(message):
    return Mock(side_effect=NetworkFileError(message))


def open_another_graph(network):
    """Open one that gives other numbers, as a wrong writer would."""
    made = onnx.load_from_string(network)
    for node in made.graph.node:
        if node.op_type == "Conv" and len(node.input) == 3:
            del node.input[2]
    return open_session(made.SerializeToString())


def prepare_otherwise(session, how):
    return make_onnx_function(session, dataclasses.replace(how, divisor=2.0))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("place", "fault", "message"),
    [
        ("feature_parts.open_session", open_another_graph, "got others in its last features"),
        ("feature_parts.make_onnx_function", prepare_otherwise, "got others in its last features"),
        ("feature_parts.open_session", refuse("cannot be run"), "cannot be run"),
        ("onnx_writer.make_onnx_model", refuse("layer odd"), "layer odd"),
    ],
)
def test_tensorflow_runs_what_cannot_be_written(
    load, of_keras, pixels, tmp_path, monkeypatch, caplog, place, fault, message
):
    monkeypatch.setattr(f"tripletkit.features.{place}", fault)
    with caplog.at_level(logging.WARNING, "tripletkit"):
        got = load()(pixels)
    assert "tiny is run by TensorFlow, not by ONNX Runtime: " in caplog.text
    assert message in caplog.text
    assert not (tmp_path / "networks").exists()
    np.testing.assert_array_equal(got, of_keras(pixels))


def test_a_place_that_cannot_be_written_costs_time_only(load, pixels, tmp_path, caplog):
    (tmp_path / "networks").write_text("a file")
    assert np.isfinite(load()(pixels)).all()
    assert "the network cannot be kept there" in caplog.text


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

"""Encoders from ONNX files: every common form of input and output, and what is refused."""

from __future__ import annotations

import json

import numpy as np
import onnx
import pytest
import tiny_encoders
from onnx import TensorProto, helper
from tiny_encoders import N_FEATURES, SIDE_PX, add_outputs, export

from tripletkit import open_images
from tripletkit.errors import (
    BackboneError,
    NetworkFileError,
    SettingsError,
    WeightsError,
)
from tripletkit.features.encoder import EncoderRecord, open_encoder, open_recorded_encoder
from tripletkit.features.exported_networks import load_network_function
from tripletkit.features.onnx_files import network_sha256, open_network_file
from tripletkit.features.store import FeatureStore

HOW = "size=32,resample=bicubic,mean=0.5:0.4:0.3,std=0.2:0.3:0.4"
PIXELS = np.random.default_rng(0).integers(0, 256, (5, SIDE_PX, SIDE_PX, 3), dtype=np.uint8)


def prepared(pixels=PIXELS):
    return ((pixels / 255 - [0.5, 0.4, 0.3]) / [0.2, 0.3, 0.4]).astype(np.float32)


@pytest.fixture(scope="module")
def transformer():
    return tiny_encoders.build_transformer()


@pytest.fixture(scope="module")
def tokens(transformer):
    return tiny_encoders.run(transformer, prepared())


@pytest.fixture
def path(transformer, tmp_path):
    return export(transformer, tmp_path / "vit.onnx")


def compute(path, tmp_path, **options):
    source = open_encoder([str(path)], preprocess=options.pop("preprocess", HOW), **options)
    return load_network_function(source.parts, tmp_path)(PIXELS)


@pytest.mark.parametrize(
    "form",
    [
        {},
        {"channels_first": False},
        {"half": True},
        {"half": True, "channels_first": False},
        {"external": True},
        {"shape": (1, 3, SIDE_PX, SIDE_PX)},
        {"shape": (2, SIDE_PX, SIDE_PX, 3), "channels_first": False},
        {"shape": ("batch", "num_channels", "height", "width")},
        {"shape": (None, None, None, None)},
        {"shape": ("n", "h", "w", "channels"), "channels_first": False, "image_input": "x"},
    ],
    ids=str,
)
def test_every_form_of_input_gives_what_a_plain_loop_gives(transformer, tokens, tmp_path, form):
    path = export(transformer, tmp_path / "vit.onnx", **form)
    got = compute(path, tmp_path, backbone_output="last_hidden_state:cls")
    tolerance = 1e-2 if form.get("half") else 1e-4
    np.testing.assert_allclose(got, tokens[:, 0], rtol=tolerance, atol=tolerance)
    assert got.dtype == np.float32


@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
def test_a_layout_that_the_file_does_not_say_is_asked_for(transformer, tokens, tmp_path, layout):
    path = export(
        transformer,
        tmp_path / "vit.onnx",
        channels_first=layout == "nchw",
        shape=("a", "b", "c", "d"),
        image_input="x",
    )
    with pytest.raises(NetworkFileError, match=r"x \['a', 'b', 'c', 'd'\]. Add layout=nchw or"):
        open_network_file(path, HOW)
    got = compute(
        path,
        tmp_path,
        preprocess=f"{HOW},layout={layout}",
        backbone_output="last_hidden_state:mean",
    )
    np.testing.assert_allclose(got, tokens.mean(axis=1), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("extra", "asked", "found"),
    [
        ({"pooler_output": 2}, None, ("pooler_output", "none")),
        ({"pooler_output": 2, "image_embeds": 2}, None, ("image_embeds", "none")),
        ({"pooler_output": 2}, "last_hidden_state:mean", ("last_hidden_state", "mean")),
        ({"a": 2, "b": 2}, "b", ("b", "none")),
        ({}, "last_hidden_state:cls", ("last_hidden_state", "cls")),
    ],
)
def test_the_output_is_found_or_chosen(path, tokens, tmp_path, extra, asked, found):
    add_outputs(path, **extra)
    encoder = open_network_file(path, HOW, asked)
    assert (encoder.output, encoder.pooling) == found
    assert encoder.n_features == N_FEATURES
    want = tokens.mean(axis=1) if found[1] == "mean" else tokens[:, 0]
    np.testing.assert_allclose(
        compute(path, tmp_path, backbone_output=asked), want, rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize(
    ("extra", "asked", "message"),
    [
        ({}, None, "Choose one with .*: last_hidden_state:cls, last_hidden_state:mean$"),
        ({"a": 2}, None, "last_hidden_state:cls, last_hidden_state:mean, a$"),
        ({}, "pooler_output", 'among last_hidden_state:cls, .*, got "pooler_output"'),
        ({}, "last_hidden_state", 'got "last_hidden_state"'),
        ({}, "last_hidden_state:max", 'got "last_hidden_state:max"'),
    ],
)
def test_an_output_that_is_not_clear_is_asked_for(path, extra, asked, message):
    add_outputs(path, **extra)
    with pytest.raises(NetworkFileError, match=message):
        open_network_file(path, HOW, asked)


def test_maps_are_averaged(tmp_path):
    model = tiny_encoders.build_convolutions()
    path = export(model, tmp_path / "conv.onnx")
    assert open_network_file(path, HOW).output == "image_embeds"
    want = compute(path, tmp_path)
    got = compute(path, tmp_path, backbone_output="maps")
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)
    del model.graph.output[1]
    encoder = open_network_file(export(model, path), HOW)
    assert (encoder.output, encoder.pooling) == ("maps", "mean")


def test_what_is_not_said_is_not_guessed(path):
    with pytest.raises(NetworkFileError, match=r"expected preprocessor_config.json beside it"):
        open_network_file(path, None, "last_hidden_state:cls")


def test_a_configuration_beside_the_file_is_read(path, tokens, tmp_path):
    config = {
        "do_resize": True,
        "size": {"height": SIDE_PX, "width": SIDE_PX},
        "resample": 3,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": [0.5, 0.4, 0.3],
        "image_std": [0.2, 0.3, 0.4],
    }
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(config))
    folder = tmp_path / "onnx"
    folder.mkdir()
    for place in (path, path.rename(folder / "vit.onnx")):
        place = place if place.exists() else folder / "vit.onnx"
        options = {"preprocess": None, "backbone_output": "last_hidden_state:cls"}
        got = compute(place, tmp_path, **options)
        np.testing.assert_allclose(got, tokens[:, 0], rtol=1e-4, atol=1e-4)


def test_an_image_size_that_does_not_fit_is_refused(path):
    with pytest.raises(NetworkFileError, match=r"images of 48 pixels .nchw. to fit its input"):
        open_network_file(path, HOW.replace("size=32", "size=48"))
    with pytest.raises(NetworkFileError, match=r"images of 32 pixels .nhwc. to fit its input"):
        open_network_file(path, f"{HOW},layout=nhwc")
    with pytest.raises(BackboneError, match="expected images of 32 pixels"):
        open_encoder(
            [str(path)], size_px=64, preprocess=HOW, backbone_output="last_hidden_state:cls"
        )


def write_graph(path, inputs, outputs=(("y", TensorProto.FLOAT, [1, 2]),)):
    values = [helper.make_tensor_value_info(*value) for value in inputs]
    results = [helper.make_tensor_value_info(*value) for value in outputs]
    constant = helper.make_node("ConstantOfShape", ["shape"], [outputs[0][0]], name="constant")
    sizes = outputs[0][2]
    shape = helper.make_tensor("shape", TensorProto.INT64, [len(sizes)], sizes)
    graph = helper.make_graph([constant], "g", values, results, [shape])
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), path)
    return path


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (
            [
                ("input_ids", TensorProto.INT64, ["n", 77]),
                ("pixel_values", TensorProto.FLOAT, ["n", 3, 32, 32]),
            ],
            r"one that wants text too \(input_ids\)",
        ),
        ([("x", TensorProto.FLOAT, ["n", 10])], "expected one input, images of floats"),
        ([("x", TensorProto.INT64, ["n", 3, 32, 32])], "expected one input, images of floats"),
        ([], "expected one input, .* got none"),
    ],
)
def test_networks_that_want_something_else_are_refused(tmp_path, inputs, message):
    path = write_graph(tmp_path / "other.onnx", inputs)
    with pytest.raises(NetworkFileError, match=message):
        open_network_file(path, HOW)


def test_a_network_without_vectors_is_refused(tmp_path):
    image = ("x", TensorProto.FLOAT, ["n", 3, 32, 32])
    path = write_graph(tmp_path / "o.onnx", [image], [("y", TensorProto.FLOAT, [1] * 5)])
    with pytest.raises(NetworkFileError, match="expected an output of vectors, tokens or maps"):
        open_network_file(path, HOW)


@pytest.mark.parametrize("content", [b"", b"no network at all", b"\x89PNG\r\n\x1a\n" * 20])
def test_a_file_that_is_not_onnx_is_refused(tmp_path, content):
    path = tmp_path / "x.onnx"
    path.write_bytes(content)
    with pytest.raises(NetworkFileError, match=r"x.onnx: expected an ONNX file"):
        open_network_file(path, HOW)
    with pytest.raises(BackboneError, match=r"gone.onnx: expected an ONNX file, there is none"):
        open_encoder([str(tmp_path / "gone.onnx")])


def test_data_in_other_files_is_part_of_the_identity(transformer, tmp_path):
    path = export(transformer, tmp_path / "vit.onnx", external=True)
    before = network_sha256(path)
    data = tmp_path / "weights.bin"
    content = bytearray(data.read_bytes())
    content[100] ^= 1
    data.write_bytes(content)
    assert network_sha256(path) != before
    data.unlink()
    with pytest.raises(NetworkFileError, match=r"expected its data in weights.bin beside it"):
        open_network_file(path, HOW)


@pytest.fixture
def load(toy_competition, tmp_path):
    def load(source):
        names = [f"p{number:02}.png" for number in range(10)]
        files = open_images(toy_competition.images, names)
        with FeatureStore(tmp_path / "store") as store:
            return source.load(files, store)

    return load


def test_stored_features_need_no_file(path, load, tmp_path):
    source = open_encoder([str(path)], preprocess=HOW, backbone_output="last_hidden_state:cls")
    features = load(source).features
    assert np.isfinite(features).all()
    record = EncoderRecord(**json.loads(json.dumps(source.record._asdict())))
    again = open_recorded_encoder(record, tmp_path / "m")
    assert again.facts == source.facts
    assert again.parts[0].backbone == source.parts[0].backbone
    moved = path.rename(tmp_path / "moved.onnx")
    np.testing.assert_array_equal(load(again).features, features)
    assert load(again).n_computed == 0
    # The same file under another name is the same encoder.
    renamed = open_encoder([str(moved)], preprocess=HOW, backbone_output="last_hidden_state:cls")
    assert renamed.fingerprint == source.fingerprint
    assert (
        open_recorded_encoder(record, tmp_path / "m", weights={None: moved}).parts[0].find_weights()
    )
    moved.write_bytes(moved.read_bytes() + b"\n")
    with pytest.raises((WeightsError, NetworkFileError)):
        open_recorded_encoder(record, tmp_path / "m", weights={None: moved}).parts[0].find_weights()


def test_every_fact_makes_other_features(path):
    facts = {
        open_encoder([str(path)], preprocess=how, backbone_output=output).fingerprint
        for how in (
            HOW,
            HOW.replace("bicubic", "bilinear"),
            HOW.replace("0.3,", "0.31,"),
            HOW.replace(":0.4", ":0.41"),
            HOW.replace("size=32", "size=40,crop=32"),
            f"{HOW},scale=2",
        )
        for output in ("last_hidden_state:cls", "last_hidden_state:mean")
    }
    assert len(facts) == 12


def test_crops_of_an_encoder_that_crops_itself_are_refused(path):
    how = HOW.replace("size=32", "size=40,crop=32")
    options = {"preprocess": how, "backbone_output": "last_hidden_state:cls"}
    open_encoder([str(path)], views=["flip"], **options)
    with pytest.raises(SettingsError, match="its preprocessing cuts the middle itself"):
        open_encoder([str(path)], views=["five-crop"], **options)


def test_what_is_for_files_is_refused_for_registered_backbones(tiny_backbone):
    with pytest.raises(SettingsError, match="are for encoders from ONNX files"):
        open_encoder(["tiny"], preprocess=HOW)

"""Encoders from files, as people export them, beside a plain loop of ONNX Runtime; or refused."""

from __future__ import annotations

import json

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from tripletkit import TripletkitError
from tripletkit.features.encoder import open_encoder
from tripletkit.features.exported_networks import load_network_function
from tripletkit.features.onnx_engine import open_session, run_network

HOW = "size=56,resample=bicubic,mean=0.5:0.4:0.3,std=0.2:0.3:0.4"
WIDTH, N = 16, 12
PIXELS = np.random.default_rng(1).integers(0, 256, (5, 56, 56, 3), dtype=np.uint8)


def write(
    path,
    *,
    kind=TensorProto.FLOAT,
    shape=("n", 3, "h", "w"),
    first=(),
    last=(),
    output="pooler_output",
    further=(),
    **values,
):
    """Write patches, a sum over them and a matrix: `(n, 3, h, w)` -> `(n, 12)`.

    Args:
        first, last: nodes from `x` to `pixels`, and from `pooled` to the output.
        further: nodes and outputs beside.
        values: constants of these.
    """
    rng = np.random.default_rng(7)
    constants = {
        "patches": (rng.standard_normal((WIDTH, 3, 14, 14)) * 0.05).astype("f4"),
        "out": rng.standard_normal((WIDTH, N)).astype("f4"),
        "places": np.array([2, 3]),
        **values,
    }
    nodes = [
        *(first or [helper.make_node("Identity", ["x"], ["pixels"])]),
        helper.make_node("Conv", ["pixels", "patches"], ["maps"], strides=[14, 14]),
        helper.make_node("Relu", ["maps"], ["active"]),
        helper.make_node("ReduceMean", ["active", "places"], ["mean"], keepdims=0),
        helper.make_node("MatMul", ["mean", "out"], ["pooled"]),
        *(last or [helper.make_node("Identity", ["pooled"], [output])]),
        *(node for node, _ in further),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", kind, shape)],
        [
            helper.make_tensor_value_info(output, TensorProto.FLOAT, ["n", None]),
            *(value for _, value in further),
        ],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    opset = [helper.make_opsetid("", 18)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), path)
    return path


def plain(path, pixels=PIXELS, dtype=np.float32, output="pooler_output", is_scaled=True):
    """Run a file image by image, as its author would."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    rows = []
    for image in pixels:
        scaled = (image / 255 - [0.5, 0.4, 0.3]) / [0.2, 0.3, 0.4] if is_scaled else image
        batch = scaled.transpose(2, 0, 1)[None].astype(dtype)
        rows.append(session.run([output], {"x": batch})[0].reshape(-1))
    return np.array(rows)


def compute(path, folder, preprocess=HOW, **options):
    encoder = open_encoder([str(path)], preprocess=preprocess, **options)
    return load_network_function(encoder.parts, folder)(PIXELS)


def node(kind, inputs, outputs, **attributes):
    return helper.make_node(kind, inputs, outputs, **attributes)


def test_dynamic_sizes_and_external_data(tmp_path):
    path = write(tmp_path / "m.onnx")
    np.testing.assert_allclose(compute(path, tmp_path), plain(path), rtol=1e-5, atol=1e-6)
    onnx.save(
        onnx.load(path),
        tmp_path / "e.onnx",
        save_as_external_data=True,
        location="e.data",
        size_threshold=100,
    )
    got = compute(tmp_path / "e.onnx", tmp_path)
    np.testing.assert_allclose(got, plain(path), rtol=1e-5, atol=1e-6)


def test_a_batch_of_one_that_is_said_or_written_in_is_run_one_by_one(tmp_path):
    said = write(tmp_path / "said.onnx", shape=(1, 3, 56, 56))
    np.testing.assert_allclose(compute(said, tmp_path), plain(said), rtol=1e-5, atol=1e-6)
    # Fails on two images.
    written = write(
        tmp_path / "written.onnx",
        first=[node("Reshape", ["x", "one"], ["pixels"])],
        one=np.array([1, 3, 56, 56]),
    )
    np.testing.assert_allclose(compute(written, tmp_path), plain(written), rtol=1e-5, atol=1e-6)
    # Gives one row for all of them.
    row = write(
        tmp_path / "row.onnx",
        last=[
            node("Reshape", ["pooled", "one"], ["tokens"]),
            node("ReduceMean", ["tokens", "axis"], ["pooler_output"], keepdims=0),
        ],
        one=np.array([1, -1, N]),
        axis=np.array([1]),
    )
    np.testing.assert_allclose(compute(row, tmp_path), plain(row), rtol=1e-5, atol=1e-6)


def test_half_precision(tmp_path):
    path = write(
        tmp_path / "half.onnx",
        kind=TensorProto.FLOAT16,
        first=[node("Cast", ["x"], ["pixels"], to=TensorProto.FLOAT)],
    )
    want = plain(path, dtype=np.float16)
    np.testing.assert_allclose(compute(path, tmp_path), want, rtol=1e-2, atol=1e-2)


def test_dynamic_quantisation_is_run_one_by_one(tmp_path):
    """Its scale is that of a whole batch, so that company would change a vector."""
    from onnxruntime.quantization import quantize_dynamic

    quantize_dynamic(write(tmp_path / "m.onnx"), tmp_path / "int8.onnx")
    got = compute(tmp_path / "int8.onnx", tmp_path)
    np.testing.assert_allclose(got, plain(tmp_path / "int8.onnx"), rtol=1e-5, atol=1e-6)


def test_whole_pixels_and_scaling_inside(tmp_path):
    scaling = [
        node("Cast", ["x"], ["float"], to=TensorProto.FLOAT),
        node("Div", ["float", "full"], ["pixels"]),
    ]
    full = np.array(255, "f4")
    path = write(tmp_path / "u8.onnx", kind=TensorProto.UINT8, first=scaling, full=full)
    how = "size=56,resample=bicubic"
    want = plain(path, dtype=np.uint8, is_scaled=False)
    np.testing.assert_allclose(compute(path, tmp_path, how), want, rtol=1e-5, atol=1e-6)
    with pytest.raises(TripletkitError, match=r"scales them by itself; leave out mean, std"):
        compute(path, tmp_path, HOW)
    config = {"size": 56, "image_processor_type": "ViTImageProcessor"}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(config))
    np.testing.assert_allclose(compute(path, tmp_path, None), want, rtol=1e-5, atol=1e-6)
    floats = write(tmp_path / "f.onnx", first=scaling, full=full)
    got = compute(floats, tmp_path, how + ",scale=255")
    np.testing.assert_allclose(got, plain(floats, is_scaled=False), rtol=1e-5, atol=1e-6)


def test_channels_in_other_orders_and_gray(tmp_path):
    path = write(tmp_path / "m.onnx")
    got = compute(path, tmp_path, "size=56,resample=bicubic,mean=0,std=1,channels=bgr")
    want = plain(path, PIXELS[..., ::-1] / 255, is_scaled=False)
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)
    gray = write(
        tmp_path / "gray.onnx",
        shape=("n", 1, 56, 56),
        first=[node("Concat", ["x", "x", "x"], ["pixels"], axis=1)],
    )
    with pytest.raises(TripletkitError, match="channels=gray"):
        compute(gray, tmp_path)
    from PIL import Image

    as_gray = np.stack([np.asarray(Image.fromarray(image).convert("L")) for image in PIXELS])
    got = compute(gray, tmp_path, "size=56,resample=bicubic,mean=0,std=1,channels=gray")
    want = plain(gray, as_gray[..., None] / 255, is_scaled=False)
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)


def test_outputs_by_name_and_those_of_a_classifier(tmp_path):
    value = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", N])
    further = [(node("Neg", ["pooled"], ["logits"]), value)]
    path = write(tmp_path / "two.onnx", output="vector", further=further)
    np.testing.assert_allclose(
        compute(path, tmp_path), plain(path, output="vector"), rtol=1e-5, atol=1e-6
    )
    got = compute(path, tmp_path, backbone_output="logits")
    np.testing.assert_allclose(got, -plain(path, output="vector"), rtol=1e-5, atol=1e-6)
    for name, last, why in (
        ("softmax", [node("Softmax", ["pooled"], ["y"])], "12 numbers between 0 and 1 that sum"),
        ("log", [node("LogSoftmax", ["pooled"], ["y"])], "the logarithms of 12 numbers"),
        ("sigmoid", [node("Sigmoid", ["pooled"], ["y"])], "12 numbers behind a layer Sigmoid"),
        (
            "thousand",
            [node("MatMul", ["pooled", "classes"], ["y"])],
            "1000 numbers, as many as ImageNet has classes",
        ),
    ):
        classes = np.random.default_rng(0).standard_normal((N, 1000)).astype("f4")
        path = write(tmp_path / f"{name}.onnx", output="y", last=last, classes=classes)
        with pytest.raises(TripletkitError, match=f"classifier's answer, not features: {why}"):
            compute(path, tmp_path)
        taken = compute(path, tmp_path, backbone_output="y")
        np.testing.assert_allclose(taken, plain(path, output="y"), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("last", "message"),
    [
        (
            [
                node("ReduceMean", ["pooled", "axis"], ["average"], keepdims=1),
                node("Sub", ["pooled", "average"], ["pooler_output"]),
            ],
            "other numbers for an image alone than among others",
        ),
        (
            [node("ReduceMean", ["pooled", "axis"], ["pooler_output"], keepdims=1)],
            "got 1 for 2. It mixes the images of a batch",
        ),
        (
            [
                node("RandomNormalLike", ["pooled"], ["noise"], scale=0.01),
                node("Add", ["pooled", "noise"], ["pooler_output"]),
            ],
            "other numbers for the same image when it is asked again",
        ),
        ([node("Mul", ["pooled", "none"], ["pooler_output"])], "same numbers for two different"),
        ([node("Div", ["pooled", "none"], ["pooler_output"])], "expected finite numbers"),
    ],
    ids=["batch", "mean", "random", "constant", "infinite"],
)
def test_what_depends_on_more_than_the_image_is_refused(tmp_path, last, message):
    path = write(tmp_path / "bad.onnx", last=last, axis=np.array([0]), none=np.array(0, np.float32))
    with pytest.raises(TripletkitError, match=message) as caught:
        compute(path, tmp_path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_a_size_that_it_was_not_exported_for_is_told(tmp_path):
    path = write(
        tmp_path / "m.onnx",
        last=[
            node("Reshape", ["active", "rows"], ["flat"]),
            node("MatMul", ["flat", "table"], ["pooler_output"]),
        ],
        rows=np.array([0, -1]),
        table=np.random.default_rng(0).standard_normal((WIDTH * 16 * 16, N)).astype("f4"),
    )
    with pytest.raises(TripletkitError, match="exported for images of 224 pixels") as caught:
        compute(path, tmp_path)
    assert "\n" not in str(caught.value)
    open_encoder([str(path)], preprocess=HOW.replace("size=56", "size=224"))


def test_a_run_has_a_bound_in_time_and_memory(tmp_path):
    endless = helper.make_graph(
        [node("Identity", ["go"], ["on"]), node("Add", ["total", "total"], ["more"])],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("total", TensorProto.FLOAT, None),
        ],
        [
            helper.make_tensor_value_info("on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("more", TensorProto.FLOAT, None),
        ],
    )
    path = write(
        tmp_path / "endless.onnx",
        last=[node("Loop", ["", "true", "pooled"], ["pooler_output"], body=endless)],
        true=np.array(True),
    )
    image = {"x": np.zeros((1, 3, 56, 56), np.float32)}
    with pytest.raises(TripletkitError, match=r"endless.onnx: took longer than 0.5 s"):
        run_network(open_session(path), None, image, str(path), 0.5)
    large = write(
        tmp_path / "large.onnx",
        last=[
            node("Expand", ["pooled", "wide"], ["huge"]),
            node("ReduceMax", ["huge", "axis"], ["pooler_output"], keepdims=0),
        ],
        wide=np.array([1 << 37, 1, N]),
        axis=np.array([0]),
    )
    with pytest.raises(TripletkitError, match="takes more memory than there is"):
        compute(large, tmp_path)

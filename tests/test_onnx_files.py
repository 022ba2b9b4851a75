"""Encoders from ONNX files, as people export them, beside a plain loop; or refused."""

from __future__ import annotations

import json

import numpy as np
import onnx
import onnxruntime
import pytest
import tiny_encoders
from onnx import numpy_helper
from PIL import Image
from tiny_encoders import N_FEATURES, SIDE_PX, export

from tripletkit import TripletkitError, open_images
from tripletkit.errors import BackboneError, SettingsError
from tripletkit.features.encoder import open_encoder, open_recorded_encoder
from tripletkit.features.onnx_engine import open_session, run_network
from tripletkit.features.store import FeatureStore

SCALES = "mean=0.5:0.4:0.3,std=0.2:0.3:0.4"
HOW = f"size={SIDE_PX},resample=bicubic,{SCALES}"
PIXELS = np.random.default_rng(0).integers(0, 256, (5, SIDE_PX, SIDE_PX, 3), dtype=np.uint8)
CLS = {"backbone_output": "last_hidden_state:cls"}


def scale(pixels):
    return ((pixels / 255 - [0.5, 0.4, 0.3]) / [0.2, 0.3, 0.4]).astype(np.float32)


@pytest.fixture(scope="module")
def transformer():
    return tiny_encoders.build_transformer()


@pytest.fixture(scope="module")
def tokens(transformer):
    return tiny_encoders.run(transformer, scale(PIXELS))


@pytest.fixture
def path(transformer, tmp_path):
    return export(transformer, tmp_path / "vit.onnx")


def open_file(path, preprocess=HOW, **options):
    return open_encoder([str(path)], preprocess=preprocess, **options)


def compute(path, preprocess=HOW, pixels=PIXELS, **options):
    (function,) = open_file(path, preprocess, **options).network_functions(path.parent)
    return function(pixels)


def add_outputs(path, names):
    """Give a file further outputs, each of the first token."""
    made = onnx.load(path)
    made.graph.initializer.append(numpy_helper.from_array(np.array(0), "first"))
    for name in names:
        more = onnx.parser.parse_graph(
            f"g (float[n, m, k] last_hidden_state) => (float[n, k] {name}) "
            f"{{ {name} = Gather<axis=1>(last_hidden_state, first) }}"
        )
        made.graph.node.extend(more.node)
        made.graph.output.extend(more.output)
    onnx.save(made, path)


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
    got = compute(export(transformer, tmp_path / "vit.onnx", **form), **CLS)
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
    with pytest.raises(TripletkitError, match=r"x \['a', 'b', 'c', 'd'\]. Add layout=nchw or"):
        open_file(path)
    got = compute(path, f"{HOW},layout={layout}", backbone_output="last_hidden_state:mean")
    np.testing.assert_allclose(got, tokens.mean(axis=1), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("extra", "asked", "found"),
    [
        (["pooler_output"], None, ("pooler_output", "none")),
        (["pooler_output", "image_embeds"], None, ("image_embeds", "none")),
        (["pooler_output"], "last_hidden_state:mean", ("last_hidden_state", "mean")),
        (["a", "b"], "b", ("b", "none")),
        ([], "last_hidden_state:cls", ("last_hidden_state", "cls")),
    ],
)
def test_the_output_is_found_or_chosen(path, tokens, extra, asked, found):
    add_outputs(path, extra)
    facts = open_file(path, backbone_output=asked).facts
    assert (facts["output"], facts["pooling"], facts["n_features"]) == (*found, N_FEATURES)
    want = tokens.mean(axis=1) if found[1] == "mean" else tokens[:, 0]
    np.testing.assert_allclose(compute(path, backbone_output=asked), want, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("extra", "asked", "message"),
    [
        ([], None, "Choose one with .*: last_hidden_state:cls, last_hidden_state:mean$"),
        (["a"], None, "last_hidden_state:cls, last_hidden_state:mean, a$"),
        ([], "pooler_output", 'among last_hidden_state:cls, .*, got "pooler_output"'),
        ([], "last_hidden_state", 'got "last_hidden_state"'),
        ([], "last_hidden_state:max", 'got "last_hidden_state:max"'),
    ],
)
def test_an_output_that_is_not_clear_is_asked_for(path, extra, asked, message):
    add_outputs(path, extra)
    with pytest.raises(TripletkitError, match=message):
        open_file(path, backbone_output=asked)


def test_maps_are_averaged(tmp_path):
    model = tiny_encoders.build_convolutions()
    path = export(model, tmp_path / "conv.onnx")
    assert open_file(path).facts["output"] == "image_embeds"
    want = compute(path)
    np.testing.assert_allclose(compute(path, backbone_output="maps"), want, rtol=1e-5, atol=1e-6)
    del model.graph.output[1]
    facts = open_file(export(model, path)).facts
    assert (facts["output"], facts["pooling"]) == ("maps", "mean")


def test_a_configuration_beside_the_file_is_read_and_nothing_is_guessed(path, tokens, tmp_path):
    with pytest.raises(TripletkitError, match=r"expected preprocessor_config.json beside it"):
        open_file(path, None, **CLS)
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
    np.testing.assert_allclose(compute(path, None, **CLS), tokens[:, 0], rtol=1e-4, atol=1e-4)
    (tmp_path / "onnx").mkdir()
    path = path.rename(tmp_path / "onnx" / "vit.onnx")
    np.testing.assert_allclose(compute(path, None, **CLS), tokens[:, 0], rtol=1e-4, atol=1e-4)


def test_an_image_size_that_does_not_fit_is_refused(path):
    for how, options, message in (
        (HOW.replace("size=32", "size=48"), {}, r"images of 48 pixels .nchw. to fit its input"),
        (f"{HOW},layout=nhwc", {}, r"images of 32 pixels .nhwc. to fit its input"),
        (HOW, {"size_px": 64}, "expected images of 32 pixels"),
    ):
        with pytest.raises(TripletkitError, match=message):
            open_file(path, how, **CLS, **options)


def test_data_in_other_files_is_part_of_the_identity(transformer, tmp_path):
    path = export(transformer, tmp_path / "vit.onnx", external=True)
    before = open_file(path, **CLS).fingerprint
    data = tmp_path / "weights.bin"
    content = bytearray(data.read_bytes())
    content[100] ^= 1
    data.write_bytes(content)
    assert open_file(path, **CLS).fingerprint != before
    data.unlink()
    with pytest.raises(TripletkitError, match=r"expected its data in weights.bin beside it"):
        open_file(path)


def test_stored_features_need_no_file(path, toy_competition, tmp_path):
    images = open_images(toy_competition.images, [f"p{number:02}.png" for number in range(10)])

    def load(encoder):
        with FeatureStore(tmp_path / "store") as store:
            return encoder.load(images, store)

    source = open_file(path, **CLS)
    features = load(source).features
    assert np.isfinite(features).all()
    record = (json.loads(json.dumps(source.facts)), source.weights_files, source.n_features)
    again = open_recorded_encoder(*record, tmp_path / "m")
    assert again.facts == source.facts
    assert again.parts[0].backbone == source.parts[0].backbone
    moved = path.rename(tmp_path / "moved.onnx")
    np.testing.assert_array_equal(load(again).features, features)
    assert load(again).n_computed == 0
    # The same file under another name is the same encoder.
    assert open_file(moved, **CLS).fingerprint == source.fingerprint
    (part,) = open_recorded_encoder(*record, tmp_path / "m", weights={None: moved}).parts
    assert part.find_weights() == moved
    moved.write_bytes(moved.read_bytes() + b"\n")
    with pytest.raises(TripletkitError):
        part.find_weights()


def test_every_fact_makes_other_features(path):
    facts = {
        open_file(path, how, backbone_output=output).fingerprint
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


def test_what_does_not_go_together_is_refused(path, tiny_backbone, tmp_path):
    how = HOW.replace("size=32", "size=40,crop=32")
    open_file(path, how, views=["flip"], **CLS)
    with pytest.raises(SettingsError, match="its preprocessing cuts the middle itself"):
        open_file(path, how, views=["five-crop"], **CLS)
    with pytest.raises(SettingsError, match="are for encoders from ONNX files"):
        open_encoder(["tiny"], preprocess=HOW)
    with pytest.raises(BackboneError, match=r"gone.onnx: expected an ONNX file, there is none"):
        open_file(tmp_path / "gone.onnx")


@pytest.mark.parametrize("content", [b"", b"no network at all", b"\x89PNG\r\n\x1a\n" * 20])
def test_a_file_that_is_not_onnx_is_refused(tmp_path, content):
    (tmp_path / "x.onnx").write_bytes(content)
    with pytest.raises(TripletkitError, match=r"x.onnx: expected an ONNX file"):
        open_file(tmp_path / "x.onnx")


SMALL = f"size=56,resample=bicubic,{SCALES}"
WIDTH, N = 16, 12
SMALL_PIXELS = np.random.default_rng(1).integers(0, 256, (5, 56, 56, 3), dtype=np.uint8)


def write(
    path,
    *,
    inputs="float[n, 3, h, w] x",
    first="pixels = Identity(x)",
    last="pooler_output = Identity(pooled)",
    outputs="float[n, m] pooler_output",
    **values,
):
    """Write patches, a sum over them and a matrix: `(n, 3, h, w)` -> `(n, 12)`.

    `first` and `last` lead from `x` to `pixels` and from `pooled` to the outputs; `values` are
    constants.
    """
    rng = np.random.default_rng(7)
    constants = {
        "patches": (rng.standard_normal((WIDTH, 3, 14, 14)) * 0.05).astype("f4"),
        "out": rng.standard_normal((WIDTH, N)).astype("f4"),
        "places": np.array([2, 3]),
        **values,
    }
    model = onnx.parser.parse_model(f"""
        <ir_version: 8, opset_import: ["": 18]>
        g ({inputs}) => ({outputs}) {{
            {first}
            maps = Conv<strides=[14, 14]>(pixels, patches)
            active = Relu(maps)
            mean = ReduceMean<keepdims=0>(active, places)
            pooled = MatMul(mean, out)
            {last}
        }}""")
    model.graph.initializer.extend(
        numpy_helper.from_array(value, name) for name, value in constants.items()
    )
    onnx.save(model, path)
    return path


def check(path, pixels=SMALL_PIXELS, how=SMALL, *, dtype=np.float32, output=None, sign=1):
    """Compare with a run image by image, as the file's author would, of pixels already scaled."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    scaled = scale(pixels) if how == SMALL else pixels
    rows = [
        session.run(None, {"x": image.transpose(2, 0, 1)[None].astype(dtype)})[0].reshape(-1)
        for image in scaled
    ]
    got = compute(path, how, SMALL_PIXELS, backbone_output=output)
    np.testing.assert_allclose(got, sign * np.array(rows), rtol=1e-5, atol=1e-6)


def test_what_fails_on_several_images_or_mixes_them_is_run_one_by_one(tmp_path):
    # Fails on two images.
    reshape = "pixels = Reshape(x, one)"
    check(write(tmp_path / "written.onnx", first=reshape, one=np.array([1, 3, 56, 56])))
    # Gives one row for all of them.
    last = """tokens = Reshape(pooled, one)
        pooler_output = ReduceMean<keepdims=0>(tokens, axis)"""
    one, axis = np.array([1, -1, N]), np.array([1])
    check(write(tmp_path / "row.onnx", last=last, one=one, axis=axis))
    last = "pooler_output = ReduceMean<keepdims=1>(pooled, axis)"
    check(write(tmp_path / "mean.onnx", last=last, axis=np.array([0])))


def test_dynamic_quantisation_is_run_one_by_one(tmp_path):
    """Its scale is that of a whole batch, so that company would change a vector."""
    from onnxruntime.quantization import quantize_dynamic

    quantize_dynamic(write(tmp_path / "m.onnx"), tmp_path / "int8.onnx")
    check(tmp_path / "int8.onnx")


def test_whole_pixels_and_scaling_inside(tmp_path):
    scaling = """float = Cast<to=1>(x)
        pixels = Div(float, full)"""
    full = np.array(255, "f4")
    path = write(tmp_path / "u8.onnx", inputs="uint8[n, 3, h, w] x", first=scaling, full=full)
    how = "size=56,resample=bicubic"
    check(path, how=how, dtype=np.uint8)
    with pytest.raises(TripletkitError, match=r"scales them by itself; leave out mean, std"):
        open_file(path, SMALL)
    config = {"size": 56, "image_processor_type": "ViTImageProcessor"}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(config))
    check(path, how=None, dtype=np.uint8)
    check(write(tmp_path / "f.onnx", first=scaling, full=full), how=f"{how},scale=255")


def test_channels_in_other_orders_and_gray(tmp_path):
    how = "size=56,resample=bicubic,mean=0,std=1,channels="
    check(write(tmp_path / "m.onnx"), SMALL_PIXELS[..., ::-1] / 255, f"{how}bgr")
    joined = "pixels = Concat<axis=1>(x, x, x)"
    gray = write(tmp_path / "gray.onnx", inputs="float[n, 1, 56, 56] x", first=joined)
    with pytest.raises(TripletkitError, match="channels=gray"):
        open_file(gray, SMALL)
    as_gray = [np.asarray(Image.fromarray(image).convert("L")) for image in SMALL_PIXELS]
    check(gray, np.stack(as_gray)[..., None] / 255, f"{how}gray")


@pytest.mark.parametrize(
    ("last", "why"),
    [
        ("Softmax(pooled)", "12 numbers between 0 and 1 that sum"),
        ("LogSoftmax(pooled)", "the logarithms of 12 numbers"),
        ("Sigmoid(pooled)", "12 numbers behind a layer Sigmoid"),
        ("MatMul(pooled, classes)", "1000 numbers, as many as ImageNet has classes"),
    ],
)
def test_the_answer_of_a_classifier_is_taken_only_where_it_is_named(tmp_path, last, why):
    classes = np.random.default_rng(0).standard_normal((N, 1000)).astype("f4")
    how = {"outputs": "float[n, m] y", "last": f"y = {last}", "classes": classes}
    path = write(tmp_path / "c.onnx", **how)
    with pytest.raises(TripletkitError, match=f"classifier's answer, not features: {why}"):
        open_file(path, SMALL)
    check(path, output="y")


def test_logits_beside_features_are_left(tmp_path):
    last = """vector = Identity(pooled)
        logits = Neg(pooled)"""
    outputs = f"float[n, m] vector, float[n, {N}] logits"
    path = write(tmp_path / "two.onnx", outputs=outputs, last=last)
    check(path)
    check(path, output="logits", sign=-1)


UNREAD = "pixels = ConstantOfShape(sizes)"


@pytest.mark.parametrize(
    ("form", "message"),
    [
        (
            {"inputs": "float[n, 3, h, w] x, int64[n, 77] input_ids"},
            r"one that wants text too \(input_ids\)",
        ),
        ({"inputs": "float[n, 10] x", "first": UNREAD}, "expected one input, images of floats"),
        (
            {"inputs": "int64[n, 3, h, w] x", "first": UNREAD},
            "expected one input, images of floats",
        ),
        (
            {
                "last": "pooler_output = Unsqueeze(active, places)",
                "outputs": "float[n, a, b, c, d, e] pooler_output",
            },
            "expected an output of vectors, tokens or maps",
        ),
        (
            {
                "last": """average = ReduceMean<keepdims=1>(pooled, axis)
                pooler_output = Sub(pooled, average)"""
            },
            "other numbers for an image alone than among others",
        ),
        (
            {
                "last": """noise = RandomNormalLike<scale=0.01>(pooled)
                pooler_output = Add(pooled, noise)"""
            },
            "other numbers for the same image when it is asked again",
        ),
        ({"last": "pooler_output = Mul(pooled, none)"}, "same numbers for two different"),
        ({"last": "pooler_output = Div(pooled, none)"}, "expected finite numbers"),
        (
            {
                "last": """flat = Reshape(active, rows)
                pooler_output = MatMul(flat, table)"""
            },
            "exported for images of 224 pixels",
        ),
        (
            {
                "last": """huge = Expand(pooled, wide)
                pooler_output = ReduceMax<keepdims=0>(huge, axis)"""
            },
            "takes more memory than there is",
        ),
    ],
    ids=str,
)
def test_what_is_no_encoder_of_single_images_is_refused_in_a_line(tmp_path, form, message):
    """Also one that was exported for images of another size, or takes too much memory."""
    path = write(
        tmp_path / "bad.onnx",
        axis=np.array([0]),
        sizes=np.array([1, 3, 56, 56]),
        none=np.array(0, np.float32),
        rows=np.array([0, -1]),
        table=np.random.default_rng(0).standard_normal((WIDTH * 16 * 16, N)).astype("f4"),
        wide=np.array([1 << 37, 1, N]),
        **form,
    )
    with pytest.raises(TripletkitError, match=message) as caught:
        open_file(path, SMALL)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_a_run_has_a_bound_in_time(tmp_path):
    last = """pooler_output = Loop<body = b (int64 i, bool go, float[] total)
        => (bool on, float[] more) { on = Identity(go)  more = Add(total, total) }>
        ("", true, pooled)"""
    path = write(tmp_path / "endless.onnx", last=last, true=np.array(True))
    image = {"x": np.zeros((1, 3, 56, 56), np.float32)}
    with pytest.raises(TripletkitError, match=r"endless.onnx: took longer than 0.5 s"):
        run_network(open_session(path), None, image, str(path), 0.5)

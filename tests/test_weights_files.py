"""Weights files of either form load, and others are refused by the first layer that differs."""

from __future__ import annotations

import h5py
import keras
import numpy as np
import pytest
from keras.src.legacy.saving.legacy_h5_format import save_weights_to_hdf5_group

from tripletkit.errors import WeightsError
from tripletkit.features.weights_files import file_sha256, load_weights_file

NEW, OLD = "w.weights.h5", "w.h5"


def build(*, filters=4, last=5, n_blocks=2, top=False, seed=0):
    """Return a small model with the layers that come in pairs, so that their order counts."""
    keras.utils.set_random_seed(seed)
    image = keras.Input((8, 8, 3))
    x = image
    for number in range(n_blocks):
        x = keras.layers.Conv2D(filters, 3, use_bias=False, name=f"conv{number}")(x)
        x = keras.layers.BatchNormalization(name=f"norm{number}")(x)
        x = keras.layers.ReLU(name=f"relu{number}")(x)
    x = keras.layers.DepthwiseConv2D(2, name="depthwise")(x)
    x = keras.layers.Conv2D(last, 1, name="last")(x)
    x = keras.layers.GlobalAveragePooling2D(name="avg_pool")(x)
    if top:
        x = keras.layers.Dense(7, name="predictions")(x)
    model = keras.Model(image, x, name="small")
    rng = np.random.default_rng(seed)
    model.set_weights([rng.uniform(0.1, 1, value.shape) for value in model.get_weights()])
    return model


def save(model, path):
    """Write the new form to a `.weights.h5`, else the old one, which Keras 3 only reads."""
    if path.name == NEW:
        model.save_weights(path)
    else:
        with h5py.File(path, "w") as file:
            save_weights_to_hdf5_group(file, model)


def assert_same_weights(model, other):
    for one, two in zip(model.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize("name", [NEW, OLD])
def test_a_file_of_either_form_loads(tmp_path, name):
    model = build(seed=1)
    save(model, tmp_path / name)
    other = build(seed=2)
    load_weights_file(other, tmp_path / name)
    assert_same_weights(model, other)


@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file")
def test_a_whole_model_in_the_old_form_loads(tmp_path):
    model = build(seed=1)
    model.save(tmp_path / "model.h5")
    other = build(seed=2)
    load_weights_file(other, tmp_path / "model.h5")
    assert_same_weights(model, other)


@pytest.mark.parametrize("name", ["download", "w.hdf5", "w.h5.part", "new.h5"])
def test_a_file_loads_under_any_name(tmp_path, name):
    model = build(seed=1)
    form = NEW if name == "new.h5" else OLD
    save(model, tmp_path / form)
    (tmp_path / form).rename(tmp_path / name)
    other = build(seed=2)
    load_weights_file(other, tmp_path / name)
    assert_same_weights(model, other)


@pytest.mark.parametrize("name", [NEW, OLD])
@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"last": 6}, r"last.* shape.*6"),
        ({"filters": 6}, r"conv0.* shape"),
        ({"top": True}, r"for small, without the classifier \(a .notop. file\)"),
        ({"n_blocks": 3}, "for small"),
        ({"n_blocks": 1}, "for small"),
    ],
)
def test_a_file_that_does_not_fit_names_the_layer(tmp_path, name, other, message):
    path = tmp_path / name
    save(build(**other), path)
    with pytest.raises(WeightsError, match=message) as caught:
        load_weights_file(build(seed=4), path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


@pytest.mark.slow
@pytest.mark.parametrize("name", [NEW, OLD])
def test_a_file_that_is_cut_off_is_refused(tmp_path, name):
    path = tmp_path / name
    save(build(), path)
    whole = path.read_bytes()
    for n_bytes in (0, 1, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:n_bytes])
        with pytest.raises(WeightsError, match=name):
            load_weights_file(build(), path)


def test_a_file_that_is_not_hdf5_is_refused(tmp_path):
    path = tmp_path / "w.h5"
    path.write_text("<html>404</html>")
    with pytest.raises(WeightsError, match=r"w\.h5: expected a Keras weights file \(HDF5\)"):
        load_weights_file(build(), path)


def test_the_hash_of_a_missing_file_says_so(tmp_path):
    with pytest.raises(WeightsError, match=r"none\.h5: cannot be read: No such file"):
        file_sha256(tmp_path / "none.h5")

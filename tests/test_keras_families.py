"""The smallest network of each family of Keras: its record, its features, and its ONNX graph."""

from __future__ import annotations

import math

import keras
import numpy as np
import pytest
from keras_networks import (
    check_every_layer_with_weights_is_in_one_block,
    normalise_for,
    run,
    shake,
)

from tripletkit.features.backbones import get_backbone
from tripletkit.features.exported_networks import _relative_difference
from tripletkit.features.onnx_engine import prepare_pixels
from tripletkit.features.weights_files import build_backbone

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
    assert asked == {
        "weights": None,
        "include_top": False,
        "pooling": "avg",
        "input_shape": shape,
    }

    pixels = np.random.default_rng(0).integers(0, 256, (3, *shape), dtype=np.uint8)
    prepared = getattr(keras.applications, module).preprocess_input(pixels.astype(np.float32))
    shake(network)
    want = normalise_for(network, prepared)
    assert np.ptp(want, axis=0).max() > 0
    got = run(network, prepare_pixels(pixels, backbone.preprocessing))
    assert _relative_difference(got, want) < 1e-4

    assert got.shape == (3, backbone.n_features)
    assert network.count_params() == n_parameters
    assert network.input_shape == (None, *shape)
    maps = [network.get_layer(stage.layer).output.shape[1:] for stage in backbone.stages]
    assert [shape[-1] for shape in maps] == [stage.n_channels for stage in backbone.stages]
    # Some networks do not pad, so their maps are a little smaller.
    assert [math.log2(side / shape[0]) for shape in maps] == pytest.approx([3, 4], abs=0.6)
    if backbone.blocks:
        check_every_layer_with_weights_is_in_one_block(network, backbone)
    facts = get_backbone(name).facts()
    assert backbone.facts() == facts | {"input_size_px": side}
    if not name.startswith("efficientnetv2"):  # It looks its blocks up by its name.
        assert network.name == name

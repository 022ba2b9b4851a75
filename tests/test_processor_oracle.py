"""Pixels as the authors of encoders prepare them: compared with transformers itself."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from tripletkit.features.image_processor import find_config, read_processor
from tripletkit.features.image_views import VIEW_SETS, read_views
from tripletkit.features.onnx_engine import prepare_pixels

FAMILIES = {
    "vit": ("ViTImageProcessorPil", {}),
    "vit-384": ("ViTImageProcessorPil", {"size": 384, "resample": 3}),
    "siglip": ("SiglipImageProcessorPil", {}),
    "clip": ("CLIPImageProcessorPil", {}),
    "clip-336": ("CLIPImageProcessorPil", {"size": 336, "crop_size": 336}),
    "dinov2": (
        "BitImageProcessorPil",
        {"size": {"shortest_edge": 256}, "image_mean": [0.485, 0.456, 0.406]},
    ),
    "deit": ("DeiTImageProcessorPil", {}),
    "levit": ("LevitImageProcessorPil", {}),
    "convnext": ("ConvNextImageProcessorPil", {"size": {"shortest_edge": 224}}),
    "convnext-0.95": (
        "ConvNextImageProcessorPil",
        {"size": {"shortest_edge": 288}, "crop_pct": 0.95},
    ),
    "convnext-384": ("ConvNextImageProcessorPil", {}),
    "beit": ("BeitImageProcessorPil", {}),
    "pvt": ("PvtImageProcessorPil", {}),
    "poolformer": ("PoolFormerImageProcessorPil", {}),
    "mobilevit": ("MobileViTImageProcessorPil", {"size": {"shortest_edge": 288}}),
    "mobilenet": ("MobileNetV2ImageProcessorPil", {}),
    "efficientnet": ("EfficientNetImageProcessorPil", {}),
    "efficientnet-offset": (
        "EfficientNetImageProcessorPil",
        {"rescale_offset": True, "include_top": False, "rescale_factor": 1 / 127.5},
    ),
}
SHAPES = ((300, 200), (257, 641), (120, 120))


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    paths = []
    for width, height in SHAPES:
        small = Image.fromarray(rng.integers(0, 256, (9, 9, 3), dtype=np.uint8))
        paths.append(folder / f"{width}x{height}.png")
        small.resize((width, height), Image.Resampling.BICUBIC).save(paths[-1])
    return paths


def write_forms(config, folder):
    """Write a configuration as versions of transformers write it, and yield each folder."""
    without_defaults = {"image_processor_type": config["image_processor_type"]}
    with_nulls = dict.fromkeys(("do_center_crop", "crop_size", "resample")) | config
    forms = {
        "5": ("processor_config.json", {"image_processor": config, "processor_class": "X"}),
        "4": ("preprocessor_config.json", config),
        "fast": (
            "preprocessor_config.json",
            with_nulls | {"image_processor_type": config["image_processor_type"] + "Fast"},
        ),
        "silent": ("preprocessor_config.json", without_defaults),
    }
    for form, (name, content) in forms.items():
        place = folder / form
        place.mkdir()
        (place / name).write_text(json.dumps(content))
        yield form, place


@pytest.mark.parametrize("family", FAMILIES)
def test_pixels_are_those_of_transformers(family, photos, tmp_path):
    transformers = pytest.importorskip("transformers")
    kind, changes = FAMILIES[family]
    whole = getattr(transformers, kind)(**changes)
    config = json.loads(whole.to_json_string())
    for form, place in write_forms(config, tmp_path):
        oracle = getattr(transformers, kind)() if form == "silent" else whole
        if form == "silent" and family == "mobilevit":
            continue  # It pads by default, which is refused.
        processor = read_processor(find_config(place / "model.onnx"))
        how, side = processor.preprocessing, processor.input_size_px
        for path in photos:
            want = oracle(Image.open(path), return_tensors="np")["pixel_values"][0]
            pixels = read_views(path, side, how, VIEW_SETS["original"])
            got = prepare_pixels(pixels, how)[0].transpose(2, 0, 1)
            assert got.shape == want.shape, (form, path.name)
            assert np.abs(got - want).max() < 1e-5, (form, path.name)


def test_pixels_of_open_clip_and_timm_are_those_of_torchvision(photos, tmp_path):
    """Their rules as their sources have them: the middle is rounded, a half to the even side."""
    clip = {"mean": [0.5] * 3, "std": [0.25] * 3, "interpolation": "bicubic"}
    for name, config, resize in (
        (
            "open_clip_config.json",
            {
                "model_cfg": {"vision_cfg": {"image_size": 223}},
                "preprocess_cfg": clip | {"resize_mode": "shortest"},
            },
            223,
        ),
        (
            "config.json",
            {"pretrained_cfg": clip | {"input_size": [3, 223, 223], "crop_pct": 0.9}},
            247,
        ),
        (
            "config.json",
            {
                "pretrained_cfg": clip
                | {"input_size": [3, 224, 224], "crop_pct": 1.0, "crop_mode": "squash"}
            },
            None,
        ),
    ):
        path = tmp_path / name
        path.write_text(json.dumps(config))
        processor = read_processor(path)
        side = processor.input_size_px
        for photo in photos:
            image = Image.open(photo)
            size = (side, side)
            if resize is not None:
                short = min(image.size)
                size = tuple(int(resize * edge / short) for edge in image.size)
            resized = image.resize(size, Image.Resampling.BICUBIC)
            left, top = (round((edge - side) / 2.0) for edge in size)
            cut = np.asarray(resized.crop((left, top, left + side, top + side)), np.float32)
            want = (cut / 255 - 0.5) / 0.25
            pixels = read_views(photo, side, processor.preprocessing, VIEW_SETS["original"])
            got = prepare_pixels(pixels, processor.preprocessing)[0]
            assert np.abs(got - want).max() < 1e-5, (name, photo.name)
        path.unlink()


TIMM = (
    "resnet50.a1_in1k",
    "vit_small_patch14_dinov2.lvd142m",
    "vit_base_patch16_siglip_224.webli",
    "convnext_tiny.fb_in22k",
    "efficientnet_b0.ra_in1k",
    "inception_v3.tv_in1k",
)
OPEN_CLIP = (
    {},
    {"resize_mode": "squash", "interpolation": "bicubic", "mean": [0.5] * 3, "std": [0.5] * 3},
    {"resize_mode": "shortest", "interpolation": "bilinear"},
)


def assert_pixels(config, transform, photos):
    processor = read_processor(config)
    how, side = processor.preprocessing, processor.input_size_px
    for photo in photos:
        want = transform(Image.open(photo).convert("RGB")).numpy()
        pixels = read_views(photo, side, how, VIEW_SETS["original"])
        assert np.abs(prepare_pixels(pixels, how)[0].transpose(2, 0, 1) - want).max() < 1e-5


@pytest.mark.parametrize("name", TIMM)
def test_pixels_are_those_of_timm_itself(photos, tmp_path, name):
    timm = pytest.importorskip("timm")
    from timm.data import create_transform, resolve_data_config

    given = timm.models.get_pretrained_cfg(name).to_dict()
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"pretrained_cfg": given}, default=str))
    assert_pixels(path, create_transform(**resolve_data_config(pretrained_cfg=given)), photos)


@pytest.mark.parametrize("config", OPEN_CLIP, ids=str)
def test_pixels_are_those_of_open_clip_itself(photos, tmp_path, config):
    open_clip = pytest.importorskip("open_clip")
    keys = ("mean", "std", "resize_mode", "interpolation")
    how = {key: config.get(key) for key in keys}
    path = tmp_path / "open_clip_config.json"
    model = {"vision_cfg": {"image_size": 223}}
    path.write_text(json.dumps({"model_cfg": model, "preprocess_cfg": config}))
    assert_pixels(path, open_clip.image_transform(223, is_train=False, **how), photos)

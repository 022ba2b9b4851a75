"""What an encoder from a file wants done to images: read, told, never guessed."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tripletkit import TripletkitError
from tripletkit.features.backbones import Preprocessing
from tripletkit.features.extract import VIEW_SETS, _read_views
from tripletkit.features.image_processor import open_processor
from tripletkit.features.onnx_engine import prepare_pixels

CLIP = {
    "crop_size": {"height": 224, "width": 224},
    "do_center_crop": True,
    "do_normalize": True,
    "do_rescale": True,
    "do_resize": True,
    "image_mean": [0.48, 0.45, 0.4],
    "image_std": [0.26, 0.27, 0.28],
    "resample": 3,
    "rescale_factor": 1 / 255,
    "size": {"shortest_edge": 256},
}


def parse(text):
    return open_processor(Path("m.onnx"), text)


def read(tmp_path, **changes):
    config = {key: value for key, value in (CLIP | changes).items() if value is not None}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(config))
    return open_processor(tmp_path / "m.onnx")


def test_what_a_user_writes():
    processor = parse("size=256,resample=Bicubic,mean=0.5,std=0.1:0.2:0.4,crop=224")
    assert processor.input_size_px == 224
    assert processor.layout is None
    how = processor.preprocessing
    assert (how.resample, how.shortest_edge_px, how.reverse_channels) == ("bicubic", 256, False)
    assert how.mean == pytest.approx((127.5,) * 3)
    assert how.divisor == pytest.approx((25.5, 51.0, 102.0))


@pytest.mark.parametrize(
    ("scale", "mean", "divisor"), [("1", 51.0, 25.5), ("255", 0.2, 0.1), ("2", 25.5, 12.75)]
)
def test_scale_is_what_255_becomes(scale, mean, divisor):
    """(x / 255 * scale - mean) / deviation."""
    how = parse(f"size=8,resample=box,mean=0.2,std=0.1,scale={scale}").preprocessing
    assert how.mean == pytest.approx((mean,) * 3)
    assert how.divisor == pytest.approx((divisor,) * 3)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("size=224", 'expected "resample"'),
        ("resample=bicubic,mean=0,std=1", 'expected "size"'),
        ("size=224,resample=bicubic,mean=0", 'expected "std"'),
        ("size=224,size=225,resample=bicubic,mean=0,std=1", 'once as KEY=VALUE, got "size=225"'),
        ("224", "as KEY=VALUE"),
        ("size=224,colour=yes", 'got "colour=yes"'),
        ("size=a,resample=bicubic,mean=0,std=1", 'pixels as size, got "a"'),
        ("size=100000,resample=bicubic,mean=0,std=1", "expected 1 to 8192 pixels as size"),
        ("size=8,resample=bicubic,mean=nan,std=1", "expected mean as one number or 3"),
        ("size=8,resample=bicubic,mean=0:0:0,std=1,channels=gray", "expected mean as one number"),
        ("size=224,resample=cubic,mean=0,std=1", 'among nearest, .*, got "cubic"'),
        ("size=224,resample=box,mean=0:1,std=1", "expected mean as one number or 3"),
        ("size=224,resample=box,mean=x,std=1", "expected mean as one number or 3"),
        ("size=224,resample=box,mean=0,std=0", "expected sizes, scale and deviations above 0"),
        ("size=0,resample=box,mean=0,std=1", "expected 1 to 8192 pixels"),
        ("size=200,resample=box,mean=0,std=1,crop=224", "expected a crop within the image"),
        ("size=224,resample=box,mean=0,std=1,layout=chw", "layout among nchw, nhwc"),
    ],
)
def test_what_is_wrong_or_missing_is_named(text, message):
    with pytest.raises(TripletkitError, match=message):
        parse(text)


def test_the_configuration_of_clip(tmp_path):
    processor = read(tmp_path)
    how = processor.preprocessing
    assert (processor.input_size_px, how.shortest_edge_px, how.resample) == (224, 256, "bicubic")
    assert how.mean == pytest.approx([122.4, 114.75, 102.0])
    assert how.divisor == pytest.approx([66.3, 68.85, 71.4])


@pytest.mark.parametrize(
    ("changes", "sizes"),
    [
        ({"size": 224, "crop_size": 200}, (200, 224)),
        ({"size": 224, "do_center_crop": False, "crop_size": None}, (224, None)),
        ({"size": {"height": 224, "width": 224}}, (224, None)),
        ({"size": {"height": 96, "width": 96}, "do_center_crop": None}, (96, None)),
        ({"size": {"shortest_edge": 224}, "crop_pct": 0.875, "do_center_crop": None}, (224, 256)),
        ({"size": {"shortest_edge": 384}, "crop_pct": 0.875, "do_center_crop": None}, (384, None)),
    ],
)
def test_sizes_of_other_configurations(tmp_path, changes, sizes):
    processor = read(tmp_path, **changes)
    assert (processor.input_size_px, processor.preprocessing.shortest_edge_px) == sizes


@pytest.mark.parametrize(
    ("changes", "mean", "divisor"),
    [
        ({"do_normalize": False}, 0.0, 255.0),
        ({"do_normalize": False, "do_rescale": False}, 0.0, 1.0),
        ({"do_rescale": False, "image_mean": 10, "image_std": 5.0}, 10.0, 5.0),
        ({"rescale_factor": 1 / 127.5, "image_mean": 1, "image_std": 1}, 127.5, 127.5),
    ],
)
def test_scales_of_other_configurations(tmp_path, changes, mean, divisor):
    how = read(tmp_path, **changes).preprocessing
    assert how.mean == pytest.approx((mean,) * 3)
    assert how.divisor == pytest.approx((divisor,) * 3)


def test_channels_in_the_other_order(tmp_path):
    assert read(tmp_path, do_flip_channel_order=True).preprocessing.reverse_channels


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"size": None}, 'expected "size", or "image_processor_type", got none'),
        (
            {"image_processor_type": "Sam2ImageProcessor"},
            "expected an image processor among .*Sam2",
        ),
        ({"size": {"longest_edge": 384}}, "expected images of one size"),
        ({"do_resize": False}, "do_resize false"),
        ({"do_pad": True}, "do_pad true"),
        ({"resample": None}, 'expected "resample", or "image_processor_type"'),
        ({"resample": 9}, 'expected a known "resample", got 9'),
        ({"size": {"height": 224, "width": 200}}, "expected square images"),
        ({"do_center_crop": False}, "without a crop"),
        ({"image_mean": None}, 'expected "image_mean", or'),
        ({"image_mean": [0.1, 0.2]}, "cannot be read as one"),
    ],
)
def test_what_is_not_known_is_refused(tmp_path, changes, message):
    with pytest.raises(TripletkitError, match=f"preprocessor_config.json: .*{message}"):
        read(tmp_path, **changes)


def test_the_configuration_is_beside_the_file_or_above_its_folder(tmp_path):
    config = tmp_path / "preprocessor_config.json"
    config.write_text("{")
    (tmp_path / "onnx").mkdir()
    (tmp_path / "other").mkdir()
    for network in ("model.onnx", "onnx/model.onnx"):
        with pytest.raises(TripletkitError, match=f"{config}: .*cannot be read as one"):
            open_processor(tmp_path / network)
    with pytest.raises(TripletkitError, match=r"expected preprocessor_config\.json") as caught:
        open_processor(tmp_path / "other" / "model.onnx")
    example = str(caught.value).partition("preprocess=")[2].rstrip("`")
    assert parse(example).preprocessing.shortest_edge_px == 224


def test_plain_preprocessing_has_the_facts_of_old():
    assert Preprocessing().facts() == {
        "resample": "bilinear",
        "reverse_channels": False,
        "mean": [0.0, 0.0, 0.0],
        "divisor": 1.0,
    }


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


def assert_pixels(place, prepare, photos):
    processor = open_processor(place / "model.onnx")
    how, side = processor.preprocessing, processor.input_size_px
    for photo in photos:
        want = prepare(Image.open(photo))
        pixels = _read_views(photo, side, how, VIEW_SETS["original"])
        got = prepare_pixels(pixels, how)[0].transpose(2, 0, 1)
        assert got.shape == want.shape, (place.name, photo.name)
        assert np.abs(got - want).max() < 1e-5, (place.name, photo.name)


def prepare_by_transformers(oracle, image):
    return oracle(image, return_tensors="np")["pixel_values"][0]


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
        assert_pixels(place, partial(prepare_by_transformers, oracle), photos)


HALVES = {"mean": [0.5] * 3, "std": [0.25] * 3, "interpolation": "bicubic"}
SQUASHED = {"input_size": [3, 224, 224], "crop_pct": 1.0, "crop_mode": "squash"}


@pytest.mark.parametrize(
    ("name", "config", "side", "resized_px"),
    [
        (
            "open_clip_config.json",
            {
                "model_cfg": {"vision_cfg": {"image_size": 223}},
                "preprocess_cfg": HALVES | {"resize_mode": "shortest"},
            },
            223,
            223,
        ),
        (
            "config.json",
            {"pretrained_cfg": HALVES | {"input_size": [3, 223, 223], "crop_pct": 0.9}},
            223,
            247,
        ),
        ("config.json", {"pretrained_cfg": HALVES | SQUASHED}, 224, None),
    ],
)
def test_pixels_of_open_clip_and_timm_are_those_of_torchvision(
    photos, tmp_path, name, config, side, resized_px
):
    """Their rules as their sources have them: the middle is rounded, a half to the even side."""

    def prepare(image):
        size = (side, side)
        if resized_px is not None:
            size = tuple(int(resized_px * edge / min(image.size)) for edge in image.size)
        resized = image.resize(size, Image.Resampling.BICUBIC)
        left, top = (round((edge - side) / 2.0) for edge in size)
        cut = np.asarray(resized.crop((left, top, left + side, top + side)), np.float32)
        return ((cut / 255 - 0.5) / 0.25).transpose(2, 0, 1)

    (tmp_path / name).write_text(json.dumps(config))
    assert_pixels(tmp_path, prepare, photos)


TIMM = """resnet50.a1_in1k vit_small_patch14_dinov2.lvd142m vit_base_patch16_siglip_224.webli
convnext_tiny.fb_in22k efficientnet_b0.ra_in1k inception_v3.tv_in1k""".split()
OPEN_CLIP = (
    {},
    {"resize_mode": "squash", "interpolation": "bicubic", "mean": [0.5] * 3, "std": [0.5] * 3},
    {"resize_mode": "shortest", "interpolation": "bilinear"},
)


@pytest.mark.parametrize("name", TIMM)
def test_pixels_are_those_of_timm_itself(photos, tmp_path, name):
    timm = pytest.importorskip("timm")
    from timm.data import create_transform, resolve_data_config

    given = timm.models.get_pretrained_cfg(name).to_dict()
    (tmp_path / "config.json").write_text(json.dumps({"pretrained_cfg": given}, default=str))
    transform = create_transform(**resolve_data_config(pretrained_cfg=given))
    assert_pixels(tmp_path, lambda image: transform(image.convert("RGB")).numpy(), photos)


@pytest.mark.parametrize("config", OPEN_CLIP, ids=str)
def test_pixels_are_those_of_open_clip_itself(photos, tmp_path, config):
    open_clip = pytest.importorskip("open_clip")
    how = {key: config.get(key) for key in ("mean", "std", "resize_mode", "interpolation")}
    model = {"vision_cfg": {"image_size": 223}}
    whole = json.dumps({"model_cfg": model, "preprocess_cfg": config})
    (tmp_path / "open_clip_config.json").write_text(whole)
    transform = open_clip.image_transform(223, is_train=False, **how)
    assert_pixels(tmp_path, lambda image: transform(image.convert("RGB")).numpy(), photos)

"""What an encoder from a file wants done to images: read, told, never guessed."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from tripletkit import TripletkitError
from tripletkit.features.backbones import Preprocessing
from tripletkit.features.image_processor import (
    EXAMPLE,
    find_config,
    parse_processor,
    read_processor,
)
from tripletkit.features.image_views import _cut_middle

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


def read(tmp_path, **changes):
    config = {key: value for key, value in (CLIP | changes).items() if value is not None}
    path = tmp_path / "preprocessor_config.json"
    path.write_text(json.dumps(config))
    return read_processor(path)


def approximately(how):
    return pytest.approx(how.mean), pytest.approx(how.divisor)


def test_what_a_user_writes():
    processor = parse_processor("size=256,resample=Bicubic,mean=0.5,std=0.1:0.2:0.4,crop=224")
    assert processor.input_size_px == 224
    assert processor.layout is None
    how = processor.preprocessing
    assert (how.resample, how.shortest_edge_px, how.reverse_channels) == ("bicubic", 256, False)
    assert how.mean == pytest.approx((127.5,) * 3)
    assert how.divisor == pytest.approx((25.5, 51.0, 102.0))


def test_the_example_is_one():
    assert parse_processor(EXAMPLE).preprocessing.shortest_edge_px == 224


@pytest.mark.parametrize(
    ("scale", "mean", "divisor"), [("1", 51.0, 25.5), ("255", 0.2, 0.1), ("2", 25.5, 12.75)]
)
def test_scale_is_what_255_becomes(scale, mean, divisor):
    """(x / 255 * scale - mean) / deviation."""
    how = parse_processor(f"size=8,resample=box,mean=0.2,std=0.1,scale={scale}").preprocessing
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
        parse_processor(text)


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
        (
            {"size": {"shortest_edge": 224}, "crop_pct": 0.875, "do_center_crop": None},
            (224, 256),
        ),
        (
            {"size": {"shortest_edge": 384}, "crop_pct": 0.875, "do_center_crop": None},
            (384, None),
        ),
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


def test_a_configuration_that_is_not_json_is_refused(tmp_path):
    path = tmp_path / "preprocessor_config.json"
    path.write_text("{")
    with pytest.raises(TripletkitError, match="cannot be read as one"):
        read_processor(path)


def test_the_configuration_is_beside_the_file_or_above_its_folder(tmp_path):
    config = tmp_path / "preprocessor_config.json"
    config.write_text("{}")
    (tmp_path / "onnx").mkdir()
    (tmp_path / "other").mkdir()
    assert find_config(tmp_path / "model.onnx") == config
    assert find_config(tmp_path / "onnx" / "model.onnx") == config
    assert find_config(tmp_path / "other" / "model.onnx") is None


@pytest.mark.parametrize("size", [(60, 40), (40, 60), (50, 50), (31, 200)])
def test_the_middle_is_cut_from_the_image_in_its_own_shape(size):
    """As Hugging Face does: the shorter side resized, the longer rounded down, then the middle."""
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    short, long = min(size), max(size)
    other = int(32 * long / short)
    resized = image.resize((32, other) if size[0] <= size[1] else (other, 32), 3)
    width, height = resized.size
    left, top = (width - 24) // 2, (height - 24) // 2
    want = np.asarray(resized)[top : top + 24, left : left + 24]
    np.testing.assert_array_equal(
        _cut_middle(image, 24, Preprocessing("bicubic", shortest_edge_px=32)), want
    )


def test_plain_preprocessing_has_the_facts_of_old():
    assert Preprocessing().facts() == {
        "resample": "bilinear",
        "reverse_channels": False,
        "mean": [0.0, 0.0, 0.0],
        "divisor": 1.0,
    }

"""Images to pixels: orientation, transparency, depth, refusals that name the file."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from mutated_images import images_with_mutated_exif, make_exif, make_images, mutated_images
from PIL import Image

from tripletkit.data import decoding
from tripletkit.data.decoding import _MemoryBudget, read_image, read_pixels
from tripletkit.errors import ImageReadError

ORIENTATION = 0x0112

# How the stored image must be made so that the orientation turns it upright.
STORED = {
    **dict.fromkeys((0, 1, 9, 99), ()),  # Those that are none are ignored.
    2: (Image.Transpose.FLIP_LEFT_RIGHT,),
    3: (Image.Transpose.ROTATE_180,),
    4: (Image.Transpose.FLIP_TOP_BOTTOM,),
    5: (Image.Transpose.TRANSPOSE,),
    6: (Image.Transpose.ROTATE_90,),
    7: (Image.Transpose.TRANSVERSE,),
    8: (Image.Transpose.ROTATE_270,),
}


@pytest.fixture
def corner():
    """A black image with a red corner top left and a blue one top right."""
    pixels = np.zeros((16, 32, 3), dtype=np.uint8)
    pixels[:8, :8] = (255, 0, 0)
    pixels[:8, 24:] = (0, 0, 255)
    return Image.fromarray(pixels)


@pytest.mark.parametrize("orientation", STORED)
def test_read_image_turns_upright(tmp_path, corner, orientation):
    stored = corner
    for transpose in STORED[orientation]:
        stored = stored.transpose(transpose)
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    path = tmp_path / "turned.png"
    stored.save(path, exif=exif)
    np.testing.assert_array_equal(np.asarray(read_image(path)), np.asarray(corner))


def test_read_image_survives_a_damaged_exif_block(tmp_path, corner):
    path = tmp_path / "damaged.jpg"
    corner.save(path, exif=b"Exif\x00\x00" + b"\xff\x00garbage" * 9)
    assert read_image(path).size == corner.size


def save_and_read(image, path, **options):
    image.save(path, **options)
    return np.asarray(read_image(path))


def test_read_image_shows_white_through_transparency(tmp_path):
    rgba = np.zeros((4, 4, 4), dtype=np.uint8)
    rgba[..., 0] = 200  # a hidden red
    rgba[:2, :, 3] = 255
    palette = Image.new("P", (4, 4), 0)
    palette.putpalette([255, 0, 255, 200, 0, 0])
    palette.paste(1, (0, 0, 4, 2))
    key = Image.new("RGB", (4, 4), (1, 2, 3))
    key.paste((200, 0, 0), (0, 0, 4, 2))
    for image, options in (
        (Image.fromarray(rgba), {}),
        (palette, {"transparency": 0}),
        (key, {"transparency": (1, 2, 3)}),
    ):
        pixels = save_and_read(image, tmp_path / "clear.png", **options)
        assert (pixels[:2] == (200, 0, 0)).all()
        assert (pixels[2:] == 255).all()


def test_read_image_scales_16_bits(tmp_path):
    values = np.array([[0, 257, 32896, 65535]], dtype=np.uint16)
    pixels = save_and_read(Image.fromarray(values), tmp_path / "gray16.png")
    assert pixels[0].tolist() == [[0] * 3, [1] * 3, [128] * 3, [255] * 3]


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "CMYK", "YCbCr"])
def test_read_image_makes_rgb_of_every_mode(tmp_path, mode):
    path = tmp_path / "mode.tif" if mode not in ("P", "LA") else tmp_path / "mode.png"
    Image.new("L", (6, 5), 255).convert(mode).save(path)
    image = read_image(path)
    assert (image.mode, image.size) == ("RGB", (6, 5))
    assert (np.asarray(image) >= 254).all()


def test_read_image_takes_the_first_frame(tmp_path):
    frames = [Image.new("RGB", (5, 5), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "moving.gif", save_all=True, append_images=frames[1:])
    assert (np.asarray(read_image(tmp_path / "moving.gif")) == (255, 0, 0)).all()


def test_read_image_looks_at_the_content_and_not_at_the_name(tmp_path, corner):
    corner.save(tmp_path / "really.jpg", format="PNG")
    np.testing.assert_array_equal(np.asarray(read_image(tmp_path / "really.jpg")), corner)


@pytest.mark.parametrize("content", [b"", b"hello", b"<html></html>", b"\xff\xd8\xff\xe0"])
def test_read_image_refuses_what_is_no_image(tmp_path, content):
    path = tmp_path / "odd.jpg"
    path.write_bytes(content)
    with pytest.raises(ImageReadError, match=r"odd\.jpg: expected an image, cannot be read"):
        read_image(path)


@pytest.mark.parametrize("suffix", ["jpg", "png", "gif", "bmp"])
def test_read_image_refuses_a_image_that_is_cut_off(tmp_path, suffix):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    whole, path = tmp_path / f"whole.{suffix}", tmp_path / f"cut.{suffix}"
    Image.fromarray(noise).save(whole)
    path.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    with pytest.raises(ImageReadError, match="cut"):
        read_image(path)


def test_read_image_refuses_a_bomb_before_decoding(tmp_path, monkeypatch):
    path = tmp_path / "bomb.png"
    Image.new("1", (300, 300)).save(path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(ImageReadError, match=r"bomb\.png: .*decompression bomb"):
        read_image(path)


def test_read_image_refuses_floating_point_pixels_and_names_a_file_that_is_missing(tmp_path):
    Image.new("F", (4, 4), 0.5).save(tmp_path / "float.tif")
    with pytest.raises(ImageReadError, match="no defined white"):
        read_image(tmp_path / "float.tif")
    with pytest.raises(ImageReadError, match=r"none\.jpg"):
        read_image(tmp_path / "none.jpg")


@pytest.mark.parametrize("size", [(1, 1), (1, 5000), (5000, 1), (300, 200)])
def test_read_pixels_makes_a_square_of_any_shape(tmp_path, size):
    Image.new("RGB", size, (10, 20, 30)).save(tmp_path / "shape.png")
    pixels = read_pixels(tmp_path / "shape.png", 24, "bilinear")
    assert (pixels.shape, pixels.dtype) == ((24, 24, 3), np.uint8)
    assert (pixels == (10, 20, 30)).all()


def test_read_pixels_of_a_large_jpeg_hardly_differ_from_those_of_full_size(tmp_path):
    waves = np.add.outer(np.sin(np.arange(900) / 40), np.sin(np.arange(1200) / 25))
    image = Image.fromarray((128 + 60 * waves).astype(np.uint8)).convert("RGB")
    image.save(tmp_path / "large.jpg", quality=95)
    full = read_image(tmp_path / "large.jpg").resize((32, 32), Image.Resampling.BILINEAR)
    reduced = read_pixels(tmp_path / "large.jpg", 32, "bilinear")
    assert np.abs(reduced.astype(int) - np.asarray(full, dtype=int)).mean() < 2


def test_a_damaged_tag_beside_an_orientation_is_passed_over(tmp_path, corner):
    exif = make_exif()
    # The type of the first tag, a text, becomes that of a fraction of two numbers.
    place = exif.index(b"\x01\x0f\x00\x02") + 2
    path = tmp_path / "wrong.png"
    corner.transpose(Image.Transpose.ROTATE_90).save(
        path, exif=exif[:place] + b"\x00\x05" + exif[place + 2 :]
    )
    np.testing.assert_array_equal(np.asarray(read_image(path)), np.asarray(corner))


@pytest.mark.parametrize(
    ("name", "error"), [("avif", RuntimeError), ("webp", KeyError), ("png", struct.error)]
)
def test_whatever_a_reader_raises_names_the_file(tmp_path, monkeypatch, name, error):
    path = tmp_path / f"damaged.{name}"
    path.write_bytes(make_images()[f"image.{name}"])

    def fail(image):
        raise error("Decoding of color planes failed")

    plugin = type(Image.open(path))
    monkeypatch.setattr(plugin, "load", fail)
    with pytest.raises(ImageReadError, match=rf"damaged\.{name}: .*color planes failed"):
        read_image(path)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("damage", [mutated_images, images_with_mutated_exif])
def test_damaged_images_are_read_or_refused(damage):
    n_read = 0
    for name, content in damage(500, seed=0):
        try:
            image = read_image(Path(name), 8, io.BytesIO(content))
        except ImageReadError as error:
            assert str(error).startswith(f"{name}: ")
            assert damage is not images_with_mutated_exif
        else:
            assert image.mode == "RGB"
            n_read += 1
    assert n_read > 100


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16", "I", "key"])
def test_an_image_made_rgb_band_by_band_is_the_same(monkeypatch, mode):
    values = np.random.default_rng(0).integers(0, 256, (37, 23, 4), dtype=np.uint8)
    image = Image.fromarray(values[..., :3]).convert("P" if mode == "P" else "RGB")
    if mode == "P":
        image.info["transparency"] = 3
    elif mode == "key":
        image.info["transparency"] = tuple(values[5, 5, :3])
    elif mode.startswith("I"):
        image = Image.fromarray(values[..., 0].astype(np.uint16) * 257)
        image = image.convert("I") if mode == "I" else image
    elif mode != "RGB":
        image = Image.fromarray(values).convert(mode)
    whole = decoding._band_to_rgb(image)
    monkeypatch.setattr(decoding, "_BAND_PX", 100)
    in_bands = decoding._to_rgb(image, (1, 1))
    np.testing.assert_array_equal(np.asarray(in_bands), np.asarray(whole))
    reduced = decoding._to_rgb(image, (3, 4))
    np.testing.assert_array_equal(np.asarray(reduced), np.asarray(whole.reduce((3, 4))))


@pytest.mark.slow
def test_a_large_image_is_decoded_smaller_and_hardly_differs(tmp_path, monkeypatch):
    waves = np.add.outer(np.sin(np.arange(896) / 40), np.sin(np.arange(1280) / 25))
    values = (32768 + 15000 * waves).astype(np.uint16)
    Image.fromarray(values).save(tmp_path / "large.png")
    full = read_pixels(tmp_path / "large.png", 32, "bilinear").astype(int)
    monkeypatch.setattr(decoding, "_LARGE_PX", 100_000)
    assert read_image(tmp_path / "large.png", at_least_px=32).size == (128, 128)
    assert read_image(tmp_path / "large.png").size == (1280, 896)
    reduced = read_pixels(tmp_path / "large.png", 32, "bilinear")
    assert np.abs(reduced - full).mean() < 2


# Decodes the files of its arguments at once and prints the peak of memory beside the start's.
READER = """
import resource, sys, threading
from pathlib import Path
from tripletkit.data import decoding
from tripletkit.data.decoding import read_pixels
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
before = peak()
threads = [threading.Thread(target=read_pixels, args=(Path(name), 224, "bilinear"))
           for name in sys.argv[1:]]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
print((peak() - before) * 1024)
"""


@pytest.mark.integration
@pytest.mark.slow
def test_two_large_images_at_once_take_bounded_memory(tmp_path):
    path = tmp_path / "gray16.png"
    Image.fromarray(np.zeros((13_300, 13_300), np.uint16)).save(path, compress_level=1)
    assert path.stat().st_size < 2_000_000
    used = subprocess.run(
        [sys.executable, "-c", READER, path, path], capture_output=True, text=True, check=True
    )
    assert int(used.stdout) < 850e6


@pytest.mark.parametrize(("name", "form"), [("webp", "WEBP"), ("jp2", "JPEG2000")])
def test_an_image_that_takes_too_much_memory_is_refused_with_the_limit(
    tmp_path, monkeypatch, name, form
):
    path = tmp_path / f"large.{name}"
    path.write_bytes(make_images()[f"image.{name}"])
    # As if it had as many pixels as stand behind the limit.
    monkeypatch.setattr(decoding, "MAX_DECODE_BYTES", 24 * 16 * 10)
    with pytest.raises(ImageReadError, match=rf"large\.{name}: .* 24 x 16 pixels of {form} takes"):
        read_image(path)
    Image.open(path).save(tmp_path / "same.png")
    assert read_image(tmp_path / "same.png").size == (24, 16)


def test_memory_that_does_not_fit_waits_for_the_others():
    budget, at_once, most = _MemoryBudget(100), 0, 0

    def use(n_bytes):
        nonlocal at_once, most
        with budget.reserve(n_bytes):
            at_once += n_bytes
            most = max(most, at_once)
            time.sleep(0.005)
            at_once -= n_bytes

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(use, [40, 60, 30, 100, 50, 20] * 4))
    assert 60 < most <= 100
    # What is larger than all of it is held alone, and not for ever waited for.
    with budget.reserve(300):
        pass

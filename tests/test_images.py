"""Images to pixels: orientation, transparency, depth, refusals that name the file."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from tripletkit.data.images import read_image, read_pixels
from tripletkit.errors import ImageReadError

ORIENTATION = 0x0112

# How the stored image must be made so that the orientation turns it upright.
STORED = {
    1: (),
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


@pytest.mark.parametrize("orientation", [0, 9, 99])
def test_read_image_ignores_an_orientation_that_is_none(tmp_path, corner, orientation):
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    corner.save(tmp_path / "odd.png", exif=exif)
    np.testing.assert_array_equal(np.asarray(read_image(tmp_path / "odd.png")), np.asarray(corner))


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
    pixels = save_and_read(Image.fromarray(rgba), tmp_path / "rgba.png")
    assert (pixels[:2] == (200, 0, 0)).all()
    assert (pixels[2:] == 255).all()


def test_read_image_shows_white_through_a_transparent_palette_colour(tmp_path):
    image = Image.new("P", (4, 4), 0)
    image.putpalette([255, 0, 255, 0, 128, 0])
    image.paste(1, (0, 0, 4, 2))
    pixels = save_and_read(image, tmp_path / "palette.png", transparency=0)
    assert (pixels[:2] == (0, 128, 0)).all()
    assert (pixels[2:] == 255).all()


def test_read_image_shows_white_through_a_transparent_rgb_colour(tmp_path):
    image = Image.new("RGB", (4, 4), (1, 2, 3))
    pixels = save_and_read(image, tmp_path / "key.png", transparency=(1, 2, 3))
    assert (pixels == 255).all()


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


def test_read_image_names_a_file_that_is_missing(tmp_path):
    with pytest.raises(ImageReadError, match=r"none\.jpg"):
        read_image(tmp_path / "none.jpg")


def test_read_image_refuses_floating_point_pixels(tmp_path):
    Image.new("F", (4, 4), 0.5).save(tmp_path / "float.tif")
    with pytest.raises(ImageReadError, match="no defined white"):
        read_image(tmp_path / "float.tif")


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

"""Collages: what is drawn where, and that names never break them."""

import numpy as np
import pytest
from PIL import Image

from tripletkit.reporting.collages import LIGHT, _draw_grid, _Tile, read_thumbnail


def has_colour(image, colour, box=None):
    wanted = tuple(bytes.fromhex(colour.removeprefix("#")))
    return bool((np.asarray(image.crop(box)) == wanted).all(axis=2).any())


def test_every_image_is_drawn_in_its_place(toy_images):
    rows = [[_Tile(toy_images / f"{colour}0.png", ["x"]) for colour in ("red", "blue")]]
    image = _draw_grid(rows, side_px=100)
    half = image.width // 2
    left, right = (0, 0, half, image.height), (half, 0, image.width, image.height)
    assert has_colour(image, "#ff0000", left) and not has_colour(image, "#0000ff", left)
    assert has_colour(image, "#0000ff", right) and not has_colour(image, "#ff0000", right)


@pytest.mark.parametrize(("is_right", "colour"), [(True, LIGHT.right), (False, LIGHT.wrong)])
def test_right_and_wrong_have_their_colour_and_sign(toy_images, is_right, colour):
    path = toy_images / "red0.png"
    marked = _draw_grid([[_Tile(path, [], is_right)]])
    assert has_colour(marked, colour)
    assert not has_colour(_draw_grid([[_Tile(path, [])]]), colour)


@pytest.mark.parametrize(
    ("size", "shown"),
    [
        ((400, 100), (120, 30)),
        ((4, 8), (60, 120)),
        # Something is left of a very long image.
        ((5000, 1), (120, 1)),
        ((1, 5000), (1, 120)),
    ],
)
def test_an_image_keeps_its_shape(tmp_path, size, shown):
    Image.new("RGB", size, "green").save(tmp_path / "a.png")
    assert read_thumbnail(tmp_path / "a.png", 120).size == shown


@pytest.mark.parametrize(
    ("name", "layout", "is_wide"),
    [
        ("c.png", "--by-rows", True),
        ("c.jpg", "--by-columns", False),
        ("c.jpeg", "--by-rows", True),
        ("c.webp", "--by-columns", False),
        ("c.PNG", "--by-rows", True),
    ],
)
def test_triplets_as_rows_or_columns(
    tripletkit, triplet_file, toy_images, tmp_path, name, layout, is_wide
):
    output = tmp_path / name
    result = tripletkit("collage", triplet_file, toy_images, "-o", output, layout, "-n", 6)
    assert (result.exit_code, result.stdout) == (0, "")
    assert "Drew 6 of 24 triplets" in result.stderr
    with Image.open(output) as image:
        assert (image.width > image.height) == is_wide


def test_a_missing_image_is_named_with_its_line(tripletkit, toy_images, tmp_path):
    triplets = tmp_path / "t.txt"
    triplets.write_text("red0.png red1.png blue0.png\nred0.png nobody.png blue0.png\n")
    output = tmp_path / "c.png"
    result = tripletkit("collage", triplets, toy_images, "-o", output, code=1)
    assert "t.txt:2" in result.stderr and "nobody.png" in result.stderr
    assert not output.exists()

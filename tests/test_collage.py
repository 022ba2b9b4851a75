"""Collages: what is drawn where, and that names never break them."""

import numpy as np
import pytest
from PIL import Image

from tripletkit import TripletkitError
from tripletkit.reporting.collages import Tile, _shorten, draw_grid, read_thumbnail, write_image
from tripletkit.reporting.style import LIGHT


def has_colour(image, colour, box=None):
    wanted = tuple(bytes.fromhex(colour.removeprefix("#")))
    return bool((np.asarray(image.crop(box)) == wanted).all(axis=2).any())


def test_every_image_is_drawn_in_its_place(toy_images):
    rows = [[Tile(toy_images / f"{colour}0.png", ["x"]) for colour in ("red", "blue")]]
    image = draw_grid(rows, side_px=100)
    half = image.width // 2
    left, right = (0, 0, half, image.height), (half, 0, image.width, image.height)
    assert has_colour(image, "#ff0000", left) and not has_colour(image, "#0000ff", left)
    assert has_colour(image, "#0000ff", right) and not has_colour(image, "#ff0000", right)


@pytest.mark.parametrize(("is_right", "colour"), [(True, LIGHT.right), (False, LIGHT.wrong)])
def test_right_and_wrong_have_their_colour_and_sign(toy_images, is_right, colour):
    path = toy_images / "red0.png"
    marked = draw_grid([[Tile(path, [], is_right)]])
    assert has_colour(marked, colour)
    assert not has_colour(draw_grid([[Tile(path, [])]]), colour)


def test_a_image_keeps_its_shape(tmp_path):
    Image.new("RGB", (400, 100), "green").save(tmp_path / "wide.png")
    Image.new("RGB", (4, 8), "green").save(tmp_path / "small.png")
    assert read_thumbnail(tmp_path / "wide.png", 120).size == (120, 30)
    assert read_thumbnail(tmp_path / "small.png", 120).size == (60, 120)


@pytest.mark.parametrize(("size", "shown"), [((5000, 1), (120, 1)), ((1, 5000), (1, 120))])
def test_something_is_left_of_a_very_long_image(tmp_path, size, shown):
    Image.new("RGB", size, "green").save(tmp_path / "long.png")
    assert read_thumbnail(tmp_path / "long.png", 120).size == shown


def test_long_names_lose_their_middle():
    assert _shorten("short.png", 200) == "short.png"
    shown = _shorten("a" * 60 + "-0001.png", 120)
    assert shown.startswith("aaa") and shown.endswith(".png") and "…" in shown
    assert _shorten("abc", 0) == "…"


def test_names_of_any_letters_are_drawn(toy_images):
    names = ['<b>"it\'s" & é', "寿司 🍣", "", "\u202eabc"]
    draw_grid([[Tile(toy_images / "red0.png", [name]) for name in names]])


def test_a_broken_image_is_refused(tmp_path):
    (tmp_path / "text.png").write_text("no image")
    with pytest.raises(TripletkitError, match=r"text\.png"):
        draw_grid([[Tile(tmp_path / "text.png", [])]])


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".jpeg", ".webp", ".PNG"])
def test_writes_by_suffix(tmp_path, suffix):
    write_image(tmp_path / f"c{suffix}", Image.new("RGB", (10, 10), "red"))
    with Image.open(tmp_path / f"c{suffix}") as image:
        assert image.size == (10, 10)


def test_another_suffix_is_refused(tmp_path):
    with pytest.raises(TripletkitError, match="expected a name that ends in"):
        write_image(tmp_path / "c.bmp", Image.new("RGB", (10, 10)))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("layout", "is_wide"), [("--by-rows", True), ("--by-columns", False)])
def test_triplets_as_rows_or_columns(
    tripletkit, triplet_file, toy_images, tmp_path, layout, is_wide
):
    output = tmp_path / "c.png"
    arguments = ["collage", str(triplet_file), str(toy_images), "-o", str(output), layout]
    result = tripletkit(*arguments, "-n", "6")
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

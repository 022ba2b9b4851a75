"""Collages: what is drawn where, and that names never break them."""

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import tripletkit as tk


def where_is(image, colour):
    """Return whether each pixel has a colour."""
    return (np.asarray(image) == tuple(bytes.fromhex(colour))).all(axis=2)


def draw(names, images):
    triplet = pd.DataFrame([names], columns=["anchor", "positive", "negative"])
    return tk.collage(triplet, images, rows=False)


def test_every_image_is_drawn_in_its_place(toy_images):
    image = draw(["red0.png", "red1.png", "blue0.png"], toy_images)
    third = image.width // 3
    red, blue = where_is(image, "ff0000"), where_is(image, "0000ff")
    assert red[:, :third].any() and red[:, third:-third].any() and not red[:, -third:].any()
    assert blue[:, -third:].any() and not blue[:, :-third].any()
    asked = pd.DataFrame([["red0.png", "blue0.png", "red1.png"]], columns=list("abc"))
    answered = tk.collage(asked.assign(label="0"), toy_images, rows=False)
    assert np.array_equal(answered, image)


def test_right_and_wrong_neighbors_have_their_colour(toy_model, tiny_backbone, tmp_path):
    labels = {f"p{number:02}.png": "even" if number % 2 == 0 else "odd" for number in range(60)}
    for given in (labels, None):
        drawn = tmp_path / f"{given is None}.png"
        tk.load(toy_model).neighbors("p03.png", k=30, labels=given, collage=drawn)
        with Image.open(drawn) as image:
            marked = [where_is(image, colour).any() for colour in ("0072b2", "d55e00")]
        assert marked == [given is not None] * 2


@pytest.mark.parametrize(
    ("size", "shown"),
    [
        ((400, 100), (144, 36)),
        ((4, 8), (72, 144)),
        # Something is left of a very long image.
        ((5000, 1), (144, 1)),
        ((1, 5000), (1, 144)),
    ],
)
def test_an_image_keeps_its_shape(tmp_path, size, shown):
    Image.new("RGB", size, "#00ff00").save(tmp_path / "a.png")
    for name in "bc":
        Image.new("RGB", (9, 9), "red").save(tmp_path / f"{name}.png")
    rows, columns = np.nonzero(where_is(draw(["a.png", "b.png", "c.png"], tmp_path), "00ff00"))
    assert (np.ptp(columns) + 1, np.ptp(rows) + 1) == shown


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

"""Views of images: mirror images and crops, cut from one decoding."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from tripletkit import TripletkitError
from tripletkit.data.decoding import read_pixels
from tripletkit.features import image_views
from tripletkit.features.backbones import Preprocessing
from tripletkit.features.image_views import VIEW_SETS, choose_views, get_view, read_views


@pytest.fixture
def image(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (70, 90, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "noise.png")
    return tmp_path / "noise.png"


def test_the_original_view_is_what_a_backbone_always_saw(image):
    (view,) = read_views(image, 48, Preprocessing("bicubic"), VIEW_SETS["original"])
    np.testing.assert_array_equal(view, read_pixels(image, 48, "bicubic"))


def test_flip_adds_the_mirror_image(image):
    original, mirrored = read_views(image, 48, Preprocessing("bilinear"), VIEW_SETS["flip"])
    np.testing.assert_array_equal(original, read_pixels(image, 48, "bilinear"))
    np.testing.assert_array_equal(mirrored, original[:, ::-1])


def test_ten_crops_are_corners_and_center_of_256_and_their_mirror_images(image):
    views = read_views(image, 224, Preprocessing("bilinear"), VIEW_SETS["ten-crop"])
    resized = Image.open(image).resize((256, 256), Image.Resampling.BILINEAR)
    corners = [(0, 0), (32, 0), (0, 32), (32, 32), (16, 16)]
    crops = [np.asarray(resized.crop((x, y, x + 224, y + 224))) for x, y in corners]
    np.testing.assert_array_equal(views, crops + [crop[:, ::-1] for crop in crops])
    np.testing.assert_array_equal(
        read_views(image, 224, Preprocessing("bilinear"), VIEW_SETS["five-crop"]), views[:5]
    )


def test_a_image_is_decoded_once_for_all_its_views(image, monkeypatch):
    n_read = []
    original = image_views.read_image

    def count(*args, **kwargs):
        n_read.append(args)
        return original(*args, **kwargs)

    monkeypatch.setattr(image_views, "read_image", count)
    views = choose_views(list(VIEW_SETS))
    assert read_views(image, 32, Preprocessing("bilinear"), views).shape == (12, 32, 32, 3)
    assert len(n_read) == 1


@pytest.mark.parametrize("size_px", [8, 32, 224, 299])
def test_crops_of_any_size_stay_inside(size_px):
    for view in VIEW_SETS["ten-crop"]:
        left, top = view.corner_px(size_px)
        assert min(left, top) >= 0
        assert max(left, top) + size_px <= view.resized_px(size_px)


def test_views_have_one_order_and_each_counts_once():
    chosen = choose_views(["five-crop", "flip", "original"])
    assert chosen == choose_views(["original", "original", "flip", "five-crop"])
    assert [view.name for view in chosen[:3]] == ["original", "flip", "crop-top-left"]
    assert len({view.name for view in chosen}) == len(chosen) == 7
    assert [get_view(view.name) for view in chosen] == list(chosen)


def test_an_unknown_view_is_named():
    with pytest.raises(
        TripletkitError, match=r'five-crop, ten-crop, got "flips".*Did you mean "flip"'
    ):
        choose_views(["original", "flips"])
    with pytest.raises(TripletkitError, match=r'got "crop-7".*Update tripletkit'):
        get_view("crop-7")

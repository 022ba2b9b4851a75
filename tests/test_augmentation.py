"""Augmentation: only what was asked for, and the same draws whatever is switched off."""

from __future__ import annotations

import numpy as np
import pytest

from tripletkit.training.pixel_training import _augment


@pytest.fixture
def pixels():
    return np.random.default_rng(0).integers(0, 256, (20, 16, 16, 3), dtype=np.uint8)


def see(pixels, flip=True, shift=0.125, seed=1):
    return _augment(pixels, np.random.default_rng(seed), flip=flip, shift=shift)


def shift_slowly(image, down, right):
    """Move an image pixel by pixel; what comes in repeats its edge."""
    side = len(image)
    moved = np.empty_like(image)
    for row in range(side):
        for column in range(side):
            from_row = min(max(row + down, 0), side - 1)
            from_column = min(max(column + right, 0), side - 1)
            moved[row, column] = image[from_row, from_column]
    return moved


def test_nothing_asked_for_changes_nothing(pixels):
    np.testing.assert_array_equal(see(pixels, flip=False, shift=0), pixels)


def test_every_image_is_one_of_the_shifts_or_its_mirror_image(pixels):
    seen = see(pixels)
    n_flipped = 0
    for image, got in zip(pixels, seen, strict=True):
        possible = [
            shift_slowly(image, down, right) for down in range(-2, 3) for right in range(-2, 3)
        ]
        is_flipped = any((got[:, ::-1] == each).all() for each in possible)
        assert is_flipped or any((got == each).all() for each in possible)
        n_flipped += is_flipped
    assert 3 < n_flipped < 17


def test_the_furthest_shifts_are_drawn_in_both_directions():
    ramp = np.broadcast_to(np.arange(16, dtype=np.uint8)[:, None, None], (400, 16, 16, 3))
    down = see(ramp, flip=False)[:, 8, 0, 0].astype(int) - 8
    assert set(down) == {-2, -1, 0, 1, 2}


def test_switching_the_flip_off_leaves_the_shifts(pixels):
    with_flips, without = see(pixels), see(pixels, flip=False)
    same = (with_flips == without).all(axis=(1, 2, 3))
    mirrored = (with_flips[:, :, ::-1] == without).all(axis=(1, 2, 3))
    assert (same | mirrored).all()
    assert 0 < same.sum() < len(pixels)


def test_the_same_seed_sees_the_same_and_the_input_stays(pixels):
    before = pixels.copy()
    np.testing.assert_array_equal(see(pixels), see(pixels))
    assert (see(pixels) != see(pixels, seed=2)).any()
    np.testing.assert_array_equal(pixels, before)
    assert see(pixels).dtype == np.uint8

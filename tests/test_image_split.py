"""Test triplets must share no image with training ones, in every draw, whatever the triplets."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tripletkit import ImageSplit, SettingsError, Triplets
from tripletkit.errors import SplitError, TripletFileError


def all_triplets(n_images: int) -> np.ndarray:
    grid = np.stack(np.meshgrid(*[np.arange(n_images)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    return grid[(np.diff(np.sort(grid), axis=1) > 0).all(axis=1)]


@pytest.mark.slow
@given(st.integers(6, 30), st.integers(1, 8), st.floats(0.2, 0.8), st.integers(0, 99))
def test_splits_share_no_image_and_keep_every_triplet_that_they_can(n, n_splits, share, seed):
    if min(round(share * n), n - round(share * n)) < 3:
        return
    rows = all_triplets(n)
    for train, test in ImageSplit(n_splits, share, seed).split(rows):
        assert not np.intersect1d(rows[train], rows[test]).size
        n_test = len(np.unique(rows[test]))
        assert n_test == round(share * n)
        # Every triplet of the images on either side is there.
        assert len(test) == n_test * (n_test - 1) * (n_test - 2)
        assert len(train) == (n - n_test) * (n - n_test - 1) * (n - n_test - 2)


def held_out(n: int, n_draws: int, share: float, seed: int) -> np.ndarray:
    """Return which images each draw holds out, `(n_draws, n)` booleans."""
    rows = all_triplets(n)
    draws = ImageSplit(n_draws, share, seed).split(rows)
    return np.array([np.isin(np.arange(n), rows[test]) for _, test in draws])


@pytest.mark.slow
@given(st.integers(6, 16), st.integers(1, 25), st.floats(0.1, 0.9), st.integers(0, 99))
def test_images_are_held_out_equally_often(n, n_draws, share, seed):
    if min(round(share * n), n - round(share * n)) < 3:
        return
    draws = held_out(n, n_draws, share, seed)
    assert len(draws) == n_draws
    assert set(draws.sum(axis=1).tolist()) == {round(share * n)}
    assert np.ptp(draws.sum(axis=0)) <= 1


def test_draws_are_not_the_same_parts_again_and_again():
    # With a half held out, turns alone would give two halves for ever.
    assert len({tuple(draw) for draw in held_out(12, 40, 0.5, 0)}) > 30


def test_a_seed_gives_the_same_splits_and_none_gives_others():
    rows = all_triplets(9)
    first, again = (list(ImageSplit(3, random_state=4).split(rows)) for _ in range(2))
    for (train, test), (same_train, same_test) in zip(first, again, strict=True):
        np.testing.assert_array_equal(train, same_train)
        np.testing.assert_array_equal(test, same_test)
    drawn = [
        tuple(next(ImageSplit(1, random_state=state).split(rows))[1])
        for state in [None] * 4 + [np.random.RandomState(0)]
    ]
    assert len(set(drawn)) > 1
    state = np.random.RandomState(0)
    two = [tuple(next(ImageSplit(1, random_state=state).split(rows))[1]) for _ in range(2)]
    assert two[0] != two[1]


def test_images_that_no_triplet_has_are_not_drawn():
    rows = all_triplets(9) * 100
    train, test = next(ImageSplit(1, 1 / 3, 0).split(rows))
    assert len(test) == 6
    assert len(train) == 120


def test_triplets_are_taken_as_they_are():
    rows = all_triplets(9)
    triplets = Triplets.from_array(rows, [f"{n}.png" for n in range(9)])
    assert len(next(ImageSplit(1, random_state=0).split(triplets))[1]) == 6


@pytest.mark.parametrize(
    ("rows", "error", "message"),
    [
        (all_triplets(6)[:4], SplitError, "at least 3 images on each side"),
        (np.array([[0, 1, 2], [3, 4, 5], [6, 7, 8]] * 2), SplitError, "got none for"),
        (np.zeros((4, 2), int), TripletFileError, "shape"),
        (np.zeros((4, 3)), TripletFileError, "integer triplets"),
    ],
)
def test_what_cannot_be_split_is_refused(rows, error, message):
    with pytest.raises(error, match=message):
        list(ImageSplit(20, random_state=0).split(rows))


def test_wrong_settings_are_refused_by_name():
    for settings_of, field in (({"n_splits": 0}, "n_splits"), ({"test_size": 1.0}, "test_size")):
        with pytest.raises(SettingsError) as caught:
            ImageSplit(**settings_of)
        assert caught.value.field == field

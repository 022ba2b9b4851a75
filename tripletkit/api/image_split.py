"""Cross-validation for scikit-learn whose training and test triplets share no image."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from sklearn.utils import check_random_state

from tripletkit import defaults
from tripletkit.api.given import take_rows
from tripletkit.data.splits.held_out_draws import draw_splits
from tripletkit.data.triplets import Triplets
from tripletkit.errors import SettingsError, TripletFileError

# Share of the images that each of many draws holds out: a third leaves about 30% of triplets for
# training and 4% for the test, a half 12% for each.
_TEST_IMAGES = 1 / 3


class _OfImage(NamedTuple):
    """The triplets of which an image is the anchor, knowing its own number when it is divided."""

    image: int
    others: np.ndarray


def triplets_by_image(
    triplets: Triplets | np.ndarray | Sequence[Sequence[int]], n_images: int
) -> np.ndarray:
    """Return triplets as a `y` with one entry for each image, which scikit-learn can divide.

    `GridSearchCV` and `cross_val_score` divide the rows of `X` and the entries of `y` alike. Where
    the rows of `X` are features of images, triplets have no such entries by themselves. The part
    of a division that has some images has the triplets that are of these images alone, so any
    splitter holds out whole images.

    Args:
        triplets: `(n_triplets, 3)` integers, indices of images: anchor, positive, negative.
        n_images: how many images there are, as many as rows of `X`.
    Returns:
        `(n_images,)` objects, the triplets of each anchor.
    Raises:
        TripletFileError: if they are no such array, or an index is beyond the images.
    Example:
        >>> len(triplets_by_image([[0, 1, 2], [2, 1, 0]], n_images=4))
        4
    """
    rows = take_rows(triplets)
    if rows.size and not (rows.min() >= 0 and rows.max() < n_images):
        raise TripletFileError(
            f"expected indices of {n_images:,} images, got {rows.min()} to {rows.max()}"
        )
    order = np.argsort(rows[:, 0], kind="stable")
    starts = np.searchsorted(rows[order, 0], np.arange(n_images + 1))
    entries = np.empty(n_images, dtype=object)
    for image in range(n_images):
        of_anchor = order[starts[image] : starts[image + 1]]
        entries[image] = _OfImage(image, rows[of_anchor, 1:])
    return entries


def is_by_image(y: Any) -> bool:
    """Return whether this is what `triplets_by_image` returned, or a part of it."""
    return isinstance(y, np.ndarray) and y.dtype == object and isinstance(y.flat[0], _OfImage)


def rows_among(entries: np.ndarray) -> np.ndarray:
    """Return the `(n, 3)` int64 triplets among the images of entries, by their places here."""
    place_of = {entry.image: place for place, entry in enumerate(entries)}
    rows = [
        (place_of[entry.image], place_of[first], place_of[second])
        for entry in entries
        for first, second in entry.others.tolist()
        if first in place_of and second in place_of
    ]
    return np.array(rows, dtype=np.int64).reshape(-1, 3)


class ImageSplit:
    """Cross-validation splitter over index triplets whose training and test share no image.

    scikit-learn's `KFold` and `ShuffleSplit` divide rows. A row held out then asks about images,
    and often about the very pair, that training rows ask about too, so remembering is enough to
    score well (`tripletkit.controls` shows how well). Here a share of the images is held out in
    each split: triplets of these images alone are the test, triplets without any of them are for
    training, and triplets that mix both are in neither. Every image is held out equally often, up
    to once more or less.

    Args:
        n_splits: how many splits. Defaults to `5`.
        test_size: share of the images that is held out, between 0 and 1. Defaults to a third. Of
            triplets over images drawn by chance about its third power is left for the test.
        random_state: seed of the draws. Defaults to `0`; a `numpy.random.RandomState` or `None`
            draws anew each time.
    Example:
        >>> triplets = [[a, b, c] for a in range(9) for b in range(9) for c in range(9)
        ...             if len({a, b, c}) == 3]
        >>> train, test = next(ImageSplit().split(triplets))
        >>> len(triplets), len(train), len(test)  # 6 * 5 * 4 and 3 * 2 * 1
        (504, 120, 6)
    """

    def __init__(
        self,
        n_splits: int = 5,
        test_size: float = _TEST_IMAGES,
        random_state: int | np.random.RandomState | None = defaults.SEED,
    ) -> None:
        if n_splits < 1:
            raise SettingsError("n_splits", f"expected at least 1 for `n_splits`, got {n_splits}")
        if not 0 < test_size < 1:
            raise SettingsError(
                "test_size", f"expected a share between 0 and 1 for `test_size`, got {test_size}"
            )
        self.n_splits = n_splits
        self.test_size = test_size
        self.random_state = random_state

    def split(
        self,
        X: Any,
        y: Any = None,
        groups: Any = None,
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield the rows of each split.

        Args:
            X: `(n_triplets, 3)` integers, indices of images; or `Triplets`. With a `y` of
                `triplets_by_image`, whatever has a row for each image.
            y: passed over, unless it is of `triplets_by_image`: then images are divided.
            groups: `(n_images,)` the group of each image, such as a photographer or a patient;
                a group is held out as a whole. Defaults to `None`, every image by itself.
        Returns:
            Pairs of int64 arrays, rows of `X` for training and for the test.
        Raises:
            SplitError: if a draw leaves no triplet on one of the sides.
            SettingsError: if there is not a group for each image.
        """
        # A RandomState gives other draws each time, an integer the same, as in scikit-learn.
        seed = check_random_state(self.random_state).randint(np.iinfo(np.int32).max)
        rng = np.random.default_rng(seed)
        by_image = is_by_image(y)
        rows = rows_among(y) if by_image else take_rows(X)
        n_images = len(y) if by_image else int(rows.max(initial=-1)) + 1
        units = np.arange(n_images)
        if groups is not None:
            units = np.unique(np.asarray(groups), return_inverse=True)[1]
            if len(units) < n_images:
                raise SettingsError(
                    "groups",
                    f"expected a group for each of {n_images:,} images, got {len(units):,}",
                )
        for split in draw_splits(units[rows], self.n_splits, self.test_size, rng):
            if not by_image:
                yield split.train_rows, split.val_rows
                continue
            # An image that no triplet of a side has is of no use there.
            yield np.unique(rows[split.train_rows]), np.unique(rows[split.val_rows])

    def get_n_splits(
        self,
        X: Any = None,
        y: Any = None,
        groups: Any = None,
    ) -> int:
        """Return the number of splits.

        Args:
            X, y, groups: passed over; there because scikit-learn gives them.
        Returns:
            `n_splits`.
        """
        return self.n_splits

    def __repr__(self) -> str:
        return (
            f"ImageSplit(n_splits={self.n_splits}, test_size={self.test_size:g}, "
            f"random_state={self.random_state!r})"
        )

"""Cross-validation for scikit-learn whose training and test triplets share no image."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from sklearn.utils import check_random_state

from tripletkit import defaults
from tripletkit.api.inputs import take_rows
from tripletkit.data.splits.held_out_draws import draw_splits
from tripletkit.errors import SettingsError


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
        test_size: float = defaults.TEST_IMAGES,
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
            X: `(n_triplets, 3)` integers, indices of images; or `Triplets`.
            y, groups: passed over; there because scikit-learn gives them.
        Returns:
            Pairs of int64 arrays, rows for training and rows for the test.
        Raises:
            SplitError: if a draw leaves no triplet on one of the sides.
        """
        # A RandomState gives other draws each time, an integer the same, as in scikit-learn.
        seed = check_random_state(self.random_state).randint(np.iinfo(np.int32).max)
        rng = np.random.default_rng(seed)
        for split in draw_splits(take_rows(X), self.n_splits, self.test_size, rng):
            yield split.train_rows, split.val_rows

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

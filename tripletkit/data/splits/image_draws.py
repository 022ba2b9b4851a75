"""Draws of images to hold out, so that training and test triplets share no image.

One split of images is one draw of chance: which triplets are left for the test, and how hard they
are, differs much from one to the next. Many draws, in which every image is held out equally often,
average that out.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from tripletkit.data.splits.policies import Split, separate_groups
from tripletkit.errors import SplitError

BY_DRAW = "image draw"
# So few images make a triplet.
_FEWEST = 3


def draw_images(
    n_images: int, n_draws: int, test_size: float, rng: np.random.Generator
) -> Iterator[np.ndarray]:
    """Yield `(n_images,)` bool for each draw: the image is held out.

    Images take turns in an order of chance: after any number of draws, the one held out most often
    was so at most once more than the one held out least.

    Args:
        n_images: in all.
        n_draws: how many draws.
        test_size: share of the images held out in each, 0 to 1, both ends left out.
        rng: of the order.
    Raises:
        SplitError: if a side has fewer than three images, which no triplet fits into.
    """
    n_test = round(test_size * n_images)
    if min(n_test, n_images - n_test) < _FEWEST:
        raise SplitError(
            f"expected at least {_FEWEST} images on each side, got {n_images - n_test} for "
            f"training and {n_test} for the test. Try a `test_size` nearer to 0.5."
        )
    n_times = np.zeros(n_images, dtype=np.int64)
    for _ in range(n_draws):
        # Those held out least come first; chance decides among equals.
        order = np.lexsort((rng.random(n_images), n_times))
        is_held_out = np.zeros(n_images, dtype=bool)
        is_held_out[order[:n_test]] = True
        n_times[is_held_out] += 1
        yield is_held_out


def draw_splits(
    rows: np.ndarray, n_draws: int, test_size: float, rng: np.random.Generator
) -> list[Split]:
    """Return splits of triplets by `draw_images`; rows that mix both sides are dropped.

    Args:
        rows: `(n_triplets, 3)` integers, indices of images.
        n_draws, test_size, rng: see `draw_images`; images that no row has are not drawn.
    Raises:
        SplitError: if a draw leaves no triplet on one of the sides.
    """
    named, inside = np.unique(rows, return_inverse=True)
    inside = inside.reshape(-1, 3)
    splits = []
    for is_held_out in draw_images(len(named), n_draws, test_size, rng):
        split = separate_groups(BY_DRAW, inside, is_held_out, True)
        for side, kept in (("training", split.train_rows), ("the test", split.val_rows)):
            if not len(kept):
                raise SplitError(
                    f"expected triplets for training and for the test, got none for {side}: with "
                    f"{test_size:.0%} of {len(named):,} images held out, none of {len(rows):,} "
                    "triplets lies on that side whole. Try another `test_size`, or judge more "
                    "triplets."
                )
        splits.append(split)
    return splits

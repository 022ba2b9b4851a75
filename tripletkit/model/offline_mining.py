"""Offline mining: hard positives and negatives, looked for among all pictures, not in a batch.

A hard positive is a picture of the anchor's class that is far from it, a hard negative one of
another class that is near. The very hardest are often wrong labels, so cuts leave them out.

Reference:
    Schroff, Kalenichenko, Philbin. FaceNet. CVPR 2015. arXiv:1503.03832, section 3.2.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from tripletkit.data.labels import NO_LABEL
from tripletkit.evaluation.pairwise import PairwiseDistances

# Stands for a positive where there is none.
NOBODY = -1


def hardest_positives(
    codes: np.ndarray,
    labels: np.ndarray,
    distance: str,
    pictures: np.ndarray | None = None,
    *,
    farthest: float = np.inf,
) -> np.ndarray:
    """Return the hardest positive of each picture: the farthest one of its class.

    Only distances within classes are computed. Of equally far ones (to float32 rounding) the
    lower row is taken.

    Args:
        codes: `(n_images, n_dims)` float32; a row of NaN has no positive and is none.
        labels: `(n_images,)` integer classes; `NO_LABEL` has no positive and is none.
        distance: a name that `PairwiseDistances` takes.
        pictures: `(n_images,)` which picture each row shows; see `find_same_pictures`. No row
            is a positive of one that shows the same picture. Defaults to each its own.
        farthest: positives farther than this are passed over, for they may be wrong labels.
    Returns:
        `(n_images,)` int32 rows of `codes`; `NOBODY` where there is no positive.
    Example:
        >>> codes = np.array([[0.0], [1.0], [5.0], [2.0]], dtype=np.float32)
        >>> hardest_positives(codes, np.array([0, 0, 0, 1]), "l2")
        array([ 2,  2,  0, -1], dtype=int32)
    """
    rows, of_image = _distinct_pictures(codes, labels, pictures)
    found = np.full(len(rows) + 1, NOBODY, dtype=np.int32)
    for members in _classes(labels[rows]):
        distances = PairwiseDistances(codes[rows[members]], distance)
        for block in distances.blocks():
            to_class = distances.measure(block)
            to_class[to_class > farthest] = -1
            to_class[np.arange(len(to_class)), np.arange(block.start, block.stop)] = -1
            best = to_class.argmax(axis=1)
            is_there = to_class[np.arange(len(best)), best] >= 0
            found[members[block]] = np.where(is_there, rows[members[best]], NOBODY)
    # The last place is for rows without label or code.
    return found[of_image]


def _distinct_pictures(
    codes: np.ndarray, labels: np.ndarray, pictures: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """Return the first usable row of each picture, and for each row its place there or -1."""
    usable = np.flatnonzero((labels != NO_LABEL) & np.isfinite(codes).all(axis=1))
    of_image = np.full(len(codes), -1)
    if pictures is None:
        of_image[usable] = np.arange(len(usable))
        return usable, of_image
    _, first, place = np.unique(pictures[usable], return_index=True, return_inverse=True)
    of_image[usable] = place
    return usable[first], of_image


def _classes(labels: np.ndarray) -> Iterator[np.ndarray]:
    """Yield the rows of each class that has at least two."""
    order = np.argsort(labels, kind="stable")
    for members in np.split(order, np.flatnonzero(np.diff(labels[order])) + 1):
        if len(members) > 1:
            yield members

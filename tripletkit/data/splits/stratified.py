"""Images held out of training by class, so that every class is known and yet asked about."""

from __future__ import annotations

import numpy as np

from tripletkit import defaults
from tripletkit.data.labels import NO_LABEL
from tripletkit.data.questions import join_nodes
from tripletkit.errors import SplitError

# Images that clusters are found from.
_MOST_CLUSTERED = 3_000
# A pair of images, the least that a class needs for a triplet, in training and held out.
_PAIR = 2


def find_strata(
    rows: np.ndarray,
    n_images: int,
    labels: np.ndarray | None = None,
    features: np.ndarray | None = None,
) -> np.ndarray:
    """Return `(n_images,)` integers: the class of each image, or what comes nearest to it.

    Features, rows of length 1, are finite where a triplet has the image.
    """
    images = np.unique(rows)
    if labels is not None and np.any(labels[images] != NO_LABEL):
        return np.where(labels == NO_LABEL, labels.max() + 1, labels)
    strata = np.zeros(n_images, dtype=np.int64)
    n_clusters = min(defaults.N_CLUSTERS, len(images) // defaults.MIN_GROUP_IMAGES)
    if features is not None and n_clusters >= 2:
        strata[images] = cluster_images(features[images], n_clusters, 0)
        return strata
    # Classes never mix among positives, so there each of them is a component.
    return join_nodes(rows[:, [0]], rows[:, [1]], n_images)


def cluster_images(features: np.ndarray, n_groups: int, seed: int) -> np.ndarray:
    """Return `(n_images,)` integers: k-means clusters of features, rows of length 1.

    Of many images a sample says where the centers are.
    """
    from sklearn.cluster import KMeans

    sample = features
    if len(features) > _MOST_CLUSTERED:
        drawn = np.random.default_rng(seed).choice(len(features), _MOST_CLUSTERED, replace=False)
        sample = features[drawn]
    return KMeans(n_groups, n_init=3, random_state=seed).fit(sample).predict(features)


def hold_out_images(
    labels: np.ndarray,
    fraction: float,
    seed: int = defaults.SEED,
    images: np.ndarray | None = None,
) -> np.ndarray:
    """Draw the same share of every class, leaving pairs on both sides; `(n_images,)` bool.

    A class that has images held out has at least two, and at least two left for training: a
    class of fewer than four stays in training. Where its share is below two, chance decides
    whether it is two or none, so that the whole keeps its share. At least two classes have
    images held out, since a triplet needs a negative. Of `images` are those that may be held out,
    such as one name of each image; an image without a label never is.

    Example:
        >>> held_out = hold_out_images(np.repeat([0, 1, 2], 10), 0.3)
        >>> held_out.reshape(3, 10).sum(axis=1).tolist()
        [3, 3, 3]
    """
    is_held_out = np.zeros(len(labels), dtype=bool)
    if fraction == 0:
        return is_held_out
    usable = np.arange(len(labels)) if images is None else np.unique(images)
    usable = usable[labels[usable] != NO_LABEL]
    rng = np.random.default_rng(seed)
    # By chance within each class.
    usable = rng.permutation(usable)
    usable = usable[np.argsort(labels[usable], kind="stable")]
    _, starts, sizes = np.unique(labels[usable], return_index=True, return_counts=True)
    numbers = _numbers_of_classes(sizes, fraction, rng)
    rank = np.arange(len(usable)) - np.repeat(starts, sizes)
    is_held_out[usable[rank < np.repeat(numbers, sizes)]] = True
    return is_held_out


def _numbers_of_classes(sizes: np.ndarray, fraction: float, rng: np.random.Generator) -> np.ndarray:
    """Return `(n_classes,)` int64: how many images to hold out of each class."""
    is_large = sizes >= 2 * _PAIR
    if is_large.sum() < 2:
        raise SplitError(
            f"expected at least two classes of {2 * _PAIR} images to hold some of them out, got "
            f"{is_large.sum()} (largest class: {sizes.max(initial=0):,}). Give the images for "
            "validation yourself, or more of each class."
        )
    wanted = fraction * sizes[is_large]
    # Up to a pair all or nothing, above it the next whole number or the one below.
    step = np.where(wanted < _PAIR, _PAIR, 1)
    whole = np.where(wanted < _PAIR, 0, np.floor(wanted))
    numbers = whole + step * _round_by_chance((wanted - whole) / step, rng)
    numbers = np.minimum(numbers, sizes[is_large] - _PAIR).astype(np.int64)
    n_missing = max(0, 2 - np.count_nonzero(numbers))
    largest = np.argsort(-wanted * (numbers == 0), kind="stable")[:n_missing]
    numbers[largest] = _PAIR
    result = np.zeros(len(sizes), dtype=np.int64)
    result[is_large] = numbers
    return result


def _round_by_chance(shares: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return `(n,)` 0 or 1, each with its share as chance, their sum within 1 of the shares'.

    Reference:
        Systematic sampling; Madow. On the theory of systematic sampling, II. Annals of
        Mathematical Statistics 20, 1949.
    """
    order = rng.permutation(len(shares))
    steps = np.floor(np.cumsum(np.append(rng.random(), shares[order])))
    result = np.empty(len(shares))
    result[order] = np.diff(steps)
    return result

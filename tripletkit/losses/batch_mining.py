"""Distances within a batch, and online mining: which of its triplets to learn from.

`tripletkit.evaluation.distances` has the same distances for answers, in numpy; a test holds the two
together.

Each miner takes the distances between all images of a batch, and their classes, and
returns triplets as places in the batch. Two images of one class are never negatives of each
other, an image is never its own positive, and images without a class are in no triplet.
"""

from __future__ import annotations

from collections.abc import Callable

from tripletkit.features.keras_backend import KerasTensor, ops, tf

# The root has no slope at 0, where an image is its own positive; this bounds it.
_SMALLEST_SQUARE = 1e-12
_FAR = 1e30


def _squared_l2(a: KerasTensor, b: KerasTensor) -> KerasTensor:
    return ops.sum(ops.square(a - b), axis=-1)


def _cosine(a: KerasTensor, b: KerasTensor) -> KerasTensor:
    return 1.0 - ops.sum(ops.normalize(a, axis=-1) * ops.normalize(b, axis=-1), axis=-1)


# Each takes two tensors of embeddings, in the last axis of any length.
DISTANCES: dict[str, Callable[[KerasTensor, KerasTensor], KerasTensor]] = {
    "l2": lambda a, b: ops.sqrt(ops.maximum(_squared_l2(a, b), _SMALLEST_SQUARE)),
    "l1": lambda a, b: ops.sum(ops.abs(a - b), axis=-1),
    "squared-l2": _squared_l2,
    "cosine": _cosine,
}


def _pairwise_distances(embeddings: KerasTensor, distance: str) -> KerasTensor:
    """Return `(n, n)` distances between embeddings `(n, n_dims)`."""
    return DISTANCES[distance](embeddings[:, None, :], embeddings[None, :, :])


def _batch_all(distances: KerasTensor, labels: KerasTensor) -> KerasTensor:
    """Return every triplet that the classes allow: `(n_triplets, 3)` int32.

    The distances `(n, n)` have no part in it; labels `(n,)` are below 0 without a class. The other
    miners take and return the same.

    Reference:
        Hermans, Beyer, Leibe. In Defense of the Triplet Loss. 2017. arXiv:1703.07737.
    """
    is_positive, is_negative = _pairs(labels)
    allowed = is_positive[:, :, None] & is_negative[:, None, :]
    return tf.cast(tf.where(allowed), tf.int32)


def _batch_hard(distances: KerasTensor, labels: KerasTensor) -> KerasTensor:
    """Return a triplet for each image: its farthest positive and its nearest negative.

    Reference:
        Hermans, Beyer, Leibe. In Defense of the Triplet Loss. 2017. arXiv:1703.07737.
    """
    is_positive, is_negative = _pairs(labels)
    positive = tf.argmax(tf.where(is_positive, distances, -_FAR), axis=1, output_type=tf.int32)
    negative = tf.argmin(tf.where(is_negative, distances, _FAR), axis=1, output_type=tf.int32)
    anchor = tf.range(tf.shape(labels)[0])
    is_whole = tf.reduce_any(is_positive, axis=1) & tf.reduce_any(is_negative, axis=1)
    return tf.boolean_mask(tf.stack([anchor, positive, negative], axis=1), is_whole)


def _semi_hard(distances: KerasTensor, labels: KerasTensor) -> KerasTensor:
    """Return a triplet for each anchor and positive: the nearest negative farther than that.

    Where no negative is farther the farthest stands in, the least hard there is; so every pair
    teaches, and embeddings that are all alike still do.

    Reference:
        Schroff, Kalenichenko, Philbin. FaceNet. CVPR 2015. arXiv:1503.03832, section 3.2.
    """
    is_positive, is_negative = _pairs(labels)
    pairs = tf.cast(tf.where(is_positive & tf.reduce_any(is_negative, axis=1)[:, None]), tf.int32)
    to_positive = tf.gather_nd(distances, pairs)[:, None]
    of_anchor = tf.gather(distances, pairs[:, 0])
    is_negative = tf.gather(is_negative, pairs[:, 0])
    is_farther = is_negative & (of_anchor > to_positive)
    nearest = tf.argmin(tf.where(is_farther, of_anchor, _FAR), axis=1, output_type=tf.int32)
    farthest = tf.argmax(tf.where(is_negative, of_anchor, -_FAR), axis=1, output_type=tf.int32)
    negative = tf.where(tf.reduce_any(is_farther, axis=1), nearest, farthest)
    return tf.concat([pairs, negative[:, None]], axis=1)


def _pairs(labels: KerasTensor) -> tuple[KerasTensor, KerasTensor]:
    """Return `(n, n)` bool twice: of one class but not the same image; of two classes."""
    has_class = labels >= 0
    both = has_class[:, None] & has_class[None, :]
    is_same = labels[:, None] == labels[None, :]
    itself = tf.eye(tf.shape(labels)[0], dtype=tf.bool)
    return both & is_same & ~itself, both & ~is_same


MINERS: dict[str, Callable[[KerasTensor, KerasTensor], KerasTensor]] = {
    "batch-all": _batch_all,
    "batch-hard": _batch_hard,
    "semi-hard": _semi_hard,
}


def mined_distances(
    embeddings: KerasTensor, labels: KerasTensor, mining: str, distance: str
) -> tuple[KerasTensor, KerasTensor]:
    """Return the distances of the triplets of a batch that are mined: to positive, to negative."""
    between = _pairwise_distances(embeddings, distance)
    mined = MINERS[mining](tf.stop_gradient(between), labels)
    # Taken from the matrix, because there can be a thousand times as many as embeddings.
    return (
        tf.gather_nd(between, tf.gather(mined, [0, 1], axis=1)),
        tf.gather_nd(between, tf.gather(mined, [0, 2], axis=1)),
    )

"""Losses of triplets as functions of two distances, distances within a batch, and online mining.

`tripletkit.evaluation.distances` has the same distances for answers, in numpy; a test holds the two
together. A miner takes the distances between all images of a batch, and their classes, and returns
triplets as places in the batch. Two images of one class are never negatives of each other, an image
is never its own positive, and images without a class (a label below 0) are in no triplet.

References:
    Hermans, Beyer, Leibe. In Defense of the Triplet Loss. 2017. arXiv:1703.07737 (mining of all and
    of the hardest; "active" is its "nonzero"); Schroff, Kalenichenko, Philbin. FaceNet. CVPR 2015.
    arXiv:1503.03832, section 3.2 (semi-hard). Those of the losses are in their registry.
"""

from __future__ import annotations

from collections.abc import Callable
from numbers import Real
from typing import Any

from tripletkit import defaults
from tripletkit.errors import SettingsError
from tripletkit.features.keras_backend import KerasTensor, keras, ops, tf
from tripletkit.losses.loss_registry import get_loss
from tripletkit.registry import describe_unknown

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


def _batch_all(distances: KerasTensor, labels: KerasTensor) -> KerasTensor:
    """Return every triplet that the classes allow: `(n_triplets, 3)` int32."""
    is_positive, is_negative = _pairs(labels)
    allowed = is_positive[:, :, None] & is_negative[:, None, :]
    return tf.cast(tf.where(allowed), tf.int32)


def _batch_hard(distances: KerasTensor, labels: KerasTensor) -> KerasTensor:
    """Return a triplet for each image: its farthest positive and its nearest negative."""
    is_positive, is_negative = _pairs(labels)
    positive = tf.argmax(tf.where(is_positive, distances, -_FAR), axis=1, output_type=tf.int32)
    negative = tf.argmin(tf.where(is_negative, distances, _FAR), axis=1, output_type=tf.int32)
    anchor = tf.range(tf.shape(labels)[0])
    is_whole = tf.reduce_any(is_positive, axis=1) & tf.reduce_any(is_negative, axis=1)
    return tf.boolean_mask(tf.stack([anchor, positive, negative], axis=1), is_whole)


def _semi_hard(distances: KerasTensor, labels: KerasTensor) -> KerasTensor:
    """Return a triplet for each anchor and positive: the nearest negative farther than that. Where
    no negative is farther the farthest stands in, the least hard there is; so every pair teaches,
    and embeddings that are all alike still do."""
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
    between = DISTANCES[distance](embeddings[:, None, :], embeddings[None, :, :])
    mined = MINERS[mining](tf.stop_gradient(between), labels)
    # Taken from the matrix, because there can be a thousand times as many as embeddings.
    return (
        tf.gather_nd(between, tf.gather(mined, [0, 1], axis=1)),
        tf.gather_nd(between, tf.gather(mined, [0, 2], axis=1)),
    )


def _triplet_margin_loss(
    to_positive: KerasTensor, to_negative: KerasTensor, margin: float
) -> KerasTensor:
    """Return `(n,)` how far each triplet is from having its negative `margin` further off."""
    return ops.maximum(to_positive - to_negative + margin, 0.0)


def _soft_margin_loss(to_positive: KerasTensor, to_negative: KerasTensor) -> KerasTensor:
    """Return `(n,)` log(1 + exp(d(a, p) - d(a, n))): a margin that never ends."""
    return ops.softplus(to_positive - to_negative)


def _ratio_loss(to_positive: KerasTensor, to_negative: KerasTensor) -> KerasTensor:
    """Return `(n,)` the square of the positive's share in a softmax over the two distances."""
    return ops.square(ops.sigmoid(to_positive - to_negative))


def mean_loss(losses: KerasTensor, reduction: str) -> KerasTensor:
    """Return the mean of losses `(n,)`; 0 where there is nothing to take it of. With `"active"` of
    those above 0 alone: the mean over all shrinks as training goes on, until the few triplets that
    still teach are hardly heard."""
    counted = ops.ones_like(losses)
    if reduction == "active":
        counted = ops.cast(losses > 0, losses.dtype)
    return ops.sum(losses * counted) / ops.maximum(ops.sum(counted), 1.0)


@keras.saving.register_keras_serializable("tripletkit")
class TripletLoss(keras.losses.Loss):
    """The loss of triplets that are mined within a batch, for `model.compile(loss=...)`.

    `y_true` are the classes of the images of a batch, integers, below 0 without one; `y_pred` are
    their embeddings. With `mining="semi-hard"` and `"batch-hard"` it is `TripletSemiHardLoss` and
    `TripletHardLoss` of tensorflow-addons, with `loss="soft-margin"` their soft form.

    Args:
        loss: `"triplet"`, `"soft-margin"` or `"ratio"`.
        mining: `"semi-hard"`, `"batch-hard"` or `"batch-all"`.
        distance: `"l2"`, `"l1"`, `"squared-l2"` or `"cosine"`.
        margin: in units of the distance.
        reduce_over: `"all"`, or `"active"` to average over triplets that break the margin.
    Example:
        `model.compile("adam", tripletkit.losses.TripletLoss(margin=0.5))`
    """

    def __init__(
        self,
        loss: str = defaults.LOSS,
        mining: str = "semi-hard",
        distance: str = defaults.DISTANCE,
        margin: float = defaults.MARGIN,
        reduce_over: str = defaults.REDUCTION,
        name: str | None = None,
    ) -> None:
        super().__init__(name=name, reduction=None)
        for setting, value, known in (
            ("mining", mining, MINERS),
            ("distance", distance, DISTANCES),
            ("reduce_over", reduce_over, ("all", "active")),
        ):
            if value not in known:
                raise SettingsError(setting, f"`{setting}`: {describe_unknown(value, known)}")
        if not isinstance(margin, Real) or not 0 <= float(margin) < float("inf"):
            raise SettingsError("margin", f"`margin`: expected 0 or more, got {margin!r}")
        if (function := get_loss(loss).of_distances(margin)) is None:
            raise SettingsError("loss", f'`loss`: expected a loss of triplets, got "{loss}"')
        self._of_distances: Callable[..., Any] = function
        self._settings: dict[str, Any] = {
            "loss": loss,
            "mining": mining,
            "distance": distance,
            "margin": float(margin),
            "reduce_over": reduce_over,
        }

    def __call__(self, y_true: KerasTensor, y_pred: KerasTensor, sample_weight: Any = None) -> Any:
        if sample_weight is not None:
            said = (
                "leave out `sample_weight` and `class_weight`: the loss is of triplets, not images"
            )
            raise SettingsError("sample_weight", said)
        return super().__call__(y_true, y_pred)

    def call(self, y_true: KerasTensor, y_pred: KerasTensor) -> KerasTensor:
        labels = ops.cast(ops.reshape(y_true, (-1,)), "int32")
        settings = self._settings
        distances = mined_distances(y_pred, labels, settings["mining"], settings["distance"])
        return mean_loss(self._of_distances(*distances), settings["reduce_over"])

    def get_config(self) -> dict[str, Any]:
        return {"name": self.name, **self._settings}

"""Losses: pure functions over distances, embeddings and classes, and Keras classes around them.

The functions give one value for each triplet or image; `mean_loss` makes one of them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tripletkit import defaults
from tripletkit.errors import SettingsError
from tripletkit.features.keras_backend import KerasTensor, keras, ops
from tripletkit.losses.batch_mining import MINERS, mined_distances
from tripletkit.losses.loss_registry import get_loss
from tripletkit.registry import load_object

# Distances to positive and negative -> losses, all `(n,)`.
_OfDistances = Callable[[KerasTensor, KerasTensor], KerasTensor]


def triplet_margin_loss(
    to_positive: KerasTensor, to_negative: KerasTensor, margin: float
) -> KerasTensor:
    """Return `(n,)` how far each triplet is from having its negative `margin` further off.

    Reference:
        Schroff, Kalenichenko, Philbin. FaceNet. CVPR 2015. arXiv:1503.03832, equation 2; there with
        squared distances.
    """
    return ops.maximum(to_positive - to_negative + margin, 0.0)


def soft_margin_loss(to_positive: KerasTensor, to_negative: KerasTensor) -> KerasTensor:
    """Return `(n,)` log(1 + exp(d(a, p) - d(a, n))): a margin that never ends.

    Reference:
        Hermans, Beyer, Leibe. In Defense of the Triplet Loss. 2017. arXiv:1703.07737, section 2.
    """
    return ops.softplus(to_positive - to_negative)


def ratio_loss(to_positive: KerasTensor, to_negative: KerasTensor) -> KerasTensor:
    """Return `(n,)` the square of the positive's share in a softmax over the two distances.

    Reference:
        Hoffer, Ailon. Deep metric learning using triplet network. 2015. arXiv:1412.6622, section 3;
        without its constant factor.
    """
    return ops.square(ops.sigmoid(to_positive - to_negative))


def mean_loss(losses: KerasTensor, reduction: str) -> KerasTensor:
    """Return the mean of losses `(n,)`; 0 where there is nothing to take it of.

    With `"active"` of those above 0 alone: the mean over all shrinks as training goes on, until the
    few triplets that still teach are hardly heard.

    Reference:
        Hermans et al. 2017, arXiv:1703.07737, section 3.2: active ones, there "nonzero".
    """
    counted = ops.ones_like(losses)
    if reduction == "active":
        counted = ops.cast(losses > 0, losses.dtype)
    return ops.sum(losses * counted) / ops.maximum(ops.sum(counted), 1.0)


def _center_loss(embeddings: KerasTensor, centers: KerasTensor) -> KerasTensor:
    """Return `(n,)` half the squared distance of each embedding from the center of its class.

    Reference:
        Wen, Zhang, Li, Qiao. A discriminative feature learning approach for deep face recognition.
        ECCV 2016, equation 2. doi:10.1007/978-3-319-46478-7_31.
    """
    return 0.5 * ops.sum(ops.square(embeddings - centers), axis=-1)


def cross_entropy_loss(logits: KerasTensor, labels: KerasTensor) -> KerasTensor:
    """Return the softmax cross-entropy of each image: `(n, n_classes)`, `(n,)` -> `(n,)`.

    Reference:
        Bridle. Probabilistic interpretation of feedforward classification network outputs.
        Neurocomputing 1990. doi:10.1007/978-3-642-76153-9_28.
    """
    return ops.sparse_categorical_crossentropy(labels, logits, from_logits=True)


def _move_centers(
    centers: KerasTensor,
    is_placed: KerasTensor,
    embeddings: KerasTensor,
    labels: KerasTensor,
    decay: float,
) -> tuple[KerasTensor, KerasTensor]:
    """Move the center of every class in a batch towards the mean of its embeddings there.

    The exponential moving average c <- decay c + (1 - decay) mean. A class that is seen for the
    first time gets the mean itself, since there is nothing yet to average with.

    Args:
        centers: `(n_classes, n_dims)`.
        is_placed: `(n_classes,)` 0 or 1: the class was seen before.
        embeddings: `(n, n_dims)` of the batch.
        labels: `(n,)` integers, below 0 without a class.
    Returns:
        The new centers and `is_placed`.
    """
    one_hot = ops.one_hot(labels, centers.shape[0], dtype=embeddings.dtype)
    counts = ops.sum(one_hot, axis=0)[:, None]
    means = ops.matmul(ops.transpose(one_hot), embeddings) / ops.maximum(counts, 1.0)
    kept = decay * is_placed[:, None]
    moved = kept * centers + (1.0 - kept) * means
    is_here = counts > 0
    return ops.where(is_here, moved, centers), ops.maximum(
        is_placed, ops.cast(is_here[:, 0], is_placed.dtype)
    )


def triplet_loss_of(name: str, margin: float) -> _OfDistances | None:
    """Return the function of the two distances of a loss; None where triplets have no part."""
    loss = get_loss(name)
    if loss.of_triplets is None:
        return None
    function: Callable[..., KerasTensor] = load_object(loss.of_triplets)
    if not loss.has_margin:
        return function
    return lambda to_positive, to_negative: function(to_positive, to_negative, margin)


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
        if (function := triplet_loss_of(loss, margin)) is None or mining not in MINERS:
            raise SettingsError(
                "loss",
                f'expected a loss of triplets, and mining among {", ".join(MINERS)}, got "{loss}" '
                f'and "{mining}"',
            )
        self._of_distances = function
        self._settings: dict[str, Any] = {
            "loss": loss,
            "mining": mining,
            "distance": distance,
            "margin": margin,
            "reduce_over": reduce_over,
        }

    def call(self, y_true: KerasTensor, y_pred: KerasTensor) -> KerasTensor:
        labels = ops.cast(ops.reshape(y_true, (-1,)), "int32")
        settings = self._settings
        distances = mined_distances(y_pred, labels, settings["mining"], settings["distance"])
        return mean_loss(self._of_distances(*distances), settings["reduce_over"])

    def get_config(self) -> dict[str, Any]:
        return {"name": self.name, **self._settings}


@keras.saving.register_keras_serializable("tripletkit")
class ClassCenters(keras.layers.Layer):
    """Class centers that follow the embeddings, and each embedding's loss by its distance from its
    own.

    The centers move by `_move_centers` when called with `training=True`, after the loss has been
    taken from where they were. No gradient reaches them.
    """

    def __init__(
        self, n_classes: int, decay: float = defaults.CENTER_DECAY, **options: Any
    ) -> None:
        super().__init__(**options)
        self.n_classes = n_classes
        self.decay = decay

    def build(self, embeddings_shape: tuple[int | None, int]) -> None:
        self.centers = self.add_weight(
            (self.n_classes, embeddings_shape[-1]), "zeros", trainable=False, name="centers"
        )
        self.is_placed = self.add_weight(
            (self.n_classes,), "zeros", trainable=False, name="is_placed"
        )

    def call(
        self, embeddings: KerasTensor, labels: KerasTensor, *, training: bool = False
    ) -> KerasTensor:
        """Return `(n,)` losses; 0 without a class, or where the class has no center yet."""
        own = ops.maximum(labels, 0)
        is_counted = ops.cast(labels >= 0, embeddings.dtype) * ops.take(self.is_placed, own)
        centers = ops.stop_gradient(ops.take(self.centers, own, axis=0))
        losses = is_counted * _center_loss(embeddings, centers)
        if training:
            moved, is_placed = _move_centers(
                self.centers, self.is_placed, ops.stop_gradient(embeddings), labels, self.decay
            )
            self.centers.assign(moved)
            self.is_placed.assign(is_placed)
        return losses

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"n_classes": self.n_classes, "decay": self.decay}

"""What a batch of embeddings is trained for: the parts of a loss, put together."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tripletkit.data.labels import NO_LABEL
from tripletkit.features.keras_backend import KerasTensor, keras, ops, tf
from tripletkit.losses.batch_mining import MINERS, pairwise_distances
from tripletkit.losses.functions import ClassCenters, cross_entropy_loss, mean_loss
from tripletkit.losses.keras_distances import DISTANCES
from tripletkit.losses.loss_registry import get_loss
from tripletkit.model.settings import HeadSettings
from tripletkit.registry import load_object

# What the learned scale of the classifier's cosines starts at.
_LOGIT_SCALE = 16.0


@keras.saving.register_keras_serializable("tripletkit")
class CosineClassifier(keras.layers.Layer):
    """The cosine between an embedding and a vector for each class, times a scale that is learned.

    Between vectors of length 1 a plain product is -1 to 1, which the softmax over many classes
    cannot make sure of anything by; the scale can grow.

    Args:
        n_classes: how many.
    Reference:
        Wang, Xiang, Cheng, Yuille. NormFace. ACM Multimedia 2017. arXiv:1704.06369.
    """

    def __init__(self, n_classes: int, **options: Any) -> None:
        super().__init__(**options)
        self.n_classes = n_classes

    def build(self, embeddings_shape: tuple[int | None, int]) -> None:
        self.kernel = self.add_weight(
            (embeddings_shape[-1], self.n_classes), "he_uniform", name="kernel"
        )
        self.scale = self.add_weight((), keras.initializers.Constant(_LOGIT_SCALE), name="scale")

    def call(self, embeddings: KerasTensor) -> KerasTensor:
        """Return logits: `(n, n_dims)` -> `(n, n_classes)`."""
        return self.scale * ops.matmul(
            ops.normalize(embeddings, axis=-1), ops.normalize(self.kernel, axis=0)
        )

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"n_classes": self.n_classes}


# Distances to positive and negative -> losses, all `(n,)`.
OfDistances = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]


class Objective:
    """The loss of a batch, with what of it is learned or kept beside the embeddings.

    Args:
        settings: names the loss, its parts' weights, and how triplets are mined.
        n_classes: for losses that need labels.
        dim: of the embeddings.
        squared: distances are squared before the loss takes them.
    """

    def __init__(
        self, settings: HeadSettings, n_classes: int, dim: int, *, squared: bool = False
    ) -> None:
        self._settings = settings
        self._squared = squared
        self._loss = get_loss(settings.loss)
        self._miner = MINERS.get(settings.mining)
        self._of_triplets = make_triplet_loss(settings)
        self.classifier: CosineClassifier | None = None
        self.centers: ClassCenters | None = None
        if self._loss.has_cross_entropy:
            self.classifier = CosineClassifier(n_classes, name="classifier")
            self.classifier.build((None, dim))
        if self._loss.has_centers:
            self.centers = ClassCenters(n_classes, settings.center_decay, name="centers")
            self.centers.build((None, dim))

    @property
    def trainable_variables(self) -> list[keras.Variable]:
        return [] if self.classifier is None else self.classifier.trainable_variables

    @property
    def variables(self) -> list[keras.Variable]:
        """All that a checkpoint must hold."""
        parts = [part for part in (self.classifier, self.centers) if part is not None]
        return [variable for part in parts for variable in part.variables]

    def __call__(
        self, embeddings: tf.Tensor, labels: tf.Tensor, triplets: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Return the loss of a batch, and the share that breaks what is asked of it.

        Args:
            embeddings: `(n, dim)` float32.
            labels: `(n,)` int32; `NO_LABEL` without a class.
            triplets: `(n_triplets, 3)` int32 places in the batch; passed over where they are
                mined.
        Returns:
            Two scalars. The second is the share of triplets that break the margin (without one:
            whose positive is not the nearer), or without triplets of images taken for another
            class.
        """
        loss, active = tf.constant(0.0), tf.constant(0.0)
        if self.classifier is not None:
            is_known = labels != NO_LABEL
            known = tf.boolean_mask(embeddings, is_known)
            own = tf.boolean_mask(labels, is_known)
            logits = self.classifier(known)
            weight = 1.0
            if self._of_triplets is not None:
                weight = self._settings.cross_entropy_weight
            loss += weight * mean_loss(cross_entropy_loss(logits, own), "all")
            guessed = tf.argmax(logits, axis=1, output_type=tf.int32)
            active = _share(guessed != own)
        if self.centers is not None:
            losses = self.centers(embeddings, labels, training=True)
            loss += self._settings.center_weight * mean_loss(losses, "all")
        if self._of_triplets is not None:
            to_positive, to_negative = self._measure(embeddings, labels, triplets)
            losses = self._of_triplets(to_positive, to_negative)
            loss += mean_loss(losses, self._settings.reduction)
            margin = self._settings.margin if self._loss.has_margin else 0.0
            active = _share(to_positive + margin > to_negative)
        return loss, active

    def _measure(
        self, embeddings: tf.Tensor, labels: tf.Tensor, triplets: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Return the distances of the triplets: to positive, to negative."""
        name = self._settings.distance
        if self._miner is None:
            anchor, positive, negative = (
                tf.gather(embeddings, triplets[:, slot]) for slot in range(3)
            )
            measured = DISTANCES[name](anchor, positive), DISTANCES[name](anchor, negative)
        else:
            between = pairwise_distances(embeddings, name)
            mined = self._miner(tf.stop_gradient(between), labels)
            # Taken from the matrix, because there can be a thousand times as many as embeddings.
            measured = (
                tf.gather_nd(between, tf.gather(mined, [0, 1], axis=1)),
                tf.gather_nd(between, tf.gather(mined, [0, 2], axis=1)),
            )
        if self._squared:
            return tf.square(measured[0]), tf.square(measured[1])
        return measured


def make_triplet_loss(settings: HeadSettings) -> OfDistances | None:
    """Return the loss's function of the two distances, or None where triplets have no part."""
    loss = get_loss(settings.loss)
    if loss.of_triplets is None:
        return None
    function = load_object(loss.of_triplets)
    if not loss.has_margin:
        return function
    return lambda to_positive, to_negative: function(to_positive, to_negative, settings.margin)


def _share(is_so: tf.Tensor) -> tf.Tensor:
    """Return the share of true values; 0 of none."""
    count = tf.reduce_sum(tf.cast(is_so, tf.float32))
    return count / tf.maximum(tf.cast(tf.size(is_so), tf.float32), 1.0)

"""Training of a head on rows of a feature matrix.

The features of all pictures stay in one matrix on the device; a batch is three columns of
row numbers. Each distinct picture of a batch is encoded once, however many of its triplets
it is in. (So a picture has one dropout mask in a batch, where the three-input model draws
one for every place; validation accuracy is the same within its noise.)

Training sees the features standardised, so that one learning rate suits every backbone;
afterwards the shift and scale are folded into the first Dense layer, and the head that is
kept takes the backbone's features as they are.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass

import keras
import numpy as np
import tensorflow as tf

from tripletkit import defaults
from tripletkit.evaluation.distances import triplet_margins
from tripletkit.model.collapse import check_collapse, mean_pairwise_distance
from tripletkit.model.distances import DISTANCES
from tripletkit.model.heads import build_head, embed
from tripletkit.model.losses import triplet_margin_loss


@dataclass(frozen=True)
class HeadSettings:
    """What decides a trained head, beside its data.

    Attributes:
        hidden, dim: widths of the hidden layer and of a code.
        dropout: share of hidden values dropped in training.
        distance: a key of `DISTANCES`.
        margin: in units of the distance.
        epochs: passes over the triplets, at most.
        patience: epochs without a better validation accuracy before training stops.
        batch_size: triplets in a step.
        learning_rate: of Adam.
        seed: of weights, dropout and order.
    """

    hidden: int = defaults.HIDDEN
    dim: int = defaults.DIM
    dropout: float = defaults.DROPOUT
    distance: str = defaults.DISTANCE
    margin: float = defaults.MARGIN
    epochs: int = defaults.EPOCHS
    patience: int = defaults.PATIENCE
    batch_size: int = defaults.BATCH_SIZE
    learning_rate: float = defaults.LEARNING_RATE
    seed: int = defaults.SEED


@dataclass(frozen=True)
class EpochRecord:
    """One epoch.

    Attributes:
        loss: mean over the epoch's triplets, dropout on.
        violating: share of them nearer to breaking the margin than to meeting it: loss > 0.
        val_accuracy: share of validation triplets right after the epoch; NaN without any.
        spread: root mean square distance between two codes of training pictures.
    """

    epoch: int
    loss: float
    violating: float
    val_accuracy: float
    spread: float


@dataclass(frozen=True)
class Scaling:
    """Shift and scale that give features mean 0 and deviation 1 over the training pictures.

    Attributes:
        mean, deviation: `(n_features,)` float64.
    """

    mean: np.ndarray
    deviation: np.ndarray

    @classmethod
    def of(cls, features: np.ndarray) -> Scaling:
        deviation = features.std(axis=0, dtype=np.float64)
        # A feature that hardly ever varies would be blown up to noise; so would a dead one.
        floor = 0.1 * deviation.mean()
        return cls(
            features.mean(axis=0, dtype=np.float64),
            np.maximum(deviation, floor if floor > 0 else 1.0),
        )

    def apply(self, features: np.ndarray) -> np.ndarray:
        scaled = features - self.mean.astype(np.float32)
        scaled /= self.deviation.astype(np.float32)
        return scaled

    def fold_into(self, weights: list[np.ndarray]) -> list[np.ndarray]:
        """Return a head's weights such that it gives the same codes on features as they are."""
        kernel, bias, *others = weights
        folded = kernel / self.deviation[:, None]
        return [folded, bias - self.mean @ folded, *others]


@dataclass(frozen=True)
class TrainedHead:
    """A head with the weights of its best epoch.

    Attributes:
        head: `(batch, n_features)` -> `(batch, dim)`.
        history: one record an epoch.
        best_epoch: the epoch kept, from 1: the best by validation accuracy, the earliest of
            equals; the last one without validation.
    """

    head: keras.Model
    history: list[EpochRecord]
    best_epoch: int

    def history_rows(self) -> list[dict[str, float]]:
        return [asdict(record) for record in self.history]


def train_head(
    features: np.ndarray,
    train_rows: np.ndarray,
    val_rows: np.ndarray,
    settings: HeadSettings,
    *,
    chooses_epoch: bool = True,
    on_epoch: Callable[[EpochRecord], None] | None = None,
) -> TrainedHead:
    """Train a head with the triplet margin loss and keep its best epoch.

    Memory holds the features once, whatever the number of triplets.

    Args:
        features: `(n_images, n_features)` float32.
        train_rows: `(n_triplets, 3)` indices into `features`: anchor, positive, negative.
        val_rows: the same for validation; may be empty.
        settings: see `HeadSettings`.
        chooses_epoch: keep the best epoch by validation accuracy and stop when it no longer
            rises; otherwise, as without validation triplets, keep the last.
        on_epoch: told each epoch's record.
    Raises:
        CollapseError: if the codes become alike.
    Reference:
        Schroff, Kalenichenko, Philbin. FaceNet. CVPR 2015. arXiv:1503.03832.
    """
    keras.utils.set_random_seed(settings.seed)
    tf.config.experimental.enable_op_determinism()
    order = np.random.default_rng(settings.seed)
    head = build_head(features.shape[1], settings.hidden, settings.dim, settings.dropout)
    train_images = np.unique(train_rows)
    scaling = Scaling.of(features[train_images])
    standardised = scaling.apply(features)
    run_epoch = _make_epoch(head, standardised, settings)

    chooses_epoch = chooses_epoch and len(val_rows) > 0

    history: list[EpochRecord] = []
    best_epoch, best_accuracy, best_weights = 0, -np.inf, None
    for epoch in range(1, settings.epochs + 1):
        loss, violating = run_epoch(tf.constant(order.permutation(train_rows), tf.int32))
        codes = embed(head, standardised)
        accuracy = np.nan
        if len(val_rows):
            accuracy = float(np.mean(triplet_margins(codes, val_rows, settings.distance) > 0))
        train_codes = codes[train_images]
        record = EpochRecord(
            epoch, float(loss), float(violating), accuracy, mean_pairwise_distance(train_codes)
        )
        check_collapse(train_codes, record.loss, settings.margin, settings.learning_rate)
        history.append(record)
        if on_epoch is not None:
            on_epoch(record)
        if not chooses_epoch or accuracy > best_accuracy:
            best_epoch, best_accuracy, best_weights = epoch, accuracy, head.get_weights()
        elif epoch - best_epoch >= settings.patience:
            break
    head.set_weights(scaling.fold_into(best_weights))
    return TrainedHead(head, history, best_epoch)


def choose_epochs(n_triplets: int, batch_size: int) -> int:
    """Return how many passes a training set gets by default: small ones more.

    Example:
        >>> choose_epochs(20_000, batch_size=256), choose_epochs(1_000, batch_size=256)
        (10, 100)
    """
    steps = -(-n_triplets // batch_size)
    wanted = -(-defaults.MIN_STEPS // steps)
    return min(max(defaults.EPOCHS, wanted), defaults.MAX_EPOCHS)


def _make_epoch(
    head: keras.Model, features: np.ndarray, settings: HeadSettings
) -> Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]]:
    """Return a compiled pass over `(n_triplets, 3)` rows that gives mean loss and violations."""
    matrix = tf.constant(features)
    distance = DISTANCES[settings.distance]
    optimizer = keras.optimizers.Adam(settings.learning_rate)
    optimizer.build(head.trainable_variables)

    def step(rows: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        images, places = tf.unique(tf.reshape(rows, [-1]))
        places = tf.reshape(places, [-1, 3])
        with tf.GradientTape() as tape:
            codes = head(tf.gather(matrix, images), training=True)
            anchor, positive, negative = (tf.gather(codes, places[:, slot]) for slot in range(3))
            losses = triplet_margin_loss(
                distance(anchor, positive), distance(anchor, negative), settings.margin
            )
            loss = tf.reduce_mean(losses)
        variables = [variable.value for variable in head.trainable_variables]
        optimizer.apply(tape.gradient(loss, variables), head.trainable_variables)
        return tf.reduce_sum(losses), tf.reduce_sum(tf.cast(losses > 0, tf.float32))

    @tf.function(input_signature=[tf.TensorSpec((None, 3), tf.int32)])
    def epoch(rows: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        n_rows = tf.shape(rows)[0]
        total, violating = tf.constant(0.0), tf.constant(0.0)
        for start in tf.range(0, n_rows, settings.batch_size):
            sums = step(rows[start : start + settings.batch_size])
            total, violating = total + sums[0], violating + sums[1]
        n = tf.cast(n_rows, tf.float32)
        return total / n, violating / n

    return epoch

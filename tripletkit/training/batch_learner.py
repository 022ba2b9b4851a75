"""Batches of images, the loss of a batch, and an optimizer at work on it, whatever an image is
given by."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tripletkit.data.labels import NO_LABEL
from tripletkit.features.keras_backend import KerasTensor, keras, ops, tf
from tripletkit.losses.batch_mining import DISTANCES, mined_distances
from tripletkit.losses.functions import (
    ClassCenters,
    cross_entropy_loss,
    mean_loss,
    triplet_loss_of,
)
from tripletkit.losses.loss_registry import get_loss
from tripletkit.model.recipes import get_recipe
from tripletkit.model.settings import Settings

# What the learned scale of the classifier's cosines starts at.
_LOGIT_SCALE = 16.0


@dataclass(frozen=True)
class Batch:
    """Images that are encoded together.

    Attributes:
        images: `(n,)` int32, each image once.
        labels: `(n,)` int32, their classes; `NO_LABEL` without.
        triplets: `(n_triplets, 3)` int32 places in `images`; none where they are mined online.
    """

    images: np.ndarray
    labels: np.ndarray
    triplets: np.ndarray


class Batches(ABC):
    """What an epoch is made of.

    Attributes:
        positives: `(n_images,)` index of the hardest known positive of each image; below 0 for
            none. None where none are added.
    """

    positives: np.ndarray | None = None

    @abstractmethod
    def epoch(self, rng: np.random.Generator) -> Iterator[Batch]:
        """Yield the batches of one epoch, in an order of chance."""


@dataclass
class _TripletBatches(Batches):
    """Triplets as they were given, each once an epoch, the last batch perhaps with fewer."""

    rows: np.ndarray
    labels: np.ndarray
    batch_size: int

    def epoch(self, rng: np.random.Generator) -> Iterator[Batch]:
        rows = rng.permutation(self.rows)
        for start in range(0, len(rows), self.batch_size):
            part = rows[start : start + self.batch_size]
            images, places = np.unique(part, return_inverse=True)
            triplets = places.reshape(-1, 3).astype(np.int32)
            yield Batch(images.astype(np.int32), self.labels[images], triplets)


@dataclass
class _ImageBatches(Batches):
    """Images, each once an epoch, for losses that look at no triplet."""

    images: np.ndarray
    labels: np.ndarray
    batch_size: int

    def epoch(self, rng: np.random.Generator) -> Iterator[Batch]:
        images = rng.permutation(self.images).astype(np.int32)
        for start in range(0, len(images), self.batch_size):
            yield _without_triplets(images[start : start + self.batch_size], self.labels)


class _ClassBatches(Batches):
    """P classes with K images each, for mining within the batch.

    An epoch has as many batches as it takes to show so many images as there are. The classes of a
    batch are distinct and take turns; so do the images of a class, none twice in a batch. A class
    of fewer than K images gives all it has. Classes of one image, and images without a label, are
    left out. Where `positives` are set, every batch has those of its images too; such an image
    brings its own class along, so it is nobody's false negative.

    Reference:
        Hermans, Beyer, Leibe. In Defense of the Triplet Loss. 2017. arXiv:1703.07737: PK batches.
    """

    def __init__(
        self, images: np.ndarray, labels: np.ndarray, n_classes: int, n_images: int
    ) -> None:
        self._labels = labels
        of_class = [images[labels[images] == label] for label in np.unique(labels[images])]
        self._members = [
            members for members in of_class if len(members) > 1 and labels[members[0]] != NO_LABEL
        ]
        self._n_classes = min(n_classes, len(self._members))
        self._n_images = n_images

    def epoch(self, rng: np.random.Generator) -> Iterator[Batch]:
        total = sum(len(members) for members in self._members)
        classes = _turns(np.arange(len(self._members)), rng)
        turns = [_turns(members, rng) for members in self._members]
        shown = 0
        while shown < total:
            drawn = [next(classes)]
            while len(drawn) < self._n_classes:
                if (following := next(classes)) not in drawn:
                    drawn.append(following)
            images = np.concatenate([self._draw(turns[which], which) for which in drawn])
            shown += len(images)
            if self.positives is not None:
                added = self.positives[images]
                added = np.setdiff1d(added[added >= 0], images)
                images = np.concatenate([images, added])
            yield _without_triplets(images.astype(np.int32), self._labels)

    def _draw(self, turns: Iterator[int], which: int) -> np.ndarray:
        wanted = min(self._n_images, len(self._members[which]))
        drawn: dict[int, None] = {}
        while len(drawn) < wanted:
            drawn[next(turns)] = None
        return np.array(list(drawn))


def make_batches(rows: np.ndarray, labels: np.ndarray, settings: Settings) -> Batches:
    """Return what an epoch on labelled images is made of."""
    images = np.unique(rows)
    if settings.mining != "none":
        return _ClassBatches(images, labels, settings.classes_per_batch, settings.images_per_class)
    if get_loss(settings.loss).of_triplets is None:
        return _ImageBatches(images, labels, settings.batch_size)
    return _TripletBatches(rows, labels, settings.batch_size)


def _turns(values: np.ndarray, rng: np.random.Generator) -> Iterator[int]:
    """Yield all values in an order of chance, then in another, without end."""
    while True:
        yield from rng.permutation(values).tolist()


def _without_triplets(images: np.ndarray, labels: np.ndarray) -> Batch:
    return Batch(images, labels[images], np.empty((0, 3), dtype=np.int32))


@keras.saving.register_keras_serializable("tripletkit")
class _CosineClassifier(keras.layers.Layer):
    """The cosine between an embedding and a vector for each class, times a scale that is learned.

    Between vectors of length 1 a plain product is -1 to 1, which the softmax over many classes
    cannot make sure of anything by; the scale can grow.

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


class Objective:
    """The loss of a batch, with what of it is learned or kept beside the embeddings.

    The distances are squared before the loss takes them where the recipe has it. The margin is 0
    for a loss without one.
    """

    def __init__(self, settings: Settings, n_classes: int, dim: int) -> None:
        self._settings = settings
        self._squared = get_recipe(settings.recipe).squared
        loss = get_loss(settings.loss)
        self.of_triplets = triplet_loss_of(settings.loss, settings.margin)
        self.margin = settings.margin if loss.has_margin else 0.0
        self.classifier: _CosineClassifier | None = None
        self.centers: ClassCenters | None = None
        if loss.has_cross_entropy:
            self.classifier = _CosineClassifier(n_classes, name="classifier")
            self.classifier.build((None, dim))
        if loss.has_centers:
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

        The second is the share of triplets that break the margin (without one: whose positive is
        not the nearer), or without triplets of images taken for another class.

        Args:
            embeddings: `(n, dim)` float32.
            labels: `(n,)` int32; `NO_LABEL` without a class.
            triplets: `(n_triplets, 3)` int32 places in the batch; passed over where they are mined.
        """
        loss, active = tf.constant(0.0), tf.constant(0.0)
        if self.classifier is not None:
            is_known = labels != NO_LABEL
            known = tf.boolean_mask(embeddings, is_known)
            own = tf.boolean_mask(labels, is_known)
            logits = self.classifier(known)
            weight = 1.0
            if self.of_triplets is not None:
                weight = self._settings.cross_entropy_weight
            loss += weight * mean_loss(cross_entropy_loss(logits, own), "all")
            guessed = tf.argmax(logits, axis=1, output_type=tf.int32)
            active = _share(guessed != own)
        if self.centers is not None:
            losses = self.centers(embeddings, labels, training=True)
            loss += self._settings.center_weight * mean_loss(losses, "all")
        if self.of_triplets is not None:
            to_positive, to_negative = self.measure(embeddings, labels, triplets)
            losses = self.of_triplets(to_positive, to_negative)
            loss += mean_loss(losses, self._settings.reduction)
            active = _share(to_positive + self.margin > to_negative)
        return loss, active

    def measure(
        self, embeddings: tf.Tensor, labels: tf.Tensor | None, triplets: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Return the distances of the triplets: to positive, to negative."""
        name, mining = self._settings.distance, self._settings.mining
        if mining == "none":
            anchor, positive, negative = (
                tf.gather(embeddings, triplets[:, slot]) for slot in range(3)
            )
            measured = DISTANCES[name](anchor, positive), DISTANCES[name](anchor, negative)
        else:
            measured = mined_distances(embeddings, labels, mining, name)
        if self._squared:
            return tf.square(measured[0]), tf.square(measured[1])
        return measured


def _share(is_so: tf.Tensor) -> tf.Tensor:
    """Return the share of true values; 0 of none."""
    count = tf.reduce_sum(tf.cast(is_so, tf.float32))
    return count / tf.maximum(tf.cast(tf.size(is_so), tf.float32), 1.0)


class FusedAdam(keras.optimizers.Adam):
    """Keras's Adam with each variable updated by one operation instead of ten.

    The formula and the state are Keras's. On a head of a million weights it makes a step a
    fifth shorter, because each of the ten operations reads and writes all of them.

    Reference:
        Kingma, Ba. Adam. ICLR 2015. arXiv:1412.6980.
    """

    def reset(self) -> None:
        """Forget all steps, as if none had been taken."""
        for variable in [self.iterations, *self._momentums, *self._velocities]:
            variable.assign(tf.zeros(variable.shape, variable.dtype))

    def update_step(
        self, gradient: tf.Tensor, variable: tf.Variable, learning_rate: tf.Tensor
    ) -> None:
        index = self._get_variable_index(variable)
        step = tf.cast(self.iterations + 1, variable.dtype)
        tf.raw_ops.ResourceApplyAdam(
            var=variable.handle,
            m=self._momentums[index].value.handle,
            v=self._velocities[index].value.handle,
            beta1_power=tf.pow(tf.cast(self.beta_1, variable.dtype), step),
            beta2_power=tf.pow(tf.cast(self.beta_2, variable.dtype), step),
            lr=tf.cast(learning_rate, variable.dtype),
            beta1=self.beta_1,
            beta2=self.beta_2,
            epsilon=self.epsilon,
            grad=gradient,
        )


class BatchLearner:
    """Steps of Adam on what an objective asks of the embeddings of batches.

    `encode` takes the inputs of a batch, of the type and shape `inputs`, to `(n, dim)` embeddings,
    as in training, and learns `variables`; what the objective learns is learned too.
    """

    def __init__(
        self,
        encode: Callable[[tf.Tensor], tf.Tensor],
        inputs: tf.TensorSpec,
        variables: list[keras.Variable],
        objective: Objective,
        learning_rate: float,
    ) -> None:
        self._objective = objective
        learned = variables + objective.trainable_variables
        self._optimizer = optimizer = FusedAdam(learning_rate)
        optimizer.build(learned)

        @tf.function(
            input_signature=[
                inputs,
                tf.TensorSpec((None,), tf.int32),
                tf.TensorSpec((None, 3), tf.int32),
            ]
        )
        def step(
            given: tf.Tensor, labels: tf.Tensor, triplets: tf.Tensor
        ) -> tuple[tf.Tensor, tf.Tensor]:
            with tf.GradientTape() as tape:
                loss, active = objective(encode(given), labels, triplets)
            values = [variable.value for variable in learned]
            optimizer.apply(tape.gradient(loss, values), learned)
            return loss, active

        self._step = step

    @property
    def variables(self) -> list[keras.Variable]:
        """What steps change, beside the variables of `encode`."""
        return self._optimizer.variables + self._objective.variables

    @property
    def centers(self) -> np.ndarray | None:
        """Class centers that the loss draws embeddings to: `(n_classes, dim)`; NaN if unseen."""
        if self._objective.centers is None:
            return None
        is_placed = self._objective.centers.is_placed.numpy()[:, None] > 0
        return np.where(is_placed, self._objective.centers.centers.numpy(), np.nan)

    def begin(self, objective: Objective) -> None:
        """Begin anew, with what another objective of the same form holds."""
        copy_values(objective.variables, self._objective.variables)
        self._optimizer.reset()

    def learn(self, batches: Iterable[tuple[np.ndarray, Batch]]) -> tuple[float, float]:
        """Take a step on the inputs of each batch; return mean loss and mean share of violations,
        over images."""
        sums, total = np.zeros(2), 0
        for given, batch in batches:
            found = self._step(given, batch.labels, batch.triplets)
            sums += len(batch.images) * np.array([float(value) for value in found])
            total += len(batch.images)
        loss, active = sums / total
        return float(loss), float(active)


def copy_values(given: Sequence[keras.Variable], taking: Sequence[keras.Variable]) -> None:
    """Give variables the values of others of the same shapes."""
    for value, variable in zip(given, taking, strict=True):
        variable.assign(value)

"""Batches of images, the loss of a batch, and an optimizer at work on it, whatever an image is
given by."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from tripletkit.data.labels import NO_LABEL
from tripletkit.features.keras_backend import KerasTensor, keras, ops, tf
from tripletkit.losses.functions import DISTANCES, mean_loss, mined_distances
from tripletkit.losses.loss_registry import get_loss
from tripletkit.model.recipes import get_recipe
from tripletkit.model.settings import Settings
from tripletkit.search.offline_mining import hardest_positives

# What the learned scale of the classifier's cosines starts at.
_LOGIT_SCALE = 16.0


@dataclass(frozen=True)
class Batch:
    """Images that are encoded together, each once."""

    images: np.ndarray  # `(n,)` int32
    labels: np.ndarray  # `(n,)` int32; `NO_LABEL` without
    triplets: np.ndarray  # `(n_triplets, 3)` int32 places in `images`; none where they are mined


class Batches:
    """What an epoch on labelled images is made of.

    Triplets as they were given, each once; images, each once, where the loss looks at no triplet;
    or, for mining within the batch, P classes with K images each, until as many images were shown
    as there are. Classes take turns, and so do the images of a class, none twice in a batch.
    Classes of one image, and images without a label, are left out. `positives` are each image's
    hardest known positive, or a number below 0; batches have those of their images too.

    Reference:
        Hermans, Beyer, Leibe. In Defense of the Triplet Loss. 2017. arXiv:1703.07737: PK batches.
    """

    def __init__(self, rows: np.ndarray, labels: np.ndarray, settings: Settings) -> None:
        self.positives: np.ndarray | None = None
        self._rows, self._labels, self._settings = rows, labels, settings
        self._images = np.unique(rows)

    def find_positives(self, epoch: int, embed: Callable[[], np.ndarray], distance: str) -> None:
        """Look for each training image's farthest one of its class, as often as was asked for."""
        if not self._settings.inject_positives or epoch % self._settings.refresh:
            return
        labels = np.full_like(self._labels, NO_LABEL)
        labels[self._images] = self._labels[self._images]
        self.positives = hardest_positives(embed(), labels, distance)

    def epoch(self, number: int) -> Iterator[Batch]:
        """Return the batches of an epoch, in an order of chance."""
        rng = np.random.default_rng([self._settings.seed, number])
        if self._settings.mining != "none":
            return self._of_classes(rng)
        is_of_triplets = get_loss(self._settings.loss).of_triplets is not None
        return self._of_triplets(rng) if is_of_triplets else self._of_images(rng)

    def _of_triplets(self, rng: np.random.Generator) -> Iterator[Batch]:
        rows, size = rng.permutation(self._rows), self._settings.batch_size
        for start in range(0, len(rows), size):
            images, places = np.unique(rows[start : start + size], return_inverse=True)
            triplets = places.reshape(-1, 3).astype(np.int32)
            yield Batch(images.astype(np.int32), self._labels[images], triplets)

    def _of_images(self, rng: np.random.Generator) -> Iterator[Batch]:
        images, size = rng.permutation(self._images), self._settings.batch_size
        for start in range(0, len(images), size):
            yield self._without_triplets(images[start : start + size])

    def _of_classes(self, rng: np.random.Generator) -> Iterator[Batch]:
        labels, settings = self._labels, self._settings
        order = self._images[np.argsort(labels[self._images], kind="stable")]
        of_class = np.split(order, np.flatnonzero(np.diff(labels[order])) + 1)
        members = [each for each in of_class if len(each) > 1 and labels[each[0]] != NO_LABEL]
        n_classes = min(settings.classes_per_batch, len(members))
        classes = _turns(np.arange(len(members)), rng)
        turns = [_turns(each, rng) for each in members]
        shown, total = 0, sum(map(len, members))
        while shown < total:
            drawn = _draw_distinct(classes, n_classes)
            images = np.concatenate(
                [
                    _draw_distinct(turns[each], min(settings.images_per_class, len(members[each])))
                    for each in drawn
                ]
            )
            shown += len(images)
            if self.positives is not None:
                added = self.positives[images]
                added = np.setdiff1d(added[added >= 0], images)
                images = np.concatenate([images, added])
            yield self._without_triplets(images)

    def _without_triplets(self, images: np.ndarray) -> Batch:
        images = images.astype(np.int32)
        return Batch(images, self._labels[images], np.empty((0, 3), dtype=np.int32))


def _turns(values: np.ndarray, rng: np.random.Generator) -> Iterator[int]:
    """Yield all values in an order of chance, then in another, without end."""
    while True:
        yield from rng.permutation(values).tolist()


def _draw_distinct(turns: Iterator[int], wanted: int) -> list[int]:
    """Return the next so many values; one that was drawn already is passed over."""
    drawn: dict[int, None] = {}
    while len(drawn) < wanted:
        drawn[next(turns)] = None
    return list(drawn)


class Objective:
    """The loss of a batch, with what of it is learned or kept beside the embeddings.

    A classifier takes the cosine between an embedding and a vector for each class, times a scale
    that is learned: a softmax over many classes cannot be sure of anything by -1 to 1. Class
    centers follow the mean of the embeddings of each batch; no gradient reaches them.

    References:
        Wang, Xiang, Cheng, Yuille. NormFace. ACM Multimedia 2017. arXiv:1704.06369 (the
        classifier); Wen, Zhang, Li, Qiao. A discriminative feature learning approach for deep face
        recognition. ECCV 2016, equation 2. doi:10.1007/978-3-319-46478-7_31 (the centers).
    """

    def __init__(self, settings: Settings, n_classes: int, dim: int) -> None:
        self._settings = settings
        self._squared = get_recipe(settings.recipe).starts_as_identity
        loss = get_loss(settings.loss)
        self.of_triplets = loss.of_distances(settings.margin)
        self.margin = settings.margin if loss.has_margin else 0.0
        # Vectors of classes and their scale; centers, and whether each class was seen.
        self.classifier: list[keras.Variable] = []
        self.centers: list[keras.Variable] = []
        if loss.has_cross_entropy:
            start = keras.initializers.HeUniform()((dim, n_classes))
            self.classifier = [keras.Variable(value) for value in (start, _LOGIT_SCALE)]
        if loss.has_centers:
            nowhere = np.zeros((n_classes, dim), np.float32), np.zeros(n_classes, np.float32)
            self.centers = [keras.Variable(value, trainable=False) for value in nowhere]

    @property
    def variables(self) -> list[keras.Variable]:
        """All that a checkpoint must hold."""
        return self.classifier + self.centers

    def __call__(
        self, embeddings: tf.Tensor, labels: tf.Tensor, triplets: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Return the loss of a batch, and the share that breaks what is asked of it. That is the
        share of triplets that break the margin (without one: whose positive is not the nearer), or
        without triplets of images taken for another class."""
        loss, active = tf.constant(0.0), tf.constant(0.0)
        if self.classifier:
            is_known = labels != NO_LABEL
            own = tf.boolean_mask(labels, is_known)
            logits = self._classify(tf.boolean_mask(embeddings, is_known))
            losses = ops.sparse_categorical_crossentropy(own, logits, from_logits=True)
            weight = 1.0
            if self.of_triplets is not None:
                weight = self._settings.cross_entropy_weight
            loss += weight * mean_loss(losses, "all")
            guessed = tf.argmax(logits, axis=1, output_type=tf.int32)
            active = _share(guessed != own)
        if self.centers:
            losses = self._draw_to_centers(embeddings, labels)
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

    def _classify(self, embeddings: KerasTensor) -> KerasTensor:
        """Return logits: `(n, n_dims)` -> `(n, n_classes)`."""
        vectors, scale = self.classifier
        cosines = ops.matmul(ops.normalize(embeddings, axis=-1), ops.normalize(vectors, axis=0))
        return scale * cosines

    def _draw_to_centers(self, embeddings: KerasTensor, labels: KerasTensor) -> KerasTensor:
        """Return `(n,)` half the squared distances to the centers of their classes, and move these.
        They are 0 without a class, or where the class has no center yet."""
        centers, is_placed = self.centers
        own = ops.maximum(labels, 0)
        is_counted = ops.cast(labels >= 0, embeddings.dtype) * ops.take(is_placed, own)
        targets = ops.stop_gradient(ops.take(centers, own, axis=0))
        losses = is_counted * (0.5 * ops.sum(ops.square(embeddings - targets), axis=-1))
        seen = ops.stop_gradient(embeddings)
        one_hot = ops.one_hot(labels, centers.shape[0], dtype=seen.dtype)
        counts = ops.sum(one_hot, axis=0)[:, None]
        means = ops.matmul(ops.transpose(one_hot), seen) / ops.maximum(counts, 1.0)
        kept = self._settings.center_decay * ops.convert_to_tensor(is_placed)[:, None]
        is_here = counts > 0
        moved = ops.where(is_here, kept * centers + (1.0 - kept) * means, centers)
        placed = ops.maximum(is_placed, ops.cast(is_here[:, 0], is_placed.dtype))
        centers.assign(moved)
        is_placed.assign(placed)
        return losses


def _share(is_so: tf.Tensor) -> tf.Tensor:
    """Return the share of true values; 0 of none."""
    count = tf.reduce_sum(tf.cast(is_so, tf.float32))
    return count / tf.maximum(tf.cast(tf.size(is_so), tf.float32), 1.0)


class FusedAdam(keras.optimizers.Adam):
    """Keras's Adam with each variable updated by one operation instead of ten. On a head of a
    million weights it makes a step a fifth shorter, because each of the ten operations reads and
    writes all of them."""

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
    """Steps of Adam on what an objective asks of the embeddings of batches. `encode` takes the
    inputs of a batch, of the type and shape `inputs`, to `(n, dim)` embeddings, as in training, and
    learns `variables`; what the objective learns is learned too."""

    def __init__(
        self,
        encode: Callable[[tf.Tensor], tf.Tensor],
        inputs: tf.TensorSpec,
        variables: list[keras.Variable],
        objective: Objective,
        learning_rate: float,
    ) -> None:
        self._objective = objective
        learned = variables + objective.classifier
        self._optimizer = optimizer = FusedAdam(learning_rate)
        optimizer.build(learned)

        @tf.function(
            input_signature=[
                inputs,
                tf.TensorSpec((None,), tf.int32),
                tf.TensorSpec((None, 3), tf.int32),
            ],
            autograph=False,
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
        if not self._objective.centers:
            return None
        centers, is_placed = (variable.numpy() for variable in self._objective.centers)
        return np.where(is_placed[:, None] > 0, centers, np.nan)

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

"""Trainings of a head on rows of a feature matrix, epoch by epoch.

The features of all images stay in one matrix on the device; a batch is row numbers. Each
distinct image of a batch is encoded once, however many of its triplets it is in. (So an
image has one dropout mask in a batch, where the three-input model draws one for every place;
validation accuracy is the same within its noise.)

Training sees the features standardised, so that one learning rate suits every backbone;
afterwards the shift and scale are folded into the first Dense layer, and the head that is kept
takes the backbone's features as they are.
"""

from __future__ import annotations

import weakref
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np

from tripletkit.data.labels import NO_LABEL, ImageLabels
from tripletkit.defaults import FROZEN_DISTANCE
from tripletkit.evaluation.validation import describe_alike
from tripletkit.features.keras_backend import keras, seed_layers, tf
from tripletkit.features.unit_length import scale_to_unit_length
from tripletkit.losses.batch_mining import DISTANCES
from tripletkit.losses.functions import mean_loss, triplet_loss_of
from tripletkit.losses.loss_registry import get_loss
from tripletkit.model.head_layers import Scaling, embed
from tripletkit.model.heads import build_body, shorten_step
from tripletkit.model.recipes import get_recipe
from tripletkit.model.settings import Settings
from tripletkit.registry import load_object
from tripletkit.search.offline_mining import hardest_positives
from tripletkit.training.batch_learner import (
    Batches,
    BatchLearner,
    ClassBatches,
    FusedAdam,
    ImageBatches,
    Objective,
    TripletBatches,
    copy_values,
)
from tripletkit.training.epochs import EpochTraining, check_collapse


class _Training(EpochTraining):
    """A head on its way: epochs, and its embeddings and weights between them.

    Memory holds the features `(n_images, n_features)` once, whatever the number of triplets;
    `images` are the indices of those of the training.
    """

    def __init__(self, features: np.ndarray, images: np.ndarray, settings: Settings) -> None:
        seed_layers(settings.seed)
        tf.config.experimental.enable_op_determinism()
        self._recipe = get_recipe(settings.recipe)
        self._settings = settings
        self._images = images
        self._given = features
        if self._recipe.unit_features:
            features = scale_to_unit_length(features)
        self._scaling = Scaling.of(features[images])
        self._features = self._scaling.apply(features)
        self._matrix = tf.constant(self._features)
        # What is kept in the end; the body that learns goes on to the next training.
        self._kept = build_body(features.shape[1], settings)
        self._body = self._kept

    def _take_body(self, body: keras.Model) -> None:
        """Let another body learn, from the start that the own one has."""
        copy_values(self._kept.variables, body.variables)
        self._body = body

    @property
    def n_classes(self) -> int | None:
        """How many classes the training images are of, where that is known."""
        return None

    def weights(self) -> list[np.ndarray]:
        return self._body.get_weights()

    def embed(self, strength: float = 1.0) -> np.ndarray:
        weights = self.weights()
        if strength != 1:
            self._body.set_weights(shorten_step(weights, strength))
        embeddings = embed(self._body, self._features)
        self._body.set_weights(weights)
        return embeddings

    def check(self, embeddings: np.ndarray, loss: float) -> tuple[float, float]:
        return check_collapse(
            embeddings[self._images],
            loss,
            self._settings,
            self.n_classes,
            find_cause=lambda: describe_alike(self._given, self._images),
        )

    def finish(self, weights: list[np.ndarray]) -> keras.Model:
        if self._recipe.starts_as_identity:
            weights = shorten_step(weights, self._settings.strength)
        self._kept.set_weights(weights)
        return load_object(self._recipe.finish)(self._kept, self._scaling)


class HeadTraining(_Training):
    """Training on triplets as they were given, a whole epoch in one graph.

    The loss looks at triplets alone; where people disagree, these have weights.

    Reference:
        Schroff, Kalenichenko, Philbin. FaceNet. CVPR 2015. arXiv:1503.03832.
    """

    def __init__(
        self,
        features: np.ndarray,
        train_rows: np.ndarray,
        settings: Settings,
        loss_weights: np.ndarray | None = None,
    ) -> None:
        super().__init__(features, np.unique(train_rows), settings)
        self._rows = train_rows
        self._loss_weights = loss_weights
        self._order = np.random.default_rng(settings.seed)
        n_features, is_weighted = features.shape[1], loss_weights is not None
        form, squared = _form_of(settings), self._recipe.squared
        self._compiled = _borrow(
            self,
            ("triplets", n_features, is_weighted, form),
            lambda: _CompiledEpoch(
                build_body(n_features, form), form, squared, is_weighted=is_weighted
            ),
        )
        self._take_body(self._compiled.body)
        self._compiled.optimizer.reset()

    def run_epoch(self) -> tuple[float, float]:
        """Go once over the triplets, in an order of chance; return mean loss and violations."""
        order = self._order.permutation(len(self._rows))
        weights = np.empty((0, 2)) if self._loss_weights is None else self._loss_weights[order]
        loss, active = self._compiled.run(
            self._matrix,
            tf.constant(self._rows[order], tf.int32),
            tf.constant(weights, tf.float32),
        )
        return float(loss), float(active)


class LabelTraining(_Training):
    """Training on labelled images: classes, centers, and triplets mined within a batch.

    The training rows say which images are for training, and are learned from where nothing is
    mined. Batches are what the settings say unless others are given.
    """

    def __init__(
        self,
        features: np.ndarray,
        train_rows: np.ndarray,
        settings: Settings,
        labels: ImageLabels,
        batches: Batches | None = None,
    ) -> None:
        super().__init__(features, np.unique(train_rows), settings)
        self._labels = labels.of_image
        self._classes = labels.classes
        self._epoch = 0
        self._batches = batches or make_batches(train_rows, labels.of_image, settings)
        objective = self._make_objective(settings)
        n_features, form = features.shape[1], _form_of(settings)
        body, self._learner = _borrow(
            self,
            ("labels", n_features, self.n_classes, form),
            lambda: _compile_learner(
                build_body(n_features, form), self._make_objective(form), form.learning_rate
            ),
        )
        self._take_body(body)
        self._learner.begin(objective)

    def _make_objective(self, settings: Settings) -> Objective:
        dim = self._kept.output_shape[-1]
        return Objective(settings, self.n_classes, dim, squared=self._recipe.squared)

    def run_epoch(self) -> tuple[float, float]:
        """Go once over the batches; return mean loss and share of violations."""
        if self._settings.inject_positives and self._epoch % self._settings.refresh == 0:
            self._batches.positives = self._find_hardest_positives()
        rng = np.random.default_rng([self._settings.seed, self._epoch])
        self._epoch += 1
        return self._learner.learn(
            (tf.gather(self._matrix, batch.images), batch) for batch in self._batches.epoch(rng)
        )

    @property
    def n_classes(self) -> int:
        return len(self._classes)

    @property
    def centers(self) -> np.ndarray | None:
        return self._learner.centers

    def _find_hardest_positives(self) -> np.ndarray:
        """Return each training image's farthest one of its class; at first by the features."""
        labels = np.full_like(self._labels, NO_LABEL)
        labels[self._images] = self._labels[self._images]
        if self._epoch == 0:
            return hardest_positives(self._features, labels, FROZEN_DISTANCE)
        return hardest_positives(self.embed(), labels, self._settings.distance)


def make_training(
    features: np.ndarray,
    train_rows: np.ndarray,
    settings: Settings,
    labels: ImageLabels | None = None,
    loss_weights: np.ndarray | None = None,
) -> HeadTraining | LabelTraining:
    """Return the training that the settings ask for; labels are passed over by the first."""
    if not settings.needs_labels:
        return HeadTraining(features, train_rows, settings, loss_weights)
    assert labels is not None and loss_weights is None, "settings are checked"
    return LabelTraining(features, train_rows, settings, labels)


def make_batches(rows: np.ndarray, labels: np.ndarray, settings: Settings) -> Batches:
    """Return what an epoch on labelled images is made of."""
    images = np.unique(rows)
    if settings.mining != "none":
        return ClassBatches(images, labels, settings.classes_per_batch, settings.images_per_class)
    if get_loss(settings.loss).of_triplets is None:
        return ImageBatches(images, labels, settings.batch_size)
    return TripletBatches(rows, labels, settings.batch_size)


def _compile_learner(
    body: keras.Model, objective: Objective, learning_rate: float
) -> tuple[keras.Model, BatchLearner]:
    """Return a body and what trains it on the features of batches of images."""
    learner = BatchLearner(
        lambda features: body(features, training=True),
        tf.TensorSpec((None, body.input_shape[-1]), tf.float32),
        body.trainable_variables,
        objective,
        learning_rate,
    )
    return body, learner


class _CompiledEpoch:
    """A compiled pass over triplets, with the head that it trains.

    Distances are squared before the loss takes them where the recipe has it.
    """

    def __init__(
        self, body: keras.Model, settings: Settings, squared: bool, *, is_weighted: bool
    ) -> None:
        self.body = body
        self.optimizer = FusedAdam(settings.learning_rate)
        self.optimizer.build(body.trainable_variables)
        self._settings = settings
        self._distance = DISTANCES[settings.distance]
        loss_of = triplet_loss_of(settings.loss, settings.margin)
        assert loss_of is not None, "the loss looks at triplets"
        self._loss_of = loss_of
        self._margin = settings.margin if get_loss(settings.loss).has_margin else 0.0
        self._squared = squared
        self._is_weighted = is_weighted
        self.run = tf.function(
            self._run,
            input_signature=[
                tf.TensorSpec((None, body.input_shape[-1]), tf.float32),
                tf.TensorSpec((None, 3), tf.int32),
                tf.TensorSpec((None, 2), tf.float32),
            ],
        )

    def _run(
        self, matrix: tf.Tensor, rows: tf.Tensor, weights: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Go once over triplets; return mean loss and share of violations.

        Args:
            matrix: `(n_images, n_features)` float32, standardised.
            rows: `(n_triplets, 3)` int32 places in it.
            weights: `(n_triplets, 2)` float32; none of them where it is not weighted.
        """
        n_rows = tf.shape(rows)[0]
        total, active = tf.constant(0.0), tf.constant(0.0)
        for start in tf.range(0, n_rows, self._settings.batch_size):
            end = start + self._settings.batch_size
            sums = self._step(matrix, rows[start:end], weights[start:end])
            total, active = total + sums[0], active + sums[1]
        n = tf.cast(n_rows, tf.float32)
        return total / n, active / n

    def _step(
        self, matrix: tf.Tensor, rows: tf.Tensor, weights: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        images, places = tf.unique(tf.reshape(rows, [-1]))
        places = tf.reshape(places, [-1, 3])
        with tf.GradientTape() as tape:
            embeddings = self.body(tf.gather(matrix, images), training=True)
            anchor, positive, negative = (
                tf.gather(embeddings, places[:, slot]) for slot in range(3)
            )
            to_positive = self._distance(anchor, positive)
            to_negative = self._distance(anchor, negative)
            if self._squared:
                to_positive, to_negative = tf.square(to_positive), tf.square(to_negative)
            losses = self._loss_of(to_positive, to_negative)
            if self._is_weighted:
                exchanged = self._loss_of(to_negative, to_positive)
                losses = weights[:, 0] * losses + weights[:, 1] * exchanged
            loss = mean_loss(losses, self._settings.reduction)
        learned = self.body.trainable_variables
        values = [variable.value for variable in learned]
        self.optimizer.apply(tape.gradient(loss, values), learned)
        is_active = to_positive + self._margin > to_negative
        return tf.reduce_sum(losses), tf.reduce_sum(tf.cast(is_active, tf.float32))


# Compiled trainings that one training leaves to the next of the same form. To compile a step takes
# longer than many trainings of it, and held-out draws, members and seeds differ in numbers alone.

T = TypeVar("T")

# Forms that are kept; a training has one or two, and each holds a head and its optimizer.
_MAX_FORMS = 8
# The length of a training, what its batches are, and what is made of the heads afterwards.
_OUTSIDE_STEPS = (
    "seed",
    "epochs",
    "patience",
    "classes_per_batch",
    "images_per_class",
    "inject_positives",
    "refresh",
    "flip",
    "shift",
    "members",
    "mlp_members",
    "strength",
    "frozen_share",
)
_USUAL = Settings()
_idle: OrderedDict[Hashable, list[Any]] = OrderedDict()


def _borrow(owner: object, form: Hashable, make: Callable[[], T]) -> T:
    """Return what was compiled for the same form, and for as long as its owner lives nobody else's.

    The form is all that the compiled thing depends on; what it then holds is of its last owner.
    """
    idle = _idle.get(form)
    compiled = idle.pop() if idle else make()
    weakref.finalize(owner, _give_back, form, compiled).atexit = False
    return compiled


def _form_of(settings: Settings) -> Settings:
    """Return settings with the usual values of all that decides no compiled step.

    A step is compiled from these, so that it cannot depend on anything else.
    """
    usual = {name: getattr(_USUAL, name) for name in _OUTSIDE_STEPS}
    if get_recipe(settings.recipe).compresses:
        usual["dim"] = None
    return replace(settings, **usual)


def _give_back(form: Hashable, compiled: object) -> None:
    _idle.setdefault(form, []).append(compiled)
    _idle.move_to_end(form)
    while len(_idle) > _MAX_FORMS:
        _idle.popitem(last=False)

"""The trainer of heads on stored features: their epochs, members, and how they are compressed.

The features of all images stay in one matrix on the device; a batch is row numbers. Each distinct
image of a batch is encoded once, however many of its triplets it is in. (So an image has one
dropout mask in a batch, where the three-input model draws one for every place; validation accuracy
is the same within its noise.)

Training sees the features standardised, so that one learning rate suits every backbone; afterwards
the shift and scale are folded into the first Dense layer, and the head that is kept takes the
backbone's features as they are.
"""

from __future__ import annotations

import logging
import weakref
from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np

from tripletkit import defaults
from tripletkit.data.labels import ImageLabels
from tripletkit.defaults import FROZEN_DISTANCE
from tripletkit.evaluation.distances import triplet_margins
from tripletkit.evaluation.validation import describe_alike
from tripletkit.features.keras_backend import building_layers, keras, tf
from tripletkit.features.unit_length import scale_to_unit_length
from tripletkit.losses.functions import mean_loss
from tripletkit.model.head_layers import Scaling, embed, fit_projection
from tripletkit.model.heads import (
    build_body,
    compress_head,
    finish_head,
    frozen_scale,
    join_heads,
    keep_frozen,
    shorten_step,
)
from tripletkit.model.recipes import get_recipe
from tripletkit.model.settings import Settings
from tripletkit.progress import Stages, no_stages
from tripletkit.training.batch_learner import (
    Batches,
    BatchLearner,
    FusedAdam,
    Objective,
    copy_values,
)
from tripletkit.training.trainer import (
    Chosen,
    EpochRecord,
    EpochTraining,
    Examples,
    Fitted,
    HeldOutAnswers,
    OnEpoch,
    Trainer,
    check_collapse,
    credit,
    ignore_epoch,
    keep_best_epoch,
)

logger = logging.getLogger("tripletkit")

# Epochs over which the pooled accuracy is averaged before the best one is looked for.
_SMOOTHED = 3
# How much of the frozen features a residual model keeps, and of its learned step, to choose from:
# the nearest to the frozen features first.
_BLENDS = ((0.5, 0.85), (0.25, 0.85), (0.1, 1.0))


class HeadTrainer(Trainer):
    """Trains one head, or several that answer together.

    What held-out answers choose is the number of epochs, of a residual head how much of the frozen
    features it keeps; nothing where there are several heads. `n_draw_epochs` are those of a
    training without held-out images, None outside draws; `curve` is the accuracy of held-out
    answers after each epoch, where they chose the number of these.
    """

    def __init__(
        self,
        examples: Examples,
        settings: Settings,
        n_draw_epochs: int | None = None,
        *,
        is_chosen: bool = False,
        curve: Sequence[float] | np.ndarray = (),
    ) -> None:
        super().__init__(examples, settings)
        self._n_draw_epochs = n_draw_epochs
        self._is_chosen = is_chosen
        self._curve = curve

    @property
    def _is_residual(self) -> bool:
        """Whether a share of the frozen features takes the place of the number of epochs."""
        return get_recipe(self.settings.recipe).starts_as_identity

    def answer(self, learned: np.ndarray, asked: np.ndarray, further: int = 0) -> np.ndarray:
        settings = replace(self.settings, seed=self.settings.seed + further)
        if self._n_draw_epochs is not None:
            settings = replace(settings, epochs=self._n_draw_epochs)
            if settings.members == 1:
                return self._answer_variants(learned, asked, settings)
        embeddings = embed(self._train(learned, settings).head, self.examples.features)
        return triplet_margins(embeddings, asked, settings.distance)[None]

    def for_draws(self, learned: np.ndarray) -> HeadTrainer:
        """Return a trainer that takes as many steps, as far as there are triplets for them. The
        first draw says how many epochs these are; folds differ by a few triplets."""
        rows, settings = self.examples.rows, self.settings
        n_all, size = settings.count_per_epoch(rows)
        n_draw, _ = settings.count_per_epoch(rows[learned])
        n_steps = settings.epochs * -(-n_all // size)
        n_epochs = max(settings.epochs, round(n_steps / -(-n_draw // size)))
        return HeadTrainer(self.examples, settings, min(n_epochs, defaults.MAX_EPOCHS))

    def choose(self, held_out: HeldOutAnswers | None) -> Chosen:
        if held_out is None:
            return Chosen(self)
        accuracies = credit(held_out.margins).mean(axis=1)
        n_epochs = len(accuracies)
        by_epoch = n_epochs > 1 and not self._is_residual
        epoch, settings, kept = n_epochs, self.settings, ""
        if by_epoch:
            epoch = self._find_best(accuracies) + 1
        elif len(accuracies) > 1:
            settings = _list_blends(settings)[self._find_best(accuracies)]
            kept = (
                f" with {settings.frozen_share:.0%} of the distance by the frozen features and "
                f"{settings.strength:.0%} of the learned step"
            )
        # In a draw there are fewer triplets, and more epochs for as many steps.
        epochs = max(1, round(settings.epochs * epoch / n_epochs))
        logger.info(
            "Held out %d times: best after epoch %d of %d%s; training on all triplets.",
            held_out.n_draws,
            epochs,
            settings.epochs,
            kept,
        )
        # Each epoch beside the one of the draws that is as far into the training.
        places = np.arange(1, epochs + 1) * n_epochs / settings.epochs
        chosen = HeadTrainer(
            self.examples,
            replace(settings, epochs=epochs),
            is_chosen=True,
            curve=np.interp(places, np.arange(1, n_epochs + 1), accuracies) if by_epoch else (),
        )

        def choose(others: HeldOutAnswers) -> Callable[[np.ndarray], np.ndarray]:
            best = self._find_best(credit(others.margins).mean(axis=1))
            return lambda of_asked: of_asked[best]

        return Chosen(chosen, held_out.cross_fit(choose), epochs, settings.epochs)

    def _find_best(self, accuracies: np.ndarray) -> int:
        """Return the best variant, the earliest of equals; chance is smoothed away from epochs."""
        size = 1 if self._is_residual else min(_SMOOTHED, len(accuracies))
        padded = np.pad(accuracies, (size // 2, size - 1 - size // 2), mode="edge")
        return int(np.argmax(np.convolve(padded, np.full(size, 1 / size), mode="valid").round(6)))

    def fit(self, on_epoch: OnEpoch = ignore_epoch, stages: Stages = no_stages) -> Fitted:
        settings, val_rows = self.settings, self.examples.val_rows
        by_epoch = not self._is_residual and not self._is_chosen
        trained = self._train(
            np.arange(len(self.examples.rows)),
            settings,
            val_rows,
            chooses=by_epoch and len(val_rows) >= defaults.MIN_VAL_TRIPLETS,
            on_epoch=lambda record: on_epoch(self._with_held_out(record), settings.epochs),
        )
        history = [self._with_held_out(record) for record in trained.history]
        return replace(trained, history=history, settings=settings)

    def _with_held_out(self, record: EpochRecord) -> EpochRecord:
        if record.epoch > len(self._curve):
            return record
        return replace(record, held_out_accuracy=float(self._curve[record.epoch - 1]))

    def _answer_variants(
        self, learned: np.ndarray, asked: np.ndarray, settings: Settings
    ) -> np.ndarray:
        """Return margins of one training: after each epoch, or of each blend after the last."""
        training, margins = _make_training(self.examples, learned, settings), []

        def answer(embeddings: np.ndarray) -> None:
            margins.append(triplet_margins(embeddings, asked, settings.distance))

        for _ in range(settings.epochs):
            loss, _ = training.run_epoch()
            if not self._is_residual:
                embeddings = training.embed()
                training.check(embeddings, loss)
                answer(embeddings)
        if self._is_residual:
            training.check(training.embed(), loss)
            images = np.unique(self.examples.rows[learned])
            unit = scale_to_unit_length(self.examples.features)
            for blend in _list_blends(settings):
                embeddings = training.embed(blend.strength)
                if blend.frozen_share:
                    scale = frozen_scale(unit[images], embeddings[images], blend.frozen_share)
                    embeddings = scale_to_unit_length(np.hstack([scale * unit, embeddings]))
                if settings.is_compressed:
                    kernel, bias = fit_projection(embeddings[images], settings)
                    embeddings = scale_to_unit_length(embeddings @ kernel + bias)
                answer(embeddings)
        return np.stack(margins)

    def _train(
        self,
        learned: np.ndarray,
        settings: Settings,
        val_rows: np.ndarray | None = None,
        *,
        chooses: bool = False,
        on_epoch: Callable[[EpochRecord], None] | None = None,
    ) -> Fitted:
        """Train the members, join them, and compress their embeddings if so asked; history and best
        epoch are the first member's."""
        rows, features = self.examples.rows[learned], self.examples.features
        members = []
        for member in range(settings.members):
            if member and on_epoch is not None:
                logger.info("Head %d of %d.", member + 1, settings.members)
            of_member = settings.of_member(member)
            members.append(
                keep_best_epoch(
                    _make_training(self.examples, learned, of_member),
                    rows[:0] if val_rows is None else val_rows,
                    of_member,
                    chooses_epoch=chooses,
                    on_epoch=None if member else on_epoch,
                )
            )
        head = join_heads([member.head for member in members])
        of_training = features[np.unique(rows)]
        if settings.frozen_share:
            unit = scale_to_unit_length(of_training)
            embeddings = embed(head, of_training)
            head = keep_frozen(head, frozen_scale(unit, embeddings, settings.frozen_share))
        if settings.is_compressed:
            head = _compress_model(head, of_training, settings)
        return replace(members[0], head=head)


def _compress_model(head: keras.Model, features: np.ndarray, settings: Settings) -> keras.Model:
    """Return a head whose embeddings are their leading principal components; to go on training
    these on the triplets gained 0.9 points at best and lost on average."""
    assert settings.dim is not None, "it is compressed"
    compressed = compress_head(head, settings.dim)
    compressed.get_layer("embedding").set_weights(fit_projection(embed(head, features), settings))
    return compressed


def _list_blends(settings: Settings) -> list[Settings]:
    """Return settings of a residual head with each share of the frozen features to choose from.
    There is no choice where the user chose, nor with class centers, which are places among the
    embeddings as they were trained: then the settings are not the usual ones."""
    own = settings.frozen_share, settings.strength
    if own != (defaults.FROZEN_SHARE, defaults.STRENGTH):
        return [settings]
    return [replace(settings, frozen_share=kept, strength=step) for kept, step in _BLENDS]


class _Training(EpochTraining):
    """A head on its way: epochs, and its embeddings and weights between them. Memory holds the
    features of all images once, whatever the number of triplets."""

    # How many classes the training images are of, where that is known.
    _n_classes: int | None = None

    def __init__(self, features: np.ndarray, images: np.ndarray, settings: Settings) -> None:
        tf.config.experimental.enable_op_determinism()
        self._recipe = get_recipe(settings.recipe)
        self._settings = settings
        self._images = images
        self._given = features
        if self._recipe.starts_as_identity:
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
            self._n_classes,
            find_cause=lambda: describe_alike(self._given, self._images),
        )

    def finish(self, weights: list[np.ndarray]) -> keras.Model:
        if self._recipe.starts_as_identity:
            weights = shorten_step(weights, self._settings.strength)
        self._kept.set_weights(weights)
        return finish_head(self._kept, self._settings, self._scaling)


class _HeadTraining(_Training):
    """Training on triplets as they were given, a whole epoch in one graph."""

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
        form = _form_of(settings)
        self._compiled = _borrow(
            self,
            ("triplets", n_features, is_weighted, form),
            lambda: _CompiledEpoch(build_body(n_features, form), form, is_weighted=is_weighted),
        )
        self._take_body(self._compiled.body)
        self._compiled.optimizer.reset()

    def run_epoch(self) -> tuple[float, float]:
        order = self._order.permutation(len(self._rows))
        weights = np.empty((0, 2)) if self._loss_weights is None else self._loss_weights[order]
        loss, active = self._compiled.run(
            self._matrix,
            tf.constant(self._rows[order], tf.int32),
            tf.constant(weights, tf.float32),
        )
        return float(loss), float(active)


class _LabelTraining(_Training):
    """Training on labelled images: classes, centers, and triplets mined within a batch. The
    training rows say which images are for training, and are learned from where nothing is mined."""

    def __init__(
        self, features: np.ndarray, train_rows: np.ndarray, settings: Settings, labels: ImageLabels
    ) -> None:
        super().__init__(features, np.unique(train_rows), settings)
        self._n_classes = len(labels.classes)
        self._epoch = 0
        self._batches = Batches(train_rows, labels.of_image, settings)
        sizes = self._n_classes, self._kept.output_shape[-1]
        objective = Objective(settings, *sizes)
        n_features, form = features.shape[1], _form_of(settings)
        body, self._learner = _borrow(
            self,
            ("labels", n_features, self._n_classes, form),
            lambda: _compile_learner(build_body(n_features, form), Objective(form, *sizes), form),
        )
        self._take_body(body)
        self._learner.begin(objective)

    def run_epoch(self) -> tuple[float, float]:
        number, self._epoch = self._epoch, self._epoch + 1
        if number:
            self._batches.find_positives(number, self.embed, self._settings.distance)
        else:
            self._batches.find_positives(0, lambda: self._features, FROZEN_DISTANCE)
        return self._learner.learn(
            (tf.gather(self._matrix, batch.images), batch) for batch in self._batches.epoch(number)
        )

    @property
    def centers(self) -> np.ndarray | None:
        return self._learner.centers


def _make_training(
    examples: Examples, learned: np.ndarray, settings: Settings
) -> _HeadTraining | _LabelTraining:
    """Return the training on some triplets that the settings ask for."""
    rows, loss_weights = examples.rows[learned], examples.weights_of(learned)
    with building_layers(settings.seed):
        if not settings.needs_labels:
            return _HeadTraining(examples.features, rows, settings, loss_weights)
        assert examples.labels is not None and loss_weights is None, "settings are checked"
        return _LabelTraining(examples.features, rows, settings, examples.labels)


def _compile_learner(
    body: keras.Model, objective: Objective, settings: Settings
) -> tuple[keras.Model, BatchLearner]:
    """Return a body and what trains it on the features of batches of images."""
    learner = BatchLearner(
        lambda features: body(features, training=True),
        tf.TensorSpec((None, body.input_shape[-1]), tf.float32),
        body.trainable_variables,
        objective,
        settings.learning_rate,
    )
    return body, learner


class _CompiledEpoch:
    """A compiled pass over triplets, with the head that it trains."""

    def __init__(self, body: keras.Model, settings: Settings, *, is_weighted: bool) -> None:
        self.body = body
        self.optimizer = FusedAdam(settings.learning_rate)
        self.optimizer.build(body.trainable_variables)
        self._settings = settings
        self._objective = Objective(settings, 0, body.output_shape[-1])
        self._is_weighted = is_weighted
        self.run = tf.function(
            self._run,
            input_signature=[
                tf.TensorSpec((None, body.input_shape[-1]), tf.float32),
                tf.TensorSpec((None, 3), tf.int32),
                tf.TensorSpec((None, 2), tf.float32),
            ],
            autograph=False,
        )

    def _run(
        self, matrix: tf.Tensor, rows: tf.Tensor, weights: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        n_rows = tf.shape(rows)[0]

        def step(start: tf.Tensor, total: tf.Tensor, active: tf.Tensor) -> tuple[tf.Tensor, ...]:
            end = start + self._settings.batch_size
            sums = self._step(matrix, rows[start:end], weights[start:end])
            return end, total + sums[0], active + sums[1]

        # A loop of Python is translated by way of a file, for which a full disk has no place.
        _, total, active = tf.while_loop(lambda start, *_: start < n_rows, step, (0, 0.0, 0.0))
        n = tf.cast(n_rows, tf.float32)
        return total / n, active / n

    def _step(
        self, matrix: tf.Tensor, rows: tf.Tensor, weights: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        images, places = tf.unique(tf.reshape(rows, [-1]))
        places, of_triplets = tf.reshape(places, [-1, 3]), self._objective.of_triplets
        assert of_triplets is not None, "the loss looks at triplets"
        with tf.GradientTape() as tape:
            embeddings = self.body(tf.gather(matrix, images), training=True)
            to_positive, to_negative = self._objective.measure(embeddings, None, places)
            losses = of_triplets(to_positive, to_negative)
            if self._is_weighted:
                exchanged = of_triplets(to_negative, to_positive)
                losses = weights[:, 0] * losses + weights[:, 1] * exchanged
            loss = mean_loss(losses, self._settings.reduction)
        learned = self.body.trainable_variables
        values = [variable.value for variable in learned]
        self.optimizer.apply(tape.gradient(loss, values), learned)
        is_active = to_positive + self._objective.margin > to_negative
        return tf.reduce_sum(losses), tf.reduce_sum(tf.cast(is_active, tf.float32))


# Compiled trainings that one training leaves to the next of the same form. To compile a step takes
# longer than many trainings of it, and held-out draws, members and seeds differ in numbers alone.

_T = TypeVar("_T")

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
    "strength",
    "frozen_share",
)
_USUAL = Settings()
_idle: dict[Hashable, list[Any]] = {}


def _borrow(owner: object, form: Hashable, make: Callable[[], _T]) -> _T:
    """Return what was compiled for the same form, and for as long as its owner lives nobody else's.
    The form is all that the compiled thing depends on; what it then holds is of its last owner."""
    try:
        compiled = _idle[form].pop()
    except LookupError:
        compiled = make()
    weakref.finalize(owner, _give_back, form, compiled).atexit = False
    return compiled


def _form_of(settings: Settings) -> Settings:
    """Return settings with the usual values of all that decides no compiled step: it is compiled
    from these."""
    usual = {name: getattr(_USUAL, name) for name in _OUTSIDE_STEPS}
    if get_recipe(settings.recipe).compresses:
        usual["dim"] = None
    return replace(settings, **usual)


def _give_back(form: Hashable, compiled: object) -> None:
    # In any thread, even within another call of this: each line holds by itself.
    idle = _idle.pop(form, [])
    idle.append(compiled)
    _idle[form] = idle
    for oldest in list(_idle)[:-_MAX_FORMS]:
        _idle.pop(oldest, None)

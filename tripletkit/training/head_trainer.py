"""The trainer of heads on stored features: their epochs, members, and how they are compressed."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from tripletkit import defaults
from tripletkit.evaluation.distances import triplet_margins
from tripletkit.evaluation.validation import chooses_epoch
from tripletkit.features.keras_backend import keras
from tripletkit.features.unit_length import scale_to_unit_length
from tripletkit.model.head_layers import embed, fit_projection
from tripletkit.model.heads import compress_head, frozen_scale, join_heads, keep_frozen
from tripletkit.model.recipes import get_recipe
from tripletkit.model.settings import Settings
from tripletkit.progress import Stages, no_stages
from tripletkit.training.epochs import keep_best_epoch
from tripletkit.training.head_training import HeadTraining, LabelTraining, make_training
from tripletkit.training.held_out import credit, cross_fit
from tripletkit.training.trainer import (
    Chosen,
    EpochRecord,
    Examples,
    Fitted,
    HeldOutAnswers,
    OnEpoch,
    TrainedHead,
    Trainer,
    ignore_epoch,
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
    features it keeps; nothing where there are several heads.

    Args:
        n_draw_epochs: of a training without held-out images; None outside draws.
        is_chosen: the number of epochs is settled.
        curve: accuracy of held-out answers after each epoch, where they chose the number of these.
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
                answer = self._answer_blends if self._is_residual else self._answer_each_epoch
                return answer(learned, asked, settings)
        embeddings = embed(self._train(learned, settings).head, self.examples.features)
        return triplet_margins(embeddings, asked, settings.distance)[None]

    def for_draws(self, learned: np.ndarray) -> HeadTrainer:
        """Return a trainer that takes as many steps, as far as there are triplets for them.

        The first draw says how many epochs these are; folds differ by a few triplets.
        """
        rows, settings = self.examples.rows, self.settings
        n_all, size = settings.count_per_epoch(rows)
        n_draw, _ = settings.count_per_epoch(rows[learned])
        n_steps = settings.epochs * -(-n_all // size)
        n_epochs = max(settings.epochs, round(n_steps / -(-n_draw // size)))
        return HeadTrainer(self.examples, settings, min(n_epochs, defaults.MAX_EPOCHS))

    def choose(self, held_out: HeldOutAnswers | None) -> Chosen:
        if held_out is None:
            return Chosen(self)
        n_epochs = self._n_draw_epochs
        assert n_epochs is not None, "it answered draws"
        accuracies = credit(held_out.margins).mean(axis=1)
        by_epoch = len(accuracies) > 1 and not self._is_residual
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

        def choose(of_others: np.ndarray, _: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
            best = self._find_best(credit(of_others).mean(axis=1))
            return lambda of_asked: of_asked[best]

        return Chosen(chosen, cross_fit(held_out, choose), epochs, settings.epochs)

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
            chooses=by_epoch and chooses_epoch(len(val_rows)),
            on_epoch=lambda record: on_epoch(self._with_held_out(record), settings.epochs),
        )
        history = [self._with_held_out(record) for record in trained.history]
        return Fitted(replace(trained, history=history), settings)

    def _with_held_out(self, record: EpochRecord) -> EpochRecord:
        if record.epoch > len(self._curve):
            return record
        return replace(record, held_out_accuracy=float(self._curve[record.epoch - 1]))

    def _answer_blends(
        self, learned: np.ndarray, asked: np.ndarray, settings: Settings
    ) -> np.ndarray:
        """Return `(n_blends, n_asked)` margins of one training."""
        images = np.unique(self.examples.rows[learned])
        unit = scale_to_unit_length(self.examples.features)
        training, margins = self._run(learned, settings), []
        for blend in _list_blends(settings):
            embeddings = training.embed(blend.strength)
            if blend.frozen_share:
                scale = frozen_scale(unit[images], embeddings[images], blend.frozen_share)
                embeddings = scale_to_unit_length(np.hstack([scale * unit, embeddings]))
            if settings.is_compressed:
                kernel, bias = fit_projection(embeddings[images], settings)
                embeddings = scale_to_unit_length(embeddings @ kernel + bias)
            margins.append(triplet_margins(embeddings, asked, settings.distance))
        return np.stack(margins)

    def _answer_each_epoch(
        self, learned: np.ndarray, asked: np.ndarray, settings: Settings
    ) -> np.ndarray:
        """Return `(n_epochs, n_asked)` margins after each epoch."""
        training, margins = self._begin(learned, settings), []
        for _ in range(settings.epochs):
            loss, _ = training.run_epoch()
            embeddings = training.embed()
            training.check(embeddings, loss)
            margins.append(triplet_margins(embeddings, asked, settings.distance))
        return np.stack(margins)

    def _begin(self, learned: np.ndarray, settings: Settings) -> HeadTraining | LabelTraining:
        examples = self.examples
        return make_training(
            examples.features,
            examples.rows[learned],
            settings,
            examples.labels,
            examples.weights_of(learned),
        )

    def _run(self, learned: np.ndarray, settings: Settings) -> HeadTraining | LabelTraining:
        """Return a training after all its epochs."""
        training = self._begin(learned, settings)
        for _ in range(settings.epochs):
            loss, _ = training.run_epoch()
        training.check(training.embed(), loss)
        return training

    def _train(
        self,
        learned: np.ndarray,
        settings: Settings,
        val_rows: np.ndarray | None = None,
        *,
        chooses: bool = False,
        on_epoch: Callable[[EpochRecord], None] | None = None,
    ) -> TrainedHead:
        """Train the members of a model, join them, and compress their embeddings if so asked.

        History and best epoch are the first member's; the best epoch is kept where validation
        triplets choose it.
        """
        rows, features = self.examples.rows[learned], self.examples.features
        members = []
        for member in range(settings.members):
            if member and on_epoch is not None:
                logger.info("Head %d of %d.", member + 1, settings.members)
            of_member = settings.of_member(member)
            members.append(
                keep_best_epoch(
                    self._begin(learned, of_member),
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
    """Return a head whose embeddings are compressed: their leading principal components.

    Measured on clothing and CIFAR-10, and on clothing with classes left out: going on to train
    the projection on the triplets gained 0.9 points at best, lost up to 2.6, and lost on average.
    """
    assert settings.dim is not None, "it is compressed"
    compressed = compress_head(head, settings.dim)
    compressed.get_layer("embedding").set_weights(fit_projection(embed(head, features), settings))
    return compressed


def _list_blends(settings: Settings) -> list[Settings]:
    """Return settings of a residual head with each share of the frozen features to choose from.

    There is no choice where the user chose, nor with class centers, which are places among the
    embeddings as they were trained: then the settings are not the usual ones.
    """
    own = settings.frozen_share, settings.strength
    if own != (defaults.FROZEN_SHARE, defaults.STRENGTH):
        return [settings]
    return [replace(settings, frozen_share=kept, strength=step) for kept, step in _BLENDS]

"""How long to train one head, and what it is then worth, by pooled held-out draws."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from tripletkit import defaults
from tripletkit.data.labels import ImageLabels
from tripletkit.data.splits.held_out_draws import Draw
from tripletkit.defaults import FROZEN_DISTANCE
from tripletkit.evaluation.distances import triplet_margins
from tripletkit.evaluation.pooled import PooledValidation, score_pooled
from tripletkit.model.embedding import embed
from tripletkit.model.recipes import get_recipe
from tripletkit.model.settings import HeadSettings
from tripletkit.progress import Progress
from tripletkit.training.draw_budget import DrawBudget, drop_ties
from tripletkit.training.epochs import train_model
from tripletkit.training.head_training import make_training

# Epochs over which the pooled accuracy is averaged before the best one is looked for.
_SMOOTHED = 3


@dataclass(frozen=True)
class EpochChoice:
    """For how long to train, and what held-out draws say of it.

    Attributes:
        settings: with the epochs that a training on all triplets is to have.
        pooled: the scores.
        right: `(n,)` of each held-out answer after the chosen epoch: 1, 0, or a half for a tie.
        images: `(n, 3)` indices of the images of each.
        draws: `(n,)` the draw of each, from 0.
    """

    settings: HeadSettings
    pooled: PooledValidation
    right: np.ndarray
    images: np.ndarray
    draws: np.ndarray


def validate_epochs(
    features: np.ndarray,
    rows: np.ndarray,
    settings: HeadSettings,
    draws: Iterator[Draw],
    by: str,
    labels: ImageLabels | None = None,
    *,
    loss_weights: np.ndarray | None = None,
    budget_s: float | None = None,
    progress: Progress | None = None,
) -> EpochChoice:
    """Train a head without the images of each draw and choose for how many epochs.

    Args:
        features: `(n_images, n_features)` float32.
        rows: `(n_triplets, 3)` indices: anchor, positive, negative.
        settings: of the model to train. In a draw the number of steps is the same, as far as
            there are triplets for it.
        draws, by: see `draw_folds`, and what they hold out.
        labels: of all images, for losses that need them.
        loss_weights: of `rows`; see `train_head`.
        budget_s, progress: see `DrawBudget`.
    Raises:
        CollapseError: if the embeddings become alike.
    """
    budget = DrawBudget(draws, defaults.POOLED_TRIPLETS, budget_s, progress)
    margins: list[np.ndarray] = []
    asked, frozen, numbers = [], [], []
    n_epochs = 0
    for draw in budget:
        held_out = drop_ties(draw.held_out_rows, loss_weights)
        if not len(held_out):
            continue
        weights = None if loss_weights is None else loss_weights[draw.train_rows]
        # The first draw says how many; folds differ by a few triplets.
        n_epochs = n_epochs or _count_epochs(settings, rows, draw.train_rows)
        margins.append(
            _margins_of_epochs(
                features,
                rows[draw.train_rows],
                rows[held_out],
                replace(settings, epochs=n_epochs, seed=settings.seed + budget.n_draws),
                labels,
                weights,
            )
        )
        asked.append(rows[held_out])
        frozen.append(triplet_margins(features, rows[held_out], FROZEN_DISTANCE))
        numbers.append(np.full(len(held_out), budget.n_draws))
        budget.note(len(held_out))
    budget.check()
    images, number = np.concatenate(asked), np.concatenate(numbers)
    of_epochs = np.concatenate(margins, axis=1)
    best = _find_best(_credit(of_epochs).mean(axis=1))
    epoch = n_epochs if len(of_epochs) == 1 else best + 1
    chosen = max(1, round(settings.epochs * epoch / n_epochs))
    right = _credit(of_epochs[best])
    pooled = PooledValidation(
        score_pooled(right, images, number),
        score_pooled(_credit(np.concatenate(frozen)), images, number),
        budget.n_draws,
        budget.n_draws // defaults.DRAW_FOLDS,
        by,
        budget.spent_s,
        epoch=epoch,
        n_epochs=n_epochs,
    )
    return EpochChoice(replace(settings, epochs=chosen), pooled, right, images, number)


def _margins_of_epochs(
    features: np.ndarray,
    train_rows: np.ndarray,
    asked: np.ndarray,
    settings: HeadSettings,
    labels: ImageLabels | None,
    loss_weights: np.ndarray | None,
) -> np.ndarray:
    """Return `(n_epochs, n_asked)` margins after each epoch; of the last alone for several heads.

    Where the length of the step takes the place of the number of epochs, too.
    """
    if settings.members > 1 or get_recipe(settings.recipe).starts_as_identity:
        nothing = train_rows[:0]
        trained = train_model(
            features, train_rows, nothing, settings, labels, loss_weights=loss_weights
        )
        embeddings = embed(trained.head, features)
        return triplet_margins(embeddings, asked, settings.distance)[None]
    training = make_training(features, train_rows, settings, labels, loss_weights)
    margins = []
    for _ in range(settings.epochs):
        loss, _ = training.run_epoch()
        embeddings = training.embed()
        training.check(embeddings, loss)
        margins.append(triplet_margins(embeddings, asked, settings.distance))
    return np.stack(margins)


def _count_epochs(settings: HeadSettings, rows: np.ndarray, train_rows: np.ndarray) -> int:
    """Return how many epochs of a draw have as many steps as all of the training."""
    n_all, size = settings.count_per_epoch(rows)
    n_draw, _ = settings.count_per_epoch(rows[train_rows])
    n_steps = settings.epochs * -(-n_all // size)
    return min(max(settings.epochs, round(n_steps / -(-n_draw // size))), defaults.MAX_EPOCHS)


def _find_best(accuracies: np.ndarray) -> int:
    """Return the index of the best epoch, the earliest of equals, chance smoothed away."""
    size = min(_SMOOTHED, len(accuracies))
    padded = np.pad(accuracies, (size // 2, size - 1 - size // 2), mode="edge")
    return int(np.argmax(np.convolve(padded, np.full(size, 1 / size), mode="valid").round(6)))


def _credit(margins: np.ndarray) -> np.ndarray:
    return (margins > 0) + 0.5 * (margins == 0)

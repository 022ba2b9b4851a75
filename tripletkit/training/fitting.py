"""From triplets and features to a head: validated on held-out draws, then trained on all."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice

import numpy as np

from tripletkit import defaults
from tripletkit.data.splits.held_out_draws import Draw, draw_folds, plan_draws
from tripletkit.data.training_set import TrainingSet
from tripletkit.errors import FewTripletsWarning, SplitError
from tripletkit.evaluation.distances import triplet_margins
from tripletkit.evaluation.learning_curve import LearningCurve
from tripletkit.evaluation.pooled import PooledValidation
from tripletkit.evaluation.validation import chooses_epoch
from tripletkit.features.unit_length import scale_to_unit_length
from tripletkit.model.embedding import embed
from tripletkit.model.history import EpochRecord, TrainedHead
from tripletkit.model.recipes import Part, get_recipe
from tripletkit.model.settings import HeadSettings
from tripletkit.progress import Progress, Stages
from tripletkit.training.choosing import Choice
from tripletkit.training.curve import Answer, measure_learning_curve
from tripletkit.training.ensemble import finish_ensemble, train_parts, validate_candidates
from tripletkit.training.epoch_choice import validate_epochs
from tripletkit.training.epochs import train_model
from tripletkit.training.held_out import Candidate, list_candidates, margins_without
from tripletkit.training.unseen_classes import UnseenClasses, score_unseen_classes

logger = logging.getLogger("tripletkit")


@dataclass(frozen=True)
class Fitted:
    """A trained head and how it came to be.

    Attributes:
        trained: the head.
        settings: with which it was trained.
        parts: of an ensemble, as the record has them; none of a single head.
        pooled: what held-out draws say; None without any.
        unseen: how an ensemble does on classes of images that it was trained without.
        curve: what more judgements would bring; None where it was not asked for.
    """

    trained: TrainedHead
    settings: HeadSettings
    parts: tuple[Part, ...] = ()
    pooled: PooledValidation | None = None
    unseen: UnseenClasses | None = None
    curve: LearningCurve | None = None


def fit(
    data: TrainingSet,
    features: np.ndarray,
    columns: Mapping[str, slice],
    settings: HeadSettings,
    loss_weights: np.ndarray | None,
    *,
    pools: bool,
    budget_s: float | None,
    unseen_fraction: float,
    test_features: np.ndarray | None,
    with_curve: bool,
    on_epoch: Callable[[EpochRecord, int], None],
    stages: Stages,
) -> Fitted:
    """Train a head as its recipe says.

    Args:
        data: its validation triplets, if any, are its own or set apart by a split.
        features: `(n_images, n_features)` float32 of the images in `data.names`.
        columns: of each network and depth; see `feature_blocks`.
        settings: of the head.
        loss_weights: `(n_triplets, 2)` of the training triplets where people disagree.
        pools: validate on held-out draws, then train on all training triplets. An ensemble is
            chosen by such draws always.
        budget_s: seconds that the draws may take; None for as many draws as are usual.
        unseen_fraction: of the images to hold out as whole classes; of an ensemble alone.
        test_features: of the images of a test; see `measure_unseen_classes`.
        with_curve: measure a learning curve, too: of the heads as they are trained, and of an
            ensemble's strongest part.
        on_epoch: told each epoch and their number.
        stages: told of progress.
    Raises:
        CollapseError: if the embeddings become alike.
    """
    rows = data.train.rows
    if get_recipe(settings.recipe).part_heads:
        return _fit_ensemble(
            data,
            features,
            columns,
            settings,
            loss_weights,
            budget_s=budget_s,
            unseen_fraction=unseen_fraction,
            test_features=test_features,
            with_curve=with_curve,
            stages=stages,
        )
    pooled = None
    if pools and (drawn := draw_held_out(data, features, settings.seed)) is not None:
        chosen = validate_epochs(
            features,
            rows,
            settings,
            *drawn,
            data.labels,
            loss_weights=loss_weights,
            budget_s=budget_s,
            progress=_begin_draws(stages),
        )
        settings, pooled = chosen.settings, chosen.pooled
        logger.info(
            "Held out %d times: best after epoch %d of %d; training on all triplets.",
            pooled.n_draws,
            pooled.epoch,
            pooled.n_epochs,
        )
    # Elsewhere the length of the step takes the place of the number of epochs.
    by_epoch = not get_recipe(settings.recipe).starts_as_identity
    trained = train_model(
        features,
        rows,
        data.val.rows,
        settings,
        data.labels,
        loss_weights=loss_weights,
        chooses_epoch=by_epoch and pooled is None and chooses_epoch(len(data.val)),
        on_epoch=lambda record: on_epoch(record, settings.epochs),
        on_member=lambda member: logger.info("Head %d of %d.", member, settings.members),
    )

    def answer(train: np.ndarray, asked: np.ndarray) -> np.ndarray:
        weights = None if loss_weights is None else loss_weights[train]
        head = train_model(
            features, rows[train], rows[:0], settings, data.labels, loss_weights=weights
        ).head
        return triplet_margins(embed(head, features), rows[asked], settings.distance)

    curve = _measure_curve(data, features, settings, answer, stages) if with_curve else None
    return Fitted(trained, settings, pooled=pooled, curve=curve)


def _begin_draws(stages: Stages) -> Progress:
    # Without a terminal there is no bar, and the draws take most of the time.
    logger.info("Training without a third of the images, again and again, to be asked about these.")
    return stages("held-out draws")


def feature_blocks(columns: Mapping[str, slice]) -> dict[str, slice]:
    """Return the columns of each network's last features, and of its early ones together.

    An ensemble weighs these: the last layers tell classes apart, the early ones what people
    see.

    Args:
        columns: of a source, such as `efficientnet-lite0` and
            `efficientnet-lite0:block3b_depthwise_relu6`.
    Example:
        >>> feature_blocks({"net": slice(0, 4), "net:a": slice(4, 6), "net:b": slice(6, 9)})
        {'net': slice(0, 4, None), 'net early': slice(4, 9, None)}
    """
    blocks: dict[str, slice] = {}
    for name, taken in columns.items():
        network, _, stage = name.partition(":")
        name = f"{network} early" if stage else network
        # The stages of one network stand side by side.
        start = blocks[name].start if name in blocks else taken.start
        blocks[name] = slice(start, taken.stop)
    return blocks


def _fit_ensemble(
    data: TrainingSet,
    features: np.ndarray,
    columns: Mapping[str, slice],
    settings: HeadSettings,
    loss_weights: np.ndarray | None,
    *,
    budget_s: float | None,
    unseen_fraction: float,
    test_features: np.ndarray | None,
    with_curve: bool,
    stages: Stages,
) -> Fitted:
    rows = data.train.rows
    heads = get_recipe(settings.recipe).part_heads
    candidates = list_candidates(feature_blocks(columns), heads)
    drawn = draw_held_out(data, features, settings.seed)
    if drawn is None:
        candidates = [candidate.after() for candidate in candidates]
        choice, pooled = _weigh_alike(candidates), None
    else:
        candidates, choice, pooled = validate_candidates(
            features,
            rows,
            candidates,
            *drawn,
            settings.seed,
            loss_weights=loss_weights,
            budget_s=budget_s,
            progress=_begin_draws(stages),
        )
    parts = train_parts(
        features,
        rows,
        candidates,
        choice,
        settings.seed,
        loss_weights=loss_weights,
        progress=stages("heads"),
    )
    trained = finish_ensemble(features, rows, parts, settings, pooled)

    def answer(train: np.ndarray, asked: np.ndarray) -> np.ndarray:
        weights = None if loss_weights is None else loss_weights[train]
        # The others have no say.
        weighed = np.flatnonzero(choice.weights > 0)
        of_parts = np.zeros((len(candidates), len(asked)), np.float32)
        of_parts[weighed] = margins_without(
            features,
            rows[train],
            rows[asked],
            [candidates[number] for number in weighed],
            settings.seed,
            weights,
        )
        return choice.margins(of_parts)

    unseen = None
    if unseen_fraction:
        try:
            unseen = score_unseen_classes(
                data,
                features,
                settings.seed,
                unseen_fraction,
                test_features,
                loss_weights,
                answer,
                stages("unseen classes"),
            )
        except SplitError as error:
            warnings.warn(
                f"{error}\nTraining goes on without it.", FewTripletsWarning, stacklevel=2
            )
    curve = None
    if with_curve:
        trainable = [candidate.settings is not None for candidate in candidates]
        strongest = candidates[int(np.argmax(choice.weights * trainable))]

        def answer_strongest(train: np.ndarray, asked: np.ndarray) -> np.ndarray:
            weights = None if loss_weights is None else loss_weights[train]
            return margins_without(
                features, rows[train], rows[asked], [strongest], settings.seed, weights
            )[0]

        curve = _measure_curve(data, features, settings, answer_strongest, stages)
    kept = tuple(one.part for one in parts)
    return Fitted(trained, settings, kept, pooled, unseen, curve)


def _measure_curve(
    data: TrainingSet,
    features: np.ndarray,
    settings: HeadSettings,
    answer: Answer,
    stages: Stages,
) -> LearningCurve | None:
    drawn = draw_held_out(data, features, settings.seed)
    if drawn is None:
        return None
    return measure_learning_curve(
        data.train.rows,
        islice(drawn[0], defaults.DRAW_FOLDS),
        answer,
        settings.seed,
        progress=stages("learning curve"),
    )


def draw_held_out(
    data: TrainingSet, features: np.ndarray, seed: int
) -> tuple[Iterator[Draw], str] | None:
    """Return draws and what they hold out; None, with a warning, where there can be none."""
    rows = data.train.rows
    labels = data.labels and data.labels.of_image
    try:
        plan = plan_draws(rows, len(features), labels, scale_to_unit_length(features))
        # The first one is made now, so that what cannot be is found before anything is trained.
        next(draw_folds(rows, plan, seed, is_scored=data.is_scored))
    except SplitError as error:
        warnings.warn(
            f"{error}\nTraining goes on without validation.", FewTripletsWarning, stacklevel=2
        )
        return None
    return draw_folds(rows, plan, seed, is_scored=data.is_scored), plan.by


def _weigh_alike(candidates: list[Candidate]) -> Choice:
    alike = np.full(len(candidates), 1 / len(candidates))
    return Choice(alike, np.ones(len(candidates)))

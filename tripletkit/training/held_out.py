"""Answers of a trainer to what it was trained without: draws of images, or whole classes of them.

The only loop over held-out draws is here, and the only one over unseen classes.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import chain, islice

import numpy as np

from tripletkit import defaults
from tripletkit.data.splits.held_out_draws import (
    BY_LABELS,
    Draw,
    HeldOutClasses,
    draw_folds,
    find_groups,
    hold_out_classes,
)
from tripletkit.data.triplets import Triplets
from tripletkit.defaults import FROZEN_DISTANCE
from tripletkit.errors import FewTripletsWarning, SplitError, caution
from tripletkit.evaluation.distances import triplet_margins
from tripletkit.evaluation.pooled import (
    BetterRecipe,
    LearningCurve,
    PooledScore,
    PooledValidation,
    compare_pooled,
)
from tripletkit.evaluation.scoring import Score
from tripletkit.evaluation.validation import Nearness, UnseenClasses
from tripletkit.features.unit_length import scale_to_unit_length
from tripletkit.model.recipes import MAP, get_recipe
from tripletkit.model.settings import Settings
from tripletkit.progress import Progress, no_progress
from tripletkit.training.trainer import (
    Chosen,
    Examples,
    HeldOutAnswers,
    Trainer,
    credit,
    make_trainer,
)

logger = logging.getLogger("tripletkit")


def score_held_out(answers: HeldOutAnswers, chosen: Chosen) -> PooledValidation:
    """Return the scores of what was chosen, of the frozen features, and of a map of them."""
    assert chosen.margins is not None
    images, draws = answers.images, answers.draws
    asked = images, draws, answers.trials
    trained, frozen = credit(chosen.margins), credit(answers.frozen)
    of_map = None if answers.of_map is None else credit(answers.of_map)
    return PooledValidation(
        PooledScore.of(trained, *asked),
        PooledScore.of(frozen, *asked),
        answers.n_draws,
        answers.n_draws // defaults.DRAW_FOLDS,
        answers.by,
        answers.seconds_s,
        chosen.candidates,
        chosen.recipes,
        None if of_map is None else PooledScore.of(of_map, *asked),
        _find_better_recipe(trained, frozen, of_map, images, draws),
        chosen.epoch,
        chosen.n_epochs,
        len(answers.margins),
    )


def _find_better_recipe(
    trained: np.ndarray,
    frozen: np.ndarray,
    of_map: np.ndarray | None,
    images: np.ndarray,
    draws: np.ndarray,
) -> BetterRecipe | None:
    """Return the recipe to try where held-out answers surely are better without the trained one,
    given the credits of all; None where no map is to compare."""
    if of_map is None:
        return None
    for recipe, right in (("map", of_map), ("auto", frozen)):
        lead, interval = compare_pooled(right, trained, images, draws)
        if interval is not None and interval.low > 0:
            return BetterRecipe(recipe, lead, interval)
    return None


def _draw_held_out(examples: Examples, seed: int) -> tuple[Iterator[Draw], str] | None:
    """Return draws and what they hold out; None, with a warning, where there can be none."""
    labels = None if examples.labels is None else examples.labels.of_image
    n_images = len(examples.features)
    try:
        features = scale_to_unit_length(examples.features)
        how = (labels, features, examples.groups, examples.is_scored)
        draws, by = draw_folds(examples.rows, n_images, seed, *how)
        # The first one is made now, so that what cannot be is found before anything is trained.
        return chain([next(draws)], draws), by
    except SplitError as error:
        caution(f"{error}\nTraining goes on without validation.", FewTripletsWarning)
        return None


def answer_held_out(
    trainer: Trainer,
    budget_s: float | None = None,
    progress: Progress = no_progress,
    *,
    drawn_by: Trainer | None = None,
) -> HeldOutAnswers | None:
    """Train without the images of each draw and answer its triplets; None where none can be drawn.
    Triplets on which people are tied are not asked. The seed and the features of `drawn_by`, a
    trainer of the same triplets, decide what is held out. Defaults to `trainer`."""
    drawn_by = drawn_by or trainer
    drawn = _draw_held_out(drawn_by.examples, drawn_by.settings.seed)
    if drawn is None:
        return None
    draws, by = drawn
    # Without a terminal there is no bar, and the draws take most of the time.
    logger.info("Training without a third of the images, again and again, to be asked about these.")
    examples = trainer.examples
    started_s = time.perf_counter()
    # Where a choice is made, a map is among what is chosen from.
    simple = None if get_recipe(trainer.settings.recipe).is_chosen else make_map(examples)
    margins: list[np.ndarray] = []
    of_map: list[np.ndarray] = []
    asked: list[np.ndarray] = []
    rounds: list[int] = []
    sizes: list[int] = []
    for draw in _worth_their_time(draws, sizes, trainer.n_enough, budget_s, progress):
        held_out = examples.with_answer(draw.held_out_rows)
        if not len(held_out):
            continue
        if not margins:
            trainer = trainer.for_draws(draw.train_rows)
        rows = examples.rows[held_out]
        margins.append(trainer.answer(draw.train_rows, rows, len(sizes)))
        if simple is not None:
            of_map += list(simple.answer(draw.train_rows, rows))
        asked.append(held_out)
        rounds.append(draw.round)
        sizes.append(len(rows))
    if not margins:
        raise SplitError("expected held-out triplets that people agree on, got none")
    triplets = np.concatenate(asked)
    return HeldOutAnswers(
        np.concatenate(margins, axis=1),
        triplet_margins(examples.features, examples.rows[triplets], FROZEN_DISTANCE),
        np.concatenate(of_map) if of_map else None,
        examples.rows[triplets],
        np.repeat(np.arange(len(sizes)), sizes),
        np.repeat(rounds, sizes),
        by,
        time.perf_counter() - started_s,
        None if examples.trials is None else examples.trials[triplets],
    )


def make_map(examples: Examples) -> Trainer:
    """Return the trainer of a linear map with a single variant, for other recipes to be compared
    with: of the features and triplets that they learn from."""
    return make_trainer(examples, Settings.of_recipe(MAP)).choose(None).trainer


def _worth_their_time(
    draws: Iterable[Draw],
    sizes: list[int],
    enough: int,
    budget_s: float | None = None,
    progress: Progress = no_progress,
) -> Iterator[Draw]:
    """Yield draws while they are worth their time; `sizes` gets the number of answers to each.

    Whole rounds until enough answers are pooled, at most `defaults.MAX_DRAW_ROUNDS`. Only a budget,
    after which no further draw is begun but those of the first round, makes the number depend on
    the time they take. Progress is told in draws, the total as far as one can tell.
    """
    started_s, last_round = time.perf_counter(), 0
    for draw in draws:
        is_enough = sum(sizes) >= enough or draw.round >= defaults.MAX_DRAW_ROUNDS
        if draw.round > last_round and is_enough:
            return
        last_round = draw.round
        if budget_s is not None and len(sizes) >= defaults.DRAW_FOLDS:
            per_draw_s = (time.perf_counter() - started_s) / len(sizes)
            if per_draw_s * (len(sizes) + 1) > budget_s:
                return
        yield draw
        if sizes:
            per_round = sum(sizes) / len(sizes) * defaults.DRAW_FOLDS
            rounds = min(-(-enough // per_round), defaults.MAX_DRAW_ROUNDS)
            progress(len(sizes), max(len(sizes), int(rounds) * defaults.DRAW_FOLDS))


# Shares of a draw's training triplets that heads learn from for the learning curve.
_SHARES = (0.25, 0.5, 1.0)
# Fewer triplets than this train nothing.
_MIN_TRIPLETS = 20
# Judgements more than there are, whose gain is told.
_N_MORE = 500


def measure_learning_curve(
    trainer: Trainer, progress: Progress = no_progress
) -> LearningCurve | None:
    """Train with shares of the judgements, and of the images, and fit the curve. Each draw of one
    round is gone through once; there are three, which give an interval."""
    rows, seed = trainer.examples.rows, trainer.settings.seed
    drawn = _draw_held_out(trainer.examples, seed)
    if drawn is None:
        return None
    draws = list(islice(drawn[0], defaults.DRAW_FOLDS))
    rng = np.random.default_rng(seed)
    numbers, accuracies, with_fewer_images = [], [], []
    n_done, n_trainings = 0, len(draws) * (len(_SHARES) + 1)

    def right(learned: np.ndarray, draw: Draw) -> float:
        nonlocal n_done
        (margins,) = trainer.answer(learned, rows[draw.held_out_rows])
        n_done += 1
        progress(n_done, n_trainings)
        return float(np.mean(credit(margins)))

    for draw in draws:
        shuffled = rng.permutation(draw.train_rows)
        sizes = [max(_MIN_TRIPLETS, round(share * len(shuffled))) for share in _SHARES]
        numbers.append([min(size, len(shuffled)) for size in sizes])
        accuracies.append([right(np.sort(shuffled[:size]), draw) for size in sizes])
        few = _over_fewer_images(rows, draw.train_rows, sizes[0], rng)
        with_fewer_images.append(right(few, draw))
    return LearningCurve.fit(
        np.array(numbers, dtype=np.float64),
        np.array(accuracies),
        len(rows),
        _N_MORE,
        np.array(with_fewer_images),
    )


def _over_fewer_images(
    rows: np.ndarray, train: np.ndarray, wanted: int, rng: np.random.Generator
) -> np.ndarray:
    """Return so many of the training triplets, of images that are added in an order of chance."""
    images = np.unique(rows[train])
    rank = np.empty(images.max() + 1, dtype=np.int64)
    rank[images] = rng.permutation(len(images))
    # A triplet is among the images as soon as the last of its three is.
    last = rank[rows[train]].max(axis=1)
    return np.sort(train[np.argsort(last, kind="stable")[:wanted]])


# Between the seeds of two rounds, so that the first of another training's seed is no second here.
_ROUND_SEEDS = 1_000_003
# What training goes without in each round, and what its groups are: classes, or clusters.
UnseenRounds = list[tuple[HeldOutClasses, str]]


def plan_unseen_classes(examples: Examples, seed: int, fraction: float) -> UnseenRounds:
    """Decide which classes are held out, up to `defaults.UNSEEN_ROUNDS` times, each time others.
    The classes are those of labelled images where there are labels, else clusters of features."""
    rounds: UnseenRounds = []
    for number in range(defaults.UNSEEN_ROUNDS):
        try:
            held_out, groups_from = _hold_out(examples, seed + number * _ROUND_SEEDS, fraction)
        except SplitError:
            # Where some classes can be held out, others may not.
            if not rounds:
                raise
            continue
        # Of few classes the same may be drawn again, which would say the same.
        if not any(np.array_equal(held_out.is_held_out, each.is_held_out) for each, _ in rounds):
            rounds.append((held_out, groups_from))
    return rounds


def _hold_out(examples: Examples, seed: int, fraction: float) -> tuple[HeldOutClasses, str]:
    """Return what is held out, and what the classes are from."""
    rows, labels = examples.rows, examples.labels
    images = np.union1d(rows, examples.val_rows)
    unit = scale_to_unit_length(examples.features)
    groups, n_groups, source = find_groups(
        images, unit, None if labels is None else labels.of_image, seed
    )
    # Two classes are one pair to tell apart, which says little; clusters are finer.
    fewest = 3 if source == BY_LABELS and n_groups >= 6 else 2
    held_out = hold_out_classes(rows, groups, n_groups, fraction, seed, fewest)
    if examples.is_scored is None:
        return held_out, source
    asked = held_out.split.val_rows
    if not len(kept := asked[examples.is_scored[asked]]):
        raise SplitError("expected questions of chance about the held-out classes, got none")
    return replace(held_out, split=replace(held_out.split, val_rows=kept)), source


def measure_unseen_classes(
    trainer: Trainer,
    triplets: Triplets,
    rounds: UnseenRounds,
    test_features: np.ndarray | None = None,
    progress: Progress = no_progress,
) -> UnseenClasses:
    """Train without whole classes of images and see how the model does on them. A triplet that
    several trainings were asked about is answered by the mean of their margins."""
    examples = trainer.examples
    simple = make_map(examples)
    total, n_answers = np.zeros((2, len(triplets))), np.zeros(len(triplets), dtype=np.int64)
    for number, (each, _) in enumerate(rounds):
        progress(number, len(rounds))
        rows = examples.with_answer(each.split.val_rows)
        answered = each.split.train_rows, examples.rows[rows]
        total[:, rows] += np.concatenate([trainer.answer(*answered), simple.answer(*answered)])
        n_answers[rows] += 1
    progress(len(rounds), len(rounds))
    first, groups_from = rounds[0]
    test = None
    if test_features is not None:
        unit, trained_on = scale_to_unit_length(examples.features), np.unique(examples.rows)
        of_test = scale_to_unit_length(test_features)
        test = Nearness.of(unit[trained_on], first.is_held_out[trained_on], of_test)
    asked_rows = np.flatnonzero(n_answers)
    asked = triplets.take(asked_rows)
    trained, of_map = (total[:, asked_rows] / n_answers[asked_rows]).astype(np.float32)
    frozen = triplet_margins(examples.features, asked.rows, FROZEN_DISTANCE)
    draws = np.zeros(len(asked), np.int64)
    better = _find_better_recipe(credit(trained), credit(frozen), credit(of_map), asked.rows, draws)
    return UnseenClasses(
        groups_from,
        first.n_groups,
        len(rounds),
        tuple(each.n_held_out_classes for each, _ in rounds),
        int(np.any([each.is_held_out for each, _ in rounds], axis=0).sum()),
        Score.of_margins(trained, asked),
        Score.of_margins(frozen, asked),
        Score.of_margins(of_map, asked),
        better,
        test,
    )

"""Answers of a trainer to held-out draws, pooled: the only loop over draws that there is."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator
from itertools import chain, islice

import numpy as np

from tripletkit import defaults
from tripletkit.data.splits.held_out_draws import Draw, draw_folds, plan_draws
from tripletkit.defaults import FROZEN_DISTANCE
from tripletkit.errors import (
    FewTripletsWarning,
    SplitError,
    caution,
)
from tripletkit.evaluation.distances import triplet_margins
from tripletkit.evaluation.pooled import (
    BetterRecipe,
    LearningCurve,
    PooledValidation,
    compare_pooled,
    fit_learning_curve,
    score_pooled,
)
from tripletkit.features.unit_length import scale_to_unit_length
from tripletkit.model.recipes import MAP, get_recipe
from tripletkit.model.settings import Settings
from tripletkit.progress import Progress, no_progress
from tripletkit.training.trainer import (
    Chosen,
    Examples,
    HeldOutAnswers,
    Trainer,
    make_trainer,
)

logger = logging.getLogger("tripletkit")


def credit(margins: np.ndarray) -> np.ndarray:
    """Return what each margin counts: 1 where it is right, half for a tie."""
    return (margins > 0) + 0.5 * (margins == 0)


def score_held_out(answers: HeldOutAnswers, chosen: Chosen) -> PooledValidation:
    """Return the scores of what was chosen, of the frozen features, and of a map of them."""
    assert chosen.margins is not None
    images, draws = answers.images, answers.draws
    asked = images, draws, answers.trials
    trained, frozen = credit(chosen.margins), credit(answers.frozen)
    of_map = None if answers.of_map is None else credit(answers.of_map)
    return PooledValidation(
        score_pooled(trained, *asked),
        score_pooled(frozen, *asked),
        answers.n_draws,
        answers.n_draws // defaults.DRAW_FOLDS,
        answers.by,
        answers.seconds_s,
        chosen.candidates,
        chosen.recipes,
        None if of_map is None else score_pooled(of_map, *asked),
        find_better_recipe(trained, frozen, of_map, images, draws),
        chosen.epoch,
        chosen.n_epochs,
        len(answers.margins),
    )


def find_better_recipe(
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


# Takes the margins of all variants, `(n_variants, n)`, and the images of each triplet, `(n, 3)`;
# returns what gives the margins `(n,)` of the variant that these choose.
_Choose = Callable[[np.ndarray, np.ndarray], Callable[[np.ndarray], np.ndarray]]


def cross_fit(answers: HeldOutAnswers, choose: _Choose) -> np.ndarray:
    """Return `(n,)` margins of which none was chosen by itself; see `HeldOutAnswers.folds`."""
    margins = np.empty(len(answers.draws))
    for is_asked, is_other in answers.folds():
        chosen = choose(answers.margins[:, is_other], answers.images[is_other])
        margins[is_asked] = chosen(answers.margins[:, is_asked])
    return margins


def _draw_held_out(examples: Examples, seed: int) -> tuple[Iterator[Draw], str] | None:
    """Return draws and what they hold out; None, with a warning, where there can be none."""
    labels = None if examples.labels is None else examples.labels.of_image
    n_images = len(examples.features)
    try:
        features = scale_to_unit_length(examples.features)
        plan = plan_draws(examples.rows, n_images, labels, features, groups=examples.groups)
        draws = draw_folds(examples.rows, plan, seed, is_scored=examples.is_scored)
        # The first one is made now, so that what cannot be is found before anything is trained.
        return chain([next(draws)], draws), plan.by
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
    trainer of the same triplets, decide what is held out. Defaults to `trainer`.
    """
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
        trainer,
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


def choose(trainer: Trainer, held_out: HeldOutAnswers | None) -> Chosen:
    """Return what held-out answers choose, or the trainer as it usually is without any."""
    return trainer.choose(None) if held_out is None else held_out.trainer.choose(held_out)


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


def measure_learning_curve(
    trainer: Trainer, n_more: int = 500, progress: Progress = no_progress
) -> LearningCurve | None:
    """Train with shares of the judgements, and of the images, and fit the curve.

    Each draw of one round is gone through once; there are three, which give an interval.
    Nothing is said, but for a warning, where nothing can be held out.
    """
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
    return fit_learning_curve(
        np.array(numbers, dtype=np.float64),
        np.array(accuracies),
        len(rows),
        n_more,
        np.array(with_fewer_images),
    )


def _over_fewer_images(
    rows: np.ndarray, train: np.ndarray, wanted: int, rng: np.random.Generator
) -> np.ndarray:
    """Return about so many of the training triplets, over as few images as chance gives.

    Images are added in an order of chance until the triplets among them are enough.
    """
    images = np.unique(rows[train])
    rank = np.empty(images.max() + 1, dtype=np.int64)
    rank[images] = rng.permutation(len(images))
    # A triplet is among the images as soon as the last of its three is.
    last = rank[rows[train]].max(axis=1)
    return np.sort(train[np.argsort(last, kind="stable")[:wanted]])

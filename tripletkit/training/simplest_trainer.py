"""The trainer of `auto`: the simplest recipe within one standard error of the best of them.

With few judgements a long head learns by heart, and the frozen features or a linear map answer as
well or better; with many it is worth its length. Which it is, held-out answers say. That a 95%
interval of the difference holds 0 is too mild a rule: by it 2,330 judgements of letters took the
frozen features, which answered 0.850 of the held-out ones, where this rule answered 0.859.

Reference:
    Breiman, Friedman, Olshen, Stone. Classification and Regression Trees. 1984, 3.4.3 (the rule of
    one standard error).
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property

import numpy as np

from tripletkit.evaluation.pooled import RecipeWorth, compare_pooled, score_pooled
from tripletkit.model.recipes import COSINE, FROZEN, MAP, SIMPLEST_FIRST, get_recipe
from tripletkit.model.settings import HeadSettings, choose_epochs
from tripletkit.progress import Stages, no_stages
from tripletkit.training.held_out import credit
from tripletkit.training.parts_trainer import Candidate, PartsTrainer
from tripletkit.training.trainer import (
    Chosen,
    Examples,
    Fitted,
    HeldOutAnswers,
    OnEpoch,
    Trainer,
    ignore_epoch,
    make_trainer,
)

logger = logging.getLogger("tripletkit")

# Standard errors that a 95% interval reaches.
_REACH = 1.96


class SimplestTrainer(Trainer):
    """Lets several recipes answer the same draws, and takes one.

    Its variants are those of the recipes, one after another.

    Args:
        examples: see `Trainer`.
        settings: of `auto`; those of each recipe are its own, but for `dim`.
        trainers: recipe -> its trainer, the simplest first. Defaults to all, which are made when
            they are first needed: some load TensorFlow.
    """

    def __init__(
        self,
        examples: Examples,
        settings: HeadSettings,
        trainers: Mapping[str, Trainer] | None = None,
    ) -> None:
        super().__init__(examples, settings)
        self._given = trainers
        # How many rows each gives; known once they have answered.
        self._n_variants: list[int] = []

    @cached_property
    def trainers(self) -> Mapping[str, Trainer]:
        """The trainer of each recipe, the simplest first."""
        return self._given or {
            name: _make_trainer(name, self.examples, self.settings) for name in SIMPLEST_FIRST
        }

    def answer(self, learned: np.ndarray, asked: np.ndarray, further: int = 0) -> np.ndarray:
        found = [each.answer(learned, asked, further) for each in self.trainers.values()]
        self._n_variants = [len(margins) for margins in found]
        return np.concatenate(found)

    def for_draws(self, learned: np.ndarray) -> SimplestTrainer:
        trainers = {name: each.for_draws(learned) for name, each in self.trainers.items()}
        return SimplestTrainer(self.examples, self.settings, trainers)

    def choose(self, held_out: HeldOutAnswers | None) -> Chosen:
        if held_out is None:
            logger.info(
                "Nothing could be held out to choose by. Taken: %s, which begins as the frozen "
                "features.",
                MAP,
            )
            return _make_trainer(MAP, self.examples, self.settings).choose(None)
        ends = np.cumsum(self._n_variants)[:-1]
        chosen = [
            trainer.choose(replace(held_out, trainer=trainer, margins=margins))
            for trainer, margins in zip(
                self.trainers.values(), np.split(held_out.margins, ends), strict=True
            )
        ]
        margins = np.stack([each.margins for each in chosen if each.margins is not None])
        names = list(self.trainers)
        worths = _compare(names, margins, held_out.images, held_out.draws)
        (taken,) = np.flatnonzero([worth.is_taken for worth in worths])
        answered = _cross_fit(names, margins, held_out)
        return replace(chosen[taken], margins=answered, candidates=(), recipes=worths)

    def fit(self, on_epoch: OnEpoch = ignore_epoch, stages: Stages = no_stages) -> Fitted:
        return self.choose(None).trainer.fit(on_epoch, stages)


def _make_trainer(name: str, examples: Examples, settings: HeadSettings) -> Trainer:
    """Return the trainer of a recipe, or of the features as they are, with its own settings."""
    if name == FROZEN:
        whole = slice(0, examples.features.shape[1])
        return PartsTrainer(examples, settings, [Candidate.of("features", whole, COSINE)])
    own = HeadSettings.of_recipe(name, seed=settings.seed, dim=settings.dim)
    epochs = choose_epochs(*own.count_per_epoch(examples.rows), get_recipe(name).epochs)
    return make_trainer(examples, replace(own, epochs=epochs))


def _compare(
    names: Sequence[str], margins: np.ndarray, images: np.ndarray, draws: np.ndarray
) -> tuple[RecipeWorth, ...]:
    """Return what each recipe is worth, and which is taken.

    Args:
        names: the simplest first.
        margins: `(n_recipes, n)` of held-out answers.
        images, draws: see `HeldOutAnswers`.
    """
    right = credit(margins)
    scores = [score_pooled(of_recipe, images, draws) for of_recipe in right]
    best = int(np.argmax([score.accuracy for score in scores]))
    worths, is_found = [], False
    for name, score, of_recipe in zip(names, scores, right, strict=True):
        behind, interval = compare_pooled(right[best], of_recipe, images, draws)
        # Too few images for an interval cannot tell them apart, either.
        is_near = interval is None or behind <= (behind - interval.low) / _REACH
        is_taken = not is_found and is_near
        is_found |= is_taken
        worths.append(RecipeWorth(name, score, behind, interval, is_taken))
    return tuple(worths)


def _cross_fit(names: Sequence[str], margins: np.ndarray, held_out: HeldOutAnswers) -> np.ndarray:
    """Return `(n,)` margins of the recipe that is taken without the images of each draw."""
    answered = np.empty(margins.shape[1])
    for is_asked, is_other in held_out.folds():
        worths = _compare(
            names, margins[:, is_other], held_out.images[is_other], held_out.draws[is_other]
        )
        (taken,) = np.flatnonzero([worth.is_taken for worth in worths])
        answered[is_asked] = margins[taken, is_asked]
    return answered

"""Margins of candidate parts on held-out triplets, from heads that never saw their images."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from tripletkit import defaults
from tripletkit.data.splits.held_out_draws import Draw
from tripletkit.defaults import FROZEN_DISTANCE
from tripletkit.evaluation.distances import triplet_margins
from tripletkit.model.recipes import FROZEN, PART_HEADS, RESIDUAL
from tripletkit.progress import Progress
from tripletkit.training.draw_budget import DrawBudget, drop_ties
from tripletkit.training.part_features import PartFeatures
from tripletkit.training.part_training import (
    MLP_PART,
    RESIDUAL_PART,
    PartSettings,
    embed_part,
    train_part,
)

# Squared, because those of an ensemble's parts add up.
PART_DISTANCE = "squared-l2"


@dataclass(frozen=True)
class Candidate:
    """A part that may become one of the ensemble.

    Attributes:
        features: what its columns are called.
        columns: of the features.
        head: one of `PART_HEADS`.
        n_steps: of its training, each to be tried; None for those of its head.
    """

    features: str
    columns: slice
    head: str
    n_steps: tuple[int, ...] | None = None

    @property
    def name(self) -> str:
        return f"{self.features}, {self.head}"

    @property
    def settings(self) -> PartSettings | None:
        """How it is trained; None where it is not."""
        if self.head == FROZEN:
            return None
        of_head = RESIDUAL_PART if self.head == RESIDUAL else MLP_PART
        return of_head if self.n_steps is None else replace(of_head, n_steps=self.n_steps)

    @property
    def n_tried(self) -> int:
        """How many numbers of steps there are to choose from; 1 without training."""
        return 1 if self.settings is None else len(self.settings.n_steps)

    def after(self, place: int | None = None) -> Candidate:
        """Return the candidate with one number of steps: that at a place, or the usual one."""
        if self.settings is None:
            return self
        steps = self.settings.usual_steps if place is None else self.settings.n_steps[place]
        return replace(self, n_steps=(steps,))


@dataclass(frozen=True)
class HeldOut:
    """What held-out draws gave.

    Attributes:
        margins: `(n_tried, n)` float32, above 0 where the positive is nearer: of each candidate
            a row for each number of steps.
        owners: `(n_tried,)` the candidate of each row.
        frozen: `(n,)` float32, of all features without training, by cosine.
        images: `(n, 3)` indices of the images of each triplet.
        draws: `(n,)` the draw of each, from 0.
        seconds_s: that the draws took.
    """

    margins: np.ndarray
    owners: np.ndarray
    frozen: np.ndarray
    images: np.ndarray
    draws: np.ndarray
    seconds_s: float

    @property
    def n_draws(self) -> int:
        return int(self.draws[-1]) + 1

    @property
    def n_rounds(self) -> int:
        """Whole rounds, in each of which every image was held out once."""
        return self.n_draws // defaults.DRAW_FOLDS


def list_candidates(
    blocks: Mapping[str, slice], heads: Sequence[str] = PART_HEADS
) -> list[Candidate]:
    """Return every head on every block of features."""
    return [Candidate(name, columns, head) for name, columns in blocks.items() for head in heads]


def score_held_out(
    features: np.ndarray,
    rows: np.ndarray,
    candidates: Sequence[Candidate],
    draws: Iterator[Draw],
    seed: int,
    *,
    loss_weights: np.ndarray | None = None,
    budget_s: float | None = None,
    progress: Progress | None = None,
) -> HeldOut:
    """Train the candidates without the images of each draw and let them answer its triplets.

    Args:
        features: `(n_images, n_features)` float32.
        rows: `(n_triplets, 3)` indices: anchor, positive, negative.
        candidates: what to train.
        draws: see `draw_folds`.
        seed: of the heads.
        loss_weights: see `train_part`; triplets on which people are tied are not asked.
        budget_s, progress: see `DrawBudget`.
    """
    budget = DrawBudget(draws, defaults.WEIGHED_TRIPLETS, budget_s, progress)
    margins, frozen, triplets, numbers = [], [], [], []
    for draw in budget:
        asked = drop_ties(draw.held_out_rows, loss_weights)
        if not len(asked):
            continue
        weights = None if loss_weights is None else loss_weights[draw.train_rows]
        trained = rows[draw.train_rows]
        own_seed = seed + budget.n_draws
        margins.append(
            margins_without(features, trained, rows[asked], candidates, own_seed, weights)
        )
        frozen.append(triplet_margins(features, rows[asked], FROZEN_DISTANCE))
        triplets.append(asked)
        numbers.append(np.full(len(asked), budget.n_draws))
        budget.note(len(asked))
    budget.check()
    asked = np.concatenate(triplets)
    return HeldOut(
        np.concatenate(margins, axis=1),
        list_owners(candidates),
        np.concatenate(frozen),
        rows[asked],
        np.concatenate(numbers),
        budget.spent_s,
    )


def margins_without(
    features: np.ndarray,
    train_rows: np.ndarray,
    asked: np.ndarray,
    candidates: Sequence[Candidate],
    seed: int,
    loss_weights: np.ndarray | None = None,
) -> np.ndarray:
    """Train candidates and return their margins on other triplets.

    Args:
        features, candidates, seed, loss_weights: see `score_held_out`.
        train_rows, asked: `(n, 3)` indices of images.
    Returns:
        `(n_tried, n_asked)` float32, the rows as in `HeldOut`.
    """
    images, places = np.unique(np.concatenate([train_rows, asked]), return_inverse=True)
    places = places.reshape(-1, 3)
    trained, questions = places[: len(train_rows)], places[len(train_rows) :]
    needed, questions = np.unique(questions, return_inverse=True)
    owners = list_owners(candidates)
    margins = np.empty((len(owners), len(asked)), np.float32)
    for block, numbers in group_by_columns(candidates):
        of_block = PartFeatures.of(features[images, block], np.unique(trained))
        for number in numbers:
            candidate = candidates[number]
            heads = train_heads(of_block, trained, candidate, [seed, number], loss_weights)
            of_heads = [
                [
                    triplet_margins(
                        embed_part(of_block.scaled[needed], weights, candidate.settings),
                        questions.reshape(-1, 3),
                        PART_DISTANCE,
                    )
                    for weights in after_steps
                ]
                for after_steps in heads
            ]
            margins[owners == number] = np.mean(of_heads, axis=0)
    return margins


def list_owners(candidates: Sequence[Candidate]) -> np.ndarray:
    """Return `(n_tried,)`: the number of the candidate of each row of margins."""
    return np.repeat(np.arange(len(candidates)), [each.n_tried for each in candidates])


def train_heads(
    features: PartFeatures,
    rows: np.ndarray,
    candidate: Candidate,
    seed: Sequence[int],
    loss_weights: np.ndarray | None,
) -> Iterator[list[list[np.ndarray]]]:
    """Yield the weights of each head of a candidate, after each number of steps.

    Of a candidate that is not trained there is a single head, without weights.

    Args:
        features, rows, loss_weights: see `train_part`.
        seed: of all heads; the number of each is added.
    """
    settings = candidate.settings
    if settings is None:
        yield [[]]
        return
    for number in range(settings.n_heads):
        own = int(np.random.SeedSequence([*seed, number]).generate_state(1)[0])
        yield train_part(features, rows, settings, own, loss_weights)


def group_by_columns(candidates: Sequence[Candidate]) -> Iterator[tuple[slice, list[int]]]:
    """Yield the columns that candidates take, and the numbers of those that take them."""
    numbers: dict[tuple[int, int], list[int]] = {}
    for number, candidate in enumerate(candidates):
        columns = candidate.columns
        numbers.setdefault((columns.start, columns.stop), []).append(number)
    for (start, stop), of_columns in numbers.items():
        yield slice(start, stop), of_columns

"""Margins of candidate parts on held-out triplets, from heads that never saw their images."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from tripletkit import defaults
from tripletkit.data.splits.draws import Draw
from tripletkit.errors import SplitError
from tripletkit.evaluation.distances import FROZEN_DISTANCE, triplet_margins
from tripletkit.features.unit_length import scale_to_unit_length
from tripletkit.model.parts import FROZEN, PART_HEADS, RESIDUAL
from tripletkit.model.scaling import Scaling
from tripletkit.progress import Progress
from tripletkit.training.part_training import (
    MLP_PART,
    RESIDUAL_PART,
    PartSettings,
    embed_part,
    train_part,
)

logger = logging.getLogger("tripletkit")

# Squared, because those of an ensemble's parts add up.
PART_DISTANCE = "squared-l2"


@dataclass(frozen=True)
class Candidate:
    """A part that may become one of the ensemble.

    Attributes:
        features: what its columns are called.
        columns: of the features.
        head: one of `PART_HEADS`.
    """

    features: str
    columns: slice
    head: str

    @property
    def name(self) -> str:
        return f"{self.features}, {self.head}"

    @property
    def settings(self) -> PartSettings | None:
        """How it is trained; None where it is not."""
        if self.head == FROZEN:
            return None
        return RESIDUAL_PART if self.head == RESIDUAL else MLP_PART


@dataclass(frozen=True)
class HeldOut:
    """What held-out draws gave.

    Attributes:
        margins: `(n_candidates, n)` float32, above 0 where the positive is nearer.
        frozen: `(n,)` float32, of all features without training, by cosine.
        triplets: `(n,)` which triplet each answer is to.
        images: `(n, 3)` indices of its images.
        draws: `(n,)` the draw, from 0.
        n_rounds: whole rounds, in each of which every image was held out once.
        seconds_s: that the draws took.
    """

    margins: np.ndarray
    frozen: np.ndarray
    triplets: np.ndarray
    images: np.ndarray
    draws: np.ndarray
    n_rounds: int
    seconds_s: float

    @property
    def n_draws(self) -> int:
        return int(self.draws[-1]) + 1


def list_candidates(
    blocks: Mapping[str, slice], heads: Sequence[str] = PART_HEADS
) -> list[Candidate]:
    """Return every head on every block of features."""
    return [
        Candidate(name, columns, head) for name, columns in blocks.items() for head in heads
    ]


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

    Whole rounds until `defaults.POOLED_TRIPLETS` answers are pooled, at most
    `defaults.MAX_DRAW_ROUNDS`. Only a budget makes the number depend on the time they take.

    Args:
        features: `(n_images, n_features)` float32.
        rows: `(n_triplets, 3)` indices: anchor, positive, negative.
        candidates: what to train.
        draws: see `draw_folds`.
        seed: of the heads.
        loss_weights: see `train_part`; triplets on which people are tied are not asked.
        budget_s: seconds after which no further draw is begun; the first three always are.
        progress: told (done, total) in draws, the total as it stands.
    """
    started_s = time.perf_counter()
    margins, frozen, triplets, numbers = [], [], [], []
    n_pooled, n_draws, round_ = 0, 0, 0
    for draw in draws:
        is_new_round = draw.round > round_
        round_ = draw.round
        if is_new_round and (
            n_pooled >= defaults.POOLED_TRIPLETS or round_ >= defaults.MAX_DRAW_ROUNDS
        ):
            break
        spent_s = time.perf_counter() - started_s
        if (
            budget_s is not None
            and n_draws >= defaults.DRAW_FOLDS
            and spent_s * (n_draws + 1) / n_draws > budget_s
        ):
            break
        asked = _with_answer(draw.held_out_rows, loss_weights)
        if not len(asked):
            continue
        weights = None if loss_weights is None else loss_weights[draw.train_rows]
        margins.append(
            [
                margins_without(
                    features, rows[draw.train_rows], rows[asked], candidate, seed + n_draws, weights
                )
                for candidate in candidates
            ]
        )
        frozen.append(triplet_margins(features, rows[asked], FROZEN_DISTANCE))
        triplets.append(asked)
        numbers.append(np.full(len(asked), n_draws))
        n_pooled += len(asked)
        n_draws += 1
        if progress is not None:
            progress(n_draws, _expect_draws(n_draws, n_pooled))
    if not n_draws:
        raise SplitError("expected held-out triplets that people agree on, got none")
    asked = np.concatenate(triplets)
    return HeldOut(
        np.concatenate([np.stack(of_draw) for of_draw in margins], axis=1),
        np.concatenate(frozen),
        asked,
        rows[asked],
        np.concatenate(numbers),
        n_draws // defaults.DRAW_FOLDS,
        time.perf_counter() - started_s,
    )


def margins_without(
    features: np.ndarray,
    train_rows: np.ndarray,
    asked: np.ndarray,
    candidate: Candidate,
    seed: int,
    loss_weights: np.ndarray | None = None,
) -> np.ndarray:
    """Train a candidate and return its margins on other triplets: `(n_asked,)` float32."""
    images, places = np.unique(np.concatenate([train_rows, asked]), return_inverse=True)
    places = places.reshape(-1, 3)
    trained, questions = places[: len(train_rows)], places[len(train_rows) :]
    unit = scale_to_unit_length(features[images, candidate.columns])
    scaled = Scaling.of(unit[np.unique(trained)]).apply(unit)
    settings, weights = candidate.settings, []
    if settings is not None:
        weights = train_part(scaled, trained, settings, seed, loss_weights)
    needed, questions = np.unique(questions, return_inverse=True)
    embeddings = embed_part(scaled[needed], weights, settings)
    return triplet_margins(embeddings, questions.reshape(-1, 3), PART_DISTANCE)


def _expect_draws(n_draws: int, n_pooled: int) -> int:
    """Return how many draws there will be, as far as one can tell now."""
    per_round = n_pooled / n_draws * defaults.DRAW_FOLDS
    rounds = min(-(-defaults.POOLED_TRIPLETS // per_round), defaults.MAX_DRAW_ROUNDS)
    return max(n_draws, int(rounds) * defaults.DRAW_FOLDS)


def _with_answer(rows: np.ndarray, loss_weights: np.ndarray | None) -> np.ndarray:
    """Return those of some rows that can be right or wrong: not the ones on which people tie."""
    if loss_weights is None:
        return rows
    return rows[loss_weights[rows, 0] != loss_weights[rows, 1]]

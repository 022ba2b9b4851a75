"""An ensemble whose parts are chosen by held-out draws and trained on all triplets."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from tripletkit import defaults
from tripletkit.data.splits.held_out_draws import Draw
from tripletkit.evaluation.distances import triplet_margins
from tripletkit.evaluation.pooled import (
    CandidateWorth,
    PooledScore,
    PooledValidation,
    score_pooled,
    weigh_images_alike,
)
from tripletkit.model.embedding import embed, fit_projection
from tripletkit.model.history import EpochRecord, TrainedHead
from tripletkit.model.part_heads import TrainedPart, join_parts
from tripletkit.model.recipes import Part
from tripletkit.model.settings import HeadSettings
from tripletkit.progress import Progress
from tripletkit.training.choosing import Choice, choose_parts, choose_steps, credit
from tripletkit.training.collapse import check_collapse
from tripletkit.training.held_out import (
    PART_DISTANCE,
    Candidate,
    HeldOut,
    group_by_columns,
    score_held_out,
    train_heads,
)
from tripletkit.training.part_features import PartFeatures


def validate_candidates(
    features: np.ndarray,
    rows: np.ndarray,
    candidates: Sequence[Candidate],
    draws: Iterator[Draw],
    by: str,
    seed: int,
    *,
    loss_weights: np.ndarray | None = None,
    budget_s: float | None = None,
    progress: Progress | None = None,
) -> tuple[list[Candidate], Choice, PooledValidation]:
    """Choose how candidates are trained and weighed, and say what they are worth.

    Args:
        by: what the draws hold out.
        features, rows, candidates, draws, seed, loss_weights, budget_s, progress: see
            `score_held_out`.
    Returns:
        The candidates with the number of steps that is best for each, how they are weighed, and
        what the ensemble and each of them is worth.
    """
    held_out = score_held_out(
        features,
        rows,
        candidates,
        draws,
        seed,
        loss_weights=loss_weights,
        budget_s=budget_s,
        progress=progress,
    )
    rows_of = choose_steps(held_out.margins, held_out.owners, held_out.images)
    trained, margins = _take(candidates, held_out.owners, rows_of), held_out.margins[rows_of]
    choice = choose_parts(margins, held_out.images)
    validated = PooledValidation(
        _score(held_out, cross_fit(held_out)),
        _score(held_out, held_out.frozen),
        held_out.n_draws,
        held_out.n_rounds,
        by,
        held_out.seconds_s,
        tuple(_measure_worth(held_out, margins, trained, choice)),
    )
    return trained, choice, validated


def _take(
    candidates: Sequence[Candidate], owners: np.ndarray, rows_of: np.ndarray
) -> list[Candidate]:
    """Return candidates with the number of steps of one row of margins each."""
    firsts = np.searchsorted(owners, np.arange(len(candidates)))
    return [
        candidate.after(int(place))
        for candidate, place in zip(candidates, rows_of - firsts, strict=True)
    ]


def cross_fit(held_out: HeldOut) -> np.ndarray:
    """Return the ensemble's margins, its steps and weights chosen without the images of each draw.

    What is chosen by the very answers that are scored would flatter: by a point on 240 images.

    Returns:
        `(n,)` float64.
    """
    margins = np.empty(len(held_out.draws))
    for draw in range(held_out.n_draws):
        is_asked = held_out.draws == draw
        images = held_out.images[is_asked]
        is_other = ~np.isin(held_out.images, images).any(axis=1)
        if not is_other.any():
            is_other = ~is_asked if not is_asked.all() else is_asked
        others, images = held_out.margins[:, is_other], held_out.images[is_other]
        rows_of = choose_steps(others, held_out.owners, images)
        chosen = choose_parts(others[rows_of], images)
        margins[is_asked] = chosen.margins(held_out.margins[np.ix_(rows_of, is_asked)])
    return margins


def train_parts(
    features: np.ndarray,
    rows: np.ndarray,
    candidates: Sequence[Candidate],
    choice: Choice,
    seed: int,
    *,
    loss_weights: np.ndarray | None = None,
    progress: Progress | None = None,
) -> list[TrainedPart]:
    """Train what was chosen on all triplets.

    Args:
        features, rows, loss_weights: as they were validated with.
        candidates: with one number of steps each.
        choice: their weights; candidates below `defaults.MIN_PART_WEIGHT` are left out.
        seed: of the heads.
        progress: told (done, total) in heads.
    Returns:
        Every head of each part that is trained, and one of each that is not.
    """
    images = np.unique(rows)
    is_kept = choice.weights >= min(defaults.MIN_PART_WEIGHT, choice.weights.max())
    shares = choice.distance_weights * is_kept
    shares /= shares.sum()
    n_heads = [
        0 if not share else 1 if candidate.settings is None else candidate.settings.n_heads
        for candidate, share in zip(candidates, shares, strict=True)
    ]
    parts: list[TrainedPart] = []
    for columns, numbers in group_by_columns(candidates):
        if not any(n_heads[number] for number in numbers):
            continue
        of_block = PartFeatures.of(features[:, columns], images)
        for number in numbers:
            candidate, settings = candidates[number], candidates[number].settings
            if not n_heads[number]:
                continue
            for (weights,) in train_heads(of_block, rows, candidate, [seed, number], loss_weights):
                part = Part(
                    candidate.features,
                    columns.start,
                    columns.stop,
                    candidate.head,
                    settings.hidden if settings else 0,
                    (settings and settings.n_dims) or of_block.n_features,
                    float(shares[number]) / n_heads[number],
                    settings.usual_steps if settings else 0,
                )
                parts.append(TrainedPart(part, weights, of_block.scaling))
                if progress is not None:
                    progress(len(parts), sum(n_heads))
    return parts


def finish_ensemble(
    features: np.ndarray,
    rows: np.ndarray,
    parts: Sequence[TrainedPart],
    settings: HeadSettings,
    pooled: PooledValidation | None,
) -> TrainedHead:
    """Return trained parts as a trained model, compressed if so asked.

    Args:
        features, rows: as the parts were trained on.
        parts: from `train_parts`.
        settings: for `dim` and the seed.
        pooled: what held-out draws say; its accuracy goes into the history.
    Raises:
        CollapseError: if the embeddings are alike.
        RecipeError: if they cannot be compressed as asked.
    """
    head = join_parts(features.shape[1], parts)
    images, places = np.unique(rows, return_inverse=True)
    if settings.is_compressed:
        head = head.compressed(*fit_projection(embed(head, features[images]), settings))
    embeddings = embed(head, features[images])
    margins = triplet_margins(embeddings, places.reshape(-1, 3), PART_DISTANCE)
    loss = float(np.maximum(settings.margin - margins, 0).mean())
    spread, rank = check_collapse(embeddings, loss, settings, None)
    accuracy = np.nan if pooled is None else pooled.trained.accuracy
    active = float(np.mean(margins < settings.margin))
    return TrainedHead(head, [EpochRecord(1, loss, active, accuracy, spread, rank)], 1)


def _score(held_out: HeldOut, margins: np.ndarray) -> PooledScore:
    return score_pooled(credit(margins), held_out.images, held_out.draws)


def _measure_worth(
    held_out: HeldOut, margins: np.ndarray, candidates: Sequence[Candidate], choice: Choice
) -> Iterator[CandidateWorth]:
    for number, candidate in enumerate(candidates):
        others = np.delete(margins, number, axis=0)
        without = None
        if len(others):
            chosen = choose_parts(others, held_out.images)
            without = weigh_images_alike(held_out.images) @ credit(chosen.margins(others))
        yield CandidateWorth(
            candidate.name,
            _score(held_out, margins[number]),
            float(choice.weights[number]),
            without,
        )

"""Which of several ways to make a model to take, by what each answers without some classes.

A head is trained once more without whole classes of images, and every candidate, such as a
larger share of the frozen features, is scored by it in both worlds: new images of seen classes,
and unseen classes. The model that is kept is then trained on all triplets.

The rule. The score of a candidate is (1 - novelty) times its accuracy on new images plus
novelty times that on unseen classes; novelty is 0.5, or where the test lies between the two if it
is at hand (`data.nearness`). The highest score wins, where both accuracies rest on at least
`defaults.MIN_VAL_TRIPLETS` triplets. With fewer, chance would choose; then novelty alone does:
the candidate that moves farthest from the frozen features where the test asks for nothing new,
else the usual one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from tripletkit import defaults
from tripletkit.data.labels import ImageLabels
from tripletkit.data.splits.unseen_classes import HeldOutClasses
from tripletkit.features.unit_length import scale_to_unit_length
from tripletkit.model.heads import frozen_scale
from tripletkit.model.loss_registry import get_loss
from tripletkit.model.recipes import get_recipe
from tripletkit.model.settings import HeadSettings
from tripletkit.training.epochs import compress_embeddings, share_right
from tripletkit.training.head_training import Training, make_training


@dataclass(frozen=True)
class Candidate:
    """One way to make the model.

    Attributes:
        strength, frozen_share: see `HeadSettings`.
        mlp_members: how many members of the ensemble are heads by the recipe mlp.
    """

    strength: float
    frozen_share: float = 0.0
    mlp_members: int = 0

    def apply(self, settings: HeadSettings) -> HeadSettings:
        return replace(settings, **asdict(self))


@dataclass(frozen=True)
class CandidateScore:
    """How a candidate, trained without the held-out classes, answers in both worlds.

    Attributes:
        new_images: share right on validation images of seen classes; NaN without any.
        unseen_classes: share right on the held-out classes.
    """

    candidate: Candidate
    new_images: float
    unseen_classes: float


@dataclass(frozen=True)
class Probe:
    """What was learned from training without some classes.

    Attributes:
        scores: one a candidate, in the order of `candidates_for`.
        chosen: the index of the one to train.
        reason: the rule that chose it, in words.
        n_new_images, n_unseen_classes: triplets that the scores rest on.
        embeddings: `(n_images, dim)` of the chosen one, trained without the held-out classes.
    """

    scores: list[CandidateScore]
    chosen: int
    reason: str
    n_new_images: int
    n_unseen_classes: int
    embeddings: np.ndarray

    @property
    def candidate(self) -> Candidate:
        return self.scores[self.chosen].candidate

    def to_json(self) -> dict[str, Any]:
        """Return all but the embeddings as JSON takes it."""
        return {
            "candidates": [
                {
                    **asdict(score.candidate),
                    "new_images": score.new_images if self.n_new_images else None,
                    "unseen_classes": score.unseen_classes,
                }
                for score in self.scores
            ],
            "chosen": self.chosen,
            "reason": self.reason,
            "n_new_images": self.n_new_images,
            "n_unseen_classes": self.n_unseen_classes,
        }


def candidates_for(settings: HeadSettings) -> list[Candidate]:
    """Return what can be chosen from, the nearest to the frozen features first.

    The last one of an ensemble gives two fifths of its members to the recipe mlp: the two
    err differently, and where nothing is new the mixture is better than either. With class
    centers there is no choice: these are places among the embeddings as they were trained.
    """
    is_fixed = get_loss(settings.loss).has_centers
    if is_fixed or not get_recipe(settings.recipe).starts_as_identity:
        return [Candidate(settings.strength)]
    candidates = [Candidate(strength, share) for share, strength in defaults.BLENDS]
    if (n_source := round(defaults.MLP_SHARE * settings.members)) > 0 and settings.members > 1:
        candidates.append(replace(candidates[-1], mlp_members=n_source))
    return candidates


def choose_candidate(
    scores: Sequence[CandidateScore],
    n_new_images: int,
    n_unseen_classes: int,
    novelty: float | None,
) -> tuple[int, str]:
    """Return the index of the candidate to train, and the rule that chose it in words.

    Args:
        scores: in the order of `candidates_for`.
        n_new_images, n_unseen_classes: triplets that they rest on.
        novelty: 0 to 1; None where no test is at hand.
    Example:
        >>> near, far = Candidate(0.7, frozen_share=0.5), Candidate(1.0)
        >>> scores = [CandidateScore(near, 0.8, 0.7), CandidateScore(far, 0.9, 0.5)]
        >>> choose_candidate(scores, 900, 900, None)
        (0, 'best of 0.50 x new images + 0.50 x unseen classes')
        >>> choose_candidate(scores, 900, 900, 0.1)[0]
        1
    """
    if len(scores) == 1:
        return 0, "the only candidate"
    if min(n_new_images, n_unseen_classes) >= defaults.MIN_VAL_TRIPLETS:
        weight = 0.5 if novelty is None else novelty
        worth = [
            (1 - weight) * score.new_images + weight * score.unseen_classes for score in scores
        ]
        return int(
            np.argmax(worth)
        ), f"best of {1 - weight:.2f} x new images + {weight:.2f} x unseen classes"
    few = f"fewer than {defaults.MIN_VAL_TRIPLETS} validation triplets in one of the two"
    if novelty is not None and novelty <= defaults.NOTHING_NEW:
        return len(scores) - 1, f"{few}; the test asks for nothing new"
    reason = "no test at hand" if novelty is None else f"novelty of the test {novelty:.2f}"
    gaps = [abs(score.candidate.frozen_share - defaults.FROZEN_SHARE) for score in scores]
    return int(np.argmin(gaps)), f"{few}; {reason}: the usual"


def probe_groups(
    features: np.ndarray,
    held_out: HeldOutClasses,
    train_rows: np.ndarray,
    val_rows: np.ndarray,
    settings: HeadSettings,
    novelty: float | None = None,
    labels: ImageLabels | None = None,
    loss_weights: np.ndarray | None = None,
) -> Probe:
    """Train without the held-out classes and score every candidate.

    Args:
        features: `(n_images, n_features)` float32.
        held_out: of the images of `features`, and of `train_rows`.
        train_rows: `(n_triplets, 3)` indices into `features`.
        val_rows: validation triplets; those of seen classes tell of new images.
        settings: of the model to train.
        novelty: see `choose_candidate`.
        labels: of all images, for losses that need them.
        loss_weights: `(n_triplets, 2)` of `train_rows`; see `train_head`.
    Raises:
        CollapseError: if the embeddings become alike.
    """
    rows = train_rows[held_out.split.train_rows]
    weights = None if loss_weights is None else loss_weights[held_out.split.train_rows]
    unseen_classes = train_rows[with_answer(held_out.split.val_rows, loss_weights)]
    new_images = val_rows[~held_out.is_held_out[val_rows].any(axis=1)]
    candidates = candidates_for(settings)
    training = _train(features, rows, settings, labels, weights)
    source = None
    if any(candidate.mlp_members for candidate in candidates):
        source = _train(features, rows, settings.of_mlp_members(), labels, weights).embed()
    images = np.unique(rows)
    unit = scale_to_unit_length(features)
    scores, all_embeddings = [], []
    for candidate in candidates:
        embeddings = training.embed(candidate.strength)
        if candidate.mlp_members:
            share = candidate.mlp_members / settings.members
            embeddings = np.hstack([np.sqrt(1 - share) * embeddings, np.sqrt(share) * source])
        if candidate.frozen_share:
            scale = frozen_scale(unit[images], embeddings[images], candidate.frozen_share)
            embeddings = scale_to_unit_length(np.hstack([scale * unit, embeddings]))
        if settings.is_compressed:
            embeddings = compress_embeddings(embeddings, images, settings)
        all_embeddings.append(embeddings)
        accuracy = np.nan
        if len(new_images):
            accuracy = share_right(embeddings, new_images, settings.distance)
        scores.append(
            CandidateScore(
                candidate, accuracy, share_right(embeddings, unseen_classes, settings.distance)
            )
        )
    chosen, reason = choose_candidate(scores, len(new_images), len(unseen_classes), novelty)
    return Probe(
        scores, chosen, reason, len(new_images), len(unseen_classes), all_embeddings[chosen]
    )


def with_answer(rows: np.ndarray, loss_weights: np.ndarray | None) -> np.ndarray:
    """Return those of some rows that can be right or wrong: not the ones on which people tie."""
    if loss_weights is None:
        return rows
    return rows[loss_weights[rows, 0] != loss_weights[rows, 1]]


def _train(
    features: np.ndarray,
    rows: np.ndarray,
    settings: HeadSettings,
    labels: ImageLabels | None,
    loss_weights: np.ndarray | None,
) -> Training:
    training = make_training(features, rows, settings, labels, loss_weights)
    for _ in range(settings.epochs):
        loss, _ = training.run_epoch()
    training.check(training.embed(), loss)
    return training

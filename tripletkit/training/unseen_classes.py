"""What a model is worth on classes of images that its training does without.

A head is trained once more without whole classes of images, which are those of labelled images
where there are labels, else clusters of features, and asked about these; what else it says is in
`unseen_probe`. An ensemble, which is chosen by held-out draws, is trained several times more, each
time without other classes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from tripletkit import defaults
from tripletkit.data.labels import ImageLabels
from tripletkit.data.splits.class_groups import (
    BY_LABELS,
    HeldOutClasses,
    find_groups,
    hold_out_classes,
)
from tripletkit.data.training_set import TrainingSet
from tripletkit.defaults import FROZEN_DISTANCE
from tripletkit.errors import SplitError
from tripletkit.evaluation.answers import Answers
from tripletkit.evaluation.scoring import Score, score_answers
from tripletkit.evaluation.validation import score_embeddings
from tripletkit.features.unit_length import scale_to_unit_length
from tripletkit.losses.loss_registry import get_loss
from tripletkit.model.heads import frozen_scale
from tripletkit.model.recipes import get_recipe
from tripletkit.model.settings import HeadSettings
from tripletkit.progress import Progress, no_progress
from tripletkit.training.epochs import compress_embeddings, share_right
from tripletkit.training.head_training import Training, make_training


@dataclass(frozen=True)
class Nearness:
    """Mean distances (1 - cosine of centered features) from an image to the nearest training one.

    Attributes:
        of_training: from a training image to the nearest other one.
        of_unseen_classes: from an image of a held-out kind to the nearest one of the other classes.
        of_test: from a test image.
        n_test: test images.
    """

    of_training: float
    of_unseen_classes: float
    of_test: float
    n_test: int

    @property
    def novelty(self) -> float:
        """Where the test lies between new images of seen classes (0) and unseen classes (1)."""
        if self.of_unseen_classes <= self.of_training:
            return 0.5
        share = (self.of_test - self.of_training) / (self.of_unseen_classes - self.of_training)
        return float(np.clip(share, 0.0, 1.0))

    def to_dict(self) -> dict[str, Any]:
        """Return all of it as JSON takes it."""
        return asdict(self) | {"novelty": self.novelty}


def measure_nearness(training: np.ndarray, is_held_out: np.ndarray, test: np.ndarray) -> Nearness:
    """Compare test images with training images by their frozen features.

    What all training images have in common is taken away first: it makes all distances small,
    and the difference between known and unseen classes a third as large as it can be.

    Args:
        training: `(n_images, n_features)` float32 of the training images, rows of length 1.
        is_held_out: `(n_images,)` bool, those of them that are of held-out classes.
        test: `(n_test, n_features)` float32, rows of length 1.
    """
    from sklearn.neighbors import NearestNeighbors

    mean = training.mean(axis=0)
    training, test = training - mean, test - mean

    def mean_distance(to: np.ndarray, of: np.ndarray | None) -> float:
        index = NearestNeighbors(n_neighbors=1, metric="cosine", algorithm="brute").fit(to)
        # Without images of its own, each one's neighbour is another than itself.
        return float(index.kneighbors(of)[0].mean())

    return Nearness(
        of_training=mean_distance(training, None),
        of_unseen_classes=mean_distance(training[~is_held_out], training[is_held_out]),
        of_test=mean_distance(training, test),
        n_test=len(test),
    )


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

    def to_dict(self) -> dict[str, Any]:
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


# Between the seeds of two rounds, so that the first of another training's seed is no second here.
_ROUND_SEEDS = 1_000_003


@dataclass(frozen=True)
class UnseenClasses:
    """How a model does on classes that its training does without, and what was chosen by it.

    Attributes:
        rounds: the images and triplets held out from each training.
        groups_from: `"classes"` or `"clusters"`.
        probe: the candidates' scores and the choice; None where these did not choose.
        trained, frozen: scores of the chosen candidate and of the frozen features on the
            triplets of the held-out classes.
        nearness: of the test images; None without a test.
    """

    rounds: tuple[HeldOutClasses, ...]
    groups_from: str
    probe: Probe | None
    trained: Score
    frozen: Score
    nearness: Nearness | None

    @property
    def n_held_out_images(self) -> int:
        """How many images some round held out."""
        return int(np.any([each.is_held_out for each in self.rounds], axis=0).sum())

    def to_dict(self) -> dict[str, Any]:
        """Return all but embeddings and rows as JSON takes it."""
        return {
            "groups_from": self.groups_from,
            "n_groups": self.rounds[0].n_groups,
            "n_rounds": len(self.rounds),
            "n_held_out_classes": [each.n_held_out_classes for each in self.rounds],
            "n_held_out_images": self.n_held_out_images,
            "trained": self.trained.to_dict(),
            "frozen_cosine": self.frozen.to_dict(),
            **(self.probe.to_dict() if self.probe else {}),
            "test": self.nearness and self.nearness.to_dict(),
        }


def measure_unseen_classes(
    data: TrainingSet,
    features: np.ndarray,
    settings: HeadSettings,
    fraction: float,
    test_features: np.ndarray | None = None,
    loss_weights: np.ndarray | None = None,
) -> UnseenClasses:
    """Hold whole classes of images out and see how a model does on them.

    Args:
        data: training and validation triplets.
        features: `(n_images, n_features)` float32 of the images in `data.names`.
        settings: of the model to train.
        fraction: of the images to hold out, about.
        test_features: `(n_test, n_features)` float32 of the images of a test.
        loss_weights: of the training triplets; see `train_head`.
    Raises:
        SplitError: if there are too few images, classes or triplets for it.
        CollapseError: if the embeddings become alike.
    """
    held_out, source, nearness = _hold_out(data, features, settings.seed, fraction, test_features)
    probe = probe_groups(
        features,
        held_out,
        data.train.rows,
        data.val.rows,
        settings,
        nearness and nearness.novelty,
        data.labels,
        loss_weights,
    )
    of_unseen_classes = data.train.take(with_answer(held_out.split.val_rows, loss_weights))
    return UnseenClasses(
        (held_out,),
        source,
        probe,
        score_embeddings(probe.embeddings, of_unseen_classes, settings.distance),
        score_embeddings(features, of_unseen_classes, FROZEN_DISTANCE),
        nearness,
    )


def score_unseen_classes(
    data: TrainingSet,
    features: np.ndarray,
    seed: int,
    fraction: float,
    test_features: np.ndarray | None,
    loss_weights: np.ndarray | None,
    answer: Callable[[np.ndarray, np.ndarray], np.ndarray],
    progress: Progress = no_progress,
) -> UnseenClasses:
    """Hold whole classes of images out and see how a model does that was chosen without them.

    It is trained up to `defaults.UNSEEN_ROUNDS` times, each time without other classes, and a
    triplet that several trainings were asked about is answered by the mean of their margins.

    Args:
        answer: takes indices of the triplets to train on and of those to answer; returns the
            margins of the latter.
        data, features, fraction, test_features, loss_weights: see `measure_unseen_classes`.
        seed: of what is held out.
        progress: told of the rounds.
    Raises:
        SplitError: if there are too few images, classes or triplets for it.
    """
    held_out, source, nearness = _hold_out(data, features, seed, fraction, test_features)
    rounds = [held_out]
    for number in range(1, defaults.UNSEEN_ROUNDS):
        # Where some classes can be held out, others may not.
        with suppress(SplitError):
            other, *_ = _hold_out(data, features, seed + number * _ROUND_SEEDS, fraction, None)
            # Of few classes the same may be drawn again, which would say the same.
            if not any(np.array_equal(other.is_held_out, each.is_held_out) for each in rounds):
                rounds.append(other)
    total, n_answers = np.zeros(len(data.train)), np.zeros(len(data.train), dtype=np.int64)
    for number, each in enumerate(rounds):
        progress(number, len(rounds))
        rows = with_answer(each.split.val_rows, loss_weights)
        total[rows] += answer(each.split.train_rows, rows)
        n_answers[rows] += 1
    progress(len(rounds), len(rounds))
    asked_rows = np.flatnonzero(n_answers)
    asked = data.train.take(asked_rows)
    margins = total[asked_rows] / n_answers[asked_rows]
    trained = Answers.from_margins(margins.astype(np.float32), asked, asked.source)
    return UnseenClasses(
        tuple(rounds),
        source,
        None,
        score_answers(trained, np.ones(len(asked), dtype=np.int8)),
        score_embeddings(features, asked, FROZEN_DISTANCE),
        nearness,
    )


def _hold_out(
    data: TrainingSet,
    features: np.ndarray,
    seed: int,
    fraction: float,
    test_features: np.ndarray | None,
) -> tuple[HeldOutClasses, str, Nearness | None]:
    """Return what is held out, what the classes are from, and how near a test is to them."""
    unit = scale_to_unit_length(features)
    groups, n_groups, source = find_groups(data, unit, seed)
    # Two classes are one pair to tell apart, which says little; clusters are finer.
    fewest = 3 if source == BY_LABELS and n_groups >= 6 else 2
    held_out = hold_out_classes(data.train.rows, groups, n_groups, fraction, seed, fewest)
    if data.is_scored is not None:
        held_out = _score_on(held_out, data.is_scored)
    nearness = None
    if test_features is not None:
        trained_on = np.unique(data.train.rows)
        nearness = measure_nearness(
            unit[trained_on],
            held_out.is_held_out[trained_on],
            scale_to_unit_length(test_features),
        )
    return held_out, source, nearness


def _score_on(held_out: HeldOutClasses, is_scored: np.ndarray) -> HeldOutClasses:
    """Return the same with only those held-out triplets that a score may rest on."""
    rows = held_out.split.val_rows
    if not len(kept := rows[is_scored[rows]]):
        raise SplitError("expected questions of chance about the held-out classes, got none")
    return replace(held_out, split=replace(held_out.split, val_rows=kept))

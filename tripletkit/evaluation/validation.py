"""Accuracy of embeddings on answered triplets, with all that stands beside it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from tripletkit import defaults
from tripletkit.data.labels import NO_LABEL
from tripletkit.data.training_set import TrainingSet
from tripletkit.data.triplets import Triplets
from tripletkit.evaluation.answers import Answers
from tripletkit.evaluation.baselines import Baseline, describe_trap, run_baselines
from tripletkit.evaluation.classification import (
    ClassificationScores,
    ClassVariances,
    classify_embeddings,
    measure_variances,
)
from tripletkit.evaluation.distances import FROZEN_DISTANCE, triplet_margins
from tripletkit.evaluation.scoring import Score, score_answers
from tripletkit.evaluation.vote_scoring import VoteScore, score_votes


@dataclass(frozen=True)
class Validation:
    """How a model does on validation triplets, and what it must be compared with.

    Attributes:
        trained: the score of the trained embeddings.
        frozen: the score of the backbone's features alone, by cosine, without any training.
        baselines: what the names of the images alone would score.
        trained_votes, frozen_votes: the agreement of both with the votes, where there are any.
        frozen_head: the score of a head on the frozen backbone, where that was trained further.
        is_from_scratch: the backbone knew nothing before, so `frozen` is of random features.
    """

    trained: Score
    frozen: Score
    baselines: list[Baseline]
    trained_votes: VoteScore | None = None
    frozen_votes: VoteScore | None = None
    frozen_head: Score | None = None
    is_from_scratch: bool = False

    @property
    def is_worse_than_frozen(self) -> bool:
        return self.trained.accuracy < self.frozen.accuracy

    def trap(self) -> str | None:
        """Return a sentence if the score is no better than a table of names, else None."""
        interval = self.trained.image_interval or self.trained.wilson
        return describe_trap(self.trained.accuracy, interval, self.baselines)

    def to_dict(self) -> dict[str, Any]:
        """Return all of it as JSON takes it."""
        return {
            "trained": self.trained.to_dict(),
            "frozen_cosine": self.frozen.to_dict(),
            "baselines": [baseline.to_dict() for baseline in self.baselines],
            "votes": self.trained_votes
            and {
                "trained": self.trained_votes.to_dict(),
                "frozen_cosine": self.frozen_votes.to_dict(),
            },
            "frozen_head": self.frozen_head and self.frozen_head.to_dict(),
        }


def validate(
    data: TrainingSet,
    embeddings: np.ndarray,
    features: np.ndarray,
    distance: str,
    *,
    is_from_scratch: bool = False,
) -> Validation:
    """Score embeddings on the validation triplets, beside the frozen features and the baselines.

    Args:
        data: with at least one validation triplet.
        embeddings: `(n_images, dim)` float32 of the images in `data.names`.
        features: `(n_images, n_features)` float32 of the same.
        distance: of the trained embeddings.
        is_from_scratch: the features are of an untrained network.
    """
    trained = answer_by_embeddings(embeddings, data.val, distance)
    frozen = answer_by_embeddings(features, data.val, FROZEN_DISTANCE)
    truth = np.ones(len(data.val), dtype=np.int8)
    votes = data.val_votes
    return Validation(
        score_answers(trained, truth),
        score_answers(frozen, truth),
        run_baselines(data.train, data.val),
        None if votes is None else score_votes(trained, votes),
        None if votes is None else score_votes(frozen, votes),
        is_from_scratch=is_from_scratch,
    )


@dataclass(frozen=True)
class LabelScores:
    """How a model does on the classes of images.

    Attributes:
        trained: how validation images are classified by those of training.
        frozen: the same by the backbone's features alone, by cosine.
        training: variances of the training images' embeddings.
    """

    trained: ClassificationScores
    frozen: ClassificationScores
    training: ClassVariances

    def to_dict(self) -> dict[str, Any]:
        """Return all of it as JSON takes it."""
        return {
            "trained": self.trained.to_dict(),
            "frozen_cosine": self.frozen.to_dict(),
            "training_variance": asdict(self.training),
        }


def classify_validation(
    data: TrainingSet, embeddings: np.ndarray, features: np.ndarray, distance: str
) -> LabelScores | None:
    """Classify the labelled validation images by the labelled training images.

    Args:
        data: with labels.
        embeddings, features, distance: see `validate`.
    Returns:
        None where fewer than two classes are in training, or none of them in validation.
    """
    labels = data.labels.of_image
    labelled = np.flatnonzero(labels != NO_LABEL)
    trained_on, val = (np.intersect1d(labelled, part.rows) for part in (data.train, data.val))
    val = np.setdiff1d(val, trained_on)
    known = np.unique(labels[trained_on])
    if len(known) < 2 or not np.isin(labels[val], known).any():
        return None
    trained, frozen = (
        classify_embeddings(
            vectors[trained_on], labels[trained_on], vectors[val], labels[val], measure
        )
        for vectors, measure in ((embeddings, distance), (features, FROZEN_DISTANCE))
    )
    return LabelScores(
        trained, frozen, measure_variances(embeddings[trained_on], labels[trained_on])
    )


def chooses_epoch(n_val: int) -> bool:
    """Return whether so many validation triplets can tell one epoch from another."""
    return n_val >= defaults.MIN_VAL_TRIPLETS


def answer_by_embeddings(embeddings: np.ndarray, triplets: Triplets, distance: str) -> Answers:
    """Return what embeddings say of triplets over those images; see `score_embeddings`."""
    margins = triplet_margins(embeddings, triplets.rows, distance)
    return Answers.from_margins(margins, triplets, triplets.source)


def score_embeddings(embeddings: np.ndarray, triplets: Triplets, distance: str) -> Score:
    """Score embeddings on triplets given as anchor, positive, negative.

    Args:
        embeddings: `(n_images, n_dims)` float32.
        triplets: over those images.
        distance: a name that `triplet_margins` takes.
    """
    answers = answer_by_embeddings(embeddings, triplets, distance)
    return score_answers(answers, np.ones(len(triplets), dtype=np.int8))

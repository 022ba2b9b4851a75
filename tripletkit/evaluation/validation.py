"""Accuracy of codes on answered triplets, with all that stands beside it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from tripletkit.data.labels import NO_LABEL
from tripletkit.data.training_set import TrainingSet
from tripletkit.data.triplets import Triplets
from tripletkit.evaluation.answers import Answers
from tripletkit.evaluation.classification import (
    ClassificationScores,
    ClassVariances,
    classify_codes,
    measure_variances,
)
from tripletkit.evaluation.controls import Control, describe_trap, run_controls
from tripletkit.evaluation.distances import FROZEN_DISTANCE, triplet_margins
from tripletkit.evaluation.scoring import Score, score_answers
from tripletkit.evaluation.vote_scoring import VoteScore, score_votes


@dataclass(frozen=True)
class Validation:
    """How a model does on validation triplets, and what it must be compared with.

    Attributes:
        trained: the score of the trained codes.
        frozen: the score of the backbone's features alone, by cosine, without any training.
        controls: what the names of the pictures alone would score.
        trained_votes, frozen_votes: the agreement of both with the votes, where there are any.
        frozen_head: the score of a head on the frozen backbone, where that was trained further.
        is_from_scratch: the backbone knew nothing before, so `frozen` is of random features.
    """

    trained: Score
    frozen: Score
    controls: list[Control]
    trained_votes: VoteScore | None = None
    frozen_votes: VoteScore | None = None
    frozen_head: Score | None = None
    is_from_scratch: bool = False

    @property
    def is_worse_than_frozen(self) -> bool:
        return self.trained.accuracy < self.frozen.accuracy

    def trap(self) -> str | None:
        """Return a sentence if the score is no better than a table of names, else None."""
        interval = self.trained.bootstrap or self.trained.wilson
        return describe_trap(self.trained.accuracy, interval, self.controls)

    def to_json(self) -> dict[str, Any]:
        """Return all of it as JSON takes it."""
        return {
            "trained": self.trained.to_json(),
            "frozen_cosine": self.frozen.to_json(),
            "controls": [control.to_json() for control in self.controls],
            "votes": self.trained_votes
            and {
                "trained": self.trained_votes.to_json(),
                "frozen_cosine": self.frozen_votes.to_json(),
            },
            "frozen_head": self.frozen_head and self.frozen_head.to_json(),
        }


def validate(
    data: TrainingSet, codes: np.ndarray, features: np.ndarray, distance: str
) -> Validation:
    """Score codes on the validation triplets, beside the frozen features and the controls.

    Args:
        data: with at least one validation triplet.
        codes: `(n_images, dim)` float32 of the pictures in `data.names`.
        features: `(n_images, n_features)` float32 of the same.
        distance: of the trained codes.
    """
    trained = answer_by_codes(codes, data.val, distance)
    frozen = answer_by_codes(features, data.val, FROZEN_DISTANCE)
    truth = np.ones(len(data.val), dtype=np.int8)
    votes = data.val_votes
    return Validation(
        score_answers(trained, truth),
        score_answers(frozen, truth),
        run_controls(data.train, data.val),
        None if votes is None else score_votes(trained, votes),
        None if votes is None else score_votes(frozen, votes),
    )


@dataclass(frozen=True)
class LabelScores:
    """How a model does on the classes of pictures.

    Attributes:
        trained: how validation pictures are classified by those of training.
        frozen: the same by the backbone's features alone, by cosine.
        training: variances of the training pictures' codes.
    """

    trained: ClassificationScores
    frozen: ClassificationScores
    training: ClassVariances

    def to_json(self) -> dict[str, Any]:
        """Return all of it as JSON takes it."""
        return {
            "trained": self.trained.to_json(),
            "frozen_cosine": self.frozen.to_json(),
            "training_variance": asdict(self.training),
        }


def classify_validation(
    data: TrainingSet, codes: np.ndarray, features: np.ndarray, distance: str
) -> LabelScores | None:
    """Classify the labelled validation pictures by the labelled training pictures.

    Args:
        data: with labels.
        codes, features, distance: see `validate`.
    Returns:
        None where fewer than two classes are in training, or none of them in validation.
    """
    labels = data.labels.of_picture
    labelled = np.flatnonzero(labels != NO_LABEL)
    trained_on, val = (np.intersect1d(labelled, part.rows) for part in (data.train, data.val))
    val = np.setdiff1d(val, trained_on)
    known = np.unique(labels[trained_on])
    if len(known) < 2 or not np.isin(labels[val], known).any():
        return None
    trained, frozen = (
        classify_codes(vectors[trained_on], labels[trained_on], vectors[val], labels[val], measure)
        for vectors, measure in ((codes, distance), (features, FROZEN_DISTANCE))
    )
    return LabelScores(trained, frozen, measure_variances(codes[trained_on], labels[trained_on]))


def answer_by_codes(codes: np.ndarray, triplets: Triplets, distance: str) -> Answers:
    """Return what codes say of triplets over those pictures; see `score_codes`."""
    margins = triplet_margins(codes, triplets.rows, distance)
    return Answers.from_margins(margins, triplets, triplets.source)


def score_codes(codes: np.ndarray, triplets: Triplets, distance: str) -> Score:
    """Score codes on triplets given as anchor, positive, negative.

    Args:
        codes: `(n_images, n_dims)` float32.
        triplets: over those pictures.
        distance: a name that `triplet_margins` takes.
    """
    answers = answer_by_codes(codes, triplets, distance)
    return score_answers(answers, np.ones(len(triplets), dtype=np.int8))

"""What a model is worth on classes of images that its training does without.

A head is trained once more without whole classes of images, which are those of labelled images
where there are labels, else clusters of features, and asked about these; what else it says is in
`unseen_probe`. An ensemble, which is chosen by held-out draws, is trained several times more, each
time without other classes.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tripletkit import defaults
from tripletkit.data.novelty import Nearness, measure_nearness
from tripletkit.data.splits.unseen_classes import (
    BY_LABELS,
    HeldOutClasses,
    find_groups,
    hold_out_classes,
)
from tripletkit.data.training_set import TrainingSet
from tripletkit.errors import SplitError
from tripletkit.evaluation.answers import Answers
from tripletkit.evaluation.distances import FROZEN_DISTANCE
from tripletkit.evaluation.scoring import Score, score_answers
from tripletkit.evaluation.validation import score_embeddings
from tripletkit.features.unit_length import scale_to_unit_length
from tripletkit.model.settings import HeadSettings
from tripletkit.progress import Progress, no_progress
from tripletkit.training.unseen_probe import Probe, probe_groups, with_answer

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

    def to_json(self) -> dict[str, Any]:
        """Return all but embeddings and rows as JSON takes it."""
        return {
            "groups_from": self.groups_from,
            "n_groups": self.rounds[0].n_groups,
            "n_rounds": len(self.rounds),
            "n_held_out_classes": [each.n_held_out_classes for each in self.rounds],
            "n_held_out_images": self.n_held_out_images,
            "trained": self.trained.to_json(),
            "frozen_cosine": self.frozen.to_json(),
            **(self.probe.to_json() if self.probe else {}),
            "test": self.nearness and self.nearness.to_json(),
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

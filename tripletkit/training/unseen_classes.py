"""What a model is worth on classes of images that its training does without.

It is trained several times more, each time without whole classes of images, and asked about these.
The classes are those of labelled images where there are labels, else clusters of features.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from tripletkit import defaults
from tripletkit.data.splits.held_out_draws import (
    BY_LABELS,
    HeldOutClasses,
    find_groups,
    hold_out_classes,
)
from tripletkit.data.triplets import Triplets
from tripletkit.defaults import FROZEN_DISTANCE
from tripletkit.errors import SplitError
from tripletkit.evaluation.distances import triplet_margins
from tripletkit.evaluation.pooled import BetterRecipe
from tripletkit.evaluation.scoring import Score
from tripletkit.evaluation.validation import score_margins
from tripletkit.features.unit_length import scale_to_unit_length
from tripletkit.progress import Progress, no_progress
from tripletkit.training.held_out import credit, find_better_recipe, make_map
from tripletkit.training.trainer import Examples, Trainer

# Between the seeds of two rounds, so that the first of another training's seed is no second here.
_ROUND_SEEDS = 1_000_003


@dataclass(frozen=True)
class _Nearness:
    """Mean distances (1 - cosine of centered features) from an image to the nearest training one.

    Attributes:
        of_training: from a training image to the nearest other one.
        of_unseen_classes: from an image of a held-out class to the nearest one of the other
            classes.
        of_test: from one of the `n_test` test images.
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
        return asdict(self) | {"novelty": self.novelty}


def _measure_nearness(training: np.ndarray, is_held_out: np.ndarray, test: np.ndarray) -> _Nearness:
    """Compare test images with training images by their frozen features, of length 1.

    What all training images have in common is taken away first: it makes all distances small, and
    the difference between known and unseen classes a third as large as it can be. `is_held_out`
    says of each training image whether it is of a held-out class.
    """
    from sklearn.neighbors import NearestNeighbors

    mean = training.mean(axis=0)
    training, test = training - mean, test - mean

    def mean_distance(to: np.ndarray, of: np.ndarray | None) -> float:
        index = NearestNeighbors(n_neighbors=1, metric="cosine", algorithm="brute").fit(to)
        # Without images of its own, each one's neighbour is another than itself.
        return float(index.kneighbors(of)[0].mean())

    return _Nearness(
        of_training=mean_distance(training, None),
        of_unseen_classes=mean_distance(training[~is_held_out], training[is_held_out]),
        of_test=mean_distance(training, test),
        n_test=len(test),
    )


@dataclass(frozen=True)
class UnseenPlan:
    """The images and triplets held out from each training, whole `"classes"` or `"clusters"`."""

    rounds: tuple[HeldOutClasses, ...]
    groups_from: str


def plan_unseen_classes(examples: Examples, seed: int, fraction: float) -> UnseenPlan:
    """Decide which classes are held out, up to `defaults.UNSEEN_ROUNDS` times, each time others."""
    rounds: list[HeldOutClasses] = []
    groups_from = ""
    for number in range(defaults.UNSEEN_ROUNDS):
        try:
            held_out, source = _hold_out(examples, seed + number * _ROUND_SEEDS, fraction)
        except SplitError:
            # Where some classes can be held out, others may not.
            if not rounds:
                raise
            continue
        groups_from = groups_from or source
        # Of few classes the same may be drawn again, which would say the same.
        if not any(np.array_equal(held_out.is_held_out, each.is_held_out) for each in rounds):
            rounds.append(held_out)
    return UnseenPlan(tuple(rounds), groups_from)


@dataclass(frozen=True)
class UnseenClasses:
    """How a model does on classes that its training does without.

    Attributes:
        plan: what was held out.
        trained, frozen, map: scores of the model's trainings, of the frozen features and of
            linear maps of them on the triplets of the held-out classes.
        better: another recipe to try for such classes; None where none surely is better.
        nearness: of the test images; None without a test.
    """

    plan: UnseenPlan
    trained: Score
    frozen: Score
    map: Score
    better: BetterRecipe | None
    nearness: _Nearness | None

    @property
    def n_held_out_images(self) -> int:
        """How many images some round held out."""
        return int(np.any([each.is_held_out for each in self.plan.rounds], axis=0).sum())

    def to_dict(self) -> dict[str, Any]:
        """Return all but rows as JSON takes it."""
        rounds = self.plan.rounds
        return {
            "groups_from": self.plan.groups_from,
            "n_groups": rounds[0].n_groups,
            "n_rounds": len(rounds),
            "n_held_out_classes": [each.n_held_out_classes for each in rounds],
            "n_held_out_images": self.n_held_out_images,
            "trained": self.trained.to_dict(),
            "frozen_cosine": self.frozen.to_dict(),
            "map": self.map.to_dict(),
            "test": self.nearness and self.nearness.to_dict(),
        }


def measure_unseen_classes(
    trainer: Trainer,
    triplets: Triplets,
    plan: UnseenPlan,
    test_features: np.ndarray | None = None,
    progress: Progress = no_progress,
) -> UnseenClasses:
    """Train without whole classes of images and see how the model does on them.

    A triplet that several trainings were asked about is answered by the mean of their margins.
    """
    examples = trainer.examples
    simple = make_map(examples)
    total, n_answers = np.zeros((2, len(triplets))), np.zeros(len(triplets), dtype=np.int64)
    for number, each in enumerate(plan.rounds):
        progress(number, len(plan.rounds))
        rows = examples.with_answer(each.split.val_rows)
        answered = each.split.train_rows, examples.rows[rows]
        total[:, rows] += np.concatenate([trainer.answer(*answered), simple.answer(*answered)])
        n_answers[rows] += 1
    progress(len(plan.rounds), len(plan.rounds))
    nearness = None
    if test_features is not None:
        trained_on = np.unique(examples.rows)
        nearness = _measure_nearness(
            scale_to_unit_length(examples.features)[trained_on],
            plan.rounds[0].is_held_out[trained_on],
            scale_to_unit_length(test_features),
        )
    asked_rows = np.flatnonzero(n_answers)
    asked = triplets.take(asked_rows)
    trained, of_map = (total[:, asked_rows] / n_answers[asked_rows]).astype(np.float32)
    frozen = triplet_margins(examples.features, asked.rows, FROZEN_DISTANCE)
    better = find_better_recipe(
        credit(trained),
        credit(frozen),
        credit(of_map),
        asked.rows,
        np.zeros(len(asked), np.int64),
    )
    return UnseenClasses(
        plan,
        score_margins(trained, asked),
        score_margins(frozen, asked),
        score_margins(of_map, asked),
        better,
        nearness,
    )


def _hold_out(examples: Examples, seed: int, fraction: float) -> tuple[HeldOutClasses, str]:
    """Return what is held out, and what the classes are from."""
    rows, labels = examples.rows, examples.labels
    images = np.union1d(rows, examples.val_rows)
    unit = scale_to_unit_length(examples.features)
    groups, n_groups, source = find_groups(
        images, unit, None if labels is None else labels.of_image, seed
    )
    # Two classes are one pair to tell apart, which says little; clusters are finer.
    fewest = 3 if source == BY_LABELS and n_groups >= 6 else 2
    held_out = hold_out_classes(rows, groups, n_groups, fraction, seed, fewest)
    if examples.is_scored is None:
        return held_out, source
    asked = held_out.split.val_rows
    if not len(kept := asked[examples.is_scored[asked]]):
        raise SplitError("expected questions of chance about the held-out classes, got none")
    return replace(held_out, split=replace(held_out.split, val_rows=kept)), source

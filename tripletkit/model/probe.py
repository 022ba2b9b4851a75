"""What a model is worth on kinds of pictures that training does without, and which to train.

A head is trained once more without whole kinds of pictures, and every candidate, such as a
larger share of the frozen features, is scored by it in both worlds: new pictures of known kinds,
and new kinds. The model that is kept is then trained on all triplets.

Kinds are the classes of labelled pictures where there are labels, else clusters of features.

The rule. The score of a candidate is (1 - newness) times its accuracy on new pictures plus
newness times that on new kinds; newness is 0.5, or where the test lies between the two if it is
at hand (`data.nearness`). The highest score wins, where both accuracies rest on at least
`defaults.MIN_VAL_TRIPLETS` triplets. With fewer, chance would choose; then newness alone does:
the candidate that moves farthest from the frozen features where the test asks for nothing new,
else the usual one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from tripletkit import defaults
from tripletkit.data.kinds import BY_LABELS, HeldOutKinds, find_kinds, hold_out_kinds
from tripletkit.data.labels import PictureLabels
from tripletkit.data.nearness import Nearness, measure_nearness
from tripletkit.data.training_set import TrainingSet
from tripletkit.evaluation.distances import FROZEN_DISTANCE
from tripletkit.evaluation.scoring import Score
from tripletkit.evaluation.validation import score_codes
from tripletkit.features.unit_length import scale_to_unit_length
from tripletkit.model.head_training import Training, make_training
from tripletkit.model.heads import frozen_scale
from tripletkit.model.loss_registry import get_loss
from tripletkit.model.recipes import get_recipe
from tripletkit.model.settings import HeadSettings
from tripletkit.model.training import compress_codes, share_right


@dataclass(frozen=True)
class Candidate:
    """One way to make the model.

    Attributes:
        strength, frozen_share: see `HeadSettings`.
        source_members: how many members of the ensemble are heads by the source's recipe.
    """

    strength: float
    frozen_share: float = 0.0
    source_members: int = 0

    def apply(self, settings: HeadSettings) -> HeadSettings:
        return replace(settings, **asdict(self))


@dataclass(frozen=True)
class CandidateScore:
    """How a candidate, trained without the held-out kinds, answers in both worlds.

    Attributes:
        new_pictures: share right on validation pictures of known kinds; NaN without any.
        new_kinds: share right on the held-out kinds.
    """

    candidate: Candidate
    new_pictures: float
    new_kinds: float


@dataclass(frozen=True)
class Probe:
    """What was learned from training without some kinds.

    Attributes:
        scores: one a candidate, in the order of `candidates_for`.
        chosen: the index of the one to train.
        reason: the rule that chose it, in words.
        n_new_pictures, n_new_kinds: triplets that the scores rest on.
        codes: `(n_images, dim)` of the chosen one, trained without the held-out kinds.
    """

    scores: list[CandidateScore]
    chosen: int
    reason: str
    n_new_pictures: int
    n_new_kinds: int
    codes: np.ndarray

    @property
    def candidate(self) -> Candidate:
        return self.scores[self.chosen].candidate

    def to_json(self) -> dict[str, Any]:
        """Return all but the codes as JSON takes it."""
        return {
            "candidates": [
                {
                    **asdict(score.candidate),
                    "new_pictures": score.new_pictures if self.n_new_pictures else None,
                    "new_kinds": score.new_kinds,
                }
                for score in self.scores
            ],
            "chosen": self.chosen,
            "reason": self.reason,
            "n_new_pictures": self.n_new_pictures,
            "n_new_kinds": self.n_new_kinds,
        }


@dataclass(frozen=True)
class NewKinds:
    """How a model does on kinds that its training does without, and what was chosen by it.

    Attributes:
        held_out: the pictures and triplets held out.
        kinds_from: `"classes"` or `"clusters"`.
        probe: the candidates' scores and the choice.
        trained, frozen: scores of the chosen candidate and of the frozen features on the
            triplets of the held-out kinds.
        nearness: of the test pictures; None without a test.
    """

    held_out: HeldOutKinds
    kinds_from: str
    probe: Probe
    trained: Score
    frozen: Score
    nearness: Nearness | None

    def to_json(self) -> dict[str, Any]:
        """Return all but codes and rows as JSON takes it."""
        return {
            "kinds_from": self.kinds_from,
            "n_kinds": self.held_out.n_kinds,
            "n_held_out_kinds": self.held_out.n_held_out_kinds,
            "n_held_out_pictures": int(self.held_out.is_held_out.sum()),
            "trained": self.trained.to_json(),
            "frozen_cosine": self.frozen.to_json(),
            **self.probe.to_json(),
            "test": self.nearness and self.nearness.to_json(),
        }


def see_new_kinds(
    data: TrainingSet,
    features: np.ndarray,
    settings: HeadSettings,
    fraction: float,
    test_features: np.ndarray | None = None,
    loss_weights: np.ndarray | None = None,
) -> NewKinds:
    """Hold whole kinds of pictures out and see how a model does on them.

    Args:
        data: training and validation triplets.
        features: `(n_images, n_features)` float32 of the pictures in `data.names`.
        settings: of the model to train.
        fraction: of the pictures to hold out, about.
        test_features: `(n_test, n_features)` float32 of the pictures of a test.
        loss_weights: of the training triplets; see `train_head`.
    Raises:
        SplitError: if there are too few pictures, classes or triplets for it.
        CollapseError: if the codes become alike.
    """
    unit = scale_to_unit_length(features)
    kinds, n_kinds, source = find_kinds(data, unit, settings.seed)
    # Two classes are one pair to tell apart, which says little; clusters are finer.
    fewest = 3 if source == BY_LABELS and n_kinds >= 6 else 2
    held_out = hold_out_kinds(data.train.rows, kinds, n_kinds, fraction, settings.seed, fewest)
    nearness = None
    if test_features is not None:
        trained_on = np.unique(data.train.rows)
        nearness = measure_nearness(
            unit[trained_on],
            held_out.is_held_out[trained_on],
            scale_to_unit_length(test_features),
        )
    probe = probe_kinds(
        features,
        held_out,
        data.train.rows,
        data.val.rows,
        settings,
        nearness and nearness.newness,
        data.labels,
        loss_weights,
    )
    of_new_kinds = data.train.take(_with_answer(held_out.split.val_rows, loss_weights))
    return NewKinds(
        held_out,
        source,
        probe,
        score_codes(probe.codes, of_new_kinds, settings.distance),
        score_codes(features, of_new_kinds, FROZEN_DISTANCE),
        nearness,
    )


def candidates_for(settings: HeadSettings) -> list[Candidate]:
    """Return what can be chosen from, the nearest to the frozen features first.

    The last one of an ensemble gives two fifths of its members to the source's recipe: the two
    err differently, and where nothing is new the mixture is better than either. With class
    centers there is no choice: these are places among the codes as they were trained.
    """
    is_fixed = get_loss(settings.loss).has_centers
    if is_fixed or not get_recipe(settings.recipe).starts_as_identity:
        return [Candidate(settings.strength)]
    candidates = [Candidate(strength, share) for share, strength in defaults.BLENDS]
    if (n_source := round(defaults.SOURCE_SHARE * settings.members)) > 0 and settings.members > 1:
        candidates.append(replace(candidates[-1], source_members=n_source))
    return candidates


def choose_candidate(
    scores: Sequence[CandidateScore],
    n_new_pictures: int,
    n_new_kinds: int,
    newness: float | None,
) -> tuple[int, str]:
    """Return the index of the candidate to train, and the rule that chose it in words.

    Args:
        scores: in the order of `candidates_for`.
        n_new_pictures, n_new_kinds: triplets that they rest on.
        newness: 0 to 1; None where no test is at hand.
    Example:
        >>> near, far = Candidate(0.7, frozen_share=0.5), Candidate(1.0)
        >>> scores = [CandidateScore(near, 0.8, 0.7), CandidateScore(far, 0.9, 0.5)]
        >>> choose_candidate(scores, 900, 900, None)
        (0, 'best of 0.50 x new pictures + 0.50 x new kinds')
        >>> choose_candidate(scores, 900, 900, 0.1)[0]
        1
    """
    if len(scores) == 1:
        return 0, "the only candidate"
    if min(n_new_pictures, n_new_kinds) >= defaults.MIN_VAL_TRIPLETS:
        weight = 0.5 if newness is None else newness
        worth = [(1 - weight) * score.new_pictures + weight * score.new_kinds for score in scores]
        return int(
            np.argmax(worth)
        ), f"best of {1 - weight:.2f} x new pictures + {weight:.2f} x new kinds"
    few = f"fewer than {defaults.MIN_VAL_TRIPLETS} validation triplets in one of the two"
    if newness is not None and newness <= defaults.NOTHING_NEW:
        return len(scores) - 1, f"{few}; the test asks for nothing new"
    reason = "no test at hand" if newness is None else f"newness of the test {newness:.2f}"
    gaps = [abs(score.candidate.frozen_share - defaults.FROZEN_SHARE) for score in scores]
    return int(np.argmin(gaps)), f"{few}; {reason}: the usual"


def probe_kinds(
    features: np.ndarray,
    held_out: HeldOutKinds,
    train_rows: np.ndarray,
    val_rows: np.ndarray,
    settings: HeadSettings,
    newness: float | None = None,
    labels: PictureLabels | None = None,
    loss_weights: np.ndarray | None = None,
) -> Probe:
    """Train without the held-out kinds and score every candidate.

    Args:
        features: `(n_images, n_features)` float32.
        held_out: of the pictures of `features`, and of `train_rows`.
        train_rows: `(n_triplets, 3)` indices into `features`.
        val_rows: validation triplets; those of known kinds tell of new pictures.
        settings: of the model to train.
        newness: see `choose_candidate`.
        labels: of all pictures, for losses that need them.
        loss_weights: `(n_triplets, 2)` of `train_rows`; see `train_head`.
    Raises:
        CollapseError: if the codes become alike.
    """
    rows = train_rows[held_out.split.train_rows]
    weights = None if loss_weights is None else loss_weights[held_out.split.train_rows]
    new_kinds = train_rows[_with_answer(held_out.split.val_rows, loss_weights)]
    new_pictures = val_rows[~held_out.is_held_out[val_rows].any(axis=1)]
    candidates = candidates_for(settings)
    training = _train(features, rows, settings, labels, weights)
    source = None
    if any(candidate.source_members for candidate in candidates):
        source = _train(features, rows, settings.of_source_members(), labels, weights).embed()
    images = np.unique(rows)
    unit = scale_to_unit_length(features)
    scores, all_codes = [], []
    for candidate in candidates:
        codes = training.embed(candidate.strength)
        if candidate.source_members:
            share = candidate.source_members / settings.members
            codes = np.hstack([np.sqrt(1 - share) * codes, np.sqrt(share) * source])
        if candidate.frozen_share:
            scale = frozen_scale(unit[images], codes[images], candidate.frozen_share)
            codes = scale_to_unit_length(np.hstack([scale * unit, codes]))
        if settings.is_compressed:
            codes = compress_codes(codes, images, settings)
        all_codes.append(codes)
        accuracy = np.nan
        if len(new_pictures):
            accuracy = share_right(codes, new_pictures, settings.distance)
        scores.append(
            CandidateScore(candidate, accuracy, share_right(codes, new_kinds, settings.distance))
        )
    chosen, reason = choose_candidate(scores, len(new_pictures), len(new_kinds), newness)
    return Probe(scores, chosen, reason, len(new_pictures), len(new_kinds), all_codes[chosen])


def _with_answer(rows: np.ndarray, loss_weights: np.ndarray | None) -> np.ndarray:
    """Return those of some rows that can be right or wrong: not the ones on which people tie."""
    if loss_weights is None:
        return rows
    return rows[loss_weights[rows, 0] != loss_weights[rows, 1]]


def _train(
    features: np.ndarray,
    rows: np.ndarray,
    settings: HeadSettings,
    labels: PictureLabels | None,
    loss_weights: np.ndarray | None,
) -> Training:
    training = make_training(features, rows, settings, labels, loss_weights)
    for _ in range(settings.epochs):
        loss, _ = training.run_epoch()
    training.check(training.embed(), loss)
    return training

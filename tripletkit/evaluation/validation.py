"""Accuracy of embeddings on answered triplets, with all that stands beside it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tripletkit import defaults
from tripletkit.data.labels import NO_LABEL
from tripletkit.data.training_set import TrainingSet
from tripletkit.data.triplets import Triplets, Votes
from tripletkit.defaults import FROZEN_DISTANCE
from tripletkit.errors import (
    DataWarning,
    LeakageWarning,
    caution,
)
from tripletkit.evaluation.answers import Answers
from tripletkit.evaluation.baselines import Baseline, describe_trap, run_baselines
from tripletkit.evaluation.classification import (
    ClassificationScores,
    ClassVariances,
    PairwiseDistances,
    classify_embeddings,
    measure_variances,
)
from tripletkit.evaluation.distances import triplet_margins
from tripletkit.evaluation.intervals import (
    image_interval,
    score_row,
    show_interval,
    wilson_interval,
)
from tripletkit.evaluation.scoring import (
    Score,
    VoteScore,
    describe_exchanged,
    score_answers,
    score_votes,
)
from tripletkit.results import Result, Section, Table, plain_values

# So many triplets show whether near and far are exchanged.
_N_EXCHANGED = 2000
# So many images show whether most are alike: those whose features differ from the median by no
# more than this share of its length.
_N_ALIKE = 512
_ALIKE_DISTANCE = 0.001
# Near-duplicates: nearer than this share of the usual distance of an image to the nearest other, by
# cosine. So many images are looked at, and this share of them is told; see `docs/benchmarks.md`.
_NEAR, _N_NEAR, _NEAR_SHARE = 0.5, 4000, 0.02
# Of fewer images nothing is usual.
_N_SMALL = 100


@dataclass(frozen=True, repr=False)
class Validation(Result):
    """How a model does on validation triplets, and what it must be compared with.

    Attributes:
        trained: the score of the trained embeddings.
        frozen: the score of the backbone's features alone, by cosine, without any training.
        baselines: what the names of the images alone would score.
        frozen_head: the score of a head on the frozen backbone, where that was trained further.
        map: the score of a linear map of the features, trained on the same; None without.
        is_from_scratch: the backbone knew nothing before, so `frozen` is of random features.
    """

    trained: Score
    frozen: Score
    baselines: list[Baseline]
    frozen_head: Score | None = None
    is_from_scratch: bool = False
    map: Score | None = None

    @property
    def is_worse_than_frozen(self) -> bool:
        return self.trained.accuracy < self.frozen.accuracy

    def trap(self) -> str | None:
        """Return a sentence if the score is no better than a table of names, else None."""
        return describe_trap(self.trained.accuracy, self.trained.interval, self.baselines)

    def _summary(self) -> str:
        return f"{self.trained._summary()}; frozen features {self.frozen.accuracy:.4f}"

    def _sections(self) -> list[Section]:
        rows = [["validation", "accuracy", "95% interval", "shared images", "triplets"]]
        rows.append(_score_row("trained embeddings", self.trained))
        if self.frozen_head is not None:
            rows.append(_score_row("head, backbone frozen", self.frozen_head))
        before = "untrained network" if self.is_from_scratch else "frozen features"
        rows.append(_score_row(f"{before}, cosine", self.frozen))
        if self.map is not None:
            rows.append(_score_row("linear map of them", self.map))
        able = [baseline for baseline in self.baselines if baseline.n_undecided < baseline.n]
        rows += [
            score_row(f"names alone: {each.name}", each.accuracy, each.wilson, "", each.n)
            for each in able
        ]
        notes: list[Table | str] = [Table(rows, right=[1, 4])]
        if self.trained.votes is not None and self.frozen.votes is not None:
            notes += ["", _show_agreement(self.trained.votes, self.frozen.votes), ""]
        if not able:
            notes.append("Names alone could answer none of these: training shares none with them.")
        if chooses_epoch(self.trained.n):
            notes.append(
                "The model was chosen by the same triplets, so the first line is a little too high."
            )
        if n_ties := self.trained.n_ties:
            notes.append(f"Ties, counted as wrong: {n_ties:,}.")
        return [notes]


def _score_row(name: str, score: Score) -> list[str]:
    shared = show_interval(score.image_interval)
    return score_row(name, score.accuracy, score.wilson, shared, score.n)


def _show_agreement(trained: VoteScore, frozen: VoteScore) -> Table:
    """Return how far answers agree with the people who were asked, and how far they could."""
    rows = [["votes", "agreement", "95% interval", "shared images", "triplets"]]
    rows += [
        score_row(name, score.agreement, score.wilson, show_interval(score.image_interval), score.n)
        for name, score in (("trained embeddings", trained), ("frozen features, cosine", frozen))
    ]
    rows.append(["ceiling: the majority", f"{trained.ceiling:.4f}", "", "", f"{trained.n:,}"])
    if (voters := trained.voters) is not None:
        rows += [
            ["a voter with most others", f"{voters.with_majority:.4f}", "", "", f"{voters.n:,}"],
            ["a voter with another", f"{voters.one_another:.4f}", "", "", f"{voters.n:,}"],
        ]
    return Table(rows, right=[1, 4])


def validate(
    data: TrainingSet,
    embeddings: np.ndarray,
    features: np.ndarray,
    distance: str,
    *,
    of_map: np.ndarray | None = None,
    frozen_head: Score | None = None,
    is_from_scratch: bool = False,
) -> Validation:
    """Score embeddings on the validation triplets, of which there is one at least.

    Args:
        embeddings, features: of the images in `data.names`.
        of_map: `(n_val,)` float32 margins of a linear map of the features.
        frozen_head, is_from_scratch: see `Validation`.
    """
    baselines = run_baselines(data.train, data.val)
    margins = {
        "trained": triplet_margins(embeddings, data.val.rows, distance),
        "frozen": triplet_margins(features, data.val.rows, FROZEN_DISTANCE),
    }
    scores = {name: score_margins(each, data.val, data.val_votes) for name, each in margins.items()}
    if of_map is not None:
        scores["map"] = score_margins(of_map, data.val)
    return Validation(
        **scores,
        baselines=baselines,
        frozen_head=frozen_head,
        is_from_scratch=is_from_scratch,
    )


@dataclass(frozen=True)
class LabelScores:
    """How validation images are classified by those of training, and variances of the latter."""

    trained: ClassificationScores
    frozen: ClassificationScores
    training: ClassVariances

    def to_dict(self) -> dict[str, Any]:
        return {
            "trained": self.trained.to_dict(),
            "frozen_cosine": self.frozen.to_dict(),
            "training_variance": plain_values(self.training),
        }


def classify_validation(
    data: TrainingSet, embeddings: np.ndarray, features: np.ndarray, distance: str
) -> LabelScores | None:
    """Classify the labelled validation images by the labelled training images.

    None where fewer than two classes are in training, or none of them in validation.
    """
    if data.labels is None:
        return None
    labels = data.labels.of_image
    labelled = np.flatnonzero(labels != NO_LABEL)
    trained_on, val = (np.intersect1d(labelled, part.rows) for part in (data.train, data.val))
    val = np.setdiff1d(val, trained_on)
    known = np.unique(labels[trained_on])
    if len(known) < 2 or not np.isin(labels[val], known).any():
        return None
    variances = measure_variances(embeddings[trained_on], labels[trained_on])
    trained, frozen = (
        classify_embeddings(
            vectors[trained_on], labels[trained_on], vectors[val], labels[val], measure
        )
        for vectors, measure in ((embeddings, distance), (features, FROZEN_DISTANCE))
    )
    return LabelScores(trained, frozen, variances)


def describe_alike(features: np.ndarray, images: np.ndarray) -> str | None:
    """Return a sentence where the features of most of these images are nearly the same."""
    chosen = np.linspace(0, len(images) - 1, min(len(images), _N_ALIKE)).astype(int)
    vectors = features[images[chosen]].astype(np.float64)
    if len(vectors) < 2:
        return None
    centre = np.median(vectors, axis=0)
    away = np.linalg.norm(vectors - centre, axis=1)
    share = float(np.mean(away <= _ALIKE_DISTANCE * np.linalg.norm(centre)))
    if share <= 0.5:
        return None
    return (
        f"the features of {share:.0%} of the images are nearly the same before any training, so "
        "training can hardly tell these images apart. `tripletkit audit` with the image folder "
        "says which are blank, nearly black or white, or white on transparent ground; if none "
        "is, take another encoder."
    )


def _describe_near_duplicates(features: np.ndarray, triplets: Triplets) -> str | None:
    """Return a sentence where too many images are nearly another, with the nearest two."""
    images = np.unique(triplets.rows)
    chosen = np.linspace(0, len(images) - 1, min(len(images), _N_NEAR)).astype(int)
    images = images[np.unique(chosen)]
    distances = PairwiseDistances(features[images], "cosine")
    nearest = np.empty(len(images), dtype=np.int64)
    away = np.empty(len(images))
    for block in distances.blocks():
        measured = distances.measure(block)
        rows = np.arange(len(measured))
        measured[rows, rows + block.start] = np.inf
        nearest[block] = measured.argmin(axis=1)
        away[block] = np.sqrt(measured[rows, nearest[block]])
    is_near = away < _NEAR * np.median(away)
    if len(images) < _N_SMALL or is_near.mean() < _NEAR_SHARE:
        return None
    closest = int(away.argmin())
    names = (triplets.names[image] for image in images[[closest, nearest[closest]]])
    return (
        f"{is_near.mean():.0%} of the images are nearly the same as another, such as "
        f"{' and '.join(map(repr, names))}. Where one of them is held out and the other is not, "
        "an accuracy may flatter. `tripletkit audit` with the image folder lists such pairs; name "
        "one image of each, or hold them out together with `groups`."
    )


def warn_of_features(features: np.ndarray, triplets: Triplets) -> None:
    """Say where the features alone show that images or triplets are not what they should be.

    Most images are alike, or the other image is nearer than the one that is said to be.
    """
    alike = describe_alike(features, np.unique(triplets.rows))
    if alike is not None:
        caution(f"{triplets.source}: {alike}", DataWarning)
    elif (near := _describe_near_duplicates(features, triplets)) is not None:
        caution(f"{triplets.source}: {near}", LeakageWarning)
    # Some thousands tell as much, and the largest sets take no longer.
    some = np.linspace(0, len(triplets) - 1, min(len(triplets), _N_EXCHANGED)).astype(int)
    triplets = triplets.take(np.unique(some))
    margins = triplet_margins(features, triplets.rows, FROZEN_DISTANCE)
    right = (np.sign(margins) + 1) / 2  # A tie speaks for neither.
    interval = image_interval(right, triplets.rows) or wilson_interval(right.sum(), len(right))
    said = describe_exchanged(float(right.mean()), interval, "the frozen features")
    if said is not None:
        caution(f"{triplets.source}: {said}", DataWarning)


def chooses_epoch(n_val: int) -> bool:
    """Return whether so many validation triplets can tell one epoch from another."""
    return n_val >= defaults.MIN_VAL_TRIPLETS


def score_embeddings(embeddings: np.ndarray, triplets: Triplets, distance: str) -> Score:
    """Score embeddings on triplets over their images: anchor, positive, negative."""
    return score_margins(triplet_margins(embeddings, triplets.rows, distance), triplets)


def score_margins(margins: np.ndarray, triplets: Triplets, votes: Votes | None = None) -> Score:
    """Score margins, above 0 where the positive is nearer, and their agreement with votes."""
    answers = Answers.from_margins(margins, triplets, triplets.source)
    score = score_answers(answers, np.ones(len(triplets), dtype=np.int8))
    return score if votes is None else replace(score, votes=score_votes(answers, votes))

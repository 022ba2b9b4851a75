"""Accuracy of embeddings on answered triplets, with all that stands beside it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tripletkit import defaults
from tripletkit.data.training_set import TrainingSet
from tripletkit.data.triplets import Triplets
from tripletkit.defaults import FROZEN_DISTANCE
from tripletkit.errors import DataWarning, LeakageWarning, caution
from tripletkit.evaluation.baselines import Baseline, describe_trap, run_baselines
from tripletkit.evaluation.classification import PairwiseDistances
from tripletkit.evaluation.distances import triplet_margins
from tripletkit.evaluation.intervals import (
    image_interval,
    score_row,
    show_interval,
    wilson_interval,
)
from tripletkit.evaluation.pooled import BetterRecipe
from tripletkit.evaluation.scoring import Score, describe_exchanged
from tripletkit.results import Result, Section, Table

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

    @classmethod
    def of(
        cls,
        data: TrainingSet,
        embeddings: np.ndarray,
        features: np.ndarray,
        distance: str,
        *,
        of_map: np.ndarray | None = None,
        frozen_head: Score | None = None,
        is_from_scratch: bool = False,
    ) -> Validation:
        """Score embeddings of `data.names` on the validation triplets, of which there is one.
        `of_map` are the `(n_val,)` float32 margins of a linear map of the features."""
        before = triplet_margins(features, data.val.rows, FROZEN_DISTANCE)
        after = triplet_margins(embeddings, data.val.rows, distance)
        return cls(
            Score.of_margins(after, data.val, data.val_votes),
            Score.of_margins(before, data.val, data.val_votes),
            run_baselines(data.train, data.val),
            frozen_head,
            is_from_scratch,
            None if of_map is None else Score.of_margins(of_map, data.val),
        )

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
            notes += ["", self.trained.votes._beside(self.frozen.votes), ""]
        if not able:
            notes.append("Names alone could answer none of these: training shares none with them.")
        if self.trained.n >= defaults.MIN_VAL_TRIPLETS:
            notes.append(
                "The model was chosen by the same triplets, so the first line is a little too high."
            )
        if n_ties := self.trained.n_ties:
            notes.append(f"Ties, counted as wrong: {n_ties:,}.")
        return [notes]


def _score_row(name: str, score: Score) -> list[str]:
    shared = show_interval(score.image_interval)
    return score_row(name, score.accuracy, score.wilson, shared, score.n)


@dataclass(frozen=True)
class Nearness:
    """Mean distances (1 - cosine of centered features) from an image to the nearest training one.

    Attributes:
        of_training: from a training image to the nearest other one.
        of_unseen_classes: from an image of a held-out class to the nearest one of the other
            classes.
        of_test: from one of the `n_test` test images.
        novelty: where the test lies between new images of seen classes (0) and unseen classes (1).
    """

    of_training: float
    of_unseen_classes: float
    of_test: float
    n_test: int
    novelty: float

    @classmethod
    def of(cls, training: np.ndarray, is_held_out: np.ndarray, test: np.ndarray) -> Nearness:
        """Compare test images with training images by their frozen features, of length 1.

        What all training images have in common is taken away first: it makes all distances small,
        and the difference between known and unseen classes a third as large as it can be.
        `is_held_out` says of each training image whether it is of a held-out class.
        """
        from sklearn.neighbors import NearestNeighbors

        mean = training.mean(axis=0)
        training, test = training - mean, test - mean

        def mean_distance(to: np.ndarray, of: np.ndarray | None) -> float:
            index = NearestNeighbors(n_neighbors=1, metric="cosine", algorithm="brute").fit(to)
            # Without images of its own, each one's neighbour is another than itself.
            return float(index.kneighbors(of)[0].mean())

        known = mean_distance(training, None)
        unseen = mean_distance(training[~is_held_out], training[is_held_out])
        away = mean_distance(training, test)
        # Where held-out classes are as near as other images, nothing can be told.
        share = (away - known) / (unseen - known) if unseen > known else 0.5
        return cls(known, unseen, away, len(test), float(np.clip(share, 0.0, 1.0)))

    def __str__(self) -> str:
        if self.novelty <= defaults.NOTHING_NEW:
            expected = "the accuracy on new images"
        elif self.novelty >= 1:
            expected = "the accuracy on unseen classes"
        else:
            expected = (
                "an accuracy between those on new images and on unseen classes, "
                f"{self.novelty:.0%} of the way to the second"
            )
        return (
            f"Test images: {self.of_test:.3f} (1 - cosine, centered) from the nearest training "
            f"image, training images {self.of_training:.3f} from each other, unseen classes "
            f"{self.of_unseen_classes:.3f}. Expect {expected}."
        )


@dataclass(frozen=True)
class UnseenClasses:
    """How a model does on classes of images that its training does without.

    Attributes:
        groups_from: `"classes"` of labelled images, or `"clusters"` of features.
        n_groups: of these in all.
        n_rounds: trainings, each without others.
        n_held_out_classes, n_held_out_images: of each round, and of all.
        trained, frozen, map: scores of the model's trainings, of the frozen features and of
            linear maps of them on the triplets of the held-out classes.
        better: another recipe to try for such classes; None where none surely is better.
        test: how near the test images are; None without a test.
    """

    groups_from: str
    n_groups: int
    n_rounds: int
    n_held_out_classes: tuple[int, ...]
    n_held_out_images: int
    trained: Score
    frozen: Score
    map: Score
    better: BetterRecipe | None = None
    test: Nearness | None = None

    def _section(self) -> Section:
        rows = [
            ["unseen classes", "accuracy", "95% interval", "shared images", "triplets"],
            _score_row("trained embeddings", self.trained),
            _score_row("frozen features, cosine", self.frozen),
            _score_row("linear map of them", self.map),
        ]
        times, in_all = "once more without", ""
        if self.n_rounds > 1:
            times, in_all = f"{self.n_rounds} times more, each time without about", " in all"
        said = (
            f"Trained {times} {self.n_held_out_classes[0]} of {self.n_groups} {self.groups_from} "
            f"of images ({self.n_held_out_images:,} images{in_all}), and asked about these."
        )
        notes: list[Table | str] = [Table(rows, right=[1, 4]), said]
        return notes if self.test is None else [*notes, str(self.test)]


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
    """Say where the features alone show that images or triplets are not what they should be. Most
    images are alike, or the other image is nearer than the one that is said to be."""
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

"""How well embeddings tell classes apart: by class centers, by neighbours, and as a search.

Held-out images are the queries, the images of training the reference that answers them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits

from tripletkit import defaults
from tripletkit.data.labels import NO_LABEL
from tripletkit.data.outputs import Destination, OutputForm, open_output
from tripletkit.data.text_files import guard_formula
from tripletkit.data.training_set import TrainingSet
from tripletkit.errors import LabelFileError
from tripletkit.evaluation.intervals import (
    Interval,
    NoInterval,
    image_interval,
    wilson_interval,
)
from tripletkit.features.unit_length import scale_to_unit_length
from tripletkit.progress import Progress, no_progress
from tripletkit.results import Result, Section, Table, plain_values

# Bins of a distribution: a cosine distance is counted to 3e-5, and the counts stay in the
# processor's cache.
_N_BINS = 1 << 16


# Distances in a block, 32 MB of them; a matrix product gains nothing from more.
_BLOCK_PAIRS = 1 << 23
_MOST_BLOCK_ROWS = 1024
# Columns of an L1 block, which SciPy copies to float64.
_L1_COLUMNS = 4096
# BLAS's threads wait for each other longer than products of fewer dimensions take.
_MIN_THREADED_DIMS = 64


class PairwiseDistances:
    """All distances between embeddings, of which only a block is ever in memory.

    Attributes:
        vectors: `(n_images, n_dims)` float32 as they are compared: of length 1 for the cosine, else
            around their mean, as far from 0 small distances would be lost to rounding.
        limit: what no distance exceeds.
    """

    def __init__(self, embeddings: np.ndarray, distance: str) -> None:
        """Prepare embeddings, `(n_images, n_dims)` float32, finite."""
        self.distance = distance
        if distance == "cosine":
            self.vectors = scale_to_unit_length(embeddings)
        else:
            middle = embeddings.mean(axis=0, dtype=np.float64) if len(embeddings) else 0.0
            self.vectors = embeddings - np.asarray(middle, dtype=np.float32)
        longest = float(_squares(self.vectors).max(initial=0.0))
        self.limit = {
            "cosine": 2.0,
            "l2": 2 * longest**0.5,
            "squared-l2": 4 * longest,
            "l1": 2 * float(np.abs(self.vectors).sum(axis=1).max(initial=0.0)),
        }[distance]

    def __len__(self) -> int:
        return len(self.vectors)

    def blocks(self) -> Iterator[slice]:
        """Cut all rows into blocks whose distances to all embeddings take some 32 MB."""
        n_rows = min(max(_BLOCK_PAIRS // max(len(self), 1), 1), _MOST_BLOCK_ROWS)
        for start in range(0, len(self), n_rows):
            yield slice(start, min(start + n_rows, len(self)))

    def measure(self, rows: slice, columns: slice = slice(None)) -> np.ndarray:
        """Return `(n_rows, n_columns)` float32 distances."""
        return _measure_between(self.vectors[rows], self.vectors[columns], self.distance)


def _squares(vectors: np.ndarray) -> np.ndarray:
    return np.einsum("ij,ij->i", vectors, vectors)


def _measure_between(left: np.ndarray, right: np.ndarray, distance: str) -> np.ndarray:
    """Return `(n_left, n_right)` float32 distances between vectors as they are compared."""
    found = np.empty((len(left), len(right)), dtype=np.float32)
    if distance == "l1":
        from scipy.spatial.distance import cdist

        for start in range(0, len(right), _L1_COLUMNS):
            part = slice(start, start + _L1_COLUMNS)
            found[:, part] = cdist(left, right[part], "cityblock")
        return found
    n_threads = 1 if left.shape[1] < _MIN_THREADED_DIMS else None
    with threadpool_limits(n_threads, "blas"):
        np.matmul(left, right.T, out=found)
    if distance == "cosine":
        np.subtract(1, found, out=found)
    else:
        found *= -2
        found += _squares(left)[:, None]
        found += _squares(right)
    np.maximum(found, 0, out=found)
    return np.sqrt(found, out=found) if distance == "l2" else found


class ClassDistances:
    """Distances between labelled images, which stand in the order of their classes.

    So the distances of a block of images to those of a class are a rectangle.

    Attributes:
        order: `(n,)` the image at each place, as an index into the embeddings given.
        distances: between places.
    """

    def __init__(self, embeddings: np.ndarray, labels: np.ndarray, distance: str) -> None:
        self.order = np.argsort(labels, kind="stable")
        _, self._starts, sizes = np.unique(
            labels[self.order], return_index=True, return_counts=True
        )
        if len(sizes) < 2 or sizes.max() < 2:
            raise LabelFileError(
                "expected images of at least two classes, and two images of one of them, "
                f"got {len(embeddings):,} images of {len(sizes):,} classes"
            )
        self._ends = self._starts + sizes
        self.n_classes = len(sizes)
        self.distances = PairwiseDistances(embeddings[self.order], distance)

    def __len__(self) -> int:
        return len(self.order)

    def classes_in(self, block: slice) -> Iterator[tuple[slice, slice]]:
        """Yield, for each class in a block of places, its part of the block and all of it."""
        first = np.searchsorted(self._ends, block.start, side="right")
        last = np.searchsorted(self._starts, block.stop, side="left")
        for start, end in zip(self._starts[first:last], self._ends[first:last], strict=True):
            yield slice(max(start, block.start), min(end, block.stop)), slice(start, end)


@dataclass(frozen=True)
class DistanceDistribution:
    """How many pairs of one class (positive) and of two (negative) are how far apart, each once.

    Attributes:
        edges: `(_N_BINS + 1,)` float64 of the bins, from 0 on.
        positives, negatives: `(_N_BINS,)` int64 pairs in each bin.
    """

    edges: np.ndarray
    positives: np.ndarray
    negatives: np.ndarray

    @classmethod
    def of(cls, images: ClassDistances, progress: Progress = no_progress) -> DistanceDistribution:
        """Count the distances of all pairs in one pass over half of them."""
        # A place past the last bin is for what is no pair, or was counted already.
        everything = np.zeros(_N_BINS + 1, dtype=np.int64)
        positives = np.zeros(_N_BINS + 1, dtype=np.int64)
        limit = images.distances.limit or 1.0
        for block in images.distances.blocks():
            measured = images.distances.measure(block, slice(block.start, None))
            measured *= _N_BINS / limit
            bins = measured.astype(np.int32)
            np.minimum(bins, _N_BINS - 1, out=bins)
            below = np.tri(len(bins), dtype=bool)
            bins[:, : len(bins)][below] = _N_BINS
            everything += _count(bins)
            for part, whole in images.classes_in(block):
                rows = slice(part.start - block.start, part.stop - block.start)
                columns = slice(rows.start, whole.stop - block.start)
                positives += _count(bins[rows, columns])
            progress(block.stop, len(images))
        edges = np.linspace(0, limit, _N_BINS + 1)
        return cls(edges, positives[:-1], (everything - positives)[:-1])

    def quantile(self, counts: np.ndarray, share: float) -> float:
        """Return the distance below which a share (> 0) of such pairs is, to within a bin."""
        reached = np.cumsum(counts)
        wanted = share * reached[-1]
        place = int(np.searchsorted(reached, wanted))
        # As if the pairs of a bin were spread evenly.
        inside = (wanted - (reached[place] - counts[place])) / counts[place]
        return float(self.edges[place] + inside * (self.edges[place + 1] - self.edges[place]))

    @property
    def overlap(self) -> float:
        """Return the area that the two distributions have in common: 0 apart, 1 alike."""
        # Bins so fine hold chance; a hundred between the ends show the shape.
        _, positives, negatives = self.coarsen(100)
        return float(np.minimum(positives / positives.sum(), negatives / negatives.sum()).sum())

    @property
    def separation(self) -> float:
        """Return the chance that a positive is nearer than a negative, ties half: the AUC."""
        below = np.cumsum(self.positives) - self.positives / 2
        return float(below @ self.negatives / self.positives.sum() / self.negatives.sum())

    def coarsen(self, n_bins: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return edges, positives and negatives in fewer bins, over the distances there are."""
        used = np.flatnonzero(self.positives + self.negatives)
        first, last = used[0], used[-1] + 1
        width = max(-(-(last - first) // n_bins), 1)
        starts = np.arange(first, last, width)
        edges = self.edges[np.minimum([*starts, starts[-1] + width], _N_BINS)]
        positives, negatives = (
            np.add.reduceat(counts[:last], starts) for counts in (self.positives, self.negatives)
        )
        return edges, positives, negatives


def _count(bins: np.ndarray) -> np.ndarray:
    return np.bincount(bins.ravel(), minlength=_N_BINS + 1)


CONFUSION_FORM = OutputForm(
    "a confusion matrix whose first line starts with true,", headings=("true,",)
)


@dataclass(frozen=True)
class _Measured:
    """A mean over queries, 0 to 1, and its 95% interval: Wilson's for shares of queries, else
    `image_interval` with each query an image of its own."""

    value: float
    interval: Interval | NoInterval


@dataclass(frozen=True)
class _ClassVariances:
    """How far embeddings lie from their class, and classes from each other; their sum is the whole.

    Attributes:
        within: mean squared L2 distance of embeddings to the mean of their class.
        between: of these means to the mean of all embeddings, each weighing as its class is large.
    """

    within: float
    between: float

    @classmethod
    def of(cls, embeddings: np.ndarray, labels: np.ndarray) -> _ClassVariances:
        """Measure how embeddings spread (Fisher. The use of multiple measurements in taxonomic
        problems. Annals of Eugenics 7, 1936)."""
        _, of_class, sizes = np.unique(labels, return_inverse=True, return_counts=True)
        embeddings = np.asarray(embeddings, dtype=np.float64)
        centers = _class_means(embeddings, of_class, sizes)
        within = ((embeddings - centers[of_class]) ** 2).sum(axis=1).mean()
        from_middle = ((centers - embeddings.mean(axis=0)) ** 2).sum(axis=1)
        return cls(float(within), float(np.average(from_middle, weights=sizes)))

    @property
    def within_share(self) -> float:
        """What classes leave unexplained, 0 to 1; NaN where all embeddings are alike."""
        total = self.within + self.between
        return self.within / total if total else float("nan")


@dataclass(frozen=True)
class Confusion:
    """How often each label was taken for another, the true label in the row."""

    labels: list[str]
    counts: np.ndarray

    @property
    def accuracy(self) -> float:
        return float(np.trace(self.counts) / self.counts.sum())

    def worst(self) -> tuple[str, str, int]:
        """Return the commonest mix-up: the true label, the label said, and how often."""
        wrong = self.counts - np.diag(np.diag(self.counts))
        row, column = np.unravel_index(wrong.argmax(), wrong.shape)
        return self.labels[row], self.labels[column], int(wrong[row, column])

    def write(self, destination: Destination) -> None:
        labels = [guard_formula(label) for label in self.labels]
        table = pd.DataFrame(self.counts, labels, labels)
        with open_output(destination) as file:
            table.to_csv(file, index_label="true", lineterminator="\n")


_MEASURES = {
    "nearest_center": "nearest class center",
    "nearest_neighbors": "vote of {k} nearest",
    "precision_at_1": "precision at 1",
    "precision_at_10": "precision at 10",
    "mean_average_precision": "mean average precision",
}


@dataclass(frozen=True)
class _ClassificationScores:
    """What reference images say of queries.

    Attributes:
        n_unknown: queries left out, as their class is none of the reference's.
        k: neighbours that vote.
        commonest_class: accuracy of always saying the reference's commonest class.
        variance: of the queries' embeddings.
    """

    n_queries: int
    n_reference: int
    n_classes: int
    n_unknown: int
    k: int
    nearest_center: _Measured
    nearest_neighbors: _Measured
    precision_at_1: _Measured
    precision_at_10: _Measured
    mean_average_precision: _Measured
    commonest_class: float
    variance: _ClassVariances

    def measures(self) -> Iterator[tuple[str, _Measured]]:
        """Yield each measure with what a table calls it."""
        for name, title in _MEASURES.items():
            yield title.format(k=self.k), getattr(self, name)


@dataclass(frozen=True)
class LabelScores:
    """How validation images are classified by those of training, and variances of the latter."""

    trained: _ClassificationScores
    frozen: _ClassificationScores
    training_variance: _ClassVariances

    @classmethod
    def of(
        cls, data: TrainingSet, embeddings: np.ndarray, features: np.ndarray, distance: str
    ) -> LabelScores | None:
        """Classify the labelled validation images by those of training; None with fewer than two
        classes in training, or none of them in validation."""
        if data.labels is None:
            return None
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
            )[0]
            for vectors, measure in (
                (embeddings, distance),
                (features, defaults.FROZEN_DISTANCE),
            )
        )
        variance = _ClassVariances.of(embeddings[trained_on], labels[trained_on])
        return cls(trained, frozen, variance)

    def _sections(self, frozen: str) -> list[Section]:
        """Return what there is to see; `frozen` is what the features of the backbone are called."""
        trained = self.trained
        rows = [["classes", "trained", "95% interval", frozen]]
        for (title, found), (_, before) in zip(
            trained.measures(), self.frozen.measures(), strict=True
        ):
            rows.append([title, f"{found.value:.4f}", str(found.interval), f"{before.value:.4f}"])
        variances = [["variance of embeddings", "within classes", "between", "within share"]]
        for where, each in (("training", self.training_variance), ("validation", trained.variance)):
            share = f"{each.within_share:.1%}"
            variances.append([where, f"{each.within:.4f}", f"{each.between:.4f}", share])
        return [
            [
                Table(rows, right=[1, 3]),
                f"Of {trained.n_queries:,} validation images of {trained.n_classes:,} classes, by "
                f"{trained.n_reference:,} training images.",
            ],
            [Table(variances, right=[1, 2, 3])],
        ]


@dataclass(frozen=True, repr=False)
class Classification(Result):
    """How well held-out images are classified, by one or two kinds of vectors of images.

    Attributes:
        scores: by the name of the vectors, such as `"frozen features"`; the first one counts.
        distances: by which each of them is compared.
        confusion: of the first of them.
    """

    scores: dict[str, _ClassificationScores]
    distances: dict[str, str]
    confusion: Confusion

    def to_dict(self) -> dict[str, Any]:
        by_space = {
            name.replace(" ", "_"): {"distance": self.distances[name]} | plain_values(score)
            for name, score in self.scores.items()
        }
        counts = self.confusion.counts.tolist()
        return by_space | {"classes": self.confusion.labels, "confusion": counts}

    def to_frame(self) -> pd.DataFrame:
        return pd.DataFrame(
            {
                name: {measure: getattr(score, measure).value for measure in _MEASURES}
                for name, score in self.scores.items()
            }
        )

    def _summary(self) -> str:
        by = ", ".join(
            f"{name} {score.nearest_neighbors.value:.4f}" for name, score in self.scores.items()
        )
        first = next(iter(self.scores.values()))
        return f"{first.n_queries:,} held-out images, share classified rightly: {by}"

    def _sections(self) -> list[Section]:
        first = next(iter(self.scores.values()))
        lines: list[str | Table] = [
            f"{first.n_queries:,} held-out images of {first.n_classes:,} classes, classified by "
            f"{first.n_reference:,} others. Always saying the commonest class: "
            f"{first.commonest_class:.4f} right."
        ]
        if first.n_unknown:
            lines.append(f"Held-out images of classes that no other has: {first.n_unknown:,}.")
        heading = [""]
        for name in self.scores:
            heading += [f"{name}, {self.distances[name]}", "95% interval"]
        rows = [heading]
        for of_measure in zip(*(score.measures() for score in self.scores.values()), strict=True):
            row = [of_measure[0][0]]
            for _, found in of_measure:
                row += [f"{found.value:.4f}", str(found.interval)]
            rows.append(row)
        for title, attribute, form in (
            ("variance within classes", "within", ".4f"),
            ("variance between classes", "between", ".4f"),
            ("share within classes", "within_share", ".1%"),
        ):
            row = [title]
            for score in self.scores.values():
                row += [format(getattr(score.variance, attribute), form), ""]
            rows.append(row)
        return [lines, [Table(rows, right=range(1, len(heading), 2))]]


def classify_embeddings(
    reference_embeddings: np.ndarray,
    reference_labels: np.ndarray,
    query_embeddings: np.ndarray,
    query_labels: np.ndarray,
    distance: str,
    k: int = defaults.NEIGHBORS,
) -> tuple[_ClassificationScores, np.ndarray]:
    """Let the reference say the class of each query; return scores, and the confusion by the vote.

    Memory beside the embeddings is some hundred megabytes, whatever their number. Of equally near
    images the lower row comes first. For the cosine, class centers are means of embeddings of
    length 1, and so are variances. Labels are integers from 0.
    """
    classes, of_class, sizes = np.unique(reference_labels, return_inverse=True, return_counts=True)
    if len(classes) < 2:
        raise LabelFileError(
            "expected labelled images of at least two classes that are not held out, got "
            f"{len(reference_labels):,} of {len(classes)}. Hold fewer out."
        )
    is_known = np.isin(query_labels, classes)
    if not is_known.any():
        raise LabelFileError(
            f"expected held-out images of the {len(classes)} classes that other images have, "
            f"got none among {len(query_labels):,}"
        )
    queries, truth = query_embeddings[is_known], query_labels[is_known]
    distances = PairwiseDistances(np.concatenate([reference_embeddings, queries]), distance)
    reference, queries = np.split(distances.vectors, [len(reference_labels)])
    # `sklearn.neighbors.NearestCentroid` knows neither the cosine nor means under L1.
    centers = _class_means(reference, of_class, sizes).astype(np.float32)
    if distance == "cosine":
        lengths = np.sqrt(_squares(centers))
        centers /= np.where(lengths > 0, lengths, 1)[:, None]
    to_centers = _measure_between(queries, centers, distance)
    nearest, average_precision = _rank(distances, reference_labels, truth, max(k, 10))
    is_hit = nearest == truth[:, None]
    n_labels = int(max(reference_labels.max(), truth.max())) + 1
    predicted = vote(nearest[:, :k])
    scores = _ClassificationScores(
        n_queries=len(truth),
        n_reference=len(reference_labels),
        n_classes=len(classes),
        n_unknown=int((~is_known).sum()),
        k=k,
        nearest_center=_measure_share(classes[to_centers.argmin(axis=1)] == truth),
        nearest_neighbors=_measure_share(predicted == truth),
        precision_at_1=_measure_share(is_hit[:, 0]),
        precision_at_10=_measure_mean(is_hit[:, :10].mean(axis=1)),
        mean_average_precision=_measure_mean(average_precision),
        commonest_class=float((truth == np.bincount(reference_labels).argmax()).mean()),
        variance=_ClassVariances.of(queries, truth),
    )
    return scores, count_confusions(truth, predicted, n_labels)


def vote(labels: np.ndarray, is_there: np.ndarray | None = None) -> np.ndarray:
    """Return the label that most of each query's neighbours have; of equals that of the nearest
    image. Labels, `(n_queries, k)` integers from 0, are of the nearest first."""
    n_queries, k = labels.shape
    is_there = np.ones(labels.shape, dtype=bool) if is_there is None else is_there
    query, rank = np.nonzero(is_there)
    voted = labels[is_there]
    n_labels = int(voted.max(initial=0)) + 1
    votes = np.zeros((n_queries, n_labels))
    np.add.at(votes, (query, voted), 1)
    first = np.full((n_queries, n_labels), k)
    np.minimum.at(first, (query, voted), rank)
    # A share of a vote that falls with the rank decides between equals and nothing else.
    return np.argmax(votes - first / (k + 1), axis=1)


def _average_precision(own: np.ndarray, ascending: np.ndarray) -> float:
    """Return the average precision of one query, by distances to its class and, sorted, to all.
    That of `sklearn.metrics.average_precision_score`, ties included, in a tenth of the time."""
    own = np.sort(own)
    n_own_within = np.searchsorted(own, own, side="right")
    n_within = np.searchsorted(ascending, own, side="right")
    return float((n_own_within / n_within).mean())


def count_confusions(labels: np.ndarray, predicted: np.ndarray, n_labels: int) -> np.ndarray:
    """Return `(n_labels, n_labels)` int64: how often a label (row) was taken for another."""
    # As `sklearn.metrics.confusion_matrix` does, which takes a second to import.
    counts = np.zeros((n_labels, n_labels), np.int64)
    np.add.at(counts, (labels, predicted), 1)
    return counts


def _class_means(embeddings: np.ndarray, of_class: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    sums = np.zeros((len(sizes), embeddings.shape[1]))
    np.add.at(sums, of_class, embeddings)
    return sums / sizes[:, None]


def _rank(
    distances: PairwiseDistances, labels: np.ndarray, truth: np.ndarray, k: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the labels of the k nearest, `(n_queries, k)`, and average precision of each query.
    Among the rows of the distances the reference, of these labels, comes before the queries."""
    n_reference, k = len(labels), min(k, len(labels))
    nearest = np.empty((len(truth), k), dtype=labels.dtype)
    precision = np.empty(len(truth))
    n_rows = max(1, _BLOCK_PAIRS // n_reference)
    for start in range(n_reference, len(distances), n_rows):
        block = distances.measure(slice(start, start + n_rows), slice(n_reference))
        for query, away in enumerate(block, start - n_reference):
            ascending = np.sort(away)
            near = np.flatnonzero(away <= ascending[k - 1])
            nearest[query] = labels[near[np.argsort(away[near], kind="stable")[:k]]]
            precision[query] = _average_precision(away[labels == truth[query]], ascending)
    return nearest, precision


def _measure_share(is_right: np.ndarray) -> _Measured:
    return _Measured(float(is_right.mean()), wilson_interval(int(is_right.sum()), len(is_right)))


def _measure_mean(values: np.ndarray) -> _Measured:
    each_its_own = np.arange(len(values))[:, None]
    return _Measured(float(values.mean()), image_interval(values, each_its_own))

"""The distances within classes and between them: their distribution, in bounded memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from tripletkit.errors import ClassesError
from tripletkit.evaluation.pairwise import PairwiseDistances
from tripletkit.progress import Progress

# Bins of a distribution: a cosine distance is counted to 3e-5, and the counts stay in the
# processor's cache.
N_BINS = 1 << 16


class ClassDistances:
    """Distances between labelled images, which stand in the order of their classes.

    So the distances of a block of images to those of a class are a rectangle.

    Attributes:
        order: `(n,)` the image at each place, as an index into the embeddings given.
        n_classes: how many there are.
        distances: between places.
    """

    def __init__(self, embeddings: np.ndarray, labels: np.ndarray, distance: str) -> None:
        """Sort embeddings by class.

        Args:
            embeddings: `(n, n_dims)` float32, finite; no two rows of the same image.
            labels: `(n,)` integer classes.
            distance: a name that `PairwiseDistances` takes.
        Raises:
            ClassesError: if there are no two classes, or no class has two images.
        """
        self.order = np.argsort(labels, kind="stable")
        _, self._starts, sizes = np.unique(
            labels[self.order], return_index=True, return_counts=True
        )
        if len(sizes) < 2 or sizes.max() < 2:
            raise ClassesError(
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
    """How many pairs of one class (positive) and of two (negative) are how far apart.

    Every pair counts once.

    Attributes:
        edges: `(N_BINS + 1,)` float64 of the bins, from 0 on.
        positives, negatives: `(N_BINS,)` int64 pairs in each bin.
    """

    edges: np.ndarray
    positives: np.ndarray
    negatives: np.ndarray

    def quantile(self, counts: np.ndarray, share: float) -> float:
        """Return the distance below which a share of the pairs is, to within a bin.

        Args:
            counts: `positives` or `negatives`.
            share: above 0, at most 1.
        """
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
        edges = self.edges[np.minimum([*starts, starts[-1] + width], N_BINS)]
        positives, negatives = (
            np.add.reduceat(counts[:last], starts) for counts in (self.positives, self.negatives)
        )
        return edges, positives, negatives


def measure_distribution(
    images: ClassDistances, progress: Progress | None = None
) -> DistanceDistribution:
    """Count the distances of all pairs in one pass over half of them.

    Args:
        images: whose distances.
        progress: told (done, total) in images.
    """
    # A place past the last bin is for what is no pair, or was counted already.
    everything = np.zeros(N_BINS + 1, dtype=np.int64)
    positives = np.zeros(N_BINS + 1, dtype=np.int64)
    limit = images.distances.limit or 1.0
    for block in images.distances.blocks():
        measured = images.distances.measure(block, slice(block.start, None))
        measured *= N_BINS / limit
        bins = measured.astype(np.int32)
        np.minimum(bins, N_BINS - 1, out=bins)
        below = np.tri(len(bins), dtype=bool)
        bins[:, : len(bins)][below] = N_BINS
        everything += _count(bins)
        for part, whole in images.classes_in(block):
            rows = slice(part.start - block.start, part.stop - block.start)
            columns = slice(rows.start, whole.stop - block.start)
            positives += _count(bins[rows, columns])
        if progress is not None:
            progress(block.stop, len(images))
    edges = np.linspace(0, limit, N_BINS + 1)
    return DistanceDistribution(edges, positives[:-1], (everything - positives)[:-1])


def _count(bins: np.ndarray) -> np.ndarray:
    return np.bincount(bins.ravel(), minlength=N_BINS + 1)

"""Batches of images, drawn in numpy: by triplets, by images, or by classes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from tripletkit.data.labels import NO_LABEL


@dataclass(frozen=True)
class Batch:
    """Images that are encoded together.

    Attributes:
        images: `(n,)` int32, each image once.
        labels: `(n,)` int32, their classes; `NO_LABEL` without.
        triplets: `(n_triplets, 3)` int32 places in `images`; none where they are mined online.
    """

    images: np.ndarray
    labels: np.ndarray
    triplets: np.ndarray


class Batches(Protocol):
    """What an epoch is made of."""

    def epoch(self, rng: np.random.Generator) -> Iterator[Batch]:
        """Yield the batches of one epoch, in an order of chance."""


class TripletBatches:
    """Triplets as they were given, each once an epoch.

    Args:
        rows: `(n_triplets, 3)` indices of images.
        labels: `(n_images,)` int32 of all images.
        batch_size: triplets in a batch; the last may have fewer.
    """

    def __init__(self, rows: np.ndarray, labels: np.ndarray, batch_size: int) -> None:
        self._rows = rows
        self._labels = labels
        self._batch_size = batch_size

    def epoch(self, rng: np.random.Generator) -> Iterator[Batch]:
        rows = rng.permutation(self._rows)
        for start in range(0, len(rows), self._batch_size):
            part = rows[start : start + self._batch_size]
            images, places = np.unique(part, return_inverse=True)
            triplets = places.reshape(-1, 3).astype(np.int32)
            yield Batch(images.astype(np.int32), self._labels[images], triplets)


class ImageBatches:
    """Images, each once an epoch, for losses that look at no triplet.

    Args:
        images: `(n_images,)` indices.
        labels: `(n_images,)` int32 of all images.
        batch_size: images in a batch; the last may have fewer.
    """

    def __init__(self, images: np.ndarray, labels: np.ndarray, batch_size: int) -> None:
        self._images = images
        self._labels = labels
        self._batch_size = batch_size

    def epoch(self, rng: np.random.Generator) -> Iterator[Batch]:
        images = rng.permutation(self._images).astype(np.int32)
        for start in range(0, len(images), self._batch_size):
            yield _without_triplets(images[start : start + self._batch_size], self._labels)


class ClassBatches:
    """P classes with K images each, for mining within the batch.

    An epoch has as many batches as it takes to show so many images as there are. The classes
    of a batch are distinct and take turns; so do the images of a class, none twice in a batch.
    A class of fewer than K images gives all it has. Classes of one image are left out: they
    have no positive.

    Args:
        images: `(n_images,)` indices; those without a label are left out.
        labels: `(n_images,)` int32 of all images.
        n_classes: P; fewer where there are fewer.
        n_images: K.
    Reference:
        Hermans, Beyer, Leibe. In Defense of the Triplet Loss. 2017. arXiv:1703.07737: PK batches.
    """

    def __init__(
        self, images: np.ndarray, labels: np.ndarray, n_classes: int, n_images: int
    ) -> None:
        self._labels = labels
        of_class = [images[labels[images] == label] for label in np.unique(labels[images])]
        self._members = [
            members for members in of_class if len(members) > 1 and labels[members[0]] != NO_LABEL
        ]
        self._n_classes = min(n_classes, len(self._members))
        self._n_images = n_images
        self.positives: np.ndarray | None = None

    def inject(self, positives: np.ndarray) -> None:
        """Add to every batch the hardest known positive of each of its images.

        Args:
            positives: `(n_images,)` index of an image of the same class; below 0 for none. The
                image brings its own class along, so it is nobody's false negative.
        """
        self.positives = positives

    def epoch(self, rng: np.random.Generator) -> Iterator[Batch]:
        total = sum(len(members) for members in self._members)
        classes = _turns(np.arange(len(self._members)), rng)
        turns = [_turns(members, rng) for members in self._members]
        shown = 0
        while shown < total:
            drawn = [next(classes)]
            while len(drawn) < self._n_classes:
                if (following := next(classes)) not in drawn:
                    drawn.append(following)
            images = np.concatenate([self._draw(turns[which], which) for which in drawn])
            shown += len(images)
            if self.positives is not None:
                added = self.positives[images]
                added = np.setdiff1d(added[added >= 0], images)
                images = np.concatenate([images, added])
            yield _without_triplets(images.astype(np.int32), self._labels)

    def _draw(self, turns: Iterator[int], which: int) -> np.ndarray:
        wanted = min(self._n_images, len(self._members[which]))
        drawn: dict[int, None] = {}
        while len(drawn) < wanted:
            drawn[next(turns)] = None
        return np.array(list(drawn))


def _turns(values: np.ndarray, rng: np.random.Generator) -> Iterator[int]:
    """Yield all values in an order of chance, then in another, without end."""
    while True:
        yield from rng.permutation(values).tolist()


def _without_triplets(images: np.ndarray, labels: np.ndarray) -> Batch:
    return Batch(images, labels[images], np.empty((0, 3), dtype=np.int32))

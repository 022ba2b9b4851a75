"""How far the images of a test lie from those of training."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Nearness:
    """Mean distances (1 - cosine of centered features) from an image to the nearest training one.

    Attributes:
        of_training: from a training image to the nearest other one.
        of_unseen_classes: from an image of a held-out kind to the nearest one of the other classes.
        of_test: from a test image.
        n_test: test images.
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

    def to_json(self) -> dict[str, Any]:
        """Return all of it as JSON takes it."""
        return asdict(self) | {"novelty": self.novelty}


def measure_nearness(training: np.ndarray, is_held_out: np.ndarray, test: np.ndarray) -> Nearness:
    """Compare test images with training images by their frozen features.

    What all training images have in common is taken away first: it makes all distances small,
    and the difference between known and unseen classes a third as large as it can be.

    Args:
        training: `(n_images, n_features)` float32 of the training images, rows of length 1.
        is_held_out: `(n_images,)` bool, those of them that are of held-out classes.
        test: `(n_test, n_features)` float32, rows of length 1.
    """
    from sklearn.neighbors import NearestNeighbors

    mean = training.mean(axis=0)
    training, test = training - mean, test - mean

    def mean_distance(to: np.ndarray, of: np.ndarray | None) -> float:
        index = NearestNeighbors(n_neighbors=1, metric="cosine", algorithm="brute").fit(to)
        # Without images of its own, each one's neighbour is another than itself.
        return float(index.kneighbors(of)[0].mean())

    return Nearness(
        of_training=mean_distance(training, None),
        of_unseen_classes=mean_distance(training[~is_held_out], training[is_held_out]),
        of_test=mean_distance(training, test),
        n_test=len(test),
    )

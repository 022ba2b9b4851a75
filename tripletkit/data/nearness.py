"""How far the pictures of a test lie from those of training."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Nearness:
    """Mean distances (1 - cosine of centered features) from a picture to the nearest training one.

    Attributes:
        of_training: from a training picture to the nearest other one.
        of_new_kinds: from a picture of a held-out kind to the nearest one of the other kinds.
        of_test: from a test picture.
        n_test: test pictures.
    """

    of_training: float
    of_new_kinds: float
    of_test: float
    n_test: int

    @property
    def newness(self) -> float:
        """Where the test lies between new pictures of known kinds (0) and new kinds (1)."""
        if self.of_new_kinds <= self.of_training:
            return 0.5
        share = (self.of_test - self.of_training) / (self.of_new_kinds - self.of_training)
        return float(np.clip(share, 0.0, 1.0))

    def to_json(self) -> dict[str, Any]:
        """Return all of it as JSON takes it."""
        return asdict(self) | {"newness": self.newness}


def measure_nearness(training: np.ndarray, is_held_out: np.ndarray, test: np.ndarray) -> Nearness:
    """Compare test pictures with training pictures by their frozen features.

    What all training pictures have in common is taken away first: it makes all distances small,
    and the difference between known and new kinds a third as large as it can be.

    Args:
        training: `(n_images, n_features)` float32 of the training pictures, rows of length 1.
        is_held_out: `(n_images,)` bool, those of them that are of held-out kinds.
        test: `(n_test, n_features)` float32, rows of length 1.
    """
    from sklearn.neighbors import NearestNeighbors

    mean = training.mean(axis=0)
    training, test = training - mean, test - mean

    def mean_distance(to: np.ndarray, of: np.ndarray | None) -> float:
        index = NearestNeighbors(n_neighbors=1, metric="cosine", algorithm="brute").fit(to)
        # Without pictures of its own, each one's neighbour is another than itself.
        return float(index.kneighbors(of)[0].mean())

    return Nearness(
        of_training=mean_distance(training, None),
        of_new_kinds=mean_distance(training[~is_held_out], training[is_held_out]),
        of_test=mean_distance(training, test),
        n_test=len(test),
    )

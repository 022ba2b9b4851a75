"""A model as it is looked at: its record, its epochs, and its answers to some triplets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from tripletkit.data.triplets import Triplets
from tripletkit.errors import AnswerFileError
from tripletkit.evaluation.answers import Truth
from tripletkit.evaluation.distances import FROZEN_DISTANCE, pair_distances
from tripletkit.evaluation.scoring import Score
from tripletkit.evaluation.validation import score_embeddings
from tripletkit.model.model_folder import HISTORY_FILE, ModelFolder


@dataclass(frozen=True)
class ModelView:
    """A model, and what it says of triplets whose answers are known.

    Attributes:
        model: the model.
        triplets: anchor, positive, negative.
        is_training: they are the ones that the model learnt from.
        paths: of the images in `triplets.names`; None where there is none.
        features: `(n_images, n_features)` float32 of them, NaN where there are none.
        embeddings: `(n_images, dim)` float32 of them.
        labels: name of an image -> label; empty without labels.
    """

    model: ModelFolder
    triplets: Triplets
    is_training: bool
    paths: Sequence[Path | None]
    features: np.ndarray
    embeddings: np.ndarray
    labels: dict[str, str]

    @cached_property
    def to_positive(self) -> np.ndarray:
        """`(n_triplets,)` float64 distance from anchor to positive; NaN where not known."""
        return self._distances(1)

    @cached_property
    def to_negative(self) -> np.ndarray:
        """`(n_triplets,)` float64 distance from anchor to negative; NaN where not known."""
        return self._distances(2)

    @cached_property
    def margins(self) -> np.ndarray:
        """`(n_triplets,)` float32, positive where the answer is right."""
        return (self.to_negative - self.to_positive).astype(np.float32)

    @cached_property
    def known(self) -> np.ndarray:
        """`(n_triplets,)` bool: all three images could be read."""
        return np.isfinite(self.margins)

    @cached_property
    def score(self) -> Score:
        """The score of the embeddings."""
        return score_embeddings(self.embeddings, self.triplets, self.model.distance)

    @cached_property
    def frozen_score(self) -> Score:
        """The score of the frozen features, as if nothing had been trained."""
        return score_embeddings(self.features, self.triplets, FROZEN_DISTANCE)

    @cached_property
    def shown(self) -> np.ndarray:
        """Indices of the images that are named in a triplet and could be read."""
        used = np.unique(self.triplets.rows)
        return used[np.isfinite(self.embeddings[used, 0])]

    @cached_property
    def labelled(self) -> np.ndarray:
        """Indices of those of `shown` that have a label."""
        return np.array([i for i in self.shown if self.label_of(i) is not None], dtype=np.int64)

    def label_of(self, image: int) -> str | None:
        """Return the label of an image, if it has one."""
        return self.labels.get(self.triplets.names[image])

    def _distances(self, slot: int) -> np.ndarray:
        rows = self.triplets.rows
        return pair_distances(
            self.embeddings[rows[:, 0]], self.embeddings[rows[:, slot]], self.model.distance
        )


def read_history(model: ModelFolder) -> pd.DataFrame:
    """Return the epochs of a model's training, as `history.csv` has them."""
    return pd.read_csv(model.path / HISTORY_FILE)


def turn_to_truth(triplets: Triplets, truth: Truth) -> Triplets:
    """Return triplets as anchor, positive, negative.

    Args:
        triplets: questions whose second and third image stand in chance order.
        truth: their answers.
    Raises:
        AnswerFileError: if the numbers differ.
    """
    if len(truth) != len(triplets):
        raise AnswerFileError(
            f"{truth.source}: expected {len(triplets):,} truths, one for each triplet of "
            f"{triplets.source}, got {len(truth):,}"
        )
    rows = np.where(truth.labels[:, None] == 1, triplets.rows, triplets.rows[:, [0, 2, 1]])
    return Triplets(triplets.names, rows, triplets.lines, triplets.source)

"""Classes of held-out images by their embeddings, for `tripletkit classify`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from tripletkit.evaluation.classification import (
    ClassificationScores,
    Confusion,
    classify_embeddings,
)
from tripletkit.evaluation.distances import FROZEN_DISTANCE
from tripletkit.features.image_features import Collection
from tripletkit.features.labelled_images import LabelledImages
from tripletkit.search.models import Encoder

TRAINED, FROZEN = "trained embeddings", "frozen features"


@dataclass(frozen=True)
class Classified:
    """How well classes are told, by the embeddings of a model and by its frozen features.

    Attributes:
        scores, distances: by `TRAINED`, where there is a model, and by `FROZEN`.
        confusion: of the first of them.
    """

    scores: dict[str, ClassificationScores]
    distances: dict[str, str]
    confusion: Confusion

    def to_dict(self) -> dict[str, Any]:
        """Return all of it as plain JSON values."""
        by_space = {
            name.replace(" ", "_"): {"distance": self.distances[name]} | score.to_dict()
            for name, score in self.scores.items()
        }
        counts = self.confusion.counts.tolist()
        return by_space | {"classes": self.confusion.labels, "confusion": counts}


def classify_held_out(
    found: LabelledImages, is_query: np.ndarray, collection: Collection, encoder: Encoder, k: int
) -> Classified:
    """Say the classes of held-out images by those of all others.

    Args:
        found: the images.
        is_query: `(n_names,)` bool, which are held out.
        collection: their features.
        encoder: that the features are of.
        k: neighbours that vote.
    """
    labelled = found.images[collection.is_usable()[found.images]]
    queries, reference = labelled[is_query[labelled]], labelled[~is_query[labelled]]
    spaces = {FROZEN: (collection.features, FROZEN_DISTANCE)}
    if encoder.model is not None:
        spaces = {TRAINED: (encoder.encode(collection.features), encoder.distance)} | spaces
    of_image = found.labels.of_image
    scores = {
        name: classify_embeddings(
            embeddings[reference], of_image[reference], embeddings[queries], of_image[queries],
            distance, k,
        )
        for name, (embeddings, distance) in spaces.items()
    }  # fmt: skip
    distances = {name: distance for name, (_, distance) in spaces.items()}
    first = next(iter(scores.values()))
    return Classified(scores, distances, Confusion(found.labels.classes, first.confusion))

"""Classes of held-out images by their embeddings, for `tripletkit classify`."""

from __future__ import annotations

import numpy as np

from tripletkit.evaluation.classification import (
    Classification,
    Confusion,
    classify_embeddings,
)
from tripletkit.evaluation.distances import FROZEN_DISTANCE
from tripletkit.features.image_features import Collection
from tripletkit.features.labelled_images import LabelledImages
from tripletkit.search.models import Encoder

TRAINED, FROZEN = "trained embeddings", "frozen features"


def classify_held_out(
    found: LabelledImages, is_query: np.ndarray, collection: Collection, encoder: Encoder, k: int
) -> Classification:
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
    return Classification(scores, distances, Confusion(found.labels.classes, first.confusion))

"""Classes of held-out images by their embeddings, for `tripletkit classify`."""

from __future__ import annotations

import numpy as np

from tripletkit.defaults import FROZEN_DISTANCE
from tripletkit.evaluation.classification import (
    Classification,
    Confusion,
    classify_embeddings,
)
from tripletkit.features.encoder import Encoder
from tripletkit.features.labelled_images import LabelledImages

TRAINED, FROZEN = "trained embeddings", "frozen features"


def classify_held_out(
    found: LabelledImages, is_query: np.ndarray, features: np.ndarray, encoder: Encoder, k: int
) -> Classification:
    """Say the classes of held-out images by those of all others.

    Args:
        found: the images.
        is_query: `(n_names,)` bool, which are held out.
        features: of all names, `(n_names, n_features)`; a row of NaN where there are none.
        encoder: that the features are of.
        k: neighbours that vote.
    """
    labelled = found.images[np.isfinite(features[found.images, 0])]
    queries, reference = labelled[is_query[labelled]], labelled[~is_query[labelled]]
    spaces = {FROZEN: (features, FROZEN_DISTANCE)}
    if encoder.head is not None:
        spaces = {TRAINED: (encoder.embed(features), encoder.distance)} | spaces
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

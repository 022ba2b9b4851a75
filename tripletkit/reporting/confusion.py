"""Which labels a model mixes up."""

from __future__ import annotations

import numpy as np
import pandas as pd

from tripletkit.evaluation.classification import Confusion, count_confusions
from tripletkit.reporting.model_view import ModelView
from tripletkit.search.label_votes import vote_labels


def confuse_labels(view: ModelView) -> Confusion | None:
    """Let each labelled image's neighbours say its label; None for fewer than two of them."""
    images = view.labelled
    if len(images) < 2:
        return None
    numbers, names = pd.factorize(
        np.array([view.label_of(image) for image in images], dtype=object), sort=True
    )
    predicted = vote_labels(view.embeddings[images], numbers, view.model.distance)
    return Confusion(list(names), count_confusions(numbers, predicted, len(names)))

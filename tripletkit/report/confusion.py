"""Which labels a model mixes up."""

from __future__ import annotations

import numpy as np
import pandas as pd

from tripletkit.evaluation.classification import Confusion, count_confusions
from tripletkit.report.views import ModelView
from tripletkit.search.label_votes import vote_labels


def confuse_labels(view: ModelView) -> Confusion | None:
    """Let each labelled picture's neighbours say its label; None for fewer than two of them."""
    pictures = view.labelled
    if len(pictures) < 2:
        return None
    codes, names = pd.factorize(
        np.array([view.label_of(picture) for picture in pictures], dtype=object), sort=True
    )
    predicted = vote_labels(view.codes[pictures], codes, view.model.distance)
    return Confusion(list(names), count_confusions(codes, predicted, len(names)))

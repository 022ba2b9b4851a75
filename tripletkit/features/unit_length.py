"""Vectors of length 1, whose squared L2 distance goes with their cosine."""

from __future__ import annotations

import numpy as np


def scale_to_unit_length(features: np.ndarray) -> np.ndarray:
    """Return rows of length 1: `(n_images, n_features)` float32; rows of zeros stay."""
    lengths = np.linalg.norm(features, axis=1, keepdims=True)
    return features / np.where(lengths > 0, lengths, 1.0)

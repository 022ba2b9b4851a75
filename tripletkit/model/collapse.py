"""Collapse: all codes alike, so that no question has an answer."""

from __future__ import annotations

import numpy as np

from tripletkit import defaults
from tripletkit.errors import CollapseError


def mean_pairwise_distance(codes: np.ndarray) -> float:
    """Return the root mean square Euclidean distance between two of the codes.

    Args:
        codes: `(n_images, n_dims)`.
    Returns:
        0 where all are alike; about 1.41 where unit codes point everywhere.
    Example:
        >>> mean_pairwise_distance(np.array([[0.0], [2.0]]))   # pairs 00, 01, 10, 11: 0 4 4 0
        1.4142135623730951
    """
    return float(np.sqrt(2.0 * codes.astype(np.float64).var(axis=0).sum()))


def check_collapse(codes: np.ndarray, loss: float, margin: float, learning_rate: float) -> None:
    """Refuse codes that can answer nothing.

    Args:
        codes: `(n_images, n_dims)` of the training pictures.
        loss: the epoch's mean loss, for the message; at a collapse it equals the margin.
        margin: the loss's margin, in units of the distance.
        learning_rate: for the advice.
    Raises:
        CollapseError: if the codes are alike, or not numbers.
    """
    advice = (
        f"Try a lower learning rate (--learning-rate {learning_rate / 10:g}), another --seed, "
        "or fewer contradictions in the triplets (`tripletkit audit`)."
    )
    if not (np.isfinite(loss) and np.isfinite(codes).all()):
        raise CollapseError(f"training broke down: the loss is {loss}. {advice}")
    spread = mean_pairwise_distance(codes)
    if spread < defaults.COLLAPSE_SPREAD:
        raise CollapseError(
            f"training collapsed: all codes are alike (mean distance between two pictures "
            f"{spread:.2g}, expected about 1), so the loss is stuck at the margin "
            f"({loss:.4f}, margin {margin:g}) and every answer would be a tie. {advice}"
        )

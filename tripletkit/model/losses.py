"""Losses over the distances of a triplet."""

from __future__ import annotations

from keras import KerasTensor, ops


def triplet_margin_loss(
    to_positive: KerasTensor, to_negative: KerasTensor, margin: float
) -> KerasTensor:
    """Return how far each triplet is from having its negative `margin` further off.

    Args:
        to_positive, to_negative: `(n,)` distances from the anchor.
        margin: in units of the distance, > 0.
    Returns:
        `(n,)`, >= 0; 0 where the margin is met.
    Reference:
        Schroff, Kalenichenko, Philbin. FaceNet. CVPR 2015. arXiv:1503.03832, equation 2; there
        with squared distances.
    """
    return ops.maximum(to_positive - to_negative + margin, 0.0)

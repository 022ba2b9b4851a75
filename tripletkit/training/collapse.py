"""Collapse: all embeddings alike, so that no question has an answer."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tripletkit.errors import CollapseError
from tripletkit.losses.loss_registry import get_loss
from tripletkit.model.settings import HeadSettings

# Embeddings of length 1 whose mean distance is below this are alike; trained ones are near 1.
_COLLAPSE_SPREAD = 0.01
# Embeddings of an effective rank below this are on a line, which two classes can share, and hardly
# three. It is measured over at most so many images.
_COLLAPSE_RANK = 1.2
_RANK_IMAGES = 512


def mean_pairwise_distance(embeddings: np.ndarray) -> float:
    """Return the root mean square Euclidean distance between two of the embeddings.

    Args:
        embeddings: `(n_images, n_dims)`.
    Returns:
        0 where all are alike; about 1.41 where unit embeddings point everywhere.
    Example:
        >>> mean_pairwise_distance(np.array([[0.0], [2.0]]))   # pairs 00, 01, 10, 11: 0 4 4 0
        1.4142135623730951
    """
    return float(np.sqrt(2.0 * embeddings.astype(np.float64).var(axis=0).sum()))


def effective_rank(embeddings: np.ndarray) -> float:
    """Return in how many directions embeddings really spread.

    The exponential of the entropy of the shares that the principal directions have in the
    spread, taken over at most `_RANK_IMAGES` of the embeddings.

    Args:
        embeddings: `(n_images, n_dims)`.
    Returns:
        1 where all are on a line, up to the smaller of n_images - 1 and n_dims; 0 where all are
        alike.
    Reference:
        Roy, Vetterli. The effective rank. EUSIPCO 2007.
    Example:
        >>> round(effective_rank(np.array([[1.0, 0], [-1, 0], [0, 1], [0, -1]])), 6)
        2.0
    """
    embeddings = embeddings[:: -(-len(embeddings) // _RANK_IMAGES)].astype(np.float64)
    embeddings -= embeddings.mean(axis=0)
    # Squares of the singular values, from the smaller of the two matrices of inner products: an
    # SVD of wide embeddings took most of the time of training a head.
    is_wide = embeddings.shape[0] < embeddings.shape[1]
    products = embeddings @ embeddings.T if is_wide else embeddings.T @ embeddings
    squares = np.linalg.eigvalsh(products)
    # What rounding leaves of directions that are not there.
    squares[squares < 1e-12 * squares.max(initial=0)] = 0
    stretches = np.sqrt(squares)
    if not stretches.sum() > 0:
        return 0.0
    shares = stretches[stretches > 0] / stretches.sum()
    return float(np.exp(-np.sum(shares * np.log(shares))))


def check_collapse(
    embeddings: np.ndarray,
    loss: float,
    settings: HeadSettings,
    n_classes: int | None = None,
    *,
    find_cause: Callable[[], str | None] = lambda: None,
) -> tuple[float, float]:
    """Return spread and effective rank of embeddings, or refuse those that can answer nothing.

    Args:
        embeddings: `(n_images, n_dims)` of the training images.
        loss: the epoch's mean loss; at a collapse a triplet margin loss equals the margin.
        settings: for the message and the advice.
        n_classes: that the embeddings must tell apart, where that is known.
        find_cause: returns what the embeddings are made of that explains a collapse, if anything;
            asked after one only.
    Raises:
        CollapseError: if the embeddings are alike, or not numbers, or on a line where there are
            more classes than a line can keep apart.
    """
    advice = (
        f"Try a lower learning rate (`learning_rate={settings.learning_rate / 10:g}`), another "
        "`seed`, or fewer contradictions in the triplets (`tripletkit audit`)."
    )
    if settings.mining == "batch-hard":
        advice += " The hardest triplets collapse most easily: `mining=semi-hard` is gentler."
    if not (np.isfinite(loss) and np.isfinite(embeddings).all()):
        raise CollapseError(f"training broke down: the loss is {loss}. {advice}")
    spread, rank = mean_pairwise_distance(embeddings), effective_rank(embeddings)
    if spread < _COLLAPSE_SPREAD:
        at_margin = (
            f", so the loss is stuck at the margin ({loss:.4f}, margin {settings.margin:g})"
            if get_loss(settings.loss).has_margin
            else ""
        )
        cause = find_cause()
        raise CollapseError(
            f"training collapsed: all embeddings are alike (mean distance between two images "
            f"{spread:.2g}, expected about 1){at_margin} and every answer would be a tie. "
            f"{f'The cause: {cause}' if cause else advice}"
        )
    dim = embeddings.shape[1]
    if rank < _COLLAPSE_RANK and min(dim, (n_classes or 0) - 1) > 2:
        raise CollapseError(
            f"training collapsed: the embeddings of {n_classes} classes lie on a line (effective "
            f"rank {rank:.2f} of {dim} dimensions), which cannot keep them apart. {advice}"
        )
    return spread, rank

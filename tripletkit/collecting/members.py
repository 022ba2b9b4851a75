"""The members of an ensemble, from the embeddings of the whole."""

from __future__ import annotations

import numpy as np

from tripletkit.model.settings import HeadSettings


def split_members(
    embeddings: np.ndarray, settings: HeadSettings, n_features: int
) -> list[np.ndarray]:
    """Return the embeddings of each member of a model, for comparing them with one another.

    The members stand side by side in an embedding, behind the frozen features where these have a
    share, which then every member gets too.

    Args:
        embeddings: `(n_images, n_dims)` of the model.
        settings: of the model.
        n_features: width of the features.
    Returns:
        One array a member; the embeddings alone where they cannot be told apart.
    """
    n_frozen = n_features if settings.frozen_share else 0
    # Members of other widths, or compressed together, cannot be told apart.
    if settings.members < 2 or settings.mlp_members or settings.is_compressed:
        return [embeddings]
    width = (embeddings.shape[1] - n_frozen) // settings.members
    frozen = embeddings[:, :n_frozen]
    of_members = embeddings[:, n_frozen:]
    # Each member as long as all were, so that the frozen share weighs the same.
    return [
        np.hstack([frozen, of_members[:, start : start + width] * settings.members**0.5])
        for start in range(0, settings.members * width, width)
    ]

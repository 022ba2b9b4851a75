"""Embeddings of images from their features, by a head that Keras or NumPy runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from tripletkit.errors import RecipeError

if TYPE_CHECKING:
    import keras

    from tripletkit.model.head_layers import NumpyHead
    from tripletkit.model.settings import HeadSettings

# Images in a batch of the head when embeddings are computed.
EMBED_BATCH_SIZE = 1024


def embed(head: keras.Model | NumpyHead, features: np.ndarray) -> np.ndarray:
    """Return the embeddings of images.

    Batches have one shape, the last filled up with zeros, so that an image's embedding does not
    depend on which others are asked for.

    Args:
        head: maps `(batch, n_features)` to `(batch, n_dims)`.
        features: `(n_images, n_features)` float32; a row of NaN gives one.
    Returns:
        `(n_images, n_dims)` float32.
    """
    size = EMBED_BATCH_SIZE
    embeddings = np.empty((len(features), head.output_shape[-1]), dtype=np.float32)
    batch = np.zeros((size, features.shape[1]), dtype=np.float32)
    for start in range(0, len(features), size):
        part = features[start : start + size]
        batch[: len(part)] = part
        batch[len(part) :] = 0
        found = np.asarray(head(batch, training=False))
        embeddings[start : start + size] = found[: len(part)]
    return embeddings


def fit_projection(embeddings: np.ndarray, settings: HeadSettings) -> list[np.ndarray]:
    """Return kernel and bias of the projection to the leading principal components.

    Args:
        embeddings: `(n_images, n)` of the training images.
        settings: for the number of components, `dim`, and the seed.
    Raises:
        RecipeError: if there are fewer.
    """
    from sklearn.decomposition import PCA

    if settings.dim > min(embeddings.shape):
        raise RecipeError(
            f"`dim={settings.dim}`: expected at most {min(embeddings.shape)}, as many as the "
            f"embeddings of {len(embeddings):,} images can be compressed to"
        )
    components = PCA(settings.dim, svd_solver="randomized", random_state=settings.seed).fit(
        embeddings
    )
    kernel = components.components_.T
    return [kernel, -components.mean_ @ kernel]

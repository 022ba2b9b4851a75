"""Heads: the trained part, from a backbone's features to codes."""

from __future__ import annotations

import keras
import numpy as np

from tripletkit import defaults


def build_head(n_features: int, hidden: int, dim: int, dropout: float) -> keras.Model:
    """Return the source's head: Dense (ReLU), Dropout, Dense, L2 normalisation.

    Args:
        n_features: width of the backbone's features.
        hidden: width of the first Dense layer.
        dim: width of a code.
        dropout: share of hidden values dropped in training, 0 to below 1.
    Returns:
        A model from `(batch, n_features)` to `(batch, dim)` float32 of length 1.
    """
    return keras.Sequential(
        [
            keras.Input((n_features,)),
            keras.layers.Dense(
                hidden, activation="relu", kernel_initializer="he_uniform", name="hidden"
            ),
            keras.layers.Dropout(dropout, name="dropout"),
            keras.layers.Dense(dim, kernel_initializer="he_uniform", name="code"),
            keras.layers.UnitNormalization(name="unit_length"),
        ],
        name="head",
    )


def embed(head: keras.Model, features: np.ndarray) -> np.ndarray:
    """Return the codes of pictures.

    Batches have one shape, the last filled up with zeros, so that a picture's code does not
    depend on which others are asked for.

    Args:
        head: maps `(batch, n_features)` to `(batch, dim)`.
        features: `(n_images, n_features)` float32; a row of NaN gives one.
    Returns:
        `(n_images, dim)` float32.
    """
    size = defaults.EMBED_BATCH_SIZE
    codes = np.empty((len(features), head.output_shape[-1]), dtype=np.float32)
    for start in range(0, len(features), size):
        part = features[start : start + size]
        batch = np.zeros((size, features.shape[1]), dtype=np.float32)
        batch[: len(part)] = part
        codes[start : start + size] = head(batch, training=False).numpy()[: len(part)]
    return codes

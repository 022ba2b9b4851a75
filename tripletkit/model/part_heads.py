"""Parts as one Keras model, so that whatever takes a head takes an ensemble of parts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tripletkit.features.keras_backend import keras
from tripletkit.model.head_layers import Scaling
from tripletkit.model.heads import (
    build_head,
    build_residual_body,
    compress_head,
    standardise_first,
)
from tripletkit.model.recipes import FROZEN, RESIDUAL, Part
from tripletkit.model.settings import HeadSettings


def build_ensemble(n_features: int, parts: Sequence[Part], settings: HeadSettings) -> keras.Model:
    """Return the head of an ensemble, with weights still to be loaded.

    Args:
        n_features: of all features.
        parts: as the record has them.
        settings: say whether the embeddings are compressed.
    """
    head = join_parts(n_features, parts, [build_part_head(part) for part in parts])
    return compress_head(head, settings.dim) if settings.is_compressed else head


def build_part_head(
    part: Part, weights: Sequence[np.ndarray] | None = None, scaling: Scaling | None = None
) -> keras.Model:
    """Return one part: from its features as they are to an embedding of length 1.

    Args:
        part: its shape.
        weights: kernel and bias of its two layers; none of a frozen part. None where they will
            be loaded.
        scaling: of its features of length 1; None where it will be loaded.
    """
    if part.head == FROZEN:
        features = keras.Input((part.n_features,))
        body = keras.Model(features, keras.layers.UnitNormalization()(features))
    elif part.head == RESIDUAL:
        body = build_residual_body(part.n_features, part.hidden, 0.0)
    else:
        body = build_head(part.n_features, part.hidden, part.n_dims, 0.0)
    if weights:
        body.set_weights(weights)
    return standardise_first(body, scaling)


def join_parts(n_features: int, parts: Sequence[Part], heads: Sequence[keras.Model]) -> keras.Model:
    """Return a head whose squared L2 distance is the weighted mean of the parts' own.

    Args:
        n_features: of all features, of which each part takes its columns.
        parts: in the order of `heads`.
        heads: from `build_part_head`.
    Returns:
        A model from `(batch, n_features)` to the parts' embeddings side by side, each times the
        root of its weight: length 1 again.
    """
    features = keras.Input((n_features,))
    pieces = []
    for number, (part, head) in enumerate(zip(parts, heads, strict=True), 1):
        # Keras wants every part to have a name of its own.
        named = keras.Model(head.inputs[0], head.outputs[0], name=f"part{number}")
        embeddings = named(features[:, part.start : part.stop])
        pieces.append(keras.layers.Rescaling(part.weight**0.5, name=f"weight{number}")(embeddings))
    joined = keras.layers.Concatenate(name="parts")(pieces) if len(pieces) > 1 else pieces[0]
    return keras.Model(features, joined, name="ensemble")

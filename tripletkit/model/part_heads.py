"""Parts as one head, which NumPy runs and writes like any other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tripletkit.model.head_layers import HeadStep, NumpyHead, Scaling
from tripletkit.model.recipes import COSINE, MAP, MLP, RESIDUAL, Part


@dataclass(frozen=True)
class TrainedPart:
    """A part with its numbers.

    Attributes:
        part: as the record has it.
        weights: of its two layers, in turn: kernel and bias of each; kernels alone of a map;
            none of a part that is not trained.
        scaling: of its features of length 1; None where they are not standardised.
    """

    part: Part
    weights: Sequence[np.ndarray]
    scaling: Scaling | None


def join_parts(n_features: int, parts: Sequence[TrainedPart]) -> NumpyHead:
    """Return a head whose squared L2 distance is the weighted mean of the parts' own.

    Args:
        n_features: of all features, of which each part takes its columns.
        parts: with weights whose sum is 1.
    Returns:
        A head from `(batch, n_features)` to the parts' embeddings side by side, each times the
        root of its weight: length 1 again.
    """
    steps = _Steps()
    pieces = []
    for trained in parts:
        embedding = _add_part(steps, trained)
        pieces.append(steps.add("Rescaling", embedding, scale=trained.part.weight**0.5, offset=0.0))
    if len(pieces) > 1:
        steps.add("Concatenate", *pieces)
    return NumpyHead(n_features, steps.made)


class _Steps:
    """The steps of a head while it is put together."""

    def __init__(self) -> None:
        self.made: list[HeadStep] = []

    def add(
        self, kind: str, *inputs: int, arrays: Sequence[np.ndarray] = (), **settings: Any
    ) -> int:
        """Add a step and return the number of what it gives."""
        kept = tuple(np.ascontiguousarray(values, np.float32) for values in arrays)
        self.made.append(HeadStep(kind, inputs, kept, settings))
        return len(self.made)


def _add_part(steps: _Steps, trained: TrainedPart) -> int:
    """Add the steps from all features to a part's embedding of length 1."""
    part, scaling = trained.part, trained.scaling
    features = steps.add(
        "UnitNormalization", steps.add("GetItem", 0, start=part.start, stop=part.stop)
    )
    if part.head == COSINE:
        return features
    if scaling is not None:
        features = steps.add(
            "BatchNormalization",
            features,
            arrays=(scaling.mean, scaling.deviation**2),
            scale=False,
            center=False,
            epsilon=0.0,
        )
    embedding = features
    if part.head in (MAP, RESIDUAL, MLP):
        half = len(trained.weights) // 2
        hidden = steps.add(
            "Dense",
            features,
            arrays=trained.weights[:half],
            activation="linear" if part.head == MAP else "relu",
        )
        embedding = steps.add("Dense", hidden, arrays=trained.weights[half:], activation="linear")
    if part.head in (MAP, RESIDUAL):
        embedding = steps.add("Add", features, embedding)
    return steps.add("UnitNormalization", embedding)

"""Distances between embeddings as Keras operations, for losses.

`tripletkit.evaluation.distances` has the same ones for answers, in numpy; a test holds the
two together.
"""

from __future__ import annotations

from collections.abc import Callable

from tripletkit.features.keras_backend import KerasTensor, ops

# The root has no slope at 0, where an image is its own positive; this bounds it.
_SMALLEST_SQUARE = 1e-12


def _l1_distance(a: KerasTensor, b: KerasTensor) -> KerasTensor:
    """Return the sum of absolute differences: two `(n, n_dims)` -> `(n,)`."""
    return ops.sum(ops.abs(a - b), axis=-1)


def _l2_distance(a: KerasTensor, b: KerasTensor) -> KerasTensor:
    """Return the Euclidean distance: two `(n, n_dims)` -> `(n,)`."""
    return ops.sqrt(ops.maximum(_squared_l2_distance(a, b), _SMALLEST_SQUARE))


def _squared_l2_distance(a: KerasTensor, b: KerasTensor) -> KerasTensor:
    """Return the square of the Euclidean distance: two `(n, n_dims)` -> `(n,)`."""
    return ops.sum(ops.square(a - b), axis=-1)


def _cosine_distance(a: KerasTensor, b: KerasTensor) -> KerasTensor:
    """Return 1 minus the cosine of the angle: two `(n, n_dims)` of any length -> `(n,)`."""
    return 1.0 - ops.sum(ops.normalize(a, axis=-1) * ops.normalize(b, axis=-1), axis=-1)


DISTANCES: dict[str, Callable[[KerasTensor, KerasTensor], KerasTensor]] = {
    "l2": _l2_distance,
    "l1": _l1_distance,
    "squared-l2": _squared_l2_distance,
    "cosine": _cosine_distance,
}

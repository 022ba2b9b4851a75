"""A trial of an encoder that others made, before its first vector is kept.

The vector of an image must not depend on the other images of a batch, nor on chance. Two
different images are encoded alone, together, in the other order, and again.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tripletkit.errors import NetworkFileError

# Largest difference of two vectors of one image, as a share of its largest number. Sums of floats
# in another order differ by less than a hundredth of that.
TOLERANCE = 1e-3
TOLERANCE_HALF = 2e-2
_TOLERANCE_AGAIN = 1e-4


class RowCountError(NetworkFileError):
    """An encoder does not give a vector for each image."""


def trial_images(side_px: int) -> np.ndarray:
    """Return noise and a slope of colours: `(2, side_px, side_px, 3)` uint8."""
    noise = np.random.default_rng(0).integers(0, 256, (side_px, side_px, 3), dtype=np.uint8)
    slope = np.linspace(0, 255, side_px)
    rows, columns = np.meshgrid(slope, slope, indexing="ij")
    colours = np.stack([rows, columns, 255 - (rows + columns) / 2], axis=-1)
    return np.stack([noise, colours.astype(np.uint8)])


def try_encoder(
    name: str,
    function: Callable[[np.ndarray], np.ndarray],
    side_px: int,
    tolerance: float = TOLERANCE,
) -> int:
    """Refuse an encoder whose vector of an image depends on anything but the image.

    Return how many numbers a vector has.
    """
    images = trial_images(side_px)

    def encode(chosen: np.ndarray) -> np.ndarray:
        vectors = function(np.ascontiguousarray(chosen))
        _check_vectors(name, vectors, len(chosen))
        return vectors.astype(np.float64)

    alone = encode(images[:1])
    if not _is_close(encode(images[:1]), alone, _TOLERANCE_AGAIN):
        raise NetworkFileError(
            f"{name}: gives other numbers for the same image when it is asked again, such as with "
            "dropout left on. Export it for inference."
        )
    alone = np.concatenate([alone, encode(images[1:])])
    for order in ((0, 1), (1, 0)):
        if not _is_close(encode(images[list(order)]), alone[list(order)], tolerance):
            raise NetworkFileError(
                f"{name}: gives other numbers for an image alone than among others, such as with "
                "batch normalisation left in training mode. Export it for inference."
            )
    if _is_close(alone[:1], alone[1:], 1e-6):
        raise NetworkFileError(
            f"{name}: gives the same numbers for two different images, so that they tell nothing."
        )
    return alone.shape[1]


def _check_vectors(name: str, vectors: np.ndarray, n_images: int) -> None:
    if vectors.dtype.kind not in "fiu" or vectors.ndim != 2 or not vectors.shape[1]:
        raise NetworkFileError(
            f"{name}: expected a vector for each image, got {vectors.dtype} of shape "
            f"{vectors.shape} for {n_images} images."
        )
    if len(vectors) != n_images:
        raise RowCountError(
            f"{name}: expected a vector for each image, got {len(vectors)} for {n_images}. It "
            "mixes the images of a batch."
        )
    if not np.isfinite(vectors).all():
        raise NetworkFileError(
            f"{name}: expected finite numbers, gives others for an image of noise or a slope of "
            "colours. Its preprocessing may be another."
        )


def _is_close(got: np.ndarray, want: np.ndarray, tolerance: float) -> bool:
    if got.shape != want.shape:
        return False
    largest = np.abs(want).max(axis=1, keepdims=True)
    return bool((np.abs(got - want) <= tolerance * largest).all())

"""Images seen a little differently each time: flipped left to right, and shifted."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tripletkit import defaults


@dataclass(frozen=True)
class Augmentation:
    """What may happen to an image in training.

    Attributes:
        flip: left and right are swapped in half of the images.
        shift: an image moves by up to this share of its side, in either direction; what comes
            in repeats its edge.
    """

    flip: bool = True
    shift: float = defaults.SHIFT

    def apply(self, pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Return images as they are seen this time.

        Args:
            pixels: `(n_images, side, side, 3)`, of any dtype; not changed.
            rng: drawn from the same number of times whatever is asked for, so that switching one
                thing off leaves the other as it was.
        """
        n_images, side = pixels.shape[:2]
        is_flipped = rng.random(n_images) < 0.5
        furthest = round(self.shift * side)
        shifts = np.floor(rng.random((n_images, 2)) * (2 * furthest + 1)).astype(int) - furthest
        across = np.arange(side)
        rows = np.clip(across + shifts[:, :1], 0, side - 1)
        columns = np.clip(across + shifts[:, 1:], 0, side - 1)
        if self.flip:
            columns = np.where(is_flipped[:, None], columns[:, ::-1], columns)
        seen = np.empty_like(pixels)
        for image, row, column, out in zip(pixels, rows, columns, seen, strict=True):
            # Rows, then columns: each copies whole stretches of memory.
            np.take(image[row], column, axis=1, out=out, mode="clip")
        return seen

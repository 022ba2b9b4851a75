"""The pixels of image files, for training: at hand while they are small and few."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from tripletkit import defaults
from tripletkit.data.decoding import read_pixels
from tripletkit.errors import ImageReadError
from tripletkit.features.backbones import Backbone
from tripletkit.features.extract import read_ahead
from tripletkit.progress import Progress, no_progress

# Decoded images stay in memory up to this: 50,000 of 32 pixels take 150 MB.
_KEEP_PIXELS_BYTES = 1 << 30


class DecodedImages:
    """Image files as square RGB arrays.

    Every file is decoded once at the start, which finds the broken ones. While all of them take
    at most `keep_bytes` they stay in memory; otherwise each is decoded whenever it is asked for.

    Args:
        paths: one an image; `None` for one that is not needed or not there.
        backbone: for its input size and resize filter.
        keep_bytes: see above.
        progress: told (done, total) in images.
    Attributes:
        problems: index of an image -> why it cannot be read.
    """

    def __init__(
        self,
        paths: Sequence[Path | None],
        backbone: Backbone,
        keep_bytes: int = _KEEP_PIXELS_BYTES,
        progress: Progress = no_progress,
    ) -> None:
        self._paths = list(paths)
        self._side = backbone.input_size_px
        self._resample = backbone.preprocessing.resample
        self.problems: dict[int, str] = {}
        needed = [index for index, path in enumerate(self._paths) if path is not None]
        self._slots = np.full(len(self._paths), -1)
        self._slots[needed] = np.arange(len(needed))
        shape = (len(needed), self._side, self._side, 3)
        self._kept = np.zeros(shape, np.uint8) if np.prod(shape) <= keep_bytes else None
        for n_done, index in enumerate(
            read_ahead(self._decode_first, needed, defaults.DECODE_AHEAD), 1
        ):
            if index is not None:
                self._slots[index] = -1
            progress(n_done, len(needed))

    @property
    def kept_bytes(self) -> int:
        """How much memory the pixels take; 0 where they are not kept."""
        return 0 if self._kept is None else self._kept.nbytes

    def is_usable(self) -> np.ndarray:
        """Return `(n_images,)` bool: the image was there and could be read."""
        return self._slots >= 0

    def read(self, images: np.ndarray) -> np.ndarray:
        """Return usable images by their indices: `(n, side, side, 3)` uint8, RGB."""
        if self._kept is not None:
            return self._kept[self._slots[images]]
        return np.stack([self._decode(index) for index in images])

    def batches(self, images: np.ndarray, size: int) -> Iterator[np.ndarray]:
        """Yield images in their order, `size` at a time, decoded ahead."""
        parts = [images[start : start + size] for start in range(0, len(images), size)]
        return read_ahead(self.read, parts, defaults.BATCHES_AHEAD)

    def _decode(self, index: int) -> np.ndarray:
        path = self._paths[index]
        assert path is not None, "an image that is asked for is there"
        return read_pixels(path, self._side, self._resample)

    def _decode_first(self, index: int) -> int | None:
        """Decode an image for the first time; return its index if it cannot be."""
        try:
            pixels = self._decode(index)
        except ImageReadError as error:
            self.problems[index] = str(error)
            return index
        if self._kept is not None:
            self._kept[self._slots[index]] = pixels
        return None

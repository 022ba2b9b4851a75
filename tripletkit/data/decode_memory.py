"""How much memory the decoding of an image takes, and a bound on that of all threads together."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Condition

from PIL import Image

# What decoding may take at one time, in all threads together. No PNG that Pillow opens at all
# (179 million pixels) takes more; an image of another format that would is refused.
MAX_DECODE_BYTES = 800_000_000

# Bytes a pixel at the peak, where the decoder holds more than Pillow's own pixels. Measured with
# 25 million pixels each.
_DECODER_BYTES = {"AVIF": 10.0, "JPEG2000": 20.0, "WEBP": 17.0}
# A progressive JPEG is gathered whole before it is decoded, even at an eighth of its size.
_PROGRESSIVE_CHANNEL_BYTES = 2.2
_SMALL_PIXELS = {"1": 1, "L": 1, "P": 1, "I;16": 2, "I;16B": 2, "I;16L": 2, "I;16N": 2}
_RGB_PIXEL_BYTES = 4


def decode_bytes(image: Image.Image, full_size: tuple[int, int], n_result_px: int) -> int:
    """Return about how many bytes of memory it takes to decode an image and make RGB of it.

    Args:
        image: opened and drafted, not yet loaded.
        full_size: its width and height before it was drafted.
        n_result_px: pixels of the RGB image that is made of it.
    """
    n_px = image.width * image.height
    pixel_bytes = _SMALL_PIXELS.get(image.mode, 4)
    own = n_px * pixel_bytes
    decoder = n_px * _DECODER_BYTES.get(image.format or "", pixel_bytes)
    if image.format == "TIFF" and image.info.get("compression", "raw") != "raw":
        decoder += own  # One strip may be the whole image.
    if "progressive" in image.info:
        n_channels = len(image.getbands())
        decoder += full_size[0] * full_size[1] * n_channels * _PROGRESSIVE_CHANNEL_BYTES
    return int(max(decoder, own + n_result_px * _RGB_PIXEL_BYTES))


class MemoryBudget:
    """Memory that threads share: what does not fit beside the others waits.

    Args:
        total_bytes: what they may have together.
    """

    def __init__(self, total_bytes: int) -> None:
        self._total_bytes = total_bytes
        self._used_bytes = 0
        self._changed = Condition()

    @contextmanager
    def reserve(self, n_bytes: int) -> Iterator[None]:
        """Hold a part of the budget; one that is larger than all of it is held alone."""
        with self._changed:
            self._changed.wait_for(lambda: self._fits(n_bytes))
            self._used_bytes += n_bytes
        try:
            yield
        finally:
            with self._changed:
                self._used_bytes -= n_bytes
                self._changed.notify_all()

    def _fits(self, n_bytes: int) -> bool:
        return self._used_bytes == 0 or self._used_bytes + n_bytes <= self._total_bytes

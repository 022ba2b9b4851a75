"""Images as pages show them: turned upright, no larger than needed, kept in memory."""

from __future__ import annotations

import io
from functools import lru_cache
from pathlib import Path

from PIL import Image

from tripletkit.data.decoding import read_image

# Longest side in pixels: of two beside each other on a phone, on a desk, and alone on a large
# screen of many pixels.
SIZES_PX = {"small": 360, "medium": 720, "large": 1280}
# Of the largest, some 250 MB.
_N_KEPT = 1500
_QUALITY = 85
# Images of so few pixels are drawings or icons, which JPEG blurs.
_SMALL_PX = 128


class ScaledImages:
    """Images by number as files for a browser, the last ones used kept in memory."""

    def __init__(self, paths: dict[int, Path], n_kept: int = _N_KEPT) -> None:
        self._paths = paths
        self._scale = lru_cache(n_kept)(lambda number, px: scale_image(paths[number], px))

    def __contains__(self, number: int) -> bool:
        return number in self._paths

    def get(self, number: int, size: str) -> bytes:
        """Return an image as a file, by its number and a key of `SIZES_PX`; see `scale_image`."""
        return self._scale(number, SIZES_PX[size])


def scale_image(path: Path, longest_px: int, quality: int = _QUALITY) -> bytes:
    """Return an image as a JPEG file, or PNG if it is tiny: upright, and without what its file
    says of where and when it was taken; small images stay as they are."""
    image = read_image(path, at_least_px=longest_px // 2)
    # A new image: that of a file would take its EXIF block along.
    image = Image.frombytes("RGB", image.size, image.tobytes())
    image.thumbnail((longest_px, longest_px), Image.Resampling.LANCZOS, reducing_gap=2.0)
    file = io.BytesIO()
    if max(image.size) <= _SMALL_PX:
        image.save(file, "PNG", optimize=True)
    else:
        image.save(file, "JPEG", quality=quality)
    return file.getvalue()


def media_type(data: bytes) -> str:
    """Return what kind of file `scale_image` made."""
    return "image/png" if data.startswith(b"\x89PNG") else "image/jpeg"

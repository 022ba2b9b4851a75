"""Images as pages show them: turned upright, no larger than needed, kept in memory."""

from __future__ import annotations

import io
import threading
from collections import OrderedDict
from pathlib import Path

from PIL import Image

from tripletkit.data.decoding import read_image

# Longest side in pixels: of two beside each other on a phone, on a desk, and alone on a large
# screen of many pixels.
SIZES_PX = {"small": 360, "medium": 720, "large": 1280}
CACHE_BYTES = 256 << 20
_QUALITY = 85
# Images of so few pixels are drawings or icons, which JPEG blurs.
_SMALL_PX = 128


class ScaledImages:
    """Images by number as files for a browser, the last ones used kept in memory.

    Args:
        paths: number -> file.
        cache_bytes: how much is kept.
    """

    def __init__(self, paths: dict[int, Path], cache_bytes: int = CACHE_BYTES) -> None:
        self._paths = paths
        self._cache_bytes = cache_bytes
        self._kept: OrderedDict[tuple[int, str], bytes] = OrderedDict()
        self._n_bytes = 0
        self._lock = threading.Lock()

    def __contains__(self, number: int) -> bool:
        return number in self._paths

    def get(self, number: int, size: str) -> bytes:
        """Return an image as a file; see `scale_image`.

        Args:
            number: of the image.
            size: a key of `SIZES_PX`.
        Raises:
            KeyError: if there is no such image or size.
            ImageReadError: if its file cannot be read.
        """
        key = (number, size)
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        data = scale_image(self._paths[number], SIZES_PX[size])
        with self._lock:
            if key not in self._kept:
                self._n_bytes += len(data)
                self._kept[key] = data
            while self._n_bytes > self._cache_bytes and len(self._kept) > 1:
                _, dropped = self._kept.popitem(last=False)
                self._n_bytes -= len(dropped)
        return data


def scale_image(path: Path, longest_px: int, quality: int = _QUALITY) -> bytes:
    """Return an image as a JPEG file, or PNG if it is tiny: upright, and without what its file
    says of where and when it was taken.

    Args:
        path: the file.
        longest_px: its longer side at most; small images stay as they are.
        quality: of the JPEG, 1 to 95.
    Raises:
        ImageReadError: if it cannot be read.
    """
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

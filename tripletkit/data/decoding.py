"""Image files to RGB pixels, whatever mode, orientation or trap they hold."""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from threading import Condition
from typing import BinaryIO

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from tripletkit.errors import ImageReadError

IMAGE_SUFFIXES = frozenset(
    ".avif .bmp .gif .jp2 .jpe .jpeg .jpg .jfif .mpo .pbm .pgm .png .pnm .ppm .tga .tif .tiff "
    ".webp".split()
)
# Photos of phones, which are read with the extra `heic`.
HEIC_SUFFIXES = frozenset([".heic", ".heif"])


@cache
def image_suffixes() -> frozenset[str]:
    """Return the extensions of images that can be read here, in lower case."""
    reads_heic = importlib.util.find_spec("pillow_heif") is not None
    return IMAGE_SUFFIXES | HEIC_SUFFIXES if reads_heic else IMAGE_SUFFIXES


# What decoding may take at one time, in all threads together. No PNG that Pillow opens at all
# (179 million pixels) takes more; an image of another format that would is refused.
MAX_DECODE_BYTES = 800_000_000

# Bytes a pixel at the peak, where the decoder holds more than Pillow's own pixels. Measured with
# 25 million pixels each.
_DECODER_BYTES = {"AVIF": 10.0, "HEIF": 10.0, "JPEG2000": 20.0, "WEBP": 17.0}
# A progressive JPEG is gathered whole before it is decoded, even at an eighth of its size.
_PROGRESSIVE_CHANNEL_BYTES = 2.2
_SMALL_PIXELS = {"1": 1, "L": 1, "P": 1, "I;16": 2, "I;16B": 2, "I;16L": 2, "I;16N": 2}
_RGB_PIXEL_BYTES = 4


def _decode_bytes(image: Image.Image, full_size: tuple[int, int], n_result_px: int) -> int:
    """Return about how many bytes it takes to decode an image, opened but not loaded, to RGB."""
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


class _MemoryBudget:
    """Memory that threads share: what does not fit beside the others waits."""

    def __init__(self, total_bytes: int) -> None:
        self._total_bytes = total_bytes
        self._used_bytes = 0
        self._changed = Condition()

    @contextmanager
    def reserve(self, n_bytes: int) -> Iterator[None]:
        """Hold a part of the budget; one that is larger than all of it is held alone."""
        with self._changed:
            self._changed.wait_for(
                lambda: not self._used_bytes or self._used_bytes + n_bytes <= self._total_bytes
            )
            self._used_bytes += n_bytes
        try:
            yield
        finally:
            with self._changed:
                self._used_bytes -= n_bytes
                self._changed.notify_all()


# Pillow also opens formats that run another program (EPS) or draw vectors; pixels only here.
# (The JPEG reader takes MPO as well.)
_FORMATS = "AVIF BMP DIB GIF JPEG JPEG2000 PNG PPM TGA TIFF WEBP".split()
if ".heic" in image_suffixes():
    import pillow_heif

    pillow_heif.register_heif_opener()
    _FORMATS.append("HEIF")
# A JPEG is decoded at 1/2, 1/4 or 1/8 of its size only while this many of its pixels remain
# for each pixel wanted, in both directions. On mosaics of photos 224-pixel results then differ
# from full decoding by 0.17 of 255 in the mean and 3 at most; with 2 by 0.58 and 10.
_DRAFT_RESERVE = 4
# Increase when the pixels of any image change, so that stored features are not reused.
PIXELS_VERSION = 2

# What turns an image upright, by its EXIF orientation.
_UPRIGHT_BY = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# An image that still has more pixels than this when it is decoded is made smaller, as a JPEG is
# while it is decoded.
_LARGE_PX = 32_000_000
_MOST_REDUCED = 32
# Pixels that are turned to RGB at a time, for that takes several copies.
_BAND_PX = 1_000_000

_memory = _MemoryBudget(MAX_DECODE_BYTES)

# Pillow warns at half the size at which it refuses (179 million pixels). Only that counts here:
# phones take photos of 108 million.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)


def read_pixels(
    path: Path, size_px: int, resample: str, file: BinaryIO | None = None
) -> np.ndarray:
    """Decode an image and resize it to `(size_px, size_px, 3)` uint8, RGB, antialiased."""
    return resize_to_square(read_image(path, at_least_px=size_px, file=file), size_px, resample)


def resize_to_square(image: Image.Image, size_px: int, resample: str) -> np.ndarray:
    """Return an image's pixels as a square, `(size_px, size_px, 3)` uint8."""
    return np.asarray(image.resize((size_px, size_px), Image.Resampling[resample.upper()]))


def read_image(
    path: Path, at_least_px: int | None = None, file: BinaryIO | None = None
) -> Image.Image:
    """Decode an image to RGB: upright by its EXIF orientation, on white, its first frame.

    Its content counts, not its extension. What cannot be read whole or takes too much memory is an
    `ImageReadError`. With `at_least_px` a JPEG, and any image of more than 32 million pixels, may
    be decoded smaller, while both sides stay at least `_DRAFT_RESERVE` times this. `file` has its
    bytes where they are at hand.
    """
    with _explained(path), Image.open(file or path, formats=_FORMATS) as image:
        full_size = image.size
        if at_least_px is not None:
            image.draft(None, (at_least_px * _DRAFT_RESERVE,) * 2)
        factors = _find_factors(image.size, at_least_px)
        width, height = _reduce_size(image.size, factors)
        n_result_px = 0 if _is_plain_rgb(image, factors) else width * height
        n_bytes = _decode_bytes(image, full_size, n_result_px)
        if n_bytes > MAX_DECODE_BYTES:
            raise ValueError(
                f"decoding {full_size[0]:,} x {full_size[1]:,} pixels of {image.format} takes some "
                f"{n_bytes / 1e6:,.0f} MB of memory, more than the {MAX_DECODE_BYTES / 1e6:,.0f} "
                "that an image may take; save it smaller, or as a PNG or a plain JPEG"
            )
        with _memory.reserve(n_bytes):
            image.load()
            return _turn_upright(_to_rgb(image, factors), _read_orientation(image))


def read_hidden(path: Path) -> tuple[int | None, bool]:
    """Return what `read_image` does not tell: the largest value of one channel of 16 bits (None for
    other images, or where all are equal), and whether some pixels are more transparent than others.
    """
    with _explained(path), Image.open(path, formats=_FORMATS) as image:
        n_px = image.width * image.height
        with _memory.reserve(_decode_bytes(image, image.size, n_px)):
            image.load()
            if image.mode.startswith("I"):
                values = np.asarray(image)
                return (int(values.max()) if values.min() < values.max() else None), False
            if not image.has_transparency_data:
                return None, False
            alpha = np.asarray(image.convert("RGBA").getchannel("A"))
            return None, bool(alpha.min() < alpha.max())


def read_size_and_frames(path: Path) -> tuple[tuple[int, int], int]:
    """Return width and height in pixels as stored, and the number of frames."""
    with _explained(path), Image.open(path, formats=_FORMATS) as image:
        size = image.size
        if image.format == "MPO":  # A phone's JPEG with a preview or a depth map behind it.
            return size, 1
        try:
            return size, getattr(image, "n_frames", 1)
        except Exception:  # Later frames are damaged; none is used.
            return size, 1


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Turn whatever Pillow raises for a broken file (it may be anything) into an error of ours."""
    try:
        yield
    except Image.DecompressionBombError as error:
        raise ImageReadError(
            f"{path}: expected an image of usual size, got a decompression bomb: {error}"
        ) from error
    except Exception as error:
        # str() of some is empty or has the path.
        unknown = isinstance(error, UnidentifiedImageError)
        reason = "not an image format that is known" if unknown else str(error)
        raise ImageReadError(
            f"{path}: expected an image, cannot be read: {reason or type(error).__name__}"
        ) from error


def make_rgb(image: Image.Image) -> Image.Image:
    """Return an image upright, opaque and in mode RGB, as `read_image` does of a file."""
    if image.mode == "I" and image.format is None and np.asarray(image).max() <= 255:
        raise ValueError("integers of 0 to 255 may have 8 or 16 bits; give image.convert('L')")
    return _turn_upright(_to_rgb(image, (1, 1)), _read_orientation(image))


def _read_orientation(image: Image.Image) -> object:
    try:
        return image.getexif().get(ExifTags.Base.Orientation)
    except Exception:  # Any parser error of a damaged EXIF block; the pixels are fine.
        return None


def _turn_upright(image: Image.Image, orientation: object) -> Image.Image:
    # Not by `ImageOps.exif_transpose`: it writes the whole block anew, which one damaged tag
    # prevents.
    if not isinstance(orientation, int) or orientation not in _UPRIGHT_BY:
        return image
    return image.transpose(_UPRIGHT_BY[orientation])


def _find_factors(size: tuple[int, int], at_least_px: int | None) -> tuple[int, int]:
    """Return how many pixels of a large image become one, in width and in height."""
    if at_least_px is None or size[0] * size[1] <= _LARGE_PX:
        return 1, 1
    width, height = (max(side // (at_least_px * _DRAFT_RESERVE), 1) for side in size)
    return min(width, _MOST_REDUCED), min(height, _MOST_REDUCED)


def _reduce_size(size: tuple[int, int], factors: tuple[int, int]) -> tuple[int, int]:
    return -(-size[0] // factors[0]), -(-size[1] // factors[1])


def _is_plain_rgb(image: Image.Image, factors: tuple[int, int]) -> bool:
    return image.mode == "RGB" and "transparency" not in image.info and factors == (1, 1)


def _to_rgb(image: Image.Image, factors: tuple[int, int]) -> Image.Image:
    """Return an image in RGB and reduced by factors, made a band of rows at a time."""
    if _is_plain_rgb(image, factors):
        return image
    rgb = Image.new("RGB", _reduce_size(image.size, factors))
    n_rows = max(_BAND_PX // (image.width * factors[1]), 1) * factors[1]
    for top in range(0, image.height, n_rows):
        band = image.crop((0, top, image.width, min(top + n_rows, image.height)))
        rgb.paste(_band_to_rgb(band).reduce(factors), (0, top // factors[1]))
    return rgb


def _band_to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode.startswith("I"):
        return _scale_16_bit(image).convert("RGB")
    if image.mode == "F":
        raise ValueError("32-bit float pixels have no defined white; save it with 8 or 16 bits")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image).convert("RGB")
    return image.convert("RGB")


def _scale_16_bit(image: Image.Image) -> Image.Image:
    """Scale 0..65535 to 0..255; Pillow's own conversion clips at 255."""
    values = np.asarray(image)
    if values.dtype.kind != "u" and (values.min() < 0 or values.max() > 65535):
        raise ValueError("32-bit integer pixels have no defined white; save it with 16 bits")
    return Image.fromarray(((values.astype(np.uint32) + 128) // 257).astype(np.uint8))

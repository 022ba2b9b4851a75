"""Image files to RGB pixels, whatever mode, orientation or trap they hold."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from tripletkit.errors import ImageReadError

# Pillow also opens formats that run another program (EPS) or draw vectors; pixels only here.
# (The JPEG reader takes MPO as well.)
FORMATS = "AVIF BMP DIB GIF JPEG JPEG2000 PNG PPM TGA TIFF WEBP".split()
# A JPEG is decoded at 1/2, 1/4 or 1/8 of its size only while this many of its pixels remain
# for each pixel wanted, in both directions. On mosaics of photos 224-pixel results then differ
# from full decoding by 0.17 of 255 in the mean and 3 at most; with 2 by 0.58 and 10.
DRAFT_RESERVE = 4
# Increase when the pixels of any image change, so that stored features are not reused.
PIXELS_VERSION = 1

_UPSIDE_UP = 1

# Pillow warns at half the size at which it refuses (179 million pixels). Only that counts here:
# phones take photos of 108 million.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)


def read_pixels(
    path: Path, size_px: int, resample: str, file: BinaryIO | None = None
) -> np.ndarray:
    """Decode an image and resize it to a square, as the source's model takes it.

    Turned upright by its EXIF orientation; transparency composited over white; the first
    frame of several.

    Args:
        path: the file; its content counts, not its extension.
        size_px: side of the square.
        resample: name of a Pillow filter, such as `"bilinear"`; antialiased when shrinking.
        file: its bytes where they are at hand. Defaults to opening the path.
    Returns:
        `(size_px, size_px, 3)` uint8, RGB, 0 to 255.
    Raises:
        ImageReadError: naming the file, if it is not an image that can be read whole.
    """
    return resize_to_square(read_image(path, at_least_px=size_px, file=file), size_px, resample)


def resize_to_square(image: Image.Image, size_px: int, resample: str) -> np.ndarray:
    """Return an image's pixels as a square, `(size_px, size_px, 3)` uint8."""
    return np.asarray(image.resize((size_px, size_px), Image.Resampling[resample.upper()]))


def read_image(
    path: Path, at_least_px: int | None = None, file: BinaryIO | None = None
) -> Image.Image:
    """Decode an image to RGB, upright and opaque.

    Args:
        path: the file; its content counts, not its extension.
        at_least_px: allow a JPEG to be decoded smaller, while both sides stay at least
            `DRAFT_RESERVE` times this. Defaults to full size.
        file: its bytes where they are at hand. Defaults to opening the path.
    Returns:
        The image in mode RGB.
    Raises:
        ImageReadError: naming the file, if it is not an image that can be read whole.
    """
    try:
        with Image.open(file or path, formats=FORMATS) as image:
            if at_least_px is not None:
                image.draft(None, (at_least_px * DRAFT_RESERVE,) * 2)
            image.load()
            return make_rgb(image)
    except Image.DecompressionBombError as error:
        raise ImageReadError(
            f"{path}: expected an image of bearable size, got a decompression bomb: {error}"
        ) from error
    except (OSError, SyntaxError, ValueError, EOFError, MemoryError, IndexError) as error:
        # What Pillow's plugins raise for broken files; str() of some is empty or has the path.
        unknown = isinstance(error, UnidentifiedImageError)
        reason = "not an image format that is known" if unknown else str(error)
        raise ImageReadError(
            f"{path}: expected an image, cannot be read: {reason or type(error).__name__}"
        ) from error


def make_rgb(image: Image.Image) -> Image.Image:
    """Return an image upright, opaque and in mode RGB, as `read_image` does of a file.

    Raises:
        ValueError: if its numbers have no defined white.
    """
    return _to_rgb(_turn_upright(image))


def _turn_upright(image: Image.Image) -> Image.Image:
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation, _UPSIDE_UP)
    except Exception:  # Any parser error of a damaged EXIF block; the pixels are fine.
        return image
    if orientation not in range(2, 9):
        return image
    return ImageOps.exif_transpose(image)


def _to_rgb(image: Image.Image) -> Image.Image:
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
    values = np.asarray(image).astype(np.int64)
    if values.min() < 0 or values.max() > 65535:
        raise ValueError("32-bit integer pixels have no defined white; save it with 16 bits")
    return Image.fromarray(((values + 128) // 257).astype(np.uint8))

"""Small image files of every format, and seeded damage to them: what fuzz tests read."""

from __future__ import annotations

import io
import random
from collections.abc import Iterator

import numpy as np
from PIL import ExifTags, Image

FORMATS = {
    "jpg": {"format": "JPEG"},
    "progressive.jpg": {"format": "JPEG", "progressive": True},
    "png": {"format": "PNG"},
    "webp": {"format": "WEBP"},
    "avif": {"format": "AVIF", "speed": 10},
    "tif": {"format": "TIFF", "compression": "tiff_lzw"},
    "raw.tif": {"format": "TIFF"},
    "jp2": {"format": "JPEG2000"},
    "gif": {"format": "GIF"},
    "bmp": {"format": "BMP"},
    "tga": {"format": "TGA", "compression": "tga_rle"},
    "ppm": {"format": "PPM"},
}
_WITH_EXIF = ("jpg", "png", "webp", "avif")


def make_exif() -> bytes:
    """Return an EXIF block with an orientation and tags of every type."""
    exif = Image.Exif()
    exif[ExifTags.Base.Make] = "a camera"
    exif[ExifTags.Base.Orientation] = 6
    exif[ExifTags.Base.XResolution] = 72.0
    exif[ExifTags.Base.Software] = "some software"
    exif[ExifTags.Base.DateTime] = "2024:01:01 00:00:00"
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.ExposureTime] = 0.01
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.ISOSpeedRatings] = 100
    exif.get_ifd(ExifTags.IFD.GPSInfo)[ExifTags.GPS.GPSLatitude] = (1.0, 2.0, 3.0)
    return exif.tobytes()


def make_images() -> dict[str, bytes]:
    """Return a file name -> content of a 24 x 16 image, in every format that is read."""
    pixels = np.random.default_rng(0).integers(0, 256, (16, 24, 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    files = {}
    for name, options in FORMATS.items():
        written = io.BytesIO()
        if name in _WITH_EXIF:
            options = options | {"exif": make_exif()}
        image.save(written, **options)
        files[f"image.{name}"] = written.getvalue()
    for mode in ("RGBA", "LA", "P", "1", "I;16"):
        written = io.BytesIO()
        other = image.convert("L").convert("I;16") if mode == "I;16" else image.convert(mode)
        other.save(written, "PNG")
        files[f"{mode.replace(';', '')}.png"] = written.getvalue()
    return files


def mutate(content: bytes, random: random.Random, low: int = 0, high: int | None = None) -> bytes:
    """Return content with one to four damages between two places: bits, bytes, cuts, copies."""
    damaged = bytearray(content)
    high = len(content) if high is None else high
    for _ in range(random.randint(1, 4)):
        place = random.randrange(low, min(high, len(damaged)) or 1)
        kind = random.randrange(6)
        if kind == 0:
            damaged[place] ^= 1 << random.randrange(8)
        elif kind == 1:
            damaged[place] = random.choice((0, 1, 127, 128, 255, random.randrange(256)))
        elif kind == 2:
            end = min(place + random.choice((2, 4)), len(damaged))
            damaged[place:end] = random.randbytes(end - place)
        elif kind == 3:
            damaged[place : place + random.randint(1, 8)] = b""
        elif kind == 4:
            damaged[place:place] = damaged[low : low + random.randint(1, 8)]
        else:
            # Counts and offsets that lead far beyond the file.
            damaged[place : place + 4] = random.choice((b"\xff\xff\xff\xff", b"\x00\x00\x00\x7f"))
        if not damaged:
            damaged = bytearray(b"\x00")
    return bytes(damaged)


def mutated_images(n: int, seed: int) -> Iterator[tuple[str, bytes]]:
    """Yield names and contents of damaged image files, of each format as many."""
    files = list(make_images().items())
    chance = random.Random(seed)
    for number in range(n):
        name, content = files[number % len(files)]
        yield f"{number}-{name}", mutate(content, chance)


def images_with_mutated_exif(n: int, seed: int) -> Iterator[tuple[str, bytes]]:
    """Yield names and contents of sound images whose EXIF block alone is damaged."""
    pixels = np.random.default_rng(0).integers(0, 256, (16, 24, 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    exif, chance = make_exif(), random.Random(seed)
    for number in range(n):
        written = io.BytesIO()
        name = ("JPEG", "PNG", "WEBP")[number % 3]
        image.save(written, name, exif=mutate(exif, chance, low=6))
        yield f"exif-{number}.{name.lower()}", written.getvalue()

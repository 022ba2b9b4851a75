"""Triplet files and images that no one would think of: nothing is lost, nothing crashes."""

from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from opened import read_triplets, scan_triplets
from PIL import Image
from tripletkit.data.triplet_files import write_triplets

from tripletkit import TripletkitError
from tripletkit.data.decoding import read_image
from tripletkit.errors import ImageReadError, TripletFileError

# Whatever a file system may hold, surrogates and control characters included.
any_name = st.text(min_size=1, max_size=12) | st.text("ab ,\"#\t'\\/-.\u00a0\u0301", min_size=1)
N_MUTATIONS = 400

SEEDS = [
    b"a.jpg b.jpg c.jpg\nd.jpg e.jpg f.jpg\n",
    b'"a b.jpg" c,d.jpg "#e"\r\n# comment\r\n\r\nx y z',
    b'anchor,positive,negative\na,b,c\n"d,e",f,g\n',
    "\ufeff寿司 café b\n".encode(),
]


@pytest.mark.slow
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(any_name, any_name, any_name), min_size=1, max_size=6))
def test_written_triplets_read_back_or_are_refused(tmp_path, named):
    names = list(dict.fromkeys(name for row in named for name in row))
    rows = np.array([[names.index(name) for name in row] for row in named])
    path = tmp_path / "written.txt"
    path.unlink(missing_ok=True)
    try:
        write_triplets(path, names, rows)
    except TripletFileError:
        assert any(not name.isprintable() for name in names)
        assert not path.exists()
        return
    read = read_triplets(path)
    assert [tuple(read.names[index] for index in row) for row in read.rows] == named


def mutate(data: bytes, rng: np.random.Generator) -> bytes:
    """Change, drop, double or insert a few bytes, sometimes cut the end."""
    mutated = bytearray(data)
    awkward = b'"#,\t \r\n\x00\xff\xfe\xef\xbb\xbf\xc2\xa0\x85'
    for _ in range(rng.integers(1, 6)):
        at = int(rng.integers(0, max(len(mutated), 1)))
        match rng.integers(0, 5):
            case 0:
                mutated[at : at + 1] = bytes([rng.integers(0, 256)])
            case 1:
                del mutated[at : at + int(rng.integers(1, 8))]
            case 2:
                mutated[at:at] = mutated[at : at + int(rng.integers(1, 8))]
            case 3:
                mutated[at:at] = bytes([awkward[rng.integers(0, len(awkward))]])
            case 4:
                del mutated[at:]
    return bytes(mutated)


@pytest.mark.parametrize("data", SEEDS, ids=range(len(SEEDS)))
@pytest.mark.parametrize("name", ["t.txt", "t.csv"])
def test_mutated_triplet_files_raise_only_our_errors(data, name):
    rng = np.random.default_rng(1)
    for _ in range(N_MUTATIONS):
        mutated = mutate(data, rng)
        try:
            triplets = scan_triplets(io.BytesIO(mutated), name).triplets
            assert triplets.rows.shape == (len(triplets), 3)
            assert all(triplets.names)
            read_triplets(io.BytesIO(mutated), name)
        except TripletkitError as error:
            assert name in str(error)


def encode(image: Image.Image, format_name: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format_name, **options)
    return buffer.getvalue()


def image_seeds():
    gradient = np.add.outer(np.arange(24), np.arange(32)).astype(np.uint8) * 4
    colour = Image.fromarray(
        np.stack([gradient, gradient.T[:24].repeat(2, 1)[:, :32], gradient], 2)
    )
    exif = Image.Exif()
    exif[0x0112] = 6
    return {
        "jpeg": encode(colour, "JPEG", exif=exif),
        "png": encode(colour.convert("RGBA"), "PNG"),
        "palette": encode(colour.quantize(8), "PNG", transparency=0),
        "gray16": encode(Image.fromarray(gradient.astype(np.uint16) * 200), "PNG"),
        "gif": encode(colour, "GIF", save_all=True, append_images=[colour.rotate(180)]),
        "tiff": encode(colour, "TIFF"),
        "bmp": encode(colour, "BMP"),
        "webp": encode(colour, "WEBP"),
        "ppm": encode(colour, "PPM"),
        "tga": encode(colour, "TGA"),
    }


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(("kind", "data"), image_seeds().items(), ids=image_seeds())
def test_mutated_images_raise_only_our_errors(tmp_path, kind, data):
    rng = np.random.default_rng(2)
    path = tmp_path / f"mutated.{kind}"
    for number in range(N_MUTATIONS):
        path.write_bytes(mutate(data, rng))
        try:
            assert read_image(path, at_least_px=8 if number % 2 else None).mode == "RGB"
        except ImageReadError as error:
            assert str(path) in str(error)

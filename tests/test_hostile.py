"""Every awkward file of the development data behaves as its manifest says."""

from __future__ import annotations

import csv

import numpy as np
import pytest
from conftest import SHARED
from opened import read_triplets

from tripletkit import TripletkitError, open_images
from tripletkit.data.decoding import read_image, read_pixels
from tripletkit.data.text_files import quote_name
from tripletkit.errors import ImageReadError

HOSTILE = SHARED / "data" / "hostile"

pytestmark = pytest.mark.shared


def manifest(path):
    """Return one parameter a line, or one that is skipped where the data is missing."""
    if not path.is_file():
        reason = pytest.mark.skip(reason="needs the development data beside the repository")
        return [pytest.param({}, marks=reason, id="missing")]
    with path.open(encoding="utf-8", newline="") as file:
        return [pytest.param(line, id=ascii(line["file"])[:40]) for line in csv.DictReader(file)]


@pytest.mark.parametrize("entry", manifest(HOSTILE / "manifest.csv"))
def test_image_behaves_as_its_manifest_says(tripletkit, entry, tmp_path):
    images = HOSTILE / "images"
    name = entry["file"]
    triplet_file = tmp_path / "t.txt"
    triplet_file.write_text(f"{quote_name(name)} 00001.jpg 00002.jpg\n", encoding="utf-8")
    located = open_images(images, [name], skip_bad=True)
    if entry["expected"] == "ok":
        assert located.paths == [images / name]
        pixels = read_pixels(images / name, 32, "bilinear")
        assert pixels.shape == (32, 32, 3)
        assert pixels.dtype == np.uint8
    elif located.paths[0] is None:
        assert name in located.problems[0]
    else:
        with pytest.raises(ImageReadError) as caught:
            read_pixels(located.paths[0], 32, "bilinear")
        assert name in str(caught.value)

    result = tripletkit("audit", triplet_file, images, code=0)
    found = "! names without exactly one" in result.stdout or "! cannot be dec" in result.stdout
    assert found == (entry["expected"] == "error")


@pytest.mark.parametrize("entry", manifest(HOSTILE / "triplets" / "manifest.csv"))
def test_triplet_file_behaves_as_its_manifest_says(tripletkit, entry):
    images, path = HOSTILE / "images", HOSTILE / "triplets" / entry["file"]
    result = tripletkit("audit", path, images, "--strict")
    assert result.exception is None or isinstance(result.exception, SystemExit)
    assert len(result.output) < 20_000
    try:
        triplets = read_triplets(path)
        for image in open_images(images, triplets.names, triplets.first_places()).paths:
            read_image(image)
    except TripletkitError as error:
        assert entry["expected"] in ("error", "either")
        assert str(path) in str(error) or isinstance(error, ImageReadError)
        assert len(str(error)) < 2_000
        assert result.exit_code == 1
    else:
        assert entry["expected"] in ("ok", "either")
        assert len(triplets) == int(entry["triplets"])
        assert all(path.is_file() for path in open_images(images, triplets.names).paths)

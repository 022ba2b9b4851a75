"""Fixtures that many test modules share."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner
from PIL import Image, ImageDraw

from tripletkit import defaults

SHARED = Path(__file__).parents[2] / "shared"


@pytest.fixture(autouse=True)
def cache_dir(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A feature store of this test's own, so that no test sees the user's."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv(defaults.CACHE_VARIABLE, str(folder))
    return folder


@pytest.fixture
def runner() -> CliRunner:
    return CliRunner()


@pytest.fixture(scope="session")
def shared() -> Path:
    """The development data beside the repository; the test is skipped where it is missing."""
    if not (SHARED / "data").is_dir():
        pytest.skip("needs the development data beside the repository")
    return SHARED / "data"


@pytest.fixture(scope="session")
def toy_images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of eight drawn pictures: `red0.png` to `red3.png`, `blue0.png` to `blue3.png`."""
    folder = tmp_path_factory.mktemp("toy_images")
    for colour in ("red", "blue"):
        for number in range(4):
            image = Image.new("RGB", (48, 40), "white")
            corner = (4 + 6 * number, 5 + 3 * number)
            box = [*corner, corner[0] + 18, corner[1] + 14]
            draw = ImageDraw.Draw(image)
            (draw.ellipse if colour == "red" else draw.rectangle)(box, fill=colour)
            image.save(folder / f"{colour}{number}.png")
    return folder


@pytest.fixture
def triplet_file(tmp_path: Path) -> Path:
    """A file of 24 judgements over the toy pictures: like goes with like."""
    path = tmp_path / "triplets.txt"
    lines = [
        f"{colour}{i}.png {colour}{j}.png {other}{(i + j) % 4}.png\n"
        for colour, other in (("red", "blue"), ("blue", "red"))
        for i in range(4)
        for j in range(4)
        if i != j
    ]
    path.write_text("".join(lines))
    return path

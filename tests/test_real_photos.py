"""Real photos and features of a real network: a few hundred are enough to learn from."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import pytest
from conftest import read_record, run_command

from tripletkit import defaults

pytestmark = [pytest.mark.shared, pytest.mark.weights, pytest.mark.slow]


class Photos(NamedTuple):
    """A third of the training photos, and questions about 80 others."""

    images: Path
    labels: Path
    train: Path
    val: Path
    val_truth: Path
    cache: Path


@pytest.fixture(scope="module")
def photos(shared, tmp_path_factory) -> Photos:
    clothing, folder = shared / "clothing", tmp_path_factory.mktemp("photos")

    def lines_of(name: str) -> list[str]:
        return (clothing / name).read_text().splitlines(keepends=True)

    def write(name: str, lines: list[str]) -> Path:
        (folder / name).write_text("".join(lines))
        return folder / name

    asked, truths = lines_of("val.txt"), lines_of("val_truth.csv")
    val_images = sorted({name for line in asked for name in line.split()})
    chosen = set(val_images[:80])
    rows = [row for row, line in enumerate(asked) if chosen.issuperset(line.split())]
    train = lines_of("train.txt")
    learned = set(sorted({name for line in train for name in line.split()})[::3])
    head, *labels = lines_of("labels.csv")
    known = learned | chosen
    return Photos(
        clothing / "images",
        write("labels.csv", [head, *(row for row in labels if row.partition(",")[0] in known)]),
        write("train.txt", [line for line in train if learned.issuperset(line.split())]),
        write("val.txt", [asked[row] for row in rows]),
        write("val_truth.csv", [truths[0], *(truths[row + 1] for row in rows)]),
        folder / "cache",
    )


def train(photos: Photos, output: Path, *given: object) -> dict:
    """Train by the command line on features that the tests share, and return the record."""
    fixed = ["--backbone", "efficientnet-lite0", "--epochs", 40, "-o", output]
    val = ["--val", photos.val, "--val-truth", photos.val_truth]
    cache = {defaults.CACHE_VARIABLE: str(photos.cache)}
    run_command("train", *given, *val, *fixed, env=cache, code=0)
    return read_record(output)


def test_triplets_are_learnt(photos, tmp_path):
    score = train(photos, tmp_path / "m", photos.train, photos.images)["validation"]["trained"]
    assert score["n"] > 100
    assert score["accuracy"] > 0.8

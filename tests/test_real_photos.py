"""Real photos and features of a real network: a few hundred are enough to learn from."""

import pytest
from conftest import read_record

pytestmark = [pytest.mark.shared, pytest.mark.weights, pytest.mark.slow]


def test_triplets_are_learnt(tripletkit, shared, tmp_path):
    """A third of the training photos, and questions about 80 others."""

    def lines_of(name):
        return (shared / "clothing" / name).read_text().splitlines(keepends=True)

    def images_in(lines):
        return sorted({name for line in lines for name in line.split()})

    train, asked, truths = map(lines_of, ("train.txt", "val.txt", "val_truth.csv"))
    learned, chosen = set(images_in(train)[::3]), set(images_in(asked)[:80])
    rows = [row for row, line in enumerate(asked) if chosen.issuperset(line.split())]
    texts = {
        "train.txt": [line for line in train if learned.issuperset(line.split())],
        "val.txt": [asked[row] for row in rows],
        "truth.csv": [truths[0], *(truths[row + 1] for row in rows)],
    }
    for name, lines in texts.items():
        (tmp_path / name).write_text("".join(lines))
    val = ["--val", tmp_path / "val.txt", "--val-truth", tmp_path / "truth.csv"]
    fixed = ["--backbone", "efficientnet-lite0", "--epochs", 40, "-o", tmp_path / "m"]
    given = (tmp_path / "train.txt", shared / "clothing" / "images")
    tripletkit("train", *given, *val, *fixed, code=0)
    score = read_record(tmp_path / "m")["validation"]["trained"]
    assert score["n"] > 100
    assert score["accuracy"] > 0.8

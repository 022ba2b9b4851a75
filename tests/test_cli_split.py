"""`tripletkit split`: the price on stdout, talk on stderr, files that read back."""

from __future__ import annotations

import json

import pytest
from opened import read_triplets


@pytest.fixture
def clustered_file(tmp_path):
    path = tmp_path / "clustered.txt"
    lines = [
        f"p{c}a p{c}b p{c}{x}\np{c}a p{c}{x} p{c}{y}\n" for c in range(50) for x, y in ("cd", "ef")
    ]
    path.write_text("".join(lines))
    return path


@pytest.mark.parametrize("by", ["image", "component", "random"])
def test_split_writes_files_that_read_back(tripletkit, clustered_file, tmp_path, by):
    folder = tmp_path / "made" / "split"
    before = clustered_file.read_bytes()
    result = tripletkit("split", clustered_file, "-o", folder, "--by", by, "--json", code=0)
    price = json.loads(result.stdout)
    assert price["by"] == by
    assert len(read_triplets(folder / "train.txt")) == price["n_train"]
    assert len(read_triplets(folder / "val.txt")) == price["n_val"]
    assert len((folder / "val_truth.csv").read_text().splitlines()) == price["n_val"] + 1
    assert price["n_train"] + price["n_val"] + price["n_dropped"] == 200
    assert ("warning" in result.stderr) == (by == "random")
    assert clustered_file.read_bytes() == before


@pytest.mark.slow
def test_split_writes_folds(tripletkit, clustered_file, tmp_path):
    arguments = ["split", str(clustered_file), "-o", str(tmp_path / "f"), "--by", "image"]
    result = tripletkit(*arguments, "--folds", "3", "--json")
    folds = json.loads(result.stdout)["folds"]
    assert len(folds) == 3
    for number, price in enumerate(folds, 1):
        val = read_triplets(tmp_path / "f" / f"fold{number}" / "val_triplets.txt")
        assert len(val) == price["n_val"]


def test_split_reads_stdin_and_warns_of_degenerate_triplets(tripletkit, tmp_path):
    arguments = ["split", "-", "-o", str(tmp_path / "s"), "--by", "component"]
    result = tripletkit(
        *arguments, "--val-fraction", "0.5", input=b"a a b\nc d e\nf g h\ni j k\n", code=0
    )
    assert "warning: <stdin>: 1 triplets name one image twice" in result.stderr


def test_split_says_what_to_try_when_it_cannot(tripletkit, tmp_path):
    path = tmp_path / "t.txt"
    path.write_text("a b c\na c d\n")
    result = tripletkit("split", path, "-o", tmp_path / "s", "--by", "component", code=1)
    assert "Try --by image" in result.stderr
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize(
    "options",
    [["--folds", "3", "--val-fraction", "0.2"], ["--val-fraction", "1"], ["--folds", "1"]],
)
def test_split_called_wrongly_exits_2(tripletkit, clustered_file, tmp_path, options):
    arguments = ["split", str(clustered_file), "-o", str(tmp_path / "s"), "--by", "image"]
    tripletkit(*arguments, *options, code=2)

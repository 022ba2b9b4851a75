"""`tripletkit mine` as a person and a script see it."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pandas as pd
import pytest
from opened import read_triplets
from plain import triplet_margins

COLOURS = ["red", "lime", "blue", "yellow", "black", "magenta"]
ALL = ["--positive-quantiles", 0, 1, "--negative-quantiles", 0, 1]


@pytest.fixture
def mine(tripletkit, tiny_backbone):
    def run(*arguments, **extra):
        return tripletkit("mine", *arguments, "--backbone", "tiny", **extra)

    return run


@pytest.fixture
def features(tripletkit, tiny_backbone, toy_competition, tmp_path):
    """Features of `p00.png` to `p59.png`."""
    path = tmp_path / "features.npz"
    arguments = ["embed", str(toy_competition.images), "--backbone", "tiny", "-o", str(path)]
    tripletkit(*arguments, code=0)
    return np.load(path)["vectors"]


def number_of(name):
    return int(name[1:3])


def test_the_cuts_are_kept_and_told(mine, labels_file, toy_competition, tmp_path):
    output = tmp_path / "mined.csv"
    result = mine(
        *(labels_file, toy_competition.images, "-o", output, "--json"),
        *("--positive-quantiles", 0.1, 0.8, "--negative-quantiles", 0.2, 0.6),
    )
    summary = json.loads(result.stdout)
    table = pd.read_csv(output)
    for kind, quantiles in (("positives", [0.1, 0.8]), ("negatives", [0.2, 0.6])):
        of_kind = summary[kind]
        mined = table.loc[table["kind"] == kind[:-1], "distance"]
        assert of_kind["quantiles"] == quantiles
        assert of_kind["low"] < of_kind["high"]
        assert mined.between(of_kind["low"] - 1e-6, of_kind["high"] + 1e-6).all()
        assert of_kind["mined"] == len(mined)
    assert summary["positives"]["pairs"] == 6 * 10 * 9 // 2
    assert summary["negatives"]["pairs"] == 15 * 10 * 10
    assert 0 <= summary["overlap"] <= 1


@pytest.mark.slow
def test_the_distribution_is_drawn_the_same_each_time(mine, labels_file, toy_competition, tmp_path):
    paths = [tmp_path / f"{number}.svg" for number in range(2)]
    for path in paths:
        result = mine(labels_file, toy_competition.images, "--plot", path, code=0)
        assert f"Drew {path}." in result.stderr
    assert paths[0].read_bytes() == paths[1].read_bytes()
    for part in ("Distances of 60 images of 6 classes", "cosine distance", "of negatives"):
        assert part in paths[0].read_text()


def test_a_folder_for_each_class_and_copies_count_once(mine, toy_competition, tmp_path):
    images = tmp_path / "images"
    for number, label in enumerate(toy_competition.labels):
        folder = images / COLOURS[label]
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(toy_competition.images / f"p{number:02}.png", folder)
    plain, copied = tmp_path / "plain.csv", tmp_path / "copied.csv"
    assert mine(images, images, "-o", plain, *ALL).exit_code == 0
    shutil.copy(images / "red" / "p00.png", images / "red" / "zz a copy.png")
    result = mine(images, images, "-o", copied, *ALL)
    assert "Copies of other images, left out: 1." in result.stderr
    assert plain.read_bytes() == copied.read_bytes()
    shutil.copy(images / "red" / "p00.png", images / "blue" / "zz.png")
    result = mine(images, images, "-o", copied, "--force", code=1)
    assert "expected one label for one image" in result.stderr


def test_a_class_of_one_image_is_said_and_only_a_negative(
    mine, labels_file, toy_competition, tmp_path
):
    text = labels_file.read_text().replace("p07.png,lime", "p07.png,olive")
    labels_file.write_text(text)
    output = tmp_path / "mined.csv"
    result = mine(labels_file, toy_competition.images, "-o", output, "--per-image", 60, *ALL)
    assert "Singleton classes, whose image can only be a negative: 1 (olive)." in result.stderr
    table = pd.read_csv(output)
    assert set(table.loc[table["anchor"] == "p07.png", "kind"]) == {"negative"}
    assert set(table.loc[table["other"] == "p07.png", "kind"]) == {"negative"}
    assert "1" in result.stdout.splitlines()[2].split()[-1]


@pytest.mark.slow
def test_the_hardest_of_ones_own_triplets(mine, toy_competition, features, tmp_path):
    output, triplets_out = tmp_path / "hard.csv", tmp_path / "hard.txt"
    result = mine(
        *("--triplets", toy_competition.train, toy_competition.images, "--keep", 37),
        *("-o", output, "--triplets-out", triplets_out, "--plot", tmp_path / "h.svg", "--json"),
        code=0,
    )
    asked = read_triplets(toy_competition.train)
    rows = np.array([number_of(name) for name in asked.names])[asked.rows]
    margins = triplet_margins(features, rows, "cosine")
    expected = np.argsort(margins, kind="stable")[:37]
    table = pd.read_csv(output)
    assert (table["line"] - 1).tolist() == expected.tolist()
    np.testing.assert_allclose(table["margin"], margins[expected], atol=1e-6)
    np.testing.assert_allclose(
        table["to_negative"] - table["to_positive"], table["margin"], atol=1e-6
    )
    lines = toy_competition.train.read_text().splitlines()
    assert triplets_out.read_text().splitlines() == [lines[row] for row in expected]
    summary = json.loads(result.stdout)
    assert summary["all"]["triplets"] == 400
    assert summary["kept"]["highest_margin"] == pytest.approx(margins[expected[-1]], abs=1e-6)
    assert (tmp_path / "h.svg").stat().st_size > 1000


@pytest.mark.parametrize(
    ("keep", "expected"), [("0.25", 100), ("25%", 100), ("7", 7), ("1.0", 400)]
)
def test_keep_is_a_count_or_a_share(mine, toy_competition, keep, expected):
    result = mine(
        "--triplets", toy_competition.train, toy_competition.images, "--keep", keep, "--json"
    )
    assert json.loads(result.stdout)["kept"]["triplets"] == expected


def test_outputs_appear_all_or_none(mine, labels_file, toy_competition, tmp_path, monkeypatch):
    def fail(*_arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tripletkit.api.class_labels.write_triplet_lines", fail)
    output, triplets_out = tmp_path / "mined.csv", tmp_path / "hard.txt"
    before = "anchor,other,kind,distance,rank\n"
    output.write_text(before)
    result = mine(
        labels_file,
        toy_competition.images,
        *("-o", output, "--triplets-out", triplets_out, "--force"),
        code=1,
    )
    assert "No space left" in result.stderr
    assert output.read_text() == before
    assert {path.name for path in tmp_path.iterdir()} == {"labels.csv", "mined.csv"}


def test_the_table_of_mined_rows_holds_no_formulas(mine, labels_file, toy_competition, tmp_path):
    images = shutil.copytree(toy_competition.images, tmp_path / "images")
    labels = tmp_path / "formulas.csv"
    table = pd.read_csv(labels_file, dtype=str)
    for name in table["name"]:
        file = next(images.glob(f"{name}*"))
        file.rename(images / f"={file.name}")
    table.assign(name="=" + table["name"]).to_csv(labels, index=False)
    hard = tmp_path / "hard.txt"
    assert mine(labels, images, "-o", tmp_path / "m.csv", "--triplets-out", hard).exit_code == 0
    mined = pd.read_csv(tmp_path / "m.csv", dtype=str)
    assert mined["anchor"].str.startswith("'=").all()
    assert hard.read_text().startswith("=")


def test_unreadable_images_can_be_left_out(mine, labels_file, toy_competition, tmp_path):
    images = shutil.copytree(toy_competition.images, tmp_path / "images")
    (images / "p03.png").write_text("no image")
    assert mine(labels_file, images).exit_code == 1
    result = mine(labels_file, images, "--on-bad-image", "skip", "--json")
    assert json.loads(result.stdout)["images"] == 59
    result = mine("--triplets", toy_competition.train, images, "--on-bad-image", "skip", "--json")
    assert json.loads(result.stdout)["all"]["triplets"] < 400
    one = tmp_path / "one.txt"
    one.write_text("p03 p01 p02\n")
    result = mine("--triplets", one, images, "--on-bad-image", "skip", code=1)
    assert "expected triplets of three images that can be read" in result.stderr


def test_wrong_calls_are_refused(mine, labels_file, toy_competition, tmp_path):
    images, train = toy_competition.images, toy_competition.train
    one_class = tmp_path / "one.csv"
    one_class.write_text("name,label\np00.png,a\np01.png,a\n")
    for arguments, exit_code, message in [
        ([], 2, "Missing argument 'IMAGES'"),
        ([images], 2, "expected LABELS before the images, or --triplets"),
        ([labels_file, labels_file], 2, "is not a folder"),
        ([labels_file, images, "--triplets", train], 2, "in the place of LABELS"),
        (["--triplets", train, images, "--per-image", 3], 2, "--per-image is for LABELS"),
        (["--triplets", train, images, "--negative-quantiles", 0, 1], 2, "is for LABELS"),
        ([labels_file, images, "--keep", 3], 2, "--keep is for --triplets"),
        (["--triplets", train, images, "--keep", "0"], 2, "expected a count such as 500"),
        (["--triplets", train, images, "--keep", "1.5"], 2, "expected a count such as 500"),
        (["--triplets", train, images, "--keep", "nan"], 2, "expected a count such as 500"),
        ([labels_file, images, "--positive-quantiles", 0.5, 0.2], 2, "a lower and a higher"),
        ([labels_file, images, "--positive-quantiles", 0.5, 2], 2, "not in the range"),
        ([labels_file, images, "-o", labels_file], 1, "is read, and would be overwritten"),
        ([labels_file, images, "--model", tmp_path], 2, "--backbone needs no --model"),
        ([labels_file, images, "--plot", tmp_path / "p.txt"], 1, "expected a name that ends"),
        ([labels_file, images, "-o", tmp_path / "none" / "m.csv"], 1, "does not exist"),
        ([one_class, images], 1, "expected images of at least two classes"),
    ]:
        result = mine(*arguments)
        assert (result.exit_code, result.stdout) == (exit_code, ""), (arguments, result.stderr)
        assert message in result.stderr, arguments

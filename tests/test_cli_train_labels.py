"""`tripletkit train --labels`: from classes of images to a model that tells them apart."""

from __future__ import annotations

import shutil

import numpy as np
import pandas as pd
import pytest
from conftest import read_record


@pytest.fixture
def labelled(toy_competition, tmp_path):
    """The toy images as a folder with a CSV and, by links, as a folder per class."""
    folder = tmp_path / "images"
    rows = ["name,label"]
    for number, label in enumerate(toy_competition.labels):
        name = f"p{number:02}.png"
        place = folder / f"colour{label}" / name
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(toy_competition.images / name, place)
        rows.append(f"{name},colour{label}")
    table = tmp_path / "labels.csv"
    table.write_text("\n".join(rows) + "\n")
    return toy_competition, table, folder


@pytest.fixture
def train(tripletkit, tiny_backbone, tmp_path):
    def run(*arguments, **extra):
        fixed = ["--backbone", "tiny", "-o", tmp_path / "m", "--force", "--epochs", 3]
        return tripletkit("train", *arguments, *fixed, **extra)

    return run


@pytest.mark.slow
def test_center_loss_keeps_its_centers_with_the_model(labelled, train, tmp_path):
    toy, table, _ = labelled
    table.write_text(table.read_text().replace(",colour", ",'=colour"))
    train(toy.images, "--labels", table, "--loss", "center", "--dim", 5, code=0)
    path = tmp_path / "m" / "class_centers.csv"
    centers = pd.read_csv(path, index_col="label")
    assert list(centers.index) == [f"'=colour{number}" for number in range(6)]
    assert centers.shape == (6, 5)
    assert (np.linalg.norm(centers, axis=1) <= 1 + 1e-6).all()
    assert train(toy.images, "--labels", table).exit_code == 0
    assert not path.exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        ["--mining", "batch-all", "-s", "reduction=active", "--distance", "squared-l2"],
        ["--mining", "semi-hard", "-s", "inject_positives=true", "-s", "refresh=1"],
        ["--loss", "triplet+cross-entropy", "-s", "cross_entropy_weight=0.5"],
        ["--loss", "ratio", "--recipe", "residual", "--unseen-classes", 0.3],
    ],
)
def test_ways_of_learning_go_together_and_answer(labelled, train, tripletkit, tmp_path, options):
    toy, table, _ = labelled
    train(toy.train, toy.images, "--labels", table, *options, code=0)
    answered = tripletkit("predict", toy.test, "--model", tmp_path / "m", code=0)
    assert len(answered.stdout.splitlines()) == 201


@pytest.mark.slow
@pytest.mark.usefixtures("undrawn_figures")
def test_a_report_says_that_there_is_no_file_of_the_triplets(labelled, train, tripletkit, tmp_path):
    toy, table, _ = labelled
    assert train(toy.images, "--labels", table).exit_code == 0
    result = tripletkit("report", tmp_path / "m", "-o", tmp_path / "r", code=1)
    assert "they were drawn from labels. Give some with --triplets" in result.stderr
    asked = ["--triplets", toy.test, "--truth", toy.truth, "-o", tmp_path / "r.html"]
    result = tripletkit("report", tmp_path / "m", *asked, code=0)
    assert "(they were drawn from labels), so names are not scored" in result.stderr


@pytest.mark.slow
def test_images_to_validate_on_can_be_named(labelled, train, tmp_path):
    _, _, folder = labelled
    shutil.move(folder / "colour0", tmp_path / "colour0")
    (folder / "train").mkdir()
    (folder / "val" / "colour1").mkdir(parents=True)
    for number in range(1, 6):
        shutil.move(folder / f"colour{number}", folder / "train")
    for name in ("p01.png", "p07.png"):
        shutil.move(folder / "train" / "colour1" / name, folder / "val" / "colour1")
    (folder / "val" / "colour2").mkdir()
    for name in ("p02.png", "p08.png"):
        shutil.move(folder / "train" / "colour2" / name, folder / "val" / "colour2")
    train(folder, "--labels", folder / "train", "--val-labels", folder / "val", code=0)
    scores = read_record(tmp_path / "m")["classification"]["trained"]
    assert (scores["n_queries"], scores["n_reference"]) == (4, 46)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "Missing argument 'IMAGES'"),
        (["IMAGES"], "says nothing of which images are alike: give TRIPLETS, or --labels"),
        (["TRAIN", "IMAGES", "--loss", "center"], "--loss center needs --labels"),
        (["TRAIN", "IMAGES", "--mining", "semi-hard"], "--mining semi-hard needs --labels"),
        (["IMAGES", "--labels", "TABLE", "--loss", "centre"], 'Did you mean "center"?'),
        (
            ["IMAGES", "--labels", "TABLE", "--loss", "center", "--mining", "batch-all"],
            "--loss center looks at no triplets to mine",
        ),
        (
            ["IMAGES", "--labels", "TABLE", "--loss", "ratio", "-s", "reduction=active"],
            "every triplet is active under a margin that never ends",
        ),
        (
            ["IMAGES", "--labels", "TABLE", "--loss", "ratio", "-s", "margin=0.3"],
            "-s margin needs a loss with a margin",
        ),
        (
            ["IMAGES", "--labels", "TABLE", "-s", "refresh=3"],
            "-s refresh needs -s inject_positives=True",
        ),
        (
            ["IMAGES", "--labels", "TABLE", "-s", "inject_positives=true"],
            "-s inject_positives needs --mining",
        ),
        (["IMAGES", "--labels", "TABLE", "-s", "center_decay=0.5"], "needs --loss center"),
        (["IMAGES", "--labels", "TABLE", "-s", "center_weight=0"], "needs --loss center"),
        (
            ["IMAGES", "--labels", "TABLE", "--loss", "center", "--recipe", "best"],
            "takes no --loss",
        ),
        (["IMAGES", "--labels", "TABLE", "--split", "image"], "--split is for a triplet file"),
        (["TRAIN", "IMAGES", "--val-labels", "TABLE"], "--val-labels goes with --labels"),
    ],
)
def test_wrong_calls(labelled, train, arguments, message):
    toy, table, _ = labelled
    places = {"IMAGES": toy.images, "TABLE": table, "TRAIN": toy.train}
    result = train(*(places.get(argument, argument) for argument in arguments))
    assert (result.exit_code, result.stdout) == (2, "")
    assert message in " ".join(result.stderr.split())


def test_one_class_is_too_few(labelled, train):
    toy, table, _ = labelled
    table.write_text("name,label\np00.png,a\np06.png,a\np12.png,a\n")
    result = train(toy.images, "--labels", table, code=1)
    assert "at least two classes" in result.stderr

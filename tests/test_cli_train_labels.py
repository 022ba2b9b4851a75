"""`tripletkit train --labels`: from classes of images to a model that tells them apart."""

from __future__ import annotations

import shutil

import numpy as np
import pandas as pd
import pytest
from conftest import read_record
from drawn import COLOURS


@pytest.fixture
def train(tripletkit, tiny_backbone, tmp_path):
    def run(*arguments, **extra):
        fixed = ["--backbone", "tiny", "-o", tmp_path / "m", "--force", "--epochs", 3]
        return tripletkit("train", *arguments, *fixed, **extra)

    return run


@pytest.mark.slow
@pytest.mark.usefixtures("undrawn_figures")
def test_center_loss_keeps_its_centers_with_the_model(
    toy_competition, labels_file, train, tripletkit, tmp_path
):
    images = toy_competition.images
    labels_file.write_text(labels_file.read_text().replace("png,", "png,'="))
    train(images, "--labels", labels_file, "--loss", "center", "--dim", 5, code=0)
    path = tmp_path / "m" / "class_centers.csv"
    centers = pd.read_csv(path, index_col="label")
    assert list(centers.index) == sorted(f"'={colour}" for colour in COLOURS)
    assert centers.shape == (6, 5)
    assert (np.linalg.norm(centers, axis=1) <= 1 + 1e-6).all()
    train(images, "--labels", labels_file, code=0)
    assert not path.exists()
    # There is no file of the triplets that a report could show.
    result = tripletkit("report", tmp_path / "m", "-o", tmp_path / "r", code=1)
    assert "they were drawn from labels. Give some with --triplets" in result.stderr
    asked = ["--triplets", toy_competition.test, "--truth", toy_competition.truth]
    result = tripletkit("report", tmp_path / "m", *asked, "-o", tmp_path / "r.html", code=0)
    assert "(they were drawn from labels), so names are not scored" in result.stderr


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
def test_ways_of_learning_go_together_and_answer(
    toy_competition, labels_file, train, tripletkit, tmp_path, options
):
    toy = toy_competition
    train(toy.train, toy.images, "--labels", labels_file, *options, code=0)
    answered = tripletkit("predict", toy.test, "--model", tmp_path / "m", code=0)
    assert len(answered.stdout.splitlines()) == 201


@pytest.mark.slow
def test_images_to_validate_on_can_be_named(toy_competition, train, tmp_path):
    folder = tmp_path / "images"
    for number, label in enumerate(toy_competition.labels):
        part = "val" if number in (1, 2, 7, 8) else "train"
        place = folder / part / f"colour{label}" / f"p{number:02}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        if label:
            shutil.copy(toy_competition.images / place.name, place)
    named = ("--labels", folder / "train", "--val-labels", folder / "val")
    train(folder, *named, code=0)
    scores = read_record(tmp_path / "m")["classification"]["trained"]
    assert (scores["n_queries"], scores["n_reference"]) == (4, 46)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "Missing argument 'IMAGES'"),
        (["IMAGES"], "says nothing of which images are alike: give TRIPLETS, or --labels"),
        (["TRAIN", "IMAGES", "--loss", "center"], "--loss center needs --labels"),
        (["TRAIN", "IMAGES", "--mining", "semi-hard"], "--mining semi-hard needs --labels"),
        (["TRAIN", "IMAGES", "--val-labels", "TABLE"], "--val-labels goes with --labels"),
        (["LABELLED", "--loss", "centre"], 'Did you mean "center"?'),
        (["LABELLED", "--loss", "center", "--mining", "batch-all"], "looks at no triplets to mine"),
        (["LABELLED", "--loss", "ratio", "-s", "reduction=active"], "a margin that never ends"),
        (["LABELLED", "--loss", "ratio", "-s", "margin=0.3"], "needs a loss with a margin"),
        (["LABELLED", "-s", "refresh=3"], "-s refresh needs -s inject_positives=True"),
        (["LABELLED", "-s", "inject_positives=true"], "-s inject_positives needs --mining"),
        (["LABELLED", "-s", "center_decay=0.5"], "needs --loss center"),
        (["LABELLED", "-s", "center_weight=0"], "needs --loss center"),
        (["LABELLED", "--loss", "center", "--recipe", "best"], "takes no --loss"),
        (["LABELLED", "--split", "image"], "--split is for a triplet file"),
    ],
)
def test_wrong_calls(toy_competition, labels_file, train, arguments, message):
    places = {
        "IMAGES": [toy_competition.images],
        "LABELLED": [toy_competition.images, "--labels", labels_file],
        "TABLE": [labels_file],
        "TRAIN": [toy_competition.train],
    }
    result = train(*(each for argument in arguments for each in places.get(argument, [argument])))
    assert (result.exit_code, result.stdout) == (2, "")
    assert message in " ".join(result.stderr.split())


def test_one_class_is_too_few(toy_competition, labels_file, train):
    labels_file.write_text("name,label\np00.png,a\np06.png,a\np12.png,a\n")
    result = train(toy_competition.images, "--labels", labels_file, code=1)
    assert "at least two classes" in result.stderr

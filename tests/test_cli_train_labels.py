"""`tripletkit train --labels`: from classes of images to a model that tells them apart."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from conftest import read_record

import tripletkit as tk


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
    def run(*arguments):
        fixed = ["--backbone", "tiny", "-o", tmp_path / "m", "--force", "--epochs", 3]
        return tripletkit("train", *[*arguments, *fixed])

    return run


@pytest.mark.slow
def test_classes_of_a_table_make_a_model(labelled, train, tmp_path):
    toy, table, _ = labelled
    result = train(toy.images, "--labels", table, "--val-fraction", 0.3)
    assert result.exit_code == 0, result.output
    assert "6 classes; drew 1,050 triplets of 42 images." in result.stderr
    assert "(by class)" in result.stdout
    record = read_record(tmp_path / "m")
    assert record["classes"] == [f"colour{number}" for number in range(6)]
    assert record["inputs"]["labels"]["path"] == str(table)
    assert record["split"]["n_shared_images"] == 0
    scores = record["classification"]["trained"]
    assert (scores["n_queries"], scores["n_reference"], scores["n_classes"]) == (18, 42, 6)
    assert set(record["classification"]["training_variance"]) == {"within", "between"}
    for line in ("nearest class center", "mean average precision", "variance of embeddings"):
        assert line in result.stdout


@pytest.mark.slow
def test_center_loss_keeps_its_centers_with_the_model(labelled, train, tmp_path):
    toy, table, _ = labelled
    table.write_text(table.read_text().replace(",colour", ",'=colour"))
    result = train(toy.images, "--labels", table, "--loss", "center", "--dim", 5)
    assert result.exit_code == 0, result.output
    centers = tk.load(tmp_path / "m").folder.read_centers()
    assert list(centers.index) == [f"=colour{number}" for number in range(6)]
    lines = (tmp_path / "m" / "class_centers.csv").read_text().splitlines()[1:]
    assert all(line.startswith("'=colour") for line in lines)
    assert centers.shape == (6, 5)
    assert (np.linalg.norm(centers, axis=1) <= 1 + 1e-6).all()
    assert train(toy.images, "--labels", table).exit_code == 0
    assert tk.load(tmp_path / "m").folder.read_centers() is None


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        ["--mining", "batch-hard", "--loss", "soft-margin"],
        ["--mining", "batch-all", "-s", "reduction=active", "--distance", "squared-l2"],
        ["--mining", "semi-hard", "-s", "inject_positives=true", "-s", "refresh=1"],
        ["--loss", "triplet+cross-entropy", "-s", "cross_entropy_weight=0.5"],
        ["--loss", "ratio", "--recipe", "residual", "--unseen-classes", 0.3],
        ["--loss", "center", "--recipe", "residual", "--unseen-classes", 0],
    ],
)
def test_ways_of_learning_go_together_and_answer(labelled, train, tripletkit, tmp_path, options):
    toy, table, _ = labelled
    result = train(toy.train, toy.images, "--labels", table, *options)
    assert result.exit_code == 0, result.output
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
    result = train(folder, "--labels", folder / "train", "--val-labels", folder / "val")
    assert result.exit_code == 0, result.output
    scores = read_record(tmp_path / "m")["classification"]["trained"]
    assert (scores["n_queries"], scores["n_reference"]) == (4, 46)


def test_validation_triplets_hold_their_images_out(labelled, train, tmp_path):
    toy, table, _ = labelled
    result = train(
        toy.images, "--labels", table, "--val", toy.test, "--val-truth", toy.truth, "--json"
    )
    record = json.loads(result.stdout)
    assert record["split"]["by"] == "file"
    assert record["split"]["n_shared_images"] == 0
    assert record["classification"]["trained"]["n_reference"] == 42


@pytest.mark.slow
def test_a_class_of_one_image_is_said(labelled, train):
    toy, table, _ = labelled
    table.write_text(table.read_text().replace("p00.png,colour0", "p00.png,alone"))
    result = train(toy.images, "--labels", table)
    assert result.exit_code == 0, result.output
    assert "Singleton classes, whose image can only be a negative: 1 (alone)." in result.stderr


@pytest.mark.slow
def test_one_image_with_two_labels_is_refused(labelled, train, tmp_path):
    toy, table, _ = labelled
    copies = tmp_path / "copies"
    shutil.copytree(toy.images, copies)
    shutil.copy(copies / "p00.png", copies / "again.png")
    table.write_text(table.read_text() + "again.png,colour3\n")
    result = train(copies, "--labels", table)
    assert result.exit_code == 1
    assert 'got "colour0" for "p00.png" and "colour3" for "again.png"' in result.stderr
    table.write_text(table.read_text().replace("again.png,colour3", "again.png,colour0"))
    result = train(copies, "--labels", table)
    assert result.exit_code == 0
    assert "Copies of other images, left out: 1." in result.stderr


@pytest.mark.slow
def test_labels_of_missing_or_broken_images_are_refused_by_name(labelled, train, tmp_path):
    toy, table, _ = labelled
    broken = tmp_path / "broken"
    shutil.copytree(toy.images, broken)
    (broken / "p03.png").write_bytes(b"no image")
    table.write_text(table.read_text() + "gone.png,colour3\n")
    result = train(broken, "--labels", table)
    assert result.exit_code == 1
    assert 'labels.csv: there is no image "gone.png"' in result.stderr
    result = train(broken, "--labels", table, "--on-bad-image", "skip")
    assert result.exit_code == 0, result.output
    assert "p03.png" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "Missing argument 'IMAGES'"),
        (["IMAGES"], "Give a triplet file before it, or --labels"),
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
    result = train(toy.images, "--labels", table)
    assert result.exit_code == 1
    assert "at least two classes" in result.stderr

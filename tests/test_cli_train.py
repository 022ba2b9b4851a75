"""`tripletkit train`: checks first, then a model folder that holds or an error that says why."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess

import keras
import pandas as pd
import pytest
import tensorflow as tf
from conftest import read_record
from PIL import Image

import tripletkit as tk
from tripletkit.errors import BackboneError


@pytest.fixture
def train(tripletkit, tiny_backbone, toy_competition, tmp_path):
    """Run `train` on the toy competition, quickly, into `m`."""
    toy = toy_competition

    def train(*options, triplets=toy.train, images=toy.images, epochs=("--epochs", 2), **extra):
        output = () if "-o" in options else ("-o", tmp_path / "m")
        fixed = (triplets, images, "--backbone", "tiny", *epochs, *output)
        return tripletkit("train", *fixed, *options, **extra)

    return train


@pytest.fixture
def write(tmp_path):
    def write(text, name="t.txt"):
        (tmp_path / name).write_text(text)
        return tmp_path / name

    return write


def files_of(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.slow
def test_the_same_seed_gives_the_same_answer_file(tripletkit, train, toy_competition, tmp_path):
    answers = []
    for name, seed in (("one", "3"), ("same", "3"), ("other", "4")):
        train("-o", tmp_path / name, "--seed", seed)
        path = tmp_path / f"{name}.csv"
        arguments = ["predict", toy_competition.test, "--model", tmp_path / name, "-o", path]
        tripletkit(*arguments, code=0)
        answers.append(path.read_bytes())
    assert answers[0] == answers[1] != answers[2]


@pytest.mark.parametrize(
    "options",
    [
        ["--backbone", "resnet51"],
        ["--val", "VAL", "--val-fraction", "0.2"],
        ["--val", "VAL", "--split", "image"],
        ["--val-truth", "VAL"],
        ["--val", "none.txt"],
        ["--val-fraction", "1"],
        ["--val-fraction", "nan"],
        ["-s", "dropout=nan"],
        ["-s", "margin=inf"],
        ["--epochs", "0"],
        ["--distance", "l3"],
        ["--weights", "none.h5", "--backbone", "resnet50"],
        ["--weights", "VAL", "--backbone", "auto"],
        ["--cache", "VAL"],
        ["--seed", "-1"],
        ["--recipe", "residual", "--distance", "l1"],
        ["--recipe", "wurst"],
    ],
    ids=" ".join,
)
def test_train_called_wrongly_exits_2(train, write, tmp_path, options):
    val = str(write("p00 p06 p01\n", "VAL"))
    result = train(*[val if option == "VAL" else option for option in options])
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("Usage: ")
    assert not (tmp_path / "m").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected lines of three image names"),
        ("p00 p06\n", r't.txt:1: expected 3 image names, got 2 ("p00 p06")'),
        ("p00 p06 p01\n\np00 p06 nobody\n", 't.txt:3: there is no image "nobody"'),
        ("nobody nobody p01\np00 p06 p01\n", 't.txt:1: there is no image "nobody"'),
        ("p00 p00 p01\np06 p01 p06\n", "every one names an image twice"),
    ],
)
def test_train_refuses_a_triplet_file_before_anything_slow(
    train, write, tmp_path, monkeypatch, text, message
):
    monkeypatch.setattr(
        "tripletkit.training.job.TrainingJob.open_encoder", lambda *_: pytest.fail("too late")
    )
    result = train(triplets=write(text))
    assert (result.exit_code, result.stdout) == (1, "")
    assert message in result.stderr
    assert result.stderr.count(message) == 1
    assert not (tmp_path / "m").exists()


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--val", "FILE"], 1, 'file.txt:2: there is no image "nobody"'),
        (["--val", "TEST", "--val-truth", "FILE"], 1, "expected 200 truths"),
        (["--cache", "FILE/below"], 1, "the feature store cannot be made there"),
        (["--tensorboard", "FILE/below"], 1, "the TensorBoard logs cannot be written"),
        (["--test", "TEST", "--unseen-classes", 0], 2, "leaves nothing to compare --test with"),
    ],
)
def test_what_does_not_fit_is_told(train, write, toy_competition, options, code, message):
    truth = "--val-truth" in options
    file = write("1\n0\n" if truth else "p42 p48 p43\np42 p48 nobody\n", "file.txt")
    known = {"FILE": file, "TEST": toy_competition.test, "FILE/below": file / "below"}
    result = train(*(known.get(option, option) for option in options), code=code)
    assert message in result.stderr


def test_nothing_left_after_skipping_is_an_error(train, write):
    result = train("--on-bad-image", "skip", triplets=write("p00 p06 nobody\n"), code=1)
    assert "no triplet is left for training after leaving out bad images" in result.stderr


def test_a_wrong_image_folder_is_told_with_the_one_that_is_meant(train, tmp_path, toy_competition):
    wrong = tmp_path / "photos"
    wrong.mkdir()
    result = train(images=wrong, code=1)
    assert "none of 42 images found. Is it the right folder?" in result.stderr
    shutil.copytree(toy_competition.images, tmp_path / "right")
    assert f"Did you mean {tmp_path / 'right'}?" in train(images=wrong).stderr


@pytest.mark.slow
def test_a_image_with_two_names_counts_as_one(train, write, tmp_path):
    result = train("--val", write("p00 p06.png p43.png\n", "val.txt"), code=0)
    assert "warning: 1 names stand for an image that has another name" in result.stderr
    assert "(such as 'p00' for 'p00.png')" in result.stderr
    assert "warning: 2 images are in both" in result.stderr
    assert "another name" not in train("-o", tmp_path / "other").stderr


@pytest.mark.slow
def test_copies_of_a_image_are_never_on_both_sides(train, tmp_path, toy_competition):
    images = tmp_path / "images"
    shutil.copytree(toy_competition.images, images)
    lines = toy_competition.train.read_text().splitlines()
    for name in {name for line in lines for name in line.split()}:
        shutil.copy(images / name, images / f"copy_{name}")
    doubled = tmp_path / "doubled.txt"
    copies = [" ".join(f"copy_{name}" for name in line.split()) for line in lines]
    doubled.write_text("\n".join(lines + copies) + "\n")
    result = train("--json", "--no-refit", triplets=doubled, images=images)
    # Every triplet is there twice over the same images, and so is what the split makes of it.
    alone = train("--json", "--no-refit", "-o", tmp_path / "alone")
    n_val, n_alone = (json.loads(r.stdout)["split"]["n_val"] for r in (result, alone))
    assert n_alone > 0 and n_val % 2 == 0
    assert "each image counts as one" in result.stderr


def test_no_validation_on_request(train, tmp_path):
    result = train("--val-fraction", "0", code=0)
    assert "all for training\n" in result.stdout
    assert "validation accuracy" not in result.stderr
    record = read_record(tmp_path / "m")
    assert record["validation"] is None
    assert record["best_epoch"] == 2


def test_one_triplet_is_enough_to_train(train, write):
    result = train(triplets=write("p00 p06 p01\n"), code=0)
    assert "Training goes on without validation." in result.stderr
    asked = train("--val-fraction", "0.5", "--force", triplets=write("p00 p06 p01\n"))
    assert (asked.exit_code, asked.stdout) == (1, "")


def test_a_collapse_ends_without_a_model(train, write, tmp_path, toy_competition):
    images = tmp_path / "images"
    images.mkdir()
    for number in range(4):
        # The same pixels in other bytes: equal files would count as one image.
        image = Image.open(toy_competition.images / "p00.png")
        image.save(images / f"p{number}.png", compress_level=number)
    result = train(triplets=write("p0 p1 p2\np1 p2 p3\n"), images=images)
    assert (result.exit_code, result.stdout) == (1, "")
    assert "training collapsed: all embeddings are alike" in result.stderr
    # Features that are alike are named as the cause, not how fast it learned.
    assert "features of 100%" in result.stderr and "learning_rate" not in result.stderr
    assert not (tmp_path / "m").exists()


@pytest.mark.slow
def test_bad_images_fail_or_are_left_out(train, write, tmp_path, toy_competition):
    images = tmp_path / "images"
    shutil.copytree(toy_competition.images, images)
    (images / "p01.png").write_bytes(b"no image")
    triplets = write(toy_competition.train.read_text() + "p00.png p06.png nobody\n")
    missing = train(triplets=triplets, images=images, code=1)
    assert 't.txt:401: there is no image "nobody"' in missing.stderr
    broken = train(triplets=toy_competition.train, images=images, code=1)
    assert "p01.png: expected an image, cannot be read" in broken.stderr
    assert "--on-bad-image skip" in broken.stderr
    assert not (tmp_path / "m").exists()
    result = train("--on-bad-image", "skip", triplets=triplets, images=images, code=0)
    assert "warning: 2 images are left out:" in result.stderr
    assert "p01.png: expected an image" in result.stderr
    record = read_record(tmp_path / "m")
    assert (record["n_images"], record["n_bad_images"]) == (41, 2)
    assert record["split"]["n_train"] + record["split"]["n_val"] < 401
    (tmp_path / "unread.txt").write_text("p01.png nobody none\n")
    asked = ("--test", tmp_path / "unread.txt", "--unseen-classes", 0.3, "--force")
    unread = train("--on-bad-image", "skip", *asked, triplets=triplets, images=images, code=1)
    assert "expected an image of the test that can be read, got none" in unread.stderr


def test_a_place_that_is_no_model_is_refused_before_anything_slow(
    train, write, tmp_path, monkeypatch
):
    monkeypatch.setattr(
        "tripletkit.training.job.TrainingJob.open_encoder", lambda *_: pytest.fail("too late")
    )
    monkeypatch.chdir(tmp_path)
    mine = write("mine", "mine.txt")
    for output in (mine, tmp_path, ".", tmp_path / "none" / "m", "/", "/dev/null"):
        result = train("-o", output, "--force")
        assert (result.exit_code, result.stdout) == (1, ""), output
        assert result.stderr.startswith(f"Error: {output}: "), output
    assert mine.read_text() == "mine"


@pytest.mark.slow
def test_a_folder_whose_name_is_not_utf8_works(train, tripletkit, toy_competition, tmp_path):
    images = tmp_path / os.fsdecode(b"caf\xe9")
    shutil.copytree(toy_competition.images, images)
    result = train("--json", images=images, code=0)
    assert json.loads(result.stdout)["images"] == str(images)
    tripletkit("predict", toy_competition.test, "--model", tmp_path / "m", code=0)
    named = train("-o", tmp_path / os.fsdecode(b"m\xe9"), code=0)
    assert "The model is in" in named.stderr


@pytest.mark.slow
def test_auto_says_which_backbone_and_why(
    tripletkit, toy_images, triplet_file, tmp_path, monkeypatch
):
    def nowhere(*_):
        raise BackboneError("the weights of resnet50 are nowhere")

    monkeypatch.setattr("tripletkit.features.backbones.KerasDownload.fetch", nowhere)
    result = tripletkit(
        "train", triplet_file, toy_images, "-o", tmp_path / "m", "--epochs", "1", code=0
    )
    reason = "efficientnet-lite0: the weights of resnet50 are nowhere"
    assert f"Backbone {reason}.\n" in result.stderr
    record = read_record(tmp_path / "m")
    assert record["backbone_reason"] == reason
    assert record["features"]["backbone"] == "efficientnet-lite0"


@pytest.mark.slow
def test_best_is_one_folder_that_answers_and_exports(tripletkit, train, toy_competition, tmp_path):
    result = train("--recipe", "best", "--test", toy_competition.test, epochs=(), code=0)
    assert "\nTest images: " in result.stdout
    record = read_record(tmp_path / "m")
    assert record["split"]["n_val"] == 0
    assert sum(part["weight"] for part in record["parts"]) == pytest.approx(1)
    assert record["unseen_classes"]["groups_from"] == "clusters"
    assert 0 <= record["unseen_classes"]["test"]["novelty"] <= 1
    whole = tripletkit("predict", toy_competition.test, "--model", tmp_path / "m").stdout
    part = tmp_path / "part.txt"
    part.write_text("\n".join(toy_competition.test.read_text().splitlines()[50:60]))
    some = tripletkit("predict", part, "--model", tmp_path / "m").stdout
    assert some.splitlines()[1:] == whole.splitlines()[51:61]
    tripletkit("export", "--model", tmp_path / "m", "-o", tmp_path / "e", code=0)
    encoder = keras.saving.load_model(tmp_path / "e" / "encoder.keras", safe_mode=True)
    n_dims = tk.load(tmp_path / "m").folder.load_head().output_shape[-1]
    assert encoder.output_shape == (None, n_dims)


@pytest.mark.slow
def test_labels_say_what_classes_are_held_out(train, labels_file, tmp_path):
    result = train("--recipe", "residual", "--labels", labels_file, "--unseen-classes", 0.4, code=0)
    assert "Trained once more without 3 of 6 classes of images" in result.stdout
    record = read_record(tmp_path / "m")
    assert record["unseen_classes"]["groups_from"] == "classes"
    assert record["settings"]["frozen_share"] > 0
    # Class centers are places among the trained embeddings alone.
    train("--recipe", "residual", "--labels", labels_file, "--loss", "center", "--force", code=0)
    assert read_record(tmp_path / "m")["settings"]["frozen_share"] == 0


@pytest.mark.slow
def test_a_training_without_some_classes_changes_nothing_of_the_model(train, tmp_path):
    result = train(code=0)
    assert "unseen classes" in result.stdout
    before = (tmp_path / "m" / "head.weights.h5").read_bytes()
    asked = train("--unseen-classes", 0, "--force")
    assert "unseen classes" not in asked.stdout
    assert read_record(tmp_path / "m")["unseen_classes"] is None
    assert (tmp_path / "m" / "head.weights.h5").read_bytes() == before


@pytest.mark.slow
def test_too_few_images_for_unseen_classes_are_told(
    tripletkit, tiny_backbone, toy_images, triplet_file, tmp_path
):
    arguments = [
        *("train", triplet_file, toy_images, "-o", tmp_path / "m", "--backbone", "tiny"),
        *("--recipe", "residual", "--epochs", 1),
    ]
    result = tripletkit(*arguments, code=0)
    assert "whole classes of images cannot be held out" in result.stderr
    refused = tripletkit(*arguments, "--unseen-classes", 0.3, "--force", code=1)
    assert "expected at least 20 images" in refused.stderr


def read_logs(folder):
    """Return {name: {epoch: value}} of the only log in a folder."""
    (path,) = folder.iterdir()
    logs: dict[str, dict[int, float]] = {}
    for record in tf.data.TFRecordDataset(str(path)):
        event = tf.compat.v1.Event.FromString(record.numpy())
        for value in event.summary.value:
            assert value.metadata.plugin_data.plugin_name == "scalars"
            logs.setdefault(value.tag, {})[event.step] = float(tf.make_ndarray(value.tensor))
    return logs


@pytest.mark.slow
def test_logs_hold_the_history(train, tmp_path):
    train("--no-refit", "--tensorboard", tmp_path / "logs" / "run1", code=0)
    logs = read_logs(tmp_path / "logs" / "run1")
    history = pd.read_csv(tmp_path / "m" / "history.csv").set_index("epoch")
    # There are no held-out draws.
    history = history.drop(columns="held_out_accuracy")
    assert set(logs) == {f"epoch_{column}" for column in history}
    for column in history:
        assert logs[f"epoch_{column}"] == pytest.approx(history[column].to_dict(), rel=1e-6)


def test_a_kill_during_extraction_loses_one_batch(
    start_tripletkit, tripletkit, train, toy_competition, tmp_path, monkeypatch
):
    trap = f"tripletkit.features.store:FeatureStore.write/{int(signal.SIGKILL)}/2"
    process = start_tripletkit(
        *("embed", toy_competition.images, "-o", tmp_path / "e.npz", "--backbone", "tiny"),
        trap=trap,
    )
    assert process.wait(120) == -signal.SIGKILL
    assert list(tmp_path.iterdir()) == []
    resumed = train()
    assert "Features: 10 images computed, 32 from the store.\n" in resumed.stderr
    fresh = train("-o", tmp_path / "fresh", "--cache", tmp_path / "other")
    assert "Features: 42 images computed, 0 from the store.\n" in fresh.stderr
    answers = [
        tripletkit("predict", toy_competition.test, "--model", tmp_path / name)
        for name in ("m", "fresh")
    ]
    assert answers[0].stdout == answers[1].stdout
    assert answers[0].exit_code == 0


def test_a_kill_during_training_keeps_the_old_model(
    start_tripletkit, train, toy_competition, tmp_path
):
    train()
    before = files_of(tmp_path / "m")
    trap = f"tripletkit.training.head_trainer:check_collapse/{int(signal.SIGKILL)}/2"
    arguments = ["train", toy_competition.train, toy_competition.images, "-o", tmp_path / "m"]
    arguments += ["--backbone", "tiny", "--epochs", "3", "--force"]
    process = start_tripletkit(*arguments, trap=trap)
    assert process.wait(120) == -signal.SIGKILL
    assert files_of(tmp_path / "m") == before
    assert list(tmp_path.iterdir()) == [tmp_path / "m"]


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 200 kB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", folder]
    if not shutil.which("mount") or subprocess.run(mount, check=False).returncode:
        pytest.skip("needs the right to mount a small disk")
    yield folder
    # Lazily, for what a failed test may still hold open.
    subprocess.run(["umount", "-l", folder], check=True)


@pytest.mark.integration
def test_a_full_disk_is_reported_and_leaves_no_half_model(train, small_disk):
    result = train("-o", small_disk / "m", "-s", "hidden=4096")
    assert (result.exit_code, result.stdout) == (1, "")
    assert f"{small_disk / 'm'}: cannot be written: No space left" in result.stderr
    assert list(small_disk.iterdir()) == []


@pytest.mark.integration
def test_a_full_cache_is_reported(train, small_disk, tmp_path):
    (small_disk / "filler").write_bytes(b"x" * 150_000)
    result = train("--cache", small_disk)
    assert (result.exit_code, result.stdout) == (1, "")
    assert "What was stored before is kept" in result.stderr
    assert "--cache DIR" in result.stderr
    assert not (tmp_path / "m").exists()

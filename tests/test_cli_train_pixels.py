"""`tripletkit train` from pixels, and `finetune`: one file more, and every command goes on."""

from __future__ import annotations

import json
import pickle
import shutil
import signal

import h5py
import keras
import numpy as np
import pytest
from conftest import read_record
from PIL import Image

import tripletkit as tk
from tripletkit import defaults
from tripletkit.data.decoding import read_pixels

SCRATCH = ["--backbone", "cnn", "--dim", 4, "--epochs", 3, "-s", "batch_size=64"]


@pytest.fixture
def invoke(tripletkit, tiny_backbone):
    return tripletkit


@pytest.fixture
def train(invoke, toy_competition, tmp_path):
    """Run `train` on the toy competition into `m`; the test's questions are for validation."""

    def train(*options, **extra):
        return invoke(
            *("train", toy_competition.train, toy_competition.images, "-o", tmp_path / "m"),
            *("--val", toy_competition.test, "--val-truth", toy_competition.truth, *options),
            **extra,
        )

    return train


@pytest.mark.slow
@pytest.mark.usefixtures("undrawn_figures")
def test_a_network_from_scratch_serves_every_command(train, invoke, toy_competition, tmp_path):
    result = train(*SCRATCH[:-4], "--epochs", 12, "-s", "batch_size=32", code=0)
    assert "An epoch: 13 steps" in result.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m"]
    trained = tk.load(tmp_path / "m").validation.trained.accuracy
    assert trained > 0.9
    answers = tmp_path / "answers.csv"
    invoke("predict", toy_competition.test, "--model", tmp_path / "m", "-o", answers, code=0)
    result = invoke("score", answers, toy_competition.truth, "--json")
    assert json.loads(result.stdout)["accuracy"] == trained
    query = toy_competition.images / "p00.png"
    for command in (
        ["predict", toy_competition.test, "--model", tmp_path / "m", "--frozen"],
        ["embed", toy_competition.images, "--model", tmp_path / "m", "-o", tmp_path / "e.npz"],
        ["neighbors", toy_competition.images, "--model", tmp_path / "m", "--query", query],
        ["report", tmp_path / "m", "-o", tmp_path / "r.html"],
        ["export", "--model", tmp_path / "m", "-o", tmp_path / "x"],
    ):
        invoke(*command, code=0)
    encoder = keras.saving.load_model(tmp_path / "x" / "encoder.keras")
    pixels = read_pixels(query, 32, "bilinear")
    with np.load(tmp_path / "e.npz") as embeddings:
        np.testing.assert_allclose(
            encoder(pixels[None].astype(np.float32))[0], embeddings["vectors"][0], atol=1e-5
        )


@pytest.mark.slow
def test_resuming_other_data_or_settings_is_refused(invoke, toy_competition, tmp_path, monkeypatch):
    images = tmp_path / "images"
    shutil.copytree(toy_competition.images, images)
    arguments = ["train", toy_competition.train, images, *SCRATCH, "-o", tmp_path / "m"]

    def stop(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("tripletkit.training.trainer.Fitted.__init__", stop)
        result = invoke(*arguments, code=130)
    assert "m.checkpoint.npz is kept: the same call with --resume goes on." in result.stderr
    result = invoke(*arguments, "--resume", "-s", "margin=0.5", "-s", "flip=false", code=1)
    assert "margin: was 0.2, is 0.5\n  flip: was True, is False\n" in result.stderr
    before = (images / "p00.png").read_bytes()
    Image.new("RGB", (40, 36)).save(images / "p00.png")
    assert "images: was " in invoke(*arguments, "--resume", code=1).stderr
    (images / "p00.png").write_bytes(before)
    result = invoke(*arguments, "--resume", code=0)
    assert "Resuming after epoch 3 of 3." in result.stderr
    result = invoke(*arguments, "--resume", "--force")
    assert "Nothing to resume, no " in result.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    "loss",
    [
        ["--loss", "triplet+cross-entropy"],
        ["--loss", "triplet", "--mining", "batch-hard", "-s", "inject_positives=true"],
    ],
)
def test_labels_train_from_pixels(invoke, toy_competition, labels_file, tmp_path, loss):
    result = invoke("train", toy_competition.images, "--labels", labels_file, *SCRATCH, *loss,
                    "-o", tmp_path / "m", code=0)  # fmt: skip
    assert read_record(tmp_path / "m")["pixels"]["settings"]["loss"] == loss[1]
    assert " untrained\n" in result.stdout


@pytest.mark.slow
def test_a_broken_image_is_left_out_or_refused(invoke, toy_competition, tmp_path):
    images = tmp_path / "images"
    shutil.copytree(toy_competition.images, images)
    (images / "p05.png").write_bytes(b"no image")
    command = ["train", toy_competition.train, images, *SCRATCH, "-o", tmp_path / "m"]
    result = invoke(*command, code=1)
    assert "p05.png" in result.stderr
    invoke(*command, "--on-bad-image", "skip", code=0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--backbone", "tiny", "--resume"], "is for training from pixels"),
        (["--backbone", "tiny", "-s", "flip=false"], "-s flip is for training from pixels"),
        (["--backbone", "tiny", "-s", "shift=0"], "-s shift is for training from pixels"),
        (["--backbone", "cnn", "--unseen-classes", "0.2"], "leave them out where the backbone"),
        (["--backbone", "cnn", "--views", "flip"], "give no --views"),
        (["--backbone", "tiny,cnn"], "is trained from scratch, alone"),
        (["--backbone", "cnn", "--recipe", "residual"], "takes one head, by --recipe linear"),
        (["--backbone", "cnn", "-s", "members=2"], "takes one head"),
        (["--backbone", "cnn", "--image-size", "8"], "8 is not in the range 32<=x<=1024"),
    ],
)
def test_options_that_do_not_go_together_are_a_wrong_call(train, options, message):
    result = train(*options, code=2)
    assert message in " ".join(result.stderr.split())


@pytest.fixture
def model(train, tmp_path):
    """A model on the frozen backbone `tiny`."""
    train("--backbone", "tiny", "--epochs", 3, code=0)
    return tmp_path / "m"


def read_weights(path):
    """Return the arrays of a weights file by their place in it."""
    found = {}
    with h5py.File(path) as file:
        file.visititems(
            lambda name, item: found.update({name: item[()]} if hasattr(item, "shape") else {})
        )
    return found


def test_the_last_blocks_go_on_from_the_head_of_a_model(invoke, model, tmp_path):
    before = {path.name: path.read_bytes() for path in model.iterdir()}
    result = invoke("finetune", model, "-o", tmp_path / "m2", "--epochs", 2, code=0)
    said = result.stderr
    # widen: 12 channels to 24, 1x1, without a bias.
    assert "Training the last 1 of 3 blocks of tiny further, 288 of " in said
    assert said.count("epoch  2/2: ") == 1
    old, new = read_record(model), read_record(tmp_path / "m2")
    pixels = new["pixels"]
    assert (pixels["unfrozen_blocks"], pixels["n_trained_weights"]) == (1, 288)
    assert (pixels["settings"]["epochs"], new["settings"]["epochs"]) == (2, 3)
    assert pixels["head_epochs"] == 3
    assert new["features"]["weights_sha256"] == new["files"]["backbone.weights.h5"]
    # It starts where the model was, and leaves it as it was.
    assert new["validation"]["frozen_head"] == old["validation"]["trained"]
    assert new["validation"]["frozen"] == old["validation"]["frozen"]
    assert (new["inputs"], new["split"]) == (old["inputs"], old["split"])
    assert {path.name: path.read_bytes() for path in model.iterdir()} == before


@pytest.mark.slow
def test_a_model_that_has_nothing_set_apart_is_told_as_one(
    invoke, toy_competition, tmp_path, monkeypatch
):
    monkeypatch.setattr(defaults, "MAX_DRAW_ROUNDS", 1)
    given = (toy_competition.train, toy_competition.images, "--backbone", "tiny", "--epochs", 1)
    invoke("train", *given, "-o", tmp_path / "all", code=0)
    result = invoke("finetune", tmp_path / "all", "-o", tmp_path / "further", "--epochs", 1, code=0)
    assert "none is left to score fine-tuning by" in " ".join(result.stderr.split())
    assert read_record(tmp_path / "further")["validation"] is None


# Batches seen: one is measured, seven make an epoch, so the 18th is in the third; of fine-tuning
# the 14th.
@pytest.mark.parametrize(("command", "trapped"), [("train", 18), ("finetune", 14)])
def test_a_killed_training_resumes_to_the_very_same_model(
    command, trapped, invoke, start_tripletkit, toy_competition, tmp_path, request
):
    if command == "train":
        given = (toy_competition.train, toy_competition.images, *SCRATCH, "--epochs", 5)
        given += ("--val", toy_competition.test, "--val-truth", toy_competition.truth)
    else:
        given = (request.getfixturevalue("model"), "--epochs", 3)
    invoke(command, *given, "-o", tmp_path / "whole", code=0)
    killed = (command, *given, "-o", tmp_path / "killed")
    trap = f"tripletkit.training.pixel_training:_PixelTraining._see/{signal.SIGKILL:d}/{trapped}"
    with start_tripletkit(*killed, trap=trap) as process:
        _, said = process.communicate(timeout=240)
    assert process.returncode == -signal.SIGKILL, said
    assert not (tmp_path / "killed").exists()
    assert (tmp_path / "killed.checkpoint.npz").is_file()
    refused = invoke(*killed, code=1)
    assert "Go on with --resume, or begin anew with --force." in refused.stderr

    resumed = invoke(*killed, "--resume", code=0)
    after = read_record(tmp_path / "killed")["pixels"]["resumed_after_epoch"]
    assert after == 2 or command == "finetune"
    assert f"Resuming after epoch {after} of " in resumed.stderr
    assert f"epoch  {after}/" not in resumed.stderr
    for name in ("backbone.weights.h5", "head.weights.h5"):
        once, twice = (read_weights(tmp_path / run / name) for run in ("whole", "killed"))
        assert list(once) == list(twice)
        assert all(np.array_equal(once[key], twice[key]) for key in once)
    histories = [(tmp_path / run / "history.csv").read_bytes() for run in ("whole", "killed")]
    assert histories[0] == histories[1]
    assert not (tmp_path / "killed.checkpoint.npz").exists()


@pytest.mark.slow
def test_triplets_that_changed_are_asked_for(invoke, model, toy_competition, tmp_path):
    train = tmp_path / "train.txt"
    shutil.copyfile(toy_competition.train, train)
    moved = tmp_path / "moved"
    given = (train, toy_competition.images, "--backbone", "tiny", "--epochs", 1)
    invoke("train", *given, "-o", moved, code=0)
    train.write_text(train.read_text() + "p00.png p06.png p01.png\n")
    result = invoke("finetune", moved, "-o", tmp_path / "m2")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "train.txt: expected the file that " in result.stderr
    assert "it is gone or changed" in result.stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--blocks", 4], "--blocks 4: expected at most 3, as many blocks as tiny has"),
        (["-s", "margin=0.3"], "-s margin: fine-tuning takes epochs, learning_rate"),
        (["--epochs", 2, "-s", "epochs=3"], "epochs is given twice"),
        (["-s", "shift=0.7"], "-s shift: expected a number from 0 to 0.5, got 0.7"),
        (["-s", "learning_rate=nan"], "nan"),
    ],
)
def test_wrong_calls_of_fine_tuning(invoke, model, tmp_path, options, message):
    result = invoke("finetune", model, "-o", tmp_path / "m2", *options)
    assert (result.exit_code, result.stdout) == (2, ""), result.stderr
    assert message in " ".join(result.stderr.split())


@pytest.mark.slow
def test_several_backbones_cannot_be_fine_tuned(train, invoke, other_backbone, tmp_path):
    train("--backbone", "tiny,tiny-other", "--epochs", 1, code=0)
    result = invoke("finetune", tmp_path / "m", "-o", tmp_path / "m2", code=2)
    assert "several backbones or views cannot be fine-tuned" in " ".join(result.stderr.split())


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::tripletkit.TripletkitWarning")
def test_what_was_learned_from_memory_is_learned_from_further(
    toy_competition, tiny_backbone, tmp_path
):
    """Pickled or not; of one that was loaded the triplets are asked for."""
    read = tk.read_judgements(toy_competition.train).triplets
    settings = {"backbone": "tiny", "epochs": 1, "refit": False}
    model = tk.train(read.rows, toy_competition.images, names=read.names, **settings)
    model.save(tmp_path / "m")
    given = tk.Triplets.from_array(read.rows, read.names)
    loaded = tk.load(tmp_path / "m")
    with pytest.raises(tk.TripletkitError, match="or give the triplets in Python"):
        tk.finetune(loaded)
    told = []
    tuned = tk.finetune(model, epochs=1, on_epoch=lambda *each: told.append(each))
    assert [(epoch.epoch, n_epochs) for epoch, n_epochs in told] == [(1, 1)]
    assert tuned.record.inputs == model.record.inputs
    assert tuned.record.validation.frozen_head == model.validation.trained
    margins = tuned.answer(toy_competition.test).margins
    for again in (
        tk.finetune(pickle.loads(pickle.dumps(model)), epochs=1),
        tk.finetune(loaded, triplets=given, epochs=1),
    ):
        np.testing.assert_array_equal(again.answer(toy_competition.test).margins, margins)
    # Images of other triplets may be those that the head learned from.
    other = tk.finetune(tuned, triplets=read.rows[:200], names=read.names, epochs=1)
    assert other.record.validation is None
    assert len(other.judgements.triplets) == 200
    voted = read.to_frame().set_axis(["a", "b", "c"], axis=1).assign(votes_b=2, votes_c=1)
    with pytest.raises(tk.SettingsError, match="without votes"):
        tk.finetune(tuned, triplets=voted)

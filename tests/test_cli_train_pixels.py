"""`tripletkit train` from pixels: the folder has one more file, and every command goes on."""

from __future__ import annotations

import json
import signal

import keras
import numpy as np
import pytest
from conftest import read_record
from PIL import Image

import tripletkit as tk
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


def weights_of(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.suffix == ".h5"}


@pytest.mark.slow
@pytest.mark.usefixtures("undrawn_figures")
def test_a_network_from_scratch_serves_every_command(train, invoke, toy_competition, tmp_path):
    result = train(*SCRATCH[:-4], "--epochs", 12, "-s", "batch_size=32", code=0)
    assert "Pixels: 60 images, kept in memory, 0 MB." in result.stderr
    assert "Training cnn from scratch, 93,248 weights and the head.\nAn epoch: 13 steps" in (
        result.stderr
    )
    rows = {line.split("  ")[0]: line for line in result.stdout.splitlines()}
    assert float(rows["trained embeddings"].split()[2]) > 0.9
    assert "untrained network, cosine" in rows
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m"]

    model = tk.load(tmp_path / "m").folder
    assert model.record.to_dict()["settings"]["recipe"] == "linear"
    assert model.record.to_dict()["pixels"]["from_scratch"] is True
    settings = model.record.pixels.settings
    assert (settings.flip, settings.shift) == (True, 0.125)
    trained = model.record.to_dict()["validation"]["trained"]["accuracy"]

    answers = tmp_path / "answers.csv"
    result = invoke(
        "predict", toy_competition.test, "--model", tmp_path / "m", "-o", answers, code=0
    )
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
        result = invoke(*command, code=0)

    encoder = keras.saving.load_model(tmp_path / "x" / "encoder.keras")
    pixels = read_pixels(query, 32, "bilinear")
    with np.load(tmp_path / "e.npz") as embeddings:
        np.testing.assert_allclose(
            encoder(pixels[None].astype(np.float32))[0], embeddings["vectors"][0], atol=1e-5
        )


def test_a_killed_training_resumes_to_the_very_same_model(
    start_tripletkit, train, invoke, toy_competition, tmp_path
):
    assert train(*SCRATCH, "--epochs", 5).exit_code == 0
    arguments = [
        *("train", toy_competition.train, toy_competition.images, "-o", tmp_path / "killed"),
        *("--val", toy_competition.test, "--val-truth", toy_competition.truth),
        *(*SCRATCH, "--epochs", 5),
    ]
    # Batches seen: one is measured, seven make an epoch, so the 18th is in the third.
    trap = f"tripletkit.training.pixel_training:_PixelTraining._see/{signal.SIGKILL:d}/18"
    with start_tripletkit(*arguments, trap=trap) as process:
        _, said = process.communicate(timeout=240)
    assert process.returncode == -signal.SIGKILL
    assert "epoch  2/5" in said
    assert "epoch  3/5" not in said
    assert not (tmp_path / "killed").exists()
    assert (tmp_path / "killed.checkpoint.npz").is_file()

    refused = invoke(*arguments, code=1)
    assert "Go on with --resume, or begin anew with --force." in refused.stderr

    resumed = invoke(*arguments, "--resume", code=0)
    said = resumed.stderr
    assert "Resuming after epoch 2 of 5." in said
    assert "epoch  2/5" not in said
    assert weights_of(tmp_path / "killed") == weights_of(tmp_path / "m")
    assert len(weights_of(tmp_path / "m")) == 2
    history = [(tmp_path / name / "history.csv").read_text() for name in ("killed", "m")]
    assert history[0] == history[1]
    assert read_record(tmp_path / "killed")["pixels"]["resumed_after_epoch"] == 2
    assert not (tmp_path / "killed.checkpoint.npz").exists()


@pytest.mark.slow
def test_resuming_other_data_or_settings_is_refused(train, toy_competition, tmp_path, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("tripletkit.training.epochs.Fitted.__init__", stop)
        result = train(*SCRATCH)
    assert result.exit_code == 130
    assert "m.checkpoint.npz is kept: the same call with --resume goes on." in result.stderr
    result = train(*SCRATCH, "--resume", "-s", "margin=0.5", "-s", "flip=false", code=1)
    assert "margin: was 0.2, is 0.5\n  flip: was True, is False\n" in result.stderr
    assert train(*SCRATCH, "--resume", "--val-fraction", 0).exit_code == 2
    result = train(*SCRATCH, "--resume", code=0)
    assert "Resuming after epoch 3 of 3." in result.stderr
    result = train(*SCRATCH, "--resume", "--force")
    assert "Nothing to resume, no " in result.stderr


@pytest.mark.slow
def test_an_image_that_changed_is_another_training(train, toy_competition, tmp_path, monkeypatch):
    facts = []
    monkeypatch.setattr(
        "tripletkit.training.pixel_training._sha256",
        lambda *parts: facts.append(parts) or len(facts),
    )
    assert train(*SCRATCH, "--epochs", 1).exit_code == 0
    contents, names = facts[0]
    assert len(contents) == 60 * 32
    assert names.split(b"\0")[0].endswith(b".png")


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
def test_images_of_another_size_have_features_of_their_own(invoke, toy_competition, tmp_path):
    options = ["--backbone", "tiny", "--epochs", 1]
    for name, more in (("m32", []), ("m48", ["--image-size", 48]), ("again", ["--image-size", 32])):
        result = invoke(
            *("train", toy_competition.train, toy_competition.images, "-o", tmp_path / name),
            *(*options, *more),
            code=0,
        )
        computed = 0 if name == "again" else 42
        assert f"Features: {computed} images computed" in result.stderr
    records = {name: read_record(tmp_path / name) for name in ("m32", "m48", "again")}
    assert records["m32"]["features"] == records["again"]["features"]
    assert records["m48"]["features"]["input_size_px"] == 48
    result = invoke("predict", toy_competition.test, "--model", tmp_path / "m48", code=0)


@pytest.mark.slow
def test_a_broken_image_is_left_out_or_refused(invoke, toy_competition, tmp_path):
    images = tmp_path / "images"
    images.mkdir()
    for path in toy_competition.images.iterdir():
        (images / path.name).write_bytes(path.read_bytes())
    (images / "p05.png").write_bytes(b"no image")
    command = ["train", toy_competition.train, images, *SCRATCH, "-o", tmp_path / "m"]
    result = invoke(*command, code=1)
    assert "p05.png" in result.stderr
    result = invoke(*command, "--on-bad-image", "skip", code=0)
    Image.new("RGB", (32, 32)).save(images / "p05.png")


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

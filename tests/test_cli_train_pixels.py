"""`tripletkit train` from pixels: the folder has one more file, and every command goes on."""

from __future__ import annotations

import json
import signal

import keras
import numpy as np
import pytest
from PIL import Image

from tripletkit.cli.main import tripletkit
from tripletkit.cli.train_text import warn_of_weak_score
from tripletkit.data.images import read_pixels
from tripletkit.data.triplets import Triplets
from tripletkit.evaluation.baselines import Baseline
from tripletkit.evaluation.intervals import wilson_interval
from tripletkit.evaluation.validation import Validation, score_embeddings
from tripletkit.model.model_folder import load_model

SCRATCH = ["--backbone", "cnn", "--dim", 4, "--epochs", 3, "--batch-size", 64]


@pytest.fixture
def invoke(runner, tiny_backbone):
    def invoke(*arguments):
        return runner.invoke(tripletkit, [str(argument) for argument in arguments])

    return invoke


@pytest.fixture
def train(invoke, toy_competition, tmp_path):
    """Run `train` on the toy competition into `m`; the test's questions are for validation."""

    def train(*options):
        return invoke(
            *("train", toy_competition.train, toy_competition.images, "-o", tmp_path / "m"),
            *("--val", toy_competition.test, "--val-truth", toy_competition.truth, *options),
        )

    return train


def weights_of(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.suffix == ".h5"}


def test_a_network_from_scratch_serves_every_command(train, invoke, toy_competition, tmp_path):
    result = train(*SCRATCH[:-4], "--epochs", 12, "--batch-size", 32)
    assert result.exit_code == 0, result.stderr
    assert "Pixels: 60 images, kept in memory, 0 MB." in result.stderr
    assert "Training cnn from scratch, 93,248 weights and the head.\nAn epoch: 13 steps" in (
        result.stderr
    )
    rows = {line.split("  ")[0]: line for line in result.stdout.splitlines()}
    assert float(rows["trained embeddings"].split()[2]) > 0.9
    assert "untrained network, cosine" in rows
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m"]

    model = load_model(tmp_path / "m")
    assert model.record["head"]["recipe"] == "linear"
    assert model.record["pixels"]["from_scratch"] is True
    assert model.record["pixels"]["augmentation"] == {"flip": True, "shift": 0.125}
    trained = model.record["validation"]["trained"]["accuracy"]

    answers = tmp_path / "answers.csv"
    result = invoke("predict", toy_competition.test, "--model", tmp_path / "m", "-o", answers)
    assert result.exit_code == 0, result.stderr
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
        result = invoke(*command)
        assert result.exit_code == 0, result.stderr

    encoder = keras.saving.load_model(tmp_path / "x" / "encoder.keras")
    pixels = read_pixels(query, 32, "bilinear")
    with np.load(tmp_path / "e.npz") as embeddings:
        np.testing.assert_allclose(
            encoder(pixels[None].astype(np.float32))[0], embeddings["vectors"][0], atol=1e-5
        )


def test_a_killed_training_resumes_to_the_very_same_model(
    start_tripletkit, train, toy_competition, tmp_path
):
    assert train(*SCRATCH, "--epochs", 5).exit_code == 0
    arguments = [
        *("train", toy_competition.train, toy_competition.images, "-o", tmp_path / "killed"),
        *("--val", toy_competition.test, "--val-truth", toy_competition.truth),
        *(*SCRATCH, "--epochs", 5),
    ]
    # Batches seen: one is measured, seven make an epoch, so the 18th is in the third.
    trap = f"tripletkit.training.pixel_training:PixelTraining._see/{signal.SIGKILL:d}/18"
    with start_tripletkit(*arguments, trap=trap) as process:
        _, said = process.communicate(timeout=240)
    assert process.returncode == -signal.SIGKILL
    assert "epoch  2/5" in said
    assert "epoch  3/5" not in said
    assert not (tmp_path / "killed").exists()
    assert (tmp_path / "killed.checkpoint.npz").is_file()

    with start_tripletkit(*arguments) as process:
        _, said = process.communicate(timeout=240)
    assert process.returncode == 1
    assert "Go on with --resume, or begin anew with --force." in said

    with start_tripletkit(*arguments, "--resume") as process:
        _, said = process.communicate(timeout=240)
    assert process.returncode == 0, said
    assert "Resuming after epoch 2 of 5." in said
    assert "epoch  2/5" not in said
    assert weights_of(tmp_path / "killed") == weights_of(tmp_path / "m")
    assert len(weights_of(tmp_path / "m")) == 2
    history = [(tmp_path / name / "history.csv").read_text() for name in ("killed", "m")]
    assert history[0] == history[1]
    assert load_model(tmp_path / "killed").record["pixels"]["resumed_after_epoch"] == 2
    assert not (tmp_path / "killed.checkpoint.npz").exists()


def test_resuming_other_data_or_settings_is_refused(train, toy_competition, tmp_path, monkeypatch):
    from tripletkit.training import epochs as training

    def stop(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(training.TrainedHead, "__init__", stop)
        result = train(*SCRATCH)
    assert result.exit_code == 130
    assert "m.checkpoint.npz is kept: the same command with --resume goes on." in result.stderr
    result = train(*SCRATCH, "--resume", "--margin", 0.5, "--no-flip")
    assert result.exit_code == 1
    assert "augmentation flip: was True, is False\n  margin: was 0.2, is 0.5\n" in result.stderr
    assert train(*SCRATCH, "--resume", "--val-fraction", 0).exit_code == 2
    result = train(*SCRATCH, "--resume")
    assert result.exit_code == 0, result.stderr
    assert "Resuming after epoch 3 of 3." in result.stderr
    result = train(*SCRATCH, "--resume", "--force")
    assert "Nothing to resume, no " in result.stderr


def test_a_image_that_changed_is_another_training(train, toy_competition, tmp_path, monkeypatch):
    from tripletkit.cli import train_pixels

    facts = []
    monkeypatch.setattr(
        train_pixels, "_sha256", lambda *parts: facts.append(parts) or len(facts), raising=True
    )
    assert train(*SCRATCH, "--epochs", 1).exit_code == 0
    contents, names = facts[0]
    assert len(contents) == 60 * 32
    assert names.split(b"\0")[0].endswith(b".png")


def test_the_last_blocks_go_on_from_a_trained_head(train, tmp_path, tiny_weights):
    options = ["--backbone", "tiny", "--epochs", 3, "--unfreeze", 1, "--fine-tune-epochs", 2]
    result = train(*options)
    assert result.exit_code == 0, result.stderr
    said = result.stderr
    # widen: 12 channels to 24, 1x1, without a bias.
    assert "Training the last 1 of 3 blocks of tiny further, 288 of " in said
    assert "With the frozen backbone: validation accuracy " in said
    assert said.count("epoch  2/3: ") == said.count("epoch  2/2: ") == 1
    rows = {line.split("  ")[0]: line.split() for line in result.stdout.splitlines()}
    assert {"trained embeddings", "head, backbone frozen", "frozen features, cosine"} <= set(rows)
    record = load_model(tmp_path / "m").record
    assert record["pixels"]["unfrozen_blocks"] == 1
    assert record["pixels"]["n_trained_weights"] == 288
    assert record["pixels"]["settings"]["epochs"] == 2
    assert record["head"]["epochs"] == 3
    assert record["validation"]["frozen_head"]["accuracy"] == float(
        f"{record['validation']['frozen_head']['accuracy']}"
    )
    assert record["features"]["weights_sha256"] == record["files"]["backbone.weights.h5"]

    # Its head before that is the very one that a training without --unfreeze gives.
    assert train(*options[:4], "--force").exit_code == 0
    alone = load_model(tmp_path / "m").record["validation"]["trained"]
    assert alone == record["validation"]["frozen_head"]
    assert not (tmp_path / "m" / "backbone.weights.h5").exists()


def test_fine_tuning_that_makes_it_worse_says_so(capsys):
    triplets = Triplets(["a", "b", "c"], np.array([[0, 1, 2], [1, 0, 2]]), np.arange(2), "t.txt")
    good = np.array([[0.0], [0.1], [1.0]], dtype=np.float32)
    bad = np.array([[0.0], [1.0], [0.9]], dtype=np.float32)
    better, worse = (score_embeddings(embeddings, triplets, "l2") for embeddings in (good, bad))
    baselines = [Baseline("pair memory", 0.5, 2, 2, wilson_interval(1, 2))]
    warn_of_weak_score(Validation(worse, worse, baselines, frozen_head=better))
    said = capsys.readouterr().err
    assert "fine-tuning made it worse: 0.0000, and 1.0000 with the frozen backbone." in said
    assert "chance" not in said
    assert "The model that is kept is the fine-tuned one" in said
    warn_of_weak_score(Validation(better, worse, baselines, frozen_head=worse))
    assert "fine-tuning" not in capsys.readouterr().err


@pytest.mark.parametrize(
    "loss",
    [
        ["--loss", "cross-entropy"],
        ["--loss", "triplet+cross-entropy"],
        ["--loss", "triplet", "--mining", "batch-hard", "--inject-positives"],
        ["--loss", "center"],
    ],
)
def test_labels_train_from_pixels_by_every_loss(invoke, toy_competition, tmp_path, loss):
    labels = tmp_path / "labels.csv"
    names = [f"p{number:02}.png" for number in range(60)]
    labels.write_text(
        "name,label\n"
        + "".join(f"{n},{c}\n" for n, c in zip(names, toy_competition.labels, strict=True))
    )
    result = invoke("train", toy_competition.images, "--labels", labels, *SCRATCH, *loss,
                    "-o", tmp_path / "m")  # fmt: skip
    assert result.exit_code == 0, result.stderr
    assert load_model(tmp_path / "m").record["pixels"]["settings"]["loss"] == loss[1]
    assert " untrained\n" in result.stdout


def test_images_of_another_size_have_features_of_their_own(invoke, toy_competition, tmp_path):
    options = ["--backbone", "tiny", "--epochs", 1]
    for name, more in (("m32", []), ("m48", ["--image-size", 48]), ("again", ["--image-size", 32])):
        result = invoke(
            *("train", toy_competition.train, toy_competition.images, "-o", tmp_path / name),
            *(*options, *more),
        )
        assert result.exit_code == 0, result.stderr
        computed = 0 if name == "again" else 42
        assert f"Features: {computed} images computed" in result.stderr
    records = {name: load_model(tmp_path / name).record for name in ("m32", "m48", "again")}
    assert records["m32"]["features"] == records["again"]["features"]
    assert records["m48"]["features"]["input_size_px"] == 48
    assert [records[name]["format_version"] for name in ("m32", "m48")] == [1, 2]
    result = invoke("predict", toy_competition.test, "--model", tmp_path / "m48")
    assert result.exit_code == 0, result.stderr


def test_a_broken_image_is_left_out_or_refused(invoke, toy_competition, tmp_path):
    images = tmp_path / "images"
    images.mkdir()
    for path in toy_competition.images.iterdir():
        (images / path.name).write_bytes(path.read_bytes())
    (images / "p05.png").write_bytes(b"no image")
    command = ["train", toy_competition.train, images, *SCRATCH, "-o", tmp_path / "m"]
    result = invoke(*command)
    assert result.exit_code == 1
    assert "p05.png" in result.stderr
    result = invoke(*command, "--on-bad-image", "skip")
    assert result.exit_code == 0, result.stderr
    Image.new("RGB", (32, 32)).save(images / "p05.png")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--backbone", "tiny", "--resume"], "are for training from pixels: give --unfreeze"),
        (["--backbone", "tiny", "--no-flip"], "are for training from pixels"),
        (["--backbone", "tiny", "--shift", "0"], "are for training from pixels"),
        (["--backbone", "tiny", "--fine-tune-epochs", "2"], "need --unfreeze"),
        (["--backbone", "tiny", "--unfreeze", "4"], "expected at most 3, as many blocks as tiny"),
        (["--backbone", "tiny", "--unfreeze", "1", "--unseen-classes", "0.2"], "leave them out"),
        (["--backbone", "tiny", "--unfreeze", "1", "--views", "flip"], "no --views"),
        (["--backbone", "cnn", "--fourth-column", "share"], "leave them out where the backbone"),
        (["--backbone", "tiny,cnn", "--unfreeze", "1"], "give one --backbone"),
        (["--backbone", "cnn", "--unfreeze", "1"], "this one is trained as a whole"),
        (["--backbone", "cnn", "--recipe", "residual"], "takes one head, by --recipe linear"),
        (["--backbone", "cnn", "--members", "2"], "takes one head"),
        (["--backbone", "cnn", "--image-size", "8"], "8 is not in the range 32<=x<=1024"),
    ],
)
def test_options_that_do_not_go_together_are_a_wrong_call(train, options, message):
    result = train(*options)
    assert result.exit_code == 2, result.stderr
    assert message in " ".join(result.stderr.split())

"""`tripletkit finetune`: the last blocks of a model's backbone learn too."""

from __future__ import annotations

import pickle
import shutil
import signal

import h5py
import numpy as np
import pytest
from conftest import read_record

import tripletkit as tk
from tripletkit import defaults


@pytest.fixture
def invoke(tripletkit, tiny_backbone):
    return tripletkit


@pytest.fixture
def model(invoke, toy_competition, tmp_path):
    """A model on the frozen backbone `tiny`, with the test's questions for validation."""
    invoke(
        *("train", toy_competition.train, toy_competition.images, "-o", tmp_path / "m"),
        *("--val", toy_competition.test, "--val-truth", toy_competition.truth),
        *("--backbone", "tiny", "--epochs", 3),
        code=0,
    )
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
    assert "With the frozen backbone: validation accuracy " in said
    assert said.count("epoch  2/2: ") == 1
    rows = {line.split("  ")[0]: line.split() for line in result.stdout.splitlines()}
    assert {"trained embeddings", "head, backbone frozen", "frozen features, cosine"} <= set(rows)
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
    invoke(
        *("train", toy_competition.train, toy_competition.images, "-o", tmp_path / "all"),
        *("--backbone", "tiny", "--epochs", 1),
        code=0,
    )
    result = invoke("finetune", tmp_path / "all", "-o", tmp_path / "further", "--epochs", 1, code=0)
    assert "none is left to score fine-tuning by" in " ".join(result.stderr.split())
    assert read_record(tmp_path / "further")["validation"] is None


@pytest.mark.slow
def test_a_fine_tuned_model_answers_and_is_fine_tuned_again(
    invoke, model, toy_competition, tmp_path
):
    invoke("finetune", model, "-o", tmp_path / "m2", "--epochs", 1, "-s", "flip=false", code=0)
    assert read_record(tmp_path / "m2")["pixels"]["settings"]["flip"] is False
    invoke("predict", toy_competition.test, "--model", tmp_path / "m2", code=0)
    invoke("finetune", tmp_path / "m2", "-o", tmp_path / "m3", "--epochs", 1, code=0)
    start = read_record(tmp_path / "m2")["features"]["weights_sha256"]
    assert read_record(tmp_path / "m3")["pixels"]["start_weights_sha256"] == start


def test_a_killed_fine_tuning_goes_on_to_the_very_same_model(
    invoke, start_tripletkit, model, tmp_path
):
    options = ["--epochs", 3]
    invoke("finetune", model, "-o", tmp_path / "whole", *options, code=0)
    trap = f"tripletkit.training.pixel_training:_PixelTraining._see/{signal.SIGKILL:d}/14"
    killed = ["finetune", model, "-o", tmp_path / "killed", *options]
    with start_tripletkit(*killed, trap=trap) as process:
        _, said = process.communicate(timeout=240)
    assert process.returncode == -signal.SIGKILL, said
    assert (tmp_path / "killed.checkpoint.npz").is_file()
    resumed = invoke(*killed, "--resume", code=0)
    assert "Resuming after epoch " in resumed.stderr
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
    result = invoke(
        *("train", train, toy_competition.images, "-o", moved, "--backbone", "tiny"),
        *("--epochs", 1),
        code=0,
    )
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
def test_wrong_calls(invoke, model, tmp_path, options, message):
    result = invoke("finetune", model, "-o", tmp_path / "m2", *options)
    assert (result.exit_code, result.stdout) == (2, ""), result.stderr
    assert message in " ".join(result.stderr.split())


@pytest.mark.slow
def test_several_backbones_cannot_be_fine_tuned(invoke, other_backbone, toy_competition, tmp_path):
    result = invoke(
        *("train", toy_competition.train, toy_competition.images, "-o", tmp_path / "m"),
        *("--backbone", "tiny,tiny-other", "--epochs", 1),
        code=0,
    )
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

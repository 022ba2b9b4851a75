"""`tripletkit train --recipe`: one folder, one command to answer, both worlds told."""

from __future__ import annotations

import keras
import pytest
from conftest import read_record

import tripletkit as tk


@pytest.fixture
def train(tripletkit, tiny_backbone, toy_competition, tmp_path):
    def train(*options, epochs=("--epochs", 3), **extra):
        return tripletkit(
            *("train", toy_competition.train, toy_competition.images, "-o", tmp_path / "m"),
            *("--backbone", "tiny", *epochs, *options),
            **extra,
        )

    return train


@pytest.mark.slow
def test_best_is_one_folder_that_answers_and_exports(tripletkit, train, toy_competition, tmp_path):
    result = train("--recipe", "best", "--test", toy_competition.test, epochs=(), code=0)
    lines = result.stdout.splitlines()
    assert any(line.startswith("trained without them") for line in lines)
    (head,) = (row for row, line in enumerate(lines) if line.startswith("part "))
    names = {line.split("  ")[0] for line in lines[head + 1 : head + 4]}
    assert names == {"tiny, cosine", "tiny, map", "tiny, mlp"}
    (start,) = (row for row, line in enumerate(lines) if line.startswith("unseen classes"))
    assert lines[start + 1].startswith("trained embeddings")
    assert lines[start + 2].startswith("frozen features, cosine")
    assert any(line.startswith("Test images: ") for line in lines)
    record = read_record(tmp_path / "m")
    assert record["split"]["n_val"] == 0
    assert sum(part["weight"] for part in record["parts"]) == pytest.approx(1)
    weights = [candidate["weight"] for candidate in record["pooled"]["candidates"]]
    assert sum(weights) == pytest.approx(1)
    assert min(weights) >= 0
    assert record["unseen_classes"]["groups_from"] == "clusters"
    assert 0 <= record["unseen_classes"]["test"]["novelty"] <= 1
    whole = tripletkit("predict", toy_competition.test, "--model", tmp_path / "m").stdout
    part = tmp_path / "part.txt"
    part.write_text("\n".join(toy_competition.test.read_text().splitlines()[50:60]))
    some = tripletkit("predict", part, "--model", tmp_path / "m").stdout
    assert some.splitlines()[1:] == whole.splitlines()[51:61]
    tripletkit("export", "--model", tmp_path / "m", "-o", tmp_path / "e", code=0)
    encoder = keras.saving.load_model(tmp_path / "e" / "encoder.keras", safe_mode=True)
    assert encoder.output_shape == (
        None,
        tk.load(tmp_path / "m").folder.load_head().output_shape[-1],
    )


@pytest.mark.slow
def test_labels_say_what_classes_are_held_out(train, labels_file, tmp_path):
    result = train("--recipe", "residual", "--labels", labels_file, "--unseen-classes", 0.4, code=0)
    assert "Trained once more without 3 of 6 classes of images" in result.stdout
    record = read_record(tmp_path / "m")
    assert record["unseen_classes"]["groups_from"] == "classes"
    assert record["settings"]["frozen_share"] > 0
    # Class centers are places among the trained embeddings alone.
    train(
        *("--recipe", "residual", "--labels", labels_file, "--loss", "center", "--force"),
        code=0,
    )
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


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--recipe", "residual", "--distance", "l1"], "answers by --distance l2 only"),
        (["--recipe", "wurst"], 'got "wurst"'),
        (["-s", "members=0"], "expected a whole number from 1 to 100, got 0"),
    ],
)
def test_options_that_do_not_go_together_are_wrong_calls(train, options, message):
    result = train(*options, code=2)
    assert message in result.stderr


def test_a_test_without_held_out_classes_is_a_wrong_call(train, toy_competition):
    result = train("--test", toy_competition.test, "--unseen-classes", "0", code=2)
    assert "leaves nothing to compare --test with" in result.stderr


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

"""`tripletkit train --recipe`: one folder, one command to answer, both worlds told."""

from __future__ import annotations

import keras
import pytest
from conftest import read_record

import tripletkit as tk


@pytest.fixture
def run(tripletkit):
    return lambda *arguments: tripletkit(*arguments)


@pytest.fixture
def train(run, tiny_backbone, toy_competition, tmp_path):
    def train(*options, epochs=("--epochs", 3)):
        return run(
            *("train", toy_competition.train, toy_competition.images, "-o", tmp_path / "m"),
            *("--backbone", "tiny", *epochs, *options),
        )

    return train


@pytest.mark.slow
def test_best_is_one_folder_that_answers_and_exports(run, train, toy_competition, tmp_path):
    result = train("--recipe", "best", "--test", toy_competition.test, epochs=())
    assert result.exit_code == 0, result.stderr
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
    whole = run("predict", toy_competition.test, "--model", tmp_path / "m").stdout
    part = tmp_path / "part.txt"
    part.write_text("\n".join(toy_competition.test.read_text().splitlines()[50:60]))
    some = run("predict", part, "--model", tmp_path / "m").stdout
    assert some.splitlines()[1:] == whole.splitlines()[51:61]
    exported = run("export", "--model", tmp_path / "m", "-o", tmp_path / "e")
    assert exported.exit_code == 0, exported.stderr
    encoder = keras.saving.load_model(tmp_path / "e" / "encoder.keras", safe_mode=True)
    assert encoder.output_shape == (
        None,
        tk.load(tmp_path / "m").folder.load_head().output_shape[-1],
    )


@pytest.mark.slow
def test_every_recipe_says_how_it_does_on_unseen_classes_unless_asked_not_to(train, tmp_path):
    result = train()
    assert result.exit_code == 0, result.stderr
    assert "unseen classes" in result.stdout
    assert "Chosen" not in result.stderr
    asked = train("--unseen-classes", 0, "--force")
    assert "unseen classes" not in asked.stdout
    assert read_record(tmp_path / "m")["unseen_classes"] is None


@pytest.mark.slow
def test_labels_say_what_kinds_are_held_out(run, train, toy_competition, tmp_path):
    labels = tmp_path / "labels.csv"
    rows = [f"p{number:02}.png,{label}\n" for number, label in enumerate(toy_competition.labels)]
    labels.write_text("name,label\n" + "".join(rows))
    result = train("--recipe", "residual", "--labels", labels, "--unseen-classes", 0.4)
    assert result.exit_code == 0, result.stderr
    assert "Trained once more without 3 of 6 classes of images" in result.stdout
    record = read_record(tmp_path / "m")
    assert record["unseen_classes"]["groups_from"] == "classes"
    assert record["settings"]["frozen_share"] > 0
    # Class centers are places among the trained embeddings alone.
    with_centers = train("--recipe", "residual", "--labels", labels, "--loss", "center", "--force")
    assert with_centers.exit_code == 0, with_centers.stderr
    assert read_record(tmp_path / "m")["settings"]["frozen_share"] == 0


@pytest.mark.slow
def test_the_probe_does_not_change_what_source_learns(train, tmp_path):
    train()
    before = (tmp_path / "m" / "head.weights.h5").read_bytes()
    train("--unseen-classes", 0.3, "--force")
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
    result = train(*options)
    assert result.exit_code == 2
    assert message in result.stderr


def test_a_test_without_held_out_classes_is_a_wrong_call(train, toy_competition):
    result = train("--test", toy_competition.test, "--unseen-classes", "0")
    assert result.exit_code == 2
    assert "leaves nothing to compare --test with" in result.stderr


@pytest.mark.slow
def test_too_small_for_kinds_is_said_and_goes_on(run, tiny_backbone, toy_images, triplet_file,
                                                 tmp_path):  # fmt: skip
    arguments = [
        *("train", triplet_file, toy_images, "-o", tmp_path / "m", "--backbone", "tiny"),
        *("--recipe", "residual", "--epochs", 1),
    ]
    result = run(*arguments)
    assert result.exit_code == 0, result.stderr
    assert "whole classes of images cannot be held out" in result.stderr
    refused = run(*arguments, "--unseen-classes", 0.3, "--force")
    assert refused.exit_code == 1
    assert "expected at least 20 images" in refused.stderr

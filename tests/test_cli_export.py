"""`tripletkit export`: Keras files, or a reason why not."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from PIL import Image

from tripletkit.cli.main import tripletkit
from tripletkit.evaluation.distances import triplet_margins


@pytest.fixture
def export(runner, tiny_backbone, toy_model):
    def export(*options, model=toy_model):
        arguments = ["export", "--model", model, *options]
        return runner.invoke(tripletkit, list(map(str, arguments)))

    return export


def test_exported_embeddings_give_the_answers_of_predict(
    export, runner, toy_competition, toy_model, tmp_path
):
    folder = tmp_path / "exported"
    result = export("-o", folder)
    assert (result.exit_code, result.stdout) == (0, "")
    assert result.stderr == (
        f"Wrote {folder / 'encoder.keras'}.\nWrote {folder / 'triplet_network.keras'}.\n"
    )
    encoder = keras.saving.load_model(folder / "encoder.keras", safe_mode=True)
    queries = [line.split() for line in toy_competition.test.read_text().splitlines()]
    names = sorted({name for row in queries for name in row})
    pixels = np.stack(
        [
            np.asarray(
                Image.open(toy_competition.images / name).resize(
                    (32, 32), Image.Resampling.BILINEAR
                )
            )
            for name in names
        ]
    )
    rows = np.array([[names.index(name) for name in row] for row in queries])
    margins = triplet_margins(encoder.predict(pixels, verbose=0), rows, "l2")
    predicted = runner.invoke(
        tripletkit, ["predict", str(toy_competition.test), "--model", str(toy_model)]
    )
    answers = [float(line.split(",")[-1]) for line in predicted.stdout.splitlines()[1:]]
    np.testing.assert_allclose(margins, answers, atol=1e-4)


def test_export_replaces_only_with_force(export, tmp_path):
    assert export("-o", tmp_path).exit_code == 0
    (tmp_path / "notes.txt").write_text("mine")
    refused = export("-o", tmp_path)
    assert refused.exit_code == 1
    assert "encoder.keras: is there already." in refused.stderr
    assert "replace it with --force" in refused.stderr
    assert export("-o", tmp_path, "--force", "-q").stderr == ""
    (tmp_path / "encoder.keras").write_text("mine")
    refused = export("-o", tmp_path, "--force")
    assert "encoder.keras: is not the network encoder" in refused.stderr
    assert (tmp_path / "encoder.keras").read_text() == "mine"
    assert (tmp_path / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize(
    ("options", "exit_code", "message"),
    [
        ([], 2, "Missing option '-o'"),
        (["-o", "FILE"], 2, "is a file"),
        (["-o", "FILE/none/exported"], 1, "expected a folder to write to, got a file"),
        (["-o", "x", "--model", "none"], 1, "expected a model folder"),
        (["-o", "x", "--weights", "FILE"], 1, "expected the weights that"),
    ],
)
def test_export_refuses_what_cannot_be_done(
    export, tmp_path, monkeypatch, options, exit_code, message
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "FILE").write_text("")
    result = export(*options)
    assert (result.exit_code, result.stdout) == (exit_code, "")
    assert message in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["FILE"]

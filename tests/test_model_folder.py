"""The model folder: whole or not there, refused when it is not what training wrote."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest
from model_records import SETTINGS, make_record

from tripletkit import TripletkitError, Triplets
from tripletkit.data import outputs
from tripletkit.evaluation.scoring import Score
from tripletkit.evaluation.validation import UnseenClasses, Validation
from tripletkit.features.encoder import open_encoder
from tripletkit.features.feature_parts import FeaturePart
from tripletkit.features.keras_backbones import build_backbone, write_random_weights
from tripletkit.features.store import FeatureSpace
from tripletkit.model import model_folder as artifact
from tripletkit.model import record as record_module
from tripletkit.model.heads import build_body
from tripletkit.model.model_folder import check_model_output, load_model, save_model

HISTORY = [{"epoch": 1, "loss": 0.5, "val_accuracy": float("nan")}]


@pytest.fixture
def record(tiny_backbone, tiny_weights):
    return make_record(open_encoder(["tiny"]), images="/somewhere/Bilder/é")


@pytest.fixture
def head():
    return build_body(24, SETTINGS)


@pytest.fixture
def model_path(tmp_path, head, record):
    path = tmp_path / "model"
    save_model(path, head, HISTORY, record)
    return path


def change_record(path, change):
    """Change a record and seal it again, as a newer tool would have written it."""
    whole = json.loads((path / "model.json").read_text())
    change(whole)
    del whole["sha256"]
    whole["sha256"] = record_module._digest(whole)
    (path / "model.json").write_text(json.dumps(whole))


@pytest.mark.parametrize("n_images", [10, 100], ids=["no interval", "an interval"])
def test_a_model_comes_back_as_it_was_saved(tmp_path, head, record, tiny_backbone, n_images):
    generator = np.random.default_rng(6)
    names = [str(image) for image in range(n_images)]
    rows = np.argsort(generator.random((400, n_images)), axis=1)[:, :3]
    score = Score.of_margins(
        generator.choice([-1, 1], 400), Triplets(names, rows, np.arange(400), "t")
    )
    assert bool(score.image_interval) == (n_images == 100)
    record = replace(
        record,
        # A path that is not UTF-8.
        images=os.fsdecode(b"/images/caf\xe9"),
        validation=Validation(score, score, []),
        unseen_classes=UnseenClasses("clusters", 9, 2, (3, 2), 40, score, score, score),
    )
    save_model(tmp_path / "m", head, HISTORY, record)
    model = load_model(tmp_path / "m")
    assert replace(model.record, files={}) == record
    (part,) = model.open_encoder().parts
    assert part.backbone == tiny_backbone
    assert (model.distance, model.image_folder) == ("l2", Path(record.images))
    features = generator.normal(size=(5, 24)).astype(np.float32)
    np.testing.assert_array_equal(model.load_head()(features), head(features))


def test_a_model_folder_holds_no_code(model_path):
    assert sorted(path.name for path in model_path.iterdir()) == [
        "head.weights.h5",
        "history.csv",
        "model.json",
    ]
    assert (model_path / "head.weights.h5").read_bytes().startswith(b"\x89HDF")
    assert (model_path / "history.csv").read_text() == "epoch,loss,val_accuracy\n1,0.5,\n"
    assert "/somewhere/Bilder/é" in (model_path / "model.json").read_text(encoding="utf-8")
    (model_path.parent / "other").mkdir()
    assert model_path.stat().st_mode == (model_path.parent / "other").stat().st_mode


def test_a_model_of_another_image_size_comes_back(tmp_path, head, record, tiny_backbone):
    larger = tiny_backbone.resized(48)
    facts = record.features | larger.facts()
    save_model(tmp_path / "m", head, HISTORY, replace(record, features=facts))
    model = load_model(tmp_path / "m")
    (part,) = model.open_encoder().parts
    assert part.backbone == larger != tiny_backbone
    assert part.space != FeatureSpace(record.features, 24)


@pytest.mark.slow
def test_a_backbone_of_its_own_is_in_the_folder(
    tmp_path, head, record, tiny_backbone, tiny_weights
):
    trained = tmp_path / "trained.weights.h5"
    write_random_weights(tiny_backbone, 4, trained)
    facts = FeaturePart.of_file(tiny_backbone, trained).facts
    own = replace(record, features=facts, weights_files=["/gone/away.h5"])
    path = tmp_path / "m"
    save_model(path, head, HISTORY, own, backbone=trained)
    assert find_weights(path, trained) == trained
    with pytest.raises(TripletkitError, match="got others"):
        find_weights(path, tiny_weights)
    trained.unlink()
    model = load_model(path)
    assert model.has_own_backbone
    assert find_weights(path) == path / "backbone.weights.h5"
    assert model.record.files["backbone.weights.h5"] == facts["weights_sha256"]
    pixels = np.random.default_rng(0).uniform(-1, 1, (2, 32, 32, 3)).astype(np.float32)
    keras.utils.set_random_seed(4)
    want = build_backbone(tiny_backbone, None)(pixels)
    np.testing.assert_array_equal(build_backbone(tiny_backbone, find_weights(path))(pixels), want)
    flip_a_bit(path, "backbone.weights.h5")
    with pytest.raises(TripletkitError, match="is not the file that training wrote"):
        load_model(path)
    save_model(path, head, HISTORY, record, overwrite=True)
    assert not load_model(path).has_own_backbone
    with pytest.raises(TripletkitError, match=r"backbone\.weights\.h5, which is gone"):
        model.open_encoder().parts[0].find_weights()
    assert find_weights(model.copy(tmp_path / "copy").path).is_file()


def edit_one_number(path):
    text = (path / "model.json").read_text()
    (path / "model.json").write_text(text.replace('"hidden": 8', '"hidden": 9'))


def flip_a_bit(path, name):
    data = bytearray((path / name).read_bytes())
    data[len(data) // 2] ^= 1
    (path / name).write_bytes(data)


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (edit_one_number, "model.json: was edited after training"),
        (lambda path: (path / "history.csv").unlink(), "incomplete, history.csv is missing"),
        (lambda path: flip_a_bit(path, "head.weights.h5"), "is not the file that training wrote"),
        (
            lambda path: change_record(path, lambda whole: whole.update(format_version=99)),
            "expected format version 5, got 99, of a newer tripletkit",
        ),
    ],
)
def test_a_folder_that_is_not_as_written_is_refused(model_path, harm, message):
    harm(model_path)
    with pytest.raises(TripletkitError, match=message):
        load_model(model_path)


@pytest.mark.parametrize("text", [b"{", b"[1]", b"[" * 10**5, b"\xff{}", b"{}"], ids=len)
def test_what_is_no_record_is_refused(model_path, text):
    (model_path / "model.json").write_bytes(text)
    with pytest.raises(TripletkitError, match="cannot be read as one"):
        load_model(model_path)


def test_a_missing_model_says_how_to_make_one(tmp_path):
    for path in (tmp_path / "none", tmp_path):
        with pytest.raises(
            TripletkitError, match=r"a model folder with model.json.*tripletkit train.*`model`"
        ):
            load_model(path)


def test_an_old_model_is_replaced_only_on_request(model_path, head, record):
    with pytest.raises(TripletkitError, match="overwrite=True"):
        save_model(model_path, head, HISTORY, record)
    # A damaged file does not keep a model from being replaced.
    (model_path / "head.weights.h5").write_bytes(b"damaged")
    save_model(model_path, head, HISTORY, replace(record, command="seven"), overwrite=True)
    assert load_model(model_path).record.command == "seven"
    assert list(model_path.parent.iterdir()) == [model_path]


@pytest.mark.parametrize("step", ["save_weights", "_hash", "write", "mkdir", "rename"])
def test_the_old_model_stays_when_writing_fails(model_path, head, record, monkeypatch, step):
    before = {path.name: path.read_bytes() for path in model_path.iterdir()}

    def fail(*_args, **_kwargs):
        raise OSError(28, "No space left on device")

    owners = {"save_weights": head, "write": type(record), "rename": Path, "mkdir": Path}
    owner = owners.get(step, artifact)
    # The second rename: the old folder has been put aside by then.
    n_before = 1 if step == "rename" else 0
    original = getattr(owner, step)
    calls = []

    def trapped(*args, **kwargs):
        calls.append(args)
        return (fail if len(calls) == n_before + 1 else original)(*args, **kwargs)

    monkeypatch.setattr(owner, step, trapped)
    with pytest.raises(TripletkitError, match="model: cannot be written: No space left"):
        save_model(model_path, head, HISTORY, record, overwrite=True)
    monkeypatch.undo()
    assert {path.name: path.read_bytes() for path in model_path.iterdir()} == before
    assert list(model_path.parent.iterdir()) == [model_path]


# Replaces a model by another, without TensorFlow; dies where the first line says.
REPLACE = """
import os, shutil, sys
from dataclasses import replace
from pathlib import Path
from tripletkit.model import model_folder as artifact

class Head:
    def count_params(self): return 1

artifact.write_head = lambda head, path: path.write_bytes(b"new")

path = Path(sys.argv[1])
record = replace(artifact.load_model(path).record, command="new")
def die(*_, **__): os.kill(os.getpid(), 9)
def die_later(function, n_calls):
    def call(*arguments):
        nonlocal n_calls
        n_calls -= 1
        return die() if n_calls < 0 else function(*arguments)
    return call
exec(sys.argv[2])
artifact.save_model(path, Head(), [], record, overwrite=True)
"""


@pytest.mark.integration
@pytest.mark.parametrize("n_renames", [0, 1, 2])
def test_a_kill_at_any_rename_leaves_a_model(model_path, n_renames):
    """Between the two there is none at its place, until the next command finishes."""
    trap = f"Path.rename, shutil.rmtree = die_later(Path.rename, {n_renames}), die"
    done = subprocess.run([sys.executable, "-c", REPLACE, model_path, trap], check=False)
    assert done.returncode == -signal.SIGKILL
    assert model_path.exists() == (n_renames != 1)
    assert load_model(model_path).record.command == ("new" if n_renames else "tripletkit train")
    outputs.remove_unfinished(model_path.parent)
    assert list(model_path.parent.iterdir()) == [model_path]


@pytest.mark.parametrize(
    ("name", "text", "is_in_a_model", "message"),
    [
        ("history.csv", "mine", False, "which would be lost"),
        ("model.json", "{}", False, "which would be lost"),
        ("model.json", '{"format_version": 1, "sha256": "0"}', False, "which would be lost"),
        ("history.csv/mine", "mine", True, "'history.csv' in it is a folder"),
        ("notes.txt", "mine", True, "found 'notes.txt'"),
        ("group1-shard1of1.bin", "mine", True, "found 'group1-shard1of1.bin'"),
    ],
)
def test_what_training_did_not_write_is_never_replaced(
    model_path, tmp_path, name, text, is_in_a_model, message
):
    folder = model_path if is_in_a_model else tmp_path / "mine"
    (model_path / "history.csv").unlink()
    (folder / name).parent.mkdir(exist_ok=True, parents=True)
    (folder / name).write_text(text)
    with pytest.raises(TripletkitError, match=message):
        check_model_output(folder, overwrite=True)
    with pytest.raises(TripletkitError, match="Choose another `output`"):
        check_model_output(folder / name, overwrite=True)


def test_links_empty_folders_and_names_of_full_length_are_written_to(
    model_path, head, record, tmp_path
):
    link, empty, long = tmp_path / "latest", tmp_path / "empty", tmp_path / ("é" * 127)
    link.symlink_to(model_path)
    empty.mkdir()
    for path in (link, empty, long):
        save_model(path, head, HISTORY, replace(record, command="three"), overwrite=True)
        assert load_model(path).record.command == "three"
    assert link.is_symlink()
    assert {path.name for path in tmp_path.iterdir()} == {"latest", "model", "empty", long.name}


def find_weights(path, given=None):
    (part,) = load_model(path).open_encoder(given and {None: given}).parts
    return part.find_weights()


def test_weights_are_those_of_training_wherever_they_are_now(
    model_path, tmp_path, head, record, tiny_weights
):
    assert find_weights(model_path) == tiny_weights
    assert find_weights(model_path, tiny_weights) == tiny_weights
    (tmp_path / "other.h5").write_bytes(b"other")
    with pytest.raises(TripletkitError, match=r"expected the weights that .* was trained with"):
        find_weights(model_path, tmp_path / "other.h5")
    gone = replace(record, weights_files=[str(tmp_path / "gone.h5")])
    save_model(tmp_path / "m", head, HISTORY, gone)
    with pytest.raises(TripletkitError, match=r"gone.h5, which is gone.*`weights=tiny=FILE`"):
        find_weights(tmp_path / "m")
    assert find_weights(tmp_path / "m", tiny_weights) == tiny_weights


def test_a_backbone_that_is_not_registered_is_named(model_path):
    change_record(model_path, lambda whole: whole["features"].update(backbone="resnet51"))
    with pytest.raises(TripletkitError, match='Did you mean "resnet50"'):
        load_model(model_path).open_encoder()


def test_a_copy_is_the_same_model_and_replaces_only_what_it_may(model_path, head, record, tmp_path):
    model = load_model(model_path)
    copied = model.copy(tmp_path / "copy")
    assert copied.path == tmp_path / "copy"
    assert copied.record == model.record
    for file in model_path.iterdir():
        assert (copied.path / file.name).read_bytes() == file.read_bytes()
    save_model(tmp_path / "other", head, HISTORY, replace(record, command="another"))
    with pytest.raises(TripletkitError, match="holds a model already"):
        model.copy(tmp_path / "other")
    assert load_model(tmp_path / "other").record.command == "another"
    assert model.copy(tmp_path / "other", overwrite=True).record == model.record
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "one.jpg").touch()
    with pytest.raises(TripletkitError, match=r"one\.jpg"):
        model.copy(tmp_path / "photos", overwrite=True)
    assert model.copy(model_path, overwrite=True) is model
    # Nothing half done is left beside them.
    assert {path.name for path in tmp_path.iterdir()} == {"model", "copy", "other", "photos"}

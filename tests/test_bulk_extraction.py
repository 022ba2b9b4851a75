"""`tripletkit extract`: many images into a shared store, in pieces, whatever stops it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tiny_backbone as tiny
from plain_encoder import write_encoder
from test_store import wait_until_files_settle

from tripletkit import TripletkitError, defaults
from tripletkit.features import bulk_extraction
from tripletkit.features.bulk_extraction import list_sources
from tripletkit.features.shards import opened_shard
from tripletkit.features.stores import open_store

pytest.importorskip("pyarrow", reason="pyarrow is not installed (tripletkit[parquet])")


@pytest.fixture
def images(toy_competition, tmp_path) -> Path:
    return Path(shutil.copytree(toy_competition.images, tmp_path / "images"))


@pytest.fixture
def small_blocks(monkeypatch):
    """Blocks of a single batch, so that sixty images are two."""
    monkeypatch.setattr(defaults, "BLOCK_BATCHES", 1)


@pytest.fixture(scope="session")
def encoder(tmp_path_factory) -> list[str]:
    return write_encoder(tmp_path_factory.mktemp("encoder") / "plain.onnx")


@pytest.fixture
def run(tripletkit, encoder, small_blocks, tmp_path):
    def invoke(images, *arguments, store="store", exit_code=0):
        how = [] if "--backbone" in arguments else encoder
        called = ["extract", images, "--store", tmp_path / store, "--json", *how, *arguments]
        result = tripletkit(*called, code=exit_code)
        return json.loads(result.stdout) if exit_code == 0 else result.stderr

    return invoke


def rows_of(store: Path) -> dict[str, dict]:
    """Return name -> row of all rows, each name once."""
    rows = []
    for shard in sorted((store / "features").rglob("*.arrow")):
        with opened_shard(shard) as batch:
            rows += batch.to_pylist()
    assert len({row["name"] for row in rows}) == len(rows)
    return {row["name"]: row for row in rows}


def test_every_command_takes_the_store(run, tripletkit, images, tmp_path, encoder):
    assert run(images)["n_computed"] == 60
    stores = {"own": tmp_path / "own", "shared": tmp_path / "store"}
    for name, store in stores.items():
        arguments = ["embed", images, *encoder, "-o", tmp_path / f"{name}.npz"]
        result = tripletkit(*arguments, "--cache", store, code=0)
        assert ("60 images computed" in result.stderr) == (name == "own")
    own, shared = (np.load(tmp_path / f"{name}.npz") for name in stores)
    assert own["names"].tolist() == shared["names"].tolist()
    np.testing.assert_array_equal(own["vectors"], shared["vectors"])
    info = tripletkit("cache", "info", "--cache", stores["shared"], "--json")
    assert json.loads(info.stdout)["spaces"][0]["n_images"] == 60


@pytest.mark.slow
def test_train_and_predict_read_the_named_images_alone(
    run, tripletkit, toy_competition, tmp_path, tiny_backbone
):
    run(toy_competition.images, "--backbone", "tiny")
    cache = ["--cache", str(tmp_path / "store"), "-q"]
    model = str(tmp_path / "m1")
    called = ["train", str(toy_competition.train), str(toy_competition.images), "-o", model]
    called += ["--backbone", "tiny", "--epochs", "1", "--no-refit", *cache]
    tripletkit(*called, code=0)
    answers = []
    for store in (cache, ["-q"]):
        called = ["predict", str(toy_competition.test), "--model", model, *store]
        answers.append(tripletkit(*called).stdout)
    assert answers[0] == answers[1] != ""


def test_a_second_run_finds_all_there_and_a_third_what_is_new(run, images, tmp_path):
    run(images)
    before = {path: path.read_bytes() for path in (tmp_path / "store").rglob("*.arrow")}
    again = run(images)
    assert (again["n_computed"], again["n_stored"]) == (0, 0)  # too fresh to be known by their time
    assert {p: p.read_bytes() for p in (tmp_path / "store").rglob("*.arrow")} == before
    shutil.copy(images / "p00.png", images / "copy of p00.png")
    (images / "p01.png").write_bytes((images / "p01.png").read_bytes() + b"longer")
    assert run(images)["n_computed"] == 1


def test_files_that_have_not_changed_are_not_read_again(run, images, tmp_path, monkeypatch):
    wait_until_files_settle(monkeypatch)
    run(images)
    monkeypatch.setattr(bulk_extraction, "read_image", None)
    again = run(images)
    assert (again["n_computed"], again["n_stored"], again["problems"]) == (0, 60, {})


def test_a_bad_image_is_a_row_with_its_reason(run, images, tmp_path):
    (images / "p07.png").write_bytes(b"no image")
    (images / "p08.png").unlink()
    (images / "p08.png").symlink_to(images / "nowhere")
    first = run(images)
    assert set(first["problems"]) == {"p07.png", "p08.png"}
    rows = rows_of(tmp_path / "store")
    assert len(rows) == 60
    bad = [name for name, row in rows.items() if row["status"] == "bad"]
    assert sorted(bad) == ["p07.png", "p08.png"]
    assert all(rows[name]["reason"] and rows[name]["vector"] is None for name in bad)
    assert "p08.png" in run(images)["problems"]
    assert rows_of(tmp_path / "store") == rows


def test_a_link_that_leads_out_is_not_followed_unasked(run, images, tmp_path):
    outside = tmp_path / "secret.png"
    shutil.copy(images / "p00.png", outside)
    (images / "link.png").symlink_to(outside)
    assert "follow" in run(images)["problems"]["link.png"]
    assert run(images, "--follow-outside", store="other")["problems"] == {}


def test_shares_are_the_whole_and_each_image_is_in_one(run, images, tmp_path):
    n_computed = [run(images, "--shard", f"{i}/3")["n_computed"] for i in (1, 2, 3)]
    assert n_computed == [20, 20, 20]
    run(images, store="whole")
    by_shares, whole = rows_of(tmp_path / "store"), rows_of(tmp_path / "whole")
    assert by_shares == whole
    for wrong in ("0/3", "4/3", "3", "a/b", "1/0", "-1/3"):
        assert "expected a share" in run(images, "--shard", wrong, exit_code=2)


def test_a_list_names_paths_from_its_own_folder(run, images, tmp_path):
    listed = tmp_path / "list.txt"
    listed.write_text(f"# some\nimages/p00.png\r\n\n{images}/p01.png\nimages/p00.png\nnone.png\n")
    result = run(listed)
    assert (result["n_images"], result["n_computed"]) == (3, 2)
    assert set(result["problems"]) == {"none.png"}
    listed.write_bytes(b"\xff\xfe")
    with pytest.raises(TripletkitError, match="UTF-16"):
        list_sources(listed)
    listed.write_text("# nothing\n")
    with pytest.raises(TripletkitError, match="expected images"):
        list_sources(listed)


@pytest.mark.slow
def test_several_networks_depths_and_views_each_have_their_space(
    run, images, tmp_path, tripletkit, tiny_backbone
):
    tiny.register_other()
    how = ["--backbone", "tiny,tiny-other", "--depth", "all", "--views", "flip"]
    run(images, *how)
    with open_store(tmp_path / "store") as store:
        assert [use.n_images for use in store.uses()] == [60] * 12
    called = ["embed", str(images), "-o", str(tmp_path / "a.npz"), *how]
    result = tripletkit(*called, "--cache", tmp_path / "store")
    assert "0 images computed" in result.stderr


def test_the_store_is_never_in_the_image_folder_or_over_something_else(run, images, tmp_path):
    assert "image folder" in run(images, store="images/store", exit_code=1)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("mine")
    assert "something else" in run(images, store="mine", exit_code=1)
    assert "--ray" in run(images, "--workers", 2, exit_code=2)


@pytest.mark.integration
@pytest.mark.parametrize("function", ["write_feature_shard", "write_file_shard"])
def test_killed_at_any_moment_the_next_run_finishes(images, tmp_path, run, encoder, function):
    run(images, store="whole")
    code = (
        "import sys; from tripletkit import defaults; from tripletkit.cli.main import tripletkit\n"
        "import tiny_backbone; defaults.BLOCK_BATCHES = 1\n"
        # The images were copied just now, and such files are not remembered.
        "from tripletkit.features import shard_store; shard_store._FRESH_NS = 0\n"
        f"tiny_backbone.set_trap('tripletkit.features.shard_store:{function}/9/2')\n"
        "tripletkit(sys.argv[1:])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "extract", images, "--store", tmp_path / "store", *encoder],
        env=os.environ | {"PYTHONPATH": f"{Path(__file__).parent}:{Path(__file__).parents[1]}"},
        check=False,
        timeout=120,
        capture_output=True,
        text=True,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    n_written = len(rows_of(tmp_path / "store"))
    assert n_written == (32 if function == "write_feature_shard" else 60)
    assert run(images)["n_computed"] == 60 - n_written
    assert rows_of(tmp_path / "store") == rows_of(tmp_path / "whole")

"""`tripletkit cache`: what the store holds, and how to be rid of it."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest

from tripletkit import defaults
from tripletkit.features.store import FILE_NAME, FeatureSpace, FeatureStore

SPACE = FeatureSpace({"backbone": "resnet50", "weights_sha256": "0123456789abcdef"}, 8)


@pytest.fixture
def filled(cache_dir):
    with FeatureStore(cache_dir) as store:
        store.write(SPACE, [b"a", b"b"], np.zeros((2, 8), np.float32))
    return cache_dir


def test_info_shows_an_empty_store_without_making_one(tripletkit, cache_dir):
    result = tripletkit("cache", "info")
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout == f"{cache_dir / FILE_NAME}: empty\n"
    assert list(cache_dir.iterdir()) == []
    nowhere = tripletkit("cache", "info", "--json", "--cache", cache_dir / "none")
    assert json.loads(nowhere.stdout)["spaces"] == []
    assert not (cache_dir / "none").exists()


def test_clear_asks_first(tripletkit, filled):
    refused = tripletkit("cache", "clear", input="n\n")
    assert (refused.exit_code, refused.stdout) == (1, "")
    assert "empty" not in tripletkit("cache", "info").stdout
    tripletkit("cache", "clear", input="y\n", code=0)
    assert "empty" in tripletkit("cache", "info").stdout


def test_prune_drops_images_that_are_gone(tripletkit, filled, tmp_path):
    image = tmp_path / "a.png"
    image.write_bytes(b"a")
    with FeatureStore(filled) as store:
        known = (os.fsencode(image), image.stat().st_size, image.stat().st_ctime_ns, b"a")
        store._database.execute("INSERT INTO files VALUES (?, ?, ?, ?)", known)
    result = tripletkit("cache", "prune")
    assert (result.exit_code, result.stdout) == (0, "")
    assert result.stderr == "Dropped the features of 1 images.\n"
    with FeatureStore(filled) as store:
        assert np.isnan(store.read(SPACE, [b"a", b"b"])[:, 0]).tolist() == [False, True]


def test_cache_called_wrongly_exits_2(tripletkit, tmp_path):
    (tmp_path / "file").write_text("")
    for arguments in (
        ["cache", "burn"],
        ["cache", "prune", "--unused-days", "-1"],
        ["cache", "info", "--cache", str(tmp_path / "file")],
    ):
        result = tripletkit(*arguments)
        assert (result.exit_code, result.stdout) == (2, "")


@pytest.mark.parametrize(
    "damage",
    [
        None,
        "facts = 'no JSON'",
        "facts = '[1]'",
        "facts = x'ff00'",
        "facts = '{}'",
        "fingerprint = 'other'",
        "last_used_s = 9e18",
        "last_used_s = -5",
        "last_used_s = 'never'",
    ],
)
def test_info_shows_what_is_kept_damaged_or_not(tripletkit, filled, damage):
    if damage is not None:
        with FeatureStore(filled) as store:
            store._database.execute(f"UPDATE spaces SET {damage}")
    result = tripletkit("cache", "info")
    assert (result.exit_code, result.stderr) == (0, "")
    heading, _, row = result.stdout.splitlines()[:3]
    assert heading.startswith(f"{filled / FILE_NAME}: 0.")
    printed = json.loads(tripletkit("cache", "info", "--json").stdout)
    assert printed["path"] == str(filled / FILE_NAME)
    (space,) = printed["spaces"]
    assert (space["n_images"], space["size_bytes"]) == (2, 64)
    if damage is None or damage.startswith("last_used"):
        assert row.split()[:5] == ["resnet50", "0123456789ab", "last", "original", "2"]
        assert space["backbone"] == "resnet50"
    else:
        assert row.startswith("(damaged)")
        assert space["backbone"] == "(damaged)"


@pytest.mark.slow
def test_written_networks_go_with_the_store(
    tripletkit, toy_competition, tiny_backbone, tmp_path, monkeypatch
):
    monkeypatch.setenv(defaults.CACHE_VARIABLE, str(tmp_path / "store"))
    embed = ["embed", str(toy_competition.images), "-o", str(tmp_path / "a.npz")]
    embed += ["--backbone", "tiny"]
    tripletkit(*embed, code=0)
    (network,) = (tmp_path / "store" / "networks").iterdir()
    tripletkit("cache", "prune", "--unused-days", "1", code=0)
    assert network.exists()
    os.utime(network, (0, 0))
    tripletkit("cache", "prune", "--unused-days", "1", code=0)
    assert not network.exists()
    (tmp_path / "a.npz").unlink()
    tripletkit("cache", "clear", "--yes", code=0)
    tripletkit(*embed, code=0)
    assert network.exists()
    tripletkit("cache", "clear", "--yes", code=0)
    assert not network.exists()


FOREIGN = [
    "networks/dinov2.onnx",
    "networks/dinov2.onnx.data",
    f"networks/{'0' * 32}-{'1' * 32}.onnx",
    "features/mine/space.json",
    f"features/mine/{'0' * 32}.arrow",
    "features/notes.txt",
    f"files/{'a' * 32}.arrow",
    "files/list.csv",
    "features.sqlite3.backup",
    ".x.unfinished-whatever",
    "notes.txt",
]


@pytest.mark.parametrize("kind", ["none", "store"])
@pytest.mark.parametrize("act", ["clear --yes", "prune --unused-days 1"])
def test_only_what_tripletkit_wrote_is_deleted(tripletkit, tmp_path, kind, act):
    folder = tmp_path / "work"
    folder.mkdir()
    if kind != "none":
        with FeatureStore(folder) as store:
            store.write(SPACE, [b"a" * 32, b"b" * 32], np.ones((2, 8), np.float32))
    for name in FOREIGN:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("mine")
    for path in folder.rglob("*"):
        os.utime(path, (0, 0))
    tripletkit("cache", *act.split(), "--cache", folder, code=0)
    assert [name for name in FOREIGN if not (folder / name).exists()] == []
    left = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    if act.startswith("clear"):
        assert left - {FILE_NAME} == set(FOREIGN)

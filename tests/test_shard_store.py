"""The shared feature store: immutable files that many fill and read, behind one interface."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tracemalloc
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
from test_store import (
    OLD_NS,
    OTHER_SPACE,
    SPACE,
    contents_of,
    features_of,
    remember,
    wait_until_files_settle,
    write,
)

from tripletkit.errors import StoredFeaturesError, StoreError, StoreWarning
from tripletkit.features.shard_folder import is_shared_store
from tripletkit.features.shards import ImageRow, opened_shard
from tripletkit.features.store import FeatureSpace, FeatureStore
from tripletkit.features.stores import empty_store, find_store, open_shared_store, open_store

pytest.importorskip("pyarrow", reason="pyarrow is not installed (tripletkit[parquet])")


@pytest.fixture
def store(tmp_path):
    with open_shared_store(tmp_path / "store") as store:
        yield store


def shards_of(store):
    return sorted((store.folder / "features").rglob("*.arrow"))


def test_a_folder_says_which_store_it_holds(tmp_path):
    open_shared_store(tmp_path / "shared")
    with open_store(tmp_path / "own") as own:
        assert isinstance(own, FeatureStore)
    with open_store(tmp_path / "shared") as shared:
        write(shared, [1])
    assert is_shared_store(tmp_path / "shared")
    with pytest.raises(StoreError, match="that of one machine"):
        open_shared_store(tmp_path / "own")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").write_text("mine")
    with pytest.raises(StoreError, match="something else"):
        open_shared_store(tmp_path / "other")
    assert [path.name for path in (tmp_path / "other").iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize("kind", [open_store, open_shared_store])
def test_both_stores_do_the_same(tmp_path, kind):
    with kind(tmp_path / "store") as store:
        write(store, range(3000))
        asked = [2999, 5, 5, 0, 1200, 5]
        values = store.read(SPACE, contents_of(asked))
        assert values.dtype == np.float32
        np.testing.assert_array_equal(values, features_of(asked))
        assert store.read(SPACE, []).shape == (0, 6)
        assert store.missing(SPACE, contents_of([3000, 3, 3001, 3000])) == contents_of([3000, 3001])
        assert store.missing(OTHER_SPACE, contents_of([1])) == contents_of([1])
        with pytest.raises(StoredFeaturesError, match="features of 2 images went missing"):
            store.read(SPACE, contents_of([1, 3002, 3003, 3002]))
        with pytest.raises(ValueError, match="finite"):
            store.write(SPACE, contents_of([1]), np.full((1, 6), np.nan, np.float32))
    with open_store(tmp_path / "store") as store:
        (use,) = store.uses()
        assert (use.n_images, use.facts) == (3000, SPACE.facts)
        np.testing.assert_array_equal(store.read(SPACE, contents_of(asked)), features_of(asked))
        assert store.prune(0 if kind is open_store else 1) == (3000 if kind is open_store else 0)
    assert find_store(tmp_path / "store")[1] > 0
    assert empty_store(tmp_path / "store") > 0
    assert find_store(tmp_path / "store")[1] is None


def test_files_are_remembered_until_they_change(store, tmp_path, monkeypatch):
    path = tmp_path / "image.png"
    path.write_bytes(b"one")
    assert remember(store, path, contents_of([1])[0]) == [None]  # too fresh
    wait_until_files_settle(monkeypatch)
    one, two = contents_of([1, 2])
    assert remember(store, path, one) == [one]
    assert store.content_hashes([path, path], [path.stat()] * 2) == [one, one]
    store.forget_files([path])
    assert store.content_hashes([path], [path.stat()]) == [None]
    os.utime(path, ns=(OLD_NS, OLD_NS))
    assert store.content_hashes([path], [path.stat()]) == [None]
    assert remember(store, path, two) == [two]


def test_the_same_rows_are_the_same_file(store):
    rows = [ImageRow(content, f"{n}.png") for n, content in enumerate(contents_of(range(9)))]
    store.write_rows(SPACE, rows, features_of(range(9)))
    (shard,) = shards_of(store)
    before = shard.stat()
    store.write_rows(SPACE, rows, features_of(range(9)))
    assert (shards_of(store), shard.stat().st_ino) == ([shard], before.st_ino)


def test_an_image_without_features_is_a_row_with_its_reason(store):
    good, bad = contents_of([1, 2])
    rows = [ImageRow(good, "a.png"), ImageRow(bad, "b.png", "broken"), ImageRow(None, "c", "gone")]
    store.write_rows(SPACE, rows, features_of([1, 2, 3]))
    rows[0] = ImageRow(good, "d.png")
    store.write_rows(SPACE, rows[:1], features_of([1]))
    assert store.missing(SPACE, [good, bad]) == [bad]
    assert store.reasons(SPACE, {good, bad}) == {bad: "broken"}
    assert store.unreadable(SPACE) == {"c": "gone"}
    assert store.uses()[0].n_images == 2
    with opened_shard(shards_of(store)[0]) as batch:
        assert batch.schema.names == "content name status reason vector checksum".split()
        assert set(batch.column("status").to_pylist()) <= {"ok", "bad"}


@pytest.mark.parametrize("damage", ["a bit of a vector", "cut off", "empty"])
def test_damage_is_seen_and_mended(tmp_path, damage):
    asked = contents_of(range(50))
    with open_shared_store(tmp_path) as store:
        write(store, range(50))
    (shard,) = shards_of(store)
    data = shard.read_bytes()
    if damage == "a bit of a vector":
        place = data.index(features_of([7]).tobytes())
        data = data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]
    else:
        data = data[: len(data) // 2 if damage == "cut off" else 0]
    shard.write_bytes(data)
    with open_store(tmp_path) as store:
        with pytest.raises(StoredFeaturesError, match="Run the command again"):
            store.read(SPACE, asked)
        with pytest.warns(StoreWarning) if damage.startswith("a bit") else nullcontext():
            lost = store.missing(SPACE, asked)
        assert len(lost) == (1 if damage.startswith("a bit") else 50)
        store.write(SPACE, lost, features_of([asked.index(content) for content in lost]))
    with open_store(tmp_path) as store:
        np.testing.assert_array_equal(store.read(SPACE, asked), features_of(range(50)))


def test_half_the_numbers_take_half_the_room(tmp_path):
    folders = [tmp_path / dtype for dtype in ("float32", "float16")]
    space = FeatureSpace({"backbone": "wide"}, 1000)
    values = np.random.default_rng(0).normal(size=(60, 1000)).astype(np.float32)
    for folder in folders:
        with open_shared_store(folder, folder.name) as store:
            store.write(space, contents_of(range(60)), values)
            assert store.read(space, contents_of([7])).dtype == np.float32
    whole, half = (find_store(folder)[1] for folder in folders)
    assert 0.48 < half / whole < 0.55
    with open_store(folders[1]) as store:
        read = store.read(space, contents_of(range(60)))
        assert 0 < np.abs(read - values).max() < 2e-3
        with pytest.raises(StoreError, match="too large for float16"):
            store.write(space, contents_of([99]), np.full((1, 1000), 1e6, np.float32))
    with pytest.raises(StoreError, match="as float32, the store there has float16"):
        open_shared_store(folders[1], "float32")


@pytest.mark.slow
def test_reading_takes_memory_for_what_is_asked_for_alone(tmp_path):
    space = FeatureSpace({"backbone": "wide"}, 512)
    with open_shared_store(tmp_path) as store:
        for start in range(0, 20_000, 500):
            rows = [ImageRow(content) for content in contents_of(range(start, start + 500))]
            store.write_rows(space, rows, np.full((500, 512), start, np.float32))
    asked = contents_of(range(0, 20_000, 100))
    with open_store(tmp_path) as store:
        store.read(space, asked[:2])
        tracemalloc.start()
        values = store.read(space, asked)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert values.nbytes < peak < 4 * values.nbytes < 20_000 * 512 * 4 / 20


def test_a_store_that_only_can_be_read_is_fine(tmp_path, monkeypatch):
    with open_shared_store(tmp_path) as store:
        write(store, [1])
    monkeypatch.setattr(os, "access", lambda *_: False)
    with open_store(tmp_path) as store:
        with pytest.warns(StoreWarning, match="can only be read"):
            write(store, [2])
        np.testing.assert_array_equal(store.read(SPACE, contents_of([1, 2])), features_of([1, 2]))
    with open_store(tmp_path) as store:
        assert store.missing(SPACE, contents_of([1, 2])) == contents_of([2])


def test_a_newer_store_is_refused(tmp_path):
    open_shared_store(tmp_path)
    (tmp_path / "shared-store.json").write_text('{"format_version": 99, "dtype": "float32"}')
    with pytest.raises(StoreError, match="Update tripletkit"):
        open_store(tmp_path)


@pytest.mark.integration
def test_a_killed_writer_leaves_whole_shards_or_none(tmp_path):
    open_shared_store(tmp_path)
    script = (
        "import sys; from pathlib import Path\n"
        f"sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "from test_store import SPACE, contents_of, features_of\n"
        "from tripletkit.features.shards import ImageRow\n"
        "from tripletkit.features.stores import open_store\n"
        "store = open_store(Path(sys.argv[1]))\n"
        "for start in range(0, 10**9, 100):\n"
        "    part = range(start, start + 100)\n"
        "    store.write_rows(SPACE, [ImageRow(c) for c in contents_of(part)], features_of(part))\n"
        "    print(start, flush=True)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE
    ) as writer:
        for _ in range(5):
            writer.stdout.readline()
        writer.send_signal(signal.SIGKILL)
    with open_store(tmp_path) as store:
        n_images = store.uses()[0].n_images
        assert n_images >= 500
        assert n_images % 100 == 0
        np.testing.assert_array_equal(
            store.read(SPACE, contents_of(range(n_images))), features_of(range(n_images))
        )
        store.tidy()
    assert not [path for path in tmp_path.rglob(".*") if path.is_file()]

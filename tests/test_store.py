"""The feature store: kept whole whatever happens to the process, the file or the disk."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from tripletkit.errors import StoreError
from tripletkit.features.store import (
    FILE_NAME,
    FeatureSpace,
    FeatureStore,
    clear_store,
    default_folder,
)

N_FEATURES = 6
SPACE = FeatureSpace({"backbone": "a", "weights_sha256": "1"}, N_FEATURES)
OTHER_SPACE = FeatureSpace({"backbone": "a", "weights_sha256": "2"}, N_FEATURES)
OLD_NS = 1_600_000_000_000_000_000

# Opens the store of its first argument and writes what `features_of` gives for its other ones.
WRITER = """
import sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from test_store import SPACE, contents_of, features_of
from tripletkit.features.store import FeatureStore
with FeatureStore(Path(sys.argv[1])) as store:
    for number in map(int, sys.argv[2:]):
        {before}
        store.write(SPACE, contents_of(range(number, number + 10)),
                    features_of(range(number, number + 10)))
"""


def contents_of(numbers):
    return [b"%032d" % number for number in numbers]


def features_of(numbers):
    return np.array(numbers, np.float32)[:, None] + np.arange(N_FEATURES, dtype=np.float32) / 7


def write(store, numbers, space=SPACE):
    store.write(space, contents_of(numbers), features_of(numbers))


def start_writer(folder, *numbers, before=""):
    script = WRITER.format(tests=str(Path(__file__).parent), before=before)
    return subprocess.Popen([sys.executable, "-c", script, str(folder), *map(str, numbers)])


@pytest.fixture
def store(tmp_path):
    with FeatureStore(tmp_path / "store") as store:
        yield store


@pytest.fixture
def old_file(tmp_path):
    path = tmp_path / "image.png"
    path.write_bytes(b"one")
    return path


def remember(store, path, content=b"one"):
    store.remember_files([(path, path.stat(), content)])
    return store.content_hashes([path], [path.stat()])


def wait_until_files_settle(monkeypatch):
    """Let the store think that files written now are old."""
    real_ns = time.time_ns
    monkeypatch.setattr(time, "time_ns", lambda: real_ns() + 10_000_000_000)


def test_features_come_back_in_the_order_asked_for(store):
    write(store, range(2000))
    asked = [1999, 5, 5, 0, 1200, 5]
    values = store.read(SPACE, contents_of(asked))
    assert values.dtype == np.float32
    np.testing.assert_array_equal(values, features_of(asked))
    assert store.read(SPACE, []).shape == (0, N_FEATURES)


def test_missing_gives_each_content_once_and_in_order(store):
    write(store, [3, 1])
    assert store.missing(SPACE, contents_of([4, 3, 2, 4, 1, 0])) == contents_of([4, 2, 0])


def test_a_content_written_twice_is_kept_once(store):
    write(store, [1, 2])
    store.write(SPACE, contents_of([1]), features_of([99]))
    (use,) = store.uses()
    assert use.n_images == 2
    np.testing.assert_array_equal(store.read(SPACE, contents_of([1])), features_of([1]))


def test_spaces_do_not_see_each_other(store):
    write(store, [1])
    assert store.missing(OTHER_SPACE, contents_of([1])) == contents_of([1])
    assert store.missing(FeatureSpace({**SPACE.facts}, N_FEATURES), contents_of([1])) == []


def test_read_of_what_is_not_there_says_so(store):
    write(store, [1])
    with pytest.raises(StoreError, match="features of 2 images went missing"):
        store.read(SPACE, contents_of([1, 2, 3, 2]))


def test_a_damaged_row_names_the_way_out(store):
    write(store, [1])
    store._database.execute("UPDATE features SET vector = x'00'")
    with pytest.raises(StoreError, match="cache clear"):
        store.read(SPACE, contents_of([1]))


def test_an_unchanged_file_is_known(store, old_file, monkeypatch):
    wait_until_files_settle(monkeypatch)
    assert remember(store, old_file) == [b"one"]


def test_a_file_changed_just_now_is_not_trusted(store, old_file):
    assert remember(store, old_file) == [None]


@pytest.mark.parametrize("change", ["size", "time", "content"])
def test_a_changed_file_is_not_known(store, old_file, monkeypatch, change):
    os.utime(old_file, ns=(OLD_NS, OLD_NS))
    wait_until_files_settle(monkeypatch)
    assert remember(store, old_file) == [b"one"]
    if change == "size":
        old_file.write_bytes(b"three")
        os.utime(old_file, ns=(OLD_NS, OLD_NS))
    elif change == "time":
        os.utime(old_file, ns=(OLD_NS, OLD_NS + 1))
    else:
        # As when an archive with fixed times is unpacked over an older one.
        time.sleep(0.02)
        old_file.write_bytes(b"two")
        os.utime(old_file, ns=(OLD_NS, OLD_NS))
    assert store.content_hashes([old_file], [old_file.stat()]) == [None]


def test_a_file_whose_name_is_not_utf8_is_known(store, tmp_path, monkeypatch):
    path = tmp_path / os.fsdecode(b"caf\xe9.png")
    path.write_bytes(b"one")
    wait_until_files_settle(monkeypatch)
    assert remember(store, path) == [b"one"]


def test_two_processes_write_at_once(tmp_path):
    folder = tmp_path / "store"
    writers = [start_writer(folder, *range(start, 400, 10)) for start in (0, 5)]
    assert [writer.wait(60) for writer in writers] == [0, 0]
    with FeatureStore(folder) as store:
        numbers = list(range(400))
        np.testing.assert_array_equal(store.read(SPACE, contents_of(numbers)), features_of(numbers))
        assert len(store.uses()) == 1


def test_a_killed_write_leaves_the_store_whole(tmp_path):
    folder = tmp_path / "store"
    # The rows of the second batch are in, its end is not.
    killer = (
        "number == 20 and store._database.set_trace_callback("
        "lambda sql: sql == 'COMMIT' and __import__('os').kill(__import__('os').getpid(), 9))"
    )
    writer = start_writer(folder, 0, 20, before=killer)
    assert writer.wait(60) == -signal.SIGKILL
    with FeatureStore(folder) as store:
        assert store.missing(SPACE, contents_of(range(30))) == contents_of(range(10, 30))
        np.testing.assert_array_equal(
            store.read(SPACE, contents_of(range(10))), features_of(range(10))
        )
        write(store, range(10, 30))
        assert store.missing(SPACE, contents_of(range(30))) == []
        assert store._database.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_a_newer_store_is_refused(tmp_path):
    with FeatureStore(tmp_path) as store:
        store._database.execute("PRAGMA user_version = 99")
    with pytest.raises(StoreError, match="got 99 from a newer tripletkit"):
        FeatureStore(tmp_path)


@pytest.mark.parametrize("n_kept", [0, 100, 5000])
def test_a_damaged_store_names_the_way_out(tmp_path, n_kept):
    with FeatureStore(tmp_path) as store:
        write(store, range(500))
    path = tmp_path / FILE_NAME
    whole = path.read_bytes()
    path.write_bytes(whole[:n_kept] + b"\xa5" * (len(whole) - n_kept))
    with pytest.raises(StoreError, match="tripletkit cache clear"), FeatureStore(tmp_path) as store:
        store.read(SPACE, contents_of(range(500)))
    assert clear_store(tmp_path) > 0
    with FeatureStore(tmp_path) as store:
        assert store.uses() == []


def test_a_database_of_another_program_is_refused(tmp_path):
    with sqlite3.connect(tmp_path / FILE_NAME) as database:
        database.execute("CREATE TABLE features (other TEXT)")
    database.close()
    with pytest.raises(StoreError, match="the feature store failed"):
        FeatureStore(tmp_path)


def test_a_store_that_cannot_be_made_names_another_place(tmp_path):
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(StoreError, match="--cache DIR"):
            FeatureStore(folder)


def test_a_store_whose_file_is_a_folder_is_refused(tmp_path):
    (tmp_path / FILE_NAME).mkdir()
    with pytest.raises(StoreError, match="--cache DIR"):
        FeatureStore(tmp_path)


def test_a_full_store_keeps_what_it_has(store):
    write(store, range(10))
    n_pages = store._database.execute("PRAGMA page_count").fetchone()[0]
    store._database.execute(f"PRAGMA max_page_count = {n_pages}")
    with pytest.raises(StoreError, match=r"full.*--cache DIR"):
        write(store, range(10, 5000))
    np.testing.assert_array_equal(store.read(SPACE, contents_of(range(10))), features_of(range(10)))
    assert store.missing(SPACE, contents_of(range(10, 12))) == contents_of(range(10, 12))


def test_prune_drops_what_has_no_file_any_more(store, tmp_path, monkeypatch):
    wait_until_files_settle(monkeypatch)
    paths = [tmp_path / f"{number}.png" for number in range(4)]
    for path in paths:
        path.write_bytes(b"one")
    contents = contents_of([0, 1, 2, 2])
    store.remember_files(
        [(path, path.stat(), content) for path, content in zip(paths, contents, strict=True)]
    )
    write(store, [0, 1, 2])
    paths[0].unlink()
    paths[1].write_bytes(b"changed")
    paths[2].unlink()
    assert store.prune(unused_days=90) == 2
    assert store.missing(SPACE, contents_of([0, 1, 2])) == contents_of([0, 1])
    assert store.prune(unused_days=90) == 0


def test_prune_drops_spaces_long_unused(store, old_file, monkeypatch):
    wait_until_files_settle(monkeypatch)
    store.remember_files([(old_file, old_file.stat(), *contents_of([1]))])
    write(store, [1])
    write(store, [1], OTHER_SPACE)
    store._database.execute("UPDATE spaces SET last_used_s = last_used_s - 40 * 86400")
    store.read(OTHER_SPACE, contents_of([1]))
    assert store.prune(unused_days=30) == 1
    assert [use.facts for use in store.uses()] == [OTHER_SPACE.facts]


def test_clear_deletes_only_its_own_files(tmp_path):
    with FeatureStore(tmp_path) as store:
        write(store, range(10))
    (tmp_path / "mine.txt").write_text("kept")
    (tmp_path / f"{FILE_NAME}.backup").write_text("kept")
    assert clear_store(tmp_path) > 0
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"{FILE_NAME}.backup", "mine.txt"]
    assert clear_store(tmp_path) == 0
    assert clear_store(tmp_path / "none") == 0


def test_the_environment_moves_the_store(monkeypatch, tmp_path):
    monkeypatch.setenv("TRIPLETKIT_CACHE", str(tmp_path / "moved"))
    assert default_folder() == tmp_path / "moved"
    monkeypatch.setenv("TRIPLETKIT_CACHE", "")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert default_folder().name == "tripletkit"

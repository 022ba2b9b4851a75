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

from tripletkit.errors import StoredFeaturesError, StoreError, StoreWarning
from tripletkit.features.store import (
    FILE_NAME,
    FeatureSpace,
    FeatureStore,
    default_folder,
)
from tripletkit.features.store_care import clear_store
from tripletkit.features.store_file import vector_checksum

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


def flip(store, column, where="1", bit=17):
    """Flip one bit of a blob in the store's file."""
    table = "files" if column == "path" else "features"
    (blob,) = store._database.execute(f"SELECT {column} FROM {table} WHERE {where}").fetchone()
    flipped = bytearray(blob)
    flipped[bit // 8] ^= 1 << bit % 8
    store._database.execute(f"UPDATE {table} SET {column} = ? WHERE {where}", (bytes(flipped),))


ONE = "content = x'" + contents_of([1])[0].hex() + "'"
DAMAGES = {
    "a flipped bit": lambda store: flip(store, "vector", ONE),
    "NaN": lambda store: store._database.execute(
        f"UPDATE features SET vector = ?, checksum = ? WHERE {ONE}", with_checksum(np.nan)
    ),
    "infinity": lambda store: store._database.execute(
        f"UPDATE features SET vector = ?, checksum = ? WHERE {ONE}", with_checksum(np.inf)
    ),
    "cut off": lambda store: store._database.execute(
        f"UPDATE features SET vector = x'00' WHERE {ONE}"
    ),
    "text": lambda store: store._database.execute(
        f"UPDATE features SET vector = 'abc' WHERE {ONE}"
    ),
    "of another image": lambda store: store._database.execute(
        f"UPDATE features SET (vector, checksum) = (SELECT vector, checksum FROM features "
        f"WHERE NOT {ONE} LIMIT 1) WHERE {ONE}"
    ),
}


def with_checksum(value):
    """A vector that holds no number, with a checksum that fits it."""
    vector = np.full(N_FEATURES, value, dtype="<f4").tobytes()
    return vector, vector_checksum(SPACE.fingerprint, contents_of([1])[0], vector)


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_damaged_features_are_never_read_and_can_be_written_again(store, damage):
    write(store, range(3))
    damage(store)
    with pytest.raises(StoredFeaturesError, match="features of 1 images"):
        store.read(SPACE, contents_of(range(3)))
    with pytest.warns(StoreWarning, match="features of 1 images are damaged and are computed"):
        assert store.missing(SPACE, contents_of(range(3))) == contents_of([1])
    write(store, [1])
    with FeatureStore(store.folder) as other:
        assert other.missing(SPACE, contents_of(range(3))) == []
        np.testing.assert_array_equal(
            other.read(SPACE, contents_of(range(3))), features_of(range(3))
        )


def test_a_vector_filed_under_another_space_is_never_read(store):
    write(store, [1])
    write(store, [2], OTHER_SPACE)
    store._database.execute("UPDATE features SET space = 3 - space")
    with pytest.warns(StoreWarning, match="damaged"):
        assert store.missing(OTHER_SPACE, contents_of([1])) == contents_of([1])


def test_every_flipped_bit_of_a_vector_is_seen(store):
    write(store, [1])
    for bit in range(32 * N_FEATURES):
        flip(store, "vector", bit=bit)
        with pytest.raises(StoredFeaturesError):
            store.read(SPACE, contents_of([1]))
        flip(store, "vector", bit=bit)
    np.testing.assert_array_equal(store.read(SPACE, contents_of([1])), features_of([1]))


def test_features_that_are_no_numbers_are_not_taken(store):
    for value in (np.nan, np.inf):
        with pytest.raises(ValueError, match="finite"):
            store.write(SPACE, contents_of([1]), np.full((1, N_FEATURES), value, np.float32))
    assert store.uses() == []


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


@pytest.mark.integration
def test_two_processes_write_at_once(tmp_path):
    folder = tmp_path / "store"
    writers = [start_writer(folder, *range(start, 400, 10)) for start in (0, 5)]
    assert [writer.wait(60) for writer in writers] == [0, 0]
    with FeatureStore(folder) as store:
        numbers = list(range(400))
        np.testing.assert_array_equal(store.read(SPACE, contents_of(numbers)), features_of(numbers))
        assert len(store.uses()) == 1


@pytest.mark.integration
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
        with pytest.raises(StoreError, match="`cache`"):
            FeatureStore(folder)


def test_a_store_whose_file_is_a_folder_is_refused(tmp_path):
    (tmp_path / FILE_NAME).mkdir()
    with pytest.raises(StoreError, match="`cache`"):
        FeatureStore(tmp_path)


def test_a_full_store_keeps_what_it_has(store):
    write(store, range(10))
    n_pages = store._database.execute("PRAGMA page_count").fetchone()[0]
    store._database.execute(f"PRAGMA max_page_count = {n_pages}")
    with pytest.raises(StoreError, match=r"no room.*full.*What was stored before is kept.*`cache`"):
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


@pytest.mark.parametrize(
    "damage", ["content = x'00'", "content = 'one'", "checksum = checksum + 1"]
)
def test_a_damaged_row_of_the_files_is_not_known(store, old_file, monkeypatch, damage):
    wait_until_files_settle(monkeypatch)
    assert remember(store, old_file) == [b"one"]
    store._database.execute(f"UPDATE files SET {damage}")
    known = store.content_hashes([old_file], [old_file.stat()])
    # The same bytes as text are the same content.
    assert known == [b"one" if damage == "content = 'one'" else None]


def test_a_file_that_is_forgotten_is_not_known(store, old_file, monkeypatch):
    wait_until_files_settle(monkeypatch)
    assert remember(store, old_file) == [b"one"]
    store.forget_files([old_file, old_file.parent / "never.png"])
    assert store.content_hashes([old_file], [old_file.stat()]) == [None]


# The tables of the first version, with features as they were kept then.
VERSION_1 = """
CREATE TABLE spaces (
    id INTEGER PRIMARY KEY, fingerprint TEXT UNIQUE NOT NULL, facts TEXT NOT NULL,
    n_features INTEGER NOT NULL, last_used_s INTEGER NOT NULL
);
CREATE TABLE features (
    space INTEGER NOT NULL REFERENCES spaces(id), content BLOB NOT NULL, vector BLOB NOT NULL,
    UNIQUE (space, content)
);
CREATE TABLE files (
    path BLOB PRIMARY KEY, size_bytes INTEGER NOT NULL, changed_ns INTEGER NOT NULL,
    content BLOB NOT NULL
) WITHOUT ROWID;
PRAGMA user_version = 1;
"""


def make_version_1(folder):
    folder.mkdir()
    database = sqlite3.connect(folder / FILE_NAME)
    database.executescript("PRAGMA journal_mode = WAL;" + VERSION_1)
    database.execute("INSERT INTO spaces VALUES (1, ?, '{}', 6, 0)", (SPACE.fingerprint,))
    vectors = features_of(range(500)) + 1
    rows = zip(contents_of(range(500)), vectors, strict=True)
    database.executemany(
        "INSERT INTO features VALUES (1, ?, ?)", [(key, row.tobytes()) for key, row in rows]
    )
    database.commit()
    database.close()


def test_an_older_store_is_made_anew_and_never_misread(tmp_path, caplog):
    make_version_1(tmp_path / "store")
    caplog.set_level("INFO", logger="tripletkit")
    with FeatureStore(tmp_path / "store") as store:
        assert "made by an older tripletkit" in caplog.text
        assert store.missing(SPACE, contents_of([1])) == contents_of([1])
        write(store, [1])
    caplog.clear()
    with FeatureStore(tmp_path / "store") as store:
        np.testing.assert_array_equal(store.read(SPACE, contents_of([1])), features_of([1]))
        assert store._database.execute("PRAGMA auto_vacuum").fetchone() == (2,)
    assert caplog.text == ""


@pytest.mark.integration
def test_two_processes_make_an_older_store_anew(tmp_path):
    make_version_1(tmp_path / "store")
    writers = [start_writer(tmp_path / "store", *range(start, 100, 20)) for start in (0, 10)]
    assert [writer.wait(60) for writer in writers] == [0, 0]
    with FeatureStore(tmp_path / "store") as store:
        np.testing.assert_array_equal(
            store.read(SPACE, contents_of(range(100))), features_of(range(100))
        )


def test_a_database_of_version_1_that_is_no_store_is_refused_and_kept(tmp_path):
    with sqlite3.connect(tmp_path / FILE_NAME) as database:
        database.execute("CREATE TABLE features (mine TEXT)")
        database.execute("INSERT INTO features VALUES ('dear')")
        database.execute("PRAGMA user_version = 1")
    database.close()
    with pytest.raises(StoreError, match="got a database of something else"):
        FeatureStore(tmp_path)
    with sqlite3.connect(tmp_path / FILE_NAME) as database:
        assert database.execute("SELECT * FROM features").fetchall() == [("dear",)]
    database.close()


def test_clear_beside_another_user_empties_the_store_under_it(store):
    write(store, range(500))
    path = store.path
    before = path.stat().st_ino
    assert clear_store(store.folder) > 0
    assert path.stat().st_ino == before
    assert store.missing(SPACE, contents_of(range(500))) == contents_of(range(500))
    with pytest.raises(StoredFeaturesError, match="features of 1 images went missing"):
        store.read(SPACE, contents_of([1]))
    write(store, range(10))
    with FeatureStore(store.folder) as other:
        np.testing.assert_array_equal(other.read(SPACE, contents_of([7])), features_of([7]))


def test_clear_of_a_damaged_store_that_others_have_open_is_refused(store):
    write(store, range(500))
    store._database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    whole = store.path.read_bytes()
    store.path.write_bytes(b"\xa5" * len(whole))
    with pytest.raises(StoreError, match="when no other process has it open"):
        clear_store(store.folder)
    assert store.path.stat().st_size == len(whole)


def test_a_space_that_takes_the_place_of_another_is_not_read_for_it(store):
    """As when the store is cleared, and filled by somebody else, between two statements."""
    write(store, range(3))
    assert store.missing(SPACE, contents_of(range(3))) == []
    clear_store(store.folder)
    with FeatureStore(store.folder) as other:
        write(other, range(3), OTHER_SPACE)
    with pytest.raises(StoredFeaturesError):
        store.read(SPACE, contents_of(range(3)))
    assert store.missing(OTHER_SPACE, contents_of(range(3))) == []


def test_what_is_held_is_read_whatever_others_clear(store):
    store.hold_written()
    write(store, range(3))
    clear_store(store.folder)
    assert store.missing(SPACE, contents_of(range(4))) == contents_of([3])
    np.testing.assert_array_equal(store.read(SPACE, contents_of([2, 0])), features_of([2, 0]))


# Writes and reads features of its own range for ever, as an extraction does, until told to stop.
USER = """
import sys, time
from pathlib import Path
sys.path.insert(0, {tests!r})
import numpy as np
from test_store import SPACE, OTHER_SPACE, contents_of, features_of
from tripletkit.errors import StoredFeaturesError
from tripletkit.features.store import FeatureStore
folder, seconds, first = Path(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3])
space = SPACE if first % 2 else OTHER_SPACE
numbers = range(first, first + 30)
n_reads = n_gone = 0
give_up = time.monotonic() + seconds
while time.monotonic() < give_up:
    with FeatureStore(folder) as store:
        for _ in range(4):
            missing = [int(content) for content in store.missing(space, contents_of(numbers))]
            store.write(space, contents_of(missing), features_of(missing) + first % 2)
            try:
                values = store.read(space, contents_of(numbers))
            except StoredFeaturesError:
                n_gone += 1
                continue
            assert (values == features_of(numbers) + first % 2).all(), "other numbers"
            n_reads += 1
print(n_reads, n_gone)
"""


@pytest.mark.integration
@pytest.mark.slow
def test_clear_and_prune_beside_several_processes_never_change_what_they_read(tmp_path):
    folder, seconds = tmp_path / "store", 8
    script = USER.format(tests=str(Path(__file__).parent))
    users = [
        subprocess.Popen(
            [sys.executable, "-W", "error", "-c", script, folder, str(seconds), str(first)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        # Two share their contents, in two spaces.
        for first in (1, 2, 31, 1)
    ]
    give_up_s = time.monotonic() + seconds
    n_cleared = 0
    while time.monotonic() < give_up_s:
        n_cleared += clear_store(folder) > 0
        if n_cleared % 5 == 0:
            with FeatureStore(folder) as store:
                store.prune(unused_days=90)
                store.uses()
    told = [user.communicate(timeout=60) for user in users]
    assert [(user.returncode, stderr) for user, (_, stderr) in zip(users, told, strict=True)] == [
        (0, "")
    ] * len(users)
    assert n_cleared > 2
    n_reads, n_gone = np.array([stdout.split() for stdout, _ in told], dtype=int).T
    assert n_reads.sum() > 20, (n_reads, n_gone, n_cleared)
    with FeatureStore(folder) as store:
        assert store._database.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_facts_that_were_damaged_are_mended_by_the_next_write(store):
    write(store, [1])
    store._database.execute("UPDATE spaces SET facts = '{'")
    assert store.uses()[0].facts == {}
    write(store, [2])
    (use,) = store.uses()
    assert (use.facts, use.n_images) == (SPACE.facts, 2)


def test_prune_beside_a_reader_and_a_writer(store, old_file, monkeypatch):
    wait_until_files_settle(monkeypatch)
    store.remember_files([(old_file, old_file.stat(), *contents_of([1]))])
    write(store, range(1000))
    with FeatureStore(store.folder) as other:
        # A statement under way keeps its state of the store, and the log from being emptied.
        reading = other._database.execute("SELECT vector FROM features")
        reading.fetchone()
        assert store.prune(unused_days=90) == 999
        assert len(reading.fetchall()) == 999
        write(other, [5])
    assert store.missing(SPACE, contents_of([1, 2, 5])) == contents_of([2])


def run_mounted(folder, mount, script, *arguments):
    """Run Python where a folder is mounted in another way, in a process of its own."""
    command = f'mount {mount} && exec "$@"'
    code = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n{script}"
    if subprocess.run(
        ["unshare", "-m", "sh", "-c", f"mount {mount}"], capture_output=True
    ).returncode:
        pytest.skip("needs the right to mount")
    result = subprocess.run(
        ["unshare", "-m", "sh", "-c", command, "sh", sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert result.returncode == 0, result.stderr
    return result


READ_ONLY = """
import warnings
from pathlib import Path
import numpy as np
from test_store import SPACE, contents_of, features_of
from tripletkit.features.store import FeatureStore
folder = Path(sys.argv[1])
with warnings.catch_warnings(record=True) as said, FeatureStore(folder) as store:
    warnings.simplefilter("always")
    missing = [int(content) for content in store.missing(SPACE, contents_of(range(30)))]
    store.write(SPACE, contents_of(missing), features_of(missing))
    assert (store.read(SPACE, contents_of(range(30))) == features_of(range(30))).all()
    store.remember_files([(folder, folder.stat(), b"")])
    store.forget_files([folder])
    print(len(missing), [str(each.message) for each in said])
"""


@pytest.mark.integration
@pytest.mark.skipif(sys.platform != "linux", reason="mounts as Linux does")
@pytest.mark.parametrize("left", ["whole", "killed", "older"])
def test_a_store_on_a_read_only_mount_is_read_and_not_written(tmp_path, left):
    folder = tmp_path / "store"
    if left == "older":
        make_version_1(folder)
    else:
        # A writer that is killed leaves all that it wrote in the log.
        killer = "number == 99 and __import__('os').kill(__import__('os').getpid(), 9)"
        numbers = (0, 10, 99) if left == "killed" else (0, 10)
        assert start_writer(folder, *numbers, before=killer).wait(60) in (0, -signal.SIGKILL)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    mount = f"--bind {folder} {folder} && mount -o remount,ro,bind {folder}"
    result = run_mounted(folder, mount, READ_ONLY, folder)
    n_missing, said = result.stdout.split(" ", 1)
    assert "can only be read, so what is computed now is not kept" in said
    assert said.count("can only be read") == 1
    if left == "whole":
        assert int(n_missing) == 10
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


FULL = """
import errno
from pathlib import Path
import numpy as np
from tripletkit.cli.main import tripletkit
from tripletkit.features.store import FeatureSpace, FeatureStore
from test_store import contents_of
root, left = Path(sys.argv[1]), sys.argv[2]
folder, space = root / "store", FeatureSpace({"backbone": "a"}, 1000)
with FeatureStore(folder) as store:
    store.write(space, contents_of(range(500)), np.ones((500, 1000), np.float32))
if left == "log":  # as a process leaves it that is still at work, or was killed
    store = FeatureStore(folder)
    store.write(space, contents_of(range(500, 700)), np.ones((200, 1000), np.float32))
with (root / "filler").open("wb", 0) as file:
    try:
        while file.write(bytes(4096)):
            pass
    except OSError as error:
        assert error.errno == errno.ENOSPC
with FeatureStore(folder) as other:  # what is stored is read
    assert len(other.read(space, contents_of(range(500)))) == 500
try:
    tripletkit(["cache", sys.argv[3], *sys.argv[4:], "--cache", str(folder)])
except SystemExit as stop:
    print(stop.code)
"""


@pytest.mark.integration
@pytest.mark.skipif(sys.platform != "linux", reason="mounts as Linux does")
@pytest.mark.parametrize("left", ["nothing", "log"])
def test_a_disk_without_any_room_is_told_and_can_be_cleared(tmp_path, left):
    mount = f"-t tmpfs -o size=8m none {tmp_path}"
    pruned = run_mounted(tmp_path, mount, FULL, tmp_path, left, "prune")
    assert pruned.stdout == "1\n"
    assert "no room" in pruned.stderr
    assert "`tripletkit cache clear` takes none" in pruned.stderr
    assert "Traceback" not in pruned.stderr
    shown = run_mounted(tmp_path, mount, FULL, tmp_path, left, "info")
    assert shown.stdout.endswith("0\n")
    assert "Traceback" not in shown.stderr
    if left == "nothing":
        cleared = run_mounted(tmp_path, mount, FULL, tmp_path, left, "clear", "--yes")
        assert (cleared.stdout, cleared.stderr) == ("0\n", "Freed 2.1 MB.\n")

"""The feature store: kept whole whatever happens to the process, the file or the disk."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from tripletkit.errors import DataWarning, StoreError
from tripletkit.features.store import FILE_NAME, FeatureSpace, FeatureStore, clear_store, find_store

N_FEATURES = 6
SPACE = FeatureSpace({"backbone": "a", "weights_sha256": "1"}, N_FEATURES)
OTHER_SPACE = FeatureSpace({"backbone": "a", "weights_sha256": "2"}, N_FEATURES)
OLD_NS = 1_600_000_000_000_000_000

# Opens the store of its first argument and writes what `features_of` gives for its other ones.
WRITER = """
import sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from test_store import FeatureStore, write
with FeatureStore(Path(sys.argv[1])) as store:
    for number in map(int, sys.argv[2:]):
        {before}
        write(store, range(number, number + 10))
"""


def contents_of(numbers):
    return [b"%032d" % number for number in numbers]


def features_of(numbers):
    return np.array(numbers, np.float32)[:, None] + np.arange(N_FEATURES, dtype=np.float32) / 7


def write(store, numbers, space=SPACE, more=0):
    store.write(space, contents_of(numbers), features_of(numbers) + more)


def missing(store, numbers, space=SPACE, more=0):
    """Return the numbers that have no features; those of the others are right."""
    found = store.read(space, contents_of(numbers))
    is_missing = np.isnan(found).all(axis=1)
    np.testing.assert_array_equal(found[~is_missing], (features_of(numbers) + more)[~is_missing])
    return [number for number, gone in zip(numbers, is_missing, strict=True) if gone]


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


def settle(monkeypatch):
    """Let the store think that files written now are old."""
    real_ns = time.time_ns
    monkeypatch.setattr(time, "time_ns", lambda: real_ns() + 10_000_000_000)


@pytest.fixture
def settled(monkeypatch):
    settle(monkeypatch)


def test_features_come_back_in_the_order_asked_for(store):
    write(store, range(2000))
    asked = [1999, 5, 5, 0, 1200, 5]
    values = store.read(SPACE, contents_of(asked))
    assert values.dtype == np.float32
    np.testing.assert_array_equal(values, features_of(asked))
    assert store.read(SPACE, []).shape == (0, N_FEATURES)
    assert missing(store, [4, 2003, 2, 2003]) == [2003, 2003]
    assert missing(store, [1], OTHER_SPACE) == [1]


def change(store, assignment):
    store._database.execute(f"UPDATE features SET {assignment}")


ONE = f"WHERE content = x'{contents_of([1])[0].hex()}'"
DAMAGES = [
    f"vector = x'{bytes(4 * N_FEATURES).hex()}' {ONE}",
    f"checksum = checksum + 1 {ONE}",
    f"vector = x'00' {ONE}",
    f"vector = 'abc' {ONE}",
    f"(vector, checksum) = (SELECT vector, checksum FROM features ORDER BY content LIMIT 1) {ONE}",
]


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_features_are_never_read_and_can_be_written_again(store, damage):
    write(store, range(3))
    change(store, damage)
    with pytest.warns(DataWarning, match="features of 1 images are damaged and are computed"):
        assert missing(store, range(3)) == [1]
    assert missing(store, range(3)) == [1]
    write(store, [1])
    with FeatureStore(store.folder) as other:
        assert missing(other, range(3)) == []


def test_every_flipped_bit_of_a_vector_is_seen(store):
    for bit in range(32 * N_FEATURES):
        write(store, [1])
        flipped = bytearray(features_of([1]).tobytes())
        flipped[bit // 8] ^= 1 << bit % 8
        change(store, f"vector = x'{flipped.hex()}'")
        with pytest.warns(DataWarning, match="damaged"):
            assert missing(store, [1]) == [1]


def test_features_that_are_no_numbers_are_not_taken(store):
    for value in (np.nan, np.inf):
        with pytest.raises(ValueError, match="finite"):
            store.write(SPACE, contents_of([1]), np.full((1, N_FEATURES), value, np.float32))
    assert store.uses() == []


def test_an_unchanged_file_is_known_until_it_is_forgotten(store, old_file, tmp_path, monkeypatch):
    # One that changed just now is not trusted.
    assert remember(store, old_file) == [None]
    settle(monkeypatch)
    strange = tmp_path / os.fsdecode(b"caf\xe9.png")
    strange.write_bytes(b"one")
    assert remember(store, strange) == remember(store, old_file) == [b"one"]
    store.forget_files([old_file, old_file.parent / "never.png"])
    assert store.content_hashes([old_file], [old_file.stat()]) == [None]


@pytest.mark.parametrize("change", ["size", "time", "content"])
def test_a_changed_file_is_not_known(store, old_file, settled, change):
    os.utime(old_file, ns=(OLD_NS, OLD_NS))
    assert remember(store, old_file) == [b"one"]
    # As when an archive with fixed times is unpacked over an older one.
    time.sleep(0.02)
    old_file.write_bytes({"size": b"three", "time": b"one", "content": b"two"}[change])
    os.utime(old_file, ns=(OLD_NS, OLD_NS + (change == "time")))
    assert store.content_hashes([old_file], [old_file.stat()]) == [None]


@pytest.mark.integration
def test_two_processes_write_at_once(tmp_path):
    folder = tmp_path / "store"
    writers = [start_writer(folder, *range(start, 400, 10)) for start in (0, 5)]
    assert [writer.wait(60) for writer in writers] == [0, 0]
    with FeatureStore(folder) as store:
        assert missing(store, range(400)) == []
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
        assert missing(store, range(30)) == list(range(10, 30))
        write(store, range(10, 30))
        assert missing(store, range(30)) == []
        assert store._database.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_a_store_of_another_version_is_refused_and_can_be_cleared(tmp_path):
    for version in (2, 99):
        with FeatureStore(tmp_path) as store:
            store._database.execute(f"PRAGMA user_version = {version}")
        with pytest.raises(StoreError, match=f"got {version} of another.*tripletkit cache clear"):
            FeatureStore(tmp_path)
        assert clear_store(tmp_path) > 0


@pytest.mark.parametrize("n_kept", [100, 5000])
def test_a_damaged_store_names_the_way_out(tmp_path, n_kept):
    with FeatureStore(tmp_path) as store:
        write(store, range(500))
    path = tmp_path / FILE_NAME
    whole = path.read_bytes()
    path.write_bytes(whole[:n_kept] + b"\xa5" * (len(whole) - n_kept))
    with pytest.raises(StoreError, match="tripletkit cache clear"), FeatureStore(tmp_path) as store:
        missing(store, range(500))
    assert clear_store(tmp_path) > 0
    with FeatureStore(tmp_path) as store:
        assert store.uses() == []


@pytest.mark.parametrize("version", [0, 1, 3])
def test_a_database_of_another_program_is_refused_and_kept(tmp_path, version):
    with closing(sqlite3.connect(tmp_path / FILE_NAME)) as database:
        database.execute("CREATE TABLE features (mine TEXT)")
        database.execute("INSERT INTO features VALUES ('dear')")
        database.execute(f"PRAGMA user_version = {version}")
        database.commit()
    for use in (FeatureStore, clear_store):
        with pytest.raises(StoreError, match="got a database of something else"):
            use(tmp_path)
    with closing(sqlite3.connect(tmp_path / FILE_NAME)) as database:
        assert database.execute("SELECT * FROM features").fetchall() == [("dear",)]
    (tmp_path / FILE_NAME).write_bytes(b"no database" * 100)
    with pytest.raises(StoreError, match="delete the file, or choose another"):
        clear_store(tmp_path)
    assert (tmp_path / FILE_NAME).read_bytes() == b"no database" * 100


def test_a_store_that_cannot_be_made_names_another_place(tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "folder" / FILE_NAME).mkdir(parents=True)
    for folder in (tmp_path / "file", tmp_path / "file" / "below", tmp_path / "folder"):
        with pytest.raises(StoreError, match="`cache`"):
            FeatureStore(folder)


def test_a_full_store_keeps_what_it_has(store):
    write(store, range(10))
    n_pages = store._database.execute("PRAGMA page_count").fetchone()[0]
    store._database.execute(f"PRAGMA max_page_count = {n_pages}")
    with pytest.raises(StoreError, match=r"no room.*full.*What was stored before is kept.*`cache`"):
        write(store, range(10, 5000))
    assert missing(store, range(12)) == [10, 11]


def test_prune_drops_what_has_no_file_any_more(store, tmp_path, settled):
    paths = [tmp_path / f"{number}.png" for number in range(4)]
    for path in paths:
        path.write_bytes(b"one")
    contents = contents_of([0, 1, 2, 2])
    store.remember_files(
        [(path, path.stat(), content) for path, content in zip(paths, contents, strict=True)]
    )
    write(store, range(1000))
    size_bytes = store.path.stat().st_size
    paths[0].unlink()
    paths[1].write_bytes(b"changed")
    paths[2].unlink()
    assert store.prune(unused_days=90) == 999
    assert missing(store, [0, 1, 2]) == [0, 1]
    assert store.path.stat().st_size < size_bytes / 2
    assert store.prune(unused_days=90) == 0


def test_prune_drops_spaces_long_unused(store, old_file, settled):
    store.remember_files([(old_file, old_file.stat(), *contents_of([1]))])
    write(store, [1])
    write(store, [1], OTHER_SPACE)
    store._database.execute("UPDATE spaces SET last_used_s = last_used_s - 40 * 86400")
    store.read(OTHER_SPACE, contents_of([1]))
    assert store.prune(unused_days=30) == 1
    assert [use["weights_sha256"] for use in store.uses()] == ["2"]


def test_clear_empties_the_store_under_others_and_gives_the_room_back(store):
    write(store, range(500))
    (store.folder / "mine.txt").write_text("kept")
    assert clear_store(store.folder) > 50_000
    assert store.path.stat().st_size < 50_000
    assert missing(store, range(500)) == list(range(500))
    write(store, range(10))
    with FeatureStore(store.folder) as other:
        assert missing(other, [7, 10]) == [10]
    names = sorted(path.name for path in store.folder.iterdir())
    assert names == [FILE_NAME, "mine.txt"]
    assert clear_store(store.folder / "none") == 0


def test_the_environment_moves_the_store(monkeypatch, tmp_path):
    monkeypatch.setenv("TRIPLETKIT_CACHE", str(tmp_path / "moved"))
    assert find_store() == (tmp_path / "moved" / FILE_NAME, None)
    monkeypatch.setenv("TRIPLETKIT_CACHE", "")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert find_store()[0].parent.name == "tripletkit"


# Writes and reads features of its own range for ever, as an extraction does, until told to stop.
USER = """
import sys, time
from pathlib import Path
sys.path.insert(0, {tests!r})
from test_store import OTHER_SPACE, SPACE, FeatureStore, missing, write
folder, seconds, first = Path(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3])
space, numbers = SPACE if first % 2 else OTHER_SPACE, range(first, first + 30)
n_reads, give_up = 0, time.monotonic() + seconds
while time.monotonic() < give_up:
    with FeatureStore(folder) as store:
        for _ in range(4):
            gone = missing(store, numbers, space, first % 2)
            write(store, gone, space, first % 2)
            n_reads += len(numbers) - len(gone)
print(n_reads)
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
        clear_store(folder)
        n_cleared += 1
        if n_cleared % 5 == 0:
            with FeatureStore(folder) as store:
                store.prune(unused_days=90)
                store.uses()
    told = [user.communicate(timeout=240) for user in users]
    assert [(user.returncode, stderr) for user, (_, stderr) in zip(users, told, strict=True)] == [
        (0, "")
    ] * len(users)
    assert n_cleared > 2
    assert sum(int(stdout) for stdout, _ in told) > 600
    with FeatureStore(folder) as store:
        assert store._database.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_facts_that_were_damaged_are_mended_by_the_next_write(store):
    write(store, [1])
    store._database.execute("UPDATE spaces SET facts = '{'")
    assert store.uses()[0]["backbone"] == "(damaged)"
    write(store, [2])
    (use,) = store.uses()
    assert (use["backbone"], use["n_images"]) == ("a", 2)


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
from test_store import FeatureStore, missing, write
folder = Path(sys.argv[1])
with warnings.catch_warnings(record=True) as said:
    warnings.simplefilter("always")
    with FeatureStore(folder) as store:
        gone = missing(store, range(30))
        write(store, gone)
        store.remember_files([(folder, folder.stat(), b"")])
        store.forget_files([folder])
    print(len(gone), [str(each.message) for each in said])
"""


@pytest.mark.integration
@pytest.mark.skipif(sys.platform != "linux", reason="mounts as Linux does")
@pytest.mark.parametrize("left", ["whole", "killed", "without right"])
def test_a_store_on_a_read_only_mount_is_read_and_not_written(tmp_path, left):
    folder = tmp_path / "store"
    killer = (
        "number == 99 and (store._database.execute('PRAGMA cache_size = 1'), "
        "store._database.execute('BEGIN IMMEDIATE'), "
        "store._database.execute('DELETE FROM features'), "
        "__import__('os').kill(__import__('os').getpid(), 9))"
    )
    numbers = (0, 10, 99) if left == "killed" else (0, 10)
    assert start_writer(folder, *numbers, before=killer).wait(60) in (0, -signal.SIGKILL)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    mount = f"--bind {folder} {folder} && mount -o remount,ro,bind {folder}"
    if left == "without right":  # to make a journal beside the file, which may be written
        less = "setpriv --bounding-set -dac_override,-dac_read_search,-fowner"
        mount = f'--bind {folder} {folder} && chmod 555 {folder} && set -- {less} "$@"'
    result = run_mounted(folder, mount, READ_ONLY, folder)
    n_missing, said = result.stdout.split(" ", 1)
    assert said.count("can only be read, so what is computed now is not kept") == 1
    if left != "killed":  # That may be rolled back in time, or be as good as nothing.
        assert int(n_missing) == 10
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


FULL = """
import errno
from pathlib import Path
import numpy as np
from tripletkit.cli.main import tripletkit
from tripletkit.features.store import FeatureSpace, FeatureStore
from test_store import contents_of
root = Path(sys.argv[1])
folder, space = root / "store", FeatureSpace({"backbone": "a"}, 1000)
with FeatureStore(folder) as store:
    store.write(space, contents_of(range(500)), np.ones((500, 1000), np.float32))
with (root / "filler").open("wb", 0) as file:
    try:
        while file.write(bytes(4096)):
            pass
    except OSError as error:
        assert error.errno == errno.ENOSPC
with FeatureStore(folder) as other:  # what is stored is read
    assert len(other.read(space, contents_of(range(500)))) == 500
try:
    tripletkit(["cache", *sys.argv[2:], "--cache", str(folder)])
except SystemExit as stop:
    print(stop.code)
"""


@pytest.mark.integration
@pytest.mark.skipif(sys.platform != "linux", reason="mounts as Linux does")
def test_a_disk_without_any_room_is_told_and_can_be_cleared(tmp_path):
    mount = f"-t tmpfs -o size=8m none {tmp_path}"
    pruned = run_mounted(tmp_path, mount, FULL, tmp_path, "prune")
    assert pruned.stdout == "1\n"
    assert "no room" in pruned.stderr
    assert "`tripletkit cache clear` takes none" in pruned.stderr
    shown = run_mounted(tmp_path, mount, FULL, tmp_path, "info")
    assert shown.stdout.endswith("0\n")
    cleared = run_mounted(tmp_path, mount, FULL, tmp_path, "clear", "--yes")
    assert (cleared.stdout, cleared.stderr) == ("0\n", "Freed 2.1 MB.\n")

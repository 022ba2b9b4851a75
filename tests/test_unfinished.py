"""What killed runs leave behind goes with the next run, and never under its writer."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from tripletkit.data import unfinished
from tripletkit.data.outputs import TRIPLETS_FORM, Outputs, open_output

WRITE_FILE = """
import os, sys
from pathlib import Path
from tripletkit.data.outputs import open_output
with open_output(Path(sys.argv[1])) as file:
    file.write("half")
    file.flush()
    print("writing", flush=True)
    sys.stdin.read()
"""
FILL_FOLDER = """
import sys
from pathlib import Path
from tripletkit.data.unfinished import unfinished_folder
with unfinished_folder(Path(sys.argv[1])) as folder:
    (folder / "a").write_text("half")
    print("writing", flush=True)
    sys.stdin.read()
"""
TEMPORARY = """
import sys
from tripletkit.data.unfinished import private_temporary_folder
(private_temporary_folder() / "file").write_text("left")
print("writing", flush=True)
sys.stdin.read()
"""


def start(script, *arguments, **options):
    process = subprocess.Popen(
        [sys.executable, "-c", script, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        **options,
    )
    assert process.stdout.readline() == "writing\n"
    return process


@pytest.mark.integration
@pytest.mark.parametrize("script", [WRITE_FILE, FILL_FOLDER])
def test_a_writer_that_lives_is_left_alone(tmp_path, script):
    process = start(script, tmp_path / "out")
    (hidden,) = tmp_path.iterdir()
    assert hidden.name.startswith(".out.")
    unfinished.remove_unfinished(tmp_path)
    Outputs().file(tmp_path / "other", TRIPLETS_FORM)
    assert hidden.exists()
    process.communicate(timeout=240)
    assert process.returncode == 0
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.integration
@pytest.mark.parametrize("script", [WRITE_FILE, FILL_FOLDER])
def test_what_a_killed_writer_left_is_removed_by_the_next(tmp_path, script):
    process = start(script, tmp_path / "out")
    process.kill()
    process.wait()
    assert len(list(tmp_path.iterdir())) == 1
    Outputs().file(tmp_path / "other", TRIPLETS_FORM)
    assert list(tmp_path.iterdir()) == []
    process.stdin.close()


@pytest.mark.parametrize("name", [".out.csv", ".unfinished", "out.unfinished-x", ".git"])
def test_hidden_files_of_others_stay(tmp_path, name):
    (tmp_path / name).write_text("mine")
    unfinished.remove_unfinished(tmp_path)
    assert (tmp_path / name).read_text() == "mine"


def test_a_link_named_like_what_is_left_is_not_followed(tmp_path):
    (tmp_path / "far").mkdir()
    (tmp_path / "far" / "file").write_text("mine")
    (tmp_path / ".x.tripletkit-unfinished-abc12_34").symlink_to(tmp_path / "far")
    unfinished.remove_unfinished(tmp_path)
    assert (tmp_path / "far" / "file").read_text() == "mine"


def test_a_writer_whose_file_is_taken_for_left_over_makes_another(tmp_path, monkeypatch):
    made = []

    def open_and_lose(path, flags, mode=0o777):
        descriptor = original(path, flags, mode)
        if not made:  # between making and locking
            path.unlink()
        made.append(path)
        return descriptor

    original = os.open
    monkeypatch.setattr(os, "open", open_and_lose)
    with open_output(tmp_path / "out") as file:
        file.write("new")
    monkeypatch.undo()
    assert len(set(made)) == 2
    assert (tmp_path / "out").read_text() == "new"


def test_a_link_named_like_what_is_moved_is_not_followed(tmp_path):
    (tmp_path / "far").mkdir()
    (tmp_path / "far" / "file").write_text("mine")
    (tmp_path / "near").mkdir()
    (tmp_path / "near" / ".tripletkit-moves").symlink_to(tmp_path / "far")
    assert unfinished.end_moves(tmp_path / "near")
    assert (tmp_path / "far" / "file").read_text() == "mine"


def test_without_locks_nothing_is_removed(tmp_path, monkeypatch):
    (tmp_path / ".x.tripletkit-unfinished-abc12_34").write_text("whose?")
    monkeypatch.setattr(unfinished, "fcntl", None)
    unfinished.remove_unfinished(tmp_path)
    with open_output(tmp_path / "out") as file:
        file.write("new")
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.integration
def test_the_temporary_folder_is_private_and_goes(tmp_path):
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    process = start(TEMPORARY, env=environment)
    (folder,) = tmp_path.iterdir()
    assert folder.stat().st_mode & 0o077 == 0
    process.communicate(timeout=240)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.integration
def test_the_temporary_folder_of_a_killed_run_goes_with_the_next(tmp_path):
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    killed = start(TEMPORARY, env=environment)
    living = start(TEMPORARY, env=environment)
    assert len(list(tmp_path.iterdir())) == 2
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    killed.stdin.close()
    third = start(TEMPORARY, env=environment)
    assert len(list(tmp_path.iterdir())) == 2
    for process in (living, third):
        process.communicate(timeout=240)
    assert list(tmp_path.iterdir()) == []

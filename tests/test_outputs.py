"""Outputs appear whole or not at all, and never where they would do harm."""

from __future__ import annotations

import os
import pickle
import signal
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import tripletkit as tk
from tripletkit import open_images
from tripletkit.data import outputs
from tripletkit.data.outputs import (
    TRIPLETS_FORM,
    OutputForm,
    Outputs,
    check_written_folder,
    open_output,
    open_run,
)

ANYTHING = OutputForm("anything", lambda path: True)


def write(path, text="new"):
    with open_output(Outputs(overwrite=True).file(path, ANYTHING)) as file:
        file.write(text)


def test_a_file_appears_when_the_block_ends(tmp_path):
    path = tmp_path / "out.csv"
    with open_output(path) as file:
        file.write("a\n")
        assert not path.exists()
    assert path.read_bytes() == b"a\n"
    assert list(tmp_path.iterdir()) == [path]


def test_an_error_keeps_what_was_there(tmp_path):
    path = tmp_path / "out.csv"
    path.write_text("old")
    with pytest.raises(ZeroDivisionError), open_output(path) as file:
        file.write("new")
        file.write(str(1 / 0))
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_permissions_follow_the_umask_and_a_name_may_have_full_length(tmp_path):
    path = tmp_path / ("寿" * 83 + ".csv")
    before = os.umask(0o027)
    try:
        write(path)
    finally:
        os.umask(before)
    assert path.read_text() == "new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_a_link_stays_and_its_file_is_replaced(tmp_path):
    (tmp_path / "far").mkdir()
    (tmp_path / "far" / "out.csv").write_text("old")
    link = tmp_path / "link.csv"
    link.symlink_to(tmp_path / "far" / "out.csv")
    write(link)
    assert link.is_symlink()
    assert (tmp_path / "far" / "out.csv").read_text() == "new"


def test_a_pipe_is_written_to_and_not_replaced(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    got = []
    reader = threading.Thread(target=lambda: got.append(pipe.read_text()))
    reader.start()
    write(pipe)
    reader.join(10)
    assert got == ["new"]
    assert pipe.is_fifo()


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")  # noqa: PTH110
def test_a_full_device_is_reported(tmp_path):
    (tmp_path / "full").symlink_to("/dev/full")
    with pytest.raises(tk.TripletkitError, match="full: cannot be written: No space left"):
        write(tmp_path / "full")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("folder", "expected a file to write, got a folder"),
        ("none/out.csv", "^none/out.csv: its folder .*none does not exist"),
        ("file/out", "does not exist"),
        ("link.csv", "^/.*gone/out.csv: its folder .*gone does not exist"),
    ],
)
def test_a_place_that_cannot_take_a_file_is_refused_early(tmp_path, monkeypatch, name, message):
    monkeypatch.chdir(tmp_path)
    Path("folder").mkdir()
    Path("file").write_text("")
    Path("link.csv").symlink_to("gone/out.csv")
    with pytest.raises(tk.TripletkitError, match=message):
        Outputs(overwrite=True).file(Path(name), ANYTHING)


@pytest.mark.parametrize("reads_first", [True, False])
def test_what_is_read_is_not_written_over_by_whatever_name_and_order(tmp_path, reads_first):
    for name in ("in.csv", "other.csv"):
        (tmp_path / name).write_text("old")
    (tmp_path / "images" / "deep").mkdir(parents=True)
    (tmp_path / "link.csv").symlink_to("in.csv")
    (tmp_path / "to-images").symlink_to("images")
    (tmp_path / "hard.csv").hardlink_to(tmp_path / "in.csv")
    outs = ["in.csv", "link.csv", "hard.csv", "images/../in.csv", "images/out.csv"]
    outs += ["images/deep/out.csv", "to-images/out.csv"]

    def read():
        outputs.note_input(tmp_path / "in.csv")
        open_images(tmp_path / "images")

    for out in outs:
        with open_run():
            if reads_first:
                read()
            with pytest.raises(tk.TripletkitError, match=r"is read|lies in the folder"):
                Outputs(overwrite=True).file(tmp_path / out, ANYTHING)
                read()
        # Another run may do so, for it reads nothing.
        with open_run():
            Outputs(overwrite=True).file(tmp_path / out, ANYTHING)
            outputs.note_input(tmp_path / "other.csv")


def test_a_result_remembers_what_it_was_made_of(tmp_path):
    path = tmp_path / "answers.csv"
    path.write_text("a,b,c,prediction,margin\np,q,r,1,0.5\np,r,q,0,-0.5\n")
    answers = tk.read_answers(path)
    with pytest.raises(tk.TripletkitError, match="is read, and would be overwritten"):
        answers.write(path, overwrite=True)
    answers.write(tmp_path / "other.csv")
    tk.score(answers, [1, 1])
    answers.write(tmp_path / "other.csv", overwrite=True)
    again = pickle.loads(pickle.dumps(answers))
    with pytest.raises(tk.TripletkitError, match="is read, and would be overwritten"):
        again.write(path, overwrite=True)


def test_nothing_is_added_to_an_image_folder_or_a_model_folder(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model.json").write_text("{}")
    with open_run():
        open_images(tmp_path / "images")
        for place in ("images", "images/cache", "model", "model/cache", "model/sub/cache"):
            with pytest.raises(tk.TripletkitError, match="lies in the"):
                check_written_folder(tmp_path / place)
        with pytest.raises(tk.TripletkitError, match="lies in the model folder"):
            Outputs(overwrite=True).file(tmp_path / "model" / "new.csv", ANYTHING)
        check_written_folder(tmp_path)
    with open_run():
        check_written_folder(tmp_path / "images" / "cache")
        with pytest.raises(tk.TripletkitError, match="lies in the folder"):
            open_images(tmp_path / "images")


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
from tripletkit.data.outputs import open_folder
with open_folder(Path(sys.argv[1])) as folder:
    (folder / "a").write_text("half")
    print("writing", flush=True)
    sys.stdin.read()
"""
TEMPORARY = """
import sys
from tripletkit.data.outputs import private_temporary_folder
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
    outputs.remove_unfinished(tmp_path)
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


def test_hidden_files_of_others_stay_and_links_named_like_ours_are_not_followed(tmp_path):
    names = [".out.csv", ".unfinished", "out.unfinished-x", ".git"]
    (tmp_path / "far").mkdir()
    (tmp_path / "near").mkdir()
    for name in [*names, "far/file"]:
        (tmp_path / name).write_text("mine")
    (tmp_path / ".x.tripletkit-unfinished-abc12_34").symlink_to(tmp_path / "far")
    (tmp_path / "near" / ".tripletkit-moves").symlink_to(tmp_path / "far")
    outputs.remove_unfinished(tmp_path)
    assert outputs.end_moves(tmp_path / "near")
    for name in [*names, "far/file"]:
        assert (tmp_path / name).read_text() == "mine"


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


def test_without_locks_nothing_is_removed(tmp_path, monkeypatch):
    (tmp_path / ".x.tripletkit-unfinished-abc12_34").write_text("whose?")
    monkeypatch.setattr(outputs, "fcntl", None)
    outputs.remove_unfinished(tmp_path)
    with open_output(tmp_path / "out") as file:
        file.write("new")
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.integration
def test_the_temporary_folder_is_private_and_goes_with_its_run_or_the_next(tmp_path):
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    killed, living = (start(TEMPORARY, env=environment) for _ in range(2))
    assert [path.stat().st_mode & 0o077 for path in tmp_path.iterdir()] == [0, 0]
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    killed.stdin.close()
    third = start(TEMPORARY, env=environment)
    assert len(list(tmp_path.iterdir())) == 2
    for process in (living, third):
        process.communicate(timeout=240)
    assert list(tmp_path.iterdir()) == []

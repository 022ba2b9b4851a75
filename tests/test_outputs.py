"""Outputs appear whole or not at all, and never where they would do harm."""

from __future__ import annotations

import os
import pickle
import stat
import threading
from pathlib import Path

import pytest

import tripletkit as tk
from tripletkit import open_images
from tripletkit.data.outputs import (
    OutputForm,
    Outputs,
    check_parent,
    check_written_folder,
    open_output,
    open_run,
)
from tripletkit.data.tables import read_text

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


def test_permissions_follow_the_umask(tmp_path):
    before = os.umask(0o027)
    try:
        write(tmp_path / "out.csv")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "out.csv").stat().st_mode) == 0o640


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


def test_a_name_of_full_length_can_be_written(tmp_path):
    path = tmp_path / ("寿" * 83 + ".csv")
    write(path)
    assert path.read_text() == "new"


@pytest.mark.parametrize(
    ("name", "message"),
    [("folder", "expected a file to write, got a folder"), ("none/out.csv", "does not exist")],
)
def test_a_place_that_cannot_take_a_file_is_refused_early(tmp_path, name, message):
    (tmp_path / "folder").mkdir()
    with pytest.raises(tk.TripletkitError, match=message):
        Outputs(overwrite=True).file(tmp_path / name, ANYTHING)


def test_a_file_has_no_neighbours_below_it(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(tk.TripletkitError, match="does not exist"):
        check_parent(tmp_path / "file" / "out")


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
        read_text(tmp_path / "in.csv")
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
            read_text(tmp_path / "other.csv")


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


def test_a_missing_folder_is_named_as_the_user_named_it_or_by_where_a_link_leads(
    tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        tk.TripletkitError, match=r"^gone/out\.csv: its folder .*gone does not exist"
    ):
        Outputs().file(Path("gone/out.csv"), ANYTHING)
    Path("link.csv").symlink_to("gone/out.csv")
    with pytest.raises(
        tk.TripletkitError, match=r"^/.*gone/out\.csv: its folder .*gone does not exist"
    ):
        Outputs().file(Path("link.csv"), ANYTHING)

"""Outputs appear whole or not at all, and never where they would do harm."""

from __future__ import annotations

import os
import stat
import threading
from pathlib import Path

import pytest

from tripletkit import TripletkitError
from tripletkit.data.output_forms import OutputForm
from tripletkit.data.outputs import Outputs, check_parent, open_output

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
    with pytest.raises(TripletkitError, match="full: cannot be written: No space left"):
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
    with pytest.raises(TripletkitError, match=message):
        Outputs(overwrite=True).file(tmp_path / name, ANYTHING)


def test_a_file_has_no_neighbours_below_it(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(TripletkitError, match="does not exist"):
        check_parent(tmp_path / "file" / "out")


def test_what_is_read_is_not_written_over_whatever_else_is_not_named(tmp_path):
    path = tmp_path / "in.csv"
    path.write_text("old")
    (tmp_path / "images").mkdir()
    door = Outputs([None, path], image_folders=[None, tmp_path / "images"], overwrite=True)
    with pytest.raises(TripletkitError, match="is read"):
        door.file(path, ANYTHING)
    with pytest.raises(TripletkitError, match="lies in the image folder"):
        door.file(tmp_path / "images" / "out.csv", ANYTHING)


def test_an_output_that_is_not_named_is_none(tmp_path):
    door = Outputs()
    assert door.optional_file(None, ANYTHING) is None
    assert door.optional_file(tmp_path / "out.csv", ANYTHING).path == tmp_path / "out.csv"


def test_a_missing_folder_is_named_as_the_user_named_it_or_by_where_a_link_leads(
    tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(TripletkitError, match=r"^gone/out\.csv: its folder .*gone does not exist"):
        Outputs().file(Path("gone/out.csv"), ANYTHING)
    Path("link.csv").symlink_to("gone/out.csv")
    with pytest.raises(
        TripletkitError, match=r"^/.*gone/out\.csv: its folder .*gone does not exist"
    ):
        Outputs().file(Path("link.csv"), ANYTHING)

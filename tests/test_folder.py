"""From names to files: what a name means, and what it must never mean."""

from __future__ import annotations

import errno
import logging
import os
from pathlib import Path

import pytest

from tripletkit import open_images
from tripletkit.data.images import _find_meant_folder, image_suffixes, list_images
from tripletkit.errors import ImageNameError


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "images"
    (folder / "sub").mkdir(parents=True)
    for name in (
        "a.jpg 7.jpg 007.jpg twin.jpg twin.PNG no_extension sub/deep.webp UPPER.JPG both both.jpg "
        "notes.txt .hidden.jpg"
    ).split():
        (folder / name).write_bytes(b"")
    (folder / "folder.jpg").mkdir()
    (tmp_path / "outside.jpg").write_bytes(b"")
    return folder


def located(names, folder, **options):
    return open_images(folder, names, skip_bad=True, **options)


def problem(folder, name, **options):
    return located([name], folder, **options).problems.get(0)


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("a.jpg", "a.jpg"),
        ("a", "a.jpg"),
        ("7", "7.jpg"),
        ("007", "007.jpg"),
        ("UPPER", "UPPER.JPG"),
        ("twin.PNG", "twin.PNG"),
        ("both", "both"),
        ("no_extension", "no_extension"),
        ("sub/deep", "sub/deep.webp"),
        ("./a.jpg", "a.jpg"),
    ],
)
def test_a_name_means_one_file(folder, name, file):
    assert open_images(folder, [name]).paths == [folder / file]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["twin"], "got 2: twin.PNG, twin.jpg"),
        (["A.jpg"], "Did you mean 'a.jpg'?"),
        (["none.jpg", "none/a.jpg", "notes", "a.png", ".hidden", "upper.jpg"], "there is no image"),
        (["x" * 300, f"{'x' * 300}/a.jpg", "sub/" * 2000 + "a.jpg"], 'there is no image "'),
        (["folder.jpg"], '"folder.jpg" is a folder'),
        (["pipe.jpg"], '"pipe.jpg" is a pipe, a socket or a device'),
        (["../outside.jpg", "sub/../../outside.jpg", "/etc/passwd"], "`follow_outside=True`"),
        (["sub\\deep.webp", "C:/a.jpg", "c:a.jpg"], "Windows path"),
        (["https://example.org/c/0001.png"], "the address"),
    ],
)
def test_a_name_that_means_no_image_says_why(folder, names, message):
    os.mkfifo(folder / "pipe.jpg")
    for name in names:
        assert message in problem(folder, name)


def test_a_name_that_leads_out_is_followed_on_request(folder, tmp_path):
    found = located(["../outside.jpg", str(tmp_path / "outside.jpg")], folder, follow_outside=True)
    assert [path.resolve() for path in found.paths] == [tmp_path / "outside.jpg"] * 2


def test_links_out_of_the_folder_are_refused(folder, tmp_path):
    (folder / "link.jpg").symlink_to(tmp_path / "outside.jpg")
    (folder / "door").symlink_to(tmp_path)
    (folder / "inside.jpg").symlink_to(folder / "a.jpg")
    (folder / "broken.jpg").symlink_to(folder / "gone.jpg")
    assert "a link that leads out" in problem(folder, "link.jpg")
    assert "a link that leads out" in problem(folder, "door/outside.jpg")
    assert "a broken link" in problem(folder, "broken.jpg")
    assert problem(folder, "inside.jpg") is None
    assert problem(folder, "link.jpg", follow_outside=True) is None
    assert problem(folder, "door/outside.jpg", follow_outside=True) is None


def test_an_accent_may_be_spelt_in_two_ways(tmp_path):
    composed, decomposed = "caf\u00e9.jpg", "cafe\u0301.jpg"
    (tmp_path / composed).write_bytes(b"")
    if (tmp_path / decomposed).exists():
        pytest.skip("this file system takes both spellings for one")
    assert problem(tmp_path, composed) is None
    assert problem(tmp_path, decomposed) is None
    (tmp_path / decomposed).write_bytes(b"")
    found = located([decomposed, composed], tmp_path)
    assert [path.name for path in found.paths] == [decomposed, composed]


def test_open_images_shows_ten_problems_with_their_places(folder):
    names = [f"none{number}" for number in range(12)]
    places = [f"t.txt:{number}" for number in range(14)]
    with pytest.raises(ImageNameError) as caught:
        open_images(folder, [list_images(folder)[0], *names, "none"], places)
    lines = str(caught.value).splitlines()
    assert lines[0].startswith('t.txt:1: there is no image "none0"')
    assert lines[-2] == "... and 3 more (13 in all)"


def test_a_missing_folder_is_named(tmp_path):
    for use in (lambda path: located([], path), list_images):
        with pytest.raises(ImageNameError, match="expected a folder of images"):
            use(tmp_path / "none")


def test_list_images_leaves_out_hidden_files_and_other_files(folder):
    (folder / ".git").mkdir()
    (folder / ".git" / "a.jpg").write_bytes(b"")
    assert list_images(folder) == sorted(
        "a.jpg 7.jpg 007.jpg twin.jpg twin.PNG sub/deep.webp UPPER.JPG both.jpg".split()
    )


def test_a_link_loop_is_a_problem_of_its_own_name_alone(folder):
    (folder / "loop.jpg").symlink_to(folder / "loop.jpg")
    (folder / "here").symlink_to(folder / "there")
    (folder / "there").symlink_to(folder / "here")
    (folder / "sub" / "up").symlink_to(folder)
    assert problem(folder, "a.jpg") is None
    assert problem(folder, "sub/deep") is None
    assert "a link that leads to itself" in problem(folder, "loop.jpg")
    assert "a link that leads to itself" in problem(folder, "here")
    assert 'there is no image "here/a.jpg"' in problem(folder, "here/a.jpg")
    assert problem(folder, "sub/up/sub/up/a.jpg") is None
    assert "loop.jpg" in list_images(folder)
    assert not any("up/" in name for name in list_images(folder))
    with pytest.raises(ImageNameError, match="expected a folder of images"):
        located(["a.jpg"], folder / "here")


def test_a_folder_that_cannot_be_listed_says_so(folder, monkeypatch):
    def refuse(path):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(os, "scandir", refuse)
    assert problem(folder, "a.jpg") == f'"a.jpg" cannot be looked for: {folder}: Permission denied'


@pytest.mark.parametrize("here", [".", ".."])
def test_a_folder_of_dots_stands_in_quotes(folder, monkeypatch, here):
    monkeypatch.chdir(folder if here == "." else folder / "sub")
    assert problem(Path(here), "none") == f"there is no image \"none\" in the folder '{here}'"
    assert f"in the folder '{here}'. Did you mean 'a.jpg'?" in problem(Path(here), "A.jpg")


@pytest.fixture
def numbered(tmp_path):
    folder = tmp_path / "data" / "images"
    (folder / "c").mkdir(parents=True)
    names = [f"c/{number:04}.png" for number in range(5)]
    for name in names:
        (folder / name).write_bytes(b"")
    return folder, names


@pytest.mark.parametrize(
    "spell",
    [
        lambda folder, name: f"{folder}/{name}",
        lambda folder, name: f"images/{name}",
        lambda folder, name: f"/srv/share/images/{name}",
        lambda folder, name: f"C:\\photos\\{name}".replace("/", "\\"),
        lambda folder, name: name.replace("/", "\\"),
        lambda folder, name: f"images\\{name}",
        lambda folder, name: name.replace(".png", ".PNG"),
    ],
)
def test_names_that_are_all_spelt_otherwise_are_read_and_that_is_told(numbered, spell, caplog):
    folder, names = numbered
    caplog.set_level(logging.INFO)
    found = located([spell(folder, name) for name in names], folder)
    assert [path.relative_to(folder).as_posix() for path in found.paths] == names
    assert f"all {len(names)} names are read" in caplog.text
    # A name that is spelt otherwise than the rest is no such thing.
    mixed = located([*names[1:], spell(folder, names[0])], folder)
    assert list(mixed.problems) == [4]
    # Nor are they if one of them is not there.
    lost = located([*(spell(folder, name) for name in names), spell(folder, "c/n.png")], folder)
    assert len(lost.problems) == 6


@pytest.mark.parametrize("names", [["3", "1", "2"], ["3.png", "1.png", "0002.png"]])
def test_zeros_that_a_table_lost_are_put_back(numbered, caplog, names):
    folder, _ = numbered
    caplog.set_level(logging.INFO)
    found = located(names, folder / "c")
    expected = [f"{int(Path(name).stem):04}.png" for name in names]
    assert [path.name for path in found.paths] == expected
    assert "all 3 names are read with the zeros that a table lost, such as 3" in caplog.text
    assert list(located([*names, "9"], folder / "c").problems)[-1] == 3


def test_each_hint_is_true(numbered):
    folder, names = numbered
    assert "lose zeros? 0002.png is there" in problem(folder, "c/2")
    assert "zeros" not in problem(folder, "c/7")
    (folder / "c" / "IMG_1.HEIC").write_bytes(b"")
    for name in ("c/IMG_1", "c/IMG_1.HEIC"):
        if ".heic" not in image_suffixes():
            assert "tripletkit[heic]" in problem(folder, name)
    for name, meant in ((f"images/{names[0]}", folder.parent), ("0001.png", folder / "c")):
        assert _find_meant_folder(name, folder) == meant
    assert _find_meant_folder(names[0], folder) is None


def test_what_systems_leave_is_no_image_and_what_is_not_read_is_counted(numbered, caplog):
    folder, names = numbered
    caplog.set_level(logging.INFO)
    left = ["@eaDir/0001.png/SYNOPHOTO_THUMB_M.jpg", "__MACOSX/._0001.png", "c/._0001.png"]
    left += ["Thumbs.db", "c/.DS_Store", ".git/x.png", "#recycle/old.png"]
    for name in [*left, "c/a.heic", "c/b.HEIC", "c.mov", "list.csv"]:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"")
    assert [name for name in list_images(folder) if not name.lower().endswith("heic")] == names
    if ".heic" not in image_suffixes():
        assert "5 images, 4 files that are not read (2 .heic, 1 " in caplog.text
        (folder.parent / "phone").mkdir()
        (folder.parent / "phone" / "a.heic").write_bytes(b"")
        with pytest.raises(ImageNameError, match=r"1 files that are not read \(1 \.heic\)"):
            list_images(folder.parent / "phone")


def test_a_file_with_a_backslash_in_its_name_is_an_image_like_others(tmp_path):
    (tmp_path / "a\\b.png").write_bytes(b"")
    (tmp_path / "c.png").write_bytes(b"")
    assert located(list_images(tmp_path), tmp_path).problems == {}

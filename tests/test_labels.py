"""Labels of images: read in every form, or refused with every bad line."""

from __future__ import annotations

import json
import logging

import numpy as np
import pandas as pd
import pytest
from opened import read_labels
from plain import NO_LABEL

import tripletkit as tk
from tripletkit import TripletkitError
from tripletkit.data.labels import ImageLabels

PAIRS = {"a.png": "cat", "b.png": "dog", "c.jpg": "cat"}
COCO = {
    "images": [{"id": number, "file_name": name} for number, name in enumerate(PAIRS)],
    "categories": [{"id": 7, "name": "cat"}, {"id": 8, "name": "dog"}],
    "annotations": [
        {"image_id": number, "category_id": 7 if label == "cat" else 8}
        for number, label in enumerate(PAIRS.values())
    ],
}


def lines(form, rows=None):
    rows = rows or PAIRS.items()
    return "".join(form.format(n=name, c=label) + "\n" for name, label in rows)


@pytest.mark.parametrize(
    "text",
    [
        "name,label\n" + lines("{n},{c}") + lines("{n},{c}"),
        "\ufeffLabel,x,Name\r\n" + lines("{c},1,{n}").replace("\n", "\r\n\r\n"),
        "filename,class\n" + lines("{n},{c}"),
        "Category;File Name\n" + lines("{c};{n}"),
        "id,path\n" + lines("{c},{n}"),
        lines("{c},{n}"),
        lines("{n} {c}"),
        lines('{{"file_name": "{n}", "label": "{c}"}}'),
        json.dumps([{"image": n, "label": c} for n, c in PAIRS.items()]),
        json.dumps(COCO),
        "label,path,split,is_query\n" + lines("{c},{n},trn,") + "cow,d.png,test_set1,1\n",
        "name,filename,y,label\n" + lines("a cat,{n},7,{c}"),
        "path,split,y\n" + lines("{n},train,{c}"),
    ],
)
def test_labels_are_read_as_people_and_programs_write_them(text):
    assert read_labels(text) == PAIRS


def test_rows_are_what_spreadsheets_and_other_programs_write():
    text = 'name,label\n#1.jpg,cat\n# a remark\n"a, b.jpg",寿司\n,\n , \n'
    assert read_labels(text) == {"#1.jpg": "cat", "a, b.jpg": "寿司"}
    assert read_labels('name,label,note\na,x,"two\nlines"\nb,y,\n') == {"a": "x", "b": "y"}


def test_labels_of_pandas_are_read(tmp_path):
    frame = pd.DataFrame({"file_name": list(PAIRS), "label": list(PAIRS.values())})
    frame.to_parquet(tmp_path / "l.parquet")
    frame.to_json(tmp_path / "metadata.jsonl", orient="records", lines=True)
    frame.to_csv(tmp_path / "metadata.csv", index=True)
    for given in (frame, *tmp_path.iterdir()):
        assert tk.read_labels(given) == PAIRS
    # As `datasets` writes images.
    images = pd.DataFrame({"image": [{"bytes": b"x", "path": "a.png"}], "label": [0]})
    with pytest.raises(TripletkitError, match="the column image holds images themselves"):
        tk.read_labels(images)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected a heading with the columns name and label"),
        ("a,cat\n", 'expected a heading .* got "a,cat"'),
        ("a.png,b.png\n", "two columns of which one has names of image files"),
        ("name,label\nb,\n", "labels.csv:2: expected a name and a label, got 'b' and ''"),
        ("name,label\n", "expected rows below the heading"),
        ("file,x,y,species\na,1,2,cat\n", "Say with `columns` which they are"),
        ("name,label\na\nb,\n", "labels.csv:2: expected 2 columns as in the heading, got 1"),
        ("name,label\na,1\na,2\n", 'labels.csv:3: expected one label for "a", got "1" and "2"'),
        (
            json.dumps(COCO | {"annotations": [{"image_id": 0, "category_id": n} for n in (7, 8)]}),
            r'one label for "a\.png", got "cat" and "dog"',
        ),
    ],
)  # fmt: skip
def test_anything_else_is_refused(text, message):
    with pytest.raises(TripletkitError, match=message):
        read_labels(text)


ROWS = [*PAIRS.items(), ("d.gif", "cow")]


@pytest.mark.parametrize(
    ("text", "columns"),
    [
        ("x,path,species\n" + lines("1,{n},{c}", ROWS), "name=path,label=species"),
        ("file,a,b\n" + lines("{n},{c},9", ROWS), "label=a"),
        (lines("{c} {n}", ROWS), "name=2,label=1"),
        (lines("{n};{c};x", ROWS), "name=1,label=2"),
        (lines('{{"u": "{n}", "v": "{c}"}}', ROWS), "name=u,label=v"),
    ],
)
def test_columns_say_which_hold_names_and_labels(text, columns):
    said = dict(each.split("=") for each in columns.split(","))
    labels = read_labels(text, columns=said)
    assert labels == dict(ROWS)
    assert dict(labels.record.read_as) == {"columns": json.dumps(said)}


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"label": "kind"}, "Say with `columns` which they are"),
        ({"label": "9"}, "Say with `columns` which they are"),
        ({"anchor": "a"}, "expected `columns` of name and label, got anchor"),
    ],
)
def test_columns_that_are_not_there_are_refused(columns, message):
    with pytest.raises(TripletkitError, match=message):
        read_labels("name,a\nx.png,cat\n", columns=columns)


def touch(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def test_a_folder_per_class_names_images_below_the_image_folder(tmp_path):
    touch(tmp_path, "train/cat/a.png", "train/dog/deep/b.jpg", "train/loose.png", "other/c.png")
    expected = {"train/cat/a.png": "cat", "train/dog/deep/b.jpg": "dog"}
    assert tk.read_labels(tmp_path / "train", tmp_path) == expected
    inside = {"cat/a.png": "cat", "dog/deep/b.jpg": "dog"}
    assert tk.read_labels(tmp_path / "train", tmp_path / "train") == inside
    with pytest.raises(TripletkitError, match="a folder inside the image folder"):
        tk.read_labels(tmp_path, tmp_path / "train")
    with pytest.raises(TripletkitError, match="a subfolder of images for each class, got none"):
        tk.read_labels(tmp_path / "other", tmp_path / "other")
    with pytest.raises(TripletkitError, match="cannot be read"):
        tk.read_labels(tmp_path / "none.csv")


@pytest.mark.parametrize("part", ["train", "Training"])
def test_parts_above_the_classes_are_no_classes(tmp_path, caplog, part):
    caplog.set_level(logging.INFO)
    touch(tmp_path, f"{part}/cat/a.png", f"{part}/dog/b.png", "val/cat/c.png", "test/dog/d.png")
    labels = tk.read_labels(tmp_path, tmp_path)
    assert labels == {f"{part}/cat/a.png": "cat", f"{part}/dog/b.png": "dog"}
    assert labels.parts == {"val": {"val/cat/c.png": "cat"}, "test": {"test/dog/d.png": "dog"}}
    assert "test (1 images), val (1 images)" in caplog.text
    assert tk.read_labels(tmp_path / "val", tmp_path) == {"val/cat/c.png": "cat"}
    touch(tmp_path, "cow/e.png")
    labels = tk.read_labels(tmp_path, tmp_path)
    assert set(labels.values()) == {part, "val", "test", "cow"}
    assert labels.parts == {"val": {}, "test": {}}


def test_classes_are_sorted_and_names_without_label_marked():
    labels = ImageLabels.of_names(["x", "b", "a"], {"a": "dog", "b": "cat", "unused": "cow"})
    assert labels.classes == ["cat", "dog"]
    assert labels.of_image.tolist() == [NO_LABEL, 0, 1]
    # Without a folder a name has one spelling.
    label_of = {"a": "cat", "c": "dog", "b.jpg": "dog"}
    found = ImageLabels.of_files(["a", "b"], [None, None], label_of, None)
    assert (found.classes, found.of_image.tolist()) == (["cat"], [0, NO_LABEL])


def test_names_of_one_image_share_its_label():
    labels = ImageLabels.of_names(["a", "b", "c"], {"b": "cat", "c": "dog"})
    merged = labels.merge(np.array([0, 0, 2]), ["a", "b", "c"])
    assert merged.of_image.tolist() == [0, 0, 1]
    with pytest.raises(TripletkitError, match='got "cat" for "b" and "dog" for "c"'):
        labels.merge(np.array([0, 1, 1]), ["a", "b", "c"])

"""Label files: read right, or refused with every bad line."""

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


def test_reads_names_and_labels_in_any_order_of_columns():
    expected = {"a.png": "cat", "b, c.png": "寿司"}
    assert read_labels('name,label\na.png,cat\n"b, c.png",寿司\n') == expected
    assert read_labels('\ufeffLabel,x,Name\r\ncat,1,a.png\r\n\r\n寿司,2,"b, c.png"') == expected


def test_a_name_told_twice_alike_is_fine():
    assert read_labels("name,label\na,1\na,1\n") == {"a": "1"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected a heading with the columns name and label"),
        ("a,cat\n", 'expected a heading .* got "a,cat"'),
        ("a.png,b.png\n", "two columns of which one has names of image files"),
        ("name,label\nb,\n", "labels.csv:2: expected a name and a label, got 'b' and ''"),
        ("name,label\n", "expected rows below the heading"),
        (
            "name,label\na\nb,\n",
            "labels.csv:2: expected 2 columns as in the heading, got 1",
        ),
        ("name,label\na,1\na,2\n", 'labels.csv:3: expected one label for "a", got "1" and "2"'),
    ],
)
def test_anything_else_is_refused(text, message):
    with pytest.raises(TripletkitError, match=message):
        read_labels(text)


def test_rows_are_what_spreadsheets_and_other_programs_write():
    text = "name,label\n#1.jpg,cat\n# a remark\na.jpg,dog\n,\n , \n"
    assert read_labels(text) == {"#1.jpg": "cat", "a.jpg": "dog"}


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(TripletkitError, match="cannot be read"):
        tk.read_labels(tmp_path / "none.csv")


def test_a_folder_per_class_names_images_below_the_image_folder(tmp_path):
    for name in ("train/cat/a.png", "train/dog/deep/b.jpg", "train/loose.png", "other/c.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    expected = {"train/cat/a.png": "cat", "train/dog/deep/b.jpg": "dog"}
    assert tk.read_labels(tmp_path / "train", tmp_path) == expected
    assert tk.read_labels(tmp_path / "train", tmp_path / "train") == {
        "cat/a.png": "cat",
        "dog/deep/b.jpg": "dog",
    }


def test_a_folder_elsewhere_or_without_classes_is_refused(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.png").touch()
    with pytest.raises(TripletkitError, match="a folder inside the image folder"):
        tk.read_labels(tmp_path, tmp_path / "images")
    with pytest.raises(TripletkitError, match="a subfolder of images for each class, got none"):
        tk.read_labels(tmp_path / "images", tmp_path / "images")


def test_classes_are_sorted_and_names_without_label_marked():
    labels = ImageLabels.of_names(["x", "b", "a"], {"a": "dog", "b": "cat", "unused": "cow"})
    assert labels.classes == ["cat", "dog"]
    assert labels.of_image.tolist() == [NO_LABEL, 0, 1]


def test_names_of_one_image_share_its_label():
    labels = ImageLabels.of_names(["a", "b", "c"], {"b": "cat", "c": "dog"})
    merged = labels.merge(np.array([0, 0, 2]), ["a", "b", "c"])
    assert merged.of_image.tolist() == [0, 0, 1]
    with pytest.raises(TripletkitError, match='got "cat" for "b" and "dog" for "c"'):
        labels.merge(np.array([0, 1, 1]), ["a", "b", "c"])


def test_without_a_folder_a_name_has_one_spelling():
    found = ImageLabels.of_files(
        ["a", "b"], [None, None], {"a": "cat", "c": "dog", "b.jpg": "dog"}, None
    )
    assert found.classes == ["cat"]
    assert found.of_image.tolist() == [0, NO_LABEL]


PAIRS = {"a.png": "cat", "b.png": "dog", "c.jpg": "cat"}
COCO = {
    "images": [{"id": number, "file_name": name} for number, name in enumerate(PAIRS)],
    "categories": [{"id": 7, "name": "cat"}, {"id": 8, "name": "dog"}],
    "annotations": [
        {"image_id": number, "category_id": 7 if label == "cat" else 8}
        for number, label in enumerate(PAIRS.values())
    ],
}


@pytest.mark.parametrize(
    "text",
    [
        "filename,class\n" + "".join(f"{n},{c}\n" for n, c in PAIRS.items()),
        "Category;File Name\n" + "".join(f"{c};{n}\n" for n, c in PAIRS.items()),
        "id,path\n" + "".join(f"{c},{n}\n" for n, c in PAIRS.items()),
        "".join(f"{c},{n}\n" for n, c in PAIRS.items()),
        "".join(f"{n} {c}\n" for n, c in PAIRS.items()),
        "".join(json.dumps({"file_name": n, "label": c}) + "\n" for n, c in PAIRS.items()),
        json.dumps([{"image": n, "label": c} for n, c in PAIRS.items()]),
        json.dumps(COCO),
        "label,path,split,is_query\n"
        + "".join(f"{c},{n},train,\n" for n, c in PAIRS.items())
        + "cow,d.png,validation,1\n",
    ],
)
def test_labels_are_read_as_people_and_programs_write_them(text):
    assert read_labels(text) == PAIRS


def test_labels_of_pandas_are_read(tmp_path):
    frame = pd.DataFrame({"file_name": list(PAIRS), "label": list(PAIRS.values())})
    frame.to_parquet(tmp_path / "l.parquet")
    frame.to_json(tmp_path / "metadata.jsonl", orient="records", lines=True)
    frame.to_csv(tmp_path / "metadata.csv", index=True)
    for name in ("l.parquet", "metadata.jsonl", "metadata.csv"):
        assert tk.read_labels(tmp_path / name) == PAIRS
    assert tk.read_labels(frame) == PAIRS


def test_several_classes_of_an_image_are_refused():
    twice = {**COCO, "annotations": [*COCO["annotations"], {"image_id": 0, "category_id": 8}]}
    with pytest.raises(TripletkitError, match=r'one label for "a\.png", got "cat" and "dog"'):
        read_labels(json.dumps(twice))


@pytest.mark.parametrize("part", ["train", "Training"])
def test_parts_above_the_classes_are_no_classes(tmp_path, caplog, part):
    caplog.set_level(logging.INFO)
    for name in (f"{part}/cat/a.png", f"{part}/dog/b.png", "val/cat/c.png", "test/dog/d.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    labels = tk.read_labels(tmp_path, tmp_path)
    assert labels == {f"{part}/cat/a.png": "cat", f"{part}/dog/b.png": "dog"}
    assert labels.parts == {"val": {"val/cat/c.png": "cat"}, "test": {"test/dog/d.png": "dog"}}
    assert "test (1 images), val (1 images)" in caplog.text
    assert tk.read_labels(tmp_path / "val", tmp_path) == {"val/cat/c.png": "cat"}
    (tmp_path / "cow").mkdir()
    (tmp_path / "cow" / "e.png").touch()
    labels = tk.read_labels(tmp_path, tmp_path)
    assert set(labels.values()) == {part, "val", "test", "cow"}
    assert labels.parts == {"val": {}, "test": {}}


ROWS = [*PAIRS.items(), ("d.gif", "cow")]


@pytest.mark.parametrize(
    ("text", "columns"),
    [
        ("x,path,species\n" + "".join(f"1,{n},{c}\n" for n, c in ROWS), "name=path,label=species"),
        ("file,a,b\n" + "".join(f"{n},{c},9\n" for n, c in ROWS), "label=a"),
        ("".join(f"{c} {n}\n" for n, c in ROWS), "name=2,label=1"),
        ("".join(f"{n};{c};x\n" for n, c in ROWS), "name=1,label=2"),
        ("".join(json.dumps({"u": n, "v": c}) + "\n" for n, c in ROWS), "name=u,label=v"),
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


@pytest.mark.parametrize("row", ["{}.png,a", "red0.png,{}"])
def test_a_name_without_an_end_is_shown_in_part(row, tripletkit, toy_images, tmp_path):
    path = tmp_path / "long.csv"
    path.write_text(f"name,label\nred1.png,b\n{row.format('x' * 100_000)}\n")
    result = tripletkit("triplets", path, toy_images, "-o", tmp_path / "t.txt", code=1)
    assert 500 < len(result.output) < 2_000

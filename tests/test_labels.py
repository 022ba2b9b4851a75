"""Label files: read right, or refused with every bad line."""

import io

import numpy as np
import pytest
from plain import NO_LABEL

from tripletkit import TripletkitError
from tripletkit.data.labels import ImageLabels, label_files, read_classes, read_labels


def read(text: str) -> dict[str, str]:
    return read_labels(io.BytesIO(text.encode()), "labels.csv")


def test_reads_names_and_labels_in_any_order_of_columns():
    expected = {"a.png": "cat", "b, c.png": "寿司"}
    assert read('name,label\na.png,cat\n"b, c.png",寿司\n') == expected
    assert read('\ufeffLabel,x,Name\r\ncat,1,a.png\r\n\r\n寿司,2,"b, c.png"') == expected


def test_a_name_told_twice_alike_is_fine():
    assert read("name,label\na,1\na,1\n") == {"a": "1"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected a heading with the columns name and label"),
        ("a.png,cat\n", 'expected a heading .* got "a.png,cat"'),
        ("name,label\n", "expected rows below the heading"),
        (
            "name,label\na\nb,\n",
            "labels.csv:2: expected 2 columns, got 1\nlabels.csv:3: expected a",
        ),
        ("name,label\na,1\na,2\n", 'labels.csv:3: expected one label for "a", got "1" before'),
    ],
)
def test_anything_else_is_refused(text, message):
    with pytest.raises(TripletkitError, match=message):
        read(text)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(TripletkitError, match="cannot be read"):
        read_labels(tmp_path / "none.csv")


def test_a_folder_per_class_names_images_below_the_image_folder(tmp_path):
    for name in ("train/cat/a.png", "train/dog/deep/b.jpg", "train/loose.png", "other/c.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    expected = {"train/cat/a.png": "cat", "train/dog/deep/b.jpg": "dog"}
    assert read_classes(tmp_path / "train", tmp_path) == expected
    assert read_classes(tmp_path / "train", tmp_path / "train") == {
        "cat/a.png": "cat",
        "dog/deep/b.jpg": "dog",
    }


def test_a_folder_elsewhere_or_without_classes_is_refused(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.png").touch()
    with pytest.raises(TripletkitError, match="a folder inside the image folder"):
        read_classes(tmp_path, tmp_path / "images")
    with pytest.raises(TripletkitError, match="a subfolder of images for each class, got none"):
        read_classes(tmp_path / "images", tmp_path / "images")


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
    found = label_files(["a", "b"], [None, None], {"a": "cat", "c": "dog", "b.jpg": "dog"}, None)
    assert found.classes == ["cat"]
    assert found.of_image.tolist() == [0, NO_LABEL]

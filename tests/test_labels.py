"""Label files: read right, or refused with every bad line."""

import io

import pytest

from tripletkit.data.labels import read_labels
from tripletkit.errors import LabelFileError


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
    with pytest.raises(LabelFileError, match=message):
        read(text)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(LabelFileError, match="cannot be read"):
        read_labels(tmp_path / "none.csv")

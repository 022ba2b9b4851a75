"""`tripletkit classify`, and what its --held-out may be."""

from __future__ import annotations

import csv
import json
import shutil

import pytest

from tripletkit import TripletkitError
from tripletkit.data.splits.held_out_draws import read_held_out

COLOURS = ["red", "lime", "blue", "yellow", "black", "magenta"]


@pytest.fixture
def classify(tripletkit, tiny_backbone, labels_file, toy_competition):
    def run(*options, labels=labels_file, images=toy_competition.images, **extra):
        return tripletkit("classify", labels, images, *options, **extra)

    return run


@pytest.mark.slow
def test_trained_embeddings_stand_beside_frozen_features(
    classify, toy_model, toy_competition, tmp_path
):
    figure, table = tmp_path / "c.png", tmp_path / "c.csv"
    result = classify(
        "--model", toy_model, "--held-out", toy_competition.test,
        "--confusion", figure,
        code=0,
    )  # fmt: skip
    lines = result.stdout.splitlines()
    assert lines[0].startswith("18 held-out images of 6 classes, classified by 42 others.")
    assert lines[2].split() == (
        "trained embeddings, l2 95% interval frozen features, cosine 95% interval".split()
    )
    assert [line.split("  ")[0] for line in lines[3:]] == [
        "nearest class center",
        "vote of 10 nearest",
        "precision at 1",
        "precision at 10",
        "mean average precision",
        "variance within classes",
        "variance between classes",
        "share within classes",
    ]
    assert "warning" not in result.stderr
    assert figure.read_bytes().startswith(b"\x89PNG")

    options = ["--held-out", toy_competition.test, "--confusion", table, "--json"]
    record = json.loads(classify("--model", toy_model, *options).stdout)
    with table.open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["true", *sorted(COLOURS)]
    assert sum(int(count) for row in rows[1:] for count in row[1:]) == 18
    assert record["classes"] == sorted(COLOURS)
    assert [list(map(int, row[1:])) for row in rows[1:]] == record["confusion"]
    trained, frozen = record["trained_embeddings"], record["frozen_features"]
    right = sum(record["confusion"][n][n] for n in range(6))
    assert trained["nearest_neighbors"]["value"] == pytest.approx(right / 18)
    assert (trained["distance"], frozen["distance"]) == ("l2", "cosine")
    assert trained["mean_average_precision"]["value"] > 0.5
    alone = json.loads(
        classify("--backbone", "tiny", "--held-out", toy_competition.test, "--json").stdout
    )
    assert alone["frozen_features"] == frozen
    assert "trained_embeddings" not in alone


def test_a_share_by_chance_is_held_out_with_a_warning(classify, toy_model):
    result = classify("--model", toy_model, "--fraction", "0.3", "--json", code=0)
    assert "warning: the model may have learned from images that are held out" in result.stderr
    record = json.loads(result.stdout)["trained_embeddings"]
    assert (record["n_queries"], record["n_reference"]) == (18, 42)
    again = classify("--model", toy_model, "--fraction", "0.3", "--json")
    assert again.stdout == result.stdout
    other = classify("--backbone", "tiny", "--fraction", "0.3", "--json", "--seed", "1")
    assert "warning" not in other.stderr
    assert json.loads(other.stdout)["frozen_features"]["n_queries"] == 18


def test_splits_as_folders_and_copies_across_them(classify, toy_competition, tmp_path):
    """Each split has a folder per class; a copy in both counts as held out."""
    images = tmp_path / "flowers"
    for number, label in enumerate(toy_competition.labels):
        split = "train" if number < 42 else "test"
        target = images / split / COLOURS[label] / f"{number}.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(toy_competition.images / f"p{number:02}.png", target)
    shutil.copy(images / "train/red/0.png", images / "test/red/copy.png")
    options = ["--backbone", "tiny", "--held-out", images / "test", "--json"]
    result = classify(*options, labels=images / "train", images=images, code=0)
    record = json.loads(result.stdout)["frozen_features"]
    assert (record["n_queries"], record["n_reference"]) == (19, 41)
    assert "Copies of other images, left out: 1." in result.stderr


def test_names_without_extension_or_label(classify, toy_competition, tmp_path, labels_file):
    names = tmp_path / "names.txt"
    names.write_text("p42\np43.png\np00\n# comment\n")
    labels_file.write_text(labels_file.read_text().replace("p00.png,red\n", ""))
    result = classify("--backbone", "tiny", "--held-out", names, code=0)
    assert "Held-out images without a label, left out: 1." in result.stderr
    assert result.stdout.startswith("2 held-out images of 6 classes, classified by 57 others.")
    assert "Copies" not in result.stderr


@pytest.mark.parametrize(
    ("options", "exit_code", "message"),
    [
        (
            ["--backbone", "tiny", "--held-out", "names.txt", "--fraction", "0.1"],
            2,
            "--held-out says which",
        ),
        (["--backbone", "tiny", "--model", "m"], 2, "give one of them"),
        (["--backbone", "tiny", "--confusion", "c.gif"], 1, "'.gif'"),
        (["--backbone", "tiny", "--confusion", "none/c.csv"], 1, "does not exist"),
        (["--backbone", "tiny", "--held-out", "names.txt"], 1, 'names.txt: there is no image "q'),
        (["--backbone", "tiny", "--fraction", "1"], 2, "0<x<1"),
    ],
)
def test_wrong_calls(classify, tmp_path, monkeypatch, options, exit_code, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "names.txt").write_text("q\n")
    result = classify(*options)
    assert (result.exit_code, result.stdout) == (exit_code, "")
    assert message in result.stderr


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("name,label\na.png,cat\n", {"a.png": "cat"}),
        ("a b c\nc d e\n", dict.fromkeys("abcde")),
        ("anchor,positive,negative\na,b,c\n", dict.fromkeys("abc")),
        ('\ufeffa.png\r\n\r\n# no\r\nmy cat.png\r\n"b.png"', {"a.png", "my cat.png", "b.png"}),
        ("one.png", {"one.png"}),
    ],
)
def test_held_out_names_are_read_from_what_there_is(tmp_path, text, expected):
    (tmp_path / "names").write_text(text, encoding="utf-8", newline="")
    found = read_held_out(tmp_path / "names", tmp_path)
    assert found == (expected if isinstance(expected, dict) else dict.fromkeys(expected))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a b c\nd\n", "expected 3 image names, got 1"),
        ("\n# nothing\n", "names of held-out images, got none"),
        ("name,label\na\n", "expected 2 columns"),
        ('a\n""\n', "got an empty one"),
    ],
)
def test_other_held_out_files_are_refused(tmp_path, text, message):
    (tmp_path / "names").write_text(text)
    with pytest.raises(TripletkitError, match=message):
        read_held_out(tmp_path / "names", tmp_path)


def test_a_held_out_folder_is_inside_the_images(tmp_path):
    for name in ("images/test/cat/a.png", "images/test/b.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    images = tmp_path / "images"
    expected = {"test/b.png": None, "test/cat/a.png": "cat"}
    assert read_held_out(images / "test", images) == expected
    with pytest.raises(TripletkitError, match="a folder inside the image folder"):
        read_held_out(tmp_path, images)


def test_the_test_part_of_labels_is_held_out(tripletkit, tiny_backbone, toy_competition, tmp_path):
    parts = ["train", "test", "val"]
    for number, name in enumerate(sorted(path.name for path in toy_competition.images.iterdir())):
        colour = COLOURS[toy_competition.labels[number]]
        folder = tmp_path / parts[number // 20] / colour
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(toy_competition.images / name, folder)
    options = ("--backbone", "tiny", "--frozen")
    result = tripletkit("classify", tmp_path, tmp_path, *options, code=0)
    assert result.stdout.startswith("20 held-out images of 6 classes, classified by 20 others.")

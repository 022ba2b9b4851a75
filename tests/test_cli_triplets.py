"""`tripletkit triplets`: files from labels, read back as triplets."""

from __future__ import annotations

import shutil
from functools import partial

import numpy as np
import pytest
from opened import read_triplets
from plain import pair_distances


@pytest.fixture
def draw(tripletkit):
    return partial(tripletkit, "triplets")


def colours_of(path, labels):
    """Return `(n_triplets, 3)` colours of a triplet file over the toy competition."""
    triplets = read_triplets(path)
    numbers = np.array([int(name[1:3]) for name in triplets.names])
    return labels[numbers[triplets.rows]]


def test_writes_a_training_file(draw, labels_file, toy_competition, tmp_path):
    output = tmp_path / "train.txt"
    drawing = (labels_file, toy_competition.images, "-o", output, "--per-anchor", 3)
    result = draw(*drawing, code=0)
    assert result.stdout == ""
    assert result.stderr == (
        f"Wrote 180 triplets over 60 images, anchors of 6 classes: {output}.\n"
    )
    anchor, positive, negative = colours_of(output, toy_competition.labels).T
    assert (anchor == positive).all()
    assert (anchor != negative).all()
    first = output.read_bytes()
    draw(*drawing, "--seed", 1, "--force", code=0)
    assert output.read_bytes() != first
    draw(*drawing, "--force", code=0)
    assert output.read_bytes() == first


def test_writes_a_competition_of_labels_in_columns_that_are_named(
    draw, labels_file, toy_competition, tmp_path
):
    rows = labels_file.read_text().splitlines()[1:]
    table, output = tmp_path / "birds.csv", tmp_path / "test.txt"
    table.write_text("n,where,what\n" + "".join(f"{n},{row}\n" for n, row in enumerate(rows)))
    drawing = (toy_competition.images, "-o", output, "--count", 101, "--truth")
    for labels, *columns in ((labels_file,), (table, "--columns", "name=where,label=what")):
        draw(labels, *drawing, tmp_path / "truth.csv", "--force", *columns, code=0)
        heading, *truth = (tmp_path / "truth.csv").read_text().splitlines()
        assert heading == "label"
        truth = np.array(truth, dtype=int)
        assert truth.sum() == 50
        anchor, second, third = colours_of(output, toy_competition.labels).T
        np.testing.assert_array_equal(truth, anchor == second)
        np.testing.assert_array_equal(truth, anchor != third)
    refused = draw(table, *drawing, tmp_path / "t.csv", "--force", "--columns", "anchor=n", code=1)
    assert "--columns of name and label" in refused.stderr


def test_hard_ones_are_those_that_frozen_features_get_wrong(
    draw, labels_file, toy_competition, tiny_backbone, tmp_path, tripletkit
):
    vectors_file = tmp_path / "vectors.npz"
    tripletkit("embed", toy_competition.images, "-o", vectors_file, "--backbone", "tiny", code=0)
    with np.load(vectors_file) as data:
        row_of = dict(zip(data["names"].tolist(), data["vectors"], strict=True))
    margins = {}
    for level in ("--hard", "--easy"):
        output = tmp_path / f"{level}.txt"
        drawing = (labels_file, toy_competition.images, "-o", output, level)
        draw(*drawing, "--backbone", "tiny", code=0)
        triplets = read_triplets(output)
        a, p, n = np.array([row_of[name] for name in triplets.names])[triplets.rows.T]
        margins[level] = pair_distances(a, n, "cosine") - pair_distances(a, p, "cosine")
    assert margins["--hard"].mean() < margins["--easy"].mean()


def test_a_folder_per_class_copies_and_a_singleton_image(draw, toy_images, tmp_path):
    images = tmp_path / "images"
    for name, target in [
        ("red0.png", "red/a.png"),
        ("red1.png", "red/b.png"),
        ("red1.png", "red/copy of b.png"),
        ("blue0.png", "blue/c.png"),
        ("blue1.png", "blue/d.png"),
        ("blue2.png", "singleton/e.png"),
    ]:
        (images / target).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(toy_images / name, images / target)
    output = tmp_path / "train.txt"
    result = draw(images, images, "-o", output, code=0)
    assert result.stderr.splitlines() == [
        "Copies of other images, left out: 1.",
        "Singleton classes, whose image can only be a negative: 1 (singleton).",
        "40 triplets were asked for, there are 12.",
        f"Wrote 12 triplets over 5 images, anchors of 2 classes: {output}.",
    ]
    triplets = read_triplets(output)
    assert set(triplets.names) == {
        "red/a.png", "red/b.png", "blue/c.png", "blue/d.png", "singleton/e.png"
    }  # fmt: skip


def test_a_missing_image_is_refused_or_left_out(draw, toy_images, tmp_path):
    labels = tmp_path / "labels.csv"
    rows = [f"{colour}{n}.png,{colour}" for colour in ("red", "blue") for n in range(5)]
    labels.write_text("\n".join(["name,label", *rows]))
    result = draw(labels, toy_images, "-o", tmp_path / "t.txt", code=1)
    assert f'{labels}: there is no image "red4.png"' in result.stderr
    result = draw(labels, toy_images, "-o", tmp_path / "t.txt", "--on-bad-image", "skip", code=0)
    assert "warning: 2 images are left out" in result.stderr
    assert len(read_triplets(tmp_path / "t.txt").names) == 8


ROWS = "red0.png,a\nred1.png,a\nblue0.png,b\n"


@pytest.mark.parametrize(
    ("rows", "options", "exit_code", "message"),
    [
        (ROWS, ["--per-anchor", 2, "--count", 9], 2, "exclude each other"),
        (ROWS, ["--hard"], 2, "--hard or easy needs something to measure with"),
        (ROWS, ["--backbone", "auto"], 2, "measures what is --hard or easy"),
        (ROWS, ["--truth", "t.txt"], 1, "named for two outputs"),
        (ROWS, ["--balance", "weight"], 2, "'image', 'class'"),
        (ROWS, ["--truth", "none/truth.csv"], 1, "does not exist"),
        ("red0.png,a\nred1.png,a\n", [], 1, "at least two classes"),
        ("red0.png,a\nred0-copy.png,b\n", [], 1, 'got "a" for "red0.png" and "b" for "red0-copy.'),
    ],
)
def test_what_cannot_be_drawn_is_refused(
    draw, toy_images, tmp_path, monkeypatch, rows, options, exit_code, message
):
    monkeypatch.chdir(tmp_path)
    images = tmp_path / "images"
    images.mkdir()
    for name in ("red0.png", "red1.png", "blue0.png"):
        shutil.copy(toy_images / name, images / name)
    shutil.copy(toy_images / "red0.png", images / "red0-copy.png")
    (tmp_path / "labels.csv").write_text(f"name,label\n{rows}")
    result = draw("labels.csv", images, "-o", "t.txt", *options)
    assert (result.exit_code, result.stdout) == (exit_code, "")
    assert message in result.stderr
    assert not (tmp_path / "t.txt").exists()

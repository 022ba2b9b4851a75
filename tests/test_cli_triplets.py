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
    result = draw(labels_file, toy_competition.images, "-o", output, "--per-anchor", 3)
    assert (result.exit_code, result.stdout) == (0, "")
    assert result.stderr == (
        f"Wrote 180 triplets over 60 images, anchors of 6 classes: {output}.\n"
    )
    anchor, positive, negative = colours_of(output, toy_competition.labels).T
    assert (anchor == positive).all()
    assert (anchor != negative).all()
    first = output.read_bytes()
    draw(
        labels_file, toy_competition.images, "-o", output, "--per-anchor", 3, "--seed", 1, "--force"
    )
    assert output.read_bytes() != first
    draw(labels_file, toy_competition.images, "-o", output, "--per-anchor", 3, "--force")
    assert output.read_bytes() == first


def test_writes_a_competition(draw, labels_file, toy_competition, tmp_path):
    output, truth_file = tmp_path / "test.txt", tmp_path / "truth.csv"
    draw(
        labels_file,
        toy_competition.images,
        "-o",
        output,
        "--count",
        101,
        "--truth",
        truth_file,
        code=0,
    )
    heading, *truth = truth_file.read_text().splitlines()
    assert heading == "label"
    truth = np.array(truth, dtype=int)
    assert truth.sum() == 50
    anchor, second, third = colours_of(output, toy_competition.labels).T
    np.testing.assert_array_equal(truth, anchor == second)
    np.testing.assert_array_equal(truth, anchor != third)


def test_hard_ones_are_those_that_frozen_features_get_wrong(
    draw, labels_file, toy_competition, tiny_backbone, tmp_path, tripletkit
):
    margins = {}
    for level in ("--hard", "--easy"):
        output = tmp_path / f"{level}.txt"
        draw(
            labels_file,
            toy_competition.images,
            "-o",
            output,
            level,
            "--backbone",
            "tiny",
            code=0,
        )
        vectors_file = tmp_path / "vectors.npz"
        tripletkit("embed", toy_competition.images, "-o", vectors_file, "--backbone", "tiny")
        with np.load(vectors_file) as data:
            row_of = dict(zip(data["names"].tolist(), data["vectors"], strict=True))
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


def test_a_copy_with_another_label_is_refused(draw, toy_images, tmp_path):
    images = tmp_path / "images"
    images.mkdir()
    for name in ("a.png", "b.png"):
        shutil.copy(toy_images / "red0.png", images / name)
    labels = tmp_path / "labels.csv"
    labels.write_text("name,label\na.png,cat\nb.png,dog\n")
    result = draw(labels, images, "-o", tmp_path / "t.txt", code=1)
    assert 'expected one label for one image, got "cat" for "a.png"' in result.stderr
    assert not (tmp_path / "t.txt").exists()


def test_a_missing_image_is_refused_or_left_out(draw, toy_images, tmp_path):
    labels = tmp_path / "labels.csv"
    rows = [f"{colour}{n}.png,{colour}" for colour in ("red", "blue") for n in range(5)]
    labels.write_text("\n".join(["name,label", *rows]))
    result = draw(labels, toy_images, "-o", tmp_path / "t.txt", code=1)
    assert f'{labels}: there is no image "red4.png"' in result.stderr
    result = draw(labels, toy_images, "-o", tmp_path / "t.txt", "--on-bad-image", "skip", code=0)
    assert "warning: 2 images are left out" in result.stderr
    assert len(read_triplets(tmp_path / "t.txt").names) == 8


@pytest.mark.parametrize(
    ("options", "exit_code", "message"),
    [
        (["--per-anchor", 2, "--count", 9], 2, "exclude each other"),
        (["--hard"], 2, "--hard or easy needs something to measure with"),
        (["--backbone", "auto"], 2, "measures what is --hard or easy"),
        (["--truth", "t.txt"], 1, "named for two outputs"),
        (["--balance", "weight"], 2, "'image', 'class'"),
        (["--truth", "none/truth.csv"], 1, "does not exist"),
    ],
)
def test_wrong_calls(draw, toy_images, tmp_path, monkeypatch, options, exit_code, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "labels.csv").write_text("name,label\nred0.png,a\nred1.png,a\nblue0.png,b\n")
    result = draw("labels.csv", toy_images, "-o", "t.txt", *options)
    assert (result.exit_code, result.stdout) == (exit_code, "")
    assert message in result.stderr
    assert not (tmp_path / "t.txt").exists()


def test_labels_without_a_pair_are_refused(draw, toy_images, tmp_path):
    (tmp_path / "labels.csv").write_text("name,label\nred0.png,a\nred1.png,a\n")
    result = draw(tmp_path / "labels.csv", toy_images, "-o", tmp_path / "t.txt", code=1)
    assert "at least two classes" in result.stderr
    assert "got 2 images of 1 classes" in result.stderr


def test_columns_say_where_the_labels_are(draw, labels_file, toy_competition, tmp_path):
    rows = labels_file.read_text().splitlines()[1:]
    table = tmp_path / "birds.csv"
    table.write_text("n,where,what\n" + "".join(f"{n},{row}\n" for n, row in enumerate(rows)))
    columns = ("--columns", "name=where,label=what")
    for labels, options, output in ((labels_file, (), "a.txt"), (table, columns, "b.txt")):
        draw(labels, toy_competition.images, "-o", tmp_path / output, *options, code=0)
    assert (tmp_path / "a.txt").read_bytes() == (tmp_path / "b.txt").read_bytes()
    refused = draw(table, toy_competition.images, "-o", tmp_path / "c.txt", "--columns", "anchor=n")
    assert (refused.exit_code, "--columns of name and label" in refused.stderr) == (1, True)

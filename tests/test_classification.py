"""Classification scores against plain loops and against scikit-learn's own."""

from __future__ import annotations

import csv
import json
import shutil

import numpy as np
import pytest
from drawn import COLOURS
from plain import DISTANCE_NAMES, pair_distances
from sklearn.metrics import average_precision_score

import tripletkit as tk
from tripletkit import TripletkitError
from tripletkit.data.splits.held_out_draws import read_held_out
from tripletkit.evaluation import classification
from tripletkit.evaluation.classification import Confusion, classify_embeddings, count_confusions
from tripletkit.evaluation.intervals import wilson_interval


def draw_embeddings(n, seed, n_classes=4, n_dims=3):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, n_classes, n)
    embeddings = rng.normal(size=(n, n_dims)) + np.eye(n_dims)[labels % n_dims] * 1.5 + 0.2
    return embeddings.astype(np.float32), labels


REFERENCE, REFERENCE_LABELS = draw_embeddings(70, 0)
QUERIES, QUERY_LABELS = draw_embeddings(31, 1)


def score(distance="l2", **changes):
    settings = {
        "reference_embeddings": REFERENCE,
        "reference_labels": REFERENCE_LABELS,
        "query_embeddings": QUERIES,
        "query_labels": QUERY_LABELS,
        "distance": distance,
    }
    return classify_embeddings(**settings | changes)


def distances_to(query, embeddings, distance):
    return pair_distances(np.broadcast_to(query, embeddings.shape), embeddings, distance)


@pytest.mark.parametrize("k", [1, 5])
@pytest.mark.parametrize("distance", DISTANCE_NAMES)
def test_scores_equal_a_loop(distance, k):
    scores, confusion = score(distance, k=k)
    center_right, vote_right, first, tenth, average = [], [], [], [], []
    embeddings = REFERENCE
    if distance == "cosine":
        embeddings = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    centers = np.array([embeddings[label == REFERENCE_LABELS].mean(axis=0) for label in range(4)])
    for query, label in zip(QUERIES, QUERY_LABELS, strict=True):
        center_right.append(np.argmin(distances_to(query, centers, distance)) == label)
        order = np.argsort(distances_to(query, REFERENCE, distance), kind="stable")
        ranked = REFERENCE_LABELS[order].tolist()
        near = ranked[:k]
        said = max(set(near), key=lambda each: (near.count(each), -near.index(each)))
        vote_right.append(said == label)
        first.append(ranked[0] == label)
        tenth.append(ranked[:10].count(label) / 10)
        places = [rank for rank, each in enumerate(ranked, 1) if each == label]
        average.append(np.mean([found / rank for found, rank in enumerate(places, 1)]))
    expected = map(np.mean, (center_right, vote_right, first, tenth, average))
    found = [measured.value for _, measured in scores.measures()]
    np.testing.assert_allclose(found, list(expected), atol=1e-9)
    assert np.trace(confusion) == sum(vote_right)
    assert scores.nearest_neighbors.interval == wilson_interval(sum(vote_right), 31)
    interval = scores.mean_average_precision.interval
    assert interval.low < scores.mean_average_precision.value < interval.high
    assert (scores.n_queries, scores.n_reference, scores.n_classes) == (31, 70, 4)
    commonest = np.bincount(REFERENCE_LABELS).argmax()
    assert scores.commonest_class == np.mean(commonest == QUERY_LABELS)


def test_the_average_precision_of_ties_is_that_of_scikit_learn():
    # Whole numbers around 0, which stay whole as they are compared, so that many are equally far.
    places, asked = (np.concatenate([each, -each]).round() for each in (REFERENCE, QUERIES))
    labels, of_asked = np.tile(REFERENCE_LABELS, 2), np.tile(QUERY_LABELS, 2)
    scores, _ = classify_embeddings(places, labels, asked, of_asked, "l1")
    expected = [
        average_precision_score(labels == label, -distances_to(query, places, "l1"))
        for query, label in zip(asked, of_asked, strict=True)
    ]
    assert scores.mean_average_precision.value == pytest.approx(np.mean(expected))


def test_neither_blocks_nor_the_order_of_queries_change_a_score(monkeypatch):
    expected, _ = score()
    monkeypatch.setattr(classification, "_BLOCK_PAIRS", 200)
    order = np.random.default_rng(2).permutation(31)
    found, _ = score(query_embeddings=QUERIES[order], query_labels=QUERY_LABELS[order])
    for (name, one), (_, other) in zip(found.measures(), expected.measures(), strict=True):
        assert one.value == pytest.approx(other.value), name


def test_embeddings_that_are_all_alike_are_scored_as_chance():
    scores, _ = score(
        reference_embeddings=np.ones_like(REFERENCE), query_embeddings=np.ones_like(QUERIES)
    )
    shares = np.bincount(REFERENCE_LABELS) / len(REFERENCE_LABELS)
    assert scores.mean_average_precision.value == pytest.approx(shares[QUERY_LABELS].mean())
    assert (scores.variance.within, scores.variance.between) == (0, 0)
    assert np.isnan(scores.variance.within_share)


def test_fewer_images_than_neighbours():
    scores, _ = score(
        reference_embeddings=REFERENCE[:6], reference_labels=np.array([0, 1, 2, 3, 0, 1]), k=50
    )
    assert 0 < scores.precision_at_10.value <= 1 / 3


def test_queries_of_other_classes_are_left_out_and_counted():
    labels = QUERY_LABELS.copy()
    labels[:4] = 8
    scores, confusion = score(query_labels=labels)
    assert (scores.n_queries, scores.n_unknown) == (27, 4)
    assert confusion.shape == (4, 4)
    with pytest.raises(TripletkitError, match="got none among 31"):
        score(query_labels=np.full(31, 8))
    with pytest.raises(TripletkitError, match="two classes that are not held out, got 70 of 1"):
        score(reference_labels=np.zeros(70, dtype=int))


def test_variances_equal_a_loop_and_add_up():
    variance = score()[0].variance
    middle = QUERIES.mean(axis=0, dtype=np.float64)
    within = between = 0.0
    for embedding, label in zip(QUERIES.astype(np.float64), QUERY_LABELS, strict=True):
        center = QUERIES[label == QUERY_LABELS].mean(axis=0, dtype=np.float64)
        within += ((embedding - center) ** 2).sum() / 31
        between += ((center - middle) ** 2).sum() / 31
    assert (variance.within, variance.between) == pytest.approx((within, between))
    whole = QUERIES.astype(np.float64).var(axis=0).sum()
    assert variance.within + variance.between == pytest.approx(whole)
    assert variance.within_share == pytest.approx(within / whole)


def test_confusions_count_the_true_label_in_the_row(tmp_path):
    truth, said = np.array([0, 0, 1, 2]), np.array([0, 2, 1, 1])
    confusion = Confusion(["cat", "dog, big", "寿司"], count_confusions(truth, said, 3))
    assert confusion.counts.tolist() == [[1, 0, 1], [0, 1, 0], [0, 1, 0]]
    assert confusion.accuracy == 0.5
    assert confusion.worst() == ("cat", "寿司", 1)
    confusion.write(tmp_path / "c.csv")
    assert (tmp_path / "c.csv").read_text(encoding="utf-8") == (
        'true,cat,"dog, big",寿司\ncat,1,0,1\n"dog, big",0,1,0\n寿司,0,1,0\n'
    )


# --- `classify`, and what its `held_out` may be ---


@pytest.fixture
def classify(tripletkit, tiny_backbone, labels_file, toy_competition):
    def run(*options, labels=labels_file, images=toy_competition.images, **extra):
        return tripletkit("classify", labels, images, *options, **extra)

    return run


@pytest.mark.slow
def test_trained_embeddings_stand_beside_frozen_features(
    tripletkit, tiny_backbone, labels_file, toy_model, toy_competition, tmp_path
):
    files = {suffix: tmp_path / f"c.{suffix}" for suffix in ("png", "csv")}
    found, drawn = (
        tk.classify(
            labels_file,
            toy_competition.images,
            tk.load(toy_model),
            held_out=toy_competition.test,
            confusion=file,
        )
        for file in (files["csv"], files["png"])
    )
    assert files["png"].read_bytes().startswith(b"\x89PNG")
    record = found.to_dict()
    assert record == drawn.to_dict()
    with files["csv"].open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["true", *sorted(COLOURS)]
    assert record["classes"] == sorted(COLOURS)
    assert [list(map(int, row[1:])) for row in rows[1:]] == record["confusion"]
    trained, frozen = record["trained_embeddings"], record["frozen_features"]
    right = sum(record["confusion"][n][n] for n in range(6))
    assert trained["nearest_neighbors"]["value"] == pytest.approx(right / 18)
    assert (trained["distance"], frozen["distance"]) == ("l2", "cosine")
    assert trained["mean_average_precision"]["value"] > 0.5
    options = ["--backbone", "tiny", "--held-out", toy_competition.test, "--json"]
    given = ["classify", labels_file, toy_competition.images, *options]
    alone = json.loads(tripletkit(*given, code=0).stdout)
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
        (["--backbone", "tiny", "--held-out", "names.txt", "--fraction", "0.1"], 2, "says which"),
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

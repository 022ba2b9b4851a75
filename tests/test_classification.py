"""Classification scores against plain loops and against scikit-learn's own."""

from __future__ import annotations

import csv

import numpy as np
import pytest
from plain import DISTANCE_NAMES, pair_distances
from sklearn.metrics import average_precision_score
from sklearn.neighbors import KNeighborsClassifier, NearestCentroid

from tripletkit import TripletkitError
from tripletkit.evaluation import classification
from tripletkit.evaluation.classification import (
    Confusion,
    _average_precision,
    classify_embeddings,
    count_confusions,
    measure_variances,
)
from tripletkit.evaluation.intervals import wilson_interval


def draw_embeddings(n, seed, n_classes=4, n_dims=3):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, n_classes, n)
    embeddings = rng.normal(size=(n, n_dims)) + np.eye(n_dims)[labels % n_dims] * 1.5 + 0.2
    return embeddings.astype(np.float32), labels


REFERENCE, REFERENCE_LABELS = draw_embeddings(70, 0)
QUERIES, QUERY_LABELS = draw_embeddings(31, 1)


def classify(distance="l2", **changes):
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
    scores = classify(distance, k=k)
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
    found = [measured.value for measured in scores.measures.values()]
    np.testing.assert_allclose(found, list(expected), atol=1e-9)
    assert scores.measures["nearest_neighbors"].interval == wilson_interval(sum(vote_right), 31)
    interval = scores.measures["mean_average_precision"].interval
    assert interval.low < scores.measures["mean_average_precision"].value < interval.high
    assert (scores.n_queries, scores.n_reference, scores.n_classes) == (31, 70, 4)
    commonest = np.bincount(REFERENCE_LABELS).argmax()
    assert scores.commonest_class == np.mean(commonest == QUERY_LABELS)


def test_scores_equal_those_of_scikit_learn():
    scores = classify(k=1)
    center = NearestCentroid().fit(REFERENCE, REFERENCE_LABELS)
    assert scores.measures["nearest_center"].value == center.score(QUERIES, QUERY_LABELS)
    neighbors = KNeighborsClassifier(1).fit(REFERENCE, REFERENCE_LABELS)
    np.testing.assert_array_equal(
        scores.confusion, count_confusions(QUERY_LABELS, neighbors.predict(QUERIES), 4)
    )


@pytest.mark.parametrize("seed", range(5))
def test_average_precision_is_that_of_scikit_learn_ties_included(seed):
    rng = np.random.default_rng(seed)
    away, is_own = rng.integers(0, 9, 40).astype(np.float32), rng.random(40) < 0.3
    expected = average_precision_score(is_own, -away)
    assert _average_precision(away[is_own], np.sort(away)) == pytest.approx(expected)


def test_neither_blocks_nor_the_order_of_queries_change_a_score(monkeypatch):
    expected = classify().to_dict()
    monkeypatch.setattr(classification, "_BLOCK_PAIRS", 200)
    order = np.random.default_rng(2).permutation(31)
    found = classify(query_embeddings=QUERIES[order], query_labels=QUERY_LABELS[order]).to_dict()
    for name in ("nearest_center", "nearest_neighbors", "precision_at_1", "mean_average_precision"):
        assert found[name]["value"] == pytest.approx(expected[name]["value"])


def test_embeddings_that_are_all_alike_are_scored_as_chance():
    scores = classify(
        reference_embeddings=np.ones_like(REFERENCE), query_embeddings=np.ones_like(QUERIES)
    )
    shares = np.bincount(REFERENCE_LABELS) / len(REFERENCE_LABELS)
    assert scores.measures["mean_average_precision"].value == pytest.approx(
        shares[QUERY_LABELS].mean()
    )
    assert (scores.variances.within, scores.variances.between) == (0, 0)
    assert np.isnan(scores.variances.within_share)


def test_fewer_images_than_neighbours():
    scores = classify(
        reference_embeddings=REFERENCE[:6], reference_labels=np.array([0, 1, 2, 3, 0, 1]), k=50
    )
    assert 0 < scores.measures["precision_at_10"].value <= 1 / 3


def test_queries_of_other_classes_are_left_out_and_counted():
    labels = QUERY_LABELS.copy()
    labels[:4] = 8
    scores = classify(query_labels=labels)
    assert (scores.n_queries, scores.n_unknown) == (27, 4)
    assert scores.confusion.shape == (4, 4)
    with pytest.raises(TripletkitError, match="got none among 31"):
        classify(query_labels=np.full(31, 8))
    with pytest.raises(TripletkitError, match="two classes that are not held out, got 70 of 1"):
        classify(reference_labels=np.zeros(70, dtype=int))


def test_variances_equal_a_loop_and_add_up():
    variances = measure_variances(QUERIES, QUERY_LABELS)
    middle = QUERIES.mean(axis=0, dtype=np.float64)
    within = between = 0.0
    for embedding, label in zip(QUERIES.astype(np.float64), QUERY_LABELS, strict=True):
        center = QUERIES[label == QUERY_LABELS].mean(axis=0, dtype=np.float64)
        within += ((embedding - center) ** 2).sum() / 31
        between += ((center - middle) ** 2).sum() / 31
    assert (variances.within, variances.between) == pytest.approx((within, between))
    whole = QUERIES.astype(np.float64).var(axis=0).sum()
    assert variances.within + variances.between == pytest.approx(whole)
    assert variances.within_share == pytest.approx(within / whole)


def test_confusions_count_the_true_label_in_the_row(tmp_path):
    counts = count_confusions(np.array([0, 0, 1, 2]), np.array([0, 2, 1, 1]), 3)
    assert counts.tolist() == [[1, 0, 1], [0, 1, 0], [0, 1, 0]]
    confusion = Confusion(["cat", "dog, big", "寿司"], counts)
    assert confusion.accuracy == 0.5
    assert confusion.worst() == ("cat", "寿司", 1)
    confusion.write(tmp_path / "c.csv")
    with (tmp_path / "c.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["true", "cat", "dog, big", "寿司"]
    assert rows[1:] == [
        ["cat", "1", "0", "1"],
        ["dog, big", "0", "1", "0"],
        ["寿司", "0", "1", "0"],
    ]

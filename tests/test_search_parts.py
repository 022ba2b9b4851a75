"""Search in collections whose vectors are never in memory at a time."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image
from plain import DISTANCE_NAMES
from plain_encoder import write_encoder

from tripletkit.search.approximate import (
    ApproximateIndex,
    IndexOrigin,
    _count_codes,
    needs_codes,
)
from tripletkit.search.exact import find_neighbors, find_neighbors_in_parts


def cut(vectors, size):
    return ((start, vectors[start : start + size]) for start in range(0, len(vectors), size))


@pytest.mark.parametrize("distance", DISTANCE_NAMES)
@pytest.mark.parametrize("size", [1, 7, 50, 200])
def test_parts_give_what_the_whole_gives(distance, size):
    rng = np.random.default_rng(3)
    # Whole numbers, so that many are equally near.
    vectors = rng.integers(-2, 3, (101, 3)).astype(np.float32)
    vectors[[4, 60]] = np.nan
    excluded = [rng.choice(101, n, replace=False) for n in (0, 1, 5)]
    queries = rng.integers(-2, 3, (3, 3)).astype(np.float32)
    whole = find_neighbors(vectors, queries, 12, distance, excluded)
    parts = find_neighbors_in_parts(cut(vectors, size), queries, 12, distance, excluded)
    np.testing.assert_array_equal(parts.rows, whole.rows)
    np.testing.assert_array_equal(parts.distances, whole.distances)


@pytest.mark.slow
def test_an_index_of_codes_finds_most_and_measures_by_the_vectors_themselves(monkeypatch):
    pytest.importorskip("faiss", reason="faiss-cpu is not installed (tripletkit[search])")
    rng = np.random.default_rng(0)
    centers = rng.normal(size=(60, 64))
    vectors = (centers[rng.integers(0, 60, 5000)] + 0.4 * rng.normal(size=(5000, 64))).astype("f4")
    vectors[17] = np.nan
    origin = IndexOrigin("a", "cosine", "b", len(vectors))
    monkeypatch.setattr("tripletkit.search.approximate.INDEX_FLAT_BYTES", 0)
    index = ApproximateIndex(cut(vectors, 900), vectors[18:4000], origin)
    assert index.has_codes
    assert "IVF-PQ, 8 bytes a vector, 71 cells" in index.describe()
    # Sorting codes for another kind of search takes seconds a byte.
    assert not index._index.do_polysemous_training
    queries, itself = vectors[20:120], list(np.arange(20, 120)[:, None])
    found = index.search(queries, 10, itself, lambda rows: vectors[rows])
    exact = find_neighbors(vectors, queries, 10, "cosine", itself)
    hits = np.mean(
        [len(np.intersect1d(*both)) for both in zip(found.rows, exact.rows, strict=True)]
    )
    assert hits > 9
    same = found.rows == exact.rows
    np.testing.assert_allclose(found.distances[same], exact.distances[same], atol=1e-6)


def test_codes_are_for_what_does_not_fit():
    assert not needs_codes(10**7, 10, "l2")
    assert needs_codes(10**6, 1280, "cosine")
    assert not needs_codes(10**6, 1280, "l1")
    assert [_count_codes(n) for n in (1280, 2048, 1000, 7, 13)] == [160, 256, 125, 1, 1]


def assert_same_neighbors(found, expected):
    """The same images, at the same distances but for rounding."""
    pairs = [
        pair
        for queries in zip(found["queries"], expected["queries"], strict=True)
        for pair in zip(*(query["neighbors"] for query in queries), strict=True)
    ]
    assert [one["name"] for one, _ in pairs] == [other["name"] for _, other in pairs]
    for one, other in pairs:
        assert one["distance"] == pytest.approx(other["distance"], abs=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("wide", [False, True])
def test_recall_is_said(tripletkit, tmp_path, monkeypatch, wide):
    pytest.importorskip("faiss", reason="faiss-cpu is not installed (tripletkit[search])")
    monkeypatch.setattr("tripletkit.features.encoder.ENCODE_PART_IMAGES", 125)
    # All cells are searched: noise has no clusters, and what a few cells miss of it says nothing.
    monkeypatch.setattr("tripletkit.search.approximate.INDEX_CELLS_SHARE", 1)
    images = tmp_path / "images"
    images.mkdir()
    pixels = np.random.default_rng(1).integers(0, 256, (300, 4, 4, 3), np.uint8)
    for number, image in enumerate(pixels):
        Image.fromarray(image).save(images / f"{number:03}.png")
    if wide:
        monkeypatch.setattr("tripletkit.search.approximate.INDEX_FLAT_BYTES", 0)
    encoder = write_encoder(tmp_path / "plain.onnx")
    called = ["neighbors", str(images), *encoder, "-k", "3", "--json"]
    called += ["--query", str(images / "000.png")]
    exact = tripletkit(*called)
    assert "299 images computed, 1 from the store" in exact.stderr
    indexed = [*called, "--index", str(tmp_path / "index"), "--check-recall"]
    made = tripletkit(*indexed, code=0)
    assert ("IVF-PQ" in made.stderr) == wide
    used = tripletkit(*indexed)
    for result in (made, used):
        found = json.loads(result.stdout)
        assert found["recall"] > 0.9
        assert f"Recall at 3: {found['recall']:.3f}" in result.stderr
        assert_same_neighbors(found, json.loads(exact.stdout))
    assert "--index" in tripletkit(*called, "--check-recall").stderr

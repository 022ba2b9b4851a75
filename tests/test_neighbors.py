"""Search of nearest images, exact and by an index, against comparing every pair in a plain loop."""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image
from plain import DISTANCE_NAMES, pair_distances
from tiny_encoders import write_encoder

import tripletkit as tk
from tripletkit.errors import FeatureFileError
from tripletkit.search import image_search
from tripletkit.search.image_search import (
    NOBODY,
    _ApproximateIndex,
    _describe_collection,
    _find_neighbors_in_parts,
    find_neighbors,
)

NAMES = [f"{colour}{number}.png" for colour in ("blue", "red") for number in range(4)]


def unit(rng, n, n_dims):
    embeddings = rng.normal(size=(n, n_dims)).astype(np.float32)
    return embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)


@pytest.mark.parametrize("distance", DISTANCE_NAMES)
@pytest.mark.parametrize("n_images", [1, 7, 63, 64, 65, 700])
@pytest.mark.parametrize("scale", [0.01, 1, 100])
def test_find_neighbors_equals_a_loop(distance, n_images, scale, monkeypatch):
    rng = np.random.default_rng(n_images)
    embeddings = rng.normal(size=(n_images, 5)).astype(np.float32)
    queries = rng.normal(size=(4, 5)).astype(np.float32) * np.float32(scale)
    k = min(6, n_images)
    found = find_neighbors(embeddings, queries, k, distance)
    for query in range(4):
        measured = pair_distances(queries[query][None], embeddings, distance).tolist()
        expected = sorted((far, row) for row, far in enumerate(measured))[:k]
        assert [row for _, row in expected] == found.rows[query].tolist()
        far = [distance for distance, _ in expected]
        np.testing.assert_allclose(found.distances[query], far, atol=1e-9)
    monkeypatch.setattr(image_search, "_BLOCK_QUERIES", 3)
    monkeypatch.setattr(image_search, "_BLOCK_EMBEDDINGS", 128)
    in_blocks = find_neighbors(embeddings, queries, k, distance)
    np.testing.assert_array_equal(in_blocks.rows, found.rows)
    np.testing.assert_array_equal(in_blocks.distances, found.distances)


@pytest.mark.slow
@settings(max_examples=60)
@given(
    embeddings=arrays(
        np.int8, st.tuples(st.integers(1, 40), st.just(2)), elements=st.integers(-2, 2)
    ),
    k=st.integers(1, 45),
    distance=st.sampled_from(DISTANCE_NAMES),
)
def test_ties_go_to_the_lower_row(embeddings, k, distance):
    embeddings = embeddings.astype(np.float32)
    itself = list(np.arange(len(embeddings))[:, None])
    found = find_neighbors(embeddings, embeddings, k, distance, itself)
    every = find_neighbors(embeddings, embeddings, 40, distance)
    for query in range(len(embeddings)):
        expected = sorted((d, row) for row, d in every.of(query) if row != query)[:k]
        assert len(expected) == min(k, len(embeddings) - 1)
        assert list(found.of(query)) == [(row, d) for d, row in expected]


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
    parts = _find_neighbors_in_parts(cut(vectors, size), queries, 12, distance, excluded)
    np.testing.assert_array_equal(parts.rows, whole.rows)
    np.testing.assert_array_equal(parts.distances, whole.distances)


def cut(vectors, size):
    return ((start, vectors[start : start + size]) for start in range(0, len(vectors), size))


def test_no_distance_is_below_zero():
    """Vectors of one direction, whose cosine rounds to more than 1."""
    rng = np.random.default_rng(0)
    directions = rng.normal(size=(40, 7)).astype(np.float32)
    vectors = np.concatenate([directions, directions * 3, directions / 7])
    features = {f"{number:03}.png": vector for number, vector in enumerate(vectors)}
    embedded = tk.pretrained(features=features).embed()
    found = tk.pretrained(features=features).neighbors(embedded, embedded, k=5).to_dict()
    distances = [n["distance"] for query in found["queries"] for n in query["neighbors"]]
    assert min(distances) == 0.0 and not np.signbit(distances).any()


@pytest.fixture
def faiss():
    return pytest.importorskip("faiss", reason="faiss-cpu is not installed (tripletkit[search])")


def make_index(embeddings, distance="l2", sample=None):
    names = [str(row) for row in range(len(embeddings))]
    made_of = _describe_collection(names, [b"1"] * len(names), "model 1", distance)
    return _ApproximateIndex([(0, embeddings)], embeddings if sample is None else sample, made_of)


def test_missing_and_excluded_images_are_nobodys_neighbours(faiss):
    embeddings = np.array([[0], [1], [np.nan], [2], [1]], dtype=np.float32)
    for found in (
        find_neighbors(embeddings, embeddings[:1], 4, "l2", [np.array([0, 4])]),
        make_index(embeddings).search(embeddings[:1], 4, [np.array([0, 4])]),
    ):
        assert found.rows.tolist() == [[1, 3, NOBODY, NOBODY]]
        assert found.distances[0, :2].tolist() == [1, 2]
        assert np.isnan(found.distances[0, 2:]).all()
    assert find_neighbors(embeddings, embeddings[:0], 2, "l2").rows.shape == (0, 2)


@pytest.mark.parametrize("distance", DISTANCE_NAMES)
def test_an_index_finds_nearly_all_and_measures_as_exact_search_does(faiss, distance, tmp_path):
    rng = np.random.default_rng(0)
    embeddings, queries = unit(rng, 20_000, 10), unit(rng, 100, 10)
    made = make_index(embeddings, distance)
    made.save(tmp_path / "index.npz")
    exact = find_neighbors(embeddings, queries, 10, distance)
    found = _ApproximateIndex.load(tmp_path / "index.npz", made.made_of).search(queries, 10)
    np.testing.assert_array_equal(found.rows, made.search(queries, 10).rows)
    n_same = 0
    for query in range(100):
        measured, expected = dict(found.of(query)), dict(exact.of(query))
        for row in measured.keys() & expected.keys():
            n_same += 1
            assert measured[row] == pytest.approx(expected[row], abs=2e-6)
    assert n_same >= 0.95 * 1000


@pytest.mark.slow
def test_an_index_of_codes_finds_most_and_measures_by_the_vectors_themselves(faiss, monkeypatch):
    rng = np.random.default_rng(0)
    centers = rng.normal(size=(60, 64))
    vectors = (centers[rng.integers(0, 60, 5000)] + 0.4 * rng.normal(size=(5000, 64))).astype("f4")
    vectors[17] = np.nan
    assert not image_search._needs_codes(10**7, 10, "l2")
    assert image_search._needs_codes(10**6, 1280, "cosine")
    assert not image_search._needs_codes(10**6, 1280, "l1")
    monkeypatch.setattr(image_search, "_INDEX_FLAT_BYTES", 0)
    index = make_index(vectors, "cosine", vectors[18:4000])
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


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"vectors": "model 2"}, "expected an index made with model 2, got model 1"),
        ({"distance": "l1"}, "an index for the distance l1, got l2"),
        ({"n_images": 7}, "a collection of 7 images, got 50"),
        ({"collection": "xyz"}, "of the images with the sha256 xyz, got "),
        ({"format_version": 9}, "an index of format 9, got 2"),
    ],
)
def test_an_index_is_refused_for_anything_else(faiss, tmp_path, changed, message):
    index = make_index(unit(np.random.default_rng(0), 50, 3))
    index.save(tmp_path / "index.npz")
    with pytest.raises(FeatureFileError, match=message):
        _ApproximateIndex.load(tmp_path / "index.npz", index.made_of | changed)


def test_a_damaged_index_is_refused_whatever_hash_it_has(faiss, tmp_path):
    path = tmp_path / "index.npz"
    made = make_index(unit(np.random.default_rng(0), 50, 3))
    made.save(path)
    data = path.read_bytes()
    with np.load(path) as file:
        index, facts = file["index"].copy(), json.loads(str(file["facts"]))
    for broken in (b"", b"PK", data[:-400], b"text"):
        path.write_bytes(broken)
        with pytest.raises(FeatureFileError, match="cannot be read as one"):
            _ApproximateIndex.load(path, made.made_of)
    flipped = index.copy()
    flipped[-1] ^= 1
    for other, has_its_hash in (
        (flipped, False),
        (np.random.default_rng(0).integers(0, 256, len(index)).astype(np.uint8), True),
        (faiss.serialize_index(faiss.IndexFlatL2(3)), True),
        (index[: len(index) // 2], True),
    ):
        own = {"sha256": hashlib.sha256(other).hexdigest()} if has_its_hash else {}
        np.savez(path, facts=np.array(json.dumps(facts | own)), index=other)
        with pytest.raises(FeatureFileError, match="is damaged"):
            _ApproximateIndex.load(path, made.made_of)


def test_an_index_knows_names_and_contents_of_its_images_but_no_order():
    def collection(names, contents):
        return _describe_collection(names, contents, "m", "l2")["collection"]

    one = collection(["a", "b"], [b"1", b"2"])
    assert one == collection(["b", "a"], [b"2", b"1"])
    others = [(["a", "b"], [b"1", b"3"]), (["a", "c"], [b"1", b"2"]), (["a", "b"], [b"1", None])]
    assert one not in [collection(*other) for other in others]


@pytest.fixture
def images(toy_images, tmp_path) -> Path:
    return Path(shutil.copytree(toy_images, tmp_path / "images"))


@pytest.fixture
def run(tripletkit, tiny_backbone, images):
    def invoke(*arguments, images=images, **extra):
        return tripletkit("neighbors", images, "--backbone", "tiny", *arguments, **extra)

    return invoke


def names_of(result, query=0):
    assert result.exit_code == 0, result.stderr
    answer = json.loads(result.stdout)["queries"][query]
    return [neighbor["name"] for neighbor in answer["neighbors"]]


def test_a_query_is_never_its_own_neighbour_under_any_name(run, images, tmp_path):
    shutil.copy(images / "red0.png", images / "a copy.png")
    (tmp_path / "new").mkdir()
    shutil.copy(images / "red0.png", tmp_path / "new" / "outside.png")
    queries = [images / "red0.png", images / "a copy.png", tmp_path / "new"]
    arguments = [part for query in queries for part in ("--query", query)]
    result = run(*arguments, "-k", 20, "--json")
    assert json.loads(result.stdout)["queries"][2]["query"] == str(tmp_path / "new/outside.png")
    found = [names_of(result, query) for query in range(3)]
    assert found[0] == found[1] == found[2]
    assert len(found[0]) == 7
    assert not {"red0.png", "a copy.png"} & set(found[0])


def test_labels_say_right_and_wrong(run, images, tmp_path):
    labels = tmp_path / "labels.csv"
    labels.write_text("name,label\n" + "".join(f"{name},{name[:-5]}\n" for name in NAMES[1:]))
    result = run("--query", images / "red0.png", "--labels", labels, "--json", "-k", 20)
    answer = json.loads(result.stdout)["queries"][0]
    assert answer["label"] == "red"
    by_name = {neighbor["name"]: neighbor for neighbor in answer["neighbors"]}
    assert by_name["red1.png"]["same_label"] is True
    assert by_name["blue1.png"]["same_label"] is False
    assert by_name["blue0.png"]["same_label"] is None
    table = run("--query", images / "red0.png", "--labels", labels, "-k", 7).stdout.splitlines()
    assert table[0].split() == ["query", "rank", "name", "distance", "label", "same"]
    assert [line.split()[4:] for line in table if "blue0.png" in line] == [[]]
    assert [line.split()[4:] for line in table if "blue1.png" in line] == [["blue", "no"]]


def test_an_index_gives_the_same_until_the_collection_is_another(faiss, run, images, tmp_path):
    index = tmp_path / "index.npz"
    arguments = ["--query", images / "red0.png", "--json"]
    exact = run(*arguments)
    made = run(*arguments, "--index", index)
    assert "Wrote the index" in made.stderr
    used = run(*arguments, "--index", index)
    assert "1 from the store" in used.stderr
    assert names_of(exact) == names_of(made) == names_of(used)
    (images / "blue3.png").unlink()
    result = run(*arguments, "--index", index, code=1)
    assert "expected an index of a collection of 7 images, got 8" in result.stderr
    assert result.stdout == ""
    run(*arguments, "--index", index, "--force", code=0)


@pytest.mark.slow
@pytest.mark.parametrize("wide", [False, True])
def test_recall_is_said(faiss, tripletkit, tmp_path, monkeypatch, wide):
    monkeypatch.setattr("tripletkit.features.encoder.ENCODE_PART_IMAGES", 125)
    # All cells are searched: noise has no clusters, and what a few cells miss of it says nothing.
    monkeypatch.setattr(image_search, "_INDEX_CELLS_SHARE", 1)
    images = tmp_path / "images"
    images.mkdir()
    pixels = np.random.default_rng(1).integers(0, 256, (300, 4, 4, 3), np.uint8)
    for number, image in enumerate(pixels):
        Image.fromarray(image).save(images / f"{number:03}.png")
    if wide:
        monkeypatch.setattr(image_search, "_INDEX_FLAT_BYTES", 0)
    called = ["neighbors", images, *write_encoder(tmp_path / "plain.onnx"), "-k", 3, "--json"]
    called += ["--query", images / "000.png"]
    exact = tripletkit(*called)
    assert "299 images computed, 1 from the store" in exact.stderr
    (expected,) = json.loads(exact.stdout)["queries"]
    for is_new in (True, False):
        result = tripletkit(*called, "--index", tmp_path / "index", "--check-recall", code=0)
        assert ("IVF-PQ" in result.stderr) == (wide and is_new)
        found = json.loads(result.stdout)
        assert found["recall"] > 0.9
        assert f"Recall at 3: {found['recall']:.3f}" in result.stderr
        for one, other in zip(found["queries"][0]["neighbors"], expected["neighbors"], strict=True):
            assert one["name"] == other["name"]
            assert one["distance"] == pytest.approx(other["distance"], abs=1e-6)
    assert "--index" in tripletkit(*called, "--check-recall").stderr


def test_without_faiss_the_error_says_what_to_install(run, images, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    result = run("--query", images / "red0.png", "--index", tmp_path / "i.npz", code=1)
    assert "pip install 'tripletkit[search]'" in result.stderr


def test_wrong_calls_and_bad_images_are_refused(run, images, tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    (tmp_path / "text.png").write_text("no image")
    query = ["--query", images / "red0.png"]
    for arguments, exit_code, message in [
        ([*query, "--model", tmp_path], 2, "--backbone needs no --model"),
        ([*query, "--collage", tmp_path / "c.txt"], 1, "expected a name that ends in .png"),
        (["--query", empty], 1, "expected a folder of images, there is none"),
        (["--query", tmp_path / "text.png"], 1, "expected an image"),
        (["--query", tmp_path / "text.png", "--on-bad-image", "skip"], 1, "expected an image"),
    ]:
        result = run(*arguments)
        assert (result.exit_code, result.stdout) == (exit_code, ""), arguments
        assert message in result.stderr
    assert "expected a folder of images" in run(*query, images=empty, code=1).stderr
    (images / "red1.png").write_text("no image")
    run(*query, "--json", code=1)
    result = run(*query, "--json", "--on-bad-image", "skip")
    assert "1 images are left out" in result.stderr
    assert len(names_of(result)) == 6

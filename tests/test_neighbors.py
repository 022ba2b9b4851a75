"""Exact and approximate search against comparing every pair in a plain loop."""

import hashlib
import io
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from plain import DISTANCE_NAMES, pair_distances

from tripletkit.errors import FeatureFileError, OutputError
from tripletkit.evaluation.distances import distances_between
from tripletkit.search.approximate import ApproximateIndex, IndexOrigin, fingerprint_collection
from tripletkit.search.exact import NOBODY, find_neighbors

ORIGIN = IndexOrigin("model 1", "l2", "abc", 2000)


def unit(rng, n, n_dims):
    embeddings = rng.normal(size=(n, n_dims)).astype(np.float32)
    return embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)


@pytest.mark.parametrize("distance", DISTANCE_NAMES)
@pytest.mark.parametrize("n_images", [1, 7, 63, 64, 65, 700])
def test_find_neighbors_equals_a_loop(distance, n_images):
    rng = np.random.default_rng(n_images)
    embeddings = rng.normal(size=(n_images, 5)).astype(np.float32)
    queries = rng.normal(size=(4, 5)).astype(np.float32)
    k = min(6, n_images)
    found = find_neighbors(embeddings, queries, k, distance)
    for query in range(4):
        measured = pair_distances(queries[query][None], embeddings, distance).tolist()
        expected = sorted((far, row) for row, far in enumerate(measured))[:k]
        assert [row for _, row in expected] == found.rows[query].tolist()
        np.testing.assert_allclose(found.distances[query], [d for d, _ in expected], atol=1e-9)


@pytest.mark.parametrize("distance", DISTANCE_NAMES)
def test_find_neighbors_is_the_same_in_small_blocks(distance, monkeypatch):
    rng = np.random.default_rng(0)
    embeddings, queries = unit(rng, 1000, 10), unit(rng, 50, 10)
    whole = find_neighbors(embeddings, queries, 10, distance)
    monkeypatch.setattr("tripletkit.search.exact._BLOCK_QUERIES", 7)
    monkeypatch.setattr("tripletkit.search.exact._BLOCK_EMBEDDINGS", 128)
    parts = find_neighbors(embeddings, queries, 10, distance)
    np.testing.assert_array_equal(whole.rows, parts.rows)
    np.testing.assert_array_equal(whole.distances, parts.distances)


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
    found = find_neighbors(
        embeddings, embeddings, k, distance, [np.array([row]) for row in range(len(embeddings))]
    )
    for query in range(len(embeddings)):
        left, right = np.full(len(embeddings), query), np.arange(len(embeddings))
        distances = distances_between(embeddings, left, embeddings, right, distance)
        expected = sorted((d, row) for row, d in enumerate(distances) if row != query)[:k]
        assert list(found.of(query)) == [(row, d) for d, row in expected]


def test_neighbors_do_not_depend_on_the_order():
    rng = np.random.default_rng(1)
    embeddings, queries = unit(rng, 500, 10), unit(rng, 20, 10)
    order = rng.permutation(500)
    found = find_neighbors(embeddings, queries, 10, "l2")
    again = find_neighbors(embeddings[order], queries[::-1], 10, "l2")
    np.testing.assert_array_equal(order[again.rows][::-1], found.rows)
    np.testing.assert_array_equal(again.distances[::-1], found.distances)


@pytest.mark.parametrize("scale", [0.01, 100.0])
def test_cosine_neighbours_do_not_depend_on_the_lengths(scale):
    rng = np.random.default_rng(4)
    embeddings, queries = unit(rng, 700, 6), unit(rng, 5, 6)
    lengths = scale * rng.uniform(0.1, 1, (700, 1)).astype(np.float32)
    found = find_neighbors(embeddings * lengths, scale * queries, 3, "cosine")
    expected = find_neighbors(embeddings, queries, 3, "cosine")
    np.testing.assert_array_equal(found.rows, expected.rows)


def test_excluded_and_missing_images_are_nobodys_neighbours():
    embeddings = np.array([[0], [1], [np.nan], [2], [1]], dtype=np.float32)
    found = find_neighbors(embeddings, embeddings[:1], 4, "l2", [np.array([0, 4])])
    assert found.rows.tolist() == [[1, 3, NOBODY, NOBODY]]
    assert found.distances[0, :2].tolist() == [1, 2]
    assert np.isnan(found.distances[0, 2:]).all()


def test_all_alike_gives_the_first_rows():
    embeddings = np.ones((300, 4), dtype=np.float32)
    found = find_neighbors(embeddings, embeddings[:2], 3, "l2", [np.array([0]), np.array([1])])
    assert found.rows.tolist() == [[1, 2, 3], [0, 2, 3]]


def test_no_query_has_no_neighbours():
    embeddings = np.ones((3, 4), dtype=np.float32)
    assert find_neighbors(embeddings, embeddings[:0], 2, "l2").rows.shape == (0, 2)


def index_of(embeddings, origin):
    return ApproximateIndex([(0, embeddings)], embeddings, origin)


class TestApproximateIndex:
    @pytest.fixture(autouse=True)
    def faiss(self):
        pytest.importorskip("faiss", reason="faiss-cpu is not installed (tripletkit[search])")

    @pytest.mark.parametrize("distance", DISTANCE_NAMES)
    def test_finds_nearly_all_and_measures_as_exact_search_does(self, distance):
        rng = np.random.default_rng(0)
        embeddings, queries = unit(rng, 20_000, 10), unit(rng, 100, 10)
        index = index_of(embeddings, IndexOrigin("m", distance, "c", len(embeddings)))
        exact = find_neighbors(embeddings, queries, 10, distance)
        found = index.search(queries, 10)
        same = [dict(found.of(query)).keys() & dict(exact.of(query)).keys() for query in range(100)]
        assert sum(map(len, same)) >= 0.95 * 1000
        for query in range(100):
            expected = dict(exact.of(query))
            for row, measured in found.of(query):
                if row in expected:
                    assert measured == pytest.approx(expected[row], abs=2e-6)

    def test_leaves_out_what_exact_search_leaves_out(self):
        embeddings = np.array([[0], [1], [np.nan], [2], [1]], dtype=np.float32)
        index = index_of(embeddings, ORIGIN)
        assert index.search(embeddings[:1], 4, [np.array([0, 4])]).rows.tolist() == [
            [1, 3, NOBODY, NOBODY]
        ]

    def test_survives_the_disk(self, tmp_path):
        embeddings = unit(np.random.default_rng(0), 2000, 10)
        index = index_of(embeddings, ORIGIN)
        index.save(tmp_path / "index.npz")
        loaded = ApproximateIndex.load(tmp_path / "index.npz", ORIGIN)
        np.testing.assert_array_equal(
            loaded.search(embeddings[:5], 3).rows, index.search(embeddings[:5], 3).rows
        )
        assert [path.name for path in tmp_path.iterdir()] == ["index.npz"]

    @pytest.mark.parametrize(
        ("changed", "message"),
        [
            ({"vectors": "model 2"}, "expected an index made with model 2, got model 1"),
            ({"distance": "l1"}, "an index for the distance l1, got l2"),
            ({"n_images": 7}, "a collection of 7 images, got 2,000"),
            ({"collection": "xyz"}, "of the images with the sha256 xyz, got abc"),
        ],
    )
    def test_is_refused_for_anything_else(self, tmp_path, changed, message):
        path = tmp_path / "index.npz"
        index_of(unit(np.random.default_rng(0), 50, 3), ORIGIN).save(path)
        expected = IndexOrigin(**(vars(ORIGIN) | changed))
        with pytest.raises(FeatureFileError, match=message):
            ApproximateIndex.load(path, expected)

    def test_a_damaged_file_is_refused(self, tmp_path):
        path = tmp_path / "index.npz"
        index_of(unit(np.random.default_rng(0), 50, 3), ORIGIN).save(path)
        data = path.read_bytes()
        for broken in (b"", b"PK", data[:-400], b"text"):
            path.write_bytes(broken)
            with pytest.raises(FeatureFileError, match="cannot be read as one"):
                ApproximateIndex.load(path, ORIGIN)
        with np.load(io.BytesIO(data)) as file:
            index = file["index"].copy()
            facts = json.loads(str(file["facts"]))
        index[-1] ^= 1
        np.savez(path, facts=np.array(json.dumps(facts)), index=index)
        with pytest.raises(FeatureFileError, match="is damaged"):
            ApproximateIndex.load(path, ORIGIN)
        np.savez(path, facts=np.array(json.dumps(facts | {"format_version": 9})), index=index)
        with pytest.raises(FeatureFileError, match="expected an index of format 1, got 9"):
            ApproximateIndex.load(path, ORIGIN)

    @pytest.mark.parametrize("change", ["other bytes", "other index", "other size"])
    def test_a_file_with_the_right_hash_that_is_no_index_is_refused(self, tmp_path, change):
        import faiss

        path = tmp_path / "index.npz"
        index_of(unit(np.random.default_rng(0), 50, 3), ORIGIN).save(path)
        with np.load(path) as file:
            facts, index = json.loads(str(file["facts"])), file["index"].copy()
        if change == "other bytes":
            index = np.random.default_rng(0).integers(0, 256, len(index)).astype(np.uint8)
        elif change == "other index":
            index = faiss.serialize_index(faiss.IndexFlatL2(3))
        else:
            index = index[: len(index) // 2]
        facts["sha256"] = hashlib.sha256(index).hexdigest()
        np.savez(path, facts=np.array(json.dumps(facts)), index=index)
        with pytest.raises(FeatureFileError, match="holds no index"):
            ApproximateIndex.load(path, ORIGIN)

    def test_writes_nothing_where_it_cannot(self, tmp_path):
        index = index_of(unit(np.random.default_rng(0), 50, 3), ORIGIN)
        with pytest.raises(OutputError):
            index.save(tmp_path / "missing" / "index.npz")


def test_fingerprint_of_a_collection_knows_names_and_contents_but_no_order():
    one = fingerprint_collection(["a", "b"], [b"1", b"2"])
    assert one == fingerprint_collection(["b", "a"], [b"2", b"1"])
    others = [(["a", "b"], [b"1", b"3"]), (["a", "c"], [b"1", b"2"]), (["a", "b"], [b"1", None])]
    assert one not in [fingerprint_collection(*other) for other in others]

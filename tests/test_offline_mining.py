"""Offline mining against plain Python loops."""

import numpy as np
import pytest

from tripletkit.data.labels import NO_LABEL
from tripletkit.evaluation.distances import pair_distances
from tripletkit.evaluation.pairwise import PairwiseDistances
from tripletkit.model.offline_mining import NOBODY, hardest_positives

DISTANCES = ["l2", "squared-l2", "l1", "cosine"]


def distance_of(a, b, distance):
    """A distance as a person would write it down."""
    if distance == "squared-l2":
        return distance_of(a, b, "l2") ** 2
    return float(pair_distances(a[None], b[None], distance)[0])


def draw(seed, n_images=60, n_dims=6, n_classes=5):
    rng = np.random.default_rng(seed)
    codes = rng.normal(size=(n_images, n_dims)).astype(np.float32)
    return codes, rng.integers(0, n_classes, n_images).astype(np.int32)


def hardest_by_a_loop(codes, labels, distance, pictures, farthest=np.inf):
    hardest = []
    for anchor in range(len(codes)):
        best, best_distance = NOBODY, -1.0
        for other in range(len(codes)):
            if labels[other] != labels[anchor] or labels[anchor] == NO_LABEL:
                continue
            if pictures[other] == pictures[anchor]:
                continue
            d = distance_of(codes[anchor], codes[other], distance)
            if best_distance < d <= farthest:
                best, best_distance = other, d
        hardest.append(best)
    return hardest


@pytest.mark.parametrize("distance", DISTANCES)
@pytest.mark.parametrize("block_pairs", [1 << 23, 50])
def test_hardest_positives_equal_a_loop(distance, block_pairs, monkeypatch):
    monkeypatch.setattr("tripletkit.evaluation.pairwise._BLOCK_PAIRS", block_pairs)
    codes, labels = draw(1)
    labels[7], labels[8:11] = 17, NO_LABEL
    expected = hardest_by_a_loop(codes, labels, distance, np.arange(60))
    found = hardest_positives(codes, labels, distance)
    assert (found.dtype, found.tolist()) == (np.int32, expected)
    assert found[7] == found[8] == NOBODY
    middle = float(np.median(pair_distances(codes[:30], codes[30:], "l2")))
    farthest = {"squared-l2": middle**2, "l2": middle}.get(distance, middle / 3)
    expected = hardest_by_a_loop(codes, labels, distance, np.arange(60), farthest)
    assert hardest_positives(codes, labels, distance, farthest=farthest).tolist() == expected


def test_a_picture_under_another_name_is_never_its_own_positive():
    codes, labels = draw(2)
    pictures = np.arange(60)
    for copy, original in ((20, 3), (40, 3), (41, 5)):
        codes[copy], labels[copy], pictures[copy] = codes[original], labels[original], original
    found = hardest_positives(codes, labels, "l2", pictures)
    assert found.tolist() == hardest_by_a_loop(codes, labels, "l2", pictures)
    two_names = hardest_positives(codes[[3, 20]], labels[[3, 20]], "l2", pictures[[3, 20]])
    assert two_names.tolist() == [NOBODY, NOBODY]


def test_an_injected_positive_is_the_hardest_and_not_a_random_one():
    codes, labels = draw(3, n_images=200, n_classes=4)
    found = hardest_positives(codes, labels, "l2")
    for anchor, positive in enumerate(found):
        same = np.flatnonzero((labels == labels[anchor]) & (np.arange(200) != anchor))
        to_same = pair_distances(np.repeat(codes[[anchor]], len(same), 0), codes[same], "l2")
        assert positive == same[to_same.argmax()]


def test_pictures_that_could_not_be_read_are_nobody():
    codes, labels = draw(4, n_images=6, n_classes=1)
    codes[2] = np.nan
    found = hardest_positives(codes, labels, "cosine")
    assert found[2] == NOBODY
    assert 2 not in found
    assert hardest_positives(codes[:0], labels[:0], "l2").shape == (0,)


@pytest.mark.parametrize("distance", DISTANCES)
def test_pairwise_distances_equal_those_of_answers(distance, monkeypatch):
    monkeypatch.setattr("tripletkit.evaluation.pairwise._L1_COLUMNS", 7)
    codes, _ = draw(5)
    codes = codes + np.float32(100)
    distances = PairwiseDistances(codes, distance)
    found = distances.measure(slice(3, 20), slice(2, 60))
    expected = [[distance_of(a, b, distance) for b in codes[2:60]] for a in codes[3:20]]
    atol = {"l2": 2e-3, "cosine": 1e-6}.get(distance, 2e-4)
    np.testing.assert_allclose(found, expected, atol=atol, rtol=1e-5)
    assert found.max() <= distances.limit


def test_a_code_of_length_zero_is_at_cosine_distance_one():
    codes = np.array([[0, 0], [3, 4]], dtype=np.float32)
    distances = PairwiseDistances(codes, "cosine").measure(slice(0, 2))
    np.testing.assert_allclose(distances, [[1, 1], [1, 0]], atol=1e-6)

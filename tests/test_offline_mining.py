"""Offline mining against plain Python loops."""

import numpy as np
import pytest
from plain import NO_LABEL, pair_distances

from tripletkit import TripletkitError
from tripletkit.evaluation.classification import (
    ClassDistances,
    PairwiseDistances,
    measure_distribution,
)
from tripletkit.search.offline_mining import (
    NOBODY,
    _Cut,
    find_cuts,
    hardest_positives,
    hardest_triplets,
    mine_images,
)

DISTANCES = ["l2", "squared-l2", "l1", "cosine"]


def distance_of(a, b, distance):
    """A distance as a person would write it down."""
    return float(pair_distances(a[None], b[None], distance)[0])


def draw(seed, n_images=60, n_dims=6, n_classes=5):
    rng = np.random.default_rng(seed)
    embeddings = rng.normal(size=(n_images, n_dims)).astype(np.float32)
    return embeddings, rng.integers(0, n_classes, n_images).astype(np.int32)


def hardest_by_a_loop(embeddings, labels, distance):
    hardest = []
    for anchor in range(len(embeddings)):
        best, best_distance = NOBODY, -1.0
        for other in range(len(embeddings)):
            if labels[other] != labels[anchor] or labels[anchor] == NO_LABEL:
                continue
            if other == anchor:
                continue
            d = distance_of(embeddings[anchor], embeddings[other], distance)
            if best_distance < d:
                best, best_distance = other, d
        hardest.append(best)
    return hardest


@pytest.mark.parametrize("distance", DISTANCES)
@pytest.mark.parametrize("block_pairs", [1 << 23, 50])
def test_hardest_positives_equal_a_loop(distance, block_pairs, monkeypatch):
    monkeypatch.setattr("tripletkit.evaluation.classification._BLOCK_PAIRS", block_pairs)
    embeddings, labels = draw(1)
    labels[7], labels[8:11] = 17, NO_LABEL
    expected = hardest_by_a_loop(embeddings, labels, distance)
    found = hardest_positives(embeddings, labels, distance)
    assert (found.dtype, found.tolist()) == (np.int32, expected)
    assert found[7] == found[8] == NOBODY


def test_images_that_could_not_be_read_are_nobody():
    embeddings, labels = draw(4, n_images=6, n_classes=1)
    embeddings[2] = np.nan
    found = hardest_positives(embeddings, labels, "cosine")
    assert found[2] == NOBODY
    assert 2 not in found
    assert hardest_positives(embeddings[:0], labels[:0], "l2").shape == (0,)


@pytest.mark.parametrize("distance", DISTANCES)
def test_pairwise_distances_equal_those_of_answers(distance, monkeypatch):
    monkeypatch.setattr("tripletkit.evaluation.classification._L1_COLUMNS", 7)
    embeddings, _ = draw(5)
    embeddings = embeddings + np.float32(100)
    distances = PairwiseDistances(embeddings, distance)
    found = distances.measure(slice(3, 20), slice(2, 60))
    expected = [[distance_of(a, b, distance) for b in embeddings[2:60]] for a in embeddings[3:20]]
    atol = {"l2": 2e-3, "cosine": 1e-6}.get(distance, 2e-4)
    np.testing.assert_allclose(found, expected, atol=atol, rtol=1e-5)
    assert found.max() <= distances.limit


def pairs_by_a_loop(embeddings, labels, distance):
    """Distances of all pairs of one class, and of all of two."""
    found = {True: [], False: []}
    for left in range(len(embeddings)):
        for right in range(left):
            is_same = bool(labels[left] == labels[right])
            found[is_same].append(distance_of(embeddings[left], embeddings[right], distance))
    return found[True], found[False]


def mine_by_a_loop(embeddings, labels, distance, positive, negative, per_image):
    """The hardest images of each, and which of all its pairs are mixed."""
    found, mixed, n_pairs, mixed_images = [], 0, 0, 0
    for anchor in range(len(embeddings)):
        kinds = {True: [], False: []}
        for other in range(len(embeddings)):
            if other != anchor:
                d = distance_of(embeddings[anchor], embeddings[other], distance)
                kinds[bool(labels[other] == labels[anchor])].append((d, other))
        nearest = min(kinds[False])[0]
        mixed += sum(d > nearest for d, _ in kinds[True])
        n_pairs += len(kinds[True])
        mixed_images += bool(kinds[True]) and min(kinds[True])[0] > nearest
        hard = sorted((-d, o) for d, o in kinds[True] if positive.low <= d <= positive.high)
        near = sorted((d, o) for d, o in kinds[False] if negative.low <= d <= negative.high)
        found.append(([o for _, o in hard[:per_image]], [o for _, o in near[:per_image]]))
    return found, mixed / n_pairs, mixed_images


def listed(chosen):
    return [[int(other) for other in row if other != NOBODY] for row in chosen]


@pytest.mark.parametrize("distance", DISTANCES)
@pytest.mark.parametrize("block_pairs", [1 << 23, 500])
def test_the_distribution_counts_every_pair_once(distance, block_pairs, monkeypatch):
    monkeypatch.setattr("tripletkit.evaluation.classification._BLOCK_PAIRS", block_pairs)
    embeddings, labels = draw(6, n_classes=7)
    labels[3] = 99
    distribution = measure_distribution(ClassDistances(embeddings, labels, distance))
    expected = pairs_by_a_loop(embeddings, labels, distance)
    width = distribution.edges[1]
    for counts, values in zip(
        (distribution.positives, distribution.negatives), expected, strict=True
    ):
        assert counts.sum() == len(values)
        found = np.repeat(distribution.edges[:-1], counts) + width / 2
        np.testing.assert_allclose(found, np.sort(values), atol=width)
        for share in (0.01, 0.25, 0.5, 0.95, 1):
            quantile = np.quantile(values, share, method="inverted_cdf")
            assert abs(distribution.quantile(counts, share) - quantile) <= width
    positives, negatives = map(np.array, expected)
    nearer = np.mean(positives[:, None] < negatives)
    assert distribution.separation == pytest.approx(nearer, abs=1e-4)


def test_the_distribution_of_two_far_classes_has_two_peaks():
    rng = np.random.default_rng(0)
    embeddings = rng.normal(size=(200, 4)).astype(np.float32)
    labels = np.arange(200) % 2
    mixed = measure_distribution(ClassDistances(embeddings, labels, "l2"))
    embeddings[labels == 1] += 50
    apart = measure_distribution(ClassDistances(embeddings, labels, "l2"))
    assert (apart.overlap, apart.separation) == (0, 1)
    assert mixed.overlap > 0.85
    assert mixed.separation == pytest.approx(0.5, abs=0.02)
    edges, positives, negatives = apart.coarsen(40)
    assert len(positives) == len(negatives) == len(edges) - 1 <= 40
    assert positives.sum() == 2 * 100 * 99 // 2
    assert negatives.sum() == 100 * 100


@pytest.mark.slow
@pytest.mark.parametrize("distance", DISTANCES)
@pytest.mark.parametrize(("block_pairs", "group"), [(1 << 23, 64), (200, 3)])
def test_mined_images_equal_a_loop(distance, block_pairs, group, monkeypatch):
    monkeypatch.setattr("tripletkit.evaluation.classification._BLOCK_PAIRS", block_pairs)
    monkeypatch.setattr("tripletkit.search.offline_mining._GROUP", group)
    embeddings, labels = draw(7, n_classes=6)
    labels[3] = 99
    images = ClassDistances(embeddings, labels, distance)
    cuts = find_cuts(measure_distribution(images), (0.05, 0.9), (0.02, 0.5))
    told = []
    mined = mine_images(embeddings, images, *cuts, 3, lambda *counts: told.append(counts))
    expected, mixed_pairs, mixed_images = mine_by_a_loop(embeddings, labels, distance, *cuts, 3)
    assert listed(mined.positives) == [positives for positives, _ in expected]
    assert listed(mined.negatives) == [negatives for _, negatives in expected]
    assert mined.mixed_pairs == pytest.approx(mixed_pairs)
    assert mined.mixed_images == pytest.approx(mixed_images / 59)
    assert told[-1] == (60, 60)
    for chosen, distances, cut in (
        (mined.positives, mined.to_positives, cuts[0]),
        (mined.negatives, mined.to_negatives, cuts[1]),
    ):
        assert (np.isnan(distances) == (chosen == NOBODY)).all()
        known = distances[chosen != NOBODY]
        assert ((known >= cut.low) & (known <= cut.high)).all()


def test_images_of_one_class_are_never_negatives_and_no_image_is_its_own_positive():
    # All alike, as after a collapse: nothing but the labels tells the images apart.
    embeddings = np.ones((12, 3), dtype=np.float32)
    labels = np.arange(12) % 3
    images = ClassDistances(embeddings, labels, "l2")
    mined = mine_images(embeddings, images, _Cut(0, np.inf), _Cut(0, np.inf), 20)
    for anchor in range(12):
        same = [other for other in range(12) if labels[other] == labels[anchor]]
        others = [other for other in range(12) if labels[other] != labels[anchor]]
        assert listed(mined.positives)[anchor] == [other for other in same if other != anchor]
        assert listed(mined.negatives)[anchor] == others
    assert (mined.mixed_pairs, mined.mixed_images) == (0, 0)


def test_triplets_pair_by_rank_and_none_twice():
    embeddings, labels = draw(8, n_classes=3)
    labels[:2], labels[2] = 50, 51
    images = ClassDistances(embeddings, labels, "l1")
    mined = mine_images(embeddings, images, _Cut(0, np.inf), _Cut(0, np.inf), 4)
    triplets = mined.triplets()
    assert triplets[:4].tolist() == [[0, 1, negative] for negative in mined.negatives[0]]
    assert 2 not in triplets[:, 0]
    of_five = triplets[triplets[:, 0] == 5]
    assert of_five[:, 1].tolist() == mined.positives[5].tolist()
    assert of_five[:, 2].tolist() == mined.negatives[5].tolist()
    assert len(np.unique(triplets, axis=0)) == len(triplets) == 59 * 4
    assert (labels[triplets[:, 0]] == labels[triplets[:, 1]]).all()
    assert (labels[triplets[:, 0]] != labels[triplets[:, 2]]).all()


def test_cuts_of_all_and_nothing():
    embeddings, labels = draw(9)
    distribution = measure_distribution(ClassDistances(embeddings, labels, "l2"))
    assert find_cuts(distribution, (0, 1), (0, 1)) == (_Cut(0, np.inf), _Cut(0, np.inf))


@pytest.mark.parametrize("labels", [[0, 0, 0], [0, 1, 2], [1], []])
def test_classes_that_have_no_triplets_are_refused(labels):
    with pytest.raises(TripletkitError, match="expected images of at least two classes"):
        ClassDistances(np.zeros((len(labels), 2), np.float32), np.array(labels, int), "l2")


def test_the_hardest_triplets_come_first_by_count_or_share():
    margins = np.array([0.3, -1, 0.1, np.nan, 0.1, 2], dtype=np.float32)
    assert hardest_triplets(margins, 3).tolist() == [1, 2, 4]
    assert hardest_triplets(margins, 0.4).tolist() == [1, 2]
    assert hardest_triplets(margins, 1.0).tolist() == [1, 2, 4, 0, 5]
    assert hardest_triplets(margins, 0.001).tolist() == [1]
    assert hardest_triplets(margins, 100).tolist() == [1, 2, 4, 0, 5]
    assert hardest_triplets(margins[3:4], 0.5).tolist() == []

"""Online mining and its batches: equal to plain loops, and free of false negatives."""

from __future__ import annotations

import numpy as np
import pytest
from plain import NO_LABEL

from tripletkit.losses.batch_mining import (
    MINERS,
    _batch_all,
    _batch_hard,
    _pairwise_distances,
    _semi_hard,
)
from tripletkit.training.batch_learner import ClassBatches, ImageBatches, TripletBatches


@pytest.fixture
def batch():
    rng = np.random.default_rng(0)
    labels = np.array([0, 0, 0, 1, 1, 2, NO_LABEL, NO_LABEL, 3, 3, 3], np.int32)
    return _pairwise_distances(rng.normal(size=(11, 4)).astype(np.float32), "l2").numpy(), labels


def positives_of(labels, a):
    return [p for p in range(len(labels)) if p != a and labels[p] == labels[a] != NO_LABEL]


def negatives_of(labels, a):
    return [
        n
        for n in range(len(labels))
        if labels[n] != labels[a] and NO_LABEL not in (labels[n], labels[a])
    ]


def plain_all(d, labels):
    n = range(len(labels))
    return [(a, p, q) for a in n for p in positives_of(labels, a) for q in negatives_of(labels, a)]


def plain_hard(d, labels):
    return [
        (
            a,
            max(positives_of(labels, a), key=lambda p: d[a, p]),
            min(negatives_of(labels, a), key=lambda n: d[a, n]),
        )
        for a in range(len(labels))
        if positives_of(labels, a) and negatives_of(labels, a)
    ]


def plain_semi_hard(d, labels):
    found = []
    for a in range(len(labels)):
        for p in positives_of(labels, a):
            farther = [n for n in negatives_of(labels, a) if d[a, n] > d[a, p]]
            if farther:
                found.append((a, p, min(farther, key=lambda n: d[a, n])))
            elif negatives_of(labels, a):
                found.append((a, p, max(negatives_of(labels, a), key=lambda n: d[a, n])))
    return found


@pytest.mark.parametrize(
    ("miner", "plain"),
    [(_batch_all, plain_all), (_batch_hard, plain_hard), (_semi_hard, plain_semi_hard)],
)
def test_mining_equals_a_plain_loop(batch, miner, plain):
    got = [tuple(row) for row in miner(*batch).numpy().tolist()]
    assert sorted(got) == sorted(plain(*batch))
    assert got


@pytest.mark.parametrize("name", list(MINERS))
@pytest.mark.parametrize("labels", [[0, 0, 0], [0, 1, 2], [NO_LABEL] * 3])
def test_a_batch_that_allows_no_triplet_gives_none(name, labels):
    got = MINERS[name](np.ones((3, 3), np.float32), np.array(labels, np.int32))
    assert got.shape == (0, 3)


@pytest.mark.parametrize("name", list(MINERS))
def test_images_of_one_class_are_never_negatives_whatever_the_distances(name):
    rng = np.random.default_rng(1)
    for _ in range(20):
        labels = rng.integers(-1, 4, 12).astype(np.int32)
        distances = _pairwise_distances(rng.normal(size=(12, 2)).astype(np.float32), "l1")
        anchor, positive, negative = MINERS[name](distances, labels).numpy().T
        assert (anchor != positive).all()
        assert (labels[anchor] == labels[positive]).all()
        assert (labels[anchor] != labels[negative]).all()
        assert (labels[anchor] >= 0).all()
        assert (labels[negative] >= 0).all()


def epoch(batches, seed=0):
    return list(batches.epoch(np.random.default_rng(seed)))


def test_triplet_batches_show_every_triplet_once():
    rows = np.random.default_rng(0).integers(0, 30, (100, 3))
    labels = np.arange(30, dtype=np.int32) % 4
    found = []
    for batch in epoch(TripletBatches(rows, labels, 16)):
        assert len(np.unique(batch.images)) == len(batch.images)
        np.testing.assert_array_equal(batch.labels, labels[batch.images])
        found += batch.images[batch.triplets].tolist()
    assert sorted(found) == sorted(rows.tolist())


def test_image_batches_show_every_image_once():
    images = np.array([3, 5, 8, 9, 11])
    batches = epoch(ImageBatches(images, np.arange(12, dtype=np.int32), 2))
    assert sorted(np.concatenate([batch.images for batch in batches])) == images.tolist()


def test_class_batches_have_so_many_classes_with_so_many_images():
    labels = np.repeat(np.arange(6, dtype=np.int32), 10)
    batches = epoch(ClassBatches(np.arange(60), labels, 3, 4))
    assert len(batches) == 5
    for batch in batches:
        assert len(np.unique(batch.images)) == 12
        np.testing.assert_array_equal(np.unique(batch.labels, return_counts=True)[1], [4, 4, 4])
    # They take turns: two and a half rounds of six classes.
    shown = np.concatenate([np.unique(batch.labels) for batch in batches])
    assert set(np.bincount(shown)) <= {2, 3}


def test_small_classes_give_all_they_have_and_singleton_images_are_left_out():
    labels = np.array([0, 0, 0, 1, 1, 2, NO_LABEL, NO_LABEL], np.int32)
    for batch in epoch(ClassBatches(np.arange(8), labels, 5, 4)):
        assert sorted(batch.images) == [0, 1, 2, 3, 4]


def test_the_same_generator_gives_the_same_batches():
    labels = np.repeat(np.arange(4, dtype=np.int32), 5)
    batches = ClassBatches(np.arange(20), labels, 2, 2)
    one, same, other = (
        [batch.images.tolist() for batch in epoch(batches, seed)] for seed in (0, 0, 1)
    )
    assert one == same != other


def test_injected_positives_come_along_with_their_class():
    # The source drew them by chance and took images of one class for negatives.
    labels = np.repeat(np.arange(5, dtype=np.int32), 10)
    positives = np.arange(50) - np.arange(50) % 10 + 9
    positives[9::10] -= 9
    positives[:10] = -1
    batches = ClassBatches(np.arange(50), labels, 2, 3)
    batches.positives = positives
    for batch in epoch(batches):
        assert len(np.unique(batch.images)) == len(batch.images)
        wanted = positives[batch.images[:6]]
        assert set(wanted[wanted >= 0]) <= set(batch.images)
        np.testing.assert_array_equal(batch.labels, labels[batch.images])

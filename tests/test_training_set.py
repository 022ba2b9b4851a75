"""What training learns from and is checked on, over one list of names."""

from __future__ import annotations

import numpy as np
import pytest
from opened import open_text
from opened import rows_of as named

from tripletkit import TripletkitError
from tripletkit.data.training_set import TrainingSet
from tripletkit.data.triplets import Votes


def read(text, name="train.txt"):
    return open_text(text, name).triplets


def random_triplets(n_names=60, n_rows=600):
    rows = np.random.default_rng(0).integers(0, n_names, (n_rows, 3))
    return read("".join(f"p{a} p{b} p{c}\n" for a, b, c in rows))


def test_a_split_shares_no_image_and_loses_no_row():
    triplets = random_triplets()
    data = TrainingSet.divide(triplets, "image", 0.2, seed=1)
    assert len(data.val) > 0
    assert data.n_shared_images() == 0
    assert len(data.train) + len(data.val) + data.n_dropped + data.n_degenerate == len(triplets)
    assert data.n_degenerate == triplets.is_degenerate().sum() > 0
    assert not data.train.is_degenerate().any() and not data.val.is_degenerate().any()
    assert data.names == triplets.names
    assert set(named(data.train)) <= set(named(triplets))
    data = TrainingSet.divide(read("a b c\nd e f\n"), "image", 0, seed=0)
    assert (named(data.train), len(data.val)) == ([("a", "b", "c"), ("d", "e", "f")], 0)
    assert (data.by, data.n_dropped, data.n_shared_images()) == ("none", 0, 0)
    with pytest.raises(TripletkitError):
        TrainingSet.divide(read("a b c\n"), "image", 0.1, seed=0)


@pytest.mark.parametrize("fraction", [0, 0.1])
def test_only_degenerate_triplets_are_refused_whatever_the_split(fraction):
    triplets = read("a a b\nc d c\ne f f\n")
    with pytest.raises(TripletkitError, match=r"train\.txt: .* every one names an image twice"):
        TrainingSet.divide(triplets, "image", fraction, seed=0)
    with pytest.raises(TripletkitError, match="three images, got none"):
        TrainingSet.divide(triplets.take(np.array([], int)), "image", fraction, seed=0)
    with pytest.raises(TripletkitError, match=r"val\.txt: "):
        TrainingSet.join(*read("a b c\n").share_names(read("a a b\n", "val.txt")))


def test_a_validation_file_joins_by_names_and_keeps_its_places():
    train, val = read("a b c\nd e f\n").share_names(read("g f a\n\nx x a\ng h a\n", "val.txt"))
    data = TrainingSet.join(train, val)
    assert named(data.train) == [("a", "b", "c"), ("d", "e", "f")]
    assert named(data.val) == [("g", "f", "a"), ("g", "h", "a")]
    assert (data.by, data.n_degenerate, data.n_shared_images()) == ("file", 1, 2)
    assert data.names == ["a", "b", "c", "d", "e", "f", "g", "x", "h"]
    places = train.first_places(val)
    assert places[5:] == ["train.txt:2", "val.txt:1", "val.txt:3", "val.txt:4"]
    kept = data.keep_usable(np.array([name != "c" for name in data.names]))
    assert (named(kept.train), named(kept.val)) == ([("d", "e", "f")], named(data.val))


def test_names_of_one_image_become_one():
    merged = read("a b c\na A c\n").merge(np.array([0, 1, 2, 0]))
    assert named(merged) == [("a", "b", "c"), ("a", "a", "c")]
    assert merged.is_degenerate().tolist() == [False, True]


def with_votes(triplets, seed=0):
    """Return votes that tell their row: as many for the first as its line says."""
    rng = np.random.default_rng(seed)
    return Votes(triplets.lines.astype(float), rng.integers(0, 3, len(triplets)).astype(float))


def test_votes_stay_with_their_rows():
    triplets, val = random_triplets(), random_triplets(n_rows=50)
    votes = with_votes(triplets)
    divided = TrainingSet.divide(triplets, "image", 0.2, 1, votes)
    joined = TrainingSet.join(*triplets.share_names(val), votes, with_votes(val))
    whole = TrainingSet.divide(triplets, "image", 0, 1, votes)
    for data in (divided, joined, whole):
        kept = data.keep_usable(np.arange(len(data.names)) >= 2)
        assert len(kept.train) < len(data.train)
        for part, of_part in ((kept.train, kept.train_votes), (kept.val, kept.val_votes)):
            np.testing.assert_array_equal(of_part.for_first, part.lines)
        of_train = votes.for_second[kept.train.lines - 1]
        np.testing.assert_array_equal(kept.train_votes.for_second, of_train)


@pytest.mark.parametrize(("of_training", "n_train"), [(True, 2), (False, 3)])
def test_ties_are_left_out_of_validation_and_of_training_where_asked(of_training, n_train):
    triplets, val = read("a b c\na c d\na d b\n").share_names(read("a b d\nb c d\n"))
    votes = Votes(np.array([3.0, 1, 1]), np.array([0.0, 1, 0]))
    val_votes = Votes(np.array([1.0, 0]), np.array([1.0, 2]))
    data = TrainingSet.join(triplets, val, votes, val_votes)
    kept = data.leave_out_ties(of_training=of_training)
    assert (len(kept.train), len(kept.val), kept.n_tied) == (n_train, 1, 4 - n_train)
    assert len(kept.train_votes) == n_train and len(kept.val_votes) == 1

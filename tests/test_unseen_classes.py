"""Unseen classes: held out whole, told from new images, and what is chosen by them."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from tripletkit import defaults
from tripletkit.data.labels import NO_LABEL, ImageLabels
from tripletkit.data.splits.class_groups import cluster_images, find_groups, hold_out_classes
from tripletkit.data.training_set import divide_training_set
from tripletkit.data.triplets import Triplets
from tripletkit.errors import SplitError
from tripletkit.features.unit_length import scale_to_unit_length
from tripletkit.model.embedding import embed
from tripletkit.model.settings import HeadSettings
from tripletkit.training.epochs import share_right, train_model
from tripletkit.training.unseen_classes import (
    Candidate,
    CandidateScore,
    Nearness,
    candidates_for,
    choose_candidate,
    measure_nearness,
    measure_unseen_classes,
    score_unseen_classes,
)


@pytest.fixture(scope="module")
def features():
    rng = np.random.default_rng(0)
    kinds = 4 * rng.normal(size=(8, 16))
    return (kinds[np.arange(160) % 8] + rng.normal(size=(160, 16))).astype(np.float32)


@pytest.fixture(scope="module")
def rows():
    drawn = np.random.default_rng(1).integers(0, 160, (20_000, 3))
    anchor, positive, negative = drawn.T
    is_right = (anchor % 8 == positive % 8) & (anchor % 8 != negative % 8) & (anchor != positive)
    return drawn[is_right][:1500].astype(np.int32)


def scores_of(*pairs):
    return [CandidateScore(Candidate(0.7, share), *pair) for share, pair in pairs]


def divide(rows, fraction=0.2, labels=None):
    triplets = Triplets([f"{i}" for i in range(160)], rows, np.arange(len(rows)), "t.txt")
    return dataclasses.replace(divide_training_set(triplets, "image", fraction, 0), labels=labels)


def label(of_image):
    return ImageLabels([f"class{i}" for i in range(8)], np.asarray(of_image, np.int32))


def test_held_out_kinds_share_no_image_and_no_cluster_with_training(features, rows):
    kinds = cluster_images(scale_to_unit_length(features), 8, seed=0)
    held_out = hold_out_classes(rows, kinds, 8, 0.25, seed=0)
    assert 1 <= held_out.n_held_out_classes < 8
    assert 0 < held_out.is_held_out.mean() <= 0.35
    assert not set(kinds[held_out.is_held_out]) & set(kinds[~held_out.is_held_out])
    assert held_out.is_held_out[rows[held_out.split.val_rows]].all()
    assert not held_out.is_held_out[rows[held_out.split.train_rows]].any()


def test_clusters_that_triplets_join_are_not_cut(rows):
    # Twice as many clusters as kinds: holding half a kind out would lose its triplets.
    kinds = np.arange(160) % 16
    held_out = hold_out_classes(rows, kinds, 16, 0.26, seed=0)
    assert set(np.flatnonzero(held_out.is_held_out) % 8) == {
        number % 8 for number in np.flatnonzero(held_out.is_held_out)
    }
    assert len(held_out.split.val_rows) > 0.01 * len(rows)


def test_kinds_that_leave_nothing_are_refused():
    rows = np.array([[0, 1, 2]], np.int32)
    with pytest.raises(SplitError, match="none leaves triplets on both sides"):
        hold_out_classes(rows, np.array([0, 1, 2]), 3, 0.3, seed=0)


def test_nearness_tells_new_images_from_unseen_classes(features):
    unit = scale_to_unit_length(features)
    is_new = np.arange(160) % 8 < 3
    known = np.flatnonzero(~is_new)
    is_held_out = known % 8 == 3
    same = unit[known] + 1e-3
    near = measure_nearness(unit[known], is_held_out, same)
    far = measure_nearness(unit[known], is_held_out, unit[is_new])
    assert near.novelty == 0 < 0.5 < far.novelty <= 1
    assert far.n_test == is_new.sum()


def test_what_all_images_share_does_not_count_as_nearness(features):
    unit = scale_to_unit_length(features)
    shifted = scale_to_unit_length(unit + 5)
    is_new = np.arange(160) % 8 < 3
    known = np.flatnonzero(~is_new)
    is_held_out = known % 8 == 3
    plain = measure_nearness(unit[known], is_held_out, unit[is_new])
    moved = measure_nearness(shifted[known], is_held_out, shifted[is_new])
    assert moved.of_test == pytest.approx(plain.of_test, abs=0.1)
    assert moved.novelty == pytest.approx(plain.novelty, abs=0.1)


def test_novelty_is_a_share_of_the_way():
    assert Nearness(0.2, 0.6, 0.3, 9).novelty == pytest.approx(0.25)
    assert Nearness(0.2, 0.6, 0.9, 9).novelty == 1
    assert Nearness(0.2, 0.6, 0.1, 9).novelty == 0
    # Nothing can be told where held-out classes are as near as other images.
    assert Nearness(0.2, 0.2, 0.1, 9).novelty == 0.5


def test_candidates_are_those_that_the_recipe_has():
    assert candidates_for(HeadSettings()) == [Candidate(1.0)]
    residual = candidates_for(HeadSettings.of_recipe("residual"))
    assert not any(candidate.mlp_members for candidate in residual)
    best = candidates_for(HeadSettings.of_recipe("residual", members=5, mlp_members=0))
    assert best == [*residual, dataclasses.replace(residual[-1], mlp_members=2)]
    shares = [candidate.frozen_share for candidate in residual]
    assert shares == sorted(shares, reverse=True)
    assert Candidate(defaults.STRENGTH, defaults.FROZEN_SHARE) in residual


def test_class_centers_leave_no_place_for_frozen_features():
    settings = HeadSettings.of_recipe("residual", loss="center")
    assert settings.frozen_share == 0
    assert not any(candidate.frozen_share for candidate in candidates_for(settings))


@pytest.mark.parametrize(("novelty", "chosen"), [(None, 1), (0.0, 2), (1.0, 0), (0.5, 1)])
def test_enough_triplets_choose_by_both_worlds(novelty, chosen):
    scores = scores_of((0.5, (0.8, 0.9)), (0.25, (0.9, 0.89)), (0.1, (0.92, 0.6)))
    assert choose_candidate(scores, 500, 500, novelty)[0] == chosen


@pytest.mark.parametrize(("novelty", "chosen"), [(None, 1), (0.0, 2), (0.3, 1), (1.0, 1)])
def test_too_few_triplets_leave_the_choice_to_novelty(novelty, chosen):
    scores = scores_of((0.5, (0.0, 0.0)), (0.25, (0.0, 0.0)), (0.1, (0.0, 0.0)))
    index, reason = choose_candidate(scores, 499, 5000, novelty)
    assert index == chosen
    assert reason.startswith("fewer than 500 validation triplets")


@pytest.mark.slow
@pytest.mark.parametrize(("recipe", "dim"), [("mlp", 6), ("residual", None), ("best", 6)])
def test_a_probe_scores_every_candidate_on_both_worlds(features, rows, recipe, dim):
    data = divide(rows)
    settings = HeadSettings.of_recipe(recipe, hidden=16, dim=dim, epochs=2, members=3)
    seen = measure_unseen_classes(data, features, settings, 0.25, features[:20])
    assert len(seen.probe.scores) == len(candidates_for(settings))
    assert all(0 <= score.unseen_classes <= 1 for score in seen.probe.scores)
    assert seen.trained.accuracy == seen.probe.scores[seen.probe.chosen].unseen_classes
    assert seen.trained.n == seen.frozen.n == seen.probe.n_unseen_classes
    assert dim is None or seen.probe.embeddings.shape == (160, dim)
    record = seen.to_dict()
    assert record["test"]["novelty"] == seen.nearness.novelty
    assert (record["n_rounds"], len(seen.rounds)) == (1, 1)
    assert record["n_held_out_images"] == seen.rounds[0].is_held_out.sum()
    assert record["groups_from"] == "clusters"


@pytest.mark.slow
def test_a_probed_candidate_is_the_model_that_training_makes(features, rows):
    data = divide(rows)
    settings = HeadSettings.of_recipe("residual", hidden=16, epochs=2)
    seen = measure_unseen_classes(data, features, settings, 0.25)
    split = seen.rounds[0].split
    settings = seen.probe.candidate.apply(settings)
    assert settings.frozen_share > 0
    head = train_model(features, data.train.rows[split.train_rows], rows[:0], settings).head
    embeddings = embed(head, features)
    np.testing.assert_allclose(embeddings, seen.probe.embeddings, atol=1e-5)
    assert share_right(embeddings, data.train.rows[split.val_rows], "l2") == seen.trained.accuracy


def test_several_trainings_go_without_others_and_answer_together(features, rows, monkeypatch):
    """As a plain loop has it; a triplet that two are asked about has the mean of their margins."""
    monkeypatch.setattr(defaults, "UNSEEN_ROUNDS", 4)
    data, said, told = divide(rows), [], []

    def answer(train, asked):
        assert not set(data.train.rows[train].ravel()) & set(data.train.rows[asked].ravel())
        margins = np.random.default_rng(len(said)).normal(size=len(asked))
        said.append(dict(zip(asked.tolist(), margins.tolist(), strict=True)))
        return margins

    seen = score_unseen_classes(
        data, features, 0, 0.25, None, None, answer, lambda *done: told.append(done)
    )
    assert len(said) == len(seen.rounds) == 4
    assert told == [(n, 4) for n in range(5)]
    held_out = {tuple(np.flatnonzero(each.is_held_out)) for each in seen.rounds}
    # None of them is trained twice.
    assert len(held_out) == 4
    asked = {row for margins in said for row in margins}
    assert max(sum(row in margins for margins in said) for row in asked) > 1
    right = [
        np.mean([margins[row] for margins in said if row in margins]) > 0 for row in sorted(asked)
    ]
    assert seen.trained.n == seen.frozen.n == len(asked) > max(map(len, said))
    assert seen.trained.accuracy == pytest.approx(np.mean(right))
    assert seen.to_dict()["n_held_out_images"] == len(
        {image for all_ in held_out for image in all_}
    )


@pytest.mark.slow
def test_the_same_classes_are_not_held_out_twice(features, rows, monkeypatch):
    monkeypatch.setattr(defaults, "UNSEEN_ROUNDS", 40)
    data = divide(rows, labels=label(np.arange(160) % 4))
    seen = score_unseen_classes(
        data, features, 0, 0.25, None, None, lambda _train, asked: np.ones(len(asked))
    )
    # Two of four classes can be chosen in six ways.
    assert 1 < len(seen.rounds) <= 6
    assert len({each.is_held_out.tobytes() for each in seen.rounds}) == len(seen.rounds)


def test_kinds_are_the_classes_of_labelled_images(features, rows):
    # Classes that no cluster of features would find.
    of_image = np.arange(160) % 8 // 2
    of_image[:16] = NO_LABEL
    data = divide(rows, labels=label(of_image))
    seen = measure_unseen_classes(data, features, HeadSettings(hidden=16, epochs=1), 0.25)
    assert seen.to_dict()["groups_from"] == "classes"
    assert seen.rounds[0].n_groups == 4
    is_held_out = seen.rounds[0].is_held_out
    assert not is_held_out[:16].any()
    held_out = set(of_image[is_held_out])
    assert len(held_out) == seen.rounds[0].n_held_out_classes
    used = np.unique(np.concatenate([data.train.rows, data.val.rows]))
    assert is_held_out[used].tolist() == [of_image[image] in held_out for image in used]


@pytest.mark.parametrize("of_image", [np.full(160, NO_LABEL), np.arange(160) % 3])
def test_too_few_classes_leave_the_kinds_to_clusters(features, rows, of_image):
    unit = scale_to_unit_length(features)
    data = divide(rows, labels=label(of_image))
    groups, n_groups, source = find_groups(data, unit, 0)
    assert (n_groups, source) == (defaults.N_CLUSTERS, "clusters")
    np.testing.assert_array_equal(groups, find_groups(divide(rows), unit, 0)[0])


@pytest.mark.slow
def test_losses_that_need_labels_are_probed_with_them(features, rows):
    settings = HeadSettings.of_recipe("residual", hidden=16, epochs=1, loss="center")
    data = divide(rows, labels=label(np.arange(160) % 8))
    seen = measure_unseen_classes(data, features, settings, 0.25)
    assert seen.probe.embeddings.shape == (160, 16)


def test_too_few_images_for_kinds_are_refused(features):
    rows = np.array([[0, 1, 2], [2, 3, 4]], np.int32)
    triplets = Triplets([f"{i}" for i in range(5)], rows, np.arange(2), "t.txt")
    data = divide_training_set(triplets, "image", 0, 0)
    with pytest.raises(SplitError, match="expected at least 20 images, got 5"):
        measure_unseen_classes(data, features[:5], HeadSettings.of_recipe("residual"), 0.25)

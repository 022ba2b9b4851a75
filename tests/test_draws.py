"""Held-out draws: no shared image, every image as often as any other, and like the classes."""

from __future__ import annotations

from itertools import count, islice

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from plain import NO_LABEL

from tripletkit import defaults
from tripletkit.data.splits.held_out_draws import (
    BY_GROUPS,
    BY_IMAGES,
    Draw,
    draw_folds,
    plan_draws,
)
from tripletkit.data.splits.policies import find_strata
from tripletkit.errors import SplitError
from tripletkit.model.settings import Settings
from tripletkit.training.held_out import _worth_their_time, answer_held_out
from tripletkit.training.trainer import Examples, HeldOutAnswers, credit, make_trainer


def class_triplets(labels: np.ndarray, n_triplets: int, seed: int = 0) -> np.ndarray:
    """Triplets whose positive is of the anchor's class and whose negative is of another."""
    rng = np.random.default_rng(seed)
    rows = []
    while len(rows) < n_triplets:
        row = rng.permutation(len(labels))[:3]
        if labels[row[0]] == labels[row[1]] != labels[row[2]]:
            rows.append(row)
    return np.array(rows)


LABELS = np.repeat(np.arange(4), 15)
ROWS = class_triplets(LABELS, 1500)


def test_training_and_held_out_triplets_share_no_image() -> None:
    plan = plan_draws(ROWS, 60)
    for draw in islice(draw_folds(ROWS, plan, seed=0), 6):
        held_out = set(ROWS[draw.held_out_rows].ravel().tolist())
        assert held_out
        assert not held_out & set(ROWS[draw.train_rows].ravel().tolist())


def test_each_image_is_held_out_once_a_round() -> None:
    plan = plan_draws(ROWS, 60)
    draws = list(islice(draw_folds(ROWS, plan, seed=0), 6))
    assert [draw.round for draw in draws] == [0, 0, 0, 1, 1, 1]
    for of_round in (draws[:3], draws[3:]):
        held_out = [set(ROWS[draw.held_out_rows].ravel().tolist()) for draw in of_round]
        # Disjoint, and together nearly all: an image may lack a triplet within its fold.
        assert sum(map(len, held_out)) == len(set.union(*held_out)) >= 57


def test_classes_are_divided_evenly_by_labels() -> None:
    plan = plan_draws(ROWS, 60, labels=LABELS)
    assert plan.by == BY_IMAGES
    folds = plan.fold_units(3, np.random.default_rng(1))
    for label in range(4):
        assert np.bincount(folds[label == LABELS], minlength=3).tolist() == [5, 5, 5]


def test_classes_are_found_in_the_triplets_where_nothing_else_tells_them() -> None:
    strata = find_strata(ROWS, 60)
    for label in range(4):
        assert len(np.unique(strata[label == LABELS])) == 1
    assert len(np.unique(strata)) == 4


def test_classes_are_clusters_of_features_without_labels() -> None:
    # Two clouds that the triplets do not tell apart.
    features = np.zeros((60, 2), np.float32)
    features[:30, 0] = features[30:, 1] = 1
    features += np.random.default_rng(0).normal(0, 0.01, features.shape).astype(np.float32)
    strata = find_strata(ROWS, 60, features=features)
    assert not set(strata[:30]) & set(strata[30:])


def test_labels_go_before_features_and_images_without_one_are_a_class() -> None:
    labels = LABELS.copy()
    labels[:3] = NO_LABEL
    strata = find_strata(ROWS, 60, labels=labels, features=np.zeros((60, 2), np.float32))
    assert strata[:3].tolist() == [4, 4, 4]
    assert np.array_equal(strata[3:], LABELS[3:])


def test_groups_without_a_shared_image_are_held_out_whole_and_no_triplet_is_lost() -> None:
    groups = np.repeat(np.arange(9), 4)
    rng = np.random.default_rng(0)
    rows = np.array([rng.permutation(4)[:3] + 4 * (number % 9) for number in range(180)])
    plan = plan_draws(rows, 36)
    assert plan.by == BY_GROUPS
    for draw in islice(draw_folds(rows, plan, seed=3), 3):
        assert len(draw.train_rows) + len(draw.held_out_rows) == len(rows)
        assert len(draw.held_out_rows) == 60
        trained_on = set(groups[rows[draw.train_rows]].ravel().tolist())
        assert len(trained_on) == 6


def test_one_large_group_beside_small_ones_is_divided() -> None:
    small = np.arange(27).reshape(9, 3) + 60
    assert plan_draws(np.concatenate([ROWS, small]), 87).by == BY_IMAGES


def test_a_class_too_small_to_be_divided_stays_together() -> None:
    # One class of fifteen, and eight of three, whose images look unlike each other.
    labels = np.concatenate([np.zeros(15, int), np.repeat(np.arange(1, 9), 3)])
    rows = class_triplets(labels, 900)
    features = np.random.default_rng(0).normal(size=(39, 4)).astype(np.float32)
    plan = plan_draws(rows, 39, features=features)
    folds_of = plan.fold_units(3, np.random.default_rng(1))[plan.unit_of_image]
    for label in range(1, 9):
        assert len(np.unique(folds_of[labels == label])) == 1
    assert len(np.unique(folds_of[labels == 0])) == 3
    for draw in islice(draw_folds(rows, plan, seed=0), 6):
        # No image is learned from as a negative alone because its class is held out.
        trained_on, positives = rows[draw.train_rows], rows[draw.train_rows, :2]
        assert set(labels[trained_on].ravel()) == set(labels[positives].ravel())


def test_small_classes_are_dealt_evenly() -> None:
    labels = np.repeat(np.arange(12), 3)
    plan = plan_draws(class_triplets(labels, 600), 36)
    folds = plan.fold_units(3, np.random.default_rng(0))
    assert np.bincount(folds, minlength=3).tolist() == [4, 4, 4]


@pytest.mark.slow
@given(seed=st.integers(0, 1000), n_folds=st.integers(2, 5))
def test_folds_differ_by_at_most_one_image(seed: int, n_folds: int) -> None:
    plan = plan_draws(ROWS, 60, labels=LABELS, n_folds=n_folds)
    folds = plan.fold_units(n_folds, np.random.default_rng(seed))
    assert np.ptp(np.bincount(folds, minlength=n_folds)) <= 1


def test_the_same_seed_gives_the_same_draws() -> None:
    plan = plan_draws(ROWS, 60)
    first, second, other = (
        next(draw_folds(ROWS, plan, seed=seed)).held_out_rows for seed in (5, 5, 6)
    )
    assert np.array_equal(first, second)
    assert not np.array_equal(first, other)


def test_images_of_no_triplet_are_in_no_fold() -> None:
    plan = plan_draws(ROWS, 70)
    assert (plan.unit_of_image[60:] == -1).all()


def test_too_few_images_are_refused() -> None:
    with pytest.raises(SplitError, match=r"at least 9 images, .*got 6"):
        plan_draws(np.array([[0, 1, 2], [3, 4, 5]]), 6)


def test_triplets_that_can_never_be_held_out_end_the_search() -> None:
    plan = plan_draws(ROWS, 60)
    same = ROWS[:1].repeat(3, axis=0)
    with pytest.raises(SplitError, match="got none in 20 draws"):
        next(draw_folds(same, plan, seed=0))


def test_only_triplets_that_may_be_scored_are_held_out() -> None:
    plan = plan_draws(ROWS, 60)
    is_scored = np.arange(len(ROWS)) % 3 == 0
    for draw, whole in islice(
        zip(
            draw_folds(ROWS, plan, seed=0, is_scored=is_scored),
            draw_folds(ROWS, plan, seed=0),
            strict=False,
        ),
        6,
    ):
        np.testing.assert_array_equal(draw.train_rows, whole.train_rows)
        kept = is_scored[whole.held_out_rows]
        np.testing.assert_array_equal(draw.held_out_rows, whole.held_out_rows[kept])
    with pytest.raises(SplitError):
        next(draw_folds(ROWS, plan, seed=0, is_scored=np.zeros(len(ROWS), dtype=bool)))


@pytest.mark.parametrize(("enough", "n_rounds"), [(1, 1), (100, 1), (101, 2), (10_000, 4)])
def test_whole_rounds_are_drawn_until_enough_answers_are_there(
    enough: int, n_rounds: int, monkeypatch
) -> None:
    monkeypatch.setattr(defaults, "MAX_DRAW_ROUNDS", 4)
    draws = (Draw(np.arange(9), np.arange(9), number // 3) for number in count())
    told = []
    sizes = []
    kept = _worth_their_time(draws, sizes, enough, progress=lambda *done: told.append(done))
    for number, _ in enumerate(kept):
        # 100 answers a round.
        sizes.append([30, 30, 40][number % 3])
    assert len(sizes) == 3 * n_rounds
    assert told[-1] == (3 * n_rounds, 3 * n_rounds)


def test_a_budget_of_no_time_leaves_the_first_round() -> None:
    draws = (Draw(np.arange(9), np.arange(9), number // 3) for number in count())
    sizes = []
    for _ in _worth_their_time(draws, sizes, 10_000, budget_s=0.0):
        sizes.append(10)
    assert len(sizes) == 3


def test_no_answer_chooses_what_answers_it() -> None:
    """On coin answers the best of many variants looks right more often than not; one tossed anew
    does not. Rounds ask the same triplets and are nearly answered alike, so only the folds of one
    round may choose for each other."""
    chosen, reported = [], []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        of_triplets = rng.normal(size=(100, 240))
        margins = np.tile(of_triplets, 4) + 0.1 * rng.normal(size=(100, 960))
        rounds, folds = np.repeat(np.arange(4), 240), np.tile(np.repeat(np.arange(3), 80), 4)
        images = np.tile(np.arange(720).reshape(240, 3), (4, 1))
        answers = HeldOutAnswers(
            margins, margins[0], None, images, 3 * rounds + folds, rounds, "images", 0.0
        )

        def choose(others):
            best = int(np.argmax(credit(others.margins).mean(axis=1)))
            return lambda of_asked: of_asked[best]

        chosen.append(credit(margins).mean(axis=1).max())
        reported.append(credit(answers.cross_fit(choose)).mean())
    assert np.mean(chosen) > 0.55
    assert np.mean(reported) == pytest.approx(0.5, abs=3 * np.std(reported) / 20**0.5 + 0.005)


def test_history_has_the_accuracy_on_held_out_triplets_after_each_epoch() -> None:
    rng = np.random.default_rng(0)
    features = (rng.normal(size=(60, 12)) + 2 * np.eye(12)[LABELS]).astype(np.float32)
    settings = Settings.of_recipe("mlp", hidden=8, dim=3, epochs=6, seed=1)
    trainer = make_trainer(Examples(features, ROWS), settings)
    held_out = answer_held_out(trainer)
    chosen = trainer.choose(held_out)
    told = []
    fitted = chosen.trainer.fit(lambda record, _: told.append(record))
    accuracies = credit(held_out.margins).mean(axis=1)
    found = [record.held_out_accuracy for record in fitted.history]
    assert len(found) == chosen.epoch
    # A draw takes more epochs for as many steps: each epoch is between two of its.
    for epoch, accuracy in enumerate(found, 1):
        place = epoch * len(accuracies) / settings.epochs - 1
        near = accuracies[int(np.floor(place)) : int(np.ceil(place)) + 1]
        assert near.min() - 1e-9 <= accuracy <= near.max() + 1e-9
    # As texts, because from Python 3.13 on a record that holds NaN is not equal to its copy.
    assert list(map(str, told)) == list(map(str, fitted.history))


def test_history_without_held_out_draws_has_no_accuracy_on_them() -> None:
    features = np.random.default_rng(0).normal(size=(60, 12)).astype(np.float32)
    settings = Settings.of_recipe("mlp", hidden=8, dim=3, epochs=1)
    (record,) = make_trainer(Examples(features, ROWS), settings).fit().history
    assert np.isnan(record.held_out_accuracy)


def test_given_groups_are_held_out_as_a_whole():
    rng = np.random.default_rng(0)
    groups = rng.integers(0, 9, 90)
    rows = np.array([rng.choice(90, 3, replace=False) for _ in range(2000)])
    plan = plan_draws(rows, 90, groups=groups)
    for draw in islice(draw_folds(rows, plan, seed=0), 6):
        sides = [np.unique(groups[rows[part]]) for part in (draw.train_rows, draw.held_out_rows)]
        assert not np.intersect1d(*sides).size
        assert len(sides[1]) == 3
    with pytest.raises(SplitError, match="at least 3 `groups`"):
        plan_draws(rows, 90, groups=groups % 2)

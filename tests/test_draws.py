"""Held-out draws: no shared image, every image as often as any other, and like the classes."""

from __future__ import annotations

from itertools import count, islice

import numpy as np
import pytest
from drawn import class_triplets
from plain import NO_LABEL

from tripletkit import defaults
from tripletkit.data.splits.held_out_draws import Draw, _find_strata, draw_folds
from tripletkit.errors import SplitError
from tripletkit.model.settings import Settings
from tripletkit.training.held_out import _worth_their_time, answer_held_out
from tripletkit.training.trainer import Examples, HeldOutAnswers, credit, make_trainer

LABELS = np.repeat(np.arange(4), 15)
ROWS = class_triplets(LABELS, 1500)


def draws_of(rows, n_images, n=6, seed=0, **how):
    """Return some draws, what they hold out, and the images of both sides of each."""
    draws, by = draw_folds(rows, n_images, seed, **how)
    draws = list(islice(draws, n))
    sides = [
        [np.unique(rows[part]) for part in (each.train_rows, each.held_out_rows)] for each in draws
    ]
    return draws, by, sides


def test_no_image_is_shared_and_each_is_held_out_once_a_round() -> None:
    draws, _, sides = draws_of(ROWS, 70)
    assert [draw.round for draw in draws] == [0, 0, 0, 1, 1, 1]
    for trained_on, held_out in sides:
        assert held_out.size and not np.intersect1d(trained_on, held_out).size
    for of_round in (sides[:3], sides[3:]):
        held_out = np.concatenate([side for _, side in of_round])
        # Disjoint, and together nearly all: an image may lack a triplet within its fold.
        assert len(held_out) == len(np.unique(held_out)) >= 57
    again, other = (draws_of(ROWS, 70, seed=seed)[0][0].held_out_rows for seed in (0, 1))
    assert np.array_equal(draws[0].held_out_rows, again)
    assert not np.array_equal(draws[0].held_out_rows, other)


def clouds():
    """Features of two clouds that the triplets do not tell apart, rows of length 1."""
    features = np.zeros((60, 2), np.float32)
    features[:30, 0] = features[30:, 1] = 1
    return features + np.random.default_rng(0).normal(0, 0.01, features.shape).astype(np.float32)


def unlabelled():
    labels = LABELS.copy()
    labels[:3] = NO_LABEL
    return labels


@pytest.mark.parametrize(
    ("how", "classes"),
    [
        ({"labels": LABELS}, LABELS),
        ({}, LABELS),  # which the triplets tell
        ({"features": clouds(), "labels": unlabelled()}, np.where(unlabelled() < 0, 4, LABELS)),
    ],
)
def test_classes_are_divided_evenly_whatever_tells_them(how, classes) -> None:
    _, by, sides = draws_of(ROWS, 60, **how)
    assert by == "images"
    for label, size in enumerate(np.bincount(classes)):
        for _, held_out in sides:
            # One less where an image has no triplet within its fold.
            assert size // 3 - 1 <= (classes[held_out] == label).sum() <= size // 3
    strata = _find_strata(ROWS, 60, features=clouds())
    assert not set(strata[:30]) & set(strata[30:])


def test_groups_without_a_shared_image_are_held_out_whole_and_no_triplet_is_lost() -> None:
    groups = np.repeat(np.arange(9), 4)
    rng = np.random.default_rng(0)
    rows = np.array([rng.permutation(4)[:3] + 4 * (number % 9) for number in range(180)])
    draws, by, sides = draws_of(rows, 36, 3)
    assert by == "groups of triplets that share no image"
    for draw, (trained_on, _) in zip(draws, sides, strict=True):
        assert len(draw.train_rows) + len(draw.held_out_rows) == len(rows)
        assert len(draw.held_out_rows) == 60
        assert len(np.unique(groups[trained_on])) == 6
    # One large group beside small ones is divided.
    small = np.arange(27).reshape(9, 3) + 60
    assert draws_of(np.concatenate([ROWS, small]), 87, 1)[1] == "images"


def test_a_class_too_small_to_be_divided_stays_together() -> None:
    # One class of fifteen, and eight of three, whose images look unlike each other.
    labels = np.concatenate([np.zeros(15, int), np.repeat(np.arange(1, 9), 3)])
    rows = class_triplets(labels, 900)
    features = np.random.default_rng(0).normal(size=(39, 4)).astype(np.float32)
    draws, _, sides = draws_of(rows, 39, features=features)
    for draw, (trained_on, held_out) in zip(draws, sides, strict=True):
        assert not np.intersect1d(labels[trained_on], labels[held_out[labels[held_out] > 0]]).size
        assert 0 in labels[trained_on] and 0 in labels[held_out]
        # No image is learned from as a negative alone because its class is held out.
        assert set(labels[trained_on]) == set(labels[rows[draw.train_rows, :2]].ravel())


def test_given_groups_are_held_out_as_a_whole() -> None:
    rng = np.random.default_rng(0)
    groups = rng.integers(0, 9, 90)
    rows = np.array([rng.choice(90, 3, replace=False) for _ in range(2000)])
    for trained_on, held_out in draws_of(rows, 90, groups=groups)[2]:
        assert not np.intersect1d(groups[trained_on], groups[held_out]).size
        assert len(np.unique(groups[held_out])) == 3
    with pytest.raises(SplitError, match="at least 3 `groups`"):
        draw_folds(rows, 90, 0, groups=groups % 2)


def test_only_triplets_that_may_be_scored_are_held_out() -> None:
    is_scored = np.arange(len(ROWS)) % 3 == 0
    scored, whole = (draws_of(ROWS, 60, is_scored=mask)[0] for mask in (is_scored, None))
    for draw, of_all in zip(scored, whole, strict=True):
        np.testing.assert_array_equal(draw.train_rows, of_all.train_rows)
        kept = of_all.held_out_rows[is_scored[of_all.held_out_rows]]
        np.testing.assert_array_equal(draw.held_out_rows, kept)


def test_what_can_never_be_held_out_ends_the_search() -> None:
    with pytest.raises(SplitError, match=r"at least 9 images, .*got 6"):
        draw_folds(np.array([[0, 1, 2], [3, 4, 5]]), 6, 0)
    with pytest.raises(SplitError, match="got none in 20 draws"):
        draws_of(ROWS, 60, is_scored=np.zeros(len(ROWS), dtype=bool))


@pytest.mark.parametrize(
    ("enough", "n_rounds", "how"),
    [(1, 1, {}), (100, 1, {}), (101, 2, {}), (10_000, 4, {}), (10_000, 1, {"budget_s": 0.0})],
)
def test_whole_rounds_are_drawn_until_enough_answers_are_there_or_no_time(
    enough: int, n_rounds: int, how: dict[str, float], monkeypatch
) -> None:
    monkeypatch.setattr(defaults, "MAX_DRAW_ROUNDS", 4)
    draws = (Draw(np.arange(9), np.arange(9), number // 3) for number in count())
    told = []
    sizes = []
    kept = _worth_their_time(draws, sizes, enough, progress=lambda *done: told.append(done), **how)
    for number, _ in enumerate(kept):
        # 100 answers a round.
        sizes.append([30, 30, 40][number % 3])
    assert len(sizes) == 3 * n_rounds
    assert how or told[-1] == (3 * n_rounds, 3 * n_rounds)


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
    # Without held-out draws there is no accuracy on them.
    assert all(np.isnan(record.held_out_accuracy) for record in trainer.fit().history)
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

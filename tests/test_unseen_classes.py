"""Unseen classes: held out whole, and told from new images; and the share of frozen features."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from plain import NO_LABEL, unit_vectors

from tripletkit import TripletkitError, Triplets, defaults
from tripletkit.data.labels import ImageLabels
from tripletkit.data.splits import policies
from tripletkit.data.splits.held_out_draws import find_groups, hold_out_classes
from tripletkit.data.splits.policies import cluster_images
from tripletkit.model.settings import Settings
from tripletkit.training.head_trainer import HeadTrainer
from tripletkit.training.held_out import answer_held_out, choose
from tripletkit.training.trainer import Chosen, Examples, Fitted, Trainer
from tripletkit.training.unseen_classes import (
    _measure_nearness,
    _Nearness,
    measure_unseen_classes,
    plan_unseen_classes,
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


def divide(features, rows, labels=None):
    """Return rows for training, and those of a fifth of the images for validation."""
    is_val = (np.arange(len(features)) // 8 % 5 == 0)[rows]
    val_rows = rows[is_val.all(axis=1)]
    return Examples(features, rows[~is_val.any(axis=1)], val_rows, labels)


class Answering(Trainer):
    """A trainer whose answers are those of a function of what it learned and is asked."""

    def __init__(self, examples, answers):
        super().__init__(examples, Settings())
        self.answers = answers

    def answer(self, learned, asked, further=0):
        return self.answers(learned, asked)[None]

    def choose(self, held_out):
        return Chosen(self)

    def fit(self, *_) -> Fitted:
        raise NotImplementedError


def measure(trainer, plan, progress=lambda *_: None):
    rows = trainer.examples.rows
    names = [f"{i}" for i in range(len(trainer.examples.features))]
    triplets = Triplets(names, rows, np.arange(len(rows)), "t.txt")
    return measure_unseen_classes(trainer, triplets, plan, progress=progress)


def label(of_image):
    return ImageLabels([f"class{i}" for i in range(8)], np.asarray(of_image, np.int32))


def test_held_out_kinds_share_no_image_and_no_cluster_with_training(features, rows):
    kinds = cluster_images(unit_vectors(features), 8, seed=0)
    held_out = hold_out_classes(rows, kinds, 8, 0.25, seed=0)
    assert 1 <= held_out.n_held_out_classes < 8
    assert 0 < held_out.is_held_out.mean() <= 0.35
    assert not set(kinds[held_out.is_held_out]) & set(kinds[~held_out.is_held_out])
    assert held_out.is_held_out[rows[held_out.split.val_rows]].all()
    assert not held_out.is_held_out[rows[held_out.split.train_rows]].any()


def test_clusters_of_many_images_are_found_from_a_sample(features, monkeypatch):
    unit = unit_vectors(features)
    whole = cluster_images(unit, 8, seed=0)
    monkeypatch.setattr(policies, "_MOST_CLUSTERED", 60)
    sampled = cluster_images(unit, 8, seed=0)
    # Kinds far apart are the same clusters, by other numbers.
    assert len(set(zip(whole.tolist(), sampled.tolist(), strict=True))) == 8


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
    with pytest.raises(TripletkitError, match="none leaves triplets on both sides"):
        hold_out_classes(rows, np.array([0, 1, 2]), 3, 0.3, seed=0)


def test_nearness_tells_new_images_from_unseen_classes(features):
    unit = unit_vectors(features)
    is_new = np.arange(160) % 8 < 3
    known = np.flatnonzero(~is_new)
    is_held_out = known % 8 == 3
    same = unit[known] + 1e-3
    near = _measure_nearness(unit[known], is_held_out, same)
    far = _measure_nearness(unit[known], is_held_out, unit[is_new])
    assert near.novelty == 0 < 0.5 < far.novelty <= 1
    assert far.n_test == is_new.sum()


def test_novelty_is_a_share_of_the_way():
    assert _Nearness(0.2, 0.6, 0.3, 9).novelty == pytest.approx(0.25)
    assert _Nearness(0.2, 0.6, 0.9, 9).novelty == 1
    assert _Nearness(0.2, 0.6, 0.1, 9).novelty == 0
    # Nothing can be told where held-out classes are as near as other images.
    assert _Nearness(0.2, 0.2, 0.1, 9).novelty == 0.5


@pytest.mark.parametrize("given", [{"dim": 6}, {}])
def test_held_out_answers_choose_the_share_of_the_frozen_features(features, rows, given):
    settings = Settings.of_recipe("residual", hidden=16, epochs=2, **given)
    trainer = HeadTrainer(Examples(features, rows), settings)
    held_out = answer_held_out(trainer, budget_s=0.1)
    assert len(held_out.margins) == 3
    right = (held_out.margins > 0).mean(axis=1)
    chosen = choose(trainer, held_out).trainer.settings
    shares = [(0.5, 0.85), (0.25, 0.85), (0.1, 1.0)]
    assert (chosen.frozen_share, chosen.strength) == shares[int(np.argmax(right))]
    # One training is blended as a model with this share is.
    learned, asked = np.arange(len(rows) // 2), rows[len(rows) // 2 :]
    in_draws = trainer.for_draws(learned)
    usual = in_draws.answer(learned, asked)[1]
    own = HeadTrainer(trainer.examples, replace(settings, epochs=in_draws._n_draw_epochs))
    np.testing.assert_allclose(own.answer(learned, asked)[0], usual, atol=1e-3)


@pytest.mark.parametrize("given", [{"loss": "center"}, {"frozen_share": 0.4}, {"strength": 0.5}])
def test_what_the_user_chose_and_class_centers_leave_no_choice(features, rows, given):
    settings = Settings.of_recipe("residual", hidden=16, epochs=1, **given)
    examples = Examples(features, rows, labels=label(np.arange(160) % 8))
    learned = np.arange(1000)
    answered = HeadTrainer(examples, settings).for_draws(learned).answer(learned, rows[1000:])
    assert len(answered) == 1


def test_several_trainings_go_without_others_and_answer_together(features, rows, monkeypatch):
    """As a plain loop has it; a triplet that two are asked about has the mean of their margins."""
    monkeypatch.setattr(defaults, "UNSEEN_ROUNDS", 4)
    examples, said, told = divide(features, rows), [], []

    def answer(learned, asked):
        assert not set(examples.rows[learned].ravel()) & set(asked.ravel())
        margins = np.random.default_rng(len(said)).normal(size=len(asked))
        said.append(dict(zip(map(tuple, asked.tolist()), margins.tolist(), strict=True)))
        return margins

    plan = plan_unseen_classes(examples, 0, 0.25)
    seen = measure(Answering(examples, answer), plan, lambda *done: told.append(done))
    # Where the same are drawn again there is one less.
    n_rounds = len(plan.rounds)
    assert len(said) == n_rounds > 2
    assert told == [(n, n_rounds) for n in range(n_rounds + 1)]
    held_out = {tuple(np.flatnonzero(each.is_held_out)) for each in plan.rounds}
    # None of them is trained twice.
    assert len(held_out) == n_rounds
    asked = {row for margins in said for row in margins}
    assert max(sum(row in margins for margins in said) for row in asked) > 1
    right = [
        np.mean([margins[row] for margins in said if row in margins]) > 0 for row in sorted(asked)
    ]
    assert seen.trained.n == seen.frozen.n == seen.map.n == len(asked) > max(map(len, said))
    assert seen.trained.accuracy == pytest.approx(np.mean(right))
    assert seen.to_dict()["n_held_out_images"] == len(
        {image for all_ in held_out for image in all_}
    )
    # Answers by chance are worse than a map of features that tell.
    assert seen.map.accuracy > seen.trained.accuracy
    assert seen.better is not None
    assert seen.better.name == "map"


@pytest.mark.slow
def test_the_same_classes_are_not_held_out_twice(features, rows, monkeypatch):
    monkeypatch.setattr(defaults, "UNSEEN_ROUNDS", 40)
    rounds = plan_unseen_classes(divide(features, rows, label(np.arange(160) % 4)), 0, 0.25).rounds
    # Two of four classes can be chosen in six ways.
    assert 1 < len(rounds) <= 6
    assert len({each.is_held_out.tobytes() for each in rounds}) == len(rounds)


def test_kinds_are_the_classes_of_labelled_images(features, rows):
    # Classes that no cluster of features would find.
    of_image = np.arange(160) % 8 // 2
    of_image[:16] = NO_LABEL
    examples = divide(features, rows, label(of_image))
    plan = plan_unseen_classes(examples, 0, 0.25)
    assert plan.groups_from == "classes"
    assert plan.rounds[0].n_groups == 4
    is_held_out = plan.rounds[0].is_held_out
    assert not is_held_out[:16].any()
    held_out = set(of_image[is_held_out])
    assert len(held_out) == plan.rounds[0].n_held_out_classes
    used = np.union1d(examples.rows, examples.val_rows)
    assert is_held_out[used].tolist() == [of_image[image] in held_out for image in used]


@pytest.mark.parametrize("of_image", [np.full(160, NO_LABEL), np.arange(160) % 3])
def test_too_few_classes_leave_the_kinds_to_clusters(features, of_image):
    unit, images = unit_vectors(features), np.arange(160)
    groups, n_groups, source = find_groups(images, unit, of_image, 0)
    assert (n_groups, source) == (defaults.N_CLUSTERS, "clusters")
    np.testing.assert_array_equal(groups, find_groups(images, unit, None, 0)[0])


def test_too_few_images_for_kinds_are_refused(features):
    rows = np.array([[0, 1, 2], [2, 3, 4]], np.int32)
    with pytest.raises(TripletkitError, match="expected at least 20 images, got 5"):
        plan_unseen_classes(Examples(features[:5], rows), 0, 0.25)

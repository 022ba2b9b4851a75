"""What models are asked that were trained without it: unseen classes, shares of the judgements."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice

import numpy as np
import pytest
from plain import NO_LABEL, unit_vectors
from scipy.stats import ttest_1samp

from tripletkit import TripletkitError, Triplets, defaults
from tripletkit.data.labels import ImageLabels
from tripletkit.data.splits import held_out_draws
from tripletkit.data.splits.held_out_draws import find_groups, hold_out_classes
from tripletkit.evaluation.pooled import LearningCurve
from tripletkit.evaluation.validation import Nearness
from tripletkit.model.settings import Settings
from tripletkit.training.held_out import (
    _draw_held_out,
    answer_held_out,
    measure_learning_curve,
    measure_unseen_classes,
    plan_unseen_classes,
)
from tripletkit.training.trainer import Chosen, Examples, Fitted, Trainer, make_trainer


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
    kinds = held_out_draws._cluster_images(unit_vectors(features), 8, seed=0)
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
    with pytest.raises(TripletkitError, match="none leaves triplets on both sides"):
        hold_out_classes(rows, np.array([0, 1, 2]), 3, 0.3, seed=0)


def test_novelty_is_the_share_of_the_way_from_new_images_to_unseen_classes(features):
    unit = unit_vectors(features)
    is_new = np.arange(160) % 8 < 3
    known = np.flatnonzero(~is_new)
    is_held_out = known % 8 == 3
    near = Nearness.of(unit[known], is_held_out, unit[known] + 1e-3)
    far = Nearness.of(unit[known], is_held_out, unit[is_new])
    assert near.novelty == 0 < 0.5 < far.novelty <= 1
    assert far.n_test == is_new.sum()
    way = far.of_unseen_classes - far.of_training
    share = (far.of_test - far.of_training) / way
    assert far.novelty == pytest.approx(min(share, 1))
    # Nothing can be told where held-out classes are as near as other images.
    same = Nearness.of(unit[:8].repeat(2, axis=0), np.arange(16) % 2 == 0, unit[:4])
    assert same.novelty == 0.5


@pytest.mark.parametrize("given", [{"dim": 6}, {}])
def test_held_out_answers_choose_the_share_of_the_frozen_features(features, rows, given):
    settings = Settings.of_recipe("residual", hidden=16, epochs=2, **given)
    trainer = make_trainer(Examples(features, rows), settings)
    held_out = answer_held_out(trainer, budget_s=0.1)
    assert len(held_out.margins) == 3
    right = (held_out.margins > 0).mean(axis=1)
    chosen = trainer.choose(held_out).trainer.settings
    shares = [(0.5, 0.85), (0.25, 0.85), (0.1, 1.0)]
    assert (chosen.frozen_share, chosen.strength) == shares[int(np.argmax(right))]
    # One training is blended as a model with this share is.
    learned, asked = np.arange(len(rows) // 2), rows[len(rows) // 2 :]
    in_draws = trainer.for_draws(learned)
    usual = in_draws.answer(learned, asked)[1]
    own = make_trainer(trainer.examples, replace(settings, epochs=in_draws._n_draw_epochs))
    np.testing.assert_allclose(own.answer(learned, asked)[0], usual, atol=1e-3)


@pytest.mark.parametrize("given", [{"loss": "center"}, {"frozen_share": 0.4}, {"strength": 0.5}])
def test_what_the_user_chose_and_class_centers_leave_no_choice(features, rows, given):
    settings = Settings.of_recipe("residual", hidden=16, epochs=1, **given)
    examples = Examples(features, rows, labels=label(np.arange(160) % 8))
    learned = np.arange(1000)
    answered = make_trainer(examples, settings).for_draws(learned).answer(learned, rows[1000:])
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
    n_rounds = len(plan)
    assert len(said) == n_rounds > 2
    assert told == [(n, n_rounds) for n in range(n_rounds + 1)]
    held_out = {tuple(np.flatnonzero(each.is_held_out)) for each, _ in plan}
    # None of them is trained twice.
    assert len(held_out) == n_rounds
    asked = {row for margins in said for row in margins}
    assert max(sum(row in margins for margins in said) for row in asked) > 1
    right = [
        np.mean([margins[row] for margins in said if row in margins]) > 0 for row in sorted(asked)
    ]
    assert seen.trained.n == seen.frozen.n == seen.map.n == len(asked)
    assert len(asked) > max(map(len, said))
    assert seen.trained.accuracy == pytest.approx(np.mean(right))
    assert seen.n_held_out_images == len({image for all_ in held_out for image in all_})
    # Answers by chance are worse than a map of features that tell.
    assert seen.map.accuracy > seen.trained.accuracy
    assert seen.better.name == "map"


def test_kinds_are_the_classes_of_labelled_images(features, rows):
    # Classes that no cluster of features would find.
    of_image = np.arange(160) % 8 // 2
    of_image[:16] = NO_LABEL
    examples = divide(features, rows, label(of_image))
    (plan, groups_from), *_ = plan_unseen_classes(examples, 0, 0.25)
    assert groups_from == "classes"
    assert plan.n_groups == 4
    is_held_out = plan.is_held_out
    assert not is_held_out[:16].any()
    held_out = set(of_image[is_held_out])
    assert len(held_out) == plan.n_held_out_classes
    used = np.union1d(examples.rows, examples.val_rows)
    assert is_held_out[used].tolist() == [of_image[image] in held_out for image in used]


@pytest.mark.parametrize("of_image", [np.full(160, NO_LABEL), np.arange(160) % 3])
def test_too_few_classes_leave_the_kinds_to_clusters(features, of_image):
    unit, images = unit_vectors(features), np.arange(160)
    groups, n_groups, source = find_groups(images, unit, of_image, 0)
    assert (n_groups, source) == (defaults.N_CLUSTERS, "clusters")
    np.testing.assert_array_equal(groups, find_groups(images, unit, None, 0)[0])


N = np.tile([250.0, 500.0, 1000.0], (6, 1))


def noisy(rng, noise, slope=1.5):
    return 0.9 - slope / np.sqrt(N) + rng.normal(0, noise, N.shape)


def test_the_interval_holds_the_true_gain():
    rng = np.random.default_rng(0)
    true = 1.5 / np.sqrt(1500) - 1.5 / np.sqrt(2000)
    curves = [LearningCurve.fit(N, noisy(rng, 0.01), 1500, 500) for _ in range(200)]
    held = np.mean([curve.interval.low <= true <= curve.interval.high for curve in curves])
    assert 0.9 <= held <= 0.99


def test_two_draws_give_no_interval_and_a_flat_curve_is_short_of_nothing():
    assert LearningCurve.fit(N[:2], 0.8 + 0 * N[:2], 1500).interval is None
    assert LearningCurve.fit(N, 0.8 + 0 * N, 1500).short_of is None


def test_fewer_images_that_do_worse_say_that_images_are_short():
    accuracies = 0.9 - 3 / np.sqrt(N)
    low, same = (
        LearningCurve.fit(N, accuracies, 1500, with_fewer_images=accuracies[:, 0] - less)
        for less in (0.05, 0)
    )
    assert (low.short_of, same.short_of) == ("images", "judgements")


def test_every_number_has_its_interval():
    rng = np.random.default_rng(1)
    accuracies = noisy(rng, 0.01)
    curve = LearningCurve.fit(N, accuracies, 1500, with_fewer_images=accuracies[:, 0] - 0.02)
    of_points = zip(accuracies.T, curve.intervals, strict=True)
    for values, interval in (*of_points, (accuracies[:, 0] - 0.02, curve.fewer_interval)):
        expected = ttest_1samp(values, 0).confidence_interval()
        assert (interval.low, interval.high) == pytest.approx((expected.low, expected.high))
    few = LearningCurve.fit(N[:2], accuracies[:2], 1500)
    assert few.intervals == (None,) * 3 and "no interval" in few.outlook


RNG = np.random.default_rng(0)
EXAMPLES = Examples(
    RNG.normal(size=(60, 4)).astype(np.float32),
    np.array([RNG.permutation(60)[:3] for _ in range(2000)]),
)


def test_the_curve_is_that_of_a_plain_loop():
    """The same draws and shares, learned from by a plain rule, and lines fitted by hand."""

    def answer(learned, rows):
        # The image that was more often the nearer one, a tie where both were as often.
        score = np.zeros(60)
        for _, near, far in EXAMPLES.rows[learned]:
            score[near] += 1
            score[far] -= 1
        return score[rows[:, 1]] - score[rows[:, 2]]

    curve = measure_learning_curve(Answering(EXAMPLES, answer))
    draws, _ = _draw_held_out(EXAMPLES, 0)
    rng, gains, accuracies, few = np.random.default_rng(0), [], [], []
    for draw in islice(draws, 3):
        shuffled = [int(row) for row in rng.permutation(draw.train_rows)]
        asked = EXAMPLES.rows[draw.held_out_rows]

        def share_right(rows, asked=asked):
            margins = answer(np.array(rows), asked)
            return sum(1.0 if m > 0 else 0.5 if m == 0 else 0.0 for m in margins) / len(asked)

        n = [round(share * len(shuffled)) for share in (0.25, 0.5, 1)]
        right = [share_right(shuffled[:size]) for size in n]
        x = [-(size**-0.5) for size in n]
        mean_x, mean_y = sum(x) / 3, sum(right) / 3
        slope = sum((a - mean_x) * (b - mean_y) for a, b in zip(x, right, strict=True))
        slope /= sum((a - mean_x) ** 2 for a in x)
        gains.append(slope * (2000**-0.5 - 2500**-0.5))
        accuracies.append(right)
        # Images are added one after the other until the triplets among them are enough.
        images = sorted({int(i) for row in draw.train_rows for i in EXAMPLES.rows[row]})
        order = [images[place] for place in np.argsort(rng.permutation(len(images)))]
        among = []
        for count in range(len(order) + 1):
            there = set(order[:count])
            for row in draw.train_rows:
                if int(row) not in among and set(EXAMPLES.rows[row].tolist()) <= there:
                    among.append(int(row))
            if len(among) >= n[0]:
                break
        few.append(share_right(among[: n[0]]))
    assert curve.gain == pytest.approx(sum(gains) / 3)
    assert curve.accuracies == pytest.approx(np.mean(accuracies, axis=0).tolist())
    assert curve.with_fewer_images == pytest.approx(sum(few) / 3)

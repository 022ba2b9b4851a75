"""Pooled accuracy of held-out draws: images alike, and an interval wide enough for both sides."""

from __future__ import annotations

import numpy as np
import pytest

from tripletkit.evaluation.intervals import image_interval
from tripletkit.evaluation.pooled import PooledScore


def simulate(
    rng: np.random.Generator, n_images: int, n: int, of_image: float, of_draw: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    """Answers whose chance to be right depends on their images and on their draw."""
    images = np.array([rng.permutation(n_images)[:3] for _ in range(n)])
    draws = np.arange(n) % 6
    hard, luck = rng.normal(0, of_image, n_images), rng.normal(0, of_draw, 6)
    chance = np.clip(0.8 + hard[images].mean(axis=1) + luck[draws], 0, 1)
    return (rng.random(n) < chance).astype(float), images, draws, 0.8


def test_an_image_in_many_triplets_counts_once_and_what_is_counted() -> None:
    # Nine triplets of the same images are wrong, one of others is right.
    images = np.array([[0, 1, 2]] * 9 + [[3, 4, 5]])
    score = PooledScore.of(np.arange(10) == 9, images, np.arange(10) % 2)
    assert score.accuracy == pytest.approx(0.5)
    assert (score.n_triplets, score.n_answers, score.n_images) == (2, 10, 6)
    assert score.of_draws == (0.0, 0.2)
    all_right = PooledScore.of(np.ones(10), np.arange(30).reshape(10, 3), np.arange(10) % 2)
    assert all_right.interval is None


def test_draws_that_disagree_widen_the_interval() -> None:
    rng = np.random.default_rng(1)
    images = np.array([rng.permutation(200)[:3] for _ in range(600)])
    right = (np.arange(600) % 5 > 0).astype(float)
    alike = PooledScore.of(right, images, np.arange(600) % 3)
    # The same answers, sorted so that the draws differ.
    apart = PooledScore.of(right, images, (np.arange(600) % 5 > 0).astype(int))
    assert apart.interval.high - apart.interval.low > 2 * (alike.interval.high - alike.interval.low)
    assert apart.accuracy == alike.accuracy


@pytest.mark.slow
@pytest.mark.parametrize("of_draw", [0.0, 0.04])
def test_the_interval_holds_the_true_value(of_draw: float) -> None:
    rng = np.random.default_rng(2)
    n_held = n_held_by_images = 0
    for _ in range(100):
        right, images, draws, true = simulate(rng, 80, 400, 0.15, of_draw)
        interval = PooledScore.of(right, images, draws).interval
        n_held += interval.low <= true <= interval.high
        alone = image_interval(right, images)
        n_held_by_images += alone.low <= true <= alone.high
    assert n_held >= 92
    if of_draw:
        # Images alone do not see what training shares.
        assert n_held_by_images < n_held


@pytest.mark.slow
def test_other_tests_are_held_as_often_as_said() -> None:
    rng = np.random.default_rng(3)
    n_held = n_held_by_interval = 0
    for _ in range(100):
        # Two samples of images, of which one is the test.
        (right, images, draws, _), (test, *_) = (simulate(rng, 80, 400, 0.2, 0.0) for _ in "ab")
        score = PooledScore.of(right, images, draws)
        n_held += score.of_test.low <= test.mean() <= score.of_test.high
        n_held_by_interval += score.interval.low <= test.mean() <= score.interval.high
    assert n_held >= 90
    assert n_held_by_interval < n_held

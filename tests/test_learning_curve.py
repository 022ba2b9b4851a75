"""Learning curves: the gain is the curve's, with an interval that knows the noise."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import ttest_1samp

from tripletkit.evaluation.pooled import fit_learning_curve

N = np.tile([250.0, 500.0, 1000.0], (6, 1))


def noisy(rng: np.random.Generator, noise: float, slope: float = 1.5) -> np.ndarray:
    return 0.9 - slope / np.sqrt(N) + rng.normal(0, noise, N.shape)


def test_the_gain_is_that_of_the_curve() -> None:
    curve = fit_learning_curve(N, 0.9 - 1.5 / np.sqrt(N), n_now=1500, n_more=500)
    assert curve.gain == pytest.approx(1.5 / np.sqrt(1500) - 1.5 / np.sqrt(2000))
    assert (curve.limit, curve.slope) == (pytest.approx(0.9), pytest.approx(1.5))


def test_the_interval_holds_the_true_gain() -> None:
    rng = np.random.default_rng(0)
    true = 1.5 / np.sqrt(1500) - 1.5 / np.sqrt(2000)
    curves = [fit_learning_curve(N, noisy(rng, 0.01), 1500, 500) for _ in range(200)]
    held = np.mean([curve.interval.low <= true <= curve.interval.high for curve in curves])
    assert 0.9 <= held <= 0.99


def test_two_draws_give_no_interval() -> None:
    assert fit_learning_curve(N[:2], 0.8 + 0 * N[:2], 1500).interval is None


def test_a_flat_curve_is_short_of_nothing() -> None:
    assert fit_learning_curve(N, 0.8 + 0 * N, 1500).short_of is None


def test_fewer_images_that_do_worse_say_that_images_are_short() -> None:
    accuracies = 0.9 - 3 / np.sqrt(N)
    low, same = (
        fit_learning_curve(N, accuracies, 1500, with_fewer_images=accuracies[:, 0] - less)
        for less in (0.05, 0)
    )
    assert (low.short_of, same.short_of) == ("images", "judgements")


def test_every_number_has_its_interval() -> None:
    rng = np.random.default_rng(1)
    accuracies = noisy(rng, 0.01)
    curve = fit_learning_curve(N, accuracies, 1500, with_fewer_images=accuracies[:, 0] - 0.02)
    of_points = zip(accuracies.T, curve.intervals, strict=True)
    for values, interval in (*of_points, (accuracies[:, 0] - 0.02, curve.fewer_interval)):
        expected = ttest_1samp(values, 0).confidence_interval()
        assert (interval.low, interval.high) == pytest.approx((expected.low, expected.high))
    assert [*curve.to_frame()] == ["n_triplets", "accuracy", "low", "high"]
    assert str(curve).count(" to ") == 5
    few = fit_learning_curve(N[:2], accuracies[:2], 1500)
    assert few.intervals == (None,) * 3 and "no interval" in few.outlook

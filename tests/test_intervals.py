"""Intervals are believed blindly by their readers, so their coverage is simulated here."""

from math import sqrt

import numpy as np
import pytest

from tripletkit.evaluation.intervals import (
    image_bootstrap,
    measure_image_spread,
    wilson_interval,
)


def draw_rows(generator: np.random.Generator, n: int, n_images: int) -> np.ndarray:
    rows = generator.integers(0, n_images, (2 * n, 3))
    differ = (rows[:, 0] != rows[:, 1]) & (rows[:, 0] != rows[:, 2]) & (rows[:, 1] != rows[:, 2])
    return rows[differ][:n]


@pytest.mark.parametrize(("n_correct", "n"), [(0, 5), (5, 5), (8, 10), (3620, 4000)])
def test_wilson_interval_equals_its_formula(n_correct, n):
    z, share = 1.959963984540054, n_correct / n
    center = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z * sqrt(share * (1 - share) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    interval = wilson_interval(n_correct, n)
    assert interval.low == pytest.approx(center - half, abs=1e-12)
    assert interval.high == pytest.approx(center + half, abs=1e-12)


def test_wilson_interval_of_half_rows_lies_between_its_neighbours():
    low, half, high = (wilson_interval(count, 20) for count in (7, 7.5, 8))
    assert half.low == pytest.approx((low.low + high.low) / 2)
    assert half.high == pytest.approx((low.high + high.high) / 2)


def test_image_spread_equals_a_loop_over_pairs_of_rows():
    generator = np.random.default_rng(1)
    # A few rows name an image twice: they too must be counted once.
    rows = np.concatenate([draw_rows(generator, 60, 15), [[1, 1, 2], [3, 4, 4], [5, 6, 5]]])
    effect = generator.normal(size=15)
    values = (effect[rows].sum(axis=1) > 0).astype(float)
    deviations = values - values.mean()
    shares = np.array([[bool(set(left) & set(right)) for left in rows] for right in rows])
    total = (np.outer(deviations, deviations) * shares).sum()
    expected = total / len(rows) ** 2 / (1 - shares.mean())
    assert expected > values.var() / len(rows)  # so that the lower bound is not what is tested
    assert measure_image_spread(values, rows).standard_error ** 2 == pytest.approx(expected)


def test_image_spread_of_one_grouping_is_the_usual_clustered_error():
    values = np.array([1, 1, 0, 0, 1, 1, 1, 1, 0, 0])
    groups = np.repeat(np.arange(5), 2)
    means = values.reshape(5, 2).mean(axis=1)
    expected = means.var(ddof=1) / 5  # rows of a group are alike: five independent means
    assert measure_image_spread(values, groups).standard_error ** 2 == pytest.approx(expected)


def test_image_spread_is_never_below_that_of_independent_rows():
    # Each image is in one right and one wrong row, so its deviations cancel.
    values, rows = np.array([1, 0, 1, 0]), np.array([[0, 1], [1, 2], [3, 4], [4, 5]])
    spread = measure_image_spread(values, rows)
    assert spread.standard_error**2 == pytest.approx(0.25 / 4)


@pytest.mark.parametrize(
    ("values", "rows"),
    [
        ([1, 1, 1], [[0, 1, 2], [3, 4, 5], [6, 7, 8]]),
        ([1, 0, 1], [[0, 1, 2], [0, 3, 4], [0, 5, 6]]),
    ],
    ids=["all right", "one anchor"],
)
def test_image_bootstrap_says_nothing_where_nothing_can_be_said(values, rows):
    assert image_bootstrap(np.array(values), np.array(rows)) is None


def test_image_bootstrap_stays_within_its_bounds():
    rows = np.arange(15).reshape(5, 3)
    interval = image_bootstrap(np.array([1, 1, 1, 1, 0]), rows)
    assert 0 < interval.low < 0.8
    assert interval.high == 1


def test_image_bootstrap_does_not_depend_on_names_or_order():
    generator = np.random.default_rng(2)
    rows = draw_rows(generator, 300, 40)
    values = generator.random(300) < 0.7
    order, names = generator.permutation(300), generator.permutation(40)
    assert measure_image_spread(values, rows).standard_error == pytest.approx(
        measure_image_spread(values[order], names[rows[order]][:, ::-1]).standard_error
    )
    assert image_bootstrap(values, rows, seed=3) == image_bootstrap(values, rows, seed=3)


def test_image_bootstrap_of_opposite_differences_is_mirrored():
    generator = np.random.default_rng(4)
    rows = draw_rows(generator, 400, 60)
    difference = generator.choice([-1, 0, 0, 0, 1], 400)
    there, back = (
        image_bootstrap(signed, rows, bounds=(-1, 1)) for signed in (difference, -difference)
    )
    assert (there.low, there.high) == pytest.approx((-back.high, -back.low))


N_SAMPLES = 1500


@pytest.mark.parametrize(
    ("n_images", "n_rows", "effect"),
    [(200, 1000, 0.0), (200, 1000, 0.5), (200, 2000, 3.0), (60, 400, 2.0)],
    ids=["independent rows", "some effect", "images decide", "few images"],
)
def test_image_bootstrap_covers_the_truth(n_images, n_rows, effect):
    generator = np.random.default_rng(7)
    true = chance_right(generator.normal(size=(1_000_000, 3)), effect).mean()
    n_held = 0
    for sample in range(N_SAMPLES):
        rows, values = draw_answers(generator, n_rows, n_images, effect)
        interval = image_bootstrap(values, rows, n_resamples=500, seed=sample)
        n_held += interval.low <= true <= interval.high
    assert 0.93 <= n_held / N_SAMPLES <= 0.97


def test_image_bootstrap_covers_the_difference_of_two_models():
    generator = np.random.default_rng(8)
    n_held = 0
    for sample in range(N_SAMPLES):
        rows, values = draw_answers(generator, 1000, 200, 1.0)
        hardness = generator.normal(size=200)  # what is hard for the second model
        others = generator.random(1000) < chance_right(hardness[rows], 1.0)
        difference = values.astype(int) - others
        interval = image_bootstrap(difference, rows, bounds=(-1, 1), n_resamples=500, seed=sample)
        n_held += interval.low <= 0 <= interval.high
    assert 0.93 <= n_held / N_SAMPLES <= 0.97


def draw_answers(
    generator: np.random.Generator, n_rows: int, n_images: int, effect: float
) -> tuple[np.ndarray, np.ndarray]:
    rows = draw_rows(generator, n_rows, n_images)
    hardness = generator.normal(size=n_images)
    return rows, generator.random(n_rows) < chance_right(hardness[rows], effect)


def chance_right(hardness: np.ndarray, effect: float) -> np.ndarray:
    """Return how likely a row with these three images is answered right."""
    return 1 / (1 + np.exp(-1 - effect * hardness.sum(axis=1)))

"""Intervals are believed blindly by their readers, so their coverage is simulated here."""

import importlib.util
from math import sqrt
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from scipy.stats import binomtest
from scipy.stats import t as student

from tripletkit.evaluation.intervals import ImageSpread, NoInterval, image_interval, wilson_interval

SCRIPT = Path(__file__).parents[1] / "examples" / "interval_coverage.py"


@pytest.fixture(scope="module")
def coverage() -> ModuleType:
    specification = importlib.util.spec_from_file_location("interval_coverage", SCRIPT)
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def draw_rows(generator: np.random.Generator, n: int, n_images: int) -> np.ndarray:
    rows = generator.integers(0, n_images, (2 * n, 3))
    differ = (rows[:, 0] != rows[:, 1]) & (rows[:, 0] != rows[:, 2]) & (rows[:, 1] != rows[:, 2])
    return rows[differ][:n]


def who_shares(rows: np.ndarray) -> np.ndarray:
    return np.array([[bool(set(left) & set(right)) for left in rows] for right in rows])


@pytest.mark.parametrize(("n_correct", "n"), [(0, 5), (5, 5), (8, 10), (3620, 4000)])
def test_wilson_interval_equals_that_of_scipy(n_correct, n):
    expected = binomtest(n_correct, n).proportion_ci(method="wilson")
    interval = wilson_interval(n_correct, n)
    assert [interval.low, interval.high] == pytest.approx(list(expected), abs=1e-12)
    assert interval.low >= 0 and interval.high <= 1


def test_image_spread_equals_a_loop_over_pairs_of_rows():
    generator = np.random.default_rng(1)
    # A few rows name an image twice: they too must be counted once.
    rows = np.concatenate([draw_rows(generator, 60, 15), [[1, 1, 2], [3, 4, 4], [5, 6, 5]]])
    effect = generator.normal(size=15)
    values = (effect[rows].sum(axis=1) > 0).astype(float)
    deviations = values - values.mean()
    shares = who_shares(rows)
    total = (np.outer(deviations, deviations) * shares).sum()
    expected = total / len(rows) ** 2 / (1 - shares.mean())
    assert expected > values.var() / len(rows)  # so that the lower bound is not what is tested
    assert ImageSpread.of(values, rows).standard_error ** 2 == pytest.approx(expected)


def test_image_spread_of_one_grouping_is_the_usual_clustered_error():
    values = np.array([1, 1, 0, 0, 1, 1, 1, 1, 0, 0])
    groups = np.repeat(np.arange(5), 2)
    means = values.reshape(5, 2).mean(axis=1)
    expected = means.var(ddof=1) / 5  # rows of a group are alike: five independent means
    assert ImageSpread.of(values, groups).standard_error ** 2 == pytest.approx(expected)


def test_image_spread_is_not_far_below_that_of_independent_rows():
    # Each image is in one right and one wrong row, so its deviations cancel.
    values, rows = np.array([1, 0, 1, 0]), np.array([[0, 1], [1, 2], [3, 4], [4, 5]])
    spread = ImageSpread.of(values, rows)
    shares = who_shares(rows)
    center = np.eye(4) - 1 / 4
    noise = sqrt(2 * np.trace(center @ shares @ center @ shares)) / 4 / (1 - shares.mean())
    assert spread.standard_error**2 == pytest.approx(0.25 / 3 * (1 - 0.15 * noise))
    assert spread.image_share == 0


def test_degrees_of_freedom_equal_a_loop_over_matrices():
    generator = np.random.default_rng(3)
    rows = draw_rows(generator, 80, 12)
    effect = generator.normal(size=12)
    values = (effect[rows].sum(axis=1) > 0).astype(float)
    n, deviations = len(rows), values - values.mean()
    shares = who_shares(rows)
    of_rows = deviations @ deviations / n / (n - 1)
    center = np.eye(n) - 1 / n
    noise = np.trace(center @ shares @ center @ shares)
    noise = of_rows * sqrt(2 * noise) / n / (1 - shares.mean())
    sums = np.array([sum(deviations[i] for i in range(n) if k in rows[i]) for k in range(12)])
    counts = np.array([sum(k in row for row in rows.tolist()) for k in range(12)])
    n_alike = (counts**2).sum() ** 2 / (counts**4).sum()
    skewness = sqrt(n_alike) * (sums**3).sum() / (sums**2).sum() ** 1.5
    spread = ImageSpread.of(values, rows)
    variance = spread.standard_error**2
    of_images = variance - of_rows
    deviation = noise + of_images * sqrt(2 * (1 + 3 * skewness**2) / (n_alike - 1))
    assert spread.image_share == pytest.approx(of_images / variance)
    assert spread.image_share > 0.5  # so that images matter in what is tested
    assert spread.degrees_of_freedom == pytest.approx(2 * variance**2 / deviation**2)
    assert (spread.n_images, spread.n_weighing_alike) == (12, pytest.approx(n_alike))
    assert spread.n_used_alike == pytest.approx(counts.sum() ** 2 / (counts**2).sum())


def test_image_interval_of_rows_that_share_nothing_is_students_on_the_logit_scale():
    values, rows = np.repeat([1, 0], [70, 30]), np.arange(300).reshape(100, 3)
    # The variance is that of 99 rows, to which half a row is added on either side.
    right, wrong = 0.7 * 99 + 0.5, 0.3 * 99 + 0.5
    reach = student.ppf(0.975, 99) * sqrt(100 / (right * wrong))
    expected = [1 / (1 + wrong / right * np.exp(sign * reach)) for sign in (1, -1)]
    found = image_interval(values, rows)
    assert [found.low, found.high] == pytest.approx(expected)


@pytest.mark.parametrize(
    ("values", "rows", "reason"),
    [
        ([1] * 40, np.arange(120).reshape(40, 3), "all rows are alike"),
        ([0] * 40, np.arange(120).reshape(40, 3), "all rows are alike"),
        ([0.5] * 40, np.arange(120).reshape(40, 3), "all rows are alike"),  # ties, half counted
        ([1, 0] * 20, np.tile([0, 1, 2], (40, 1)), "all rows share an image"),
        ([1, 0] * 20, np.zeros((40, 1), int), "all rows share an image"),
        ([1], np.array([[0, 1, 2]]), "all rows are alike"),
        ([1, 0] * 10, np.arange(60).reshape(20, 3), "too few rows"),
        ([1, 0] * 50, np.arange(100) % 20, "too few images"),
        # Many images, but four anchors are in all rows.
        ([1, 1, 0] * 100, np.stack([np.arange(300) % 4, 4 + np.arange(300)], 1), "too few images"),
    ],
    ids=["all right", "all wrong", "all ties", "one triplet", "one image", "one row",
         "few rows", "20 images", "4 anchors"],
)  # fmt: skip
def test_image_interval_says_why_there_is_none(values, rows, reason):
    found = image_interval(np.array(values), rows)
    assert isinstance(found, NoInterval)
    assert found.reason == reason and found.reason in found.detail
    assert (found or "another") == "another"


def test_image_interval_stays_within_its_bounds():
    values, rows = np.repeat([1, 0], [199, 1]), np.arange(600).reshape(200, 3)
    interval = image_interval(values, rows)
    assert 0.9 < interval.low < 0.995 < interval.high < 1
    half = image_interval(values / 2 + 0.5, rows, bounds=(0.5, 1))
    assert [half.low, half.high] == pytest.approx([interval.low / 2 + 0.5, interval.high / 2 + 0.5])


@pytest.mark.parametrize("seed", range(5))
def test_image_interval_does_not_depend_on_names_or_order(seed):
    generator = np.random.default_rng(seed)
    rows = draw_rows(generator, 300, 40)
    values = generator.choice([0, 0.5, 1], 300)
    order, names = generator.permutation(300), generator.permutation(1000)[:40]
    one = image_interval(values, rows)
    other = image_interval(values[order], names[rows[order]][:, generator.permutation(3)])
    assert (one.low, one.high) == pytest.approx((other.low, other.high), rel=1e-9)


def test_image_interval_of_opposite_values_is_mirrored():
    generator = np.random.default_rng(4)
    rows = draw_rows(generator, 400, 60)
    difference = generator.choice([-1, 0, 0, 0, 1], 400)
    there, back = (image_interval(sign * difference, rows, bounds=(-1, 1)) for sign in (1, -1))
    assert (there.low, there.high) == pytest.approx((-back.high, -back.low))
    right = generator.random(400) < 0.8
    there, back = image_interval(right, rows), image_interval(~right, rows)
    assert (there.low, there.high) == pytest.approx((1 - back.high, 1 - back.low))


N_SETS = 1000


@pytest.mark.slow
@pytest.mark.parametrize("of_difference", [False, True], ids=["accuracy", "difference"])
@pytest.mark.parametrize(
    ("accuracy", "n_images", "effect"),
    [(0.75, 30, "none"), (0.6, 40, "anchor"), (0.9, 60, "all three"), (0.97, 100, "all three")],
)
def test_image_interval_covers_the_truth(accuracy, n_images, effect, of_difference, coverage):
    sets = coverage.draw_sets(
        accuracy, effect, 1.0, n_images, 10 * n_images,
        n_sets=N_SETS, seed=7, of_difference=of_difference,
    )  # fmt: skip
    find = coverage.find_for_difference if of_difference else image_interval
    true = 0.0 if of_difference else accuracy
    held, given = coverage.measure_coverage(sets, true, find)
    assert given == 1
    assert 0.93 <= held <= 0.975


def test_simulated_answers_have_the_accuracy_that_was_asked_for(coverage):
    sets = coverage.draw_sets(0.9, "anchor", 2.0, 500, 500, n_sets=200, seed=2)
    means = [values.mean() for values, _ in sets]
    assert np.mean(means) == pytest.approx(0.9, abs=4 * np.std(means) / sqrt(200))
    assert coverage.show_cell(0.951, 0.5) == "95.1, 50"

"""Comparisons checked by hand, by loops and by simulation."""

from math import comb

import numpy as np
import pytest

from tripletkit.evaluation.comparison import compare_answers
from tripletkit.evaluation.intervals import image_interval


def pair_of(left, right, rows=None):
    return compare_answers({"left": left, "right": right}, rows).pairs[0]


def split_credit(n_both: int, n_left: int, n_right: int, n_none: int):
    left = np.repeat([1, 1, 0, 0], [n_both, n_left, n_right, n_none])
    right = np.repeat([1, 0, 1, 0], [n_both, n_left, n_right, n_none])
    return left, right


@pytest.mark.parametrize(("n_left", "n_right"), [(0, 0), (1, 0), (3, 3), (9, 1), (20, 35)])
def test_mcnemar_p_equals_a_sum_of_binomials(n_left, n_right):
    n = n_left + n_right
    tail = sum(comb(n, k) for k in range(min(n_left, n_right) + 1)) / 2**n
    assert pair_of(*split_credit(7, n_left, n_right, 2)).mcnemar_p == pytest.approx(
        min(1, 2 * tail)
    )


def test_compare_answers_by_hand():
    left, right = split_credit(50, 12, 4, 34)
    comparison = compare_answers({"b.csv": right, "a.csv": left})
    assert [ranked.name for ranked in comparison.ranking] == ["a.csv", "b.csv"]
    assert [ranked.accuracy for ranked in comparison.ranking] == [0.62, 0.54]
    (pair,) = comparison.pairs
    assert (pair.left, pair.right, pair.difference) == ("a.csv", "b.csv", pytest.approx(0.08))
    assert (pair.n_both_right, pair.n_left_only, pair.n_right_only, pair.n_both_wrong) == (
        50, 12, 4, 34,
    )  # fmt: skip
    # 2 * (1 + 16 + 120 + 560 + 1820) / 2**16
    assert pair.mcnemar_p == pytest.approx(0.07681, abs=1e-5)
    assert pair.holm_p == pair.mcnemar_p
    assert pair.image_interval is None
    # (1.96 + 0.84) * sqrt(0.16 / 100)
    assert pair.smallest_difference == pytest.approx(0.1121, abs=1e-4)


def test_holm_multiplies_the_smallest_p_by_the_number_of_pairs():
    generator = np.random.default_rng(0)
    credits = {str(share): (generator.random(300) < share).astype(int) for share in (0.5, 0.6, 0.8)}
    pairs = compare_answers(credits).pairs
    assert len(pairs) == 3
    running = 0.0
    for factor, pair in zip((3, 2, 1), sorted(pairs, key=lambda pair: pair.mcnemar_p), strict=True):
        running = max(running, min(1, factor * pair.mcnemar_p))
        assert pair.holm_p == pytest.approx(running)


def test_same_answers_show_nothing():
    credit = np.array([1, 0, 1, 1])
    pair = compare_answers({"a": credit, "b": credit}, np.arange(12).reshape(4, 3)).pairs[0]
    assert (pair.difference, pair.mcnemar_p) == (0, 1)
    assert pair.image_interval.reason == "all rows are alike" and pair.smallest_difference is None


def test_images_that_share_triplets_widen_what_can_be_shown():
    generator = np.random.default_rng(1)
    rows = generator.integers(0, 40, (2000, 3))
    hard_for_left, hard_for_right = generator.normal(size=(2, 40))
    left = (hard_for_left[rows].sum(axis=1) < 1).astype(int)
    right = (hard_for_right[rows].sum(axis=1) < 1).astype(int)
    by_rows, by_images = pair_of(left, right), pair_of(left, right, rows)
    assert by_images.smallest_difference > 2 * by_rows.smallest_difference
    pair = compare_answers({"left": left, "right": right}, rows).pairs[0]
    assert pair.image_interval.low <= pair.difference <= pair.image_interval.high
    # Of a difference of shares, whichever is the better.
    left, right = (left, right) if pair.left == "left" else (right, left)
    assert pair.image_interval == image_interval(left - right, rows, bounds=(-1, 1))


@pytest.mark.slow
def test_smallest_difference_is_found_in_80_percent_of_files():
    n, share = 1000, 0.2
    left, right = split_credit(500, 100, 100, 300)
    difference = pair_of(left, right).smallest_difference
    generator = np.random.default_rng(2)
    chances = [(share + difference) / 2, (share - difference) / 2, 1 - share]
    found = 0
    for n_left, n_right, n_same in generator.multinomial(n, chances, size=400):
        found += pair_of(*split_credit(n_same, n_left, n_right, 0)).mcnemar_p < 0.05
    assert 0.74 <= found / 400 <= 0.86


def test_comparison_does_not_depend_on_the_order_of_files():
    generator = np.random.default_rng(3)
    credits = {name: (generator.random(200) < share).astype(int) for name, share in
               (("a", 0.5), ("b", 0.7), ("c", 0.9))}  # fmt: skip
    rows = generator.integers(0, 30, (200, 3))
    turned = dict(reversed(credits.items()))
    assert compare_answers(credits, rows) == compare_answers(turned, rows)

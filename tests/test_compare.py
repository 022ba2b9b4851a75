"""Comparisons checked by hand, by loops and by simulation; and what `tripletkit compare` says."""

from math import comb
from pathlib import Path

import numpy as np
import pytest

import tripletkit as tk
from tripletkit import Triplets
from tripletkit.evaluation.intervals import image_interval

pytestmark = pytest.mark.filterwarnings("ignore::tripletkit.DataWarning")


def compare(credits, rows=None):
    """Compare answers of which a 1 is right."""
    triplets = None
    if rows is not None:
        names = [f"{index}.jpg" for index in range(rows.max() + 1)]
        triplets = Triplets(names, rows, np.arange(len(rows)) + 1, "test.txt")
    return tk.compare(credits, triplets=triplets)


def pair_of(left, right, rows=None):
    return compare({"left": left, "right": right}, rows).pairs[0]


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


def test_compare_by_hand():
    left, right = split_credit(50, 12, 4, 34)
    comparison = compare({"b.csv": right, "a.csv": left})
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
    rows = generator.integers(0, 30, (300, 3))
    found = compare(credits, rows)
    assert len(found.pairs) == 3
    running = 0.0
    by_p = sorted(found.pairs, key=lambda pair: pair.mcnemar_p)
    for factor, pair in zip((3, 2, 1), by_p, strict=True):
        running = max(running, min(1, factor * pair.mcnemar_p))
        assert pair.holm_p == pytest.approx(running)
    assert compare(dict(reversed(credits.items())), rows) == found


def test_same_answers_show_nothing():
    credit = np.array([1, 0, 1, 1])
    pair = pair_of(credit, credit, np.arange(12).reshape(4, 3))
    assert (pair.difference, pair.mcnemar_p) == (0, 1)
    assert pair.image_interval.reason == "all rows are alike" and pair.smallest_difference is None


def test_images_that_share_triplets_widen_what_can_be_shown():
    generator = np.random.default_rng(1)
    rows = generator.integers(0, 40, (2000, 3))
    hard_for_left, hard_for_right = generator.normal(size=(2, 40))
    left = (hard_for_left[rows].sum(axis=1) < 1).astype(int)
    right = (hard_for_right[rows].sum(axis=1) < 1).astype(int)
    by_rows, pair = pair_of(left, right), pair_of(left, right, rows)
    assert pair.smallest_difference > 2 * by_rows.smallest_difference
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


TRUTH = [1, 0] * 20


@pytest.fixture
def folder(tmp_path: Path, monkeypatch) -> Path:
    """A truth, and answers that are wrong on the first 2, 3 and 12 rows."""
    monkeypatch.chdir(tmp_path)
    for name, n_wrong in (("truth", 0), ("good", 2), ("near", 3), ("fair", 12)):
        answers = [1 - label if row < n_wrong else label for row, label in enumerate(TRUTH)]
        Path(f"{name}.txt").write_text("".join(f"{answer}\n" for answer in answers))
    return tmp_path


def test_compare_claims_no_more_than_there_is_to_see(tripletkit, folder):
    near = tk.compare({"near": "near.txt", "good": "good.txt"}, "truth.txt")
    assert str(near).splitlines()[-1] == "  No sign that either is truly better."
    Path("few.txt").write_text("".join(f"a{n % 3} b{n % 4} c{n % 5}\n" for n in range(40)))
    result = tripletkit(*"compare fair.txt good.txt truth.txt --triplets few.txt".split())
    few = "too few images for an interval (12, used like 11.4 equal ones; it takes 25)"
    lines = result.stdout.splitlines()
    assert f"  95% interval               none: {few}" in lines
    assert lines[-1] == f"  On these rows good.txt is better; whether on others: {few}."
    assert ["too few images" in line for line in lines[3:5]] == [True, True]


@pytest.mark.parametrize(
    ("arguments", "exit_code", "message"),
    [
        ("good.txt truth.txt", 2, "expected two or more answers and then their truth"),
        ("good.txt good.txt truth.txt", 2, "Expected different answer files"),
        ("good.txt none.txt truth.txt", 2, "'none.txt' does not exist"),
        ("good.txt short.txt truth.txt", 1, "short.txt: expected 40 answers"),
        ("good.txt fair.txt truth.txt --rows no/d.csv", 1, "no/d.csv: its folder "),
        ("truth.csv good.txt preds.csv", 1, "truth.csv: expected answers, got the column label"),
    ],
)
def test_compare_says_what_is_wrong(tripletkit, folder, arguments, exit_code, message):
    Path("short.txt").write_text("1\n0\n")
    Path("truth.csv").write_text("label\n" + "1\n" * 40)
    Path("preds.csv").write_text("prediction\n" + "1\n" * 40)
    result = tripletkit("compare", *arguments.split(), code=exit_code)
    assert message in result.stderr
    assert result.stdout == ""

"""Learning curves: measured by nested shares, with an interval that knows the noise."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice

import numpy as np
import pytest
from scipy.stats import ttest_1samp

from tripletkit.evaluation.pooled import fit_learning_curve
from tripletkit.model.settings import Settings
from tripletkit.training.held_out import _draw_held_out, measure_learning_curve
from tripletkit.training.trainer import Chosen, Examples, Fitted, Trainer

N = np.tile([250.0, 500.0, 1000.0], (6, 1))


def noisy(rng: np.random.Generator, noise: float, slope: float = 1.5) -> np.ndarray:
    return 0.9 - slope / np.sqrt(N) + rng.normal(0, noise, N.shape)


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


RNG = np.random.default_rng(0)
EXAMPLES = Examples(
    RNG.normal(size=(60, 4)).astype(np.float32),
    np.array([RNG.permutation(60)[:3] for _ in range(2000)]),
)


class Answering(Trainer):
    """A trainer whose answers are those of a function of what it learned and is asked."""

    def __init__(self, answers: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> None:
        super().__init__(EXAMPLES, Settings())
        self.answers = answers

    def answer(self, learned: np.ndarray, asked: np.ndarray, further: int = 0) -> np.ndarray:
        return self.answers(learned, asked)[None]

    def choose(self, held_out: object) -> Chosen:
        return Chosen(self)

    def fit(self, *_: object) -> Fitted:
        raise NotImplementedError


def test_shares_are_nested_and_fewer_images_are_fewer() -> None:
    asked: list[tuple[np.ndarray, np.ndarray]] = []

    def answer(learned: np.ndarray, rows: np.ndarray) -> np.ndarray:
        asked.append((learned, rows))
        return np.ones(len(rows))

    told: list[tuple[int, int]] = []
    measure_learning_curve(Answering(answer), progress=lambda *done: told.append(done))
    assert told[-1] == (12, 12)
    draws, _ = _draw_held_out(EXAMPLES, 0)
    for number, draw in enumerate(islice(draws, 3)):
        n, of_draw = len(draw.train_rows), asked[4 * number : 4 * number + 4]
        quarter, half, whole, few = (learned for learned, _ in of_draw)
        expected = [round(n / 4), round(n / 2), n, round(n / 4)]
        assert [len(learned) for learned, _ in of_draw] == expected
        assert set(quarter) < set(half) < set(whole) == set(draw.train_rows)
        rows = EXAMPLES.rows
        assert len(np.unique(rows[few])) < len(np.unique(rows[quarter]))
        assert all(np.array_equal(each, rows[draw.held_out_rows]) for _, each in of_draw)


def test_the_curve_is_that_of_a_plain_loop() -> None:
    """The same draws and shares, learned from by a plain rule, and lines fitted by hand."""

    def answer(learned: np.ndarray, rows: np.ndarray) -> np.ndarray:
        # The image that was more often the nearer one, a tie where both were as often.
        score = np.zeros(60)
        for _, near, far in EXAMPLES.rows[learned]:
            score[near] += 1
            score[far] -= 1
        return score[rows[:, 1]] - score[rows[:, 2]]

    curve = measure_learning_curve(Answering(answer))
    draws, _ = _draw_held_out(EXAMPLES, 0)
    rng, gains, accuracies, few = np.random.default_rng(0), [], [], []
    for draw in islice(draws, 3):
        shuffled = [int(row) for row in rng.permutation(draw.train_rows)]
        asked = EXAMPLES.rows[draw.held_out_rows]

        def share_right(rows: list[int], asked: np.ndarray = asked) -> float:
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
        among: list[int] = []
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

"""What a learning curve is measured with: nested shares, fewer images, the same questions."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice

import numpy as np
import pytest

from tripletkit.model.settings import Settings
from tripletkit.training.held_out import _draw_held_out, measure_learning_curve
from tripletkit.training.trainer import Chosen, Examples, Fitted, Trainer

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


def test_the_curve_is_that_of_the_answers() -> None:
    def answer(learned: np.ndarray, rows: np.ndarray) -> np.ndarray:
        n_right = round(len(rows) * (1 - 2 / np.sqrt(len(learned))))
        return np.where(np.arange(len(rows)) < n_right, 1.0, -1.0)

    curve = measure_learning_curve(Answering(answer))
    assert curve.slope == pytest.approx(2, rel=0.1)
    assert curve.n_now == 2000
    assert curve.gain > 0


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

"""What a learning curve is measured with: nested shares, fewer images, the same questions."""

from __future__ import annotations

import numpy as np
import pytest

from tripletkit.data.splits.held_out_draws import Draw
from tripletkit.training.curve import measure_learning_curve

RNG = np.random.default_rng(0)
ROWS = np.array([RNG.permutation(60)[:3] for _ in range(500)])
DRAWS = [
    Draw(np.arange(400), np.arange(400 + 30 * number, 430 + 30 * number), 0) for number in range(3)
]


def test_shares_are_nested_and_fewer_images_are_fewer() -> None:
    asked: list[tuple[np.ndarray, np.ndarray]] = []

    def answer(train: np.ndarray, held_out: np.ndarray) -> np.ndarray:
        asked.append((train, held_out))
        return np.ones(len(held_out))

    told: list[tuple[int, int]] = []
    measure_learning_curve(ROWS, DRAWS, answer, 0, progress=lambda *done: told.append(done))
    assert told[-1] == (12, 12)
    for number, draw in enumerate(DRAWS):
        quarter, half, whole, few = (train for train, _ in asked[4 * number : 4 * number + 4])
        assert [len(train) for train in (quarter, half, whole, few)] == [100, 200, 400, 100]
        assert set(quarter) < set(half) < set(whole) == set(draw.train_rows)
        assert len(np.unique(ROWS[few])) < len(np.unique(ROWS[quarter]))
        assert all(
            np.array_equal(held_out, draw.held_out_rows)
            for _, held_out in asked[4 * number : 4 * number + 4]
        )


def test_the_curve_is_that_of_the_answers() -> None:
    def answer(train: np.ndarray, held_out: np.ndarray) -> np.ndarray:
        n_right = round(len(held_out) * (1 - 2 / np.sqrt(len(train))))
        return np.where(np.arange(len(held_out)) < n_right, 1.0, -1.0)

    curve = measure_learning_curve(ROWS, DRAWS, answer, 0)
    assert curve.slope == pytest.approx(2, rel=0.1)
    assert curve.n_now == 500
    assert curve.gain > 0

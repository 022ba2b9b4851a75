"""What a learning curve is measured with: nested shares, fewer images, the same questions."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice

import numpy as np
import pytest

from tripletkit.model.settings import HeadSettings
from tripletkit.training.held_out import draw_held_out, measure_learning_curve
from tripletkit.training.trainer import Chosen, Examples, Fitted, Trainer

RNG = np.random.default_rng(0)
EXAMPLES = Examples(
    RNG.normal(size=(60, 4)).astype(np.float32),
    np.array([RNG.permutation(60)[:3] for _ in range(2000)]),
)


class Answering(Trainer):
    """A trainer whose answers are those of a function of what it learned and is asked."""

    def __init__(self, answers: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> None:
        super().__init__(EXAMPLES, HeadSettings())
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
    draws, _ = draw_held_out(EXAMPLES, 0)
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

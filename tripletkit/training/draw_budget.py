"""How many held-out draws are enough, and what of them counts."""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np

from tripletkit import defaults
from tripletkit.data.splits.held_out_draws import Draw
from tripletkit.errors import SplitError
from tripletkit.progress import Progress, no_progress


class DrawBudget:
    """Draws, as many as are worth their time.

    Whole rounds until enough answers are pooled, at most `defaults.MAX_DRAW_ROUNDS`. Only a
    budget makes the number depend on the time they take.

    Args:
        draws: see `draw_folds`.
        enough: so many answers.
        budget_s: seconds after which no further draw is begun, except those of the first round.
        progress: told (done, total) in draws, the total as far as one can tell.
    Attributes:
        n_draws: those noted so far.
        n_answers: held-out triplets that they were asked.
    """

    def __init__(
        self,
        draws: Iterator[Draw],
        enough: int,
        budget_s: float | None = None,
        progress: Progress | None = None,
    ) -> None:
        self._draws, self._enough, self._budget_s = draws, enough, budget_s
        self._progress = progress or no_progress
        self._started_s = time.perf_counter()
        self.n_draws = self.n_answers = 0

    @property
    def spent_s(self) -> float:
        return time.perf_counter() - self._started_s

    def __iter__(self) -> Iterator[Draw]:
        round_ = 0
        for draw in self._draws:
            is_new_round = draw.round > round_
            round_ = draw.round
            is_enough = self.n_answers >= self._enough
            if is_new_round and (is_enough or round_ >= defaults.MAX_DRAW_ROUNDS):
                return
            if self._is_too_late():
                return
            yield draw

    def note(self, n_answers: int) -> None:
        """Count a draw that was made, with its answers."""
        self.n_draws += 1
        self.n_answers += n_answers
        per_round = self.n_answers / self.n_draws * defaults.DRAW_FOLDS
        rounds = min(-(-self._enough // per_round), defaults.MAX_DRAW_ROUNDS)
        self._progress(self.n_draws, max(self.n_draws, int(rounds) * defaults.DRAW_FOLDS))

    def check(self) -> None:
        """Refuse to go on from nothing.

        Raises:
            SplitError: if no draw had an answer to score.
        """
        if not self.n_draws:
            raise SplitError("expected held-out triplets that people agree on, got none")

    def _is_too_late(self) -> bool:
        if self._budget_s is None or self.n_draws < defaults.DRAW_FOLDS:
            return False
        return self.spent_s * (self.n_draws + 1) / self.n_draws > self._budget_s


def drop_ties(rows: np.ndarray, loss_weights: np.ndarray | None) -> np.ndarray:
    """Return those of some triplets that can be right or wrong: people are not tied on them.

    Args:
        rows: indices of triplets.
        loss_weights: `(n_triplets, 2)` of all; None where nobody voted.
    """
    if loss_weights is None:
        return rows
    return rows[loss_weights[rows, 0] != loss_weights[rows, 1]]

"""Baselines that look at no pixel: what a table of file names would score.

Where training and validation share pairs of images, remembering pairs is enough; where they share
images, positions of names can be.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from tripletkit import defaults
from tripletkit.data.questions import PairGraph
from tripletkit.data.triplets import Triplets
from tripletkit.evaluation.intervals import Interval, wilson_interval
from tripletkit.results import Result, Section, Table, plain_values

# On the competition's file: 96.6% of a random validation split in about 2 s on one core; twice the
# epochs at half the rate give the same.
_N_DIMS = 32
_N_EPOCHS = 20
_BATCH_SIZE = 2048
_LEARNING_RATE = 0.02
_MARGIN = 3.0  # squared Euclidean distance; only its ratio to the start's size matters
_START_SIZE = 0.1

_FIRST_DECAY, _SECOND_DECAY, _TINY = 0.9, 0.999, 1e-8


def _embed_names(rows: np.ndarray, n_names: int, seed: int = defaults.SEED) -> np.ndarray:
    """Find a vector for each name so that most triplets hold.

    Minimises the hinge max(0, |a - p|^2 - |a - n|^2 + margin) with Adam over mini-batches. Names in
    no triplet keep their vector by chance.

    Reference:
        Agarwal et al. Generalized non-metric multidimensional scaling. AISTATS 2007 (hinge loss
        on comparisons; we compare two distances from one anchor). Kingma, Ba. Adam. ICLR 2015.
    """
    generator = np.random.default_rng(seed)
    vectors = generator.normal(scale=_START_SIZE, size=(n_names, _N_DIMS)).astype(np.float32)
    first, second = np.zeros_like(vectors), np.zeros_like(vectors)
    step = 0
    for _ in range(_N_EPOCHS):
        order = generator.permutation(len(rows))
        for start in range(0, len(rows), _BATCH_SIZE):
            gradient = _hinge_gradient(vectors, rows[order[start : start + _BATCH_SIZE]])
            step += 1
            first += (1 - _FIRST_DECAY) * (gradient - first)
            second += (1 - _SECOND_DECAY) * (gradient * gradient - second)
            size = np.sqrt(second / (1 - _SECOND_DECAY**step)) + _TINY
            vectors -= _LEARNING_RATE / (1 - _FIRST_DECAY**step) * first / size
    return vectors


def _name_margins(vectors: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Return `(n_triplets,)` float32, how much nearer the first is (squared Euclidean distance)."""
    anchor, first, second = (vectors[column] for column in rows.T)
    return ((anchor - second) ** 2 - (anchor - first) ** 2).sum(axis=1)


def _hinge_gradient(vectors: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Return the gradient of a batch's mean hinge, `(n_names, n_dims)`."""
    # SciPy takes a fifth of a second to start, which commands without a baseline need not wait for.
    from scipy.sparse import csr_array

    broken = rows[_name_margins(vectors, rows) < _MARGIN]
    anchor, positive, negative = (vectors[column] for column in broken.T)
    slots = np.concatenate([negative - positive, positive - anchor, anchor - negative])
    # A sparse product sums the slots of each name; numpy's `add.at` takes several times longer.
    n_slots = len(slots)
    ones = np.ones(n_slots, dtype=np.float32)
    sums = csr_array(
        (ones, broken.T.ravel(), np.arange(n_slots + 1)), shape=(n_slots, len(vectors))
    )
    return (sums.T @ slots) * np.float32(2 / len(rows))


@dataclass(frozen=True)
class Baseline:
    """The score of a way to answer that looks at no image.

    Attributes:
        name: `"pair memory"`, `"popularity"` or `"names only"`.
        accuracy: 0 to 1; rows that it cannot answer count as half right.
        n, n_undecided: rows, and those that it cannot answer.
        wilson: 95% interval that takes rows as independent.
    """

    name: str
    accuracy: float
    n: int
    n_undecided: int
    wilson: Interval


class ShortcutBaselines(Result, tuple[Baseline, ...]):
    """What the names of images alone would score, a `Baseline` for each way to answer by them."""

    __slots__ = ()

    def to_dict(self) -> dict[str, Any]:
        """Return the baselines as JSON takes them."""
        return {"baselines": [plain_values(baseline) for baseline in self]}

    def to_frame(self) -> pd.DataFrame:
        """Return a table with a row for each baseline.

        Returns:
            The columns name, accuracy, low and high (Wilson's interval), n and n_undecided.
        """
        rows = [
            (each.name, each.accuracy, *each.wilson.to_list(), each.n, each.n_undecided)
            for each in self
        ]
        columns = ["name", "accuracy", "low", "high", "n", "n_undecided"]
        return pd.DataFrame(rows, columns=columns)

    def _summary(self) -> str:
        return ", ".join(f"{each.name} {each.accuracy:.4f}" for each in self)

    def _sections(self) -> list[Section]:
        rows = [["baseline", "accuracy", "95% interval", "rows", "undecided (half right)"]]
        rows += [
            [
                each.name,
                f"{each.accuracy:.4f}",
                str(each.wilson),
                f"{each.n:,}",
                f"{each.n_undecided:,}",
            ]
            for each in self
        ]
        return [[Table(rows, right=[3, 4])]]


def run_baselines(
    train: Triplets,
    val: Triplets,
    *,
    ordinal: bool | None = None,
    seed: int = defaults.SEED,
) -> list[Baseline]:
    """Answer validation triplets, whose first image is nearer, from the names in training triplets.

    - `pair memory`: the pair that was more often near than far in training is the nearer one.
    - `popularity`: the image that was more often positive than negative is the nearer one.
    - `names only`: an ordinal embedding with a free vector a name (`_embed_names`). A row with a
      name that training lacks is undecided. By default of at most
      `defaults.MAX_ORDINAL_TRIPLETS` training triplets.
    """
    numbers, names = pd.factorize(np.array(train.names + val.names, dtype=object))
    train_rows = numbers[: len(train.names)][train.rows]
    val_rows = numbers[len(train.names) :][val.rows]
    rows = np.concatenate([train_rows, val_rows])
    pairs = PairGraph.of(rows, len(names))
    margins = {
        "pair memory": _vote_margins(pairs.near, pairs.far, len(train)),
        "popularity": _vote_margins(rows[:, 1], rows[:, 2], len(train)),
    }
    if ordinal or (ordinal is None and len(train) <= defaults.MAX_ORDINAL_TRIPLETS):
        vectors = _embed_names(train_rows, len(names), seed)
        # A vector that no training triplet has moved is chance, not knowledge.
        is_known = np.isin(val_rows, train_rows).all(axis=1)
        margins["names only"] = np.where(is_known, _name_margins(vectors, val_rows), 0)
    return [_score(name, values) for name, values in margins.items()]


def describe_trap(accuracy: float, interval: Interval, baselines: list[Baseline]) -> str | None:
    """Say in one sentence that a model's score is no better than names alone, if it is. It is so
    when the best baseline lies within or above the 95% interval of the model's score. Where the
    names tell nothing either, the model cannot be told from guessing."""
    best = max(baselines, key=lambda baseline: baseline.accuracy)
    if interval.low > best.accuracy:
        return None
    if best.wilson.low <= 0.5:
        n = best.n
        return f"The accuracy of {accuracy:.3f} on {n:,} triplets cannot be told from guessing."
    return (
        f"The accuracy of {accuracy:.3f} is no better than what a table of file names gets "
        f"without looking at an image ({best.name}: {best.accuracy:.3f}): split by image before "
        "believing it."
    )


def _vote_margins(near: np.ndarray, far: np.ndarray, n_train: int) -> np.ndarray:
    """Return, of all rows but the first `n_train`, how much more often `near` was near in those."""
    n = int(max(near.max(), far.max())) + 1
    votes = np.bincount(near[:n_train], minlength=n) - np.bincount(far[:n_train], minlength=n)
    return votes[near[n_train:]] - votes[far[n_train:]]


def _score(name: str, margins: np.ndarray) -> Baseline:
    is_undecided = margins == 0
    n_correct = (margins > 0).sum() + is_undecided.sum() / 2
    return Baseline(
        name=name,
        accuracy=float(n_correct / len(margins)),
        n=len(margins),
        n_undecided=int(is_undecided.sum()),
        wilson=wilson_interval(float(n_correct), len(margins)),
    )

"""How many people said what of each triplet, and what training is to make of it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import BinaryIO, Literal

import numpy as np
import pandas as pd

VotesAs = Literal["soft", "weight", "majority"]

# So many people nobody asks; far beyond, sums of votes would end at infinity and shares at NaN.
MAX_VOTES = 1e9


@dataclass(frozen=True)
class Votes:
    """Votes on questions "is the anchor nearer to the first or to the second?".

    Attributes:
        for_first, for_second: `(n_triplets,)` float64, >= 0, never both 0: how many people said
            so, or the share of them.
    """

    for_first: np.ndarray
    for_second: np.ndarray

    def __len__(self) -> int:
        return len(self.for_first)

    @classmethod
    def of_shares(cls, shares: np.ndarray) -> Votes:
        """Return votes of which only the share for the first image is known, 0 to 1."""
        return cls(shares, 1 - shares)

    @property
    def n_each(self) -> np.ndarray:
        """`(n_triplets,)` float64: votes on each question."""
        return self.for_first + self.for_second

    @property
    def share(self) -> np.ndarray:
        """`(n_triplets,)` float64: the share of votes for the first image, 0 to 1."""
        return self.for_first / self.n_each

    @property
    def is_tie(self) -> np.ndarray:
        """`(n_triplets,)` bool: as many votes for one image as for the other."""
        return self.for_first == self.for_second

    @property
    def is_for_second(self) -> np.ndarray:
        """`(n_triplets,)` bool: most votes are for the second image."""
        return self.for_second > self.for_first

    @property
    def majority(self) -> np.ndarray:
        """`(n_triplets,)` int8: 1 where most votes are for the first image, 0, or -1 for a tie."""
        return np.where(self.is_tie, -1, ~self.is_for_second).astype(np.int8)

    @property
    def are_counts(self) -> bool:
        """All are whole numbers, so that one voter can be told from the others."""
        return all(
            np.array_equal(part, np.rint(part)) for part in (self.for_first, self.for_second)
        )

    def take(self, rows: np.ndarray) -> Votes:
        """Return the rows that a mask or an index array picks."""
        return Votes(self.for_first[rows], self.for_second[rows])

    def turn(self, is_turned: np.ndarray) -> Votes:
        """Return the votes after first and second image changed places in some rows, a mask."""
        return Votes(
            np.where(is_turned, self.for_second, self.for_first),
            np.where(is_turned, self.for_first, self.for_second),
        )


def make_loss_weights(votes: Votes, votes_as: VotesAs) -> np.ndarray:
    """Return `(n_triplets, 2)` float32: weights of the loss as it stands, and the other way round.

    With p the share of votes for the first image, the loss of a triplet is
    `weights[0] * l(d(A, B), d(A, C)) + weights[1] * l(d(A, C), d(A, B))`:

    - `soft`: p and 1 - p, the expected loss over the voters. A tie pulls the two distances
      together.
    - `weight`: |2p - 1| where most are for the first, and 0. A tie counts for nothing.
    - `majority`: 1 where most are for the first, and 0. A tie counts for nothing.

    Where most are for the second, it is the other way round. The weights of the last two are
    divided by their mean over the triplets, so that losses compare.
    """
    share = votes.share
    if votes_as == "soft":
        weights = np.stack([share, 1 - share], axis=1)
    else:
        lead = np.abs(2 * share - 1) if votes_as == "weight" else (~votes.is_tie).astype(float)
        lead /= lead.mean() if lead.any() else 1
        weights = np.stack([lead * (share > 0.5), lead * (share < 0.5)], axis=1)
    return weights.astype(np.float32)


VotesLike = str | os.PathLike[str] | BinaryIO | Votes | pd.DataFrame | np.ndarray

"""The parts of an ensemble: which features each takes, and what it makes of them.

A part takes some columns of the features, such as the last layer of one network or its early
ones, and gives an embedding of length 1 from them. The ensemble's embedding is the parts' own
side by side, each times the root of its weight, so that its squared distance is the weighted
mean of theirs.
"""

from __future__ import annotations

from dataclasses import dataclass

FROZEN = "frozen"
RESIDUAL = "residual"
MLP = "mlp"
PART_HEADS = (FROZEN, RESIDUAL, MLP)


@dataclass(frozen=True)
class Part:
    """One part, as a model's record has it.

    Attributes:
        features: what its columns are called, such as `efficientnet-lite0`.
        start, stop: its columns.
        head: `"frozen"` (standardised features as they are), `"residual"` (the same and a
            learned step away from them) or `"mlp"` (a short embedding of its own).
        hidden: width of the hidden layer; 0 for a frozen part.
        n_dims: numbers in its embedding.
        weight: of its squared distance; over all parts their sum is 1.
        n_steps: of its training; 0 of a frozen part.
    """

    features: str
    start: int
    stop: int
    head: str
    hidden: int
    n_dims: int
    weight: float
    n_steps: int = 0

    @property
    def name(self) -> str:
        """What a part is called in tables."""
        return f"{self.features}, {self.head}"

    @property
    def n_features(self) -> int:
        return self.stop - self.start

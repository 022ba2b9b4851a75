"""The graph whose nodes are pairs of images and whose edges are triplets.

A triplet compares two pairs, {anchor, first} and {anchor, second}. What can be remembered of
a pair (that it was the near one) travels along these edges, so a split that keeps the parts of
this graph whole leaves nothing to remember.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from scipy.sparse import csr_array


@dataclass(frozen=True)
class PairGraph:
    """Triplets as edges between the two pairs that each of them compares.

    Attributes:
        pairs: `(n_pairs, 2)` int64, the two names of each pair, the smaller index first.
        near: `(n_triplets,)` int64, index into `pairs` of {anchor, first}.
        far: `(n_triplets,)` int64, index into `pairs` of {anchor, second}.
    """

    pairs: np.ndarray
    near: np.ndarray
    far: np.ndarray

    @cached_property
    def components(self) -> np.ndarray:
        """`(n_pairs,)` int32: the connected component of each pair, counted from 0."""
        from scipy.sparse.csgraph import connected_components

        return connected_components(edges(self.near, self.far, len(self.pairs)), directed=False)[1]

    def component_of_rows(self) -> np.ndarray:
        """Return `(n_triplets,)` int32: the component that each triplet lies in."""
        return self.components[self.near]

    def roles(self) -> PairRoles:
        """Return which pairs are the near one, the far one, or both.

        In a file of judgements the first column after the anchor is the near one.
        """
        n_pairs = len(self.pairs)
        n_near = np.bincount(self.near, minlength=n_pairs)
        n_far = np.bincount(self.far, minlength=n_pairs)
        return PairRoles(n_near, n_far)


@dataclass(frozen=True)
class PairRoles:
    """How often each pair is the near one and how often the far one.

    Attributes:
        n_near, n_far: `(n_pairs,)` int64.
    """

    n_near: np.ndarray
    n_far: np.ndarray

    @property
    def is_both(self) -> np.ndarray:
        """`(n_pairs,)` bool: near in one triplet and far in another."""
        return (self.n_near > 0) & (self.n_far > 0)

    @property
    def is_recurring(self) -> np.ndarray:
        """`(n_pairs,)` bool: in more than one triplet, so that it can be remembered."""
        return self.n_near + self.n_far > 1


def make_pair_graph(rows: np.ndarray, n_names: int) -> PairGraph:
    """Build the pair graph of triplets.

    Args:
        rows: `(n_triplets, 3)` integer indices of names.
        n_names: how many names there are.
    """
    anchor, first, second = rows.T.astype(np.int64)
    near_keys = pair_keys(anchor, first, n_names)
    far_keys = pair_keys(anchor, second, n_names)
    numbers, keys = pd.factorize(np.concatenate([near_keys, far_keys]))
    pairs = np.stack(np.divmod(keys, n_names), axis=1)
    return PairGraph(pairs, numbers[: len(rows)], numbers[len(rows) :])


def pair_keys(left: np.ndarray, right: np.ndarray, n_names: int) -> np.ndarray:
    """Return one int64 a pair, the same for both orders."""
    low, high = np.minimum(left, right), np.maximum(left, right)
    return low.astype(np.int64) * n_names + high


def edges(tails: np.ndarray, heads: np.ndarray, n_nodes: int) -> csr_array:
    """Return the sparse `(n_nodes, n_nodes)` matrix of a graph, as `csgraph` takes it."""
    from scipy.sparse import coo_array

    return coo_array((np.ones(len(tails)), (tails, heads)), shape=(n_nodes, n_nodes)).tocsr()

"""Rows of triplets as questions and as a graph of pairs, and how often something was seen.

A triplet compares two pairs, {anchor, first} and {anchor, second}. What can be remembered of
a pair (that it was the near one) travels along the edges of the graph whose nodes are pairs and
whose edges are triplets, so a split that keeps the parts of this graph whole leaves nothing to
remember.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice, pairwise
from typing import TYPE_CHECKING
from unicodedata import normalize

import numpy as np
import pandas as pd

from tripletkit.data.triplets import Triplets

if TYPE_CHECKING:
    from scipy.sparse import csr_array

_EXTENSION = re.compile(r"\.[A-Za-z0-9]{2,4}$")
_SHOWN_CHARACTERS = 60


@dataclass(frozen=True)
class Tally:
    """How often something was seen, and the first few, each as `file:line: what`."""

    count: int
    examples: list[str]

    @classmethod
    def of(cls, count: int, examples: Iterable[str], n_examples: int) -> Tally:
        """Count, and keep the first examples only; the others are never made."""
        return cls(int(count), list(islice(examples, n_examples)))


def show_names(names: Sequence[str], indices: Iterable[int]) -> str:
    """Return some names as a message shows them: long ones cut, ones with blanks quoted."""
    return " ".join(_shorten(names[index]) for index in indices)


def _shorten(name: str) -> str:
    short = name if len(name) <= _SHOWN_CHARACTERS else name[:_SHOWN_CHARACTERS] + "..."
    return f'"{short}"' if " " in short else short


@dataclass(frozen=True)
class Questions:
    """Rows grouped by question, `of_row` from 0 in order of first appearance; `is_mirrored` where B
    and C stand the other way round than in the question's first row."""

    of_row: np.ndarray
    is_mirrored: np.ndarray

    @property
    def directed(self) -> np.ndarray:
        """`(n_triplets,)` int64: equal for rows that are equal name by name."""
        return self.of_row * 2 + self.is_mirrored

    @cached_property
    def votes(self) -> np.ndarray:
        """`(n_questions, 2)` int64: rows that agree with the question's first row, and others."""
        return np.bincount(self.directed, minlength=2 * self.n_questions).reshape(-1, 2)

    @property
    def n_questions(self) -> int:
        return int(self.of_row.max(initial=-1)) + 1

    @property
    def is_both_ways(self) -> np.ndarray:
        """`(n_questions,)` bool: asked as (A, B, C) and as (A, C, B)."""
        return self.votes.min(axis=1, initial=1) > 0

    @classmethod
    def of(cls, rows: np.ndarray, n_names: int) -> Questions:
        """Group rows, `(n_triplets, 3)` integer indices of names, by their question."""
        anchor, first, second = rows.T
        # Twice, because the product of three indices would overflow at two million names.
        others, distinct = pd.factorize(_pair_keys(first, second, n_names))
        of_row, _ = pd.factorize(anchor.astype(np.int64) * len(distinct) + others)
        starts = np.flatnonzero(~pd.Series(of_row).duplicated().to_numpy())
        return cls(of_row, first != first[starts][of_row])

    def repeats(self) -> np.ndarray:
        """Return `(n_triplets,)` bool: the row equals an earlier one name by name."""
        return pd.Series(self.directed).duplicated().to_numpy()


_MIX = np.array([0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9], dtype=np.uint64)


def hash_questions(triplets: Triplets) -> np.ndarray:
    """Return `(n_triplets,)` uint64, equal for one question either way round, extension or not."""
    bare = [normalize("NFC", _EXTENSION.sub("", name)) for name in triplets.names]
    hashes = pd.util.hash_array(np.array(bare, dtype=object), categorize=False)
    anchor, first, second = hashes[triplets.rows].T
    low, high = np.minimum(first, second), np.maximum(first, second)
    mixed = (anchor ^ _MIX[0]) * _MIX[1] ^ (low * _MIX[2] + high * _MIX[0])
    return mixed ^ (mixed >> np.uint64(31))


@dataclass(frozen=True)
class PairGraph:
    """Triplets as edges between the two pairs that each of them compares.

    Distances cannot satisfy preferences that go round: AB < AC, AC < CD, CD < AB. Where a pair is
    of its anchor alone, only the preferences of one anchor can: B before C, C before D, D before B.
    """

    pairs: np.ndarray  # `(n_pairs, 2)` int64, the smaller index of a name, or the anchor, first
    near: np.ndarray  # `(n_triplets,)` int64, the pair {anchor, first}
    far: np.ndarray  # {anchor, second}

    @classmethod
    def of(cls, rows: np.ndarray, n_names: int, *, by_anchor: bool = False) -> PairGraph:
        """Build the graph of triplets, `(n_triplets, 3)` integer indices of names."""
        anchor, *others = rows.T.astype(np.int64)
        of_slots = [
            anchor * n_names + other if by_anchor else _pair_keys(anchor, other, n_names)
            for other in others
        ]
        numbers, keys = pd.factorize(np.concatenate(of_slots))
        pairs = np.stack(np.divmod(keys, n_names), axis=1)
        return cls(pairs, numbers[: len(rows)], numbers[len(rows) :])

    @cached_property
    def components(self) -> np.ndarray:
        """`(n_pairs,)` int32: the connected component of each pair, counted from 0."""
        return join_nodes(self.near, self.far, len(self.pairs))

    def component_of_rows(self) -> np.ndarray:
        """Return `(n_triplets,)` int32: the component that each triplet lies in."""
        return self.components[self.near]

    def roles(self) -> tuple[np.ndarray, np.ndarray]:
        """Return `(n_pairs,)` int64 each: how often each pair is the near one, and the far one."""
        n_pairs = len(self.pairs)
        return np.bincount(self.near, minlength=n_pairs), np.bincount(self.far, minlength=n_pairs)

    def find_cycles(self, n_examples: int) -> tuple[int, np.ndarray, list[np.ndarray]]:
        """Find knots, sets of pairs that all lead to one another.

        Return their number, the triplets within a knot, ascending, and for the first knots the
        triplets of one shortest circle each, in order.
        """
        # SciPy's graphs take a third of a second to load, which `predict` need not wait for.
        from scipy.sparse.csgraph import connected_components

        n_pairs = len(self.pairs)
        graph = _edges(self.near, self.far, n_pairs)
        n_parts, part = connected_components(graph, connection="strong")
        inside = np.flatnonzero(part[self.near] == part[self.far])
        if n_parts == n_pairs:
            return 0, inside, []
        of_inside = part[self.near[inside]]
        # In order of first appearance, so that the examples are the first of the file.
        knots = pd.unique(of_inside)[:n_examples]
        examples = [self._shortest_circle(inside[of_inside == knot]) for knot in knots]
        return int((np.bincount(part) > 1).sum()), inside, examples

    def _shortest_circle(self, knot: np.ndarray) -> np.ndarray:
        """Return the triplets of a shortest circle through the first triplet of a knot."""
        from scipy.sparse.csgraph import breadth_first_order

        nodes, ends = np.unique([self.near[knot], self.far[knot]], return_inverse=True)
        tail_of, head_of = ends.reshape(2, -1)
        graph = _edges(tail_of, head_of, len(nodes))
        _, before = breadth_first_order(graph, head_of[0], return_predecessors=True)
        path = [tail_of[0]]
        while path[-1] != head_of[0]:
            path.append(before[path[-1]])
        steps = [
            np.flatnonzero((tail_of == tail) & (head_of == head))[0]
            for tail, head in pairwise(reversed(path))
        ]
        return knot[[0, *steps]]


def _pair_keys(left: np.ndarray, right: np.ndarray, n_names: int) -> np.ndarray:
    """Return one int64 a pair, the same for both orders."""
    low, high = np.minimum(left, right), np.maximum(left, right)
    return low.astype(np.int64) * n_names + high


def _edges(tails: np.ndarray, heads: np.ndarray, n_nodes: int) -> csr_array:
    """Return the sparse `(n_nodes, n_nodes)` matrix of a graph, as `csgraph` takes it."""
    from scipy.sparse import coo_array

    return coo_array((np.ones(len(tails)), (tails, heads)), shape=(n_nodes, n_nodes)).tocsr()


def join_nodes(ones: np.ndarray, others: np.ndarray, n_nodes: int) -> np.ndarray:
    """Return `(n_nodes,)` int32: the component of each node, from 0, as edges join them."""
    from scipy.sparse.csgraph import connected_components

    return connected_components(_edges(ones.ravel(), others.ravel(), n_nodes), directed=False)[1]

"""Preferences that go round in a circle, so that no distances can satisfy them all."""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import numpy as np
import pandas as pd

from tripletkit.data.questions import PairGraph, edges


class Cycles(NamedTuple):
    """The knots of a graph of preferences: sets of nodes that all lead to one another."""

    n_knots: int
    inside: np.ndarray  # indices of the triplets within a knot, ascending
    examples: list[np.ndarray]  # for the first knots, the triplets of one cycle each, in order


def find_anchor_cycles(rows: np.ndarray, n_names: int, n_examples: int) -> Cycles:
    """Find anchors whose own preferences go round: B before C, C before D, D before B."""
    anchor, positive, negative = rows.T.astype(np.int64)
    keys = np.concatenate([anchor * n_names + positive, anchor * n_names + negative])
    nodes, distinct = pd.factorize(keys)
    return _find(nodes[: len(rows)], nodes[len(rows) :], len(distinct), n_examples)


def find_distance_cycles(rows: np.ndarray, n_names: int, n_examples: int) -> Cycles:
    """Find distances that go round over several anchors: AB < AC, AC < CD, CD < AB ...

    Distance is symmetric, so these too contradict each other, for every way of measuring.
    """
    graph = PairGraph.of(rows, n_names)
    return _find(graph.near, graph.far, len(graph.pairs), n_examples)


def _find(tails: np.ndarray, heads: np.ndarray, n_nodes: int, n_examples: int) -> Cycles:
    # SciPy's graphs take a third of a second to load, which `predict` need not wait for.
    from scipy.sparse.csgraph import connected_components

    n_parts, part = connected_components(edges(tails, heads, n_nodes), connection="strong")
    inside = np.flatnonzero(part[tails] == part[heads])
    if n_parts == n_nodes:
        return Cycles(0, inside, [])
    # In order of first appearance, so that the examples are the first of the file.
    knots = pd.unique(part[tails[inside]])[:n_examples]
    examples = [
        _shortest_cycle(tails, heads, inside[part[tails[inside]] == knot]) for knot in knots
    ]
    return Cycles(int((np.bincount(part) > 1).sum()), inside, examples)


def _shortest_cycle(tails: np.ndarray, heads: np.ndarray, knot: np.ndarray) -> np.ndarray:
    """Return the edges of a shortest cycle through the first edge of a knot."""
    from scipy.sparse.csgraph import breadth_first_order

    nodes, ends = np.unique([tails[knot], heads[knot]], return_inverse=True)
    tail_of, head_of = ends.reshape(2, -1)
    start, end = head_of[0], tail_of[0]
    _, before = breadth_first_order(
        edges(tail_of, head_of, len(nodes)), start, return_predecessors=True
    )
    path = [end]
    while path[-1] != start:
        path.append(before[path[-1]])
    steps = [
        np.flatnonzero((tail_of == tail) & (head_of == head))[0]
        for tail, head in pairwise(reversed(path))
    ]
    return knot[[0, *steps]]

"""The pair graph, cycles and questions against plain Python loops on small random sets."""

from __future__ import annotations

from collections import Counter, defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tripletkit as tk
from tripletkit.data.questions import PairGraph, Questions

N_NAMES = 6
names = st.integers(0, N_NAMES - 1)
proper_rows = st.lists(
    st.tuples(names, names, names).filter(lambda row: len(set(row)) == 3), max_size=14
).map(lambda rows: np.array(rows, dtype=np.int32).reshape(-1, 3))


def near_and_far(row):
    anchor, first, second = map(int, row)
    return frozenset((anchor, first)), frozenset((anchor, second))


def components_by_loop(rows):
    """Union-find: return the sets of pairs."""
    parent = {}

    def root(pair):
        while parent[pair] != pair:
            pair = parent[pair]
        return pair

    for row in rows:
        near, far = near_and_far(row)
        parent.setdefault(near, near)
        parent.setdefault(far, far)
        parent[root(near)] = root(far)
    groups = defaultdict(set)
    for pair in parent:
        groups[root(pair)].add(pair)
    return {frozenset(group) for group in groups.values()}


def knots_by_loop(edges):
    """Depth-first from every node: sets of more than one node that all reach one another."""
    heads = defaultdict(set)
    for tail, head in edges:
        heads[tail].add(head)

    def reached(start):
        seen, waiting = set(), [start]
        while waiting:
            for head in heads[waiting.pop()] - seen:
                seen.add(head)
                waiting.append(head)
        return seen

    nodes = {node for edge in edges for node in edge}
    reach = {node: reached(node) for node in nodes}
    return {
        frozenset(other for other in nodes if other in reach[node] and node in reach[other])
        for node in nodes
        if node in reach[node]
    }


@pytest.mark.slow
@given(proper_rows)
def test_components_and_roles_equal_loops(rows):
    graph = PairGraph.of(rows, N_NAMES)
    pairs = [frozenset(pair) for pair in graph.pairs.tolist()]
    found = defaultdict(set)
    for pair, component in zip(pairs, graph.components, strict=True):
        found[component].add(pair)
    assert {frozenset(group) for group in found.values()} == components_by_loop(rows)
    np.testing.assert_array_equal(graph.component_of_rows(), graph.components[graph.far])
    for slot, counts in enumerate(graph.roles()):
        by_loop = Counter(near_and_far(row)[slot] for row in rows)
        assert counts.tolist() == [by_loop[pair] for pair in pairs]


@pytest.mark.slow
@given(proper_rows)
@settings(max_examples=200)
def test_cycles_equal_depth_first_search(rows):
    of_anchors = [((a, b), (a, c)) for a, b, c in rows.tolist()]
    for by_anchor, edges in ((True, of_anchors), (False, list(map(near_and_far, rows)))):
        graph = PairGraph.of(rows, N_NAMES, by_anchor=by_anchor)
        n_knots, inside, examples = graph.find_cycles(n_examples=99)
        knots = knots_by_loop(edges)
        assert n_knots == len(knots) == len(examples)
        assert inside.tolist() == [
            row
            for row, (tail, head) in enumerate(edges)
            if any(tail in knot and head in knot for knot in knots)
        ]
        for steps in examples:
            for step, following in zip(steps, np.roll(steps, -1), strict=True):
                assert edges[step][1] == edges[following][0]


def test_a_cycle_is_shown_by_its_shortest_way_and_may_be_over_several_anchors():
    rows = np.array([[0, 1, 2], [0, 2, 3], [0, 3, 4], [0, 4, 1], [0, 2, 1]])
    assert PairGraph.of(rows, 5, by_anchor=True).find_cycles(3)[2][0].tolist() == [0, 4]
    rows = np.array([[0, 1, 2], [2, 0, 1], [1, 2, 0]])  # 01 < 02 < 12 < 01
    for by_anchor in (True, False):
        assert PairGraph.of(rows, 3, by_anchor=by_anchor).find_cycles(3)[0] == (not by_anchor)


@pytest.mark.slow
@given(proper_rows)
def test_questions_equal_unordered_triples(rows):
    questions = Questions.of(rows, N_NAMES)
    keys = [(a, frozenset((b, c))) for a, b, c in rows.tolist()]
    assert questions.of_row.tolist() == [list(dict.fromkeys(keys)).index(key) for key in keys]
    seen, repeats = set(), []
    for row in map(tuple, rows.tolist()):
        repeats.append(row in seen)
        seen.add(row)
    assert questions.repeats().tolist() == repeats
    mirrored = {(a, frozenset((b, c))) for a, b, c in seen if (a, c, b) in seen}
    assert questions.is_both_ways.sum() == len(mirrored)


def test_questions_do_not_overflow_with_millions_of_names():
    last = 3_000_000
    rows = np.array([[last, last - 1, last - 2], [last, last - 2, last - 1], [0, 1, 2]], np.int32)
    assert Questions.of(rows, last + 1).of_row.tolist() == [0, 0, 1]


def test_judgements_by_hand():
    # One question judged 3 to 1, another 2 to 0, a third once; and each once, which says nothing.
    rows = np.array([[0, 1, 2]] * 3 + [[0, 2, 1]] + [[3, 1, 2]] * 2 + [[4, 1, 2]])
    found, nothing = (
        tk.audit(tk.Triplets.from_array(each, list("abcde"))).judgements
        for each in (rows, rows[3:5])
    )
    assert (found.n_questions, found.n_judgements) == (2, 6)
    assert found.agreement == pytest.approx((3 + 1) / (6 + 1))
    assert found.ceiling == pytest.approx(5 / 6)
    assert found.overall_ceiling == pytest.approx(6 / 7)
    assert nothing is None

"""Baselines must find what names give away, and nothing where they give nothing away."""

import numpy as np
import pytest
from opened import read_triplets

from tripletkit import Triplets
from tripletkit.data.questions import PairGraph
from tripletkit.evaluation.baselines import (
    Baseline,
    _embed_names,
    _name_margins,
    describe_trap,
    run_baselines,
)
from tripletkit.evaluation.intervals import Interval, wilson_interval


def make_triplets(text: str) -> Triplets:
    words = [line.split() for line in text.strip().splitlines()]
    names = list(dict.fromkeys(name for row in words for name in row))
    rows = np.array([[names.index(name) for name in row] for row in words], dtype=np.int32)
    return Triplets(names, rows, np.arange(len(rows)) + 1, "val.txt")


def by_name(baselines: list[Baseline]) -> dict[str, Baseline]:
    return {baseline.name: baseline for baseline in baselines}


def draw_judgements(n: int, n_names: int, seed: int) -> np.ndarray:
    """Return judgements that points on a plane make, positive second."""
    generator = np.random.default_rng(seed)
    points = generator.normal(size=(n_names, 2))
    rows = np.argsort(generator.random((n, n_names)), axis=1)[:, :3]
    swapped = _name_margins(points, rows) < 0
    rows[swapped, 1:] = rows[swapped, :0:-1]
    return rows


def test_pair_memory_and_popularity_by_hand():
    train = make_triplets("a b c\na b d\ne f b")
    # ab is near in training, ac far; cd is unknown; b is positive twice and negative once,
    # c and d negative once, f positive once.
    val = make_triplets("b a c\nc a d\na c b\nx y z")
    found = by_name(run_baselines(train, val, ordinal=False))
    assert found["pair memory"].n_undecided == 1  # x y z
    # right: b a c; "c a d" compares ac (far) with cd (unknown): answers d, wrong; a c b: wrong
    assert found["pair memory"].accuracy == (1 + 0.5) / 4
    # a 0, c -1, d -1, b 1: "b a c" right, "c a d" right, "a c b" wrong, x y z undecided
    assert found["popularity"].accuracy == (2 + 0.5) / 4
    assert set(found) == {"pair memory", "popularity"}


def test_truth_turns_the_answers_round():
    train, val = make_triplets("a b c\nd e f"), make_triplets("a b c\nd f e")
    found = by_name(run_baselines(train, val, np.array([1, 0]), ordinal=False))
    assert found["pair memory"].accuracy == 1
    assert by_name(run_baselines(train, val, ordinal=False))["pair memory"].accuracy == 0.5


def test_names_only_knows_nothing_of_new_names():
    train, val = make_triplets("a b c\nb a c"), make_triplets("x y z\na b x")
    baseline = by_name(run_baselines(train, val))["names only"]
    assert (baseline.accuracy, baseline.n_undecided) == (0.5, 2)


def test_names_only_learns_an_order_that_triplets_hold():
    rows = draw_judgements(3000, 30, seed=0)
    vectors = _embed_names(rows[:2700], 30)
    assert (_name_margins(vectors, rows[2700:]) > 0).mean() > 0.85
    assert np.array_equal(vectors, _embed_names(rows[:2700], 30))


def test_controls_do_not_depend_on_the_order_of_validation_rows():
    rows = draw_judgements(600, 20, seed=1)
    names = [f"{index}.jpg" for index in range(20)]
    train, val = (Triplets(names, part, np.arange(300), "") for part in (rows[:300], rows[300:]))
    order = np.random.default_rng(2).permutation(300)
    assert run_baselines(train, val) == run_baselines(train, val.take(order))


def test_ordinal_embedding_is_left_out_above_its_limit(monkeypatch):
    monkeypatch.setattr("tripletkit.defaults.MAX_ORDINAL_TRIPLETS", 1)
    triplets = make_triplets("a b c\nd e f")
    assert "names only" not in by_name(run_baselines(triplets, triplets))
    assert "names only" in by_name(run_baselines(triplets, triplets, ordinal=True))


def test_describe_trap_speaks_only_when_names_do_as_well():
    memory = Baseline("pair memory", 0.9, 1000, 10, wilson_interval(900, 1000))
    guess = Baseline("popularity", 0.5, 1000, 1000, wilson_interval(500, 1000))
    assert describe_trap(0.95, Interval(0.93, 0.97), [guess, memory]) is None
    assert "(pair memory: 0.900)" in describe_trap(0.91, Interval(0.89, 0.93), [guess, memory])
    assert describe_trap(0.75, Interval(0.7, 0.8), [guess]) is None
    assert describe_trap(0.51, Interval(0.48, 0.54), [guess]).endswith(
        "cannot be told from guessing."
    )


@pytest.mark.slow
@pytest.mark.shared
@pytest.mark.parametrize(
    ("by_component", "memory", "popularity", "names_only"),
    [
        (False, (0.99, 0.996), (0.62, 0.69), (0.95, 0.975)),
        (True, (0.5, 0.5), (0.45, 0.57), (0.49, 0.56)),
    ],
    ids=["random split", "component split"],
)
def test_controls_reproduce_the_competition_figures(
    shared, by_component, memory, popularity, names_only
):
    triplets = read_triplets(shared / "food_triplets" / "train_triplets.txt")
    unit = np.arange(len(triplets))
    if by_component:
        unit = PairGraph.of(triplets.rows, len(triplets.names)).component_of_rows()
    is_val = (np.random.default_rng(0).random(unit.max() + 1) < 0.1)[unit]
    found = by_name(run_baselines(triplets.take(~is_val), triplets.take(is_val)))
    assert memory[0] <= found["pair memory"].accuracy <= memory[1]
    assert popularity[0] <= found["popularity"].accuracy <= popularity[1]
    assert names_only[0] <= found["names only"].accuracy <= names_only[1]

"""Baselines must find what names give away, and nothing where they give nothing away."""

import numpy as np
import pytest
from opened import read_triplets
from plain import triplet_margins

import tripletkit as tk
from tripletkit import TripletkitError, Triplets
from tripletkit.data.questions import PairGraph
from tripletkit.evaluation.baselines import Baseline, describe_trap
from tripletkit.evaluation.intervals import Interval, wilson_interval


def make_triplets(text: str) -> Triplets:
    words = [line.split() for line in text.strip().splitlines()]
    names = list(dict.fromkeys(name for row in words for name in row))
    rows = np.array([[names.index(name) for name in row] for row in words], dtype=np.int32)
    return Triplets(names, rows, np.arange(len(rows)) + 1, "val.txt")


def controls(train: Triplets, val: Triplets, truth=None, **options) -> dict[str, Baseline]:
    return {baseline.name: baseline for baseline in tk.controls(train, val, truth, **options)}


def test_pair_memory_and_popularity_by_hand():
    train = make_triplets("a b c\na b d\ne f b")
    # ab is near in training, ac far; cd is unknown; b is positive twice and negative once,
    # c and d negative once, f positive once.
    val = make_triplets("b a c\nc a d\na c b\nx y z")
    found = controls(train, val, ordinal=False)
    assert found["pair memory"].n_undecided == 1  # x y z
    # right: b a c; "c a d" compares ac (far) with cd (unknown): answers d, wrong; a c b: wrong
    assert found["pair memory"].accuracy == (1 + 0.5) / 4
    # a 0, c -1, d -1, b 1: "b a c" right, "c a d" right, "a c b" wrong, x y z undecided
    assert found["popularity"].accuracy == (2 + 0.5) / 4
    assert set(found) == {"pair memory", "popularity"}


def test_truth_turns_the_answers_round():
    train, val = make_triplets("a b c\nd e f"), make_triplets("a b c\nd f e")
    assert controls(train, val, [1, 0], ordinal=False)["pair memory"].accuracy == 1
    assert controls(train, val, ordinal=False)["pair memory"].accuracy == 0.5
    with pytest.raises(TripletkitError, match=r"expected 2 truths, one for each triplet of val"):
        controls(train, val, [1])


def test_names_only_knows_nothing_of_new_names():
    train, val = make_triplets("a b c\nb a c"), make_triplets("x y z\na b x")
    baseline = controls(train, val)["names only"]
    assert (baseline.accuracy, baseline.n_undecided) == (0.5, 2)


def test_names_only_learns_an_order_that_triplets_hold(monkeypatch):
    """The judgements are those of points on a plane."""
    generator = np.random.default_rng(0)
    points = generator.normal(size=(30, 2))
    rows = np.argsort(generator.random((3000, 30)), axis=1)[:, :3]
    swapped = triplet_margins(points, rows, "l2") < 0
    rows[swapped, 1:] = rows[swapped, :0:-1]
    names = [f"{index}.jpg" for index in range(30)]
    train, val = (
        Triplets(names, part, np.arange(len(part)), "") for part in (rows[:2700], rows[2700:])
    )
    found = controls(train, val)
    assert found["names only"].accuracy > 0.85
    assert controls(train, val.take(generator.permutation(300))) == found
    monkeypatch.setattr("tripletkit.defaults.MAX_ORDINAL_TRIPLETS", 1)
    assert "names only" not in controls(train, val)
    assert controls(train, val, ordinal=True) == found


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
    found = controls(triplets.take(~is_val), triplets.take(is_val))
    assert memory[0] <= found["pair memory"].accuracy <= memory[1]
    assert popularity[0] <= found["popularity"].accuracy <= popularity[1]
    assert names_only[0] <= found["names only"].accuracy <= names_only[1]

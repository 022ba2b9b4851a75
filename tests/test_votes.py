"""What votes are made into, against plain loops; the readers are tested in test_vote_files."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tripletkit.data.votes import Votes, make_loss_weights

counts = st.lists(
    st.tuples(st.integers(0, 9), st.integers(0, 9)).filter(any), min_size=1, max_size=20
)


def make_votes(pairs):
    return Votes(*np.array(pairs, dtype=float).T)


@pytest.mark.slow
@settings(deadline=None)
@given(counts)
def test_soft_weights_are_the_expected_loss_over_the_voters(pairs):
    weights = make_loss_weights(make_votes(pairs), "soft")
    for (b, c), (forth, back) in zip(pairs, weights, strict=True):
        losses = [2.0] * b + [7.0] * c  # one loss if the voter said B, another if C
        assert forth * 2.0 + back * 7.0 == pytest.approx(np.mean(losses), rel=1e-6)


@pytest.mark.slow
@settings(deadline=None)
@given(counts)
def test_weights_follow_the_lead_and_have_a_mean_of_one(pairs):
    weights = make_loss_weights(make_votes(pairs), "weight")
    leads = [abs(b - c) / (b + c) for b, c in pairs]
    mean = sum(leads) / len(leads)
    for (b, c), lead, (forth, back) in zip(pairs, leads, weights, strict=True):
        expected = lead / mean if mean else 0
        assert (forth if b >= c else back) == pytest.approx(expected, rel=1e-5)
        assert (back if b >= c else forth) == 0
    assert weights.sum() == pytest.approx(len(pairs) if mean else 0, rel=1e-5)


def test_majority_weights_leave_ties_out():
    weights = make_loss_weights(make_votes([(5, 0), (3, 2), (1, 4), (2, 2)]), "majority")
    assert weights * 3 / 4 == pytest.approx(np.array([[1, 0], [1, 0], [0, 1], [0, 0]]))


@pytest.mark.slow
@pytest.mark.parametrize("votes_as", ["soft", "weight", "majority"])
@settings(deadline=None)
@given(counts)
def test_turning_a_question_turns_its_weights(votes_as, pairs):
    votes = make_votes(pairs)
    turned = votes.turn(np.ones(len(votes), dtype=bool))
    np.testing.assert_allclose(
        make_loss_weights(turned, votes_as),
        make_loss_weights(votes, votes_as)[:, ::-1],
        rtol=1e-6,
        atol=1e-7,
    )


def test_shares_are_no_counts_but_whole_numbers_are():
    assert make_votes([(3, 2), (0, 1)]).are_counts
    assert not Votes.of_shares(np.array([0.25, 1.0])).are_counts
    assert Votes.of_shares(np.array([0.25, 0.5])).is_tie.tolist() == [False, True]

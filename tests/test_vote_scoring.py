"""Agreement with votes, against plain loops over the voters."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tripletkit import Answers, TripletkitError
from tripletkit.data.votes import Votes
from tripletkit.evaluation.intervals import image_interval, wilson_interval
from tripletkit.evaluation.scoring import score_votes, take_majority

questions = st.lists(
    st.tuples(
        st.integers(0, 7), st.integers(0, 7), st.sampled_from([-2.0, -0.5, 0.0, 1.0, np.nan])
    ).filter(lambda question: question[0] + question[1] > 0),
    min_size=1,
    max_size=15,
)


def make_votes(pairs):
    return Votes(*np.array(pairs, dtype=float).T)


def make_answers(margins):
    margins = np.array(margins, dtype=float)
    return Answers((margins > 0).astype(np.int8), margins, None, "preds.csv")


@pytest.mark.slow
@pytest.mark.parametrize("ties", ["error", "half"])
@settings(deadline=None)  # SciPy is loaded in the first call
@given(questions)
def test_agreement_and_ceiling_equal_a_loop_over_the_voters(ties, asked):
    agreeing, best = [], []
    for b, c, margin in asked:
        said = ["b"] * b + ["c"] * c
        answer = "b" if margin > 0 else "c"
        credit = [float(vote == answer) for vote in said]
        if margin == 0:
            credit = [0.5 if ties == "half" else 0.0] * len(said)
        if np.isnan(margin):
            credit = [0.0] * len(said)
        agreeing.append(sum(credit) / len(said))
        best.append(max(said.count("b"), said.count("c")) / len(said))
    votes = make_votes([(b, c) for b, c, _ in asked])
    score = score_votes(make_answers([margin for *_, margin in asked]), votes, ties=ties)
    assert score.agreement == pytest.approx(np.mean(agreeing))
    assert score.ceiling == pytest.approx(np.mean(best))
    assert score.agreement <= score.ceiling + 1e-12
    assert score.n_tied == sum(b == c for b, c, _ in asked)
    assert score.mean_votes == pytest.approx(np.mean([b + c for b, c, _ in asked]))


@pytest.mark.slow
@settings(deadline=None)  # SciPy is loaded in the first call
@given(questions)
def test_voters_are_compared_by_leaving_each_out(asked):
    one_another, with_majority = [], []
    for b, c, _ in asked:
        said = ["b"] * b + ["c"] * c
        if len(said) < 2:
            continue
        with_each, with_most = [], []
        for left_out, vote in enumerate(said):
            others = said[:left_out] + said[left_out + 1 :]
            with_each.append(others.count(vote) / len(others))
            for_it, against = others.count(vote), len(others) - others.count(vote)
            with_most.append(0.5 if for_it == against else float(for_it > against))
        one_another.append(np.mean(with_each))
        with_majority.append(np.mean(with_most))
    votes = make_votes([(b, c) for b, c, _ in asked])
    found = score_votes(make_answers(np.ones(len(votes))), votes).voters
    if not one_another:
        assert found is None
        return
    assert found.n == len(one_another)
    assert found.one_another == pytest.approx(np.mean(one_another))
    assert found.with_majority == pytest.approx(np.mean(with_majority))


def test_swapping_the_images_changes_nothing():
    rng = np.random.default_rng(0)
    votes, margins = make_votes(rng.integers(1, 6, (40, 2))), rng.normal(size=40)
    score = score_votes(make_answers(margins), votes)
    turned = score_votes(make_answers(-margins), votes.turn(np.ones(40, dtype=bool)))
    assert turned == score


def test_unanimous_votes_make_it_the_accuracy():
    margins, truth = np.array([1.0, -1, 2, -3, 1]), np.array([1, 1, 1, 0, 0])
    votes = make_votes([(3, 0) if label else (0, 3) for label in truth])
    rows = np.arange(15).reshape(5, 3)
    score = score_votes(make_answers(margins), votes, rows=rows)
    assert (score.agreement, score.ceiling) == (0.6, 1)
    assert (score.voters.one_another, score.voters.with_majority) == (1, 1)
    assert score.wilson == wilson_interval(3, 5)
    assert score.image_interval == image_interval([1, 0, 1, 1, 0], rows)


def test_shares_say_nothing_of_single_voters():
    score = score_votes(make_answers([1.0, 1.0]), Votes.of_shares(np.array([0.8, 0.3])))
    assert score.voters is None and score.mean_votes is None
    assert score.agreement == pytest.approx(0.55)


def test_the_majority_stands_in_for_the_truth_where_there_is_one():
    truth, is_decided = take_majority(make_votes([(3, 1), (2, 2), (0, 4)]), "votes.csv")
    assert truth.tolist() == [1, 0]
    assert is_decided.tolist() == [True, False, True]
    with pytest.raises(TripletkitError, match=r"votes\.csv: expected a majority on at least one"):
        take_majority(make_votes([(2, 2), (1, 1)]), "votes.csv")


def test_votes_of_another_number_are_refused():
    with pytest.raises(TripletkitError, match="expected 1 answers, one for each row of the votes"):
        score_votes(make_answers([1.0, 1.0]), make_votes([(1, 2)]))

"""A score must be right to the row, and agreement with votes as plain loops over voters have it."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tripletkit as tk
from tripletkit import Answers, DataWarning, TripletkitError, Triplets
from tripletkit.data.triplets import Votes
from tripletkit.evaluation.intervals import image_interval, wilson_interval
from tripletkit.evaluation.scoring import (
    credit_rows,
    score_answers,
    score_votes,
    take_majority,
    warn_of_doubt,
)


def make_answers(predictions, margins=None, rows=None) -> Answers:
    triplets = None
    if rows is not None:
        rows = np.array(rows, dtype=np.int32)
        names = [f"{index}.jpg" for index in range(rows.max() + 1)]
        triplets = Triplets(names, rows, np.arange(len(rows)) + 2, "preds.csv")
    margins = None if margins is None else np.array(margins, dtype=float)
    return Answers(np.array(predictions, dtype=np.int8), margins, triplets, "preds.csv")


def random_answers(n: int, seed: int = 0) -> tuple[Answers, np.ndarray]:
    generator = np.random.default_rng(seed)
    margins = generator.choice([-2, -1, 0, 1, 2, np.nan], n)
    rows = np.argsort(generator.random((n, 8)), axis=1)[:, :3]
    return make_answers(margins > 0, margins, rows), generator.integers(0, 2, n)


def test_score_by_hand():
    answers = make_answers([1, 1, 0, 0, 0], [2, 1, -1, 0, np.nan])
    score = score_answers(answers, np.array([1, 0, 0, 0, 0]))
    assert (score.n, score.n_correct, score.accuracy) == (5, 4, 0.8)
    assert (score.n_ties, score.n_undecidable) == (1, 1)
    assert (score.n_ones, score.n_ones_correct) == (1, 1)
    assert (score.n_zeros, score.n_zeros_correct) == (4, 3)
    assert score.share_of_ones == 0.4
    # The table of Wilson intervals for 4 of 5.
    assert (score.wilson.low, score.wilson.high) == pytest.approx((0.3755, 0.9638), abs=1e-4)
    assert score.image_interval is None and score.n_repeats is None and score.n_mirrored is None
    assert score.by_anchor_frequency == []


@pytest.mark.parametrize("truth", [1, 0])
@pytest.mark.parametrize(("ties", "accuracy"), [("error", 0), ("half", 0.5)])
def test_all_equal_embeddings_never_score_one(truth, ties, accuracy):
    answers = make_answers([0] * 6, [0] * 6)
    assert score_answers(answers, np.full(6, truth), ties=ties).accuracy == accuracy


def test_all_equal_embeddings_earn_what_saying_0_earns():
    answers = make_answers([0] * 6, [0] * 6)
    assert score_answers(answers, np.ones(6, int)).accuracy == 0
    assert score_answers(answers, np.array([1, 1, 1, 1, 0, 0])).accuracy == pytest.approx(1 / 3)


@pytest.mark.slow
@given(st.lists(st.tuples(st.sampled_from([-1.0, 0.0, 2.0, np.nan]), st.integers(0, 1))))
def test_the_same_answers_earn_the_same_as_csv_and_as_labels(rows):
    margins = np.array([margin for margin, _ in rows])
    truth = np.array([label for _, label in rows], dtype=int)
    with_margins = make_answers(margins > 0, margins)
    labels = make_answers(margins > 0)
    assert credit_rows(with_margins, truth).tolist() == credit_rows(labels, truth).tolist()


@pytest.mark.parametrize("ties", ["error", "half"])
def test_ties_are_judged_only_where_they_can_be_told(ties):
    with pytest.raises(TripletkitError, match=r"preds\.csv: expected margins.*`ties=answer`"):
        credit_rows(make_answers([1, 0]), np.array([1, 0]), ties)


def test_ties_that_count_as_answers_are_warned_of():
    answers = make_answers([1, 0, 0, 0], [2, 0, 0, np.nan])
    truth = np.zeros(4, int)
    with pytest.warns(DataWarning, match="3 of 4 rows do not tell"):
        warn_of_doubt(score_answers(answers, truth, ties="answer"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_of_doubt(score_answers(answers, truth, ties="error"))
        warn_of_doubt(score_answers(make_answers([1], [2.0]), truth[:1], ties="answer"))


@pytest.mark.parametrize("ties", ["error", "half"])
def test_credit_rows_equals_a_loop(ties):
    answers, truth = random_answers(200)
    expected = []
    for prediction, margin, label in zip(answers.predictions, answers.margins, truth, strict=True):
        if margin != margin:
            expected.append(0)
        elif margin == 0:
            expected.append(0.5 if ties == "half" else 0)
        else:
            expected.append(int(prediction == label))
    assert credit_rows(answers, truth, ties).tolist() == expected


def test_score_does_not_depend_on_the_order_of_rows():
    answers, truth = random_answers(300)
    order = np.random.default_rng(1).permutation(300)
    score = score_answers(answers, truth)
    shuffled = score_answers(answers.take(order), truth[order])
    there, back = score.to_dict(), shuffled.to_dict()
    # The sums are rounded in another order.
    assert there.pop("image_interval") == pytest.approx(back.pop("image_interval"))
    assert there == back


def test_score_parts_add_up():
    answers, truth = random_answers(300)
    score = score_answers(answers, truth)
    assert score.n_ones + score.n_zeros == score.n
    assert score.n_ones_correct + score.n_zeros_correct == score.n_correct
    assert sum(part.n for part in score.by_margin) == score.n - score.n_undecidable
    assert sum(part.n for part in score.by_anchor_frequency) == score.n
    right = sum(part.n * part.accuracy for part in score.by_anchor_frequency)
    assert right == pytest.approx(score.n_correct)


def test_by_margin_cuts_at_the_quantiles_of_its_size():
    margins = np.arange(1, 11) * np.where(np.arange(10) % 2, 1, -1)
    truth = (margins > 0).astype(int)
    truth[:4] = 1 - truth[:4]  # the four least sure answers are wrong
    by_margin = score_answers(make_answers(margins > 0, margins), truth).by_margin
    assert [(part.low, part.high, part.accuracy) for part in by_margin] == [
        (1, 2, 0), (3, 4, 0), (5, 6, 1), (7, 8, 1), (9, 10, 1),
    ]  # fmt: skip


def test_by_anchor_frequency_keeps_rows_of_one_frequency_together():
    rows = [[0, 8, 9], *([1, 8, 9] for _ in range(9))]
    score = score_answers(make_answers([1] * 10, rows=rows), np.array([0] + [1] * 9))
    assert [(part.low, part.high, part.n) for part in score.by_anchor_frequency] == [(1, 9, 10)]


def test_unique_counts_repeated_rows_once():
    rows = [[0, 1, 2], [0, 1, 2], [0, 2, 1], [3, 4, 5]]
    answers, truth = make_answers([1, 1, 0, 0], rows=rows), np.array([1, 1, 0, 1])
    everything = score_answers(answers, truth)
    assert (everything.n, everything.n_repeats, everything.accuracy) == (4, 1, 0.75)
    once = score_answers(answers, truth, unique=True)
    assert (once.n, once.n_repeats, once.accuracy) == (3, 1, pytest.approx(2 / 3))


def test_mirrored_rows_answered_the_same_are_counted():
    rows = [[0, 1, 2], [0, 2, 1], [3, 4, 5], [3, 5, 4], [6, 7, 8], [6, 8, 7], [0, 3, 6]]
    margins = [1, 1, 1, -1, 0, 0, 1]  # the first two contradict, the tie says nothing
    answers = make_answers([1, 1, 1, 0, 0, 0, 1], margins, rows)
    score = score_answers(answers, np.ones(7, int))
    assert (score.n_mirrored, score.n_mirrored_broken) == (2, 1)


def test_score_refuses_other_lengths(tmp_path):
    (tmp_path / "preds.txt").write_text("1\n0\n")
    (tmp_path / "truth.csv").write_text("label\n1\n0\n1\n")
    with pytest.raises(TripletkitError, match=r"preds.txt: expected 3 answers.*got 2"):
        tk.score(tmp_path / "preds.txt", tmp_path / "truth.csv")


questions = st.lists(
    st.tuples(
        st.integers(0, 7), st.integers(0, 7), st.sampled_from([-2.0, -0.5, 0.0, 1.0, np.nan])
    ).filter(lambda question: question[0] + question[1] > 0),
    min_size=1,
    max_size=15,
)


def make_votes(pairs):
    return Votes(*np.array(pairs, dtype=float).T)


def answers_of(margins):
    margins = np.array(margins, dtype=float)
    return Answers((margins > 0).astype(np.int8), margins, None, "preds.csv")


@pytest.mark.slow
@pytest.mark.parametrize("ties", ["error", "half"])
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
    score = score_votes(answers_of([margin for *_, margin in asked]), votes, ties=ties)
    assert score.agreement == pytest.approx(np.mean(agreeing))
    assert score.ceiling == pytest.approx(np.mean(best))
    assert score.agreement <= score.ceiling + 1e-12
    assert score.n_tied == sum(b == c for b, c, _ in asked)
    assert score.mean_votes == pytest.approx(np.mean([b + c for b, c, _ in asked]))


@pytest.mark.slow
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
    found = score_votes(answers_of(np.ones(len(votes))), votes).voters
    if not one_another:
        assert found is None
        return
    assert found.n == len(one_another)
    assert found.one_another == pytest.approx(np.mean(one_another))
    assert found.with_majority == pytest.approx(np.mean(with_majority))


def test_unanimous_votes_make_it_the_accuracy():
    margins, truth = np.array([1.0, -1, 2, -3, 1]), np.array([1, 1, 1, 0, 0])
    votes = make_votes([(3, 0) if label else (0, 3) for label in truth])
    rows = np.arange(15).reshape(5, 3)
    score = score_votes(answers_of(margins), votes, rows=rows)
    assert (score.agreement, score.ceiling) == (0.6, 1)
    assert (score.voters.one_another, score.voters.with_majority) == (1, 1)
    assert score.wilson == wilson_interval(3, 5)
    assert score.image_interval == image_interval([1, 0, 1, 1, 0], rows)


def test_shares_say_nothing_of_single_voters():
    score = score_votes(answers_of([1.0, 1.0]), Votes.of_shares(np.array([0.8, 0.3])))
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
        score_votes(answers_of([1.0, 1.0]), make_votes([(1, 2)]))

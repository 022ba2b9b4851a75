"""A score must be right to the row, and agreement with votes as plain loops over voters have it."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tripletkit as tk
from tripletkit import Answers, DataWarning, SettingsError, TripletkitError, Triplets
from tripletkit.data.triplets import Votes
from tripletkit.evaluation.intervals import wilson_interval

# Warnings are looked at where they are what is tested.
pytestmark = pytest.mark.filterwarnings("ignore::tripletkit.DataWarning")


def make_triplets(rows) -> Triplets:
    rows = np.array(rows, dtype=np.int32)
    names = [f"{index}.jpg" for index in range(rows.max() + 1)]
    return Triplets(names, rows, np.arange(len(rows)) + 2, "preds.csv")


def make_answers(predictions, margins=None, rows=None, source="preds.csv") -> Answers:
    margins = None if margins is None else np.array(margins, dtype=float)
    triplets = None if rows is None else make_triplets(rows)
    return Answers(np.array(predictions, dtype=np.int8), margins, triplets, source)


def of_margins(margins, rows=None) -> Answers:
    margins = np.array(margins, dtype=float)
    rows = np.arange(3 * len(margins)).reshape(-1, 3) if rows is None else rows
    return make_answers(margins > 0, margins, rows)


def random_answers(n: int) -> tuple[Answers, np.ndarray]:
    generator = np.random.default_rng(0)
    margins = generator.choice([-2, -1, 0, 1, 2, np.nan], n)
    rows = np.argsort(generator.random((n, 8)), axis=1)[:, :3]
    return of_margins(margins, rows), generator.integers(0, 2, n)


def test_score_by_hand():
    answers = make_answers([1, 1, 0, 0, 0], [2, 1, -1, 0, np.nan])
    score = tk.score(answers, [1, 0, 0, 0, 0])
    assert (score.n, score.n_correct, score.accuracy) == (5, 4, 0.8)
    assert (score.n_ties, score.n_undecidable) == (1, 1)
    assert (score.n_ones, score.n_ones_correct) == (1, 1)
    assert (score.n_zeros, score.n_zeros_correct) == (4, 3)
    assert score.share_of_ones == 0.4
    # The table of Wilson intervals for 4 of 5.
    assert (score.wilson.low, score.wilson.high) == pytest.approx((0.3755, 0.9638), abs=1e-4)
    assert score.image_interval is None and score.n_repeats is None and score.n_mirrored is None
    assert score.by_anchor_frequency == []


@pytest.mark.parametrize(
    ("ties", "truth", "accuracy"),
    [
        *((ties, [label] * 6, earned) for ties, earned in (("error", 0), ("half", 0.5))
          for label in (0, 1)),
        # What saying 0 earns.
        ("answer", [1] * 6, 0),
        ("answer", [1, 1, 1, 1, 0, 0], 1 / 3),
    ],
)  # fmt: skip
def test_all_equal_embeddings_earn_what_their_ties_do(ties, truth, accuracy):
    found = tk.score(make_answers([0] * 6, [0] * 6), truth, ties=ties)
    assert found.accuracy == pytest.approx(accuracy)


@pytest.mark.parametrize("ties", ["error", "half"])
def test_ties_are_judged_only_where_they_can_be_told(ties):
    with pytest.raises(TripletkitError, match=r"preds\.csv: expected margins.*`ties=answer`"):
        tk.score(make_answers([1, 0]), [1, 0], ties=ties)
    answers, truth = random_answers(200)
    expected = [
        0 if np.isnan(margin) else (ties == "half") / 2 if margin == 0 else prediction == label
        for prediction, margin, label in zip(
            answers.predictions, answers.margins, truth, strict=True
        )
    ]
    assert answers.credit(truth, ties).tolist() == expected


def test_ties_that_count_as_answers_are_warned_of():
    answers = make_answers([1, 0, 0, 0], [2, 0, 0, np.nan])
    with pytest.warns(DataWarning, match="3 of 4 rows do not tell"):
        tk.score(answers, [0] * 4)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tk.score(answers, [0] * 4, ties="error")
        tk.score(make_answers([1], [2.0]), [0])


def test_score_does_not_depend_on_the_order_of_rows_and_its_parts_add_up():
    answers, truth = random_answers(300)
    order = np.random.default_rng(1).permutation(300)
    score, shuffled = tk.score(answers, truth), tk.score(answers.take(order), truth[order])
    there, back = score.to_dict(), shuffled.to_dict()
    # The sums are rounded in another order.
    assert there.pop("image_interval") == pytest.approx(back.pop("image_interval"))
    assert there == back
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
    by_margin = tk.score(make_answers(margins > 0, margins), truth).by_margin
    assert [(part.low, part.high, part.accuracy) for part in by_margin] == [
        (1, 2, 0), (3, 4, 0), (5, 6, 1), (7, 8, 1), (9, 10, 1),
    ]  # fmt: skip


def test_by_anchor_frequency_keeps_rows_of_one_frequency_together():
    rows = [[0, 8, 9], *([1, 8, 9] for _ in range(9))]
    score = tk.score(make_answers([1] * 10, rows=rows), [0] + [1] * 9)
    assert [(part.low, part.high, part.n) for part in score.by_anchor_frequency] == [(1, 9, 10)]


def test_unique_counts_repeated_rows_once():
    rows = [[0, 1, 2], [0, 1, 2], [0, 2, 1], [3, 4, 5]]
    answers, truth = make_answers([1, 1, 0, 0], rows=rows), [1, 1, 0, 1]
    everything, once = (tk.score(answers, truth, unique=unique) for unique in (False, True))
    assert (everything.n, everything.n_repeats, everything.accuracy) == (4, 1, 0.75)
    assert (once.n, once.n_repeats, once.accuracy) == (3, 1, pytest.approx(2 / 3))
    with pytest.raises(SettingsError, match=r"does not hold them. Add `triplets=FILE`."):
        tk.score(make_answers([1, 1, 0, 0]), truth, unique=True)
    given = tk.score(make_answers([1, 1, 0, 0]), truth, unique=True, triplets=answers.triplets)
    assert given.n == 3


def test_mirrored_rows_answered_the_same_are_counted():
    rows = [[0, 1, 2], [0, 2, 1], [3, 4, 5], [3, 5, 4], [6, 7, 8], [6, 8, 7], [0, 3, 6]]
    # The first two contradict, the tie says nothing.
    score = tk.score(of_margins([1, 1, 1, -1, 0, 0, 1], rows), [1] * 7)
    assert (score.n_mirrored, score.n_mirrored_broken) == (2, 1)


def make_votes(pairs):
    return Votes(*np.array(pairs, dtype=float).T)


def agreement(answers, votes, **options):
    return tk.score(answers, np.ones(len(answers), int), votes=votes, **options).votes


questions = st.lists(
    st.tuples(
        st.integers(0, 7), st.integers(0, 7), st.sampled_from([-2.0, -0.5, 0.0, 1.0, np.nan])
    ).filter(lambda question: question[0] + question[1] > 0),
    min_size=1,
    max_size=15,
)


@pytest.mark.slow
@pytest.mark.parametrize("ties", ["error", "half"])
@given(questions)
def test_agreement_and_ceiling_equal_a_loop_over_the_voters(ties, asked):
    agreeing, best = [], []
    one_another, with_majority = [], []
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
        if len(said) < 2:
            continue
        # Each is left out in turn, and compared with the others.
        with_each, with_most = [], []
        for left_out, vote in enumerate(said):
            others = said[:left_out] + said[left_out + 1 :]
            with_each.append(others.count(vote) / len(others))
            for_it, against = others.count(vote), len(others) - others.count(vote)
            with_most.append(0.5 if for_it == against else float(for_it > against))
        one_another.append(np.mean(with_each))
        with_majority.append(np.mean(with_most))
    votes = make_votes([(b, c) for b, c, _ in asked])
    score = agreement(of_margins([margin for *_, margin in asked]), votes, ties=ties)
    assert score.agreement == pytest.approx(np.mean(agreeing))
    wilson = wilson_interval(sum(agreeing), len(asked))
    assert (score.wilson.low, score.wilson.high) == pytest.approx((wilson.low, wilson.high))
    assert score.ceiling == pytest.approx(np.mean(best))
    assert score.agreement <= score.ceiling + 1e-12
    assert score.n_tied == sum(b == c for b, c, _ in asked)
    assert score.mean_votes == pytest.approx(np.mean([b + c for b, c, _ in asked]))
    assert (score.voters is None) == (not one_another)
    if one_another:
        assert score.voters.n == len(one_another)
        assert score.voters.one_another == pytest.approx(np.mean(one_another))
        assert score.voters.with_majority == pytest.approx(np.mean(with_majority))


def test_shares_say_nothing_of_single_voters():
    score = agreement(of_margins([1.0, 1.0]), Votes.of_shares(np.array([0.8, 0.3])))
    assert score.voters is None and score.mean_votes is None
    assert score.agreement == pytest.approx(0.55)


def test_the_majority_stands_in_for_the_truth_where_there_is_one():
    answers = of_margins([1, 1, 1])
    found = tk.score(answers, votes=make_votes([(3, 1), (2, 2), (0, 4)]))
    assert (found.n, found.n_ones, found.accuracy) == (2, 1, 0.5)
    with pytest.raises(TripletkitError, match=r"the votes: expected a majority on at least one"):
        tk.score(answers, votes=make_votes([(2, 2), (1, 1), (3, 3)]))


PREDICTIONS = """a,b,c,prediction,margin
x.jpg,y.jpg,z.jpg,1,0.5
x.jpg,z.jpg,y.jpg,0,-0.5
u.jpg,v.jpg,w.jpg,1,0.25
u.jpg,v.jpg,w.jpg,1,0.25
p.jpg,q.jpg,r.jpg,0,0.0
"""
NAMED = [line.split(",")[:3] for line in PREDICTIONS.splitlines()[1:]]
VOTES = ["4,1", "5,0", "3,2", "2,2", "1,4"]
FILES = {
    "preds.csv": PREDICTIONS,
    "truth.csv": "label\n1\n0\n0\n0\n0\n",
    "answers.txt": "1\n0\n1\n1\n0\n",
    "votes.csv": "votes_b,votes_c\n" + "\n".join(VOTES) + "\n",
    "other.txt": "x.jpg y.jpg z.jpg\n" * 5,
    "short.txt": "1\n0\n",
    "words.txt": "1\n0\n1\n0\nyes\n",
    "few_votes.csv": "3 2\n1 1\n",
    "asked.csv": "query,first,second\n" + "x,y,z\n" * 5,
    "judged.csv": "votes_b,votes_c,a,b,c\n"
    + "".join(f"{vote},{','.join(row)}\n" for vote, row in zip(VOTES, NAMED, strict=True)),
    "shares.txt": "".join(
        f"{' '.join(row)} {share}\n"
        for row, share in zip(NAMED, (0.8, 1, 0.6, 0.5, 0.2), strict=True)
    ),
}


@pytest.fixture(autouse=True)
def files(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name, text in FILES.items():
        Path(name).write_text(text)


def test_score_without_truth_says_what_it_takes_for_granted(tripletkit):
    result = tripletkit("score", "-", "-q", input=PREDICTIONS, code=0)
    assert result.stderr.splitlines()[0] == (
        "warning: no truth file: taking every first image for the nearer one (truth all 1)"
    )
    assert result.stdout.startswith("accuracy      0.6000 ")
    assert json.loads(tripletkit("score", "preds.csv", "--json").stdout)["truth"] is None
    assert "needs the --triplets" in tripletkit("score", "answers.txt").stdout
    right = tk.score(make_answers([1, 1], rows=[[0, 1, 2], [3, 4, 5]]))
    assert "allows for shared images: all rows are alike" in str(right)


@pytest.mark.parametrize(
    ("words", "exit_code", "message"),
    [
        ("preds.csv short.txt", 1, "short.txt, got 5. Do both belong to the same triplets?"),
        ("preds.csv words.txt", 1, 'words.txt:5: expected 0 or 1, got "yes"'),
        ("preds.csv truth.csv --triplets other.txt", 1, "preds.csv:3: expected the question (x"),
        ("preds.csv --votes votes.csv --unique", 2, "--unique excludes votes"),
        ("preds.csv --triplets judged.csv --unique", 2, "--unique excludes votes"),
        ("preds.csv --votes few_votes.csv", 1, "expected 2 answers, one for each row of few_votes"),
        ("truth.csv preds.csv", 1, "Give the answers first, then the truth."),
        ("answers.txt truth.csv --ties half", 1, "(--ties answer)"),
        ("answers.txt --triplets asked.csv", 1, "asked.csv: expected judgements (anchor, positive"),
        ("answers.txt --triplets shares.txt", 1, "shares.txt:1: expected 3 image names, got 4"),
    ],
)
def test_what_does_not_belong_together_is_refused(tripletkit, words, exit_code, message):
    result = tripletkit("score", *words.split(), code=exit_code)
    assert message in result.stderr
    assert result.stdout == ""


def test_votes_stand_beside_the_truth_and_change_no_score():
    plain = tk.score("preds.csv", "truth.csv").to_dict()
    found = tk.score("preds.csv", "truth.csv", votes="votes.csv").to_dict()
    by_votes = found.pop("votes")
    assert plain.pop("votes") is None
    assert found == plain
    assert by_votes["agreement"] == pytest.approx(0.54)
    # Voters who agree: 6+0, 10, 3+1, 1+1, 0+6 of 10, 10, 10, 6, 10 pairs.
    assert by_votes["voters"]["one_another"] == pytest.approx((0.6 + 1 + 0.4 + 1 / 3 + 0.6) / 5)


def test_votes_are_columns_of_the_triplets_or_bring_them(tripletkit):
    beside = tk.score("preds.csv", votes="votes.csv").to_dict()
    assert tk.score("preds.csv", triplets="judged.csv").to_dict() == beside
    options = ["--triplets", "shares.txt", "--columns", "share=4", "--json"]
    shares = json.loads(tripletkit("score", "preds.csv", *options).stdout)
    assert (shares["n"], shares["votes"]["voters"]) == (4, None)
    assert shares["votes"]["agreement"] == pytest.approx(0.54)
    brought = tk.score("answers.txt", votes="judged.csv").to_dict()
    assert brought["no_image_interval"].startswith("too few rows")
    Path("judged.csv").write_text(FILES["judged.csv"].replace("x.jpg,z.jpg,y", "x.jpg,y.jpg,z"))
    with pytest.raises(TripletkitError, match=r"preds.csv:3: expected the question \(x.jpg, y"):
        tk.score("preds.csv", votes="judged.csv")


def test_the_truth_is_what_is_given_else_what_the_triplets_say():
    asked, said = pd.DataFrame(NAMED, columns=list("abc")), [1, 0, 1, 0, 0]
    answered, voted = asked.assign(label=said), pd.read_csv("judged.csv")
    for triplets, expected in ((answered, 4 / 5), (voted, 3 / 4), (asked, 3 / 5)):
        found = tk.compare({"x": "answers.txt", "y": [1] * 5}, triplets=triplets).ranking
        assert {each.name: each.accuracy for each in found}["x"] == expected
        assert tk.score("answers.txt", triplets=triplets).accuracy == expected
        assert tk.score("answers.txt", [1, 0, 1, 1, 0], triplets=triplets).accuracy == 1
    one, other = (tk.score("answers.txt", votes=each).to_dict() for each in (voted, "judged.csv"))
    assert one == other
    for triplets in (answered, voted):
        decided = tk.read_judgements(triplets).decided()
        assert tk.controls(triplets, triplets) == tk.controls(decided, decided)


def check(predictions, triplets: Triplets, margins=None, **others):
    agree_with = [make_answers(said, source=name) for name, said in others.items()]
    answers = make_answers(predictions, margins, source="answers.txt")
    return tk.check_answers(answers, triplets, agree_with=agree_with)


def test_answers_are_checked_without_a_truth():
    triplets = make_triplets([[0, 1, 2], [3, 4, 5], [6, 7, 8], [0, 4, 8]])
    found = check([1, 0, 0, 1], triplets, [0.5, 0, np.nan, -1], other=[1, 1, 0, 1])
    assert (found.n, found.n_ones, found.share_of_ones) == (4, 2, 0.5)
    assert (found.n_ties, found.n_undecidable) == (1, 1)
    assert found.n_margin_conflicts == 1  # the last row says 1 with a margin of -1
    assert found.agreements == [("other", 0.75)]
    with pytest.raises(TripletkitError, match=r"answers.txt: expected 4 answers.*csv, got 1"):
        check([1], triplets)
    with pytest.raises(TripletkitError, match=r"other: expected 4 answers.*csv, got 1"):
        check([1, 0, 0, 1], triplets, other=[1])


def test_a_circle_over_three_anchors_is_found():
    # AB < AC, then CA < CB, then BC < BA: the distances AB, AC, BC go round.
    triplets = make_triplets([[0, 1, 2], [2, 0, 1], [1, 2, 0], [0, 1, 3]])
    found = check([1, 1, 1, 1], triplets)
    assert found.n_knots == 1
    assert found.cycle_rows.tolist() == [0, 1, 2]
    assert check([1, 1, 0, 1], triplets).n_knots == 0
    found = found.to_dict()
    assert (found["cycle_rows"], found["consistency"]["broken_rows"]) == (3, 0)
    assert sorted(found["examples"][0]) == [1, 2, 3]


def test_answers_by_distances_are_never_inconsistent():
    generator = np.random.default_rng(0)
    rows, points = generator.integers(0, 15, (2000, 3)), generator.normal(size=(15, 3))
    anchor, first, second = (points[column] for column in rows.T)
    margins = ((anchor - second) ** 2 - (anchor - first) ** 2).sum(axis=1)
    found = check(margins > 0, make_triplets(rows), margins)
    assert found.n_knots == 0 and found.n_margin_conflicts == 0
    assert found.consistency.n_mirrored > 100 and found.consistency.n_repeated > 100
    assert found.consistency.n_mirrored_broken == found.consistency.n_repeated_broken == 0


def test_consistency_equals_a_loop():
    generator = np.random.default_rng(1)
    rows = generator.integers(0, 6, (300, 3))
    predictions = generator.integers(0, 2, 300)
    by_row, by_question = {}, {}
    for row, ((anchor, first, second), answer) in enumerate(zip(rows, predictions, strict=True)):
        if len({anchor, first, second}) == 3:
            by_row.setdefault((anchor, first, second), []).append(answer)
            nearer = first if answer else second
            key = (anchor, *sorted((first, second)))
            by_question.setdefault(key, []).append((first, nearer, row))
    mirrored = [asked for asked in by_question.values() if len({first for first, *_ in asked}) > 1]
    broken = [asked for asked in by_question.values() if len({each[1] for each in asked}) > 1]
    repeated = [answers for answers in by_row.values() if len(answers) > 1]
    found = check(predictions, make_triplets(rows)).consistency
    assert found.n_mirrored == len(mirrored)
    assert found.n_mirrored_broken == sum(asked in broken for asked in mirrored)
    assert found.n_repeated == len(repeated)
    assert found.n_repeated_broken == sum(len(set(answers)) > 1 for answers in repeated)
    assert found.broken_rows.tolist() == sorted(row for asked in broken for *_, row in asked)


@pytest.mark.shared
def test_check_answers_of_the_sample_of_the_competition(shared):
    folder = shared / "food_triplets"
    found = tk.check_answers(folder / "sample.txt", folder / "test_triplets.txt")
    assert found.n == 59_544
    assert found.share_of_ones == pytest.approx(0.5, abs=0.002)
    assert found.consistency.n_mirrored == 136
    assert found.consistency.n_mirrored_broken > 60  # it answers them by chance
    assert found.n_knots > 1000


@pytest.mark.parametrize("word", ["tie", "nan"])
def test_rows_of_the_truth_that_are_left_out_are_told(tripletkit, tmp_path, word):
    (tmp_path / "answers.txt").write_text("1\n0\n1\n")
    (tmp_path / "truth.csv").write_text(f"label\n1\n0\n{word}\n")
    result = tripletkit("score", tmp_path / "answers.txt", tmp_path / "truth.csv", code=0)
    assert "2 of 2 right" in result.stdout
    assert "1 undecided" in result.stderr

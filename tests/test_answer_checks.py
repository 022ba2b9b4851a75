"""Checks of answers without truth, on answers whose faults are known."""

import numpy as np
import pytest

from tripletkit import Answers, TripletkitError, Triplets
from tripletkit.evaluation.answer_checks import check_answers, check_consistency
from tripletkit.evaluation.baselines import _name_margins


def make_triplets(rows) -> Triplets:
    rows = np.array(rows, dtype=np.int32)
    names = [f"{index}.jpg" for index in range(rows.max() + 1)]
    return Triplets(names, rows, np.arange(len(rows)) + 1, "test.txt")


def make_answers(predictions, margins=None, source="answers.txt") -> Answers:
    margins = None if margins is None else np.array(margins, dtype=float)
    return Answers(np.array(predictions, dtype=np.int8), margins, None, source)


def check(answers: Answers, triplets: Triplets, *others: Answers):
    return check_answers(answers, triplets, list(others), n_examples=3)


def test_counts_by_hand():
    triplets = make_triplets([[0, 1, 2], [3, 4, 5], [6, 7, 8], [0, 4, 8]])
    answers = make_answers([1, 0, 0, 1], [0.5, 0, np.nan, -1])
    found = check(answers, triplets, make_answers([1, 1, 0, 1], source="other.csv"))
    assert (found.n, found.n_ones, found.share_of_ones) == (4, 2, 0.5)
    assert (found.n_ties, found.n_undecidable) == (1, 1)
    assert found.n_margin_conflicts == 1  # the last row says 1 with a margin of -1
    assert found.agreements == [("other.csv", 0.75)]


def test_a_circle_over_three_anchors_is_found():
    # AB < AC, then CA < CB, then BC < BA: the distances AB, AC, BC go round.
    triplets = make_triplets([[0, 1, 2], [2, 0, 1], [1, 2, 0], [0, 1, 3]])
    found = check(make_answers([1, 1, 1, 1]), triplets)
    assert found.n_knots == 1
    assert found.cycle_rows.tolist() == [0, 1, 2]
    assert sorted(found.examples[0].tolist()) == [0, 1, 2]
    assert check(make_answers([1, 1, 0, 1]), triplets).n_knots == 0


def test_answers_by_distances_are_never_inconsistent():
    generator = np.random.default_rng(0)
    rows = generator.integers(0, 15, (2000, 3))
    margins = _name_margins(generator.normal(size=(15, 3)), rows)
    triplets = make_triplets(rows)
    found = check(make_answers(margins > 0, margins), triplets)
    assert found.n_knots == 0 and found.n_margin_conflicts == 0
    assert found.consistency.n_mirrored > 100 and found.consistency.n_repeated > 100
    assert found.consistency.n_mirrored_broken == found.consistency.n_repeated_broken == 0


def test_check_consistency_equals_a_loop():
    generator = np.random.default_rng(1)
    rows = generator.integers(0, 6, (300, 3))
    predictions = generator.integers(0, 2, 300)
    by_row, by_question = {}, {}
    for row, ((anchor, first, second), answer) in enumerate(zip(rows, predictions, strict=True)):
        if first != second:
            by_row.setdefault((anchor, first, second), []).append(answer)
            nearer = first if answer else second
            key = (anchor, *sorted((first, second)))
            by_question.setdefault(key, []).append((first, nearer, row))
    mirrored = [asked for asked in by_question.values() if len({first for first, *_ in asked}) > 1]
    found = check_consistency(make_answers(predictions), rows)
    assert found.n_mirrored == len(mirrored)
    assert found.n_mirrored_broken == sum(
        len({nearer for _, nearer, _ in asked}) > 1 for asked in mirrored
    )
    repeated = [answers for answers in by_row.values() if len(answers) > 1]
    assert found.n_repeated == len(repeated)
    assert found.n_repeated_broken == sum(len(set(answers)) > 1 for answers in repeated)
    assert found.broken_rows.tolist() == sorted(
        row
        for asked in by_question.values()
        if len({nearer for _, nearer, _ in asked}) > 1
        for *_, row in asked
    )


def test_checks_refuse_another_length():
    triplets = make_triplets([[0, 1, 2], [3, 4, 5]])
    with pytest.raises(TripletkitError, match=r"answers.txt: expected 2 answers.*test.txt, got 1"):
        check(make_answers([1]), triplets)
    with pytest.raises(TripletkitError, match=r"other.txt: expected 2 answers.*test.txt, got 1"):
        check(make_answers([1, 0]), triplets, make_answers([1], source="other.txt"))


def test_to_dict_gives_numbers_of_rows():
    triplets = make_triplets([[0, 1, 2], [2, 0, 1], [1, 2, 0]])
    found = check(make_answers([1, 1, 1]), triplets).to_dict()
    assert found["cycle_rows"] == 3
    assert found["consistency"]["broken_rows"] == 0
    assert sorted(found["examples"][0]) == [1, 2, 3]

"""Votes as people and programs write them, and what is made of them, against plain loops."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from opened import NamedBytes, open_text, rows_of

from tripletkit import TripletkitError
from tripletkit.data.triplets import Votes, make_loss_weights

VOTES = [(4.0, 1.0), (2.0, 2.0), (0.0, 5.0)]
ROWS = 'x.jpg "y y.jpg" z.jpg\nx.jpg z.jpg "y y.jpg"\n"y y.jpg" x.jpg z.jpg\n'


def pairs(votes):
    return list(zip(votes.for_first.tolist(), votes.for_second.tolist(), strict=True))


def read(text, rows=ROWS):
    """Return the votes of a text on rows that stand in another file."""
    return open_text(rows, "train.txt", votes=NamedBytes(text, "votes.csv")).votes


@pytest.mark.parametrize(
    "text",
    [
        "4 1\n2 2\n0 5\n",
        "4\t1\n2\t2\n0\t5",
        "4,1\r\n2,2\r\n0,5\r\n",
        "b,c\n4, 1\n2, 2\n0, 5\n",
        "votes_b votes_c\n4 1\n2 2\n0 5\n",
        "\ufeffvotes_b,votes_c\n4,1\n\n# a remark\n2,2\n0,5\n",
        "Votes_C,id,Votes_B\n1,r,4\n2,s,2\n5,t,0\n",
        "4.0,1e0\n2,2\n0,5\n",
        "a,b,c,votes_b,votes_c\nx.jpg,y y.jpg,z.jpg,4,1\nx.jpg,z.jpg,y y.jpg,2,2\n"
        "y y.jpg,x.jpg,z.jpg,0,5\n",
        "votes_b,votes_c,anchor,first,second\n4,1,x.jpg,y y.jpg,z.jpg\n"
        "2,2,x.jpg,z.jpg,y y.jpg\n0,5,y y.jpg,x.jpg,z.jpg\n",
        'x.jpg "y y.jpg" z.jpg 4 1\nx.jpg z.jpg "y y.jpg" 2 2 # tied\n"y y.jpg" x.jpg z.jpg 0 5\n',
        "x.jpg, y y.jpg, z.jpg, 4, 1\nx.jpg, z.jpg, y y.jpg, 2, 2\ny y.jpg, x.jpg, z.jpg, 0, 5\n",
    ],
)
@pytest.mark.filterwarnings("ignore::tripletkit.DataWarning")
def test_votes_are_two_numbers_a_row_with_names_before_them_or_without(text):
    assert pairs(read(text)) == VOTES


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "votes.csv: expected two numbers of votes, or three names"),
        ("# nothing\n\n", "got none"),
        ("b,c\n", "votes.csv: expected rows below the heading, got none"),
        ("1\n0\n", "votes.csv:1: expected two numbers of votes, or three names and two nu"),
        ("a,b,c,prediction,margin\nx,y,z,1,0.5\n", "or a heading with votes_b and votes_c, got"),
        ("4 1\n2 -2\n", ':2: expected two numbers of votes from 0 to 1,000,000,000, got "2 -2"'),
        ("4 1\n2 1e308\n", 'votes from 0 to 1,000,000,000, got "2 1e308"'),
        ("4 1\n0 0\n", "votes.csv:2: expected at least one vote, got none"),
        ("4 1\n2\n", 'votes.csv:2: expected 2 columns as in the first line, got 1 ("2")'),
        ("4 1\n1 2 3\n", "votes.csv:2: expected 2 columns as in the first line, got 3"),
        ("a,b,c,votes_b,votes_c\nx,,z,1,2\n", "votes.csv:2: expected an image name, got an empty"),
        (b"4 1\n\xff 1\n", "votes.csv:2: expected UTF-8 text, got the byte 0xff"),
        ("4 1\n" + "0 0\n" * 12, "... and 2 more (12 in all)"),
        ("4 1\n2 2\n", "votes.csv: expected 3 rows of votes, one for each row of train.txt, got 2"),
        (
            'x.jpg z.jpg "y y.jpg" 2 2\n' * 3,
            "expected the question (x.jpg, y y.jpg, z.jpg) of train.txt:1, got (x.jpg, z.jpg, y y.j"
        ),
    ],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore::tripletkit.DataWarning")
def test_other_votes_are_refused_with_line_expected_and_got(text, message):
    with pytest.raises(TripletkitError) as caught:
        read(text)
    assert message in str(caught.value)


SHARES = [
    "x y z 0.8\nx z y .5\ny x z 0\n",
    "x;y;z;0.8\nx;z;y;.5\ny;x;z;0\n",
    "x, y, z, 0.8\nx, z, y, 0.5\ny, x, z, 0.0\n",
    "anchor,positive,negative,share\nx,y,z,0.8\nx,z,y,0.5\ny,x,z,0\n",
    "x  y\tz 0.8 # sure\n\n x z y 0.5\ny x z 0",
]


@pytest.mark.parametrize("text", SHARES)
def test_a_fourth_column_is_the_share_for_the_second(text):
    found = open_text(text, columns={"share": "4"})
    assert rows_of(found.triplets) == [("x", "y", "z"), ("x", "z", "y"), ("y", "x", "z")]
    assert found.votes.share == pytest.approx([0.8, 0.5, 0])


def test_votes_stand_in_columns_of_the_triplets_in_any_order():
    for text in (
        "votes_b,votes_c,c,b,a\n4,1,z,y,x\n2,2,y,z,x\n",
        "a,b,c,share\nx,y,z,0.8\nx,z,y,.5\n",
        "anchor;first;second;votes_c;votes_b\nx;y;z;1;4\nx;z;y;2;2\n",
    ):
        found = open_text(text)
        assert rows_of(found.triplets) == [("x", "y", "z"), ("x", "z", "y")]
        assert found.votes.share.tolist() == [0.8, 0.5]
    # Images called a, b and c are no heading.
    assert open_text("a b c 0.8\n", "t.txt", columns={"share": "4"}).votes.share.tolist() == [0.8]
    assert pairs(read("a,b,c,4,1\n", "a b c\n")) == [(4, 1)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x y z 0.5\nx y z 80\n", "t.csv:2: expected a share from 0 to 1, got"),
        ("x y z 0.5\nx y z\n", "t.csv:2: expected 4 columns as in the first line, got 3"),
        ("x y z w\n", "t.csv:1: expected a share from 0 to 1, got"),
    ],
)
def test_a_fourth_column_that_is_no_share_is_refused(text, message):
    with pytest.raises(TripletkitError, match=message):
        open_text(text, columns={"share": "4"})


counts = st.lists(
    st.tuples(st.integers(0, 9), st.integers(0, 9)).filter(any), min_size=1, max_size=20
)


@given(counts)
def test_weights_are_those_of_a_plain_loop_and_turn_with_the_question(pairs):
    votes = Votes(*np.array(pairs, dtype=float).T)
    soft, weighed, majority = (
        make_loss_weights(votes, way) for way in ("soft", "weight", "majority")
    )
    leads = [abs(b - c) / (b + c) for b, c in pairs]
    mean, decided = np.mean(leads), np.mean([b != c for b, c in pairs])
    for number, (b, c) in enumerate(pairs):
        # The expected loss over the voters: one if the voter said B, another if C.
        losses = [2.0] * b + [7.0] * c
        assert soft[number] @ [2.0, 7.0] == pytest.approx(np.mean(losses), rel=1e-6)
        of_lead = leads[number] / mean if mean else 0
        one = (b != c) / decided if decided else 0
        forth, back = (1, 0) if b >= c else (0, 1)
        assert weighed[number] == pytest.approx([forth * of_lead, back * of_lead], rel=1e-5)
        assert majority[number] == pytest.approx([forth * one, back * one], rel=1e-5)
    turned = votes.turn(np.ones(len(votes), dtype=bool))
    for way, weights in (("soft", soft), ("weight", weighed), ("majority", majority)):
        expected = pytest.approx(weights[:, ::-1], rel=1e-6, abs=1e-7)
        assert make_loss_weights(turned, way) == expected


def test_shares_are_no_counts_but_whole_numbers_are():
    assert Votes(np.array([3.0, 0]), np.array([2.0, 1])).are_counts
    assert not Votes.of_shares(np.array([0.25, 1.0])).are_counts

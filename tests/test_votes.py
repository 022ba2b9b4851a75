"""Votes as people and programs write them, and what is made of them, against plain loops."""

from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from opened import NamedBytes, open_text, read_triplets, read_triplets_with_shares, read_votes

from tripletkit import TripletkitError
from tripletkit.data.triplets import Votes, make_loss_weights

VOTES = [(4.0, 1.0), (2.0, 2.0), (0.0, 5.0)]
NAMES = ["x.jpg", "y y.jpg", "z.jpg"]
ROWS = [[0, 1, 2], [0, 2, 1], [1, 0, 2]]


def read(text, reader=read_votes):
    data = text if isinstance(text, bytes) else text.encode()
    return reader(io.BytesIO(data), "votes.csv")


def pairs(votes):
    return list(zip(votes.for_first.tolist(), votes.for_second.tolist(), strict=True))


def error_of(text, reader=read_votes):
    with pytest.raises(TripletkitError) as caught:
        read(text, reader)
    return str(caught.value)


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
    ],
)
def test_read_votes_takes_two_numbers_a_line(text):
    found = read(text)
    assert pairs(found[0]) == VOTES
    assert found[1] is None


@pytest.mark.parametrize(
    "text",
    [
        "a,b,c,votes_b,votes_c\nx.jpg,y y.jpg,z.jpg,4,1\nx.jpg,z.jpg,y y.jpg,2,2\n"
        "y y.jpg,x.jpg,z.jpg,0,5\n",
        "votes_b,votes_c,anchor,first,second\n4,1,x.jpg,y y.jpg,z.jpg\n"
        "2,2,x.jpg,z.jpg,y y.jpg\n0,5,y y.jpg,x.jpg,z.jpg\n",
        'x.jpg "y y.jpg" z.jpg 4 1\nx.jpg z.jpg "y y.jpg" 2 2 # tied\n"y y.jpg" x.jpg z.jpg 0 5\n',
        "x.jpg, y y.jpg, z.jpg, 4, 1\nx.jpg, z.jpg, y y.jpg, 2, 2\ny y.jpg, x.jpg, z.jpg, 0, 5\n",
    ],
)
def test_read_votes_takes_whole_rows_and_compares_them(text):
    votes, triplets = read(text)
    assert pairs(votes) == VOTES
    assert (triplets.names, triplets.rows.tolist()) == (NAMES, ROWS)
    same = 'x.jpg "y y.jpg" z.jpg\nx.jpg z.jpg "y y.jpg"\n"y y.jpg" x.jpg z.jpg\n'
    given = NamedBytes(text, "votes.csv")
    assert open_text(same, "train.txt", votes=given).votes.for_first.tolist() == [4, 2, 0]
    other = same.replace('x.jpg z.jpg "y y.jpg"', 'x.jpg "y y.jpg" z.jpg')
    with pytest.raises(TripletkitError) as caught:
        open_text(other, "train.txt", votes=NamedBytes(text, "votes.csv"))
    message = str(caught.value)
    assert "expected the question (x.jpg, y y.jpg, z.jpg) of train.txt:2, got (x.jpg, z" in message


def test_images_called_a_b_and_c_are_no_heading():
    assert open_text("a b c 0.8\n", "t.txt", columns={"share": "4"}).votes.share.tolist() == [0.8]
    assert len(read("a,b,c,4,1\n")[0]) == 1


def test_votes_without_names_are_checked_for_their_number():
    with pytest.raises(TripletkitError, match="expected 2 rows of votes, one for each row of t"):
        open_text("x y z\nx z y\n", "t.txt", votes=NamedBytes("4 1\n2 2\n0 5\n", "votes.csv"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "votes.csv: expected two numbers of votes, or three names"),
        ("# nothing\n\n", "got none"),
        ("b,c\n", "votes.csv: expected rows below the heading, got none"),
        ("1\n0\n", "votes.csv:1: expected two numbers of votes, or three names and two nu"),
        ("a,b,c,prediction,margin\nx,y,z,1,0.5\n", "or a heading with votes_b and votes_c, got"),
        (
            "4 1\n2 -2\n",
            ':2: expected two numbers of votes from 0 to 1,000,000,000, got "2 -2"',
        ),
        ("4 1\n2 1e308\n", 'votes from 0 to 1,000,000,000, got "2 1e308"'),
        ("4 1\n0 0\n", "votes.csv:2: expected at least one vote, got none"),
        ("4 1\n2\n", 'votes.csv:2: expected 2 columns as in the first line, got 1 ("2")'),
        ("4 1\n1 2 3\n", "votes.csv:2: expected 2 columns as in the first line, got 3"),
        ("a,b,c,votes_b,votes_c\nx,,z,1,2\n", "votes.csv:2: expected an image name, got an empty"),
        (b"4 1\n\xff 1\n", "votes.csv:2: expected UTF-8 text, got the byte 0xff"),
        ("4 1\n" + "0 0\n" * 12, "... and 2 more (12 in all)"),
    ],
)
def test_read_votes_says_line_expected_and_got(text, message):
    assert message in error_of(text)


@pytest.mark.parametrize(
    "text",
    [
        "x y z 0.8\nx z y .5\ny x z 0\n",
        "x;y;z;0.8\nx;z;y;.5\ny;x;z;0\n",
        "x,y,z,0.8\nx,z,y,0.5\ny,x,z,0.0\n",
        "x, y, z, 0.8\nx, z, y, 0.5\ny, x, z, 0.0\n",
        "anchor,positive,negative,share\nx,y,z,0.8\nx,z,y,0.5\ny,x,z,0\n",
        "x  y\tz 0.8 # sure\n\n x z y 0.5\ny x z 0",
    ],
)
def test_a_fourth_column_is_the_share_for_the_second(text):
    triplets, votes = read(text, read_triplets_with_shares)
    assert (triplets.names, triplets.rows.tolist()) == (["x", "y", "z"], ROWS)
    assert votes.share == pytest.approx([0.8, 0.5, 0])
    assert votes.is_for_second.tolist() == [False, False, True]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x y z 0.5\nx y z 80\n", "votes.csv:2: expected a share from 0 to 1, got"),
        (
            "x y z 0.5\nx y z\n",
            "votes.csv:2: expected 4 columns as in the first line, got 3",
        ),
        ("x y z w\n", "votes.csv:1: expected a share from 0 to 1, got"),
    ],
)
def test_a_fourth_column_that_is_no_share_is_refused(text, message):
    assert message in error_of(text, read_triplets_with_shares)


def test_four_columns_stay_refused_and_the_message_says_how_to_go_on():
    with pytest.raises(TripletkitError) as caught:
        read("x y z 0.8\n", read_triplets)
    assert "votes.csv:1: expected 3 image names, got 4" in str(caught.value)
    assert "with `columns`, as share=4" in str(caught.value)
    with pytest.raises(TripletkitError, match="Put names with spaces in quotes"):
        read("x y z w\n", read_triplets)


counts = st.lists(
    st.tuples(st.integers(0, 9), st.integers(0, 9)).filter(any), min_size=1, max_size=20
)


def make_votes(pairs):
    return Votes(*np.array(pairs, dtype=float).T)


@pytest.mark.slow
@given(counts)
def test_soft_weights_are_the_expected_loss_over_the_voters(pairs):
    weights = make_loss_weights(make_votes(pairs), "soft")
    for (b, c), (forth, back) in zip(pairs, weights, strict=True):
        losses = [2.0] * b + [7.0] * c  # one loss if the voter said B, another if C
        assert forth * 2.0 + back * 7.0 == pytest.approx(np.mean(losses), rel=1e-6)


@pytest.mark.slow
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

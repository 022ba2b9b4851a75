"""How far answers agree with the people who were asked, and how far they could."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np

from tripletkit.data.votes import Votes
from tripletkit.errors import AnswerFileError
from tripletkit.evaluation.answer_checks import check_same_length
from tripletkit.evaluation.answers import Answers
from tripletkit.evaluation.intervals import (
    Interval,
    NoInterval,
    describe_for_json,
    effective_count,
    image_interval,
    weigh_values,
    wilson_interval,
)
from tripletkit.evaluation.scoring import (
    Score,
    TiePolicy,
    credit_rows,
    describe_shared_images,
)
from tripletkit.results import Result, Section, Table


@dataclass(frozen=True)
class VoterAgreement:
    """How far people agree with each other, on the questions that two or more were asked.

    Attributes:
        n: such questions.
        one_another: chance that a voter says what another voter says, 0 to 1.
        with_majority: chance that a voter says what most of the other voters say; where these
            are tied, half. What the majority of one voter fewer earns on a vote it has not seen.
    """

    n: int
    one_another: float
    with_majority: float


@dataclass(frozen=True, repr=False)
class VoteScore(Result):
    """The agreement of answers with votes, and what it must be compared with.

    Attributes:
        n: questions.
        n_tied: of them, with as many votes for one image as for the other.
        mean_votes: votes on a question, on average; None where only shares are known.
        agreement: mean share of voters who say what the answer says, 0 to 1.
        wilson: 95% interval that takes questions as independent. It is meant for right and
            wrong; shares vary less, so it is rather too wide.
        image_interval: 95% interval that allows for images that rows share, or why there is
            none; None without the triplets.
        ceiling: mean share of the majority. No answers can agree more with these votes.
        voters: how far people agree with each other; None where that cannot be told.
    """

    n: int
    n_tied: int
    mean_votes: float | None
    agreement: float
    wilson: Interval
    image_interval: Interval | NoInterval | None
    ceiling: float
    voters: VoterAgreement | None

    def to_dict(self) -> dict[str, Any]:
        """Return the score as JSON takes it, intervals as [low, high]."""
        return (
            asdict(self)
            | {"wilson": self.wilson.to_list()}
            | describe_for_json(self.image_interval, "image_interval")
        )

    def _summary(self) -> str:
        return f"agreement {self.agreement:.4f} of at most {self.ceiling:.4f}, {self.n:,} questions"

    def _sections(self) -> list[Section]:
        tied = f"; {self.n_tied:,} tied" if self.n_tied else ""
        mean = "" if self.mean_votes is None else f", {self.mean_votes:.3g} votes each"
        said = "share of the voters who say what the answer says"
        rows = [
            ["agreement", f"{self.agreement:.4f}", said],
            ["95% interval", str(self.wilson), "Wilson, rows taken as independent"],
        ]
        if self.image_interval is not None:
            rows.append(describe_shared_images(self.image_interval))
        rows.append(["ceiling", f"{self.ceiling:.4f}", "if every answer were that of the majority"])
        if (voters := self.voters) is not None:
            more = f" ({voters.n:,} questions with two votes or more)"
            of = "" if voters.n == self.n else more
            rows += [
                ["a voter", f"{voters.one_another:.4f}", f"with another voter{of}"],
                ["a voter", f"{voters.with_majority:.4f}", f"with most of the other voters{of}"],
            ]
        rows.append(["questions", f"{self.n:,}", f"with votes{mean}{tied}"])
        return [[Table(rows, has_heading=False, title="agreement with the votes")]]


@dataclass(frozen=True, repr=False)
class ScoredAnswers(Score):
    """The score of answers, with what it was counted by.

    Attributes:
        truth: what to call the truth; None where every first image was taken for the nearer one.
        votes: the agreement with the people who were asked; None without votes.
    """

    truth: str | None = None
    votes: VoteScore | None = None

    @classmethod
    def of(cls, score: Score, truth: str | None, votes: VoteScore | None) -> ScoredAnswers:
        """Return a score with what it was counted by."""
        values = {field.name: getattr(score, field.name) for field in fields(Score)}
        return cls(**values, truth=truth, votes=votes)

    def to_dict(self) -> dict[str, Any]:
        """Return the score as JSON takes it, intervals as [low, high]."""
        values = super().to_dict()
        del values["votes"]
        of_votes = {} if self.votes is None else {"votes": self.votes.to_dict()}
        return {"truth": values.pop("truth")} | values | of_votes

    def _sections(self) -> list[Section]:
        first, *slices = super()._sections()
        return [first, *(self.votes._sections() if self.votes else []), *slices]


def score_votes(
    answers: Answers,
    votes: Votes,
    *,
    rows: np.ndarray | None = None,
    ties: TiePolicy = "answer",
    weights: np.ndarray | None = None,
) -> VoteScore:
    """Measure how far answers agree with votes.

    Args:
        answers: of `n_triplets` rows.
        votes: on the same rows.
        rows: `(n_triplets, 3)` integers, the images of each question. Defaults to those that
            the answers hold; without any, there is no `image_interval`.
        ties: see `credit_rows`; with `"half"` a tie earns 0.5, as in the reference.
        weights: see `score_answers`.
    Raises:
        AnswerFileError: if the numbers of answers and of votes differ, or as `credit_rows` says.
    Reference:
        Zhang, Isola, Efros, Shechtman, Wang. The unreasonable effectiveness of deep features as
        a perceptual metric. CVPR 2018. arXiv:1801.03924 (the 2AFC score).
    Example:
        >>> answers = Answers(np.array([1, 0]), None, None, "answers")
        >>> score = score_votes(answers, Votes(np.array([4., 3.]), np.array([1., 2.])))
        >>> round(score.agreement, 6), score.ceiling  # (0.8 + 0.4) / 2 and (0.8 + 0.6) / 2
        (0.6, 0.7)
    """
    check_same_length(answers, len(votes), "the votes")
    if rows is None and answers.triplets is not None:
        rows = answers.triplets.rows
    share = votes.share
    if_first, if_second = (
        credit_rows(answers, np.full(len(votes), label), ties) for label in (1, 0)
    )
    agreeing, largest = if_first * share + if_second * (1 - share), np.maximum(share, 1 - share)
    n_alike: float = len(votes)
    if weights is not None:
        n_alike = effective_count(weights)
        agreeing, largest = weigh_values(agreeing, weights), weigh_values(largest, weights)
    return VoteScore(
        n=len(votes),
        n_tied=int(votes.is_tie.sum()),
        mean_votes=float(votes.n_each.mean()) if votes.are_counts else None,
        agreement=float(agreeing.mean()),
        wilson=wilson_interval(float(agreeing.sum()) * n_alike / len(votes), n_alike),
        image_interval=None if rows is None else image_interval(agreeing, rows),
        ceiling=float(largest.mean()),
        voters=compare_voters(votes),
    )


def compare_voters(votes: Votes) -> VoterAgreement | None:
    """Leave out each voter in turn, and compare with the others.

    Returns:
        None where no question was put to two people, or only shares are known.
    Reference:
        Zhang et al. 2018, as above, give p**2 + (1 - p)**2 for human performance; that counts
        a voter as one of the others too, and so flatters where few were asked.
    Example:
        Three of four say B. A voter for B agrees with 2 of 3 others, the one for C with none:
        (3 * 2/3 + 0) / 4. For each voter for B the others are 2 to 1 for B.
        >>> compare_voters(Votes(np.array([3.]), np.array([1.])))
        VoterAgreement(n=1, one_another=0.5, with_majority=0.75)
    """
    if not votes.are_counts:
        return None
    votes = votes.take(votes.n_each >= 2)
    if not len(votes):
        return None
    n = votes.n_each
    n_agreeing, n_with_majority = np.zeros(len(votes)), np.zeros(len(votes))
    for mine, other in (
        (votes.for_first, votes.for_second),
        (votes.for_second, votes.for_first),
    ):
        n_agreeing += mine * (mine - 1)
        n_with_majority += mine * np.where(mine - 1 == other, 0.5, mine - 1 > other)
    return VoterAgreement(
        len(votes),
        float((n_agreeing / (n * (n - 1))).mean()),
        float((n_with_majority / n).mean()),
    )


def take_majority(votes: Votes, source: str) -> tuple[np.ndarray, np.ndarray]:
    """Return what most people said, for want of any other truth.

    Args:
        source: what to call the votes in messages.
    Returns:
        `(n,)` int8, 1 where most are for the first image; `(n_triplets,)` bool, the `n`
        questions that are not tied.
    Raises:
        AnswerFileError: if every question is tied.
    """
    is_decided = ~votes.is_tie
    if not is_decided.any():
        raise AnswerFileError(
            f"{source}: expected a majority on at least one question, every one is tied. "
            "Only a truth file can tell."
        )
    return (~votes.is_for_second[is_decided]).astype(np.int8), is_decided

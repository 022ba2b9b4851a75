"""The accuracy of answers, with what it takes to believe it, and how far people agree with them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

from tripletkit.data.questions import Questions
from tripletkit.data.triplets import Votes
from tripletkit.errors import (
    AnswerFileError,
    DataWarning,
    caution,
)
from tripletkit.evaluation.answers import Answers
from tripletkit.evaluation.intervals import (
    Interval,
    NoInterval,
    effective_count,
    image_interval,
    weigh_values,
    wilson_interval,
)
from tripletkit.results import Result, Section, Table, show_count

# Parts that rows are cut into by margin and by anchor.
_N_SLICES = 5

# Of fewer rows nothing is said that one more could turn round.
_FEWEST_ROWS = 10


def check_same_length(answers: Answers, n_expected: int, source: str) -> None:
    """Refuse answers that cannot belong to a file because their numbers differ."""
    if len(answers) != n_expected:
        raise AnswerFileError(
            f"{answers.source}: expected {n_expected:,} answers, one for each row of {source}, "
            f"got {len(answers):,}. Do both belong to the same triplets?"
        )


@dataclass(frozen=True)
class Consistency:
    """How questions that were asked more than once were answered.

    Attributes:
        n_mirrored: questions asked as (A, B, C) and as (A, C, B), both decided.
        n_mirrored_broken: of them, those where the two answers name different images.
        n_repeated: questions asked several times in one order, decided at least twice.
        n_repeated_broken: of them, those where the answers differ.
        broken_rows: indices of the rows of both kinds of broken questions, ascending.
    """

    n_mirrored: int
    n_mirrored_broken: int
    n_repeated: int
    n_repeated_broken: int
    broken_rows: np.ndarray


def check_consistency(answers: Answers, rows: np.ndarray) -> Consistency:
    """Compare the answers to questions that were asked more than once.

    Ties, rows without a margin, and rows that name one image twice are left out: they are no
    answers.
    """
    first, second = rows[:, 1], rows[:, 2]
    decided = np.flatnonzero(~answers.is_tie & ~answers.is_undecidable & (first != second))
    rows = rows[decided]
    questions = Questions.of(rows, int(rows.max(initial=-1)) + 1)
    answered = answers.predictions[decided].astype(bool)
    is_split = _has_both(answered ^ questions.is_mirrored, questions)
    is_both_ways = questions.is_both_ways
    n_in_order, n_in_order_ones = (
        np.bincount(questions.directed, weights, 2 * questions.n_questions)
        for weights in (None, answered)
    )
    is_repeated = n_in_order > 1
    is_repeat_broken = (n_in_order_ones > 0) & (n_in_order_ones < n_in_order)
    is_broken_row = (is_split & is_both_ways)[questions.of_row]
    is_broken_row |= is_repeat_broken[questions.directed]
    return Consistency(
        n_mirrored=int(is_both_ways.sum()),
        n_mirrored_broken=int((is_both_ways & is_split).sum()),
        n_repeated=int(is_repeated.sum()),
        n_repeated_broken=int(is_repeat_broken.sum()),
        broken_rows=decided[is_broken_row],
    )


def _has_both(votes: np.ndarray, questions: Questions) -> np.ndarray:
    """Return `(n_questions,)` bool: its votes are neither all True nor all False."""
    n_rows = np.bincount(questions.of_row, minlength=questions.n_questions)
    n_true = np.bincount(questions.of_row, votes, questions.n_questions)
    return (n_true > 0) & (n_true < n_rows)


TiePolicy = Literal["answer", "error", "half"]
# What a tie earned; see `credit_rows`.
_EARNED = {"answer": "counted as answer 0", "error": "counted as wrong", "half": "counted as half"}


@dataclass(frozen=True)
class Slice:
    """The accuracy of a part of the rows.

    Attributes:
        low, high: of the size of the margin, or of the number of rows with the same anchor, both
            ends included.
        accuracy: 0 to 1.
    """

    low: float
    high: float
    n: int
    accuracy: float


@dataclass(frozen=True)
class OddOneOut:
    """How often the odd one of three images was found.

    Attributes:
        n: trials; a coin of three sides finds a third of the odd ones.
        accuracy: 0 to 1.
        wilson, image_interval: 95% intervals that take trials as independent, and that allow for
            images that trials share, or why there is none.
    """

    n: int
    accuracy: float
    wilson: Interval
    image_interval: Interval | NoInterval

    def describe(self) -> list[str]:
        """Return the row of a table that says it."""
        interval = self.image_interval or self.wilson
        found = f"{show_count(self.accuracy * self.n)} of {self.n:,} found"
        return ["odd one out", f"{self.accuracy:.4f}", f"{found}, 95% {interval}; chance 0.3333"]


def score_odd_one_out(
    credit: np.ndarray, rows: np.ndarray, trials: np.ndarray | None
) -> OddOneOut | None:
    """Score trials of three images: the odd one is found where both of its triplets are right.

    Args:
        credit: `(n_triplets,)` what each row earns, 0 to 1.
        rows: `(n_triplets, 3)` indices of images, the odd one last in truth.
        trials: see `Triplets`; those that are not of two rows over the same images do not count.
    Reference:
        Hebart, Zheng, Pereira, Baker. Nature Human Behaviour 2020. doi:10.1038/s41562-020-00951-3.
    Example:
        >>> rows = np.array([[0, 1, 2], [1, 0, 2], [3, 4, 5], [4, 3, 5]])
        >>> score_odd_one_out(np.array([1, 1, 1, 0]), rows, np.array([1, 1, 2, 2])).accuracy
        0.5
    """
    if trials is None or not len(trials):
        return None
    order = np.argsort(trials, kind="stable")
    first, second = order[:-1], order[1:]
    is_pair = (trials[first] > 0) & (trials[first] == trials[second])
    is_pair &= (rows[first] == rows[second][:, [1, 0, 2]]).all(axis=1)
    first, second = first[is_pair], second[is_pair]
    if not len(first):
        return None
    found = np.floor(np.minimum(credit[first], credit[second]))
    return OddOneOut(
        len(found),
        float(found.mean()),
        wilson_interval(float(found.sum()), len(found)),
        image_interval(found, rows[first]),
    )


@dataclass(frozen=True)
class _VoterAgreement:
    """How far people agree with each other, on the questions that two or more were asked.

    Attributes:
        one_another: chance that a voter says what another voter says, 0 to 1.
        with_majority: chance that a voter says what most of the other voters say; where these are
            tied, half. What the majority of one voter fewer earns on a vote it has not seen.
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
    voters: _VoterAgreement | None

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
            rows.append(_describe_shared_images(self.image_interval))
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
class Score(Result):
    """An accuracy with its uncertainty and its parts.

    Attributes:
        accuracy: `n_correct / n`, 0 to 1; the weighted mean where rows have weights.
        n: rows that count, ties and undecidable rows among them.
        n_correct: rows that are right; half a row for each tie under `ties="half"`.
        wilson: 95% interval that takes rows as independent.
        image_interval: 95% interval that allows for images that rows share, or why there is
            none; None without the triplets.
        n_ties: rows with a margin of exactly 0; None if the answers have no margins.
        n_undecidable: rows with no margin, as of an unreadable image; None as above.
        n_ones, n_ones_correct: rows whose truth is 1, and those of them that are right.
        n_zeros, n_zeros_correct: rows whose truth is 0, and those of them that are right.
        share_of_ones: of the predictions, 0 to 1.
        n_repeats: rows that equal an earlier one; None without the triplets.
        is_unique: repeats were left out, so that `n` does not hold them.
        n_mirrored: questions asked both as (A, B, C) and (A, C, B); None without the triplets.
        n_mirrored_broken: of them, those where the two answers name different images.
        by_margin: accuracy by size of the margin, smallest first; empty without margins.
        by_anchor_frequency: accuracy by how many rows have the anchor; empty without triplets.
        ties: what a tie earned; see `credit_rows`.
        odd_one_out: how often the odd one of three was found, where there are such trials.
        n_alike: rows of equal weight that would tell as much; None where all count alike.
        votes: the agreement with the people who were asked; None without votes.
        truth: what to call the truth; None where every first image was taken for the nearer one.
    """

    accuracy: float
    n: int
    n_correct: float
    wilson: Interval
    image_interval: Interval | NoInterval | None
    n_ties: int | None
    n_undecidable: int | None
    n_ones: int
    n_ones_correct: float
    n_zeros: int
    n_zeros_correct: float
    share_of_ones: float
    n_repeats: int | None
    is_unique: bool
    n_mirrored: int | None
    n_mirrored_broken: int | None
    by_margin: list[Slice]
    by_anchor_frequency: list[Slice]
    ties: TiePolicy = "answer"
    odd_one_out: OddOneOut | None = None
    n_alike: float | None = None
    votes: VoteScore | None = None
    truth: str | None = None

    @property
    def interval(self) -> Interval:
        """The 95% interval to believe: for shared images where that can be told, else Wilson's."""
        return self.image_interval or self.wilson

    def _summary(self) -> str:
        taken = "allows for shared images" if self.image_interval else "rows taken as independent"
        return (
            f"accuracy {self.accuracy:.4f} ({self.n_correct:,g} of {self.n:,} right; 95% interval "
            f"{self.interval.low:.3f} to {self.interval.high:.3f}, {taken})"
        )

    def _sections(self) -> list[Section]:
        right = _describe_right(self.n_correct, self.n)
        if self.n_alike is not None:
            right += f"; weighted, as {self.n_alike:,.0f} rows of equal weight"
        rows = [
            ["accuracy", f"{self.accuracy:.4f}", right],
            ["95% interval", str(self.wilson), "Wilson, rows taken as independent"],
            _describe_shared_images(self.image_interval),
        ]
        for label, n, n_correct in (
            ("1", self.n_ones, self.n_ones_correct),
            ("0", self.n_zeros, self.n_zeros_correct),
        ):
            share = f"{n_correct / n:.4f}" if n else "-"
            rows.append([f"truth {label}", share, _describe_right(n_correct, n)])
        ones = f"{self.share_of_ones:.4f}"
        rows.append(["answers 1", ones, "share of ones among the answers"])
        if self.odd_one_out is not None:
            rows.append(self.odd_one_out.describe())
        rows += self._describe_counts()
        return [
            [Table(rows, has_heading=False)],
            *(self.votes._sections() if self.votes else []),
            *_show_slices(self.by_margin, "by size of the margin"),
            *_show_slices(self.by_anchor_frequency, "by rows with the same anchor"),
        ]

    def _describe_counts(self) -> list[list[str]]:
        if self.n_ties is None:
            rows = [["ties", "-", "not known: the answers have no margins"]]
        else:
            earned = _EARNED["answer" if self.ties == "answer" else "error"]
            rows = [
                ["ties", f"{self.n_ties:,}", f"both images equally near; {_EARNED[self.ties]}"],
                ["undecidable", f"{self.n_undecidable:,}", f"no margin; {earned}"],
            ]
        if self.n_repeats:
            counted = "left out" if self.is_unique else "counted again (`unique` leaves them out)"
            rows.append(["repeats", f"{self.n_repeats:,}", f"equal an earlier row; {counted}"])
        if self.n_mirrored:
            broken = f"also asked as (A, C, B); {self.n_mirrored_broken:,} answered inconsistently"
            rows.append(["mirrored", f"{self.n_mirrored:,}", broken])
        return rows


def _describe_shared_images(interval: Interval | NoInterval | None) -> list[str]:
    """Return the row of a table that has the interval which allows for shared images."""
    if interval is None:
        return ["95% interval", "-", "allows for shared images: needs the `triplets`"]
    if isinstance(interval, NoInterval):
        return ["95% interval", "-", f"allows for shared images: {interval.detail}"]
    return ["95% interval", str(interval), "allows for shared images"]


def _describe_right(n_correct: float, n: int) -> str:
    return f"{show_count(n_correct)} of {n:,} right"


def _show_slices(slices: list[Slice], title: str) -> list[Section]:
    if len(slices) < 2:
        return []
    rows = [
        [
            f"  {part.low:.4g}",
            "to",
            f"{part.high:.4g}",
            f"{part.accuracy:.4f}",
            str(wilson_interval(part.accuracy * part.n, part.n)),
            f"{part.n:,} rows",
        ]
        for part in slices
    ]
    title = f"accuracy {title}, with 95% intervals"
    return [[Table(rows, right=[0, 2, 5], has_heading=False, title=title)]]


def score_answers(
    answers: Answers,
    truth: np.ndarray,
    *,
    rows: np.ndarray | None = None,
    trials: np.ndarray | None = None,
    ties: TiePolicy = "answer",
    unique: bool = False,
    weights: np.ndarray | None = None,
) -> Score:
    """Score answers against the truth.

    Args:
        truth: `(n_triplets,)` 1 where the first image is the nearer one; rows of -1, where nobody
            can tell, do not count.
        rows: `(n_triplets, 3)` images of each question. Defaults to those that the answers hold;
            without any, what needs them is left out.
        trials: see `Triplets`. Defaults likewise.
        unique: count rows that equal an earlier one no second time.
        weights: `(n_triplets,)` how many questions each row stands for; see `weigh_values`. Parts
            are not weighted.
    Example:
        >>> answers = Answers(np.array([1, 0, 1, 1]), None, None, "answers")
        >>> score_answers(answers, np.array([1, 0, 0, 1])).accuracy
        0.75
    """
    if answers.triplets is not None:
        rows = answers.triplets.rows if rows is None else rows
        trials = answers.triplets.trials if trials is None else trials

    def keep(mask: np.ndarray) -> None:
        nonlocal answers, truth, rows, trials, weights
        answers, truth = answers.take(mask), truth[mask]
        rows, trials, weights = (
            None if each is None else each[mask] for each in (rows, trials, weights)
        )

    if not (is_decided := truth >= 0).all():
        # Where people could not tell, nothing is right or wrong.
        keep(is_decided)
    n_repeats = None
    if rows is not None:
        is_repeat = Questions.of(rows, int(rows.max()) + 1).repeats()
        n_repeats = int(is_repeat.sum())
        if unique:
            keep(~is_repeat)
    credit = credit_rows(answers, truth, ties)
    n_correct = float(credit.sum())
    values = credit if weights is None else weigh_values(credit, weights)
    n_alike = len(credit) if weights is None else effective_count(weights)
    is_one = truth == 1
    consistency = None if rows is None else check_consistency(answers, rows)
    margins = answers.margins
    return Score(
        accuracy=float(values.sum()) / len(credit),
        n=len(credit),
        n_correct=n_correct,
        wilson=wilson_interval(float(values.sum()) * n_alike / len(credit), n_alike),
        image_interval=None if rows is None else image_interval(values, rows),
        n_ties=None if margins is None else int(answers.is_tie.sum()),
        n_undecidable=None if margins is None else int(answers.is_undecidable.sum()),
        n_ones=int(is_one.sum()),
        n_ones_correct=float(credit[is_one].sum()),
        n_zeros=int((~is_one).sum()),
        n_zeros_correct=float(credit[~is_one].sum()),
        share_of_ones=float(answers.predictions.mean()),
        n_repeats=n_repeats,
        is_unique=unique,
        n_mirrored=None if consistency is None else consistency.n_mirrored,
        n_mirrored_broken=None if consistency is None else consistency.n_mirrored_broken,
        by_margin=[] if margins is None else _slice(credit, np.abs(margins)),
        by_anchor_frequency=[]
        if rows is None
        else _slice(credit, np.bincount(rows[:, 0])[rows[:, 0]]),
        ties=ties,
        odd_one_out=None if rows is None else score_odd_one_out(credit, rows, trials),
        n_alike=None if weights is None else n_alike,
    )


def credit_rows(answers: Answers, truth: np.ndarray, ties: TiePolicy = "answer") -> np.ndarray:
    """Return what each row earns, `(n_triplets,)` float64: 1 if right, 0 if wrong.

    The answer counts which stands in the file, whatever its margin. A tie, or a row with an image
    that could not be read, stands there as 0, and is right where the truth is 0, as in every
    competition that such a file is handed in to. So the same answers earn the same as a CSV and as
    labels, which do not show ties. A model that tells nothing apart earns the share of zeros; the
    number of ties, told apart, gives it away.

    Where there are margins, `"error"` and `"half"` judge ties more strictly: as wrong, or as half
    right, as a coin would be. Rows without a margin are wrong then.

    Example:
        >>> answers = Answers(np.array([1, 0, 0, 0]), np.array([0.5, -1, 0, np.nan]), None, "")
        >>> credit_rows(answers, np.array([1, 1, 0, 0]))
        array([1., 0., 1., 1.])
        >>> credit_rows(answers, np.array([1, 1, 0, 0]), ties="half")
        array([1. , 0. , 0.5, 0. ])
    """
    credit = (answers.predictions == truth).astype(np.float64)
    if ties == "answer":
        return credit
    if answers.margins is None:
        raise AnswerFileError(
            f"{answers.source}: expected margins, which tell ties from other answers, got labels "
            "alone. Count ties as the answers that they are (`ties=answer`)."
        )
    credit[answers.is_tie] = 0.5 if ties == "half" else 0
    credit[answers.is_undecidable] = 0
    return credit


def _slice(credit: np.ndarray, quantity: np.ndarray) -> list[Slice]:
    """Cut rows into parts of about equal size by a quantity, NaN left out."""
    table = pd.DataFrame({"credit": credit, "quantity": quantity}).dropna()
    if table.empty:
        return []
    part = pd.qcut(table["quantity"], _N_SLICES, labels=False, duplicates="drop")
    # Where all rows are alike there is no edge to cut at.
    parts = table.groupby(part.fillna(0))
    return [
        Slice(
            float(rows["quantity"].min()),
            float(rows["quantity"].max()),
            len(rows),
            float(rows["credit"].mean()),
        )
        for _, rows in parts
    ]


def describe_exchanged(accuracy: float, interval: Interval, whose: str) -> str | None:
    """Return a sentence where answers are so often wrong that the images seem to be exchanged."""
    if interval.high >= 0.5:
        return None
    return (
        f"{whose} are right on {accuracy:.1%} of the triplets (95% interval {interval}), less than "
        "half: the nearer and the other image seem to be exchanged. `swap=True` exchanges them, "
        "and `columns` says which column is which."
    )


def warn_of_doubt(score: Score) -> None:
    """Say that rows which tell nothing count as the 0 that they answer, or that most are wrong."""
    said = describe_exchanged(score.accuracy, score.interval, "the answers")
    if said is not None and score.n >= _FEWEST_ROWS:
        caution(said, DataWarning)
    n_silent = (score.n_ties or 0) + (score.n_undecidable or 0)
    if n_silent and score.ties == "answer":
        caution(
            f"{n_silent:,} of {score.n:,} rows do not tell the two images apart; they answer 0, "
            "and count as right where the truth is 0",
            DataWarning,
        )


def score_votes(
    answers: Answers,
    votes: Votes,
    *,
    rows: np.ndarray | None = None,
    ties: TiePolicy = "answer",
    weights: np.ndarray | None = None,
) -> VoteScore:
    """Measure how far answers agree with votes of the same rows.

    `rows`, `ties` and `weights` are as `score_answers` takes them; with `ties="half"` a tie earns
    0.5, as in the reference.

    Reference:
        Zhang, Isola, Efros, Shechtman, Wang. The unreasonable effectiveness of deep features as a
        perceptual metric. CVPR 2018. arXiv:1801.03924 (the 2AFC score).
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
        voters=_compare_voters(votes),
    )


def _compare_voters(votes: Votes) -> _VoterAgreement | None:
    """Leave out each voter in turn, and compare with the others; None where there are none.

    Reference:
        Zhang et al. 2018, as above, give p**2 + (1 - p)**2 for human performance; that counts
        a voter as one of the others too, and so flatters where few were asked.
    Example:
        Three of four say B. A voter for B agrees with 2 of 3 others, the one for C with none:
        (3 * 2/3 + 0) / 4. For each voter for B the others are 2 to 1 for B.
        >>> _compare_voters(Votes(np.array([3.]), np.array([1.])))
        _VoterAgreement(n=1, one_another=0.5, with_majority=0.75)
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
    return _VoterAgreement(
        len(votes),
        float((n_agreeing / (n * (n - 1))).mean()),
        float((n_with_majority / n).mean()),
    )


def take_majority(votes: Votes, source: str) -> tuple[np.ndarray, np.ndarray]:
    """Return what most people said, `(n,)` int8, and `(n_triplets,)` bool, which questions are not
    tied."""
    is_decided = ~votes.is_tie
    if not is_decided.any():
        raise AnswerFileError(
            f"{source}: expected a majority on at least one question, every one is tied. "
            "Only a truth file can tell."
        )
    return (~votes.is_for_second[is_decided]).astype(np.int8), is_decided

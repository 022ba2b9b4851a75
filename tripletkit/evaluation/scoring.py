"""The accuracy of answers, with what it takes to believe it, and what is wrong with them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from tripletkit import defaults
from tripletkit.data.questions import PairGraph, Questions
from tripletkit.data.triplets import Triplets, Votes
from tripletkit.errors import AnswerFileError, DataWarning, caution
from tripletkit.evaluation.answers import Answers, TiePolicy
from tripletkit.evaluation.distances import triplet_margins
from tripletkit.evaluation.intervals import (
    Interval,
    NoInterval,
    effective_count,
    image_interval,
    score_row,
    show_interval,
    weigh_values,
    wilson_interval,
)
from tripletkit.results import Result, Section, Table, show_count

# Parts that rows are cut into by margin and by anchor.
_N_SLICES = 5

# Of fewer rows nothing is said that one more could turn round.
_FEWEST_ROWS = 10

# What a tie earned; see `Answers.credit`.
_EARNED = {"answer": "counted as answer 0", "error": "counted as wrong", "half": "counted as half"}


@dataclass(frozen=True)
class _Consistency:
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

    @classmethod
    def of(cls, answers: Answers, triplets: Triplets) -> _Consistency:
        """Ties, rows without a margin, and rows that name one image twice are no answers."""
        decided = np.flatnonzero(_says_something(answers, triplets))
        questions = Questions.of(triplets.rows[decided], len(triplets.names))
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
        return cls(
            n_mirrored=int(is_both_ways.sum()),
            n_mirrored_broken=int((is_both_ways & is_split).sum()),
            n_repeated=int(is_repeated.sum()),
            n_repeated_broken=int(is_repeat_broken.sum()),
            broken_rows=decided[is_broken_row],
        )


def _says_something(answers: Answers, triplets: Triplets) -> np.ndarray:
    return ~(answers.is_tie | answers.is_undecidable | triplets.is_degenerate())


def _has_both(votes: np.ndarray, questions: Questions) -> np.ndarray:
    """Return `(n_questions,)` bool: its votes are neither all True nor all False."""
    n_rows = np.bincount(questions.of_row, minlength=questions.n_questions)
    n_true = np.bincount(questions.of_row, votes, questions.n_questions)
    return (n_true > 0) & (n_true < n_rows)


@dataclass(frozen=True)
class Slice:
    """The accuracy of a part of the rows.

    Attributes:
        low, high: of the size of the margin, or of the number of rows with the same anchor, both
            ends included.
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
        wilson, image_interval: see `Score`, of trials instead of rows.
    """

    n: int
    accuracy: float
    wilson: Interval
    image_interval: Interval | NoInterval

    @classmethod
    def of(
        cls, credit: np.ndarray, rows: np.ndarray, trials: np.ndarray | None
    ) -> OddOneOut | None:
        """Count the odd one of a trial as found where both of its triplets are right, `credit` 1.

        Trials (see `Triplets`) that are not of two rows over the same images do not count.

        Reference:
            Hebart, Zheng, Pereira, Baker. Nature Human Behaviour 2020.
            doi:10.1038/s41562-020-00951-3.
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
        return cls(
            len(found),
            float(found.mean()),
            wilson_interval(float(found.sum()), len(found)),
            image_interval(found, rows[first]),
        )

    def describe(self) -> list[str]:
        """Return the row of a table that says it."""
        interval = self.image_interval or self.wilson
        found = f"{show_count(self.accuracy * self.n)} of {self.n:,} found"
        return ["odd one out", f"{self.accuracy:.4f}", f"{found}, 95% {interval}; chance 0.3333"]


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
class _VoteScore(Result):
    """The agreement of answers with votes, and what it must be compared with.

    Attributes:
        n: questions.
        n_tied: of them, with as many votes for one image as for the other.
        mean_votes: votes on a question, on average; None where only shares are known.
        agreement: mean share of voters who say what the answer says, 0 to 1.
        wilson, image_interval: see `Score`. Wilson's is meant for right and wrong; shares vary
            less, so it is rather too wide.
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

    def _beside(self, frozen: _VoteScore) -> Table:
        """Return the agreement of trained embeddings beside that of frozen features."""
        rows = [["votes", "agreement", "95% interval", "shared images", "triplets"]]
        for name, each in (("trained embeddings", self), ("frozen features, cosine", frozen)):
            shared = show_interval(each.image_interval)
            rows.append(score_row(name, each.agreement, each.wilson, shared, each.n))
        rows.append(["ceiling: the majority", f"{self.ceiling:.4f}", "", "", f"{self.n:,}"])
        if (voters := self.voters) is not None:
            rows += [
                [f"a voter with {whom}", f"{value:.4f}", "", "", f"{voters.n:,}"]
                for whom, value in (
                    ("most others", voters.with_majority),
                    ("another", voters.one_another),
                )
            ]
        return Table(rows, right=[1, 4])


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
        ties: what a tie earned; see `Answers.credit`.
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
    votes: _VoteScore | None = None
    truth: str | None = None

    @classmethod
    def of(
        cls,
        answers: Answers,
        truth: np.ndarray,
        *,
        ties: TiePolicy = "answer",
        unique: bool = False,
        weights: np.ndarray | None = None,
    ) -> Score:
        """Score answers; without their triplets, what needs these is left out.

        Args:
            truth: `(n_triplets,)` 1 where the first image is the nearer one; rows of -1, where
                nobody can tell, do not count.
            unique: count rows that equal an earlier one no second time.
            weights: `(n_triplets,)` how many questions each row stands for; see `weigh_values`.
                Parts are not weighted.
        """
        kept = np.flatnonzero(truth >= 0)
        n_repeats = None
        if (triplets := answers.triplets) is not None:
            is_repeat = Questions.of(triplets.rows[kept], len(triplets.names)).repeats()
            n_repeats = int(is_repeat.sum())
            kept = kept[~is_repeat] if unique else kept
        if not len(kept):
            raise AnswerFileError(
                f"{answers.source}: expected an answer whose truth is known, got none"
            )
        answers, truth = answers.take(kept), truth[kept]
        weights = None if weights is None else weights[kept]
        credit, triplets, margins = answers.credit(truth, ties), answers.triplets, answers.margins
        values = credit if weights is None else weigh_values(credit, weights)
        n_alike = len(credit) if weights is None else effective_count(weights)
        is_one = truth == 1
        by_anchor_frequency: list[Slice] = []
        by_images = consistency = odd_one_out = None
        if triplets is not None:
            anchors = triplets.rows[:, 0]
            by_anchor_frequency = _slice(credit, np.bincount(anchors)[anchors])
            by_images = image_interval(values, triplets.rows)
            consistency = _Consistency.of(answers, triplets)
            odd_one_out = OddOneOut.of(credit, triplets.rows, triplets.trials)
        return cls(
            accuracy=float(values.sum()) / len(credit),
            n=len(credit),
            n_correct=float(credit.sum()),
            wilson=wilson_interval(float(values.sum()) * n_alike / len(credit), n_alike),
            image_interval=by_images,
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
            by_anchor_frequency=by_anchor_frequency,
            ties=ties,
            odd_one_out=odd_one_out,
            n_alike=None if weights is None else n_alike,
        )

    @classmethod
    def of_margins(
        cls, margins: np.ndarray, triplets: Triplets, votes: Votes | None = None
    ) -> Score:
        """Score margins, above 0 where the positive is nearer, and their agreement with votes."""
        answers = Answers.from_margins(margins, triplets, triplets.source)
        score = cls.of(answers, np.ones(len(triplets), dtype=np.int8))
        return score if votes is None else replace(score, votes=score_votes(answers, votes))

    @classmethod
    def of_embeddings(cls, embeddings: np.ndarray, triplets: Triplets, distance: str) -> Score:
        """Score embeddings on triplets over their images: anchor, positive, negative."""
        return cls.of_margins(triplet_margins(embeddings, triplets.rows, distance), triplets)

    def warn_of_doubt(self) -> None:
        """Say that rows which tell nothing count as the 0 they answer, or that most are wrong."""
        said = describe_exchanged(self.accuracy, self.interval, "the answers")
        if said is not None and self.n >= _FEWEST_ROWS:
            caution(said, DataWarning)
        n_silent = (self.n_ties or 0) + (self.n_undecidable or 0)
        if n_silent and self.ties == "answer":
            caution(
                f"{n_silent:,} of {self.n:,} rows do not tell the two images apart; they answer "
                "0, and count as right where the truth is 0",
                DataWarning,
            )

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


def score_votes(
    answers: Answers,
    votes: Votes,
    *,
    ties: TiePolicy = "answer",
    weights: np.ndarray | None = None,
) -> _VoteScore:
    """Measure how far answers agree with votes of the same rows.

    `ties` and `weights` are as `Score.of` takes them; with `ties="half"` a tie earns 0.5, as in the
    reference.

    Reference:
        Zhang, Isola, Efros, Shechtman, Wang. The unreasonable effectiveness of deep features as a
        perceptual metric. CVPR 2018. arXiv:1801.03924 (the 2AFC score).
    """
    triplets, share = answers.triplets, votes.share
    if_first, if_second = (answers.credit(np.full(len(votes), label), ties) for label in (1, 0))
    agreeing, largest = if_first * share + if_second * (1 - share), np.maximum(share, 1 - share)
    n_alike: float = len(votes)
    if weights is not None:
        n_alike = effective_count(weights)
        agreeing, largest = weigh_values(agreeing, weights), weigh_values(largest, weights)
    return _VoteScore(
        n=len(votes),
        n_tied=int(votes.is_tie.sum()),
        mean_votes=float(votes.n_each.mean()) if votes.are_counts else None,
        agreement=float(agreeing.mean()),
        wilson=wilson_interval(float(agreeing.sum()) * n_alike / len(votes), n_alike),
        image_interval=None if triplets is None else image_interval(agreeing, triplets.rows),
        ceiling=float(largest.mean()),
        voters=_compare_voters(votes),
    )


def _compare_voters(votes: Votes) -> _VoterAgreement | None:
    """Leave out each voter in turn, and compare with the others; None where there are none.

    Reference:
        Zhang et al. 2018, as above, give p**2 + (1 - p)**2 for human performance; that counts
        a voter as one of the others too, and so flatters where few were asked.
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


@dataclass(frozen=True, repr=False)
class AnswerChecks(Result):
    """What was found in an answer file.

    Attributes:
        n: rows.
        n_ones: answers that are 1.
        share_of_ones: 0 to 1; near 0.5 where the two images are asked in chance order.
        share_interval: its 95% Wilson interval.
        n_ties, n_undecidable: rows with margin 0, and with none; None without margins.
        n_margin_conflicts: rows whose prediction is not the sign of their margin; None as above.
        consistency: how questions that were asked more than once were answered.
        n_knots: groups of answers that go round in circles (AB < AC, AC < CD, CD < AB), so that
            no distances can satisfy them all.
        cycle_rows: indices of the rows within the knots.
        examples: for the first knots, indices of the rows of one shortest circle.
        agreements: the share of rows with the same answer, by the name of another answer file.
        triplets: that were answered.
    """

    n: int
    n_ones: int
    share_of_ones: float
    share_interval: Interval
    n_ties: int | None
    n_undecidable: int | None
    n_margin_conflicts: int | None
    consistency: _Consistency
    n_knots: int
    cycle_rows: np.ndarray
    examples: list[np.ndarray]
    agreements: list[tuple[str, float]]
    triplets: Triplets | None

    @classmethod
    def of(cls, answers: Answers, triplets: Triplets, others: list[Answers]) -> AnswerChecks:
        """Check answers to triplets in their order, and compare them with other answers."""
        answers._check_questions(triplets)
        for other in others:
            other._check_length(len(triplets), triplets.source)
        # As judgements: anchor, nearer image, other image.
        of_row = np.flatnonzero(_says_something(answers, triplets))
        implied = triplets.rows[of_row].copy()
        is_swapped = answers.predictions[of_row] == 0
        implied[is_swapped, 1:] = implied[is_swapped, :0:-1]
        graph = PairGraph.of(implied, len(triplets.names))
        n_knots, inside, examples = graph.find_cycles(defaults.AUDIT_EXAMPLES)
        n_ties = n_undecidable = n_conflicts = None
        if answers.margins is not None:
            is_known = ~answers.is_undecidable
            n_ties, n_undecidable = int(answers.is_tie.sum()), int((~is_known).sum())
            conflicts = (answers.margins > 0) != (answers.predictions == 1)
            n_conflicts = int(conflicts[is_known].sum())
        n_ones = int(answers.predictions.sum())
        return cls(
            n=len(answers),
            n_ones=n_ones,
            share_of_ones=n_ones / len(answers),
            share_interval=wilson_interval(n_ones, len(answers)),
            n_ties=n_ties,
            n_undecidable=n_undecidable,
            n_margin_conflicts=n_conflicts,
            consistency=_Consistency.of(answers, triplets),
            n_knots=n_knots,
            cycle_rows=of_row[inside],
            examples=[of_row[example] for example in examples],
            agreements=[
                (other.source, float((other.predictions == answers.predictions).mean()))
                for other in others
            ],
            triplets=triplets,
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the findings as JSON takes them. Of broken rows and rows within knots it gives how
        many there are; those of the examples are counted from 1."""
        consistency = self.consistency
        plain = Result.to_dict(replace(self, triplets=None))
        del plain["triplets"]
        return plain | {
            "consistency": vars(consistency) | {"broken_rows": len(consistency.broken_rows)},
            "cycle_rows": len(self.cycle_rows),
            "examples": [(rows + 1).tolist() for rows in self.examples],
            "agreements": [{"source": name, "share": share} for name, share in self.agreements],
        }

    def _summary(self) -> str:
        return (
            f"{self.n:,} rows, {self.share_of_ones:.1%} of them 1, {self.n_knots:,} groups that "
            "no distances can satisfy"
        )

    def _sections(self) -> list[Section]:
        assert self.triplets is not None
        consistency, source, at = self.consistency, self.triplets.source, self.triplets.lines
        rows = [
            ["rows", f"{self.n:,}", f"as many as {source} asks"],
            [
                "answers 1",
                f"{self.share_of_ones:.4f}",
                f"95% interval {self.share_interval}; about 0.5 where the two images stand in "
                "chance order",
            ],
            [
                "mirrored",
                f"{consistency.n_mirrored:,}",
                "questions also asked as (A, C, B); "
                f"{consistency.n_mirrored_broken:,} answered inconsistently",
            ],
            [
                "repeated",
                f"{consistency.n_repeated:,}",
                "rows asked several times; "
                f"{consistency.n_repeated_broken:,} answered inconsistently",
            ],
            [
                "circles",
                f"{self.n_knots:,}",
                f"groups of answers that no distances can satisfy, {len(self.cycle_rows):,} rows",
            ],
        ]
        if self.n_ties is not None:
            conflicts = f"{self.n_margin_conflicts:,}"
            rows += [
                ["ties", f"{self.n_ties:,}", "both images equally near"],
                ["undecidable", f"{self.n_undecidable:,}", "no margin"],
                ["conflicts", conflicts, "prediction is not the margin's sign"],
            ]
        rows += [["agreement", f"{share:.4f}", f"with {name}"] for name, share in self.agreements]
        circles = [
            f"  a circle: lines {', '.join(str(at[row]) for row in example)} of {source}"
            for example in self.examples
        ]
        return [[Table(rows, has_heading=False), *circles]]

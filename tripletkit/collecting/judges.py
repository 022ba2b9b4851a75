"""What can be said of judges: speed, agreement with themselves and each other, and care."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

from tripletkit.data.judgement_files import CANT_TELL, FIRST, GOLD, GRID, LEFT, RIGHT, Answer
from tripletkit.evaluation.intervals import wilson_interval
from tripletkit.results import Result, Section, Table

# Nobody looks at three images and chooses in less.
FAST_MS = 500
# From which on something is said of a judge, and from how many cases on.
MAX_FAST_SHARE, MIN_TIMED = 0.2, 20
MIN_CONSISTENCY, MIN_REPEATS = 0.7, 8
MIN_AGREEMENT, MIN_SHARED = 0.6, 20
MAX_SIDE_SHARE, MAX_SIDE_CHANCE = 0.65, 0.001
MAX_GOLD_SHARE, MIN_GOLD = 1 / 3, 3
MAX_CANT_TELL, MIN_ANSWERS = 0.6, 20
# So much more often than the judge in the middle; where all cannot tell, the questions are hard.
MORE_CANT_TELL = 0.2

# Anchor, and the two others in no order.
Question = tuple[str, frozenset[str]]


@dataclass(frozen=True)
class Share:
    """So many of so many.

    Example:
        >>> str(Share(9, 12))
        '9 of 12'
    """

    n: int
    of: int

    @property
    def value(self) -> float | None:
        return self.n / self.of if self.of else None

    @property
    def percent(self) -> str:
        return "-" if self.value is None else f"{self.value:.0%}"

    @property
    def high(self) -> float:
        """The upper end of the 95% interval."""
        return wilson_interval(self.n, self.of).high if self.of else 1.0

    def __str__(self) -> str:
        return f"{self.n} of {self.of}"


@dataclass(frozen=True)
class JudgeReport:
    """What can be said of one judge.

    Attributes:
        n_screens: answered screens.
        cant_tell: share of them without a choice.
        median_ms: response time; None if it was never measured.
        fast: share of answers faster than `FAST_MS`.
        consistency: repeated questions answered the same way.
        agreement: questions answered by another judge too, and the same way, over all others.
        left: share of choices on the left.
        gold: gold questions answered wrongly.
        reasons: why the judge looks careless; empty if nothing does.
    """

    name: str
    n_screens: int
    cant_tell: Share
    median_ms: float | None
    fast: Share
    consistency: Share
    agreement: Share
    left: Share
    gold: Share
    reasons: list[str] = field(default_factory=list)


@dataclass(frozen=True, repr=False)
class JudgesReport(Result):
    """What can be said of all judges.

    Attributes:
        judges: in the order of their first answer.
        pairs: of two judges, the questions both answered, and the same way.
        alpha: Krippendorff's, over questions that several judges answered; None where there
            are none, or all said the same.
        n_shared: how many questions these are.
    """

    judges: list[JudgeReport]
    pairs: dict[tuple[str, str], Share]
    alpha: float | None
    n_shared: int

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON takes it."""
        return {
            "judges": [asdict(judge) for judge in self.judges],
            "pairs": [
                {"judges": list(names), **asdict(share)} for names, share in self.pairs.items()
            ],
            "krippendorff_alpha": self.alpha,
            "n_shared": self.n_shared,
        }

    def to_frame(self) -> pd.DataFrame:
        """Return a table with a row for each judge; shares are 0 to 1, empty where not known."""
        return pd.DataFrame(
            {
                "name": judge.name,
                "n_screens": judge.n_screens,
                "median_ms": judge.median_ms,
                **{name: getattr(judge, name).value for name in _SHARES},
                "reasons": "; ".join(judge.reasons),
            }
            for judge in self.judges
        )

    def _summary(self) -> str:
        careless = [judge.name for judge in self.judges if judge.reasons]
        return f"{len(self.judges):,} judges" + (
            f", {', '.join(careless)} look careless" if careless else ", none looks careless"
        )

    def _sections(self) -> list[Section]:
        rows = [["judge", "answers", "seconds", "can't tell"]]
        rows[0] += ["same again", "agrees", "left", "gold wrong"]
        rows += [
            [
                judge.name,
                f"{judge.n_screens:,}",
                "-" if judge.median_ms is None else f"{judge.median_ms / 1000:.1f}",
                *(getattr(judge, name).percent for name in _SHARES),
            ]
            for judge in self.judges
        ]
        sections: list[Section] = [[Table(rows, right=range(1, 8))]]
        if self.n_shared:
            lines = [f"{self.n_shared:,} questions were answered by several judges."]
            if self.alpha is not None:
                lines.append(
                    f"Krippendorff's alpha {self.alpha:.3f} (1: perfect agreement, 0: as guessed)"
                )
            pairs = [
                [f"{a} and {b}", share.percent, f"of {share.of:,}"]
                for (a, b), share in self.pairs.items()
                if share.of
            ]
            same = Table(pairs, right=[1], has_heading=False, title="same answer")
            sections += [lines, [same]]
        else:
            sections.append(
                ["No question was answered by two judges; an overlap of 2 asks each of two."]
            )
        careless = [
            f"{judge.name} looks careless: {'; '.join(judge.reasons)}"
            for judge in self.judges
            if judge.reasons
        ]
        return [*sections, careless] if careless else sections


# Of `JudgeReport`, in the order of the table.
_SHARES = ("cant_tell", "consistency", "agreement", "left", "gold")


def report_judges(
    answers: Sequence[Answer], gold: Mapping[tuple[str, str, str], None] | None = None
) -> JudgesReport:
    """Report on judges.

    Args:
        answers: of all of them.
        gold: triplets (anchor, positive, negative) whose answer is known, beside those that the
            collection itself asked as such.
    """
    truth = _find_truth(answers, gold or {})
    chosen: dict[str, dict[Question, list[str | None]]] = defaultdict(lambda: defaultdict(list))
    of_judge: dict[str, list[Answer]] = defaultdict(list)
    for answer in answers:
        of_judge[answer.judge].append(answer)
        chosen[answer.judge][question_of(answer)].append(chosen_of(answer))
    # For agreement a judge's first answer counts; a repeat may remember it.
    first = {
        judge: {question: each[0] for question, each in of.items() if each[0] is not None}
        for judge, of in chosen.items()
    }
    pairs = {(a, b): _compare(first[a], first[b]) for a, b in combinations(of_judge, 2)}
    reports = []
    for judge, given in of_judge.items():
        with_others = [share for names, share in pairs.items() if judge in names]
        agreement = Share(sum(s.n for s in with_others), sum(s.of for s in with_others))
        reports.append(_report_one(judge, given, chosen[judge], agreement, truth))
    usual = statistics.median(r.cant_tell.value for r in reports) if len(reports) > 1 else 0.0
    for report in reports:
        report.reasons.extend(_find_reasons(report, usual))
    alpha, n_shared = krippendorff_alpha(first)
    return JudgesReport(reports, pairs, alpha, n_shared)


def question_of(answer: Answer) -> Question:
    """Return what was asked, whichever way round."""
    anchor, first, second = answer.triplet
    return anchor, frozenset((first, second))


def chosen_of(answer: Answer) -> str | None:
    """Return the name of the image that was chosen, if any was."""
    if answer.choice == CANT_TELL:
        return None
    return answer.triplet[1] if answer.choice == FIRST else answer.triplet[2]


def krippendorff_alpha(
    chosen: Mapping[str, Mapping[Question, str]],
) -> tuple[float | None, int]:
    """Return Krippendorff's alpha for nominal data, and over how many questions it is.

    Args:
        chosen: for each judge, the image chosen of each question.
    Reference:
        Krippendorff. Content Analysis. 4th edition, 2018, chapter 12.
    """
    questions: dict[Question, int] = defaultdict(int)
    for of in chosen.values():
        for question in of:
            questions[question] += 1
    shared = [question for question, n in questions.items() if n > 1]
    if not shared:
        return None, 0
    # Which of the two it was: the same number means the same image within a question.
    ratings = np.full((len(chosen), len(shared)), np.nan)
    for row, of in enumerate(chosen.values()):
        for column, question in enumerate(shared):
            if question in of:
                ratings[row, column] = sorted(question[1]).index(of[question])
    if len(np.unique(ratings[~np.isnan(ratings)])) < 2:
        return None, len(shared)
    from krippendorff import alpha

    return float(alpha(reliability_data=ratings, level_of_measurement="nominal")), len(shared)


def _report_one(
    judge: str,
    answers: Sequence[Answer],
    chosen: Mapping[Question, Sequence[str | None]],
    agreement: Share,
    truth: Mapping[Question, str],
) -> JudgeReport:
    # A grid implies many triplets and is one screen.
    screens = list({answer.screen: answer for answer in answers}.values())
    times = [answer.response_ms for answer in screens if answer.response_ms > 0]
    sides = [answer.side for answer in screens]
    repeated = [
        [name for name in each if name is not None] for each in chosen.values() if len(each) > 1
    ]
    again = [(names[0], name) for names in repeated for name in names[1:]]
    on_gold = [each[0] == truth[question] for question, each in chosen.items() if question in truth]
    return JudgeReport(
        judge,
        len(screens),
        Share(sum(a.choice == CANT_TELL for a in screens), len(screens)),
        statistics.median(times) if times else None,
        Share(sum(time < FAST_MS for time in times), len(times)),
        Share(sum(a == b for a, b in again), len(again)),
        agreement,
        Share(sides.count(LEFT), sides.count(LEFT) + sides.count(RIGHT)),
        Share(on_gold.count(False), len(on_gold)),
    )


def _find_reasons(report: JudgeReport, usual_cant_tell: float) -> list[str]:
    from scipy.stats import binomtest

    reasons = []
    if report.fast.of >= MIN_TIMED and report.fast.n > MAX_FAST_SHARE * report.fast.of:
        reasons.append(f"{report.fast} answers took less than {FAST_MS / 1000:g} s")
    if report.consistency.of >= MIN_REPEATS and report.consistency.high < MIN_CONSISTENCY:
        reasons.append(f"{report.consistency} repeated questions were answered as before")
    if report.agreement.of >= MIN_SHARED and report.agreement.high < MIN_AGREEMENT:
        reasons.append(f"{report.agreement} answers agree with other judges")
    if report.left.of >= MIN_ANSWERS:
        chance = binomtest(report.left.n, report.left.of).pvalue
        larger = max(report.left.n, report.left.of - report.left.n)
        if chance < MAX_SIDE_CHANCE and larger > MAX_SIDE_SHARE * report.left.of:
            side = LEFT if larger == report.left.n else RIGHT
            reasons.append(f"{larger} of {report.left.of} choices are on the {side}")
    if report.gold.of >= MIN_GOLD and report.gold.n >= MAX_GOLD_SHARE * report.gold.of:
        reasons.append(f"{report.gold} gold questions were answered wrongly")
    n = report.cant_tell
    most = max(MAX_CANT_TELL, usual_cant_tell + MORE_CANT_TELL)
    if n.of >= MIN_ANSWERS and n.n > most * n.of:
        reasons.append(f"{n} answers are “can’t tell”")
    return reasons


def _find_truth(
    answers: Sequence[Answer], gold: Mapping[tuple[str, str, str], None]
) -> dict[Question, str]:
    truth = {(a, frozenset((b, c))): b for a, b, c in gold}
    for answer in answers:
        if answer.how == GOLD and answer.side != GRID:
            truth[question_of(answer)] = answer.triplet[1]
    return truth


def _compare(ours: Mapping[Question, str], theirs: Mapping[Question, str]) -> Share:
    both = ours.keys() & theirs.keys()
    return Share(sum(ours[question] == theirs[question] for question in both), len(both))

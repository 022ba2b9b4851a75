"""What can be said of judges: speed, agreement with themselves and each other, and care."""

from __future__ import annotations

import statistics
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

from tripletkit.collecting.study import shorten_setting
from tripletkit.data.judgement_files import CANT_TELL, FIRST, GOLD, LEFT, RIGHT, SECOND, Answer
from tripletkit.evaluation.intervals import (
    Interval,
    NoInterval,
    krippendorff_alpha,
    wilson_interval,
)
from tripletkit.results import Result, Section, Table, plain_values

# Nobody looks at three images and chooses in less.
_FAST_MS = 500
# From which on something is said of a judge, and from how many cases on.
_MAX_FAST_SHARE, _MIN_TIMED = 0.2, 20
_MIN_CONSISTENCY, _MIN_REPEATS = 0.7, 8
_MIN_AGREEMENT, _MIN_SHARED = 0.6, 20
_MAX_SIDE_SHARE, _MAX_SIDE_CHANCE = 0.65, 0.001
_MAX_GOLD_SHARE, _MIN_GOLD = 1 / 3, 3
_MAX_CANT_TELL, _MIN_ANSWERS = 0.6, 20
# So much more often than the judge in the middle; where all cannot tell, the questions are hard.
_MORE_CANT_TELL = 0.2


@dataclass(frozen=True)
class _Share:
    """So many of so many, with Wilson's 95% interval; of nothing there is none."""

    n: int
    of: int
    interval: Interval | None = field(init=False)

    def __post_init__(self) -> None:
        interval = wilson_interval(self.n, self.of) if self.of else None
        object.__setattr__(self, "interval", interval)

    @property
    def value(self) -> float | None:
        return self.n / self.of if self.of else None

    @property
    def percent(self) -> str:
        if self.interval is None:
            return "-"
        low, high = self.interval.to_list()
        return f"{self.n / self.of:.0%} ({100 * low:.0f} to {100 * high:.0f})"

    def is_below(self, bound: float) -> bool:
        """Return whether the true share surely is."""
        return self.interval is not None and self.interval.high < bound

    def __str__(self) -> str:
        return f"{self.n} of {self.of}"


@dataclass(frozen=True)
class _JudgeReport:
    """What can be said of one judge.

    Attributes:
        cant_tell: share of the answered screens without a choice.
        median_ms: response time; None if it was never measured.
        fast: share of answers faster than half a second.
        consistency: repeated questions answered the same way.
        agreement: questions answered by another judge too, and the same way, over all others.
        gold: gold questions answered wrongly.
        reasons: why the judge looks careless.
    """

    name: str
    n_screens: int
    cant_tell: _Share
    median_ms: float | None
    fast: _Share
    consistency: _Share
    agreement: _Share
    left: _Share
    gold: _Share
    reasons: list[str] = field(default_factory=list)


@dataclass(frozen=True, repr=False)
class JudgesReport(Result):
    """What can be said of all judges.

    Attributes:
        judges: in the order of their first answer.
        pairs: of two judges, the questions both answered, and the same way.
        alpha: Krippendorff's, over the `n_shared` questions that several judges answered; None
            where there are none, or all said the same.
        alpha_interval: 95%, of questions drawn again; why there is none where they are too few, or
            too few of them were answered differently; None without alpha.
        study: what the collection was last started with.
    """

    judges: list[_JudgeReport]
    pairs: dict[tuple[str, str], _Share]
    alpha: float | None
    alpha_interval: Interval | NoInterval | None
    n_shared: int
    study: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON takes it."""
        interval = self.alpha_interval
        return {
            "judges": plain_values(self.judges),
            "pairs": [
                {"judges": list(names), **plain_values(share)}
                for names, share in self.pairs.items()
            ],
            "krippendorff_alpha": self.alpha,
            "krippendorff_interval": interval.to_list() if isinstance(interval, Interval) else None,
            "n_shared": self.n_shared,
            "study": {key: value for key, value in self.study.items() if key != "words"},
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
        rows = ["judge,answers,seconds,can't tell,same again,agrees,left,gold wrong".split(",")]
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
            are_shared = "question was" if self.n_shared == 1 else "questions were"
            lines = [f"{self.n_shared:,} {are_shared} answered by several judges."]
            if self.alpha is not None:
                told = f"95% interval {self.alpha_interval}, for other questions of the kind"
                if isinstance(self.alpha_interval, NoInterval):
                    told = self.alpha_interval.detail
                lines.append(
                    f"Krippendorff's alpha {self.alpha:.3f} (1: perfect agreement, 0: as guessed); "
                    f"{told}."
                )
            pairs = [
                [f"{a} and {b}", share.percent, f"of {share.of:,}"]
                for (a, b), share in self.pairs.items()
                if share.of
            ]
            sections += [lines, [Table(pairs, right=[1], has_heading=False, title="same answer")]]
        else:
            sections.append(
                ["No question was answered by two judges; an overlap of 2 asks each of two."]
            )
        if careless := [judge for judge in self.judges if judge.reasons]:
            sections.append([f"{j.name} looks careless: {'; '.join(j.reasons)}" for j in careless])
        settings = {key: value for key, value in self.study.items() if key != "words" and value}
        if asked := [[f"{key}:", shorten_setting(value)] for key, value in settings.items()]:
            sections.append([Table(asked, has_heading=False, title="How it was asked")])
        return sections


# Of `_JudgeReport`, in the order of the table.
_SHARES = ("cant_tell", "consistency", "agreement", "left", "gold")


def report_judges(
    answers: Sequence[Answer],
    gold: Collection[tuple[str, str, str]] = (),
    study: Mapping[str, Any] | None = None,
) -> JudgesReport:
    """Report on judges; `gold` are triplets with a known answer beside those that were asked so."""
    table = _tabulate(answers, gold)
    names = table["judge"].unique().tolist()
    # For agreement a judge's first answer counts; a repeat may remember it.
    first = table.drop_duplicates(["judge", "question"]).dropna(subset="chosen")
    shared = first[first["question"].duplicated(keep=False)]
    chosen = shared.pivot(index="judge", columns="question", values="chosen").reindex(names)
    codes = chosen.to_numpy(dtype=float)
    alike = [(codes == code).astype(int) for code in (0, 1)]
    same = sum(each @ each.T for each in alike)
    both = sum(alike) @ sum(alike).T
    pairs = {
        (names[a], names[b]): _Share(int(same[a, b]), int(both[a, b]))
        for a, b in combinations(range(len(names)), 2)
    }
    reports = []
    for place, (name, given) in enumerate(table.groupby("judge", sort=False)):
        agreement = _Share(
            int(same[place].sum() - same[place, place]), int(both[place].sum() - both[place, place])
        )
        reports.append(_report_one(str(name), given, agreement))
    usual = statistics.median(r.cant_tell.value or 0 for r in reports) if len(reports) > 1 else 0.0
    for report in reports:
        report.reasons.extend(_find_reasons(report, usual))
    alpha, interval = krippendorff_alpha(codes)
    return JudgesReport(reports, pairs, alpha, interval, codes.shape[1], dict(study or {}))


def _tabulate(answers: Sequence[Answer], gold: Collection[tuple[str, str, str]]) -> pd.DataFrame:
    """Return answers with their question as a number; `chosen` and `truth` are 0 or 1 by the order
    of the images' names, NaN where nobody knows."""
    truth = {(a, *sorted((b, c))): float(b > c) for a, b, c in gold}
    numbers: dict[tuple[str, ...], int] = {}
    rows = []
    for answer in answers:
        anchor, first, second = answer.triplet
        question = (anchor, *sorted((first, second)))
        is_turned = float(first > second)
        if answer.how == GOLD:
            truth[question] = is_turned
        chosen = {FIRST: is_turned, SECOND: 1 - is_turned, CANT_TELL: np.nan}[answer.choice]
        number = numbers.setdefault(question, len(numbers))
        rows.append((answer.judge, number, chosen, answer.screen, answer.side, answer.response_ms))
    columns = ["judge", "question", "chosen", "screen", "side", "response_ms"]
    table = pd.DataFrame(rows, columns=columns)
    known = pd.Series([truth.get(question, np.nan) for question in numbers], dtype=float)
    return table.assign(truth=table["question"].map(known))


def _report_one(name: str, answers: pd.DataFrame, agreement: _Share) -> _JudgeReport:
    # A grid implies many triplets and is one screen.
    screens = answers.drop_duplicates("screen")
    times = screens["response_ms"][screens["response_ms"] > 0]
    told = answers.dropna(subset="chosen")
    is_first = ~told["question"].duplicated()
    is_same = told["chosen"] == told.groupby("question")["chosen"].transform("first")
    asked = answers.drop_duplicates("question").dropna(subset="truth")
    n_left, n_right = (int((screens["side"] == side).sum()) for side in (LEFT, RIGHT))
    return _JudgeReport(
        name,
        len(screens),
        _Share(int(screens["chosen"].isna().sum()), len(screens)),
        float(times.median()) if len(times) else None,
        _Share(int((times < _FAST_MS).sum()), len(times)),
        _Share(int(is_same[~is_first].sum()), int((~is_first).sum())),
        agreement,
        _Share(n_left, n_left + n_right),
        _Share(int((asked["chosen"] != asked["truth"]).sum()), len(asked)),
    )


def _find_reasons(report: _JudgeReport, usual_cant_tell: float) -> list[str]:
    from scipy.stats import binomtest

    reasons = []
    if report.fast.of >= _MIN_TIMED and report.fast.n > _MAX_FAST_SHARE * report.fast.of:
        reasons.append(f"{report.fast} answers took less than {_FAST_MS / 1000:g} s")
    if report.consistency.of >= _MIN_REPEATS and report.consistency.is_below(_MIN_CONSISTENCY):
        reasons.append(f"{report.consistency} repeated questions were answered as before")
    if report.agreement.of >= _MIN_SHARED and report.agreement.is_below(_MIN_AGREEMENT):
        reasons.append(f"{report.agreement} answers agree with other judges")
    if report.left.of >= _MIN_ANSWERS:
        chance = binomtest(report.left.n, report.left.of).pvalue
        larger = max(report.left.n, report.left.of - report.left.n)
        if chance < _MAX_SIDE_CHANCE and larger > _MAX_SIDE_SHARE * report.left.of:
            side = LEFT if larger == report.left.n else RIGHT
            reasons.append(f"{larger} of {report.left.of} choices are on the {side}")
    if report.gold.of >= _MIN_GOLD and report.gold.n >= _MAX_GOLD_SHARE * report.gold.of:
        reasons.append(f"{report.gold} gold questions were answered wrongly")
    n = report.cant_tell
    most = max(_MAX_CANT_TELL, usual_cant_tell + _MORE_CANT_TELL)
    if n.of >= _MIN_ANSWERS and n.n > most * n.of:
        reasons.append(f"{n} answers are “can’t tell”")
    return reasons

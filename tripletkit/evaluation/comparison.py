"""Which of several answer files is better, and whether this many triplets can tell."""

from __future__ import annotations

import csv
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

from tripletkit.data.names import guard_formula
from tripletkit.data.outputs import Destination, open_output
from tripletkit.data.triplets import Triplets, Truth
from tripletkit.errors import DataWarning
from tripletkit.evaluation.answer_checks import check_same_questions
from tripletkit.evaluation.answers import Answers
from tripletkit.evaluation.intervals import (
    ImageSpread,
    Interval,
    NoInterval,
    describe_for_json,
    image_interval,
    measure_image_spread,
    show_interval,
    wilson_interval,
)
from tripletkit.evaluation.scoring import OddOneOut, describe_exchanged, score_odd_one_out
from tripletkit.results import Result, Section, Table


def find_questions(entries: Sequence[Answers], triplets: Triplets | None) -> Triplets | None:
    """Take these triplets, else those of the first answers that hold any; check them all.

    Raises:
        AnswerFileError: if answers are to other questions.
    """
    if triplets is None:
        triplets = next((answers.triplets for answers in entries if answers.triplets), None)
    if triplets is not None:
        for answers in entries:
            check_same_questions(answers, triplets)
    return triplets


def write_differing_rows(
    destination: Destination, entries: Sequence[Answers], truth: Truth, triplets: Triplets | None
) -> int:
    """Write the rows on which not all files give the same answer; return how many."""
    predictions = np.stack([answers.predictions for answers in entries])
    differing = np.flatnonzero((predictions != predictions[0]).any(axis=0))
    names = ["a", "b", "c"] if triplets else []
    with open_output(destination) as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(
            ["row", *names, "truth", *(guard_formula(answers.source) for answers in entries)]
        )
        for row in differing:
            writer.writerow(
                [
                    row + 1,
                    *map(guard_formula, _names(triplets, row)),
                    truth.labels[row],
                    *predictions[:, row],
                ]
            )
    return len(differing)


def _names(triplets: Triplets | None, row: np.intp) -> list[str]:
    return [triplets.names[index] for index in triplets.rows[row]] if triplets else []


# Quantiles of the normal distribution: 5% two-sided error, 80% power.
_ERROR_Z = 1.959964
_POWER_Z = 0.841621


@dataclass(frozen=True)
class RankedAnswers:
    """One answer file and its accuracy.

    Attributes:
        name: what to call it.
        accuracy: 0 to 1.
        wilson: 95% interval that takes rows as independent.
        image_interval: 95% interval that allows for images that rows share, or why there is
            none; None without triplets.
        odd_one_out: how often it found the odd one of three, where there are such trials.
    """

    name: str
    accuracy: float
    wilson: Interval
    image_interval: Interval | NoInterval | None
    odd_one_out: OddOneOut | None = None


@dataclass(frozen=True, repr=False)
class PairComparison(Result):
    """Two answer files on the same questions.

    Attributes:
        left, right: their names; `left` is the better one.
        difference: accuracy of `left` minus that of `right`, 0 to 1.
        image_interval: 95% interval of the difference, row by row, that allows for images that
            rows share, or why there is none; None without triplets.
        n_both_right, n_left_only, n_right_only, n_both_wrong: rows.
        mcnemar_p: exact McNemar test that neither is better; takes rows as independent.
        holm_p: the same, corrected for the number of pairs compared.
        smallest_difference: see `smallest_difference`.
    """

    left: str
    right: str
    difference: float
    image_interval: Interval | NoInterval | None
    n_both_right: int
    n_left_only: int
    n_right_only: int
    n_both_wrong: int
    mcnemar_p: float
    holm_p: float
    smallest_difference: float | None

    def to_dict(self) -> dict[str, Any]:
        """Return the pair as JSON takes it, intervals as [low, high]."""
        return asdict(self) | describe_for_json(self.image_interval, "image_interval")

    @property
    def verdict(self) -> str:
        """Which one is better, in a sentence: McNemar's test must show it, and the interval."""
        interval = self.image_interval
        if self.holm_p < 0.05 and isinstance(interval, NoInterval):
            return f"On these rows {self.left} is better; whether on others: {interval.detail}."
        is_shown = self.holm_p < 0.05 and (not interval or interval.low > 0)
        return f"{self.left} is better." if is_shown else "No sign that either is truly better."

    def _summary(self) -> str:
        return f"{self.left} against {self.right}, {self.difference:+.4f}; {self.verdict}"

    def _sections(self) -> list[Section]:
        return self._describe(1)

    def _describe(self, n_pairs: int) -> list[Section]:
        """Return what there is to see of one of so many pairs."""
        n_rows = self.n_both_right + self.n_left_only + self.n_right_only + self.n_both_wrong
        percent = 100 / max(1, n_rows)
        rows = [
            ["  difference", f"{self.difference:+.4f}"],
            ["  95% interval", self._describe_interval()],
            ["  McNemar exact p", f"{self.mcnemar_p:.3g} (takes rows as independent)"],
        ]
        if n_pairs > 1:
            rows.append(["  Holm p", f"{self.holm_p:.3g} (corrected for {n_pairs} pairs)"])
        rows += [
            [f"  {what}", f"{n:,} rows ({n * percent:.1f}%)"]
            for what, n in (
                ("both right", self.n_both_right),
                ("only the first right", self.n_left_only),
                ("only the second right", self.n_right_only),
                ("both wrong", self.n_both_wrong),
            )
        ]
        smallest = "not known: the two are right on the same rows"
        if self.smallest_difference is not None:
            smallest = f"{self.smallest_difference:.4f} (found at 5% in 80% of such files)"
        rows.append(["  smallest difference shown", smallest])
        title = f"{self.left} against {self.right}"
        return [[Table(rows, has_heading=False, title=title), f"  {self.verdict}"]]

    def _describe_interval(self) -> str:
        interval = self.image_interval
        if interval is None:
            return "not known: needs the `triplets`"
        if isinstance(interval, NoInterval):
            return f"none: {interval.detail}"
        return f"{interval.low:+.4f} to {interval.high:+.4f} (paired, allows for shared images)"


@dataclass(frozen=True, repr=False)
class Comparison(Result):
    """Several answer files, best first, and every pair of them.

    Attributes:
        n: rows.
        ranking: best first; equal ones in the order given.
        pairs: every pair, in the order of the ranking.
    """

    n: int
    ranking: list[RankedAnswers]
    pairs: list[PairComparison]

    def to_dict(self) -> dict[str, Any]:
        """Return the comparison as JSON takes it, intervals as [low, high]."""
        return {
            "n": self.n,
            "ranking": [
                asdict(ranked)
                | {"wilson": ranked.wilson.to_list()}
                | describe_for_json(ranked.image_interval, "image_interval")
                | {"odd_one_out": ranked.odd_one_out and ranked.odd_one_out.to_dict()}
                for ranked in self.ranking
            ],
            "pairs": [pair.to_dict() for pair in self.pairs],
        }

    def to_frame(self) -> pd.DataFrame:
        """Return a table with a row for each answer file, best first.

        Returns:
            The columns name, accuracy, low and high: the 95% interval that allows for shared
            images where there is one, else Wilson's.
        """
        rows = [
            (ranked.name, ranked.accuracy, *(ranked.image_interval or ranked.wilson).to_list())
            for ranked in self.ranking
        ]
        return pd.DataFrame(rows, columns=["name", "accuracy", "low", "high"])

    def _summary(self) -> str:
        best = self.ranking[0]
        return (
            f"{len(self.ranking)} files of {self.n:,} rows, {best.name} first with "
            f"{best.accuracy:.4f}; {self.pairs[0].verdict}"
        )

    def _sections(self) -> list[Section]:
        rows = [["accuracy", "95% interval (rows)", "95% interval (images)", "file"]]
        rows += [
            [
                f"{ranked.accuracy:.4f}",
                str(ranked.wilson),
                show_interval(ranked.image_interval),
                ranked.name,
            ]
            for ranked in self.ranking
        ]
        sections: list[Section] = [[f"{self.n:,} rows"], [Table(rows)]]
        found = [
            [*ranked.odd_one_out.describe(), ranked.name]
            for ranked in self.ranking
            if ranked.odd_one_out is not None
        ]
        if found:
            sections.append([Table(found, has_heading=False)])
        for pair in self.pairs:
            sections += pair._describe(len(self.pairs))
        return sections


def compare_answers(
    credits: dict[str, np.ndarray],
    rows: np.ndarray | None = None,
    trials: np.ndarray | None = None,
) -> Comparison:
    """Compare answer files on the same questions.

    Args:
        credits: for each name `(n_triplets,)` 0 or 1, whether each answer is right (see
            `scoring.credit_rows`); at least two.
        rows: `(n_triplets, 3)` integers, the images of each question; without them there are
            no intervals that allow for shared images.
        trials: see `Triplets`.
    Reference:
        McNemar. Note on the sampling error of the difference between correlated proportions or
        percentages. Psychometrika 12, 1947. Holm. A simple sequentially rejective multiple test
        procedure. Scandinavian J. Statistics 6, 1979.
    Example:
        >>> right = {"a": np.array([1, 1, 1, 1, 0]), "b": np.array([1, 0, 0, 1, 0])}
        >>> pair = compare_answers(right).pairs[0]
        >>> pair.left, pair.difference, pair.mcnemar_p  # 2 rows differ, both for a: 2 / 2**2
        ('a', 0.4, 0.5)
    """
    ranked = sorted(credits, key=lambda name: -credits[name].sum())
    pairs = list(combinations(ranked, 2))
    p_values = [mcnemar_p(credits[left], credits[right]) for left, right in pairs]
    corrected = correct_by_holm(p_values)
    ranking = [_rank(name, credits[name], rows, trials) for name in ranked]
    best = ranking[0]
    said = describe_exchanged(
        best.accuracy, best.image_interval or best.wilson, f"even the answers of {best.name}"
    )
    if said is not None:
        warnings.warn(said, DataWarning, stacklevel=2)
    return Comparison(
        n=len(credits[ranked[0]]),
        ranking=ranking,
        pairs=[
            _compare_pair(names, [credits[name] for name in names], rows, p, holm_p)
            for names, p, holm_p in zip(pairs, p_values, corrected, strict=True)
        ],
    )


def correct_by_holm(p_values: Sequence[float]) -> list[float]:
    """Return p values corrected for how many there are, in their order.

    The smallest is taken times their number n, the next times n - 1, and so on; none is below
    one before it, and none above 1.

    Reference:
        Holm. A simple sequentially rejective multiple test procedure. Scandinavian J. Statistics
        6, 1979.
    Example:
        >>> correct_by_holm([0.25, 0.125, 0.0625])
        [0.25, 0.25, 0.1875]
    """
    order = np.argsort(p_values, kind="stable")
    times = len(p_values) - np.arange(len(p_values))
    corrected = np.empty(len(p_values))
    corrected[order] = np.maximum.accumulate(np.asarray(p_values)[order] * times)
    return np.minimum(corrected, 1.0).tolist()


def mcnemar_p(left: np.ndarray, right: np.ndarray) -> float:
    """Return the two-sided p of McNemar's exact test.

    Of the rows where just one is right, each should be so half the time if neither is better.

    Args:
        left, right: `(n_triplets,)` 0 or 1, whether each answer is right.
    Example:
        >>> mcnemar_p(np.array([1, 1, 1, 1, 1]), np.array([0, 0, 0, 0, 0]))  # 2 / 2**5
        0.0625
    """
    from scipy.stats import binomtest

    n_left_only = int((left > right).sum())
    n_differing = int((left != right).sum())
    return float(binomtest(n_left_only, n_differing).pvalue) if n_differing else 1.0


def smallest_difference(left: np.ndarray, right: np.ndarray, rows: np.ndarray | None) -> float:
    """Return the smallest true difference of accuracies that such a file could show.

    It is the difference that a two-sided test at 5% would find in 80% of such files:
    (1.96 + 0.84) standard errors of the difference. The standard error is the one that holds
    for images that share triplets where they are known, else that of independent rows,
    sqrt(share of rows where just one is right / n).

    Args:
        left, right: `(n_triplets,)` 0 or 1, whether each answer is right.
        rows: `(n_triplets, 3)` integers, the images of each question, or None.
    Returns:
        0 to 1 in accuracy; NaN where the two never differ, since nothing then tells how much
        they would.
    Reference:
        Connor. Sample size for testing differences in proportions for the paired-sample design.
        Biometrics 43, 1987 (the leading term).
    Example:
        >>> left, right = np.array([1, 0] * 50), np.array([0, 1] * 50)  # all 100 rows differ
        >>> round(smallest_difference(left, right, None), 3)  # 2.802 * sqrt(1 / 100)
        0.28
    """
    share = float((left != right).mean())
    if not share:
        return float("nan")
    error = np.sqrt(share / len(left))
    spread = None if rows is None else measure_image_spread(left - right, rows)
    if isinstance(spread, ImageSpread):
        error = spread.standard_error
    return float((_ERROR_Z + _POWER_Z) * error)


def _rank(
    name: str, credit: np.ndarray, rows: np.ndarray | None, trials: np.ndarray | None
) -> RankedAnswers:
    return RankedAnswers(
        name=name,
        accuracy=float(credit.mean()),
        wilson=wilson_interval(credit.sum(), len(credit)),
        image_interval=None if rows is None else image_interval(credit, rows),
        odd_one_out=None if rows is None else score_odd_one_out(credit, rows, trials),
    )


def _compare_pair(
    names: tuple[str, str],
    credits: list[np.ndarray],
    rows: np.ndarray | None,
    p: float,
    holm_p: float,
) -> PairComparison:
    left, right = (credit.astype(np.int64) for credit in credits)
    difference = left - right
    smallest = smallest_difference(left, right, rows)
    return PairComparison(
        left=names[0],
        right=names[1],
        difference=float(difference.mean()),
        image_interval=None if rows is None else image_interval(difference, rows, bounds=(-1, 1)),
        n_both_right=int((left & right).sum()),
        n_left_only=int((difference > 0).sum()),
        n_right_only=int((difference < 0).sum()),
        n_both_wrong=int((left + right == 0).sum()),
        mcnemar_p=p,
        holm_p=holm_p,
        smallest_difference=None if np.isnan(smallest) else smallest,
    )

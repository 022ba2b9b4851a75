"""Which of several answer files is better, and whether this many triplets can tell."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
import pandas as pd

from tripletkit.data.triplets import Triplets
from tripletkit.errors import DataWarning, caution
from tripletkit.evaluation.intervals import (
    ImageSpread,
    Interval,
    NoInterval,
    image_interval,
    show_interval,
    wilson_interval,
)
from tripletkit.evaluation.scoring import OddOneOut, describe_exchanged
from tripletkit.results import Result, Section, Table

# Quantiles of the normal distribution: 5% two-sided error, 80% power.
_ERROR_Z = 1.959964
_POWER_Z = 0.841621


@dataclass(frozen=True)
class _RankedAnswers:
    """One answer file and its accuracy; see `Score` for the others."""

    name: str
    accuracy: float
    wilson: Interval
    image_interval: Interval | NoInterval | None
    odd_one_out: OddOneOut | None = None


@dataclass(frozen=True, repr=False)
class _PairComparison(Result):
    """Two answer files on the same questions.

    Attributes:
        left, right: their names; `left` is the better one.
        difference: accuracy of `left` minus that of `right`, 0 to 1.
        image_interval: 95% interval of the difference, row by row, that allows for images that
            rows share, or why there is none; None without triplets.
        n_both_right, n_left_only, n_right_only, n_both_wrong: rows.
        mcnemar_p: exact McNemar test that neither is better; takes rows as independent.
        holm_p: the same, corrected for the number of pairs compared.
        smallest_difference: of accuracies that such files show at 5% in 80% of cases; see
            `Comparison.of`. None where the two are right on the same rows.
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
    ranking: list[_RankedAnswers]
    pairs: list[_PairComparison]

    @classmethod
    def of(cls, credits: dict[str, np.ndarray], triplets: Triplets | None = None) -> Comparison:
        """Compare answers to the same questions.

        Of the rows where just one of two is right, each should be so half the time if neither is
        better: that is McNemar's exact test. Its p is corrected for the number n of pairs by Holm:
        the smallest is taken times n, the next times n - 1, and none is below one before it. The
        smallest difference that two such files could show is (1.96 + 0.84) standard errors of the
        difference, those that hold for shared images where these are known, else
        sqrt(share of differing rows / n).

        Args:
            credits: for each name `(n_triplets,)` 0 or 1, whether each answer is right (see
                `Answers.credit`); at least two.
            triplets: the questions; without them no interval allows for shared images.
        Reference:
            McNemar. Note on the sampling error of the difference between correlated proportions or
            percentages. Psychometrika 12, 1947. Holm. A simple sequentially rejective multiple test
            procedure. Scandinavian J. Statistics 6, 1979. Connor. Sample size for testing
            differences in proportions for the paired-sample design. Biometrics 43, 1987 (the
            leading term).
        """
        rows = None if triplets is None else triplets.rows
        ranking = [
            _RankedAnswers(
                name=name,
                accuracy=float(credit.mean()),
                wilson=wilson_interval(credit.sum(), len(credit)),
                image_interval=None if rows is None else image_interval(credit, rows),
                odd_one_out=None
                if triplets is None
                else OddOneOut.of(credit, triplets.rows, triplets.trials),
            )
            for name, credit in sorted(credits.items(), key=lambda item: -item[1].sum())
        ]
        for each in ranking:
            interval = each.image_interval or each.wilson
            said = describe_exchanged(each.accuracy, interval, f"the answers of {each.name}")
            if said is not None:
                caution(said, DataWarning)
        pairs = [
            _compare_pair(left.name, right.name, credits[left.name], credits[right.name], rows)
            for left, right in combinations(ranking, 2)
        ]
        return cls(len(credits[ranking[0].name]), ranking, _correct_by_holm(pairs))

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


def _compare_pair(
    left: str, right: str, of_left: np.ndarray, of_right: np.ndarray, rows: np.ndarray | None
) -> _PairComparison:
    """Return what two files show, not corrected for how many pairs there are."""
    from scipy.stats import binomtest

    difference = of_left.astype(np.int64) - of_right
    n_left, n_right = int((difference > 0).sum()), int((difference < 0).sum())
    n_both = int((of_left[difference == 0] > 0).sum())
    n_differing = n_left + n_right
    p = float(binomtest(n_left, n_differing).pvalue) if n_differing else 1.0
    spread = None if rows is None else ImageSpread.of(difference, rows)
    error = np.sqrt(n_differing) / len(difference)
    if isinstance(spread, ImageSpread):
        error = spread.standard_error
    return _PairComparison(
        left=left,
        right=right,
        difference=float(difference.mean()),
        image_interval=None if rows is None else image_interval(difference, rows, bounds=(-1, 1)),
        n_both_right=n_both,
        n_left_only=n_left,
        n_right_only=n_right,
        n_both_wrong=len(difference) - n_both - n_differing,
        mcnemar_p=p,
        holm_p=p,
        smallest_difference=float((_ERROR_Z + _POWER_Z) * error) if n_differing else None,
    )


def _correct_by_holm(pairs: list[_PairComparison]) -> list[_PairComparison]:
    p_values = np.array([pair.mcnemar_p for pair in pairs])
    order = np.argsort(p_values, kind="stable")
    corrected = np.empty(len(pairs))
    times = len(pairs) - np.arange(len(pairs))
    corrected[order] = np.minimum(np.maximum.accumulate(p_values[order] * times), 1.0)
    return [replace(pair, holm_p=p) for pair, p in zip(pairs, corrected.tolist(), strict=True)]

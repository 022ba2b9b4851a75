"""95% intervals of a mean over triplets: Wilson's, and one that allows for shared images.

Two triplets that share an image are not independent: an image that is hard to tell makes all
its triplets wrong together. An interval that takes rows as independent is then too narrow.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from math import floor, sqrt
from statistics import NormalDist
from typing import Literal

import numpy as np

# Rows, and equally used images, below which there is no interval that allows for shared images:
# with 20 images it held the true value in 92 to 99% of simulated samples instead of 95.
_MIN_INTERVAL_IMAGES = 25
# Images that most rows share, such as a few anchors, below which there is none either.
_MIN_WEIGHING_IMAGES = 10

# What the ends of a 95% interval leave out on either side.
_UPPER = 0.975

# How far, in standard deviations of its estimate, the variance may lie below that of independent
# rows. Where images have no effect, half of all estimates lie below and half above; with a bound
# of 0 all errors would be to one side, and intervals too wide (98% coverage with 30 images).
# Chosen by simulations as in examples/interval_coverage.py.
_SLACK = 0.15

# How fast skewed sums over images cost degrees of freedom. Normal sums would not; those of a few
# very hard images do, because most samples then see too little variance. Chosen likewise.
_SKEW_COST = 3.0

# Rows as good as independent ones that are added at either end (Haldane, Anscombe). Where few rows
# are wrong, sets with fewer of them by chance seem both better and surer. Chosen likewise.
_ADDED_ROWS = 0.5


# An interval of alpha takes so many questions, and so many that are answered differently.
_MIN_ALPHA_QUESTIONS, _MIN_DIFFERING, _N_DRAWN = 20, 5, 2000


@dataclass(frozen=True)
class Interval:
    """A range that holds the true value in 95% of repeated samples, in the unit of the values."""

    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.low:.4f} to {self.high:.4f}"

    def to_list(self) -> list[float]:
        return [self.low, self.high]


@dataclass(frozen=True)
class NoInterval:
    """Why there is no interval. It is false, so that `interval or another` takes the other.

    Attributes:
        reason: a few words for a table, such as `"too few images"`.
        detail: the same as a clause that ends a sentence, with numbers.
    """

    reason: str
    detail: str

    def __bool__(self) -> Literal[False]:
        return False

    def __str__(self) -> str:
        return self.reason


@dataclass(frozen=True)
class ImageSpread:
    """How far a mean over triplets would vary if other images had been taken.

    Attributes:
        standard_error: of the mean, in the unit of the values.
        image_share: of its square, what images add to independent rows, 0 to 1.
        degrees_of_freedom: how well that square is known, counted as independent values.
        n_images: distinct ones.
        n_used_alike: how many equally used images would be shared as much, by `effective_count`.
        n_weighing_alike: how many would weigh as much in the variance, by that of the squares.
    """

    standard_error: float
    image_share: float
    degrees_of_freedom: float
    n_images: int
    n_used_alike: float
    n_weighing_alike: float

    @classmethod
    def of(cls, values: np.ndarray, images: np.ndarray) -> ImageSpread | NoInterval:
        """Measure the standard error of a mean when rows that share an image go together.

        The variance is the sum of the products of deviations over all pairs of rows that have at
        least one image in common, divided by n squared. It is found by inclusion and exclusion:
        squared sums over images, minus those over pairs of images, plus those over whole triples.
        Two corrections follow. Taking deviations from the sample's own mean loses the share of
        pairs of rows that have an image in common, so the variance is divided by 1 minus that share
        (for one image a row this is the usual m / (m - 1)). And it is not taken far below the
        variance of independent rows, since a sum with minus signs can by chance come out too small,
        even negative.

        Degrees of freedom are Satterthwaite's, 2 V**2 / Var(V). The standard deviation of the
        estimate V is the sum of what it has where rows are independent, which follows from who
        shares an image with whom alone, and what images add to V, times sqrt(2 / m). Here m is the
        number of effective clusters, (sum of n_i**2)**2 / (sum of n_i**4) for n_i rows with image
        i, less 1, and is divided by 1 + 3 skewness**2 of the sums over images.

        Args:
            values: `(n,)` numbers, such as 1 for a right answer and 0 for a wrong one, or the
                differences -1, 0, 1 of two models.
            images: `(n, k)` integer ids of what a row must not be taken as independent of; the
                three images of a triplet, or one column for a single grouping.
        Reference:
            Fafchamps, Gubert. The formation of risk sharing networks. J. Development Economics 83,
            2007. Cameron, Gelbach, Miller. J. Business and Economic Statistics 29, 2011. Aronow,
            Samii, Assenova. Political Analysis 23, 2015 (clusters in several ways). Satterthwaite.
            Biometrics Bulletin 2, 1946. Bell, McCaffrey. Survey Methodology 28, 2002 (such degrees
            of freedom for clusters). Carter, Schnepel, Steigerwald. Review of Economics and
            Statistics 99, 2017 (effective clusters). The two corrections, the sum of two parts and
            the cost of skewness are ours.
        """
        values = np.asarray(values, dtype=np.float64)
        n = len(values)
        if not np.ptp(values):
            return NoInterval("all rows are alike", "all rows are alike")
        deviations = values - values.mean()
        total = 0.0
        n_sharing = np.zeros(n)  # how many rows share an image with each, itself among them
        sums, counts = np.empty(0), np.empty(0)
        for size, (codes, rows) in enumerate(_subsets(np.asarray(images)), 1):
            sums_of_size = np.bincount(codes, deviations[rows])
            counts_of_size = np.bincount(codes).astype(np.float64)
            sign = 1 if size % 2 else -1
            total += sign * float(sums_of_size @ sums_of_size)
            n_sharing += np.bincount(rows, sign * counts_of_size[codes], n)
            if size == 1:
                sums, counts = np.asarray(sums_of_size, np.float64), counts_of_size
        unshared = 1 - n_sharing.mean() / n
        if unshared * n * n < 0.5:
            return NoInterval("all rows share an image", "all rows share an image")
        of_rows = deviations @ deviations / n / (n - 1)
        # The trace of the square of "who shares with whom", centered in rows and columns.
        trace = n_sharing.sum() - 2 * (n_sharing @ n_sharing) / n + n_sharing.mean() ** 2
        noise = np.sqrt(2 * max(trace, 0.0)) / n / unshared * of_rows
        variance = max(total / n**2 / unshared, of_rows - _SLACK * noise)
        of_images = max(variance - of_rows, 0.0)
        n_alike = effective_count(counts**2)
        squares = sums @ sums
        skewness = np.sqrt(n_alike / squares**3) * (sums**3).sum() if squares else 0.0
        deviation = noise + of_images * np.sqrt(
            2 * (1 + _SKEW_COST * skewness**2) / max(n_alike - 1, 1e-9)
        )
        return cls(
            standard_error=float(np.sqrt(variance)),
            image_share=float(of_images / variance),
            degrees_of_freedom=float(max(2 * variance**2 / deviation**2, 1.0)),
            n_images=len(counts),
            n_used_alike=effective_count(counts),
            n_weighing_alike=n_alike,
        )


def weigh_values(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return values whose plain mean is the weighted mean, and varies as it does.

    They are the values as a first-order expansion of the weighted mean sees them, so that every
    interval of a plain mean serves a weighted one. Weights by the inverse of the probability that a
    row was drawn with make it stand for all rows there are.

    Reference:
        Hajek. Comment on "An essay on the logical foundations of survey sampling" by D. Basu.
        1971. Särndal, Swensson, Wretman. Model assisted survey sampling, 1992, section 5.5.
    """
    mean = float(values @ weights / weights.sum())
    return mean + weights / weights.mean() * (values - mean)


def effective_count(weights: np.ndarray) -> float:
    """Return how many rows of equal weight tell as much as these (Kish 1965)."""
    return float(weights.sum() ** 2 / (weights @ weights))


def wilson_interval(n_correct: float, n: float) -> Interval:
    """Return Wilson's 95% interval of a share of independent rows; ties may count half.

    Reference:
        Wilson. Probable inference, the law of succession, and statistical inference.
        JASA 22, 1927.
    """
    # SciPy's takes whole counts, and a second to import.
    z = NormalDist().inv_cdf(_UPPER)
    n_with = n + z * z
    center = (n_correct + z * z / 2) / n_with
    half = z / n_with * sqrt(n_correct * (n - n_correct) / n + z * z / 4)
    return Interval(max(center - half, 0.0), min(center + half, 1.0))


def image_interval(
    values: np.ndarray, images: np.ndarray, *, bounds: tuple[float, float] = (0.0, 1.0)
) -> Interval | NoInterval:
    """Return a 95% interval of a mean over rows that allows for images they share.

    It is Student's interval on the logit scale between the bounds, so that no end lies beyond them
    (between -1 and 1 that is Fisher's z), with the standard error of `ImageSpread.of`.
    Independent rows and images each have their own quantile of Student's distribution; the two are
    averaged by what each adds to the variance, as Cochran does for two means. How often it holds
    the true value is in docs/benchmarks.md.

    Reference:
        Korn, Graubard. Confidence intervals for proportions with small expected number of positive
        counts estimated from survey data. Survey Methodology 24, 1998 (degrees of freedom for
        clustered shares; logit and Wilson scales are compared by Dean, Pagano. J. Survey Statistics
        and Methodology 3, 2015). Cochran. Approximate significance levels of the Behrens-Fisher
        test. Biometrics 20, 1964 (the averaged quantile). Cameron, Miller. A practitioner's guide
        to cluster-robust inference. J. Human Resources 50, 2015, section VI (few clusters).
        Anscombe. On estimating binomial response relations. Biometrika 43, 1956 (the added halves).
    """
    from scipy.special import expit, logit, stdtrit

    values = np.asarray(values, dtype=np.float64)
    spread = ImageSpread.of(values, images)
    if isinstance(spread, NoInterval):
        return spread
    if (too_few := _find_too_few(spread, len(values))) is not None:
        return too_few
    by_rows, by_images = stdtrit([len(values) - 1, spread.degrees_of_freedom], _UPPER)
    quantile = by_rows + spread.image_share * (by_images - by_rows)
    low, high = bounds
    place = (values.mean() - low) / (high - low)
    # As many independent rows, each at one end, would tell as much.
    n_alike = place * (1 - place) * ((high - low) / spread.standard_error) ** 2
    n_with = n_alike + 2 * _ADDED_ROWS
    place = (n_alike * place + _ADDED_ROWS) / n_with
    reach = quantile / np.sqrt(n_with * place * (1 - place))
    ends = low + (high - low) * expit(logit(place) + np.array([-reach, reach]))
    return Interval(*ends.tolist())


def krippendorff_alpha(codes: np.ndarray) -> tuple[float | None, Interval | NoInterval | None]:
    """Return Krippendorff's alpha and its interval, by drawing as many questions again.

    `codes` is `(n_judges, n_questions)` 0 or 1, NaN where a judge was not asked. With simulated
    judges who agree in 75 to 99% of 20 to 1,000 questions, 5 or more of them answered differently,
    the interval holds the true value in 90 to 99% of cases; with fewer in as few as 33%.

    Reference:
        Krippendorff. Content Analysis. 4th edition, 2018, chapter 12.
    """
    said = np.stack([(codes == code).sum(axis=0) for code in (0, 1)], axis=1)
    # Alpha depends on how many questions there are of each kind of answers alone.
    kinds, counts = np.unique(said, axis=0, return_counts=True)
    first, second = kinds.T

    def alpha(counts: np.ndarray) -> np.ndarray:
        differing = counts @ (first * second / (first + second - 1))
        by_chance = (counts @ first) * (counts @ second)
        n_answers = counts @ (first + second)
        return 1 - (n_answers - 1) * differing / np.maximum(by_chance, 1)

    if not said.sum(axis=0).all():
        return None, None
    n, n_differing = int(counts.sum()), int(counts @ (first * second > 0))
    for few, needed, what in (
        (n, _MIN_ALPHA_QUESTIONS, "questions"),
        (n_differing, _MIN_DIFFERING, "questions that judges answer differently"),
    ):
        if few < needed:
            detail = f"too few {what} for an interval ({few}; it takes {needed})"
            return float(alpha(counts)), NoInterval(f"too few {what}", detail)
    drawn = np.random.default_rng(0).multinomial(n, counts / n, _N_DRAWN)
    return float(alpha(counts)), Interval(*np.percentile(alpha(drawn), (2.5, 97.5)).tolist())


def _find_too_few(spread: ImageSpread, n_rows: int) -> NoInterval | None:
    n_needed = _MIN_INTERVAL_IMAGES
    if n_rows < n_needed:
        detail = f"{n_rows:,}; it takes {n_needed}"
        return NoInterval("too few rows", f"too few rows for an interval ({detail})")
    if spread.n_used_alike < n_needed:
        # Rounded down, so that it never reads as enough.
        n_alike = floor(10 * spread.n_used_alike) / 10
        detail = f"{spread.n_images:,}, used like {n_alike:g} equal ones; it takes "
    elif spread.n_weighing_alike < (n_needed := _MIN_WEIGHING_IMAGES):
        detail = f"most rows share {floor(spread.n_weighing_alike)} of them; it takes "
    else:
        return None
    return NoInterval("too few images", f"too few images for an interval ({detail}{n_needed})")


def show_interval(interval: Interval | NoInterval | None) -> str:
    """Return what a column of a table says of an interval."""
    return "-" if interval is None else str(interval)


def score_row(name: str, value: float, wilson: Interval, shared: str, n: int) -> list[str]:
    """Return the row of a table of scores: name, score, Wilson's interval, that of images, rows."""
    return [name, f"{value:.4f}", str(wilson), shared, f"{n:,}"]


def _subsets(images: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """Number the distinct images, pairs, ... of all rows, and say which row has which. For each
    size from 1 to k: numbers of the subsets, and the row of each. A subset occurs once a row, also
    where a row names an image twice."""
    images = np.sort(images.reshape(len(images), -1), axis=1)
    numbered: np.ndarray = np.unique(images, return_inverse=True)[1].reshape(images.shape)
    n_images = int(numbered.max()) + 1
    is_first = np.ones(numbered.shape, dtype=bool)
    is_first[:, 1:] = numbered[:, 1:] != numbered[:, :-1]
    result = []
    for size in range(1, numbered.shape[1] + 1):
        members, rows = [], []
        for columns in combinations(range(numbered.shape[1]), size):
            having = np.flatnonzero(is_first[:, columns].all(axis=1))
            members.append(numbered[having][:, columns])
            rows.append(having)
        together = np.concatenate(members)
        codes = together[:, 0]
        for column in together.T[1:]:
            # Numbered anew at each step, so that no product overflows.
            codes = np.unique(codes * n_images + column, return_inverse=True)[1]
        result.append((codes, np.concatenate(rows)))
    return result

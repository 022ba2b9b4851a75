"""95% intervals of a mean over triplets: Wilson's, and one that resamples images.

Two triplets that share an image are not independent: an image that is hard to tell makes all
its triplets wrong together. An interval that takes rows as independent is then too narrow.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from math import ceil, floor

import numpy as np

from tripletkit import defaults

# Image draws at one time: what a core holds in its cache, which halves the time.
_BLOCK_DRAWS = 1 << 16


@dataclass(frozen=True)
class Interval:
    """A range that holds the true value in 95% of repeated samples.

    Attributes:
        low, high: in the unit of the values; shares are 0 to 1.
    """

    low: float
    high: float

    def to_json(self) -> list[float]:
        """Return the two ends."""
        return [self.low, self.high]


@dataclass(frozen=True)
class ImageSpread:
    """How far a mean over triplets would vary if other images had been taken.

    Attributes:
        standard_error: of the mean, in the unit of the values.
        sums: `(n_images,)` float64, what the rows of each image deviate from the mean.
    """

    standard_error: float
    sums: np.ndarray

    @property
    def effective_images(self) -> float:
        """How many equally important images would tell as much, at most `n_images`."""
        squares = self.sums**2
        return float(squares.sum() ** 2 / (squares**2).sum())


def wilson_interval(n_correct: float, n: int) -> Interval:
    """Return Wilson's 95% interval of a share of independent rows.

    Half-counted ties make `n_correct` fractional; the ends are then taken between those of the
    whole numbers around it.

    Args:
        n_correct: rows that are right, 0 to `n`.
        n: rows, at least 1.
    Reference:
        Wilson. Probable inference, the law of succession, and statistical inference.
        JASA 22, 1927.
    Example:
        >>> interval = wilson_interval(8, 10)
        >>> round(interval.low, 4), round(interval.high, 4)
        (0.4902, 0.9433)
    """
    from scipy.stats import binomtest

    counts = (floor(n_correct), ceil(n_correct))
    ends = [binomtest(count, n).proportion_ci(method="wilson") for count in counts]
    low, high = np.array(ends[0]) + (n_correct - counts[0]) * np.subtract(ends[1], ends[0])
    return Interval(float(low), float(high))


def measure_image_spread(values: np.ndarray, images: np.ndarray) -> ImageSpread | None:
    """Measure the standard error of a mean when rows that share an image go together.

    The variance is the sum of the products of deviations over all pairs of rows that have at
    least one image in common, divided by n squared. It is found by inclusion and exclusion:
    squared sums over images, minus those over pairs of images, plus those over whole
    triples. Two corrections follow. Taking deviations from the sample's own mean loses the
    share of pairs of rows that have an image in common, so the variance is divided by 1 minus
    that share (for one image a row this is the usual m / (m - 1)). And it is never taken
    below the variance of independent rows, since a sum with minus signs can by chance come out
    too small, even negative.

    Args:
        values: `(n,)` numbers, such as 1 for a right answer and 0 for a wrong one, or the
            differences -1, 0, 1 of two models.
        images: `(n, k)` integer ids of what a row must not be taken as independent of; the
            three images of a triplet, or one column for a single grouping.
    Returns:
        None where nothing can be said: all values are equal, or all rows share an image.
    Reference:
        Fafchamps, Gubert. The formation of risk sharing networks. J. Development Economics 83,
        2007. Cameron, Gelbach, Miller. Robust inference with multiway clustering. J. Business
        and Economic Statistics 29, 2011. Aronow, Samii, Assenova. Cluster-robust variance
        estimation for dyadic data. Political Analysis 23, 2015. We differ by the two
        corrections.
    Example:
        Two rows share image 0, the third has nothing in common with them. Deviations are
        1/3, 1/3, -2/3; pairs of rows that share: (2/3)**2 + (2/3)**2 = 8/9; of 9 pairs of
        rows 5 share, so the variance is 8/9 / 9 / (1 - 5/9) = 2/9.
        >>> spread = measure_image_spread([1, 1, 0], [[0, 1, 2], [0, 3, 4], [5, 6, 7]])
        >>> round(spread.standard_error**2, 6)
        0.222222
    """
    values = np.asarray(values, dtype=np.float64)
    deviations = values - values.mean()
    n = len(values)
    total, n_sharing = 0.0, 0.0
    sums = np.empty(0)
    for size, (embeddings, rows) in enumerate(_subsets(np.asarray(images)), 1):
        sums_of_size = np.bincount(embeddings, deviations[rows])
        counts = np.bincount(embeddings).astype(np.float64)
        sign = 1 if size % 2 else -1
        total += sign * (sums_of_size @ sums_of_size)
        n_sharing += sign * (counts @ counts)
        if size == 1:
            sums = sums_of_size
    if n_sharing >= n * n or not np.ptp(values) or np.allclose(sums, sums[0]):
        return None
    variance = total / n**2 / (1 - n_sharing / n**2)
    variance = max(variance, values.var() / n)
    return ImageSpread(float(np.sqrt(variance)), sums)


def image_bootstrap(
    values: np.ndarray,
    images: np.ndarray,
    *,
    bounds: tuple[float, float] = (0.0, 1.0),
    n_resamples: int = defaults.N_RESAMPLES,
    seed: int = defaults.SEED,
) -> Interval | None:
    """Return a 95% bootstrap interval of a mean over rows, resampling images.

    Each resample draws as many images as there are, with replacement, and adds up what the
    rows of the drawn images deviate from the mean. Taken as they are, such sums would be
    wrong: a row is drawn by each of its three images, so independent rows would seem to vary
    three times as much as they do (weights that multiply, as in Owen's pigeonhole bootstrap,
    reach seven times), and an average over its images a third. So the deviations keep their
    shape, and are scaled to the standard error of `measure_image_spread`, which is right in
    both cases, times the ratio of Student's to the normal quantile with as many degrees of
    freedom as there are effective images, because that standard error is itself estimated.
    The ends are the 2.5% and 97.5% quantiles. In simulations with 200
    images and more the interval holds the true value in 94 to 96% of samples, whether rows are
    independent or depend on their images alone (with 60 images in 94 to 97%); one that takes
    rows as independent falls to 32%.

    Args:
        values, images: as `measure_image_spread` takes them.
        bounds: the lowest and the highest value there is; no end lies beyond. Defaults to those
            of a share.
        n_resamples: how often to draw. Defaults to `defaults.N_RESAMPLES`.
        seed: start of the draws.
    Returns:
        None where nothing can be said: all values are equal, or all rows share an image.
    Reference:
        Davison, Hinkley. Bootstrap methods and their application, 1997, section 3.8 (resampling
        clusters). Owen. The pigeonhole bootstrap. Annals of Applied Statistics 1, 2007.
        Cameron, Miller. A practitioner's guide to cluster-robust inference. J. Human Resources
        50, 2015, section VI (few clusters). The scaling is ours.
    Example:
        >>> rows = np.arange(300).reshape(100, 3)  # no image twice: as independent rows
        >>> interval = image_bootstrap(np.arange(100) % 2, rows)
        >>> round(interval.low, 1), round(interval.high, 1)
        (0.4, 0.6)
    """
    from scipy.special import ndtri, stdtrit

    spread = measure_image_spread(values, images)
    if spread is None:
        return None
    deviations = _resample_sums(spread.sums, n_resamples, seed)
    deviations /= np.sqrt(len(spread.sums)) * spread.sums.std()
    stretch = stdtrit(spread.effective_images, 0.975) / ndtri(0.975)
    ends = np.quantile(deviations, [0.025, 0.975]) * stretch * spread.standard_error
    return Interval(*np.clip(np.mean(values) + ends, *bounds).tolist())


def _resample_sums(sums: np.ndarray, n_resamples: int, seed: int) -> np.ndarray:
    """Return `(n_resamples,)`: how far the sum over drawn images is from the sum over all."""
    n_images = len(sums)
    generator = np.random.default_rng(seed)
    n_block = max(1, _BLOCK_DRAWS // n_images)
    totals = np.empty(n_resamples)
    for start in range(0, n_resamples, n_block):
        block = totals[start : start + n_block]
        block[:] = sums[generator.integers(0, n_images, (len(block), n_images))].sum(axis=1)
    return totals - sums.sum()


def _subsets(images: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """Number the distinct images, pairs, ... of all rows, and say which row has which.

    Returns:
        For each size from 1 to k: embeddings of the subsets, and the row of each. A subset occurs
        once a row, also where a row names an image twice.
    """
    images = np.sort(images.reshape(len(images), -1), axis=1)
    numbered = np.unique(images, return_inverse=True)[1].reshape(images.shape)
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
        members = np.concatenate(members)
        embeddings = members[:, 0]
        for column in members.T[1:]:
            # Numbered anew at each step, so that no product overflows.
            embeddings = np.unique(embeddings * n_images + column, return_inverse=True)[1]
        result.append((embeddings, np.concatenate(rows)))
    return result

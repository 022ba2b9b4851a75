"""Offline mining: hard positives and negatives, looked for among all images, not in a batch.

A hard positive is an image of the anchor's class that is far from it, a hard negative one of
another class that is near. The very hardest are often wrong labels, so cuts leave them out.

Reference:
    Schroff, Kalenichenko, Philbin. FaceNet. CVPR 2015. arXiv:1503.03832, section 3.2.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from tripletkit.data.labels import NO_LABEL
from tripletkit.evaluation.classification import (
    ClassDistances,
    DistanceDistribution,
    PairwiseDistances,
)
from tripletkit.evaluation.distances import distances_between
from tripletkit.progress import Progress
from tripletkit.results import Result, Section, Table
from tripletkit.search.exact import NOBODY, rank_candidates

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Images found by float32 distances beyond those asked for, before they are ranked exactly.
_SPARE = 4
# The smallest of so many distances bounds how far the nearest few can be.
_GROUP = 64


@dataclass(frozen=True)
class _Cut:
    """The distances from which images are taken, both ends included."""

    low: float
    high: float


@dataclass(frozen=True)
class _MinedImages:
    """The hardest positives and negatives of each image, the hardest first."""

    positives: np.ndarray  # (n, per_image) int32 indices; `NOBODY` past the last one
    negatives: np.ndarray
    to_positives: np.ndarray  # (n, per_image) float64 distances, NaN there
    to_negatives: np.ndarray
    # Share of all pairs of an image and a positive, cuts or not, that are farther apart than the
    # image and its nearest negative.
    mixed_pairs: float
    # Share of the images that have a positive whose nearest other image is a negative.
    mixed_images: float

    def triplets(self) -> np.ndarray:
        """Pair the hardest positive with the hardest negative, the second with the second...

        Where an image has fewer of the one kind, these are taken again from the hardest on.
        `(n_triplets, 3)` int32 anchor, positive, negative, none of them twice; by anchor.
        """
        anchors, of_positive, of_negative = self._pair_ranks()
        positives = self.positives[anchors, of_positive]
        negatives = self.negatives[anchors, of_negative]
        return np.column_stack([anchors, positives, negatives]).astype(np.int32)

    def margins(self) -> np.ndarray:
        """Return `(n_triplets,)` float64 d(anchor, negative) - d(anchor, positive)."""
        anchors, of_positive, of_negative = self._pair_ranks()
        return self.to_negatives[anchors, of_negative] - self.to_positives[anchors, of_positive]

    def _pair_ranks(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the anchor of each triplet, and the places of its two others in their rows."""
        n_positives = (self.positives != NOBODY).sum(axis=1)
        n_negatives = (self.negatives != NOBODY).sum(axis=1)
        n_triplets = np.maximum(n_positives, n_negatives) * (n_positives > 0) * (n_negatives > 0)
        anchors = np.repeat(np.arange(len(n_triplets)), n_triplets)
        rank = np.arange(len(anchors)) - np.repeat(np.cumsum(n_triplets) - n_triplets, n_triplets)
        return anchors, rank % n_positives[anchors], rank % n_negatives[anchors]


def find_cuts(
    distribution: DistanceDistribution,
    positive_quantiles: tuple[float, float],
    negative_quantiles: tuple[float, float],
) -> tuple[_Cut, _Cut]:
    """Turn low and high shares of the distances into distances; 0 and 1 cut nothing off."""
    positives, negatives = (
        _Cut(
            distribution.quantile(counts, low) if low > 0 else 0.0,
            distribution.quantile(counts, high) if high < 1 else np.inf,
        )
        for (low, high), counts in (
            (positive_quantiles, distribution.positives),
            (negative_quantiles, distribution.negatives),
        )
    )
    return positives, negatives


def mine_images(
    embeddings: np.ndarray,
    images: ClassDistances,
    positives: _Cut,
    negatives: _Cut,
    per_image: int,
    progress: Progress | None = None,
) -> _MinedImages:
    """Find each image's farthest positives and nearest negatives between the cuts.

    Candidates are found in float32 and then measured and ranked in float64; so of images
    whose distances differ, or lie beside a cut, by no more than float32's rounding, another one
    may be taken. Of equally hard ones the lower index comes first. No image is its own
    positive, and none of one class are negatives. `images` was made from `embeddings`.
    """
    positives_found = _HardestImages(embeddings, images, positives, per_image, farthest=True)
    negatives_found = _HardestImages(embeddings, images, negatives, per_image, farthest=False)
    n_pairs = n_mixed = n_with_positive = n_mixed_images = 0
    for block in images.distances.blocks():
        measured = images.distances.measure(block)
        of_classes = []
        for part, whole in images.classes_in(block):
            rows = slice(part.start - block.start, part.stop - block.start)
            same = measured[rows, whole].copy()
            same[np.arange(len(same)), np.arange(part.start, part.stop) - whole.start] = np.nan
            measured[rows, whole] = np.nan
            of_classes.append((same, rows, whole.start))
        nearest_negative = np.fmin.reduce(measured, axis=1)[:, None]
        for same, rows, _ in of_classes:
            is_mixed = same > nearest_negative[rows]
            n_mixed += int(is_mixed.sum())
            n_pairs += same.size - len(same)
            if same.shape[1] > 1:
                n_with_positive += len(same)
                is_nearer = np.fmin.reduce(same, axis=1) <= nearest_negative[rows, 0]
                n_mixed_images += len(same) - int(is_nearer.sum())
        positives_found.look_through(
            [(same, block.start + rows.start, column) for same, rows, column in of_classes]
        )
        negatives_found.look_through([(measured, block.start, 0)])
        if progress is not None:
            progress(block.stop, len(images))
    return _MinedImages(
        positives_found.images,
        negatives_found.images,
        positives_found.distances,
        negatives_found.distances,
        n_mixed / n_pairs,
        n_mixed_images / n_with_positive,
    )


def hardest_triplets(margins: np.ndarray, keep: float | int) -> np.ndarray:
    """Return which triplets have the smallest margins, the smallest first; NaN is left out.

    `keep` is how many as an int, or which share of those that have a margin as a float.

    Example:
        >>> hardest_triplets(np.array([0.5, -0.2, np.nan, 0.1]), 2)
        array([1, 3])
    """
    order = np.argsort(margins, kind="stable")
    order = order[np.isfinite(margins[order])]
    count = keep if isinstance(keep, int) else max(round(keep * len(order)), 1)
    return order[:count]


def hardest_positives(embeddings: np.ndarray, labels: np.ndarray, distance: str) -> np.ndarray:
    """Return the hardest positive of each image, the farthest of its class: `(n_images,)` int32.

    Of equally far ones (to float32 rounding) the lower row is taken. `NOBODY` is that of a row of
    NaN, of `NO_LABEL`, and of an image that is alone in its class; these are none either.

    Example:
        >>> embeddings = np.array([[0.0], [1.0], [5.0], [2.0]], dtype=np.float32)
        >>> hardest_positives(embeddings, np.array([0, 0, 0, 1]), "l2")
        array([ 2,  2,  0, -1], dtype=int32)
    """
    found = np.full(len(embeddings), NOBODY, dtype=np.int32)
    usable = np.flatnonzero((labels != NO_LABEL) & np.isfinite(embeddings).all(axis=1))
    order = usable[np.argsort(labels[usable], kind="stable")]
    for members in np.split(order, np.flatnonzero(np.diff(labels[order])) + 1):
        if len(members) < 2:
            continue
        distances = PairwiseDistances(embeddings[members], distance)
        for block in distances.blocks():
            to_class = distances.measure(block)
            to_class[np.arange(len(to_class)), np.arange(block.start, block.stop)] = -1
            found[members[block]] = members[to_class.argmax(axis=1)]
    return found


class _HardestImages:
    """The hardest images of one kind found so far; see `_MinedImages`."""

    def __init__(
        self,
        embeddings: np.ndarray,
        images: ClassDistances,
        cut: _Cut,
        per_image: int,
        *,
        farthest: bool,
    ) -> None:
        self._embeddings, self._order, self._cut = embeddings, images.order, cut
        self._distance = images.distances.distance
        self._sign = -1 if farthest else 1
        self.images = np.full((len(embeddings), per_image), NOBODY, dtype=np.int32)
        self.distances = np.full(self.images.shape, np.nan)

    def look_through(self, rectangles: list[tuple[np.ndarray, int, int]]) -> None:
        """Add the hardest images of some places, each of which is in one rectangle.

        A rectangle is float32 distances, NaN where not of this kind, and the places of the first
        row and of the first column.
        """
        per_image = self.images.shape[1]
        found = []
        for measured, first_row, first_column in rectangles:
            is_outside = ~((measured >= self._cut.low) & (measured <= self._cut.high))
            hardness = np.where(is_outside, np.float32(np.inf), self._sign * measured)
            rows, columns = _find_smallest(hardness, per_image + _SPARE)
            found.append((rows + first_row, columns + first_column))
        places = (np.concatenate(part) for part in zip(*found, strict=True))
        anchors, others = (self._order[each] for each in places)
        exact = distances_between(
            self._embeddings, anchors, self._embeddings, others, self._distance
        )
        is_inside = (exact >= self._cut.low) & (exact <= self._cut.high)
        anchors, others, exact = anchors[is_inside], others[is_inside], exact[is_inside]
        # The smallest number is the hardest.
        ranked = rank_candidates(
            anchors, others, self._sign * exact, len(self.images), per_image, []
        )
        seen = np.unique(anchors)
        self.images[seen] = ranked.rows[seen]
        self.distances[seen] = self._sign * ranked.distances[seen]


def _find_smallest(values: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Return row and column of the k smallest finite values of each row, and of some more."""
    limits = np.full(len(values), np.finfo(np.float32).max)
    n_groups = values.shape[1] // _GROUP
    if n_groups >= k:
        # k groups reach down to the k-th smallest of their smallest, so k values do.
        grouped = values[:, : n_groups * _GROUP].reshape(len(values), _GROUP, n_groups)
        kth = np.partition(grouped.min(axis=1), k - 1, axis=1)[:, k - 1]
        np.minimum(limits, kth, out=limits)
    return np.divmod(np.flatnonzero(values <= limits[:, None]), values.shape[1])


@dataclass(frozen=True, repr=False)
class Mined(Result):
    """What was found: for the table, the triplet file, the figure and standard output.

    Attributes:
        table: a row for each mined image or triplet.
        names, triplets: the triplets to learn from.
        draw: makes the figure of the distances.
        summary: what was found, as plain JSON values.
    """

    table: pd.DataFrame
    names: Sequence[str]
    triplets: np.ndarray
    draw: Callable[[], Figure]
    summary: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """Return what was found as plain JSON values."""
        return self.summary

    def to_frame(self) -> pd.DataFrame:
        """Return a table with a row for each mined image or triplet."""
        return self.table

    def _summary(self) -> str:
        return f"{len(self.triplets):,} triplets, {self.summary['distance']} distance"

    def _sections(self) -> list[Section]:
        is_of_triplets = "kept" in self.summary
        return [(_show_triplets if is_of_triplets else _show_classes)(self.summary)]


def list_mined_images(mined: _MinedImages, names: Sequence[str]) -> pd.DataFrame:
    """Return one row for each anchor and mined image, by anchor, positives first."""
    name_of = np.array(names, dtype=object)
    parts = []
    for kind, others, distances in (
        ("positive", mined.positives, mined.to_positives),
        ("negative", mined.negatives, mined.to_negatives),
    ):
        anchors, ranks = np.nonzero(others != NOBODY)
        parts.append(
            pd.DataFrame(
                {
                    "place": anchors,
                    "anchor": name_of[anchors],
                    "other": name_of[others[anchors, ranks]],
                    "kind": kind,
                    "distance": distances[anchors, ranks].astype(np.float32),
                    "rank": ranks + 1,
                }
            )
        )
    return pd.concat(parts).sort_values("place", kind="stable").drop(columns="place")


def summarise_classes(
    images: ClassDistances,
    distribution: DistanceDistribution,
    cuts: tuple[_Cut, _Cut],
    quantiles: tuple[tuple[float, float], tuple[float, float]],
    mined: _MinedImages,
) -> dict[str, Any]:
    """Return the distances within and between classes, and what was mined."""
    kinds = {}
    for kind, counts, cut, shares, chosen in (
        ("positives", distribution.positives, cuts[0], quantiles[0], mined.positives),
        ("negatives", distribution.negatives, cuts[1], quantiles[1], mined.negatives),
    ):
        kinds[kind] = {
            "pairs": int(counts.sum()),
            "median": distribution.quantile(counts, 0.5),
            "quantiles": list(shares),
            "low": cut.low,
            "high": cut.high if np.isfinite(cut.high) else None,
            "mined": int((chosen != NOBODY).sum()),
            "images_with_none": int((chosen[:, 0] == NOBODY).sum()),
        }
    margins = mined.margins()
    return {
        "distance": images.distances.distance,
        "images": len(images),
        "classes": images.n_classes,
        **kinds,
        "separation": distribution.separation,
        "overlap": distribution.overlap,
        "mixed_pairs": mined.mixed_pairs,
        "mixed_images": mined.mixed_images,
        "triplets": len(margins),
        "triplets_wrong": float((margins <= 0).mean()) if len(margins) else None,
    }


def _show_classes(summary: dict[str, Any]) -> Section:
    rows = [["", "pairs", "median", "mined from", "to", "quantiles", "mined", "images with none"]]
    for label, kind in (("within classes", "positives"), ("between classes", "negatives")):
        of_kind = summary[kind]
        low, high = of_kind["quantiles"]
        rows.append(
            [
                label,
                f"{of_kind['pairs']:,}",
                f"{of_kind['median']:.4f}",
                f"{of_kind['low']:.4f}",
                "any" if of_kind["high"] is None else f"{of_kind['high']:.4f}",
                f"{low:g} to {high:g}",
                f"{of_kind['mined']:,} {kind}",
                f"{of_kind['images_with_none']:,}",
            ]
        )
    lines: list[Table | str] = [
        f"{summary['images']:,} images of {summary['classes']:,} classes, "
        f"{summary['distance']} distance",
        Table(rows, right=[1, 2, 3, 4, 6, 7]),
        f"A pair of one class is nearer than a pair of two in {summary['separation']:.1%} of "
        f"cases (chance: 50%); the two distributions overlap by {summary['overlap']:.0%}.",
        f"{summary['mixed_pairs']:.1%} of the positives are farther from their image than its "
        f"nearest negative; of {summary['mixed_images']:.1%} of the images the nearest other "
        "one is a negative.",
    ]
    if summary["triplets"]:
        lines.append(
            f"{summary['triplets']:,} triplets of these, {summary['triplets_wrong']:.1%} of them "
            "answered wrong by the distance."
        )
    else:
        lines.append("No triplet: no image has a positive and a negative between the cuts.")
    return lines


def summarise_triplets(margins: np.ndarray, hardest: np.ndarray, distance: str) -> dict[str, Any]:
    """Return what margins all triplets have (NaN: not known), and the hardest ones."""

    def describe(of_part: np.ndarray) -> dict[str, Any]:
        return {
            "triplets": len(of_part),
            "wrong": float((of_part <= 0).mean()),
            "lowest_margin": float(of_part.min()),
            "median_margin": float(np.median(of_part)),
            "highest_margin": float(of_part.max()),
        }

    return {
        "distance": distance,
        "all": describe(margins[np.isfinite(margins)]),
        "kept": describe(margins[hardest]),
    }


def _show_triplets(summary: dict[str, Any]) -> Section:
    rows = [["", "triplets", "answered wrong", "margin from", "median", "to"]]
    for label, part in (("all", summary["all"]), ("hardest, kept", summary["kept"])):
        margins = [part[f"{which}_margin"] for which in ("lowest", "median", "highest")]
        rows.append(
            [
                label,
                f"{part['triplets']:,}",
                f"{part['wrong']:.1%}",
                *(f"{margin:.4f}" for margin in margins),
            ]
        )
    return [
        Table(rows, right=range(1, 6)),
        f"margin = d(anchor, negative) - d(anchor, positive), {summary['distance']} distance",
    ]

"""Offline mining: hard positives and negatives, looked for among all images, not in a batch.

A hard positive is an image of the anchor's class that is far from it, a hard negative one of
another class that is near. The very hardest are often wrong labels, so cuts leave them out.

Reference:
    Schroff, Kalenichenko, Philbin. FaceNet. CVPR 2015. arXiv:1503.03832, section 3.2.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from numbers import Integral
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from tripletkit.data.labels import NO_LABEL
from tripletkit.data.triplets import Triplets
from tripletkit.errors import TripletFileError
from tripletkit.evaluation.classification import (
    ClassDistances,
    DistanceDistribution,
    PairwiseDistances,
)
from tripletkit.evaluation.distances import distances_between, triplet_distances
from tripletkit.progress import Progress, Stages, no_progress
from tripletkit.results import Result, Section, Table
from tripletkit.search.image_search import NOBODY, rank_candidates

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Images found by float32 distances beyond those asked for, before they are ranked exactly.
_SPARE = 4
# The smallest of so many distances bounds how far the nearest few can be.
_GROUP = 64


# The distances from which images are taken, or the shares of all distances, both ends included.
_Range = tuple[float, float]


def _find_cut(distribution: DistanceDistribution, counts: np.ndarray, quantiles: _Range) -> _Range:
    """Turn low and high shares of the distances into distances; 0 and 1 cut nothing off."""
    low, high = quantiles
    return (
        distribution.quantile(counts, low) if low > 0 else 0.0,
        distribution.quantile(counts, high) if high < 1 else np.inf,
    )


class _HardestImages:
    """The hardest images of one kind found so far, of each image the hardest first.

    `images` are `(n, per_image)` int32 indices, `NOBODY` past the last one, and `distances` theirs.
    Candidates are found in float32 and then measured and ranked in float64; so of images whose
    distances differ, or lie beside a cut, by no more than float32's rounding, another one may be
    taken. Of equally hard ones the lower index comes first.
    """

    def __init__(
        self,
        embeddings: np.ndarray,
        images: ClassDistances,
        cut: _Range,
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
        """Add the hardest images of some places, each in one rectangle: float32 distances, NaN
        where not of this kind, and the places of the first row and column."""
        per_image = self.images.shape[1]
        found = []
        for measured, first_row, first_column in rectangles:
            is_inside = (measured >= self._cut[0]) & (measured <= self._cut[1])
            hardness = np.where(is_inside, self._sign * measured, np.float32(np.inf))
            rows, columns = _find_smallest(hardness, per_image + _SPARE)
            found.append((rows + first_row, columns + first_column))
        places = (np.concatenate(part) for part in zip(*found, strict=True))
        anchors, others = (self._order[each] for each in places)
        exact = distances_between(
            self._embeddings, anchors, self._embeddings, others, self._distance
        )
        is_inside = (exact >= self._cut[0]) & (exact <= self._cut[1])
        anchors, others, exact = anchors[is_inside], others[is_inside], exact[is_inside]
        # The smallest number is the hardest.
        ranked = rank_candidates(anchors, others, self._sign * exact, len(self.images), per_image)
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


def _mine_images(
    embeddings: np.ndarray,
    images: ClassDistances,
    cuts: Sequence[_Range],
    per_image: int,
    progress: Progress = no_progress,
) -> tuple[tuple[_HardestImages, _HardestImages], dict[str, float]]:
    """Find each image's farthest positives and nearest negatives between the cuts of either.

    Whatever the cuts, `mixed_pairs` is the share of pairs of an image and a positive that are
    farther apart than the image and its nearest negative; `mixed_images` that of the images with a
    positive whose nearest other image is a negative.
    """
    positives, negatives = (
        _HardestImages(embeddings, images, cut, per_image, farthest=farthest)
        for cut, farthest in zip(cuts, (True, False), strict=True)
    )
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
        positives.look_through(
            [(same, block.start + rows.start, column) for same, rows, column in of_classes]
        )
        negatives.look_through([(measured, block.start, 0)])
        progress(block.stop, len(images))
    shares = {"mixed_pairs": n_mixed / n_pairs, "mixed_images": n_mixed_images / n_with_positive}
    return (positives, negatives), shares


def _pair_hardest(
    positives: _HardestImages, negatives: _HardestImages
) -> tuple[np.ndarray, np.ndarray]:
    """Pair the hardest positive with the hardest negative, the second with the second...

    Where an image has fewer of the one kind, these are taken again from the hardest on. Return
    `(n_triplets, 3)` int32, none of them twice, by anchor; and their margins, float64.
    """
    n_positives, n_negatives = (
        (of_kind.images != NOBODY).sum(axis=1) for of_kind in (positives, negatives)
    )
    n_triplets = np.maximum(n_positives, n_negatives) * (n_positives > 0) * (n_negatives > 0)
    anchors = np.repeat(np.arange(len(n_triplets)), n_triplets)
    rank = np.arange(len(anchors)) - np.repeat(np.cumsum(n_triplets) - n_triplets, n_triplets)
    near, far = (anchors, rank % n_positives[anchors]), (anchors, rank % n_negatives[anchors])
    rows = np.column_stack([anchors, positives.images[near], negatives.images[far]])
    return rows.astype(np.int32), negatives.distances[far] - positives.distances[near]


def hardest_positives(embeddings: np.ndarray, labels: np.ndarray, distance: str) -> np.ndarray:
    """Return the farthest image of each one's class, the lower row of equals: `(n_images,)` int32.

    `NOBODY` is that of a row of NaN, of `NO_LABEL`, and of an image that is alone in its class;
    these are none either.
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


IMAGES_COLUMNS = ("anchor", "other", "kind", "distance", "rank")
TRIPLETS_COLUMNS = "anchor positive negative to_positive to_negative margin line".split()


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


def mine_classes(
    vectors: np.ndarray,
    labels: np.ndarray,
    names: Sequence[str],
    distance: str,
    per_image: int,
    quantiles: tuple[_Range, _Range],
    stages: Stages,
    draw: Callable[..., Figure],
) -> Mined:
    """Mine hard positives and negatives between two cuts; `draw` makes a figure, given its name."""
    images = ClassDistances(vectors, labels, distance)
    distribution = DistanceDistribution.of(images, stages("distances"))
    all_counts = (distribution.positives, distribution.negatives)
    cuts = [
        _find_cut(distribution, counts, shares)
        for counts, shares in zip(all_counts, quantiles, strict=True)
    ]
    chosen, mixed = _mine_images(vectors, images, cuts, per_image, stages("mining"))
    triplets, margins = _pair_hardest(*chosen)
    kinds, tables, name_of = {}, [], np.array(names, dtype=object)
    for kind, counts, (low, high), shares, found in zip(
        ("positives", "negatives"), all_counts, cuts, quantiles, chosen, strict=True
    ):
        anchors, ranks = np.nonzero(found.images != NOBODY)
        kinds[kind] = {
            "pairs": int(counts.sum()),
            "median": distribution.quantile(counts, 0.5),
            "quantiles": list(shares),
            "low": low,
            "high": high if np.isfinite(high) else None,
            "mined": len(anchors),
            "images_with_none": int((found.images[:, 0] == NOBODY).sum()),
        }
        columns = [
            name_of[anchors],
            name_of[found.images[anchors, ranks]],
            [kind.removesuffix("s")] * len(anchors),
            found.distances[anchors, ranks].astype(np.float32),
            ranks + 1,
        ]
        tables.append(pd.DataFrame(dict(zip(IMAGES_COLUMNS, columns, strict=True)), index=anchors))
    table = pd.concat(tables).sort_index(kind="stable").reset_index(drop=True)
    summary = {
        "distance": distance,
        "images": len(images),
        "classes": images.n_classes,
        **kinds,
        "separation": distribution.separation,
        "overlap": distribution.overlap,
        **mixed,
        "triplets": len(triplets),
        "triplets_wrong": float((margins <= 0).mean()) if len(triplets) else None,
    }
    title = f"Distances of {len(names):,} images of {images.n_classes:,} classes"
    figure = partial(draw, "distribution", distribution, cuts, quantiles, distance, title)
    return Mined(table, names, triplets, figure, summary)


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


def mine_triplets(
    vectors: np.ndarray,
    triplets: Triplets,
    distance: str,
    keep: float | int,
    draw: Callable[..., Figure],
) -> Mined:
    """Find the hardest of given triplets, those with the smallest margins."""
    distances = triplet_distances(vectors, triplets.rows, distance)
    margins = distances[:, 1] - distances[:, 0]
    hardest = _hardest_triplets(margins, keep)
    if not len(hardest):
        raise TripletFileError(
            f"{triplets.source}: expected triplets of three images that can be read, got none"
        )
    is_known = np.isfinite(margins)
    parts = {"all": margins[is_known], "kept": margins[hardest]}
    summary: dict[str, Any] = {"distance": distance} | {
        name: {
            "triplets": len(part),
            "wrong": float((part <= 0).mean()),
            "lowest_margin": float(part.min()),
            "median_margin": float(np.median(part)),
            "highest_margin": float(part.max()),
        }
        for name, part in parts.items()
    }
    rows, names = triplets.rows[hardest], np.array(triplets.names, dtype=object)
    columns = [
        *(names[rows[:, slot]] for slot in range(3)),
        *(distances[hardest, slot].astype(np.float32) for slot in range(2)),
        margins[hardest].astype(np.float32),
        triplets.lines[hardest],
    ]
    table = pd.DataFrame(dict(zip(TRIPLETS_COLUMNS, columns, strict=True)))
    highest = summary["kept"]["highest_margin"]
    figure = partial(draw, "distances", *distances[is_known].T, distance, kept_margin=highest)
    return Mined(table, triplets.names, rows, figure, summary)


def _hardest_triplets(margins: np.ndarray, keep: float | int) -> np.ndarray:
    """Return the triplets with the smallest margins, the smallest first, without NaN: `keep` of
    them as an int, or that share as a float."""
    order = np.argsort(margins, kind="stable")
    order = order[np.isfinite(margins[order])]
    count = int(keep) if isinstance(keep, Integral) else max(round(keep * len(order)), 1)
    return order[:count]


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

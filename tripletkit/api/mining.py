"""Offline mining as a whole: find the hard images or triplets, and write them."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from tripletkit.data.images import Images
from tripletkit.errors import DataWarning, TripletFileError
from tripletkit.features.store import open_store
from tripletkit.progress import Stages, no_stages
from tripletkit.results import Result, Section, Table

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from matplotlib.figure import Figure

    from tripletkit.data.outputs import OutputFile, Outputs
    from tripletkit.evaluation.classification import ClassDistances, DistanceDistribution
    from tripletkit.features.encoder import Encoder
    from tripletkit.search.offline_mining import Cut, MinedImages

logger = logging.getLogger("tripletkit")

IMAGES_COLUMNS = ("anchor", "other", "kind", "distance", "rank")
TRIPLETS_COLUMNS = (
    "anchor",
    "positive",
    "negative",
    "to_positive",
    "to_negative",
    "margin",
    "line",
)


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


@dataclass(frozen=True)
class MinedFiles:
    """Where to write what was found; None is not asked for."""

    table: OutputFile | None
    triplets: OutputFile | None
    plot: OutputFile | None

    @classmethod
    def check(
        cls,
        outputs: Outputs,
        table: Path | None,
        triplets: Path | None,
        plot: Path | None,
    ) -> MinedFiles:
        """Refuse early what may not be written."""
        from tripletkit.data.output_forms import DRAWN_FORM, TRIPLETS_FORM, csv_form

        if plot is not None:
            from tripletkit.reporting.style import check_figure_suffix

            check_figure_suffix(plot)
        headings = (",".join(columns) + "\n" for columns in (IMAGES_COLUMNS, TRIPLETS_COLUMNS))
        return cls(
            outputs.optional_file(table, csv_form("a table of `tripletkit mine`", *headings)),
            outputs.optional_file(triplets, TRIPLETS_FORM),
            outputs.optional_file(plot, DRAWN_FORM),
        )

    def write(self, mined: Mined) -> None:
        """Write all of it, or nothing."""
        from tripletkit.data.names import guard_formula
        from tripletkit.data.outputs import open_output
        from tripletkit.data.triplet_files import write_triplet_lines

        with ExitStack() as stack:
            files = []
            if self.table is not None:
                files.append(stack.enter_context(open_output(self.table)))
                texts = mined.table.select_dtypes(["object", "string"])
                texts = texts.map(guard_formula, na_action="ignore")
                mined.table.assign(**texts).to_csv(files[-1], index=False, lineterminator="\n")
            if self.triplets is not None:
                files.append(stack.enter_context(open_output(self.triplets)))
                write_triplet_lines(files[-1], mined.names, mined.triplets)
            if self.plot is not None:
                from tripletkit.reporting.style import render_figure

                form = self.plot.path.suffix.lower().removeprefix(".")
                files.append(stack.enter_context(open_output(self.plot, "wb")))
                files[-1].write(render_figure(mined.draw(), form))
            # A full disk shows here, before any of them has taken its place.
            for file in files:
                file.flush()
        if self.table is not None:
            logger.info("Wrote %s rows: %s.", f"{len(mined.table):,}", self.table)
        if self.triplets is not None:
            logger.info("Wrote %s triplets: %s.", f"{len(mined.triplets):,}", self.triplets)
        if self.plot is not None:
            logger.info("Drew %s.", self.plot)


def mine_classes(
    source: Path | BinaryIO,
    images: Path | None,
    make_encoder: Callable[[], Encoder],
    cache: Path | None,
    find: dict[str, bool],
    per_image: int,
    quantiles: tuple[tuple[float, float], tuple[float, float]],
    stages: Stages = no_stages,
) -> Mined:
    """Mine hard images; names of one image count as one."""
    import numpy as np

    from tripletkit.evaluation.classification import ClassDistances, measure_distribution
    from tripletkit.features.labelled_images import read_labelled, tell_singleton_classes
    from tripletkit.search.offline_mining import find_cuts, mine_images

    found = read_labelled(
        source,
        images,
        cache,
        skip_bad=find["skip_bad"],
        follow_outside=find["follow_outside"],
    )
    encoder = make_encoder()
    vectors = _encode(found.files, encoder, cache, stages)
    kept = found.images[np.isfinite(vectors[found.images, 0])]
    tell_singleton_classes(found.labels, kept)
    names = [found.files.names[image] for image in kept]
    embeddings = vectors[kept]
    of_classes = ClassDistances(embeddings, found.labels.of_image[kept], encoder.distance)
    distribution = measure_distribution(of_classes, stages("distances"))
    cuts = find_cuts(distribution, *quantiles)
    mined = mine_images(embeddings, of_classes, *cuts, per_image, stages("mining"))
    summary = _summarise_classes(of_classes, distribution, cuts, quantiles, mined)

    def draw() -> Figure:
        from tripletkit.reporting.figures import draw_distribution

        title = f"Distances of {len(names):,} images of {of_classes.n_classes:,} classes"
        ends = [(cut.low, cut.high) for cut in cuts]
        return draw_distribution(distribution, ends, quantiles, encoder.distance, title)

    table = _list_images(mined, names)
    return Mined(table, names, mined.triplets(), draw, summary)


def _encode(files: Images, encoder: Encoder, cache: Path | None, stages: Stages) -> np.ndarray:
    with open_store(cache) as store:
        return encoder.encode(files, store, progress=stages("features"))


def _list_images(mined: MinedImages, names: Sequence[str]) -> pd.DataFrame:
    """Return one row for each anchor and mined image, by anchor, positives first."""
    import numpy as np
    import pandas as pd

    from tripletkit.search.offline_mining import NOBODY

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


def mine_triplets(
    source: Path | BinaryIO,
    images: Path | None,
    make_encoder: Callable[[], Encoder],
    cache: Path | None,
    find: dict[str, bool],
    keep: float | int,
    stages: Stages = no_stages,
) -> Mined:
    """Find the hardest of the user's triplets."""
    import numpy as np
    import pandas as pd

    from tripletkit.data.images import open_images
    from tripletkit.data.judgements import open_judgements
    from tripletkit.evaluation.distances import triplet_distances
    from tripletkit.search.offline_mining import hardest_triplets

    asked = open_judgements(source).decided().triplets
    if n_degenerate := int(asked.is_degenerate().sum()):
        warnings.warn(
            f"{n_degenerate:,} triplets name one image twice; they are left out.",
            DataWarning,
            stacklevel=2,
        )
        asked = asked.take(~asked.is_degenerate())
    files = open_images(images, asked.names, asked.first_places(), **find)
    encoder = make_encoder()
    embeddings = _encode(files, encoder, cache, stages)
    distances = triplet_distances(embeddings, asked.rows, encoder.distance)
    margins = distances[:, 1] - distances[:, 0]
    hardest = hardest_triplets(margins, keep)
    if not len(hardest):
        raise TripletFileError(
            f"{asked.source}: expected triplets of three images that can be read, got none"
        )
    rows, names = asked.rows[hardest], np.array(asked.names, dtype=object)
    table = pd.DataFrame(
        {
            "anchor": names[rows[:, 0]],
            "positive": names[rows[:, 1]],
            "negative": names[rows[:, 2]],
            "to_positive": distances[hardest, 0].astype(np.float32),
            "to_negative": distances[hardest, 1].astype(np.float32),
            "margin": margins[hardest].astype(np.float32),
            "line": asked.lines[hardest],
        }
    )
    summary = _summarise_triplets(margins, hardest, encoder.distance)

    def draw() -> Figure:
        from tripletkit.reporting.figures import draw_distances

        known = distances[np.isfinite(margins)]
        highest = summary["kept"]["highest_margin"]
        return draw_distances(known[:, 0], known[:, 1], encoder.distance, kept_margin=highest)

    return Mined(table, asked.names, rows, draw, summary)


def _summarise_classes(
    images: ClassDistances,
    distribution: DistanceDistribution,
    cuts: tuple[Cut, Cut],
    quantiles: tuple[tuple[float, float], tuple[float, float]],
    mined: MinedImages,
) -> dict[str, Any]:
    """Return the distances within and between classes, and what was mined."""
    import numpy as np

    from tripletkit.search.offline_mining import NOBODY

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


def _summarise_triplets(margins: np.ndarray, hardest: np.ndarray, distance: str) -> dict[str, Any]:
    """Return what margins all triplets have, and the hardest ones.

    Args:
        margins: `(n_triplets,)`, NaN where an image could not be read.
        hardest: indices of those kept.
    """
    import numpy as np

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

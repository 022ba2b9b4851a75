"""`tripletkit mine`: hard positives and negatives of labelled pictures, or the hardest triplets."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tripletkit import defaults
from tripletkit.cli.collections import open_collection
from tripletkit.cli.console import progress_bar, say, show_json, warn
from tripletkit.cli.encoders import choose_encoder, pretrained_encoder_options
from tripletkit.cli.labelled import read_labelled, say_lone_classes
from tripletkit.cli.mine_text import (
    describe_classes,
    describe_triplets,
    summarise_classes,
    summarise_triplets,
)
from tripletkit.cli.options import (
    INPUT_FILE,
    INPUT_PATH,
    OUTPUT_FILE,
    FiniteRange,
    cache_option,
    follow_outside_option,
    input_source,
    json_option,
    on_bad_image_option,
    quiet_option,
)

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from matplotlib.figure import Figure

    from tripletkit.features.sources import GivenWeights
    from tripletkit.model.offline_mining import MinedPictures
    from tripletkit.search.encoders import Encoder

_QUANTILE = FiniteRange(0, 1)


class _Keep(click.ParamType):
    """A count such as `500`, or a share such as `0.25` or `25%`."""

    name = "keep"

    def convert(
        self, value: Any, param: click.Parameter | None, context: click.Context | None
    ) -> float | int:
        if isinstance(value, float | int):
            return value
        try:
            if value.endswith("%"):
                keep = float(value.removesuffix("%")) / 100
            else:
                keep = int(value) if value.isascii() and value.isdigit() else float(value)
        except ValueError:
            keep = 0.0
        if not (keep >= 1 if isinstance(keep, int) else 0 < keep <= 1):
            self.fail(
                f"expected a count such as 500 or a share such as 0.25 or 25%, got {value}.",
                param,
                context,
            )
        return keep


@click.command()
@click.argument("labels", type=INPUT_PATH, required=False)
@click.argument("images", type=INPUT_PATH, required=False, metavar="IMAGES")
@click.option(
    "--triplets",
    "triplets_file",
    type=INPUT_FILE,
    help="Instead of LABELS: find the hardest of these triplets.",
)
@click.option(
    "-o",
    "--output",
    type=OUTPUT_FILE,
    help="CSV to write: anchor,other,kind,distance,rank. With --triplets "
    "anchor,positive,negative,to_positive,to_negative,margin,line.",
)
@click.option(
    "--triplets-out", type=OUTPUT_FILE, help="Triplet file to write, for `tripletkit train`."
)
@click.option(
    "--plot",
    "plot_file",
    type=OUTPUT_FILE,
    help="SVG, PNG or PDF to draw: the distances of positives and negatives, with the cuts.",
)
@click.option(
    "--per-picture",
    type=click.IntRange(min=1),
    metavar="N",
    help="Positives, and negatives, of each picture at most.  "
    f"[default: {defaults.MINED_PER_PICTURE}]",
)
@click.option(
    "--positive-quantiles",
    type=(_QUANTILE, _QUANTILE),
    metavar="LOW HIGH",
    help="Mine positives between these quantiles of all distances within classes.  "
    f"[default: {defaults.POSITIVE_QUANTILES[0]:g} {defaults.POSITIVE_QUANTILES[1]:g}]",
)
@click.option(
    "--negative-quantiles",
    type=(_QUANTILE, _QUANTILE),
    metavar="LOW HIGH",
    help="Mine negatives between these quantiles of all distances between classes.  "
    f"[default: {defaults.NEGATIVE_QUANTILES[0]:g} {defaults.NEGATIVE_QUANTILES[1]:g}]",
)
@click.option(
    "--keep",
    type=_Keep(),
    metavar="N|SHARE",
    help="With --triplets: how many of them, as a count or a share.  "
    f"[default: {defaults.KEPT_TRIPLETS:g}]",
)
@pretrained_encoder_options
@on_bad_image_option
@follow_outside_option
@cache_option
@json_option
@quiet_option
def mine(
    labels: Path | None,
    images: Path | None,
    triplets_file: Path | None,
    output: Path | None,
    triplets_out: Path | None,
    plot_file: Path | None,
    per_picture: int | None,
    positive_quantiles: tuple[float, float] | None,
    negative_quantiles: tuple[float, float] | None,
    keep: float | int | None,
    model: Path | None,
    as_features: bool,
    backbone: Sequence[str] | None,
    weights: GivenWeights,
    views: Sequence[str] | None,
    on_bad_image: str,
    follow_outside: bool,
    cache: Path | None,
    as_json: bool,
) -> None:
    """Find hard positives and negatives of labelled pictures, or the hardest of your triplets.

    \b
    tripletkit mine labels.csv images/ -o mined.csv --triplets-out hard.txt --plot mined.png
    tripletkit mine images/train images/ --model m1 --triplets-out hard.txt --per-picture 5
    tripletkit mine --triplets train.txt images/ --model m1 --triplets-out hardest.txt

    LABELS is a CSV with the columns name and label, or a folder inside IMAGES with a subfolder
    for each class. Hard positives are the farthest pictures of the class, hard negatives the
    nearest of others. The very hardest are often wrong labels; the quantiles cut them off.
    Distances are those of the pretrained backbone, or of --model. With --triplets, the
    hardest are those with the smallest d(anchor, negative) - d(anchor, positive).
    """
    if images is None:
        labels, images = None, labels
    _check_arguments(labels, images, triplets_file)
    of_labels = {
        "--per-picture": per_picture,
        "--positive-quantiles": positive_quantiles,
        "--negative-quantiles": negative_quantiles,
    }
    _check_options(triplets_file is not None, of_labels, {"--keep": keep})
    _check_outputs(labels or triplets_file, [output, triplets_out, plot_file], plot_file)
    if model is None and backbone is None and not as_features:
        backbone = [defaults.BACKBONE]

    skip_bad = on_bad_image == "skip"
    find = {"skip_bad": skip_bad, "follow_outside": follow_outside}

    def make_encoder() -> Encoder:
        return choose_encoder(model, as_features, backbone, weights, views)

    if triplets_file is not None:
        mined = _mine_triplets(
            triplets_file, images, make_encoder, cache, find, keep or defaults.KEPT_TRIPLETS
        )
    else:
        mined = _mine_classes(
            labels,
            images,
            make_encoder,
            cache,
            find,
            per_picture or defaults.MINED_PER_PICTURE,
            positive_quantiles or defaults.POSITIVE_QUANTILES,
            negative_quantiles or defaults.NEGATIVE_QUANTILES,
        )
    _write(mined, output, triplets_out, plot_file)
    if as_json:
        show_json(mined.summary)
    else:
        click.echo(mined.text)


@dataclass(frozen=True)
class _Mined:
    """What was found: for the table, the triplet file, the figure and standard output.

    Attributes:
        table: rows of `--output`.
        names, triplets: of `--triplets-out`.
        draw: makes the figure of `--plot`.
        summary: of `--json`.
        text: the summary for people.
    """

    table: pd.DataFrame
    names: Sequence[str]
    triplets: np.ndarray
    draw: Callable[[], Figure]
    summary: dict[str, Any]
    text: str


def _check_arguments(labels: Path | None, images: Path | None, triplets: Path | None) -> None:
    if images is None:
        raise click.UsageError("Missing argument 'IMAGES'.")
    if labels is None and triplets is None:
        raise click.UsageError(
            f"Missing argument 'IMAGES': {images} alone says nothing of which pictures are "
            "alike. Give LABELS before it, or --triplets."
        )
    if labels is not None and triplets is not None:
        raise click.UsageError("--triplets stands in the place of LABELS; give IMAGES alone.")
    if not images.is_dir():
        raise click.BadParameter(f"{images} is not a folder.", param_hint="'IMAGES'")


def _check_options(
    has_triplets: bool, of_labels: dict[str, Any], of_triplets: dict[str, Any]
) -> None:
    given, needed = (of_labels, "LABELS") if has_triplets else (of_triplets, "--triplets")
    for option, value in given.items():
        if value is not None:
            raise click.UsageError(f"{option} is for {needed}.")
    for option, value in of_labels.items():
        if isinstance(value, tuple) and value[0] >= value[1]:
            raise click.BadParameter(
                f"expected a lower and a higher share, got {value[0]:g} {value[1]:g}.",
                param_hint=f"'{option}'",
            )


def _check_outputs(source: Path, outputs: Sequence[Path | None], plot_file: Path | None) -> None:
    from tripletkit.data.outputs import check_output

    paths = [path for path in outputs if path is not None]
    targets = [path.resolve() for path in (source, *paths)]
    if len(set(targets)) < len(targets):
        raise click.UsageError("What is read and what is written must be different files.")
    for path in paths:
        check_output(path)
    if plot_file is not None:
        from tripletkit.report.style import check_figure_output

        check_figure_output(plot_file)


def _write(
    mined: _Mined, output: Path | None, triplets_out: Path | None, plot_file: Path | None
) -> None:
    """Write what was asked for: all of it, or nothing."""
    from tripletkit.data.outputs import open_output
    from tripletkit.data.triplets import write_triplet_lines

    with ExitStack() as stack:
        files = []
        if output is not None:
            files.append(stack.enter_context(open_output(output)))
            mined.table.to_csv(files[-1], index=False, lineterminator="\n")
        if triplets_out is not None:
            files.append(stack.enter_context(open_output(triplets_out)))
            write_triplet_lines(files[-1], mined.names, mined.triplets)
        if plot_file is not None:
            from tripletkit.report.style import render_figure

            form = plot_file.suffix.lower().removeprefix(".")
            files.append(stack.enter_context(open_output(plot_file, "wb")))
            files[-1].write(render_figure(mined.draw(), form))
        # A full disk shows here, before any of them has taken its place.
        for file in files:
            file.flush()
    if output is not None:
        say(f"Wrote {len(mined.table):,} rows: {output}.")
    if triplets_out is not None:
        say(f"Wrote {len(mined.triplets):,} triplets: {triplets_out}.")
    if plot_file is not None:
        say(f"Drew {plot_file}.")


def _mine_classes(
    source: Path,
    images: Path,
    make_encoder: Callable[[], Encoder],
    cache: Path | None,
    find: dict[str, bool],
    per_picture: int,
    positive_quantiles: tuple[float, float],
    negative_quantiles: tuple[float, float],
) -> _Mined:
    """Mine hard pictures; names of one picture count as one."""
    from tripletkit.evaluation.class_distances import ClassDistances, measure_distribution
    from tripletkit.model.offline_mining import find_cuts, mine_pictures

    found = read_labelled(source, images, cache, **find)
    encoder = make_encoder()
    collection = open_collection(found.files, encoder.source, cache, skip_bad=find["skip_bad"])
    kept = found.pictures[collection.is_usable()[found.pictures]]
    say_lone_classes(found, kept)
    names = [found.files.names[picture] for picture in kept]
    codes = encoder.encode(collection.features[kept])
    pictures = ClassDistances(codes, found.labels.of_picture[kept], encoder.distance)
    with progress_bar("distances", "picture") as progress:
        distribution = measure_distribution(pictures, progress)
    cuts = find_cuts(distribution, positive_quantiles, negative_quantiles)
    with progress_bar("mining", "picture") as progress:
        mined = mine_pictures(codes, pictures, *cuts, per_picture, progress)
    summary = summarise_classes(
        pictures, distribution, cuts, (positive_quantiles, negative_quantiles), mined
    )

    def draw() -> Figure:
        from tripletkit.report.figures import draw_distribution

        title = f"{len(names):,} pictures of {pictures.n_classes:,} classes"
        return draw_distribution(
            distribution, [(cut.low, cut.high) for cut in cuts], encoder.distance, title
        )

    return _Mined(
        _list_pictures(mined, names),
        names,
        mined.triplets(),
        draw,
        summary,
        describe_classes(summary),
    )


def _list_pictures(mined: MinedPictures, names: Sequence[str]) -> pd.DataFrame:
    """Return one row for each anchor and mined picture, by anchor, positives first."""
    import numpy as np
    import pandas as pd

    from tripletkit.model.offline_mining import NOBODY

    names = np.array(names, dtype=object)
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
                    "anchor": names[anchors],
                    "other": names[others[anchors, ranks]],
                    "kind": kind,
                    "distance": distances[anchors, ranks].astype(np.float32),
                    "rank": ranks + 1,
                }
            )
        )
    return pd.concat(parts).sort_values("place", kind="stable").drop(columns="place")


def _mine_triplets(
    source: Path,
    images: Path,
    make_encoder: Callable[[], Encoder],
    cache: Path | None,
    find: dict[str, bool],
    keep: float | int,
) -> _Mined:
    """Find the hardest of the user's triplets."""
    import numpy as np
    import pandas as pd

    from tripletkit.data.triplets import read_triplets
    from tripletkit.evaluation.distances import triplet_distances
    from tripletkit.features.collection import find_files
    from tripletkit.model.offline_mining import hardest_triplets

    asked = read_triplets(input_source(source))
    if n_degenerate := int(asked.is_degenerate().sum()):
        warn(f"{n_degenerate:,} triplets name one picture twice; they are left out.")
        asked = asked.take(~asked.is_degenerate())
    files = find_files(asked.names, asked.first_places(), images, **find)
    encoder = make_encoder()
    collection = open_collection(files, encoder.source, cache, skip_bad=find["skip_bad"])
    codes = encoder.encode(collection.features)
    distances = triplet_distances(codes, asked.rows, encoder.distance)
    margins = distances[:, 1] - distances[:, 0]
    hardest = hardest_triplets(margins, keep)
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
    summary = summarise_triplets(margins, hardest, encoder.distance)

    def draw() -> Figure:
        from tripletkit.report.figures import draw_distances

        known = distances[np.isfinite(margins)]
        highest = summary["kept"]["highest_margin"]
        return draw_distances(*known.T, encoder.distance, kept_margin=highest)

    return _Mined(table, asked.names, rows, draw, summary, describe_triplets(summary))

"""The figures of a model, and the house style of figures, collages and the report.

Figures take plain arrays and a theme and return a matplotlib figure. Colours are those of Okabe
and Ito, which people with any kind of colour vision tell apart; where two classes share one, their
marks differ in shape.

Reference:
    Okabe, Ito. Color Universal Design. 2008. https://jfly.uni-koeln.de/color/
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.backend_bases import get_registered_canvas_class
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.offsetbox import AnnotationBbox, OffsetImage
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator, PercentFormatter, StrMethodFormatter
from PIL import Image, ImageFont

from tripletkit import defaults
from tripletkit.data.decoding import read_image
from tripletkit.data.outputs import MARK, OutputFile, open_output
from tripletkit.errors import MissingExtraError
from tripletkit.evaluation.classification import DistanceDistribution
from tripletkit.evaluation.intervals import wilson_interval
from tripletkit.evaluation.pooled import LearningCurve
from tripletkit.evaluation.scoring import Slice

# The first comes with matplotlib and has Latin, Greek, Cyrillic and more; the others, where
# they are installed, what it lacks.
_FAMILIES = (
    "DejaVu Sans",
    "Noto Sans CJK JP",
    "Noto Sans CJK SC",
    "Hiragino Sans",
    "Yu Gothic",
    "Microsoft YaHei",
    "WenQuanYi Zen Hei",
    "Arial Unicode MS",
)


@cache
def _installed_families() -> tuple[str, ...]:
    """Return which of `_FAMILIES` there are, the first always among them."""
    there = set(font_manager.get_font_names())
    return tuple(family for family in _FAMILIES if family in there)


def find_font(text: str, size_px: int) -> ImageFont.FreeTypeFont:
    """Return a font for drawing a text with Pillow: the first that has most of its letters."""
    letters = frozenset(map(ord, text))
    family = max(_installed_families(), key=lambda family: len(letters & _letters(family)))
    return _load(family, size_px)


@cache
def _letters(family: str) -> frozenset[int]:
    return frozenset(font_manager.get_font(font_manager.findfont(family)).get_charmap())


@cache
def _load(family: str, size_px: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(font_manager.findfont(family), size_px)


_BLUE, _SKY, _GREEN, _ORANGE = "#0072B2", "#56B4E9", "#009E73", "#E69F00"
_VERMILLION, _PURPLE, _YELLOW = "#D55E00", "#CC79A7", "#F0E442"

MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
_DOTS_PER_INCH = 200


@dataclass(frozen=True)
class _Theme:
    """The colours of a light or a dark page.

    Attributes:
        background, text, muted, grid: of the page, its words, its lesser words and its lines.
        empty: behind an image that does not fill its square.
        right, wrong: of answers, and of the near and the far image of a triplet.
        classes: of labels, in turn.
        scale: name of matplotlib's colour map for shares.
    """

    background: str
    text: str
    muted: str
    grid: str
    empty: str
    right: str
    wrong: str
    classes: tuple[str, ...]
    scale: str


LIGHT = _Theme(
    background="#ffffff",
    text="#1a1a1a",
    muted="#595959",
    grid="#d9d9d9",
    empty="#f0f0f0",
    right=_BLUE,
    wrong=_VERMILLION,
    classes=(_BLUE, _ORANGE, _GREEN, _PURPLE, _SKY, _VERMILLION, "#000000"),
    scale="Blues",
)
DARK = _Theme(
    background="#16181c",
    text="#ececec",
    muted="#b0b0b0",
    grid="#3a3d44",
    empty="#24272d",
    right=_SKY,
    wrong=_ORANGE,
    classes=(_SKY, _ORANGE, _GREEN, _PURPLE, _YELLOW, _VERMILLION, "#ffffff"),
    scale="cividis",
)


def _make_axes(
    width_in: float, height_in: float, theme: _Theme, n: int = 1
) -> tuple[Figure, list[Axes]]:
    """Return a new figure with axes beside each other; nothing global is touched."""
    figure = Figure(figsize=(width_in, height_in), layout="constrained", facecolor=theme.background)
    FigureCanvasAgg(figure)
    found = []
    for number in range(1, n + 1):
        axes = figure.add_subplot(1, n, number, facecolor=theme.background)
        for side, spine in axes.spines.items():
            spine.set_visible(side in ("left", "bottom"))
            spine.set_color(theme.muted)
        # Of both, or the small ticks of a logarithmic axis stay black on a dark page.
        axes.tick_params(which="both", colors=theme.muted, labelsize=9)
        axes.grid(True, color=theme.grid, linewidth=0.6)
        axes.set_axisbelow(True)
        found.append(axes)
    return figure, found


def _text_style(theme: _Theme, size: float) -> dict[str, Any]:
    return {"fontsize": size, "fontfamily": _installed_families(), "color": theme.text}


def _plain_text(text: str) -> str:
    """Return a text of the user's so that matplotlib shows it as it is, not as a formula.

    Every text that is not our own goes through here, once.
    """
    return text.replace("$", r"\$")


def _label_axes(axes: Axes, theme: _Theme, title: str, x: str, y: str) -> None:
    axes.set_title(_plain_text(title), loc="left", **_text_style(theme, 11))
    axes.set_xlabel(x, **_text_style(theme, 9.5))
    axes.set_ylabel(y, **_text_style(theme, 9.5))


def _add_legend(axes: Axes, theme: _Theme, **options: Any) -> None:
    fonts = {"size": 9, "family": _installed_families()}
    axes.legend(frameon=False, labelcolor=theme.text, prop=fonts, **options)


def _write_beside(
    axes: Axes, at: float, height: float, text: str, lift: float, **style: Any
) -> None:
    """Write a text to the left of a vertical line, at a share of its height and so much above."""
    axes.annotate(
        text,
        (at, height),
        xycoords=axes.get_xaxis_transform(),
        xytext=(-3, lift),
        textcoords="offset points",
        ha="right",
        **style,
    )


def write_figure(file: OutputFile, figure: Figure) -> None:
    """Write a figure in the format that the suffix says; whole or not at all."""
    data = render_figure(figure, file.path.suffix.lower().removeprefix("."))
    with open_output(file, "wb") as opened:
        opened.write(data)


def darken(svg: bytes) -> bytes:
    """Return a light SVG figure as it is on a dark page, without drawing it again.

    Colours of classes stay, as they do not go over one by one, and so do pixels.
    """
    names = ("background", "text", "muted", "grid", "right", "wrong")
    dark = {getattr(LIGHT, name).lower().encode(): getattr(DARK, name) for name in names}
    return re.sub(b"|".join(dark), lambda found: dark[found[0]].lower().encode(), svg)


def render_figure(figure: Figure, form: str) -> bytes:
    """Return a figure as a file's bytes, the same each time."""
    buffer = io.BytesIO()
    # A date or chance ids would make every run's file another; text as text can be edited and
    # has every letter that the viewer's fonts have.
    fixed: dict[Any, Any] = {"svg.hashsalt": "tripletkit", "svg.fonttype": "none"}
    about = {
        "svg": {"Date": None, "Creator": MARK},
        "pdf": {"CreationDate": None, "Creator": MARK},
        "png": {"Software": MARK},
    }
    with matplotlib.rc_context(fixed), warnings.catch_warnings():
        if form == "svg":
            warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        # `savefig` draws everything twice: it may have to cut off a border, which ours never has.
        figure.dpi = _DOTS_PER_INCH
        canvas = get_registered_canvas_class(form)(figure)
        getattr(canvas, f"print_{form}")(buffer, metadata=about[form])
    return buffer.getvalue()


def read_thumbnail(path: Path, side_px: int) -> Image.Image:
    """Return an image fitted into a square, its shape kept; smaller ones grow."""
    image = read_image(path, at_least_px=side_px)
    resample = Image.Resampling.LANCZOS if min(image.size) > side_px else Image.Resampling.BICUBIC
    # `ImageOps.contain` leaves nothing of an image that is much longer than wide.
    scale = side_px / max(image.size)
    width, height = (max(1, round(side * scale)) for side in image.size)
    return image.resize((width, height), resample)


# Maps.

PROJECTIONS = {"pca": "PCA", "umap": "UMAP"}


def check_projection(name: str) -> None:
    """Refuse early what `project_embeddings` would refuse."""
    # Found, not imported: umap takes seconds to load, and loads TensorFlow with all its talk.
    if name == "umap" and find_spec("umap") is None:
        raise MissingExtraError(
            "the projection umap needs the package umap-learn, which is not installed. Install "
            "it with `pip install 'tripletkit[map]'`, or take `projection=pca`."
        )


def project_embeddings(embeddings: np.ndarray, name: str) -> np.ndarray:
    """Return `(n_images, 2)` places, 0 to 1: PCA keeps large distances, UMAP neighbourhoods.

    Reference:
        McInnes, Healy, Melville. UMAP. 2018. arXiv:1802.03426.
    """
    places = _umap(embeddings) if name == "umap" else _pca(embeddings)
    low, high = places.min(axis=0), places.max(axis=0)
    return (places - low) / np.where(high > low, high - low, 1.0)


def choose_apart(places: np.ndarray, step: float, n_most: int) -> np.ndarray:
    """Return the indices of places of which no two are nearer than a step, the first ones first."""
    kept: list[int] = []
    for index, place in enumerate(places):
        if len(kept) == n_most:
            break
        if not kept or np.abs(places[kept] - place).max(axis=1).min() >= step:
            kept.append(index)
    return np.array(kept, dtype=np.int64)


def _pca(embeddings: np.ndarray) -> np.ndarray:
    centred = embeddings.astype(np.float64) - embeddings.mean(axis=0, dtype=np.float64)
    _, _, directions = np.linalg.svd(centred, full_matrices=False)
    directions = directions[:2]
    # The sign of a direction is chance; fix it, so that a map does not flip from run to run.
    largest = np.abs(directions).argmax(axis=1)
    directions *= np.sign(directions[np.arange(len(directions)), largest])[:, None]
    places = centred @ directions.T
    return np.pad(places, ((0, 0), (0, 2 - places.shape[1])))


def _umap(embeddings: np.ndarray) -> np.ndarray:
    import umap

    n_neighbors = min(15, len(embeddings) - 1)
    return umap.UMAP(
        n_neighbors=max(n_neighbors, 2),
        random_state=defaults.SEED,
        n_jobs=1,
        init="random" if len(embeddings) < 10 else "spectral",
    ).fit_transform(embeddings)


# Figures.

_DISTANCE_LABELS = {
    "l2": "Euclidean distance",
    "l1": "L1 distance",
    "squared-l2": "squared Euclidean distance",
    "cosine": "cosine distance",
}
_N_BINS = 40
_N_FINE_BINS = 100
# More points than this say no more, and make a file large.
_MOST_POINTS = 5_000
_MAP_THUMBNAILS = 120
_MAP_THUMBNAIL_PX = 96
_MOST_IN_LEGEND = 16
# A matrix of more labels has no room for its numbers.
_MOST_NUMBERED = 15


def draw_history(history: pd.DataFrame, best_epoch: int, theme: _Theme = LIGHT) -> Figure:
    """Draw loss, active share, and accuracy on validation and held-out triplets of each epoch."""
    panels = [
        ("loss", "Loss", "mean loss of a triplet"),
        ("active", "Active", "share of triplets with a loss"),
        ("val_accuracy", "Validation accuracy", "share answered right"),
        ("held_out_accuracy", "Held-out accuracy", "share answered right"),
    ]
    panels = [panel for panel in panels if history[panel[0]].notna().any()]
    figure, drawn = _make_axes(3.4 * len(panels), 3.1, theme, len(panels))
    for axes, (column, title, unit) in zip(drawn, panels, strict=True):
        axes.axvline(best_epoch, color=theme.muted, linestyle="--", linewidth=1)
        axes.plot(history["epoch"], history[column], color=theme.right, marker="o", markersize=4)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        if column == "loss" and (history[column] > 0).all():
            axes.set_yscale("log")
        elif column != "loss":
            axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=None))
        _label_axes(axes, theme, title, f"epoch (dashed: {best_epoch}, kept)", unit)
    return figure


def draw_learning_curve(curve: LearningCurve, theme: _Theme = LIGHT) -> Figure:
    """Draw accuracy against the number of judgements, measured and as the fit goes on."""
    figure, (axes,) = _make_axes(6.4, 3.6, theme)
    n, most = np.array(curve.n_triplets), curve.n_now + curve.n_more
    ahead = np.linspace(n[0], most, 200)
    line: dict[str, Any] = {"color": theme.muted, "linestyle": "--", "linewidth": 1.2}
    axes.plot(ahead, curve.accuracy_at(ahead), label="fitted", **line)
    axes.plot(n, curve.accuracies, color=theme.right, marker="o", label="measured")
    points = [*zip(n, curve.accuracies, curve.intervals, [theme.right] * len(n), strict=True)]
    if curve.with_fewer_images is not None:
        style: dict[str, Any] = {"color": theme.wrong, "marker": "x", "linewidth": 0}
        axes.plot(n[:1], [curve.with_fewer_images], label="of fewer images", **style)
        points.append((n[0], curve.with_fewer_images, curve.fewer_interval, theme.wrong))
    for at, accuracy, interval, colour in points:
        if interval is not None:
            ends = [[accuracy - interval.low], [interval.high - accuracy]]
            axes.errorbar([at], [accuracy], ends, color=colour, linewidth=1, capsize=3)
    for at, text in ((curve.n_now, "now"), (most, f"{curve.n_more:,} more")):
        axes.axvline(at, color=theme.muted, linewidth=0.8, linestyle=":")
        _write_beside(axes, at, 0, text, 4, **_text_style(theme, 9))
    axes.set_xlim(left=0)
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=1))
    _label_axes(axes, theme, "Accuracy on held-out images", "judgements", "answered right")
    _add_legend(axes, theme, loc="best")
    return figure


def draw_distances(
    to_positive: np.ndarray,
    to_negative: np.ndarray,
    distance: str,
    theme: _Theme = LIGHT,
    *,
    kept_margin: float | None = None,
) -> Figure:
    """Draw the distances of each triplet against each other, and both as histograms.

    Where the hardest triplets were chosen, `kept_margin` is the largest margin of theirs.
    """
    figure, (axes, apart) = _make_axes(9.6, 4.3, theme, 2)
    unit = _DISTANCE_LABELS[distance]
    high = max(to_positive.max(), to_negative.max()) * 1.03 or 1.0
    shown = np.linspace(0, len(to_positive) - 1, min(len(to_positive), _MOST_POINTS)).astype(int)
    is_right = (to_positive < to_negative)[shown]
    for chosen, name, colour, marker in (
        (is_right, "right", theme.right, "o"),
        (~is_right, "wrong", theme.wrong, "x"),
    ):
        axes.scatter(
            to_positive[shown][chosen],
            to_negative[shown][chosen],
            s=12,
            color=colour,
            marker=marker,
            linewidth=0.9 if marker == "x" else 0,
            alpha=0.55 if marker == "o" else 0.85,
            label=name,
            rasterized=True,
        )
    axes.plot([0, high], [0, high], color=theme.muted, linewidth=1)
    if kept_margin is not None:
        ends = [kept_margin, high + kept_margin]
        style: dict[str, Any] = {"color": theme.text, "linestyle": "--", "linewidth": 1.2}
        axes.plot([0, high], ends, label="the hardest are below", **style)
    axes.set(xlim=(0, high), ylim=(0, high), aspect="equal")
    _label_axes(axes, theme, "Each triplet", f"anchor to positive ({unit})", "anchor to negative")
    _add_legend(axes, theme, loc="lower right")

    bins = np.linspace(0, high, _N_BINS + 1).tolist()
    _draw_histograms(apart, bins, theme, to_the_positive=to_positive, to_the_negative=to_negative)
    # Room for the legend above what is drawn.
    apart.set_ylim(top=1.25 * apart.get_ylim()[1])
    _label_axes(apart, theme, "How far apart the two are", unit, "triplets")
    _add_legend(apart, theme, loc="upper left", ncols=2)
    return figure


def _draw_histograms(axes: Axes, bins: list[float], theme: _Theme, **values: np.ndarray) -> None:
    """Draw two histograms over each other, told apart by colour and by lines."""
    styles = ((theme.right, None), (theme.wrong, "///"))
    for (name, of_name), (colour, hatch) in zip(values.items(), styles, strict=True):
        line: dict[str, Any] = {"color": colour, "hatch": hatch, "linewidth": 1.4}
        axes.hist(of_name, bins, histtype="stepfilled", color=colour, alpha=0.3)
        axes.hist(of_name, bins, histtype="step", label=name.replace("_", " "), **line)


def draw_distribution(
    distribution: DistanceDistribution,
    cuts: Sequence[tuple[float, float]],
    quantiles: Sequence[tuple[float, float]],
    distance: str,
    title: str,
    theme: _Theme = LIGHT,
) -> Figure:
    """Draw how far pairs of one class and of two classes are apart, and where mining looks.

    Of mined positives, then of mined negatives, `cuts` are the lowest and the highest distance,
    which may be infinite, and `quantiles` the shares of all distances of the kind that these are; 0
    and 1 have no line. `title` says what images these are.
    """
    figure, (axes,) = _make_axes(8.6, 4.6, theme)
    edges, *counts = distribution.coarsen(_N_FINE_BINS)
    kinds = (
        ("one class", "positives", theme.right, None, "\\"),
        ("two classes", "negatives", theme.wrong, "--", "//"),
    )
    for of_kind, cut, shares, kind in zip(counts, cuts, quantiles, kinds, strict=True):
        pairs, mined, colour, line, hatch = kind
        height = of_kind / of_kind.sum()
        style: dict[str, Any] = {"color": colour, "linestyle": line, "linewidth": 1.5}
        axes.stairs(height, edges, label=f"pairs of {pairs}: {of_kind.sum():,}", **style)
        low, high = np.clip(cut, edges[0], edges[-1])
        inside = axes.stairs(
            height,
            edges,
            fill=True,
            facecolor=to_rgba(colour, 0.25),
            edgecolor=to_rgba(colour, 0.6),
            linewidth=0,
            hatch=hatch,
            label=f"{mined} are mined here",
        )
        inside.set_clip_path(Rectangle((low, 0), high - low, 1, transform=axes.transData))
        for at, share in zip(cut, shares, strict=True):
            if 0 < share < 1:
                axes.axvline(at, color=colour, linestyle=":", linewidth=1.4)
                style = _text_style(theme, 8) | {"rotation": 90, "va": "top"}
                _write_beside(axes, at, 0.985, f"{share:.4g} of {mined}", 0, **style)
    axes.set_ylim(0, 1.45 * max((of_kind / of_kind.sum()).max() for of_kind in counts))
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=None))
    _label_axes(axes, theme, title, _DISTANCE_LABELS[distance], "share of the pairs of its kind")
    _add_legend(axes, theme, loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=2)
    return figure


def draw_margins(
    margins: np.ndarray, by_margin: Sequence[Slice], distance: str, theme: _Theme = LIGHT
) -> Figure:
    """Draw accuracy against the size of the margin, and how often each margin occurs."""
    figure, (axes, margin_axes) = _make_axes(9.6, 3.9, theme, 2)
    unit = _DISTANCE_LABELS[distance]
    lowest = 0.5
    for part in by_margin:
        interval = wilson_interval(part.accuracy * part.n, part.n)
        middle = (part.low + part.high) / 2
        axes.plot([part.low, part.high], [part.accuracy] * 2, color=theme.right, linewidth=3)
        axes.plot([middle] * 2, [interval.low, interval.high], color=theme.right, linewidth=1)
        lowest = min(lowest, interval.low)
    axes.axhline(0.5, color=theme.muted, linestyle="--", linewidth=1)
    axes.set_ylim(max(0, lowest - 0.03), 1.015)
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    title = "Accuracy by size of the margin"
    _label_axes(axes, theme, title, f"size of the margin ({unit})", "answered right")

    high = np.abs(margins).max() or 1.0
    bins = np.linspace(-high, high, _N_BINS + 1).tolist()
    right, wrong = margins[margins > 0], margins[margins <= 0]
    _draw_histograms(margin_axes, bins, theme, right=right, wrong=wrong)
    margin_axes.axvline(0, color=theme.muted, linewidth=1)
    x = "d(anchor, negative) - d(anchor, positive)"
    _label_axes(margin_axes, theme, "Margins", x, "triplets")
    _add_legend(margin_axes, theme, loc="upper left")
    return figure


def draw_map(
    places: np.ndarray,
    paths: Sequence[Path],
    projection: str,
    labels: Sequence[str] | None = None,
    theme: _Theme = LIGHT,
) -> Figure:
    """Draw the embeddings on a plane, with images where there is room."""
    figure, (axes,) = _make_axes(9.6, 7.6, theme)
    imaged = choose_apart(places, 0.075, _MAP_THUMBNAILS)
    is_dot = np.ones(len(places), dtype=bool)
    is_dot[imaged] = False
    names = np.array(labels if labels is not None else [""] * len(places), dtype=object)
    distinct = sorted(set(names))
    for number, label in enumerate(distinct):
        colour, marker = _class_mark(number, theme)
        style: dict[str, Any] = {"color": colour, "marker": marker, "linewidth": 0}
        x, y = places[(names == label) & is_dot].T
        axes.scatter(x, y, s=30, zorder=3, **style)
        # A legend leaves out what begins with `_`.
        named = _plain_text(f" {label}" if label.startswith("_") else label)
        axes.scatter([], [], s=40, label=named, **style)
        for index in np.intersect1d(imaged, np.flatnonzero(names == label)):
            _add_thumbnail(axes, places[index], paths[index], colour, theme)
    if labels is not None and len(distinct) <= _MOST_IN_LEGEND:
        _add_legend(axes, theme, loc="center left", bbox_to_anchor=(1, 0.5))
    axes.set(xlim=(-0.04, 1.04), ylim=(-0.04, 1.04), xticks=[], yticks=[])
    _label_axes(axes, theme, f"{len(places):,} images by their embeddings ({projection})", "", "")
    return figure


def _add_thumbnail(axes: Axes, place: np.ndarray, path: Path, colour: str, theme: _Theme) -> None:
    thumbnail = np.asarray(read_thumbnail(path, _MAP_THUMBNAIL_PX))
    box = OffsetImage(thumbnail, zoom=34 / _MAP_THUMBNAIL_PX)
    frame = {"edgecolor": colour, "facecolor": theme.background, "linewidth": 1.4}
    axes.add_artist(AnnotationBbox(box, tuple(place), pad=0.08, zorder=2, bboxprops=frame))


def draw_confusion(counts: np.ndarray, labels: Sequence[str], theme: _Theme = LIGHT) -> Figure:
    """Draw how often each label was taken for another."""
    side = min(max(4.2, 0.55 * len(labels) + 1.8), 14)
    figure, (axes,) = _make_axes(side + 0.8, side, theme)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    image = axes.imshow(shares, cmap=theme.scale, vmin=0, vmax=1)
    axes.grid(False)
    fonts = _text_style(theme, 9) | {"color": theme.muted}
    shown = [_plain_text(label) for label in labels]
    axes.set_xticks(range(len(labels)), shown, rotation=45, ha="right", **fonts)
    axes.set_yticks(range(len(labels)), shown, **fonts)
    if len(labels) <= _MOST_NUMBERED:
        for row, column in np.ndindex(counts.shape):
            red, green, blue, _ = image.cmap(image.norm(shares[row, column]))
            is_bright = 0.299 * red + 0.587 * green + 0.114 * blue > 0.5
            axes.text(
                column,
                row,
                f"{counts[row, column]:,}" if counts[row, column] else "·",
                color="#111111" if is_bright else "#ffffff",
                ha="center",
                va="center",
                fontsize=9,
            )
    bar = figure.colorbar(image, ax=axes, shrink=0.8, format=PercentFormatter(1, decimals=0))
    bar.ax.tick_params(colors=theme.muted, labelsize=9)
    bar.outline.set_visible(False)
    _label_axes(axes, theme, "Label that the neighbours say", "said", "true")
    return figure


def _class_mark(number: int, theme: _Theme) -> tuple[str, str]:
    """Return colour and shape of a label: no two of the first 56 have both in common."""
    turn, place = divmod(number, len(theme.classes))
    return theme.classes[place], MARKERS[(place + turn) % len(MARKERS)]

"""The report: one HTML file that holds all it shows and asks the network for nothing."""

from __future__ import annotations

import base64
import csv
import gzip
import io
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from matplotlib.figure import Figure

from tripletkit import __version__, defaults
from tripletkit.data.names import guard_formula
from tripletkit.data.output_forms import marked_form
from tripletkit.data.outputs import Destination, open_output
from tripletkit.data.triplets import Triplets
from tripletkit.evaluation.baselines import Baseline
from tripletkit.model.settings import HeadSettings
from tripletkit.reporting import figures
from tripletkit.reporting.collages import read_thumbnail
from tripletkit.reporting.confusion import confuse_labels
from tripletkit.reporting.findings import list_accuracies, list_warnings
from tripletkit.reporting.model_view import ModelView
from tripletkit.reporting.projections import PROJECTIONS, choose_apart, project_embeddings
from tripletkit.reporting.style import DARK, LIGHT, Theme, render_figure
from tripletkit.search.exact import find_neighbors

_TEMPLATE = "report.html.j2"
_N_MISTAKES, _N_CLOSE = 60, 30
_N_CULPRITS = 8
_N_QUERIES, _N_NEIGHBORS = 6, 8
_N_MAP_IMAGES = 100
_MAP_STEP = 0.07
_N_MAP_DOTS = 3_000
_THUMBNAIL_PX = 128
# With at most some 420 images, the whole stays below 5 MB.
_THUMBNAIL_BYTES = 5_500
_PAGE_BYTES = 4_900_000
# What the words and the code of a page take, its images and its CSV apart.
_TEXT_BYTES = 400_000


@dataclass
class Album:
    """The images of a page, each held once.

    Attributes:
        view: whose images.
        sources: data URIs in the order in which images were first asked for.
        numbers: image -> place in `sources`.
    """

    view: ModelView
    sources: list[str] = field(default_factory=list)
    numbers: dict[int, int] = field(default_factory=dict)

    def add(self, image: int) -> dict[str, Any]:
        """Return what the template needs of an image."""
        if image not in self.numbers:
            self.numbers[image] = len(self.sources)
            self.sources.append(_data_uri(_encode(self.view.paths[image]), "image/jpeg"))
        return {
            "number": self.numbers[image],
            "name": self.view.triplets.names[image],
            "label": self.view.label_of(image),
        }


# The template says so too.
REPORT_FORM = marked_form(
    "a report that tripletkit wrote", b'<meta name="generator" content="tripletkit">'
)


def write_report(
    destination: Destination,
    view: ModelView,
    baselines: list[Baseline],
    training: Triplets | None,
    projection: str = "pca",
) -> int:
    """Write the report of a model; whole or not at all.

    Args:
        destination: the HTML file.
        view: the model and the triplets that it answers.
        baselines: what names alone would score on them.
        training: the triplets of the training, where they are at hand.
        projection: of the map of embeddings.
    Returns:
        The size of the file in bytes.
    Raises:
        OutputError: if it cannot be written.
    """
    data = make_page(view, baselines, training, projection).encode()
    with open_output(destination, "wb") as file:
        file.write(data)
    return len(data)


def make_page(
    view: ModelView, baselines: list[Baseline], training: Triplets | None, projection: str = "pca"
) -> str:
    """Return the HTML of the report; see `write_report`."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("tripletkit.reporting", "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["count"] = lambda n: f"{n:,}"
    environment.filters["percent"] = lambda share: f"{share:.1%}"
    album = Album(view)
    chosen = _choose_triplets(view)
    page = {
        "version": __version__,
        "model": view.model.path.resolve().name,
        "record": view.model.record,
        "settings": _shown_settings(view.model.record.settings),
        "view": view,
        "source": Path(view.triplets.source).name,
        "accuracies": list_accuracies(view, baselines),
        "warnings": list_warnings(view, baselines, training),
        "figures": _draw_figures(view),
        "n_mistakes": int((view.margins[view.known] <= 0).sum()),
        "triplets": _list_triplets(view, album, chosen),
        "culprits": _list_culprits(view, album),
        "map": _make_map(view, album, projection),
        "neighbors": _list_neighbors(view, album),
    }
    # Last, when every section has put its images in.
    page["images"] = album.sources
    figure_uris = [figure[scheme] for figure in page["figures"] for scheme in ("light", "dark")]
    room = _PAGE_BYTES - _TEXT_BYTES - sum(map(len, [*album.sources, *figure_uris]))
    rows = _data_uri(_csv_rows(view), "application/gzip")
    page["csv"] = rows if len(rows) <= room else None
    return environment.get_template(_TEMPLATE).render(page)


def _draw_figures(view: ModelView) -> list[dict[str, Any]]:
    """Return id, title, alternative text and both versions of each figure that there is."""
    distance, known = view.model.distance, view.known
    drawn = []

    def draw(key: str, title: str, text: str, function: Callable[..., Figure], *data: Any) -> None:
        light, dark = (_figure_uri(function, data, theme) for theme in (LIGHT, DARK))
        drawn.append({"id": key, "title": title, "text": text, "light": light, "dark": dark})

    history, best = view.model.read_history(), view.model.record.best_epoch
    # An ensemble of chosen parts has one row, which is no curve.
    if len(history) > 1:
        first, last = history.iloc[0], history.iloc[-1]
        text = (
            f"Over {len(history)} epochs the loss went from {first.loss:.4f} to {last.loss:.4f} "
            f"and the share of triplets with a loss from {first.active:.1%} to "
            f"{last.active:.1%}."
        )
        if history["val_accuracy"].notna().any():
            kept = history.loc[history["epoch"] == best, "val_accuracy"].iloc[0]
            text += f" Validation accuracy at epoch {best}, which was kept: {kept:.1%}."
        draw("curves", "How it learnt", text, figures.draw_history, history, best)
    if known.any():
        near, far = view.to_positive[known], view.to_negative[known]
        text = (
            f"Anchor and positive are {np.median(near):.2f} apart in the median, anchor and "
            f"negative {np.median(far):.2f}. Where the two peaks overlap, mistakes are made: "
            f"{(near >= far).mean():.1%} of the triplets lie on the wrong side of the line."
        )
        draw("distances", "Near and far", text, figures.draw_distances, near, far, distance)
        parts = view.score.by_margin
        text = (
            f"Of the fifth of answers with the smallest margins {parts[0].accuracy:.1%} are right, "
            f"of the fifth with the largest {parts[-1].accuracy:.1%}. A model that knows when it "
            "is unsure climbs from left to right."
        )
        margins = view.margins[known]
        draw("margins", "Right when sure?", text, figures.draw_margins, margins, parts, distance)
    confusion = confuse_labels(view)
    if confusion is not None:
        true, said, n_times = confusion.worst()
        text = (
            f"The {defaults.NEIGHBORS} nearest images say the true label for "
            f"{confusion.accuracy:.1%} of {confusion.counts.sum():,} images."
        )
        if n_times:
            text += f" The commonest mix-up: {true} taken for {said}, {n_times:,} times."
        counts, labels = confusion.counts, confusion.labels
        draw("confusion", "Labels mixed up", text, figures.draw_confusion, counts, labels)
    return drawn


def _choose_triplets(view: ModelView) -> list[tuple[str, int]]:
    """Return kind and row: the surest mistakes, then the closest calls among the right ones."""
    margins = np.where(view.known, view.margins, np.nan)
    order = np.argsort(margins, kind="stable")[: int(view.known.sum())]
    wrong = order[margins[order] <= 0]
    right = order[margins[order] > 0]
    return [("mistake", int(row)) for row in wrong[:_N_MISTAKES]] + [
        ("close call", int(row)) for row in right[:_N_CLOSE]
    ]


def _list_triplets(
    view: ModelView, album: Album, chosen: list[tuple[str, int]]
) -> list[dict[str, Any]]:
    """Return the shown triplets, with the numbers of mistakes that share an image or a pair."""
    of_image, of_pair = _count_mistakes(view)
    shown = []
    for kind, row in chosen:
        anchor, positive, negative = view.triplets.rows[row].tolist()
        slots = []
        for role, image in (("anchor", anchor), ("positive", positive), ("negative", negative)):
            pair = None if role == "anchor" else frozenset((anchor, image))
            slots.append(
                album.add(image)
                | {
                    "role": role,
                    "n_mistakes": of_image[image],
                    "n_pair_mistakes": of_pair[pair] if pair else 0,
                }
            )
        numbers = [slot["number"] for slot in slots]
        shown.append(
            {
                "kind": kind,
                "line": int(view.triplets.lines[row]),
                "slots": slots,
                "images": numbers,
                "pairs": [_pair_key(numbers[0], number) for number in numbers[1:]],
                "to_positive": float(view.to_positive[row]),
                "to_negative": float(view.to_negative[row]),
                "margin": float(view.margins[row]),
            }
        )
    return shown


def _count_mistakes(view: ModelView) -> tuple[Counter, Counter]:
    """Return in how many mistakes each image is, and each pair of anchor and candidate."""
    of_image, of_pair = Counter(), Counter()
    for row in np.flatnonzero(view.known & (view.margins <= 0)):
        anchor, positive, negative = view.triplets.rows[row].tolist()
        of_image.update((anchor, positive, negative))
        of_pair.update((frozenset((anchor, positive)), frozenset((anchor, negative))))
    return of_image, of_pair


def _pair_key(one: int, other: int) -> str:
    return f"{min(one, other)}-{max(one, other)}"


def _list_culprits(view: ModelView, album: Album) -> list[dict[str, Any]]:
    """Return the images that are in the most mistakes, and in how many triplets at all."""
    of_image, _ = _count_mistakes(view)
    n_named = np.bincount(view.triplets.rows[view.known].ravel(), minlength=len(view.paths))
    return [
        album.add(image) | {"n_mistakes": n_wrong, "n_triplets": int(n_named[image])}
        for image, n_wrong in of_image.most_common(_N_CULPRITS)
    ]


def _make_map(view: ModelView, album: Album, projection: str) -> dict[str, Any] | None:
    """Return places of images and dots in percent, and the marks of labels."""
    images = view.shown
    if len(images) < 2:
        return None
    places = project_embeddings(view.embeddings[images], projection)
    imaged = choose_apart(places, _MAP_STEP, _N_MAP_IMAGES)
    labels = sorted({view.label_of(image) for image in view.labelled})
    mark_of = {None: ""} | {
        label: "class-{1} turn-{0}".format(*divmod(number, len(LIGHT.classes)))
        for number, label in enumerate(labels)
    }

    def place(index: int) -> dict[str, Any]:
        x, y = (100 * places[index]).round(2).tolist()
        return {"x": x, "y": round(100 - y, 2), "mark": mark_of[view.label_of(images[index])]}

    dots = np.setdiff1d(np.arange(len(images)), imaged)
    shown = np.linspace(0, len(dots) - 1, min(len(dots), _N_MAP_DOTS)).astype(int)
    return {
        "projection": PROJECTIONS[projection],
        "n_images": len(images),
        "images": [place(index) | album.add(int(images[index])) for index in imaged],
        "dots": [place(index) for index in dots[shown]],
        "labels": [{"name": label, "mark": mark_of[label]} for label in labels],
        "classes": [
            {"light": light, "dark": dark}
            for light, dark in zip(LIGHT.classes, DARK.classes, strict=True)
        ],
    }


def _list_neighbors(view: ModelView, album: Album) -> list[dict[str, Any]]:
    """Return a few images with those nearest to them: of many mistakes, and evenly drawn."""
    images = view.shown
    if len(images) < 2:
        return []
    of_image, _ = _count_mistakes(view)
    hard = [image for image, _ in of_image.most_common(_N_QUERIES // 2)]
    spread = images[np.linspace(0, len(images) - 1, _N_QUERIES).astype(int)].tolist()
    queries = list(dict.fromkeys([*hard, *spread]))[:_N_QUERIES]
    row_of = {image: row for row, image in enumerate(images.tolist())}
    embeddings = view.embeddings[images]
    found = find_neighbors(
        embeddings,
        view.embeddings[queries],
        _N_NEIGHBORS,
        view.model.distance,
        [np.array([row_of[query]]) for query in queries],
    )
    listed = []
    for number, query in enumerate(queries):
        label = view.label_of(query)
        near = []
        for row, distance in found.of(number):
            other = view.label_of(int(images[row]))
            same = None if None in (label, other) else label == other
            near.append(album.add(int(images[row])) | {"distance": distance, "same": same})
        listed.append({"query": album.add(query), "near": near})
    return listed


def _csv_rows(view: ModelView) -> bytes:
    """Return all rows as a CSV, compressed."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow("line anchor positive negative d_positive d_negative margin right".split())
    names = view.triplets.names
    for line, row, near, far, margin in zip(
        view.triplets.lines.tolist(),
        view.triplets.rows.tolist(),
        view.to_positive.tolist(),
        view.to_negative.tolist(),
        view.margins.tolist(),
        strict=True,
    ):
        measured = [near, far, margin] if np.isfinite(margin) else [None] * 3
        shown = ["" if value is None else f"{value:.5g}" for value in measured]
        judged = [guard_formula(names[image]) for image in row]
        writer.writerow([line, *judged, *shown, int(margin > 0)])
    return gzip.compress(text.getvalue().encode(), mtime=0)


def _encode(path: Path) -> bytes:
    """Return a small JPEG, of as good a quality as its size allows."""
    thumbnail = read_thumbnail(path, _THUMBNAIL_PX)
    for quality in (80, 65, 50, 35, 20):
        buffer = io.BytesIO()
        thumbnail.save(buffer, "JPEG", quality=quality, optimize=True)
        if buffer.tell() <= _THUMBNAIL_BYTES:
            break
    return buffer.getvalue()


def _figure_uri(function: Callable[..., Figure], data: tuple, theme: Theme) -> str:
    return _data_uri(render_figure(function(*data, theme=theme), "svg"), "image/svg+xml")


def _data_uri(data: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def _shown_settings(settings: HeadSettings) -> dict[str, Any]:
    """Return the settings that say something: not those that have no value."""
    return {name: value for name, value in asdict(settings).items() if value is not None}

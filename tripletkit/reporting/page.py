"""The report: one HTML file that holds all it shows and asks the network for nothing."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
import numpy as np
from markupsafe import Markup
from matplotlib.figure import Figure

from tripletkit import __version__, defaults
from tripletkit.data.outputs import Destination, marked_form, open_output
from tripletkit.evaluation.comparison import PairComparison, compare_answers
from tripletkit.evaluation.intervals import wilson_interval
from tripletkit.reporting import figures
from tripletkit.reporting.collages import data_uri
from tripletkit.reporting.findings import (
    describe_training,
    list_accuracies,
    list_settings,
    list_warnings,
)
from tripletkit.reporting.model_view import ModelView
from tripletkit.reporting.page_parts import PageParts, pack_rows
from tripletkit.reporting.projections import PROJECTIONS
from tripletkit.reporting.style import DARK, LIGHT, darken, render_figure

_TEMPLATE, _SCRIPT = "report.html.j2", "report.js"
_PAGE_BYTES = 4_900_000
# What the words and the code of a page take, its images and its CSV apart.
_TEXT_BYTES = 400_000

# The template says so too.
REPORT_FORM = marked_form(
    "a report that tripletkit wrote", b'<meta name="generator" content="tripletkit">'
)


class QueryZone(NamedTuple):
    """Where an image can be dropped on a page that is served.

    `form_token` is what the page sends back to show that it is this server's.
    """

    form_token: str
    max_bytes: int


class _Page(NamedTuple):
    """A page, and the content security policy that says what it may do."""

    html: str
    policy: str


def write_report(
    destination: Destination, models: Sequence[ModelView], projection: str = "pca"
) -> int:
    """Write the report of models with the same triplets, whole or not at all; return its bytes."""
    data = make_page(models, projection).html.encode()
    with open_output(destination, "wb") as file:
        file.write(data)
    return len(data)


def make_page(
    models: Sequence[ModelView], projection: str = "pca", query: QueryZone | None = None
) -> _Page:
    """Return the report."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("tripletkit.reporting", "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["count"] = lambda n: f"{n:,}"
    environment.filters["percent"] = lambda share: f"{share:.1%}"
    assert environment.loader is not None
    script = environment.loader.get_source(environment, _SCRIPT)[0]
    view, records = models[0], [model.model.record for model in models]
    parts, sections = PageParts(models), _draw_sections(models)
    policy = _make_policy(script, is_served=query is not None)
    page = {
        "version": __version__,
        "policy": policy,
        # Ours, and without a `</script>`; escaped it would not run.
        "script": Markup(script),
        "title": ", ".join(model.name for model in models),
        "models": models,
        "pairs": _compare(models),
        "view": view,
        "source": Path(view.triplets.source).name,
        "accuracies": list_accuracies(models),
        "warnings": list_warnings(models),
        "figures": sections,
        "n_mistakes": [len(model.mistakes) for model in models],
        "triplets": parts.triplets(),
        "culprits": parts.culprits(),
        "maps": [parts.map(model, projection) for model in models],
        "projection": PROJECTIONS[projection],
        "labels": parts.labels(),
        "classes": list(zip(LIGHT.classes, DARK.classes, strict=True)),
        "neighbors": parts.neighbors(),
        "training": _put_beside([describe_training(record) for record in records]),
        "settings": _put_beside([list_settings(record.settings) for record in records]),
        "query": query,
    }
    # Last, when every section has put its images in.
    page["images"] = parts.sources
    drawn = [uri for _, _, found in sections for each in found for uri in (each.light, each.dark)]
    room = _PAGE_BYTES - _TEXT_BYTES - sum(map(len, [*parts.sources, *drawn]))
    rows = data_uri(pack_rows(models), "application/gzip")
    page["csv"] = rows if len(rows) <= room else None
    return _Page(environment.get_template(_TEMPLATE).render(page), policy)


def _make_policy(script: str, *, is_served: bool) -> str:
    """Return the content security policy of a page: of all scripts, its own alone runs."""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = "default-src 'none'; img-src data: blob:; style-src 'unsafe-inline'; "
    policy += f"script-src 'sha256-{digest}'"
    return policy + ("; connect-src 'self'" if is_served else "")


def _compare(models: Sequence[ModelView]) -> list[PairComparison]:
    """Return every pair of models on the shown triplets, the better one first."""
    if len(models) == 1:
        return []
    credits = {model.name: (model.margins > 0).astype(np.int8) for model in models}
    return compare_answers(credits, models[0].triplets.rows).pairs


def _put_beside(of_models: Sequence[dict[str, str]]) -> list[tuple[str, list[str]]]:
    """Return each term with what it is for every model, a dash where a model has none.

    Example:
        >>> _put_beside([{"loss": "triplet", "margin": "0.2"}, {"loss": "soft"}])
        [('loss', ['triplet', 'soft']), ('margin', ['0.2', '–'])]
    """
    terms = dict.fromkeys(term for of_model in of_models for term in of_model)
    return [(term, [of_model.get(term, "–") for of_model in of_models]) for term in terms]


class _DrawnFigure(NamedTuple):
    """A figure of one model as data URIs; `text` says the same to those who do not see it."""

    name: str
    text: str
    light: str
    dark: str
    width_in: float


class _Section(NamedTuple):
    id: str
    title: str
    figures: list[_DrawnFigure]


# What a figure says, the function that draws it, and what that draws.
_Drawing = tuple[str, Callable[..., Figure], tuple[Any, ...]]


def _draw_sections(models: Sequence[ModelView]) -> list[_Section]:
    """Return the figures of all models, kind by kind; a kind that no model has is left out."""
    kinds: tuple[tuple[str, str, Callable[[ModelView], _Drawing | None]], ...] = (
        ("curves", "How it learned", _history),
        ("learning-curve", "What more judgements would bring", _learning_curve),
        ("distances", "Near and far", _distances),
        ("margins", "Right when sure?", _margins),
        ("confusion", "Labels mixed up", _confusion),
    )
    sections = []
    for key, title, find in kinds:
        found = [(model.name, find(model)) for model in models]
        drawn = [_draw(name, *drawing) for name, drawing in found if drawing is not None]
        if drawn:
            sections.append(_Section(key, title, drawn))
    return sections


def _draw(
    name: str, text: str, function: Callable[..., Figure], data: tuple[Any, ...]
) -> _DrawnFigure:
    figure = function(*data, theme=LIGHT)
    light = render_figure(figure, "svg")
    if b"<image" in light:
        # Pixels have their colours, which no text can exchange.
        dark = render_figure(function(*data, theme=DARK), "svg")
    else:
        dark = darken(light)
    in_light, in_dark = (data_uri(svg, "image/svg+xml") for svg in (light, dark))
    return _DrawnFigure(name, text, in_light, in_dark, float(figure.get_figwidth()))


def _history(view: ModelView) -> _Drawing | None:
    history, best = view.model.read_history(), view.model.record.best_epoch
    # An ensemble of chosen parts has one row, which is no curve.
    if len(history) < 2:
        return None
    first, last = history.iloc[0], history.iloc[-1]
    text = (
        f"Over {len(history)} epochs the loss went from {first.loss:.4f} to {last.loss:.4f} "
        f"and the share of triplets with a loss from {first.active:.1%} to {last.active:.1%}."
    )
    if history["val_accuracy"].notna().any():
        kept = history.loc[history["epoch"] == best, "val_accuracy"].iloc[0]
        text += f" Validation accuracy at epoch {best}, which was kept: {kept:.1%}."
    return text, figures.draw_history, (history, best)


def _learning_curve(view: ModelView) -> _Drawing | None:
    curve = view.model.record.learning_curve
    return None if curve is None else (curve.outlook, figures.draw_learning_curve, (curve,))


def _distances(view: ModelView) -> _Drawing | None:
    if not view.is_answered.any():
        return None
    near, far = view.to_positive[view.is_answered], view.to_negative[view.is_answered]
    text = (
        f"Anchor and positive are {np.median(near):.2f} apart in the median, anchor and "
        f"negative {np.median(far):.2f}. Where the two peaks overlap, mistakes are made: "
        f"{(near >= far).mean():.1%} of the triplets lie on the wrong side of the line."
    )
    return text, figures.draw_distances, (near, far, view.model.distance)


def _margins(view: ModelView) -> _Drawing | None:
    if not view.is_answered.any():
        return None
    parts, margins = view.score.by_margin, view.margins[view.is_answered]
    text = (
        f"Of the fifth of answers with the smallest margins {parts[0].accuracy:.1%} are right, "
        f"of the fifth with the largest {parts[-1].accuracy:.1%}. If large margins mean sure "
        "answers, the accuracy rises from left to right."
    )
    return text, figures.draw_margins, (margins, parts, view.model.distance)


def _confusion(view: ModelView) -> _Drawing | None:
    confusion = view.confuse_labels()
    if confusion is None:
        return None
    true, said, n_times = confusion.worst()
    n = int(confusion.counts.sum())
    interval = wilson_interval(int(np.trace(confusion.counts)), n)
    text = (
        f"The {defaults.NEIGHBORS} nearest images say the true label for "
        f"{confusion.accuracy:.1%} of {n:,} images (95% interval {interval.low:.1%} to "
        f"{interval.high:.1%}, images taken as independent)."
    )
    if n_times:
        text += f" The commonest mix-up: {true} taken for {said}, {n_times:,} times."
    return text, figures.draw_confusion, (confusion.counts, confusion.labels)

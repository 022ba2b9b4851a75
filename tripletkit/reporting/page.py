"""The report: one HTML file that holds all it shows and asks the network for nothing."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from markupsafe import Markup

from tripletkit import __version__
from tripletkit.data.outputs import Destination, marked_form, open_output
from tripletkit.evaluation.comparison import PairComparison, compare_answers
from tripletkit.reporting import page_parts
from tripletkit.reporting.collages import Album, data_uri
from tripletkit.reporting.findings import list_accuracies, list_warnings
from tripletkit.reporting.page_figures import FigureSection, draw_sections
from tripletkit.reporting.projections import PROJECTIONS
from tripletkit.reporting.reported import Reported
from tripletkit.reporting.style import DARK, LIGHT
from tripletkit.reporting.training_facts import describe_training, list_settings

_TEMPLATE, _SCRIPT = "report.html.j2", "report.js"
_PAGE_BYTES = 4_900_000
# What the words and the code of a page take, its images and its CSV apart.
_TEXT_BYTES = 400_000


# The template says so too.
REPORT_FORM = marked_form(
    "a report that tripletkit wrote", b'<meta name="generator" content="tripletkit">'
)


@dataclass(frozen=True)
class QueryZone:
    """Where an image can be dropped on a page that is served.

    Attributes:
        form_token: what the page sends back to show that it is this server's.
        max_bytes: of an image.
    """

    form_token: str
    max_bytes: int


@dataclass(frozen=True)
class _Page:
    """A page and what it may do.

    Attributes:
        html: the page.
        policy: its content security policy.
    """

    html: str
    policy: str


def write_report(
    destination: Destination, models: Sequence[Reported], projection: str = "pca"
) -> int:
    """Write the report of models with the same triplets, whole or not at all; return its bytes."""
    data = make_page(models, projection).html.encode()
    with open_output(destination, "wb") as file:
        file.write(data)
    return len(data)


def make_page(
    models: Sequence[Reported], projection: str = "pca", query: QueryZone | None = None
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
    view, records = models[0].view, [model.view.model.record for model in models]
    album = Album(view)
    figures = draw_sections(models)
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
        "figures": figures,
        "n_mistakes": [_count_mistakes(model) for model in models],
        "triplets": page_parts.list_triplets(models, album),
        "culprits": page_parts.list_culprits(models, album),
        "maps": [page_parts.make_map(model, album, projection) for model in models],
        "projection": PROJECTIONS[projection],
        "labels": {k: v for k, v in page_parts.mark_labels(view).items() if k is not None},
        "classes": list(zip(LIGHT.classes, DARK.classes, strict=True)),
        "neighbors": page_parts.list_neighbors(models, album),
        "training": _put_beside([describe_training(record) for record in records]),
        "settings": _put_beside([list_settings(record.settings) for record in records]),
        "query": query,
    }
    # Last, when every section has put its images in.
    page["images"] = album.sources
    room = _PAGE_BYTES - _TEXT_BYTES - sum(map(len, [*album.sources, *_uris(figures)]))
    rows = data_uri(page_parts.pack_rows(models), "application/gzip")
    page["csv"] = rows if len(rows) <= room else None
    return _Page(environment.get_template(_TEMPLATE).render(page), policy)


def _make_policy(script: str, *, is_served: bool) -> str:
    """Return the content security policy of a page: of all scripts, its own alone runs."""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = "default-src 'none'; img-src data: blob:; style-src 'unsafe-inline'; "
    policy += f"script-src 'sha256-{digest}'"
    return policy + ("; connect-src 'self'" if is_served else "")


def _compare(models: Sequence[Reported]) -> list[PairComparison]:
    """Return every pair of models on the shown triplets, the better one first."""
    if len(models) == 1:
        return []
    credits = {model.name: (model.view.margins > 0).astype(np.int8) for model in models}
    return compare_answers(credits, models[0].view.triplets.rows).pairs


def _put_beside(of_models: Sequence[dict[str, str]]) -> list[tuple[str, list[str]]]:
    """Return each term with what it is for every model, a dash where a model has none.

    Example:
        >>> _put_beside([{"loss": "triplet", "margin": "0.2"}, {"loss": "soft"}])
        [('loss', ['triplet', 'soft']), ('margin', ['0.2', '–'])]
    """
    terms = dict.fromkeys(term for of_model in of_models for term in of_model)
    return [(term, [of_model.get(term, "–") for of_model in of_models]) for term in terms]


def _count_mistakes(model: Reported) -> int:
    view = model.view
    return int((view.margins[view.known] <= 0).sum())


def _uris(figures: Sequence[FigureSection]) -> list[Any]:
    drawn = [figure for section in figures for figure in section.figures]
    return [uri for figure in drawn for uri in (figure.light, figure.dark)]

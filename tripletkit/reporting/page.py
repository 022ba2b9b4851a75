"""The report: one HTML file that holds all it shows and asks the network for nothing.

Below the page itself: what to know before a model is believed, and how it was trained, in words;
then triplets, maps, neighbours and all rows.
"""

from __future__ import annotations

import gzip
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from markupsafe import Markup
from matplotlib.figure import Figure

from tripletkit import __version__, defaults
from tripletkit.collecting.serving import data_uri, hash_source, open_templates
from tripletkit.data.outputs import Destination, OutputForm, open_output
from tripletkit.data.text_files import guard_formula
from tripletkit.evaluation.baselines import Baseline, describe_trap
from tripletkit.evaluation.comparison import Comparison
from tripletkit.evaluation.intervals import Interval, NoInterval, wilson_interval
from tripletkit.evaluation.scoring import Score
from tripletkit.features.backbones import FROM_VECTORS
from tripletkit.losses.loss_registry import get_loss
from tripletkit.model.recipes import get_recipe
from tripletkit.model.record import ModelRecord
from tripletkit.model.settings import Settings
from tripletkit.reporting import figures
from tripletkit.reporting.collages import thumbnail_uri
from tripletkit.reporting.figures import (
    DARK,
    LIGHT,
    PROJECTIONS,
    choose_apart,
    darken,
    project_embeddings,
    render_figure,
)
from tripletkit.reporting.model_view import ModelView
from tripletkit.search.image_search import find_neighbors

_TEMPLATE, _SCRIPT = "report.html.j2", "report.js"
_PAGE_BYTES = 4_900_000
# What the words and the code of a page take, its images and its CSV apart.
_TEXT_BYTES = 400_000

# The template says so too.
REPORT_FORM = OutputForm(
    "a report that tripletkit wrote", mark='<meta name="generator" content="tripletkit">'
)


def write_report(
    destination: Destination, models: Sequence[ModelView], projection: str = "pca"
) -> int:
    """Write the report of models with the same triplets, whole or not at all; return its bytes."""
    data = make_page(models, projection)[0].encode()
    with open_output(destination, "wb") as file:
        file.write(data)
    return len(data)


def make_page(
    models: Sequence[ModelView], projection: str = "pca", query: dict[str, Any] | None = None
) -> tuple[str, str]:
    """Return the report, and the content security policy that says what it may do.

    `query` is for a page that is served, on which an image can be dropped: `form_token`, which the
    page sends back to show that it is this server's, and `max_bytes`.
    """
    environment = open_templates("tripletkit.reporting", ".")
    environment.filters["count"] = lambda n: f"{n:,}"
    environment.filters["percent"] = lambda share: f"{share:.1%}"
    assert environment.loader is not None
    script = environment.loader.get_source(environment, _SCRIPT)[0]
    view, records = models[0], [model.model.record for model in models]
    parts, sections = _PageParts(models), _draw_sections(models)
    # Of all scripts, the page's own alone runs.
    policy = "default-src 'none'; img-src data: blob:; style-src 'unsafe-inline'; "
    policy += f"script-src '{hash_source(script)}'" + ("; connect-src 'self'" if query else "")
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
        "accuracies": _list_accuracies(models),
        "warnings": _list_warnings(models),
        "sections": sections,
        "n_mistakes": [len(model.mistakes) for model in models],
        "triplets": parts.triplets(),
        "culprits": parts.culprits(),
        "maps": [parts.map(model, projection) for model in models],
        "projection": PROJECTIONS[projection],
        "labels": parts.labels(),
        "classes": list(zip(LIGHT.classes, DARK.classes, strict=True)),
        "neighbors": parts.neighbors(),
        "training": _put_beside([_describe_training(record) for record in records]),
        "settings": _put_beside([_list_settings(record.settings) for record in records]),
        "query": query,
    }
    # Last, when every section has put its images in.
    page["images"] = parts.sources
    drawn = [uri for _, _, found in sections for each in found for uri in (each.light, each.dark)]
    room = _PAGE_BYTES - _TEXT_BYTES - sum(map(len, [*parts.sources, *drawn]))
    rows = data_uri(_pack_rows(models), "application/gzip")
    page["csv"] = rows if len(rows) <= room else None
    return environment.get_template(_TEMPLATE).render(page), policy


def _compare(models: Sequence[ModelView]) -> Sequence[Any]:
    """Return every pair of models on the shown triplets, the better one first."""
    if len(models) == 1:
        return []
    credits = {model.name: (model.margins > 0).astype(np.int8) for model in models}
    return Comparison.of(credits, models[0].triplets).pairs


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


# What a figure says, the function that draws it, and what that draws.
_Drawing = tuple[str, Callable[..., Figure], tuple[Any, ...]]


def _draw_sections(models: Sequence[ModelView]) -> list[tuple[str, str, list[_DrawnFigure]]]:
    """Return the figures of all models, kind by kind: their id and title, and the figures. A kind
    that no model has is left out."""
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
            sections.append((key, title, drawn))
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


# What `tripletkit plot` draws of the answers of a model.
FIGURES = {"distances": _distances, "margins": _margins, "confusion": _confusion}


# What to know before a model is believed, and how it was trained.

# A 95% interval wider than this leaves open whether a model is good or middling.
_WIDE_INTERVAL = 0.15
_DISTANCES = {"l1": "L1", "l2": "L2", "squared-l2": "squared L2", "cosine": "cosine"}


class _AccuracyRow(NamedTuple):
    """A line of the table of accuracies: whose answers, and how many are right, 0 to 1.

    `wilson` takes rows as independent, and is None where rows recur; `image_interval` allows for
    shared images, and is false where there is none.
    """

    what: str
    accuracy: float
    wilson: Interval | None
    image_interval: Interval | NoInterval | None
    n: int


# Which triplets, and whose answers to them.
_AccuracySet = tuple[str, list[_AccuracyRow]]


def _list_accuracies(models: Sequence[ModelView]) -> list[_AccuracySet]:
    """Return every accuracy that is known: on the shown triplets, and at the time of training."""
    is_one, first = len(models) == 1, models[0]
    title = Path(first.triplets.source).name
    if first.is_training:
        title += ", which the model learned from"
    rows = [_row("trained embeddings" if is_one else model.name, model.score) for model in models]
    for model in models:
        backbones = " + ".join(dict.fromkeys(map(_name_backbone, _parts(model.model.record))))
        of = "" if is_one else f", of {backbones}"
        rows.append(_row(f"{model.model.features_name}, cosine{of}", model.frozen_score))
    is_shared = all(model.baselines == first.baselines for model in models)
    for model in models:
        of = "" if is_one or is_shared else f", training of {model.name}"
        rows += _baseline_rows(model.baselines, of)
    # Features that models share say the same.
    sets = [(title, list(dict.fromkeys(rows)))]
    for model in models:
        training = "its training" if is_one else f"the training of {model.name}"
        sets += _of_training(model.model.record, training)
    return sets


def _of_training(record: ModelRecord, training: str) -> list[_AccuracySet]:
    """Return what was measured while a model was trained."""
    sets = []
    if (validation := record.validation) is not None:
        before = "untrained network" if validation.is_from_scratch else "frozen features, cosine"
        scores = (
            ("trained embeddings", validation.trained),
            ("head, backbone frozen", validation.frozen_head),
            (before, validation.frozen),
        )
        rows = [_row(what, score) for what, score in scores if score is not None]
        rows += _baseline_rows(validation.baselines, "")
        sets.append((f"validation triplets of {training}", rows))
    if (pooled := record.pooled) is not None:
        of_draws = (
            ("trained without these images", pooled.trained),
            ("frozen features, cosine", pooled.frozen),
        )
        rows = [
            _AccuracyRow(what, score.accuracy, None, score.interval, score.n_triplets)
            for what, score in of_draws
        ]
        sets.append((f"held-out draws of {training}", rows))
    return sets


def _list_warnings(models: Sequence[ModelView]) -> list[str]:
    """Return what weakens the figures, the worst first; what all models share is said once."""
    found = [[*_on_shown(model), *_on_training(model.model.record)] for model in models]
    if len(models) == 1:
        return found[0]
    common = [warning for warning in found[0] if all(warning in others for others in found)]
    return common + [
        f"{model.name}: {warning}"
        for model, own in zip(models, found, strict=True)
        for warning in own
        if warning not in common
    ]


def _on_shown(view: ModelView) -> list[str]:
    score, warnings = view.score, []
    if view.is_training:
        warnings.append(
            "These are the triplets that the model learned from, so their accuracy says nothing "
            "of new questions. Mistakes among them point at wrong judgements instead. Make the "
            "report with other triplets."
        )
    else:
        warnings += _on_new(view)
    if score.n_ties:
        warnings.append(
            f"{score.n_ties:,} triplets are ties (both images equally near) and count as wrong."
        )
    if score.n_undecidable:
        warnings.append(
            f"{score.n_undecidable:,} triplets have an image that cannot be read; they count "
            "as wrong and are in no figure."
        )
    return warnings


def _on_new(view: ModelView) -> list[str]:
    score, warnings = view.score, []
    if n_learned := int(view.learned.sum()):
        warnings.append(
            f"The model learned from {n_learned:,} of these {len(view.triplets):,} triplets. The "
            "accuracy at the top of the page leaves them out; tables and figures do not."
        )
    if score.accuracy < view.frozen_score.accuracy:
        warnings.append(
            f"The trained embeddings ({score.accuracy:.1%}) are worse than the "
            f"{view.model.features_name} alone ({view.frozen_score.accuracy:.1%}) on these "
            "triplets."
        )
    interval, baselines = score.interval, view.baselines
    if baselines and (trap := describe_trap(score.accuracy, interval, baselines)) is not None:
        warnings.append(trap)
    if view.training is not None:
        used = {view.triplets.names[image] for image in np.unique(view.triplets.rows)}
        if n_shared := len(used & set(view.training.names)):
            warnings.append(
                f"{n_shared:,} images of these triplets are in the training triplets too, so "
                "the accuracy is higher than that of new images would be."
            )
    if interval.high - interval.low > _WIDE_INTERVAL:
        warnings.append(
            f"The accuracy is uncertain: {interval.low:.0%} to {interval.high:.0%}. More "
            "images would narrow it, more triplets over the same images would not."
        )
    detector = view.model.read_shift_detector()
    if detector and (shift := detector.describe(view.features[view.shown])):
        warnings.append(shift)
    return warnings


def _on_training(record: ModelRecord) -> list[str]:
    split, validation, warnings = record.split, record.validation, []
    if validation is None and record.pooled is None:
        warnings.append("No triplets were held out in training, so the last epoch was kept.")
    elif validation is not None:
        if split.n_val < defaults.MIN_VAL_TRIPLETS:
            warnings.append(
                f"Validation in training had {split.n_val:,} triplets only, too few to choose an "
                "epoch by or to say much."
            )
        else:
            warnings.append(
                "The epoch was chosen by the validation in training, so that accuracy is a "
                "little too high."
            )
        if split.by == "random":
            warnings.append(
                "The validation in training was split off at random, and such a split can often "
                "be solved by remembering names of pairs; look at the baselines."
            )
        if split.n_shared_images and split.by != "image":
            warnings.append(
                f"Training and validation in training share {split.n_shared_images:,} images."
            )
    if record.n_bad_images:
        warnings.append(
            f"{record.n_bad_images:,} images could not be used in training, and every "
            "triplet with one was left out."
        )
    return warnings


def _row(what: str, score: Score | Baseline) -> _AccuracyRow:
    of_images = None if isinstance(score, Baseline) else score.image_interval
    return _AccuracyRow(what, score.accuracy, score.wilson, of_images, score.n)


def _baseline_rows(baselines: Sequence[Baseline], of: str) -> list[_AccuracyRow]:
    """Return a row for each baseline, or one for all where all say the same."""
    if len({baseline.accuracy for baseline in baselines}) == 1:
        return [_row(f"names alone{of}", baselines[0])]
    return [_row(f"names alone{of}: {baseline.name}", baseline) for baseline in baselines]


def _describe_training(record: ModelRecord) -> dict[str, str]:
    """Return what a person asks of a training first -> the answer."""
    settings, times = record.settings, record.times
    return {
        "Made": f"{datetime.fromisoformat(record.created):%Y-%m-%d %H:%M} UTC",
        "Command": record.command,
        "Images": f"{record.n_images:,}",
        "Triplets": _describe_triplets(record),
        "Features": f"{_describe_features(record)}; {record.n_features:,} numbers an image",
        "Head": _describe_head(record),
        "Loss": _describe_loss(settings),
        "Epochs": f"{record.best_epoch} kept of at most {settings.epochs}; batches of "
        f"{settings.batch_size:,}, learning rate {settings.learning_rate:g}, seed {settings.seed}",
        "Time": f"{times.total_s:,.1f} s, of which features {times.features_s:,.1f} "
        f"s and training {times.training_s:,.1f} s",
        "Versions": ", ".join(f"{name} {value}" for name, value in record.versions.items()),
    }


def _list_settings(settings: Settings) -> dict[str, str]:
    """Return each setting that has a value -> the value in words."""
    words: dict[str, str] = {}
    for name, value in asdict(settings).items():
        if isinstance(value, bool):
            words[name] = "yes" if value else "no"
        elif value is not None:
            words[name] = f"{value:g}" if isinstance(value, float) else str(value)
    return words


def _describe_triplets(record: ModelRecord) -> str:
    split = record.split
    text = f"{record.inputs.name}: {split.n_train:,} for training"
    if split.n_val:
        text += f", {split.n_val:,} for validation (split by {split.by})"
    if split.n_dropped:
        text += f", {split.n_dropped:,} left out because they would have joined the two"
    return text


def _describe_features(record: ModelRecord) -> str:
    described = []
    for part in _parts(record):
        text = _name_backbone(part)
        if (stage := part.get("stage")) is not None:
            text += f" at {stage['layer']}"
        if (digest := part.get("weights_sha256")) is not None:
            text += f" (weights {digest[:12]}…)"
        described.append(text)
    views = record.features.get("views", [])
    return ", ".join(described) + (f"; views {', '.join(views)}" if len(views) > 1 else "")


def _describe_head(record: ModelRecord) -> str:
    settings, sizes = record.settings, get_recipe(record.settings.recipe).sizes
    text = f"recipe {settings.recipe}"
    if record.parts:
        parts = sorted(record.parts, key=lambda part: -part.weight)
        text += ", of " + ", ".join(f"{part.name} ({part.weight:.0%})" for part in parts)
    else:
        if settings.members > 1:
            text += f", {settings.members} members"
        if "hidden" in sizes:
            text += f", hidden layer of {settings.hidden:,}"
        if "dropout" in sizes:
            text += f", dropout {settings.dropout:g}"
        if settings.dim is not None:
            text += f", embeddings of {settings.dim:,} numbers"
    end = ";" if record.parts else ","
    return f"{text}{end} compared by {_DISTANCES[settings.distance]} distance"


def _describe_loss(settings: Settings) -> str:
    loss = get_loss(settings.loss)
    text = loss.name
    if loss.has_margin:
        text += f", margin {settings.margin:g}"
    return text + ("" if settings.mining == "none" else f", mining {settings.mining}")


def _parts(record: ModelRecord) -> list[dict[str, Any]]:
    return record.features.get("parts", [record.features])


def _name_backbone(part: dict[str, Any]) -> str:
    return "given features" if part["backbone"] == FROM_VECTORS else part["backbone"]


# Triplets, maps, neighbours and all rows.

_N_MISTAKES, _N_CLOSE = 60, 30
_N_DIFFERING, _N_SHARED, _N_CLOSE_OF_ALL = 50, 25, 15
_N_CULPRITS = 8
_N_QUERIES, _N_NEIGHBORS = 6, 8
_N_MAP_IMAGES = 100
_MAP_STEP = 0.07
_N_MAP_DOTS = 3_000


class _PageParts:
    """The parts of a page, and the images that they show, each held once.

    Attributes:
        sources: data URIs of the images in the order in which they were first shown.
    """

    def __init__(self, models: Sequence[ModelView]) -> None:
        """Count in how many mistakes of any model each image is, and each pair with the anchor."""
        self.sources: list[str] = []
        self._models, self._view = models, models[0]
        self._numbers: dict[int, int] = {}
        self._of_image: Counter[int] = Counter()
        self._of_pair: Counter[frozenset[int]] = Counter()
        for model in models:
            for anchor, *others in model.triplets.rows[model.mistakes].tolist():
                self._of_image.update((anchor, *others))
                self._of_pair.update(frozenset((anchor, other)) for other in others)

    def _show(self, image: int) -> dict[str, Any]:
        """Return what the template needs of an image."""
        if image not in self._numbers:
            path = self._view.paths[image]
            assert path is not None, "an image that cannot be read is shown nowhere"
            self._numbers[image] = len(self.sources)
            self.sources.append(thumbnail_uri(path))
        return {
            "number": self._numbers[image],
            "name": self._view.triplets.names[image],
            "label": self._view.label_of(image),
        }

    def triplets(self) -> list[dict[str, Any]]:
        """Return the triplets to look at, each with the margin of every model.

        With one model these are its surest mistakes and its closest calls. With several they are
        those on which the models differ most, the surest mistakes of all, and the closest calls.
        """
        view, models = self._view, self._models
        chosen = _choose_of_one(view) if len(models) == 1 else _choose_of_several(models)
        shown = []
        for kind, row in chosen:
            anchor, *_ = images = view.triplets.rows[row].tolist()
            slots = [
                self._show(image)
                | {
                    "role": role,
                    "n_mistakes": self._of_image[image],
                    # Of the anchor with itself there is none.
                    "n_pair_mistakes": self._of_pair[frozenset((anchor, image))],
                }
                for role, image in zip(("anchor", "positive", "negative"), images, strict=True)
            ]
            numbers = [slot["number"] for slot in slots]
            shown.append(
                {
                    "kind": kind,
                    "line": int(view.triplets.lines[row]),
                    "slots": slots,
                    "images": numbers,
                    "pairs": ["{}-{}".format(*sorted((numbers[0], n))) for n in numbers[1:]],
                    "to_positive": float(view.to_positive[row]),
                    "to_negative": float(view.to_negative[row]),
                    "margins": [float(model.margins[row]) for model in models],
                }
            )
        return shown

    def culprits(self) -> list[dict[str, Any]]:
        """Return the images in the most mistakes, and how many answers they are in at all."""
        named = [model.triplets.rows[model.is_answered].ravel() for model in self._models]
        n_named = np.bincount(np.concatenate(named), minlength=len(self._view.paths))
        return [
            self._show(image) | {"n_mistakes": n_wrong, "n_triplets": int(n_named[image])}
            for image, n_wrong in self._of_image.most_common(_N_CULPRITS)
        ]

    def labels(self) -> dict[str, str]:
        """Return label -> the classes of its colour and shape in the style sheet."""
        view = self._view
        labels = sorted({label for image in view.labelled if (label := view.label_of(image))})
        return {
            label: "class-{1} turn-{0}".format(*divmod(number, len(LIGHT.classes)))
            for number, label in enumerate(labels)
        }

    def map(self, model: ModelView, projection: str) -> dict[str, Any] | None:
        """Return places of images and dots in percent; None for fewer than two images."""
        images, mark_of = model.shown, self.labels()
        if len(images) < 2:
            return None
        places = project_embeddings(model.embeddings[images], projection)
        imaged = choose_apart(places, _MAP_STEP, _N_MAP_IMAGES)

        def place(index: int) -> dict[str, Any]:
            x, y = (100 * places[index]).round(2).tolist()
            name, label = model.triplets.names[images[index]], model.label_of(images[index])
            return {
                "x": x,
                "y": round(100 - y, 2),
                "mark": mark_of.get(label or "", ""),
                "title": f"{name}, {label}" if label else name,
            }

        dots = np.setdiff1d(np.arange(len(images)), imaged)
        shown = np.linspace(0, len(dots) - 1, min(len(dots), _N_MAP_DOTS)).astype(int)
        return {
            "name": model.name,
            "n_images": len(images),
            "images": [place(index) | self._show(int(images[index])) for index in imaged],
            "dots": [place(index) for index in dots[shown]],
        }

    def neighbors(self) -> list[dict[str, Any]]:
        """Return a few images with those nearest to them: of many mistakes, and evenly drawn."""
        images = self._view.shown
        for model in self._models[1:]:
            images = images[np.isin(images, model.shown)]
        if len(images) < 2:
            return []
        hard = [i for i, _ in self._of_image.most_common(_N_QUERIES // 2) if i in images]
        spread = images[np.linspace(0, len(images) - 1, _N_QUERIES).astype(int)].tolist()
        queries = list(dict.fromkeys([*hard, *spread]))[:_N_QUERIES]
        strips = [self._strips(model, queries, images) for model in self._models]
        return [
            {
                "query": self._show(query),
                "strips": [
                    {"name": model.name, "near": of_model[number]}
                    for model, of_model in zip(self._models, strips, strict=True)
                ],
            }
            for number, query in enumerate(queries)
        ]

    def _strips(
        self, model: ModelView, queries: Sequence[int], images: np.ndarray
    ) -> list[list[dict[str, Any]]]:
        """Return the neighbours of each query as a model finds them."""
        found = find_neighbors(
            model.embeddings[images],
            model.embeddings[list(queries)],
            _N_NEIGHBORS,
            model.model.distance,
            [np.flatnonzero(images == query) for query in queries],
        )
        strips = []
        for number, query in enumerate(queries):
            label, near = model.label_of(query), []
            for row, distance in found.of(number):
                other = model.label_of(images[row])
                same = None if None in (label, other) else label == other
                near.append(self._show(int(images[row])) | {"distance": distance, "same": same})
            strips.append(near)
        return strips


def _choose_of_one(view: ModelView) -> list[tuple[str, int]]:
    """Return kind and row: the surest mistakes, then the closest calls among the right ones."""
    order = np.argsort(view.margins, kind="stable")[: int(view.is_answered.sum())]
    is_wrong = view.margins[order] <= 0
    kinds = (
        ("mistake", order[is_wrong][:_N_MISTAKES]),
        ("close call", order[~is_wrong][:_N_CLOSE]),
    )
    return [(kind, int(row)) for kind, rows in kinds for row in rows]


def _choose_of_several(models: Sequence[ModelView]) -> list[tuple[str, int]]:
    """Return kind and row, of triplets that every model can answer."""
    margins = np.stack([_in_units(model) for model in models])
    known = np.flatnonzero(np.isfinite(margins).all(axis=0))
    n_right = (margins[:, known] > 0).sum(axis=0)
    low, high = margins[:, known].min(axis=0), margins[:, known].max(axis=0)
    kinds = (
        ("models differ", (n_right > 0) & (n_right < len(models)), low - high, _N_DIFFERING),
        ("mistake of all", n_right == 0, high, _N_SHARED),
        ("close call", n_right == len(models), low, _N_CLOSE_OF_ALL),
    )
    chosen = []
    for kind, is_one, key, n in kinds:
        of_kind = np.flatnonzero(is_one)
        order = of_kind[np.argsort(key[of_kind], kind="stable")][:n]
        chosen += [(kind, int(row)) for row in known[order]]
    return chosen


def _in_units(view: ModelView) -> np.ndarray:
    """Return `(n_triplets,)` margins in units of their median size, to be compared with others."""
    sizes = np.abs(view.margins[view.is_answered])
    return view.margins / max(float(np.median(sizes)) if len(sizes) else 0.0, 1e-12)


def _pack_rows(models: Sequence[ModelView]) -> bytes:
    """Return all rows as a CSV, compressed; with several models each has columns of its own."""
    triplets = models[0].triplets
    names = np.array([guard_formula(name) for name in triplets.names], dtype=object)
    table = pd.DataFrame(names[triplets.rows], columns=["anchor", "positive", "negative"])
    table.insert(0, "line", triplets.lines)
    for view in models:
        of = "" if len(models) == 1 else f"{view.name}: "
        for what, values in (
            ("d_positive", view.to_positive),
            ("d_negative", view.to_negative),
            ("margin", view.margins),
        ):
            table[guard_formula(of + what)] = np.where(view.is_answered, values, np.nan)
        table[guard_formula(f"{of}right")] = (view.margins > 0).astype(int)
    text = table.to_csv(index=False, float_format="%.5g", lineterminator="\n")
    return gzip.compress(text.encode(), mtime=0)

"""The figures of a page: for each, those of all models, light and dark, with a text of its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from tripletkit import defaults
from tripletkit.evaluation.intervals import wilson_interval
from tripletkit.reporting import figures
from tripletkit.reporting.collages import data_uri
from tripletkit.reporting.confusion import confuse_labels
from tripletkit.reporting.model_view import ModelView
from tripletkit.reporting.reported import Reported
from tripletkit.reporting.style import DARK, LIGHT, recolour, render_figure


@dataclass(frozen=True)
class _DrawnFigure:
    """A figure of one model.

    Attributes:
        name: of the model.
        text: what it says, for those who do not see it too.
        light, dark: data URIs.
        width_in: of the figure.
    """

    name: str
    text: str
    light: str
    dark: str
    width_in: float


@dataclass(frozen=True)
class FigureSection:
    """What a page shows of one kind of figure.

    Attributes:
        id: of the section.
        title: of the section.
        figures: of the models that have one.
    """

    id: str
    title: str
    figures: list[_DrawnFigure] = field(default_factory=list)

    def add(self, name: str, text: str, function: Callable[..., Figure], *data: Any) -> None:
        """Draw the figure of a model."""
        figure = function(*data, theme=LIGHT)
        light = render_figure(figure, "svg")
        if b"<image" in light:
            # Pixels have their colours, which no text can exchange.
            dark = render_figure(function(*data, theme=DARK), "svg")
        else:
            dark = recolour(light, LIGHT, DARK)
        in_light, in_dark = (data_uri(svg, "image/svg+xml") for svg in (light, dark))
        width_in = float(figure.get_figwidth())
        self.figures.append(_DrawnFigure(name, text, in_light, in_dark, width_in))


def draw_sections(models: Sequence[Reported]) -> list[FigureSection]:
    """Return the figures of all models, kind by kind; a kind that no model has is left out."""
    kinds: tuple[tuple[str, str, Callable[[FigureSection, str, ModelView], None]], ...] = (
        ("curves", "How it learned", _add_history),
        ("learning-curve", "What more judgements would bring", _add_learning_curve),
        ("distances", "Near and far", _add_distances),
        ("margins", "Right when sure?", _add_margins),
        ("confusion", "Labels mixed up", _add_confusion),
    )
    sections = []
    for key, title, add in kinds:
        section = FigureSection(key, title)
        for model in models:
            add(section, model.name, model.view)
        if section.figures:
            sections.append(section)
    return sections


def _add_history(section: FigureSection, name: str, view: ModelView) -> None:
    history, best = view.model.read_history(), view.model.record.best_epoch
    # An ensemble of chosen parts has one row, which is no curve.
    if len(history) < 2:
        return
    first, last = history.iloc[0], history.iloc[-1]
    text = (
        f"Over {len(history)} epochs the loss went from {first.loss:.4f} to {last.loss:.4f} "
        f"and the share of triplets with a loss from {first.active:.1%} to {last.active:.1%}."
    )
    if history["val_accuracy"].notna().any():
        kept = history.loc[history["epoch"] == best, "val_accuracy"].iloc[0]
        text += f" Validation accuracy at epoch {best}, which was kept: {kept:.1%}."
    section.add(name, text, figures.draw_history, history, best)


def _add_learning_curve(section: FigureSection, name: str, view: ModelView) -> None:
    curve = view.model.record.learning_curve
    if curve is not None:
        section.add(name, curve.outlook, figures.draw_learning_curve, curve)


def _add_distances(section: FigureSection, name: str, view: ModelView) -> None:
    known = view.known
    if not known.any():
        return
    near, far = view.to_positive[known], view.to_negative[known]
    text = (
        f"Anchor and positive are {np.median(near):.2f} apart in the median, anchor and "
        f"negative {np.median(far):.2f}. Where the two peaks overlap, mistakes are made: "
        f"{(near >= far).mean():.1%} of the triplets lie on the wrong side of the line."
    )
    section.add(name, text, figures.draw_distances, near, far, view.model.distance)


def _add_margins(section: FigureSection, name: str, view: ModelView) -> None:
    if not view.known.any():
        return
    parts, margins = view.score.by_margin, view.margins[view.known]
    text = (
        f"Of the fifth of answers with the smallest margins {parts[0].accuracy:.1%} are right, "
        f"of the fifth with the largest {parts[-1].accuracy:.1%}. A model that knows when it "
        "is unsure climbs from left to right."
    )
    section.add(name, text, figures.draw_margins, margins, parts, view.model.distance)


def _add_confusion(section: FigureSection, name: str, view: ModelView) -> None:
    confusion = confuse_labels(view)
    if confusion is None:
        return
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
    section.add(name, text, figures.draw_confusion, confusion.counts, confusion.labels)

"""`tripletkit plot`: one figure of a model, for a paper or a slide."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tripletkit.cli.console import say
from tripletkit.cli.options import OUTPUT_FILE, quiet_option
from tripletkit.cli.views import make_outputs, open_model_views, view_options
from tripletkit.errors import LabelFileError, ModelFolderError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from tripletkit.model.model_folder import ModelFolder
    from tripletkit.reporting.model_view import ModelView

KINDS = ("history", "distances", "margins", "map", "confusion")


@click.command()
@click.argument("kind", type=click.Choice(KINDS))
@click.argument("model", type=click.Path(path_type=Path))
@click.option("-o", "--output", type=OUTPUT_FILE, required=True, help="SVG, PNG or PDF to write.")
@click.option("--dark", is_flag=True, help="Light lines on a dark background, for slides.")
@view_options
@quiet_option
def plot(
    kind: str,
    model: Path,
    output: Path,
    dark: bool,
    projection: str,
    force: bool,
    **view_settings: Any,
) -> None:
    """Draw one figure of a trained model.

    \b
    tripletkit plot history m1 -o history.svg
    tripletkit plot distances m1 --triplets val.txt --truth truth.csv -o distances.png
    tripletkit plot confusion m1 --triplets val.txt --labels labels.csv -o confusion.svg

    history: loss and accuracy of each epoch. distances: of anchor and positive against anchor
    and negative. margins: how often it is right when it is sure. map: the embeddings on a plane.
    confusion: which labels the neighbours mix up (needs --labels).
    """
    from tripletkit.data.output_forms import DRAWN_FORM
    from tripletkit.model.model_folder import load_model
    from tripletkit.reporting.projections import check_projection
    from tripletkit.reporting.style import DARK, LIGHT, check_figure_suffix, write_figure

    check_figure_suffix(output)
    if kind == "confusion" and view_settings["labels"] is None:
        raise click.UsageError("confusion needs --labels FILE, the true labels.")
    theme = DARK if dark else LIGHT
    folder = load_model(model)
    file = make_outputs([folder], force=force, **view_settings).file(output, DRAWN_FORM)
    if kind == "history":
        figure = _draw_history(folder, theme)
    else:
        check_projection(projection)
        (view,) = open_model_views([folder], **view_settings)
        figure = _draw(kind, view, projection, theme)
    write_figure(file, figure)
    say(f"Drew {output}.")


def _draw_history(folder: ModelFolder, theme: Any) -> Figure:
    from tripletkit.reporting.figures import draw_history

    history = folder.read_history()
    if history.empty:
        raise ModelFolderError(f"{folder.path}: has no epoch to draw")
    return draw_history(history, folder.record.best_epoch, theme)


def _draw(kind: str, view: ModelView, projection: str, theme: Any) -> Figure:
    from tripletkit.reporting import figures
    from tripletkit.reporting.confusion import confuse_labels
    from tripletkit.reporting.projections import PROJECTIONS, project_embeddings

    distance, known = view.model.distance, view.known
    if kind == "distances":
        return figures.draw_distances(
            view.to_positive[known], view.to_negative[known], distance, theme
        )
    if kind == "margins":
        return figures.draw_margins(view.margins[known], view.score.by_margin, distance, theme)
    if kind == "map":
        images = view.labelled if view.labels else view.shown
        labels = [view.label_of(image) for image in images] if view.labels else None
        places = project_embeddings(view.embeddings[images], projection)
        paths = [view.paths[image] for image in images]
        return figures.draw_map(places, paths, PROJECTIONS[projection], labels, theme)
    confusion = confuse_labels(view)
    if confusion is None:
        raise LabelFileError(
            f"expected labels for at least two of the {len(view.shown):,} images, got "
            f"{len(view.labelled):,}. Are the names those of the triplets?"
        )
    return figures.draw_confusion(confusion.counts, confusion.labels, theme)

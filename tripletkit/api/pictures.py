"""Pictures of models and triplets: the report, one figure, and collages."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypedDict, Unpack, get_args

import numpy as np

from tripletkit import defaults
from tripletkit.api.given import (
    LabelsLike,
    PathLike,
    TripletsLike,
    WeightsLike,
    as_path,
    given_weights,
    is_path,
)
from tripletkit.api.models import Model
from tripletkit.data.images import ImagesLike, open_images
from tripletkit.data.judgements import TruthLike, read_judgements
from tripletkit.data.labels import read_labels
from tripletkit.data.outputs import COLLAGE_FORM, FIGURE_FORM, Outputs, as_one_run
from tripletkit.errors import LabelFileError, ModelFolderError, SettingsError, TripletFileError
from tripletkit.model.model_folder import ModelFolder, load_model
from tripletkit.progress import Stages, open_stages
from tripletkit.registry import check_choice, check_numbers

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from PIL.Image import Image

    from tripletkit.reporting.model_view import ModelView

logger = logging.getLogger("tripletkit")

# More do not fit beside each other, nor on a page that can be sent by mail.
_MOST_MODELS = 6

FigureKind = Literal["history", "distances", "margins", "map", "confusion"]
Models = Model | PathLike | Sequence[Model | PathLike]


class _ViewOptions(TypedDict, total=False):
    """What is shown of a model; see `report`."""

    triplets: TripletsLike | None
    truth: TruthLike | None
    labels: LabelsLike | None
    images: ImagesLike | None
    weights: WeightsLike | None
    features: PathLike | None
    cache: PathLike | None
    progress: bool | Stages | None


@as_one_run
def report(
    model: Models,
    output: PathLike = "report.html",
    *,
    projection: str = "pca",
    overwrite: bool = False,
    **view: Unpack[_ViewOptions],
) -> Path:
    """Write one HTML page about a model, or several side by side.

    It shows accuracy, figures, mistakes, neighbours and a map.

    Args:
        model: a trained model, or its folder; or several of them, to be compared on the same
            `triplets`.
        output: the file to write.
        projection: how the map is made: `"pca"`, or `"umap"`, which needs `tripletkit[map]`.
        overwrite: replace a report that is there.
        triplets: whose answers are known, anchor, positive, negative unless there is a `truth`.
            Defaults to those of the training, of one model alone.
        truth: of `triplets`, where their second and third image are in chance order.
        labels: of images, for the map and the confusion matrix; see `train`.
        images: folder of the images, or `Images`. Defaults to the one of the training.
        weights, features, cache, progress: see `load` and `train`.
    Returns:
        Where it was written.
    Raises:
        ModelFolderError: if nothing was trained.
        SettingsError: if several models come without `triplets`, or too many.
        TripletkitError: if something cannot be read or written.
    """
    from tripletkit.reporting.page import REPORT_FORM, write_report

    output = Path(output)
    file = Outputs(overwrite=overwrite).file(output, REPORT_FORM)
    views = _open_views(model, projection, **view)
    n_bytes = write_report(file, views, projection)
    logger.info("Wrote %s, %.1f MB. Open it in a browser.", output, n_bytes / 1e6)
    return output


@contextmanager
def serve_report(
    model: Models,
    port: int = defaults.REPORT_PORT,
    *,
    projection: str = "pca",
    **view: Unpack[_ViewOptions],
) -> Iterator[tuple[Any, str]]:
    """Give a server of the report to this computer alone, and the link to its page.

    On the page an image of one's own can be dropped, to see which images are nearest.

    Args:
        model, projection, view: see `report`.
        port: `0` takes any that is free.
    Returns:
        A context manager that gives the server, whose `run()` serves until it is interrupted, and
        the link.
    Raises:
        MissingExtraError: if `tripletkit[collect]` is not installed.
        TripletkitError: see `report`.
    """
    from tripletkit.reporting.served import report_server

    views = _open_views(model, projection, **view)
    with report_server(views, port, projection, as_path(view.get("cache"))) as served:
        yield served


@as_one_run
def plot(
    kind: FigureKind,
    model: Model | PathLike,
    output: PathLike | None = None,
    *,
    projection: str = "pca",
    dark: bool = False,
    overwrite: bool = False,
    **view: Unpack[_ViewOptions],
) -> Figure:
    """Draw one figure of a trained model, for a paper or a slide.

    Args:
        kind: `"history"`, loss and accuracy of each epoch; `"distances"`, of anchor and positive
            against anchor and negative; `"margins"`, how often it is right when it is sure;
            `"map"`, the embeddings on a plane; `"confusion"`, which labels the neighbours mix up.
        model: a trained model, or its folder.
        output: SVG, PNG or PDF to write.
        dark: light lines on a dark background.
        projection, overwrite, view: see `report`.
    Returns:
        The `matplotlib` figure.
    Raises:
        SettingsError: if `kind` is none of them, or is `"confusion"` without `labels`.
        ModelFolderError: if nothing was trained, or there is no epoch to draw.
        TripletkitError: if something cannot be read or written.
    """
    from tripletkit.reporting.figures import DARK, LIGHT, write_figure

    check_choice("kind", kind, get_args(FigureKind))
    if kind == "confusion" and view.get("labels") is None:
        raise SettingsError("labels", "confusion needs `labels=FILE`, the true labels.")
    theme = DARK if dark else LIGHT
    file = Outputs(overwrite=overwrite).optional_file(as_path(output), FIGURE_FORM)
    if kind == "history":
        figure = _draw_history(_find_folder(model), theme)
    else:
        (shown,) = _open_views(model, projection, **view)
        figure = _draw(kind, shown, projection, theme)
    if file is not None:
        write_figure(file, figure)
        logger.info("Drew %s.", output)
    return figure


@as_one_run
def collage(
    triplets: TripletsLike,
    images: ImagesLike,
    output: PathLike | None = None,
    *,
    names: Sequence[str] | None = None,
    rows: bool = True,
    n: int = defaults.NEIGHBORS,
    overwrite: bool = False,
) -> Image:
    """Draw triplets: anchor, positive and negative beside each other.

    Args:
        triplets: see `train`.
        images: folder of the images.
        output: PNG, JPEG or WebP to write.
        names: of the images that integer rows are indices of.
        rows: a row each of anchors, positives and negatives; `False` draws a column each.
        n: how many triplets, from the first on.
        overwrite: replace a picture that is there.
    Returns:
        The PIL image.
    Raises:
        TripletkitError: if something cannot be read or written.
    """
    from tripletkit.reporting.collages import draw_triplets, write_image

    check_numbers(1, n=n)
    file = Outputs(overwrite=overwrite).optional_file(as_path(output), COLLAGE_FORM)
    given = read_judgements(triplets, names=names)
    read = (given.turned() if given.truth or given.votes else given).triplets
    shown = read.take(np.arange(min(n, len(read))))
    used = np.unique(shown.rows)
    places = read.first_places()
    files = open_images(
        images,
        [read.names[row] for row in used],
        [places[row] for row in used],
    )
    paths = dict(zip(used.tolist(), files.paths, strict=True))
    image = draw_triplets(read.names, paths, shown.rows, by_rows=rows)
    if file is not None:
        write_image(file, image)
        logger.info("Drew %s of %s triplets: %s.", f"{len(shown):,}", f"{len(read):,}", output)
    return image


def _find_folder(model: Model | PathLike) -> ModelFolder:
    folder = model.folder if isinstance(model, Model) else load_model(Path(model))
    if folder is None:
        raise ModelFolderError("expected a trained model, a backbone alone has no report")
    return folder


def _open_views(given: Models, projection: str, **view: Unpack[_ViewOptions]) -> list[ModelView]:
    from tripletkit.reporting.figures import check_projection
    from tripletkit.reporting.model_view import open_views

    check_projection(projection)
    models = [given] if isinstance(given, Model) or is_path(given) else list(given)
    if len(models) > _MOST_MODELS:
        raise SettingsError(
            "models", f"expected at most {_MOST_MODELS} models on a page, got {len(models)}"
        )
    folders = [_find_folder(model) for model in models]
    images, labels = view.get("images"), view.get("labels")
    where = None if images is None else open_images(images)
    root = (where and where.folder) or folders[0].image_folder or Path()
    with open_stages(view.get("progress")) as stages:
        return open_views(
            folders,
            triplets=view.get("triplets"),
            truth=view.get("truth"),
            images=where,
            labels=None if labels is None else read_labels(labels, root),
            weights=given_weights(view.get("weights")),
            features=as_path(view.get("features")),
            training=[model.judgements if isinstance(model, Model) else None for model in models],
            cache=as_path(view.get("cache")),
            progress=stages("features"),
        )


def _draw_history(folder: ModelFolder, theme: Any) -> Figure:
    from tripletkit.reporting.figures import draw_history

    history = folder.read_history()
    if history.empty:
        raise ModelFolderError(f"{folder.path}: has no epoch to draw")
    return draw_history(history, folder.record.best_epoch, theme)


def _draw(kind: FigureKind, view: ModelView, projection: str, theme: Any) -> Figure:
    from tripletkit.reporting import figures
    from tripletkit.reporting.page import FIGURES

    if kind == "map":
        images = view.labelled if view.labels else view.shown
        if not len(images):
            raise _no_labels(view, "one")
        labels = [view.label_of(image) or "" for image in images] if view.labels else None
        places = figures.project_embeddings(view.embeddings[images], projection)
        paths = [view.paths[image] for image in images]
        return figures.draw_map(places, paths, figures.PROJECTIONS[projection], labels, theme)
    if (drawing := FIGURES[kind](view)) is not None:
        _, draw, data = drawing
        return draw(*data, theme=theme)
    if kind == "confusion":
        raise _no_labels(view, "two")
    raise TripletFileError(f"{view.triplets.source}: expected images that can be read, got none")


def _no_labels(view: ModelView, fewest: str) -> LabelFileError:
    return LabelFileError(
        f"expected labels for at least {fewest} of the {len(view.shown):,} images, got "
        f"{len(view.labelled):,}. Are the names those of the triplets?"
    )

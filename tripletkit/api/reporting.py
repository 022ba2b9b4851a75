"""The report of a model, from Python."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tripletkit.api.inputs import (
    LabelsLike,
    PathLike,
    TripletsLike,
    is_path,
    take_labels,
)
from tripletkit.api.model import Model
from tripletkit.api.opening import load
from tripletkit.data.outputs import Outputs
from tripletkit.data.truth import TruthLike
from tripletkit.errors import ModelFolderError
from tripletkit.model.model_folder import ModelFolder
from tripletkit.progress import Progress
from tripletkit.reporting.model_view import open_views
from tripletkit.reporting.page import REPORT_FORM, write_report
from tripletkit.reporting.projections import check_projection
from tripletkit.reporting.reported import check_n_models, gather_reported


def report(
    model: Model | PathLike | Sequence[Model | PathLike],
    output: PathLike = "report.html",
    *,
    triplets: TripletsLike | None = None,
    truth: TruthLike | None = None,
    labels: LabelsLike | None = None,
    images: PathLike | None = None,
    projection: str = "pca",
    skip_bad: bool = False,
    follow_outside: bool = False,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Path:
    """Write one HTML page about a model, or several side by side.

    It shows accuracy, figures, mistakes, neighbours and a map.

    Args:
        model: a trained model, or its folder; or several of them, to be compared on the same
            `triplets`.
        output: the file to write. Defaults to `"report.html"`.
        triplets: whose answers are known, anchor, positive, negative unless there is a `truth`.
            Defaults to those of the training, of one model alone.
        truth: of `triplets`, where their second and third image are in chance order.
        labels: of images, for the map and the confusion matrix; see `train`.
        images: folder of the images. Defaults to the one of the training.
        projection: how the map is made: `"pca"`, or `"umap"`, which needs `tripletkit[map]`.
        skip_bad: leave images out that cannot be used. Defaults to `False`.
        follow_outside: allow names and links that lead out of the image folder.
        overwrite: replace a report that is there. Defaults to `False`.
        progress: told (done, total) images whose features have to be computed.
    Returns:
        Where it was written.
    Raises:
        ModelFolderError: if nothing was trained.
        SettingsError: if several models come without `triplets`, or too many.
        TripletkitError: if something cannot be read or written.
    """
    output = Path(output)
    check_projection(projection)
    given = [model] if isinstance(model, Model) or is_path(model) else list(model)
    check_n_models(len(given))
    folders = [_find_folder(each) for each in given]
    wheres = [folder.image_folder if images is None else Path(images) for folder in folders]
    read = [Path(value) for value in (triplets, truth, labels) if is_path(value)]
    paths = [folder.path for folder in folders]
    outputs = Outputs([*read, *paths], image_folders=wheres, overwrite=overwrite)
    file = outputs.file(output, REPORT_FORM)
    views = open_views(
        folders,
        triplets=triplets,
        truth=truth,
        images=None if images is None else Path(images),
        labels=None if labels is None else take_labels(labels, wheres[0] or Path()),
        skip_bad=skip_bad,
        follow_outside=follow_outside,
        progress=progress,
    )
    write_report(file, gather_reported(views), projection)
    return output


def _find_folder(model: Model | PathLike) -> ModelFolder:
    folder = (model if isinstance(model, Model) else load(model)).folder
    if folder is None:
        raise ModelFolderError("expected a trained model, a backbone alone has no report")
    return folder

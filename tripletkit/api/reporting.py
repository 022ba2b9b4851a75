"""The report of a model, from Python."""

from __future__ import annotations

from pathlib import Path

from tripletkit.api.inputs import (
    LabelsLike,
    PathLike,
    TripletsLike,
    TruthLike,
    is_path,
    take_labels,
    take_triplets,
    take_truth,
)
from tripletkit.api.model import Model, load
from tripletkit.data.outputs import Outputs
from tripletkit.errors import ModelFolderError
from tripletkit.evaluation.baselines import run_baselines
from tripletkit.progress import Progress
from tripletkit.reporting.model_view import open_view
from tripletkit.reporting.page import REPORT_FORM, write_report
from tripletkit.reporting.projections import check_projection
from tripletkit.training.reread import read_training_triplets


def report(
    model: Model | PathLike,
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
    """Write one HTML page about a model: figures, mistakes, neighbours, a map.

    Args:
        model: a trained model, or its folder.
        output: the file to write. Defaults to `"report.html"`.
        triplets: whose answers are known, anchor, positive, negative unless there is a `truth`.
            Defaults to those of the training.
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
        TripletkitError: if something cannot be read or written.
    """
    output = Path(output)
    check_projection(projection)
    folder = (model if isinstance(model, Model) else load(model)).folder
    if folder is None:
        raise ModelFolderError("expected a trained model, a backbone alone has no report")
    where = folder.image_folder if images is None else Path(images)
    read = [Path(given) for given in (triplets, truth, labels) if is_path(given)]
    outputs = Outputs([*read, folder.path], image_folders=[where], overwrite=overwrite)
    file = outputs.file(output, REPORT_FORM)
    view = open_view(
        folder,
        triplets=None if triplets is None else take_triplets(triplets),
        truth=None if truth is None else take_truth(truth),
        images=where,
        labels=None if labels is None else take_labels(labels, where),
        skip_bad=skip_bad,
        follow_outside=follow_outside,
        progress=progress,
    )
    training = read_training_triplets(folder.record.inputs)
    baselines = []
    # On the training triplets themselves names would tell everything and say nothing.
    if training is not None and not view.is_training:
        baselines = run_baselines(training, view.triplets)
    write_report(file, view, baselines, training, projection)
    return output

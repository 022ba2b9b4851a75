"""What class labels of images are good for: triplets, hard images, and how classes are told."""

from __future__ import annotations

import logging
from contextlib import ExitStack
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tripletkit import defaults
from tripletkit.api.given import LabelsLike, PathLike, TripletsLike, as_path
from tripletkit.api.models import Model
from tripletkit.data import label_triplets
from tripletkit.data.images import Images, ImagesLike, open_images
from tripletkit.data.judgements import read_judgements
from tripletkit.data.label_triplets import Difficulty
from tripletkit.data.labels import read_labels
from tripletkit.data.outputs import (
    FIGURE_FORM,
    TRIPLETS_FORM,
    TRUTH_FORM,
    OutputFile,
    OutputForm,
    Outputs,
    as_one_run,
    open_output,
)
from tripletkit.data.splits.held_out_draws import hold_out_images, read_held_out
from tripletkit.data.splits.policies import write_questions
from tripletkit.data.text_files import guard_formula
from tripletkit.data.triplets import Triplets, write_triplets
from tripletkit.errors import DataWarning, SettingsError, caution
from tripletkit.evaluation.classification import (
    CONFUSION_FORM,
    Classification,
    Confusion,
    classify_embeddings,
)
from tripletkit.evaluation.distances import distances_between
from tripletkit.features.labelled_images import (
    LabelledImages,
    read_labelled,
    tell_singleton_classes,
)
from tripletkit.features.store import FeatureStore
from tripletkit.progress import Stages, open_stages
from tripletkit.registry import check_choice, check_numbers
from tripletkit.search.offline_mining import (
    IMAGES_COLUMNS,
    TRIPLETS_COLUMNS,
    Mined,
    mine_classes,
    mine_triplets,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

logger = logging.getLogger("tripletkit")

_TRAINED, _FROZEN = "trained embeddings", "frozen features"
Quantiles = tuple[float, float]


@as_one_run
def draw_triplets(
    labels: LabelsLike,
    images: ImagesLike,
    model: Model | None = None,
    *,
    per_anchor: int | None = None,
    count: int | None = None,
    balance: str = defaults.TRIPLET_BALANCE,
    hard: bool | None = None,
    seed: int = defaults.SEED,
    output: PathLike | None = None,
    truth: PathLike | None = None,
    overwrite: bool = False,
    cache: PathLike | None = None,
    progress: bool | Stages | None = None,
) -> Triplets:
    """Draw triplets from class labels: two images of one class and one of another.

    No triplet is drawn twice, and a copy of an image is never its positive.

    Args:
        labels, images, overwrite, cache, progress: see `train`; the store is that of `model`.
        model: that measures what is `hard`.
        per_anchor: triplets for each image as anchor; balanced by class, on average. Defaults to
            `10`.
        count: triplets in all, instead of `per_anchor`.
        balance: `"image"`, each as often an anchor and negative as any other, or `"class"`.
        hard: of several drawn, take the farthest positive and the nearest negative; `False` takes
            easy ones, the other way round. Defaults to `None`, whatever comes.
        seed: of every choice by chance.
        output: triplet file to write.
        truth: file to write the truth to; second and third image then stand in chance order in
            `output`, as in a competition.
    Returns:
        `Triplets`: anchor, positive, negative.
    Raises:
        SettingsError: if `hard` comes without a model.
        LabelFileError: if labels cannot be read, or there are too few classes, or images of them.
    """
    check_numbers(1, per_anchor=per_anchor, count=count)
    check_numbers(0, seed=seed)
    check_choice("balance", balance, defaults.TRIPLET_BALANCES)
    if per_anchor is not None and count is not None:
        raise SettingsError("count", "`per_anchor` and `count` exclude each other.")
    if (hard is None) != (model is None):
        raise SettingsError(
            "hard",
            "`hard` or easy needs something to measure with, and a `model`, such as a `backbone` "
            "alone, measures what is `hard` or easy: give both or neither.",
        )
    outputs = Outputs(overwrite=overwrite)
    file = outputs.optional_file(as_path(output), TRIPLETS_FORM)
    truth_file = outputs.optional_file(as_path(truth), TRUTH_FORM)
    where = model.cache if cache is None and model is not None else as_path(cache)
    found = read_labelled(labels, open_images(images), where)
    difficulty, labelled = None, found.images
    if model is not None and hard is not None:
        vectors = _encode(model, found.files, progress)
        distance = model.distance

        def measure(anchors: np.ndarray, others: np.ndarray) -> np.ndarray:
            pairs = np.repeat(anchors, others.shape[1]), others.ravel()
            found = distances_between(vectors, pairs[0], vectors, pairs[1], distance)
            return found.reshape(others.shape)

        difficulty = Difficulty(hard, measure)
        labelled = labelled[np.isfinite(vectors[labelled, 0])]
    else:
        found.files.warn_of_missing()
    tell_singleton_classes(found.labels, labelled)
    if per_anchor is None and count is None:
        per_anchor = defaults.TRIPLETS_PER_ANCHOR
    of_image = found.labels.of_image
    rows = label_triplets.draw_triplets(
        of_image,
        per_anchor=per_anchor,
        count=count,
        seed=seed,
        balance=balance,
        images=labelled,
        difficulty=difficulty,
    )
    n_anchors = int((np.bincount(of_image[labelled])[of_image[labelled]] > 1).sum())
    if len(rows) < (wanted := count or (per_anchor or 0) * n_anchors):
        logger.info("%s triplets were asked for, there are %s.", f"{wanted:,}", f"{len(rows):,}")
    names = list(found.files.names)
    if file is not None:
        if truth_file is None:
            write_triplets(file, names, rows)
        else:
            write_questions(file, truth_file, names, rows, seed)
        of_truth = "" if truth is None else f"; truth: {truth}"
        logger.info(
            f"Wrote {len(rows):,} triplets over {len(np.unique(rows)):,} images, anchors of "
            f"{len(np.unique(of_image[rows[:, 0]])):,} classes: {output}{of_truth}."
        )
    return Triplets.from_array(rows, names)


@as_one_run
def classify(
    labels: LabelsLike,
    images: ImagesLike | None,
    model: Model,
    *,
    held_out: PathLike | None = None,
    fraction: float | None = None,
    k: int = defaults.NEIGHBORS,
    seed: int = defaults.SEED,
    confusion: PathLike | None = None,
    overwrite: bool = False,
    progress: bool | Stages | None = None,
) -> Classification:
    """Say the classes of held-out images by their embeddings, and how often that is right.

    A class is said by the nearest class center and by the vote of the nearest neighbours among
    the reference, the images that are not held out. Beside a model's embeddings stand the frozen
    features that they are made from.

    Args:
        labels, overwrite, progress: see `train`.
        images: folder of the images; `None` where features are given.
        model: a trained one, or `pretrained`.
        held_out: the images to classify: a folder inside `images`, a CSV (name,label), a triplet
            file, or a text of one name a line. Defaults to the part `test` or `val` of the labels,
            where they have such, else to a share by chance.
        fraction: share of each class to hold out where nothing is named. Defaults to `0.2`.
        k: neighbours that vote.
        seed: of every choice by chance.
        confusion: SVG, PNG or PDF to draw the confusion matrix to, or CSV to write it to.
    Returns:
        A `Classification`: `scores` by embeddings and by frozen features, and `confusion`.
    Raises:
        LabelFileError: if labels cannot be read, or there are too few classes, or images of them.
        ImageNameError, ImageReadError: if an image is not there or cannot be read.
    """
    check_numbers(1, k=k)
    check_numbers(0, seed=seed)
    check_numbers(fraction=fraction)
    if held_out is not None and fraction is not None:
        raise SettingsError(
            "fraction", "`fraction` is for a share by chance, `held_out` says which."
        )
    outputs = Outputs(overwrite=overwrite)
    is_table = confusion is not None and Path(confusion).suffix.lower() == ".csv"
    form = CONFUSION_FORM if is_table else FIGURE_FORM
    confusion_file = outputs.optional_file(as_path(confusion), form)
    where = open_images(images)
    opened = read_labels(labels, where.folder)
    named: dict[str, str | None] = {}
    if held_out is not None:
        named = read_held_out(Path(held_out), where.folder or Path())
    elif fraction is None and (part := opened.parts["test"] or opened.parts["val"]):
        named = {**part}
        logger.info("Held out: the %s images of its other part.", f"{len(part):,}")
    source = as_path(held_out)
    found = read_labelled(opened, where, model.cache, further=named, further_source=source)
    if named:
        is_query = found.mark(named)
    else:
        share = fraction or defaults.VAL_FRACTION
        is_query = hold_out_images(found.labels.of_image, share, seed, found.images)
        if model.is_trained:
            caution(
                "the model may have learned from images that are held out here, and its numbers "
                "are then too high. Name those that it has not seen with `held_out`.",
                DataWarning,
            )
    result = _classify(model, found, is_query, k, progress)
    if confusion_file is not None and is_table:
        result.confusion.write(confusion_file)
        logger.info("Wrote %s.", confusion_file)
    elif confusion_file is not None:
        from tripletkit.reporting.figures import draw_confusion, write_figure

        matrix = result.confusion
        write_figure(confusion_file, draw_confusion(matrix.counts, matrix.labels))
        logger.info("Drew %s.", confusion_file)
    return result


@as_one_run
def mine(
    labels: LabelsLike | None,
    images: ImagesLike | None,
    model: Model,
    *,
    triplets: TripletsLike | None = None,
    per_image: int | None = None,
    positive_quantiles: Quantiles | None = None,
    negative_quantiles: Quantiles | None = None,
    keep: float | int | None = None,
    output: PathLike | None = None,
    triplets_out: PathLike | None = None,
    plot: PathLike | None = None,
    overwrite: bool = False,
    progress: bool | Stages | None = None,
) -> Mined:
    """Find hard positives and negatives of labelled images, or the hardest of your triplets.

    Hard positives are the farthest images of the class, hard negatives the nearest of others. The
    very hardest are often wrong labels; the quantiles cut them off.

    Args:
        labels, overwrite, progress: see `train`; no labels with `triplets`.
        images: folder of the images; `None` where features are given.
        model: whose distances count: a trained one, or `pretrained`.
        triplets: instead of `labels`: find the hardest of these.
        per_image: positives, and negatives, of each image at most. Defaults to `5`.
        positive_quantiles: mine positives between these quantiles of all distances within classes.
        negative_quantiles: mine negatives between these quantiles of all distances between classes.
        keep: how many of `triplets`, as a count or a share. Defaults to a half.
        output: CSV to write, a row for each mined image or triplet.
        triplets_out: triplet file to write, to train on.
        plot: SVG, PNG or PDF to draw the distances to, with the cuts.
    Returns:
        `Mined`: `table`, `names` and `triplets` of these.
    Raises:
        SettingsError: if settings do not go together.
        TripletkitError: if labels, triplets or images cannot be read.
    """
    if (labels is None) == (triplets is None):
        raise SettingsError(
            "triplets",
            "expected `labels` before the images, or `triplets` in the place of `labels`: either "
            "says which images are alike.",
        )
    of_labels = {
        "per_image": per_image,
        "positive_quantiles": positive_quantiles,
        "negative_quantiles": negative_quantiles,
    }
    wrong, needed = (of_labels, "labels") if labels is None else ({"keep": keep}, "triplets")
    for name, value in wrong.items():
        if value is not None:
            raise SettingsError(name, f"`{name}` is for `{needed}`.")
    check_numbers(1, per_image=per_image)
    check_numbers(1 if isinstance(keep, Integral) else None, keep=keep)
    quantiles = (
        _check_quantiles("positive_quantiles", positive_quantiles, defaults.POSITIVE_QUANTILES),
        _check_quantiles("negative_quantiles", negative_quantiles, defaults.NEGATIVE_QUANTILES),
    )
    outputs = Outputs(overwrite=overwrite)
    headings = tuple(",".join(each) + "\n" for each in (IMAGES_COLUMNS, TRIPLETS_COLUMNS))
    form = OutputForm("a table of `tripletkit mine`", headings=headings)
    files = (
        outputs.optional_file(as_path(output), form),
        outputs.optional_file(as_path(triplets_out), TRIPLETS_FORM),
        outputs.optional_file(as_path(plot), FIGURE_FORM),
    )
    with open_stages(progress) as stages:
        if triplets is not None:
            kept = keep or defaults.KEPT_TRIPLETS
            mined = _mine_triplets(model, triplets, open_images(images), kept, stages)
        else:
            assert labels is not None
            found = read_labelled(labels, open_images(images), model.cache)
            mined = _mine_classes(
                model, found, per_image or defaults.MINED_PER_IMAGE, quantiles, stages
            )
    _write_mined(mined, *files)
    return mined


def _check_quantiles(name: str, given: Quantiles | None, usual: Quantiles) -> Quantiles:
    shares = np.asarray(usual if given is None else given)
    is_pair = shares.shape == (2,) and shares.dtype.kind in "fiu"
    if not is_pair or not 0 <= shares[0] < shares[1] <= 1:
        raise SettingsError(name, f"`{name}`: expected a lower and a higher share, got {given}.")
    low, high = shares.tolist()
    return low, high


def _mine_classes(
    model: Model,
    found: LabelledImages,
    per_image: int,
    quantiles: tuple[Quantiles, Quantiles],
    stages: Stages,
) -> Mined:
    """Mine hard images; names of one image count as one."""
    vectors = _encode(model, found.files, stages)
    kept = found.images[np.isfinite(vectors[found.images, 0])]
    tell_singleton_classes(found.labels, kept)
    names = [found.files.names[image] for image in kept]
    labels = found.labels.of_image[kept]
    return mine_classes(
        vectors[kept], labels, names, model.distance, per_image, quantiles, stages, _draw
    )


def _mine_triplets(
    model: Model, triplets: TripletsLike, images: Images, keep: float | int, stages: Stages
) -> Mined:
    """Find the hardest of the user's triplets."""
    asked = read_judgements(triplets).decided().triplets
    if n_degenerate := int(asked.is_degenerate().sum()):
        caution(f"{n_degenerate:,} triplets name one image twice; they are left out.", DataWarning)
        asked = asked.take(~asked.is_degenerate())
    files = images.find(asked.names, asked.first_places())
    return mine_triplets(_encode(model, files, stages), asked, model.distance, keep, _draw)


def _draw(what: str, *given: Any, **options: Any) -> Figure:
    """Draw a figure, by a function that what was found can be pickled with."""
    from tripletkit.reporting import figures

    figure: Figure = getattr(figures, f"draw_{what}")(*given, **options)
    return figure


def _write_mined(
    mined: Mined, table: OutputFile | None, triplets: OutputFile | None, plot: OutputFile | None
) -> None:
    """Write all of it, or nothing."""
    with ExitStack() as stack:
        files = []
        if table is not None:
            files.append(stack.enter_context(open_output(table)))
            texts = mined.table.select_dtypes(["object", "string"])
            texts = texts.map(guard_formula, na_action="ignore")
            mined.table.assign(**texts).to_csv(files[-1], index=False, lineterminator="\n")
        if triplets is not None:
            files.append(stack.enter_context(open_output(triplets)))
            write_triplets(files[-1], mined.names, mined.triplets)
        if plot is not None:
            from tripletkit.reporting.figures import render_figure

            form = plot.path.suffix.lower().removeprefix(".")
            files.append(stack.enter_context(open_output(plot, "wb")))
            files[-1].write(render_figure(mined.draw(), form))
        # A full disk shows here, before any of them has taken its place.
        for file in files:
            file.flush()
    if table is not None:
        logger.info("Wrote %s rows: %s.", f"{len(mined.table):,}", table)
    if triplets is not None:
        logger.info("Wrote %s triplets: %s.", f"{len(mined.triplets):,}", triplets)
    if plot is not None:
        logger.info("Drew %s.", plot)


def _classify(
    model: Model,
    found: LabelledImages,
    is_query: np.ndarray,
    k: int,
    progress: bool | Stages | None,
) -> Classification:
    features = _encode(model.frozen, found.files, progress)
    labelled = found.images[np.isfinite(features[found.images, 0])]
    queries, reference = labelled[is_query[labelled]], labelled[~is_query[labelled]]
    spaces = {_FROZEN: (features, defaults.FROZEN_DISTANCE)}
    if model.encoder.head is not None:
        spaces = {_TRAINED: (model.encoder.embed(features), model.distance)} | spaces
    of_image = found.labels.of_image
    found_of = {
        name: classify_embeddings(
            vectors[reference],
            of_image[reference],
            vectors[queries],
            of_image[queries],
            distance,
            k,
        )
        for name, (vectors, distance) in spaces.items()
    }
    distances = {name: distance for name, (_, distance) in spaces.items()}
    (_, confusion), *_ = found_of.values()
    scores = {name: of_space for name, (of_space, _) in found_of.items()}
    return Classification(scores, distances, Confusion(found.labels.classes, confusion))


def _encode(model: Model, files: Images, progress: bool | Stages | None) -> np.ndarray:
    with FeatureStore(model.cache) as store, open_stages(progress) as stages:
        return model.encoder.encode(files, store, progress=stages("features"))

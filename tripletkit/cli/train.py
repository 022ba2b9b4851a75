"""`tripletkit train`: from judgements and images to a model folder."""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tripletkit import defaults
from tripletkit.cli.collections import open_collection
from tripletkit.cli.console import prepare_tensorflow, say, show_json, warn
from tripletkit.cli.options import (
    INPUT_PATH,
    cache_option,
    follow_outside_option,
    force_option,
    input_source,
    json_option,
    on_bad_image_option,
    quiet_option,
    seed_option,
)
from tripletkit.cli.sources import check_weights
from tripletkit.cli.train_data import SOURCE_OPTIONS, TrainingSources, read_training_input
from tripletkit.cli.train_options import (
    check_loss,
    data_options,
    loss_options,
    model_options,
    pixel_options,
    training_options,
    votes_options,
)
from tripletkit.cli.train_pixels import PixelOptions, train_from_pixels
from tripletkit.cli.train_text import (
    chooses_epoch,
    describe_epoch,
    describe_training,
    warn_of_weak_score,
)
from tripletkit.errors import SplitError

if TYPE_CHECKING:
    import numpy as np

    from tripletkit.data.training_set import TrainingSet
    from tripletkit.evaluation.validation import LabelScores, Validation
    from tripletkit.features.collection import Collection, NamedFiles
    from tripletkit.features.sources import GivenWeights
    from tripletkit.model.history import EpochRecord, TrainedHead
    from tripletkit.model.settings import HeadSettings
    from tripletkit.training.probe import UnseenClasses


@click.command()
@click.argument("triplets", type=INPUT_PATH, required=False)
@click.argument("images", type=INPUT_PATH, required=False, metavar="IMAGES")
@data_options
@votes_options
@model_options
@loss_options
@training_options
@pixel_options
@on_bad_image_option
@follow_outside_option
@cache_option
@seed_option
@force_option
@json_option
@quiet_option
def train(
    triplets: Path | None,
    images: Path | None,
    output: Path,
    unseen_fraction: float | None,
    test_file: Path | None,
    backbone: list[str],
    weights: GivenWeights,
    views: list[str] | None,
    epochs: int | None,
    tensorboard: Path | None,
    on_bad_image: str,
    follow_outside: bool,
    cache: Path | None,
    force: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Train a model from judgements `anchor positive negative` over a folder of images.

    \b
    tripletkit train train.txt images/
    tripletkit train train.txt images/ -o m1 --val val.txt --val-truth val_truth.csv
    tripletkit train train.txt images/ --backbone resnet50 --weights resnet50_notop.h5
    tripletkit train train.txt images/ --backbone resnet50,efficientnet-lite0 --views flip
    tripletkit train images/ --labels labels.csv --loss center
    tripletkit train train.txt images/ --backbone cnn --image-size 32 --dim 8
    tripletkit train train.txt images/ --backbone efficientnet-lite0 --unfreeze 1

    Every image goes through the frozen backbone once; its features are kept on disk, so that
    the next run starts at once. With 500 validation triplets or more the best epoch by their
    accuracy is kept, with fewer the last. The accuracy is printed beside that of the frozen
    features alone. With --recipe residual or best a second number tells how the model does on
    classes of images that training has not seen.

    With --labels and no triplet file, images of every class are held out and triplets are
    drawn from the labels, or mined from batches; `tripletkit losses` lists what else can be
    learned from labels.

    With --backbone cnn or --unfreeze the backbone is trained too, from the pixels, with a
    checkpoint after every epoch that --resume goes on from.
    """
    sources = TrainingSources.of_arguments(
        triplets, images, **{name: options.pop(name) for name in SOURCE_OPTIONS}
    )
    check_weights(backbone, weights)
    pixels = PixelOptions.take(options, backbone, weights, views)
    pixels.check(options, unseen_fraction, test_file, has_votes=sources.has_votes)
    held_out_fraction = _check_recipe(
        options, 0.0 if pixels.are_used else unseen_fraction, test_file
    )
    check_loss(options, has_labels=sources.labels is not None, has_votes=sources.has_votes)

    from tripletkit.model.model_folder import check_model_output, name_centers, save_model
    from tripletkit.training.record import make_record

    started_s = time.perf_counter()
    check_model_output(output, overwrite=force)
    pixels.check_output(output, overwrite=force)
    skip_bad = on_bad_image == "skip"
    found = read_training_input(
        sources, options["seed"], cache, skip_bad=skip_bad, follow_outside=follow_outside
    )
    images, files = sources.images, found.files
    test_files = test_file and _find_test(test_file, images, skip_bad, follow_outside)
    prepare_tensorflow()
    features_of = pixels.choose_features(backbone, weights, views, options["seed"])
    features_started_s = time.perf_counter()
    collection = open_collection(files, features_of, cache, skip_bad=skip_bad)
    test_features = None
    if test_files is not None:
        test = open_collection(test_files, features_of, cache, skip_bad=skip_bad)
        test_features = test.features[test.is_usable()]
    features_s = time.perf_counter() - features_started_s
    data = _check_enough(found.data.keep_usable(collection.is_usable()), skip_bad)

    settings = _make_settings(options, epochs, data)
    loss_weights = sources.weigh(data)
    training_started_s = time.perf_counter()
    unseen_classes = _measure_unseen_classes(
        data,
        collection,
        settings,
        held_out_fraction,
        test_features,
        loss_weights,
        asked=unseen_fraction is not None,
    )
    if unseen_classes is not None:
        settings = unseen_classes.probe.candidate.apply(settings)
    trained = None
    if not pixels.are_from_scratch:
        log_folder = None if pixels.are_used else tensorboard
        trained = _train(data, collection, settings, loss_weights, log_folder)
    before, from_pixels = collection, None
    if pixels.are_used:
        from_pixels = train_from_pixels(
            pixels,
            data,
            files,
            features_of,
            collection,
            settings,
            trained,
            output=output,
            cache=cache,
            skip_bad=skip_bad,
            log_epochs=partial(_log_epochs, tensorboard),
        )
        features_of, collection = from_pixels.features_of, from_pixels.collection
        trained = from_pixels.trained
    training_s = time.perf_counter() - training_started_s
    embeddings = _embed(collection, trained)
    validation = _validate(data, before, embeddings, settings)
    if from_pixels is not None and validation is not None:
        validation = from_pixels.set_beside(validation)
    label_scores = _classify(data, before, embeddings, settings)

    times = {
        "features_s": round(features_s, 3),
        "training_s": round(training_s, 3),
        "total_s": round(time.perf_counter() - started_s, 3),
    }
    record = make_record(
        shlex.join(["tripletkit", *sys.argv[1:]]),
        data,
        found.record,
        collection,
        features_of,
        settings,
        trained,
        validation,
        unseen_classes,
        label_scores,
    )
    record |= {
        "images": images and str(images.absolute()),
        "times": times,
        "pixels": from_pixels and from_pixels.record,
    }
    save_model(
        output,
        trained.head,
        trained.history_rows(),
        record,
        name_centers(trained.centers, data.labels),
        backbone=from_pixels and from_pixels.backbone_file,
        overwrite=force,
    )
    pixels.forget_checkpoint(output)

    if as_json:
        show_json({"model": str(output)} | record)
    else:
        click.echo(
            describe_training(
                output, data, collection, trained, validation, unseen_classes, label_scores, times
            )
        )
    if validation is not None:
        warn_of_weak_score(validation)


def _check_enough(data: TrainingSet, skip_bad: bool) -> TrainingSet:
    if not len(data.train):
        cause = " after leaving out bad images" if skip_bad else ""
        raise SplitError(f"{data.train.source}: no triplet is left for training{cause}")
    return data


def _make_settings(options: dict[str, Any], epochs: int | None, data: TrainingSet) -> HeadSettings:
    from tripletkit.model.recipes import get_recipe
    from tripletkit.model.settings import HeadSettings
    from tripletkit.training.epochs import choose_epochs

    settings = HeadSettings.of_recipe(options.pop("recipe"), epochs=epochs, **options)
    if epochs is not None:
        return settings
    usual = get_recipe(settings.recipe).epochs
    return replace(
        settings, epochs=choose_epochs(*settings.count_per_epoch(data.train.rows), usual)
    )


def _check_recipe(
    options: dict[str, Any], unseen_fraction: float | None, test_file: Path | None
) -> float:
    """Refuse options that do not go together; return the share of images for unseen classes."""
    from tripletkit.model.recipes import get_recipe

    recipe = get_recipe(options["recipe"])
    if recipe.squared and options["distance"] != "l2":
        raise click.UsageError(f"--recipe {recipe.name} answers by --distance l2 only.")
    held_out_fraction = unseen_fraction
    if held_out_fraction is None:
        held_out_fraction = defaults.UNSEEN_FRACTION if recipe.probes else 0.0
    if test_file is not None and not held_out_fraction:
        raise click.UsageError(
            "--test needs held-out classes to compare with: give --unseen-classes or --recipe best."
        )
    return held_out_fraction


def _find_test(test_file: Path, images: Path, skip_bad: bool, follow_outside: bool) -> NamedFiles:
    from tripletkit.data.triplets import read_triplets
    from tripletkit.features.collection import find_files

    test = read_triplets(input_source(test_file))
    return find_files(
        test.names, test.first_places(), images, skip_bad=skip_bad, follow_outside=follow_outside
    )


def _measure_unseen_classes(
    data: TrainingSet,
    collection: Collection,
    settings: HeadSettings,
    fraction: float,
    test_features: np.ndarray | None,
    loss_weights: np.ndarray | None,
    *,
    asked: bool,
) -> UnseenClasses | None:
    if not fraction:
        return None
    from tripletkit.training.probe import measure_unseen_classes

    try:
        found = measure_unseen_classes(
            data, collection.features, settings, fraction, test_features, loss_weights
        )
    except SplitError as error:
        if asked:
            raise
        warn(f"{error}\nTraining goes on without.")
        return None
    candidate = found.probe.candidate
    if len(found.probe.scores) > 1:
        with_mlp = (
            f", {candidate.mlp_members} of {settings.members} heads by the recipe mlp"
            if candidate.mlp_members
            else ""
        )
        say(
            f"Chosen: frozen features {candidate.frozen_share:.0%} of the distance, "
            f"{candidate.strength:.0%} of the learned step{with_mlp} ({found.probe.reason})."
        )
    return found


def _train(
    data: TrainingSet,
    collection: Collection,
    settings: HeadSettings,
    loss_weights: np.ndarray | None,
    tensorboard: Path | None,
) -> TrainedHead:
    from tripletkit.model.recipes import get_recipe
    from tripletkit.training.epochs import train_model

    # Elsewhere the length of the step takes the place of the number of epochs.
    by_epoch = not get_recipe(settings.recipe).starts_as_identity
    with _log_epochs(
        tensorboard, lambda record: say(describe_epoch(record, settings.epochs))
    ) as on_epoch:
        return train_model(
            collection.features,
            data.train.rows,
            data.val.rows,
            settings,
            data.labels,
            loss_weights=loss_weights,
            chooses_epoch=by_epoch and chooses_epoch(len(data.val)),
            on_epoch=on_epoch,
            on_member=lambda member: say(f"Head {member} of {settings.members}."),
        )


def _log_epochs(
    folder: Path | None, then: Callable[[EpochRecord], None]
) -> AbstractContextManager[Callable[[EpochRecord], None]]:
    """Return what is to be told each epoch: the logs if they are wanted, then the user."""
    if folder is None:
        return nullcontext(then)
    from tripletkit.training.tensorboard import EpochLog

    return EpochLog(folder, then)


def _embed(collection: Collection, trained: TrainedHead) -> np.ndarray:
    from tripletkit.model.embedding import embed

    return embed(trained.head, collection.features)


def _validate(
    data: TrainingSet, collection: Collection, embeddings: np.ndarray, settings: HeadSettings
) -> Validation | None:
    if not len(data.val):
        return None
    from tripletkit.evaluation.validation import validate

    return validate(data, embeddings, collection.features, settings.distance)


def _classify(
    data: TrainingSet, collection: Collection, embeddings: np.ndarray, settings: HeadSettings
) -> LabelScores | None:
    if data.labels is None:
        return None
    from tripletkit.evaluation.validation import classify_validation

    return classify_validation(data, embeddings, collection.features, settings.distance)

"""The whole of a training: from what the user names to a model with its scores.

What needs Keras is imported where it is used, so that a wrong file is told of at once.
"""

from __future__ import annotations

import logging
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tripletkit.data.images import Images, open_images
from tripletkit.data.training_set import TrainingSet
from tripletkit.data.votes import make_loss_weights
from tripletkit.errors import FewTripletsWarning, SettingsError, SplitError
from tripletkit.evaluation.validation import (
    LabelScores,
    Validation,
    classify_validation,
    validate,
)
from tripletkit.features.encoder import Collection, Encoder, open_collection
from tripletkit.features.keras_start import start_keras
from tripletkit.features.stores import Store, open_store
from tripletkit.model.distribution_shift import ShiftDetector
from tripletkit.model.embedding import embed
from tripletkit.model.history import EpochRecord, TrainedHead, tell_epoch
from tripletkit.model.model_folder import check_model_output
from tripletkit.model.recipes import get_recipe
from tripletkit.model.settings import HeadSettings
from tripletkit.progress import Stages, no_stages
from tripletkit.training.cautions import warn_of_weak_draws, warn_of_weak_score
from tripletkit.training.checkpoint import check_no_checkpoint, checkpoint_path
from tripletkit.training.inputs import read_inputs
from tripletkit.training.job import TrainingJob
from tripletkit.training.result import TrainingResult, make_record

if TYPE_CHECKING:
    from tripletkit.training.unseen_classes import UnseenClasses

logger = logging.getLogger("tripletkit")


def train(
    job: TrainingJob,
    output: Path | None = None,
    *,
    overwrite: bool = False,
    resume: bool = False,
    tensorboard: Path | None = None,
    command: str = "",
    stages: Stages = no_stages,
) -> TrainingResult:
    """Train a model as a job says, and write it.

    Args:
        job: what to learn from, and how.
        output: the model folder to write; None to keep the model in memory.
        overwrite: replace a model that is there.
        resume: go on with an interrupted training from pixels.
        tensorboard: folder for each epoch's numbers as TensorBoard logs.
        command: as it was typed, for the record.
        stages: told of progress.
    Raises:
        TripletkitError: if something is wrong with settings, data, images or weights, or if
            training collapses.
    """
    job = job.checked()
    if resume and not job.is_from_scratch:
        raise SettingsError(
            "resume",
            "`resume` is for training from pixels: of a backbone that is trained from scratch, "
            "such as `backbone=cnn`, or for fine-tuning. Heads are trained in seconds.",
        )
    started_s = time.perf_counter()
    if output is not None:
        check_model_output(output, overwrite=overwrite)
        if job.is_from_scratch and not resume:
            check_no_checkpoint(output, overwrite=overwrite)
    with ExitStack() as resources:
        store = resources.enter_context(open_store(job.cache))
        inputs = read_inputs(
            job.sources,
            job.seed,
            store,
            skip_bad=job.skip_bad,
            follow_outside=job.follow_outside,
        )
        test_files = _find_test(job)
        # All that can be wrong with files was found by now; this takes seconds.
        start_keras()
        scratch = tempfile.TemporaryDirectory(prefix="tripletkit-")
        folder = Path(scratch.name)
        features_started_s = time.perf_counter()
        source = _choose_source(job, folder)
        load = _Loader(store, stages)
        collection = load(inputs.files, source)
        test_features = None
        if test_files is not None:
            test = load(test_files, source)
            test_features = test.features[test.is_usable()]
        features_s = time.perf_counter() - features_started_s
        data = _keep_usable(inputs.data, collection, skip_bad=job.skip_bad)

        settings = job.make_settings(data.train.rows)
        loss_weights = weigh(data, job)
        training_started_s = time.perf_counter()
        unseen, before, pixels, fitted = None, collection, None, None
        if not get_recipe(settings.recipe).part_heads:
            unseen = _measure_unseen(job, data, collection, settings, test_features, loss_weights)
            if unseen is not None:
                settings = unseen.probe.candidate.apply(settings)
        with log_epochs(tensorboard) as on_epoch:
            if job.is_from_scratch:
                from tripletkit.training.pixels import PixelPlan, train_from_pixels

                plan = PixelPlan(None, settings, output, resume=resume)
                pixels = train_from_pixels(
                    plan,
                    data,
                    inputs.files,
                    source,
                    settings,
                    store=store,
                    folder=folder,
                    load=load,
                    on_epoch=on_epoch,
                    stages=stages,
                )
                source, collection, trained = pixels.source, pixels.collection, pixels.trained
            else:
                from tripletkit.training.fitting import fit

                fitted = fit(
                    data,
                    collection.features,
                    source.columns,
                    settings,
                    loss_weights,
                    pools=job.sources.pools,
                    budget_s=job.budget_s,
                    unseen_fraction=job.unseen_fraction,
                    test_features=test_features,
                    with_curve=job.learning_curve,
                    on_epoch=on_epoch,
                    stages=stages,
                )
                trained, settings = fitted.trained, fitted.settings
                unseen = unseen or fitted.unseen
        training_s = time.perf_counter() - training_started_s
        validation, label_scores = score(
            data, before, collection, trained, settings, is_from_scratch=job.is_from_scratch
        )
        record = make_record(
            command=command,
            images=job.sources.images,
            inputs=inputs.record,
            data=data,
            collection=collection,
            source=source,
            settings=settings,
            trained=trained,
            times={
                "features_s": features_s,
                "training_s": training_s,
                "total_s": time.perf_counter() - started_s,
            },
            validation=validation,
            unseen_classes=unseen,
            label_scores=label_scores,
            pixels=pixels and pixels.record,
            pooled=fitted and fitted.pooled,
            curve=fitted and fitted.curve,
            parts=() if fitted is None else fitted.parts,
        )
        result = TrainingResult(
            trained,
            source,
            data,
            record,
            validation,
            unseen,
            label_scores,
            pixels and pixels.backbone_file,
            scratch,
            fitted and fitted.pooled,
            fitted and fitted.curve,
            learn_shift(data, collection),
        )
        if output is not None:
            result = result.saved(output, overwrite=overwrite)
            if pixels is not None:
                checkpoint_path(output).unlink(missing_ok=True)
    if validation is not None:
        warn_of_weak_score(
            validation,
            has_val_truth=job.sources.val is None or job.sources.val.truth is not None,
        )
    if result.pooled is not None:
        warn_of_weak_draws(result.pooled, settings.recipe)
    return result


def weigh(data: TrainingSet, job: TrainingJob) -> np.ndarray | None:
    """Return the weights of the training triplets' losses; None without votes."""
    if data.train_votes is None:
        return None
    return make_loss_weights(data.train_votes, job.sources.takes_votes_as)


def learn_shift(data: TrainingSet, collection: Collection) -> ShiftDetector | None:
    """Return what tells images unlike those of the training triplets."""
    return ShiftDetector.of(collection.features[np.unique(data.train.rows)])


def score(
    data: TrainingSet,
    before: Collection,
    collection: Collection,
    trained: TrainedHead,
    settings: HeadSettings,
    *,
    is_from_scratch: bool,
) -> tuple[Validation | None, LabelScores | None]:
    """Return how a trained head does on validation triplets and on the classes of images.

    Args:
        before: features as they were before training; others than in `collection` where the
            backbone was trained too.
    """
    embeddings = embed(trained.head, collection.features)
    validation, label_scores = None, None
    if len(data.val):
        validation = validate(
            data,
            embeddings,
            before.features,
            settings.distance,
            is_from_scratch=is_from_scratch,
        )
    if data.labels is not None:
        label_scores = classify_validation(data, embeddings, before.features, settings.distance)
    return validation, label_scores


@contextmanager
def log_epochs(folder: Path | None) -> Iterator[Callable[[EpochRecord, int], None]]:
    """Give what is told each epoch and their number: the logs if wanted, then who listens."""
    if folder is None:
        yield tell_epoch
        return
    from tripletkit.training.tensorboard import EpochLog

    with EpochLog(folder) as log:

        def tell(record: EpochRecord, n_epochs: int) -> None:
            log(record)
            tell_epoch(record, n_epochs)

        yield tell


class _Loader:
    """Gives images their features; see `open_collection`."""

    def __init__(self, store: Store, stages: Stages) -> None:
        self._store, self._stages = store, stages

    def __call__(self, files: Images, source: Encoder) -> Collection:
        return open_collection(
            files,
            source,
            self._store,
            progress=self._stages("features"),
        )


def _find_test(job: TrainingJob) -> Images | None:
    if job.test is None:
        return None
    test = job.test.triplets
    return open_images(
        job.sources.images,
        test.names,
        test.first_places(),
        skip_bad=job.skip_bad,
        follow_outside=job.follow_outside,
    )


def _choose_source(job: TrainingJob, folder: Path) -> Encoder:
    """Return what features are of before training: from scratch, of random weights."""
    if job.is_from_scratch:
        from tripletkit.training.pixels import start_from_scratch

        return start_from_scratch(job.backbones[0], job.image_size, job.seed, folder)
    source = job.open_encoder()
    for part in source.parts:
        if part.reason:
            logger.info("Backbone %s.", part.reason)
    return source


def _keep_usable(data: TrainingSet, collection: Collection, *, skip_bad: bool) -> TrainingSet:
    data = data.keep_usable(collection.is_usable())
    if not len(data.train):
        cause = " after leaving out bad images" if skip_bad else ""
        raise SplitError(f"{data.train.source}: no triplet is left for training{cause}")
    return data


def _measure_unseen(
    job: TrainingJob,
    data: TrainingSet,
    collection: Collection,
    settings: HeadSettings,
    test_features: np.ndarray | None,
    loss_weights: np.ndarray | None,
) -> UnseenClasses | None:
    if not job.unseen_fraction:
        return None
    from tripletkit.training.unseen_classes import measure_unseen_classes

    try:
        found = measure_unseen_classes(
            data, collection.features, settings, job.unseen_fraction, test_features, loss_weights
        )
    except SplitError as error:
        if job.unseen_classes is not None:
            raise
        warnings.warn(f"{error}\nTraining goes on without it.", FewTripletsWarning, stacklevel=2)
        return None
    candidate = found.probe.candidate
    if len(found.probe.scores) > 1:
        with_mlp = (
            f", {candidate.mlp_members} of {settings.members} heads by the recipe mlp"
            if candidate.mlp_members
            else ""
        )
        logger.info(
            "Chosen: frozen features %.0f%% of the distance, %.0f%% of the learned step%s (%s).",
            100 * candidate.frozen_share,
            100 * candidate.strength,
            with_mlp,
            found.probe.reason,
        )
    return found

"""The whole of a training: from what the user names to a model with its scores.

It is the same for every kind of training: open, answer held-out draws, choose by these answers, fit
on everything, measure unseen classes, write. What differs is in the job's trainer.
"""

from __future__ import annotations

import logging
import tempfile
import time
import warnings
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import numpy as np

from tripletkit import defaults
from tripletkit.data.images import Images, open_images
from tripletkit.data.training_set import TrainingSet
from tripletkit.errors import FewTripletsWarning, SettingsError, SplitError
from tripletkit.evaluation.validation import (
    classify_validation,
    score_margins,
    validate,
    warn_of_features,
)
from tripletkit.features.encoder import Collection, Encoder, open_collection
from tripletkit.features.store import Store, open_store
from tripletkit.model.embedding import embed
from tripletkit.model.model_folder import check_model_output
from tripletkit.model.recipes import get_recipe
from tripletkit.progress import Stages, no_stages
from tripletkit.training.checkpoint import check_no_checkpoint, checkpoint_path
from tripletkit.training.epochs import log_epochs
from tripletkit.training.held_out import (
    answer_held_out,
    choose,
    make_map,
    measure_learning_curve,
    score_held_out,
)
from tripletkit.training.inputs import read_inputs
from tripletkit.training.job import Job, Plan
from tripletkit.training.result import (
    Outcome,
    TrainingResult,
    make_result,
    warn_of_unseen_classes,
    warn_of_weak_draws,
    warn_of_weak_score,
)
from tripletkit.training.trainer import (
    Examples,
    OnEpoch,
    Trainer,
    Workplace,
    ignore_epoch,
)
from tripletkit.training.unseen_classes import (
    UnseenPlan,
    measure_unseen_classes,
    plan_unseen_classes,
)

logger = logging.getLogger("tripletkit")


def train(
    job: Job,
    output: Path | None = None,
    *,
    overwrite: bool = False,
    resume: bool = False,
    tensorboard: Path | None = None,
    command: str = "",
    on_epoch: OnEpoch = ignore_epoch,
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
        on_epoch: told each epoch and how many there are at most.
        stages: told of progress.
    Raises:
        TripletkitError: if something is wrong with settings, data, images or weights, or if
            training collapses.
    """
    started_s = time.perf_counter()
    job = job.checked()
    plan = job.plan
    _check_output(plan, output, overwrite=overwrite, resume=resume)
    with ExitStack() as resources:
        store = resources.enter_context(open_store(plan.cache))
        scratch = tempfile.TemporaryDirectory(prefix="tripletkit-")
        place, test_features = open_workplace(job, plan, store, Path(scratch.name), stages)
        features_s = time.perf_counter() - started_s
        trainer = job.make_trainer(replace(place, output=output, resume=resume))
        with log_epochs(tensorboard, on_epoch) as log:
            outcome = fit(trainer, place.data, plan, test_features, log, stages)
        outcome = _validate(outcome, place, plan, trainer.examples)
        total_s = time.perf_counter() - started_s
        times = {"features_s": features_s, "training_s": total_s - features_s, "total_s": total_s}
        result = make_result(place, outcome, scratch, command, times)
        if output is not None:
            result = result.saved(output, overwrite=overwrite)
            if plan.trains_backbone:
                checkpoint_path(output).unlink(missing_ok=True)
    _warn(result, plan)
    return result


def fit(
    trainer: Trainer,
    data: TrainingSet,
    plan: Plan,
    test_features: np.ndarray | None = None,
    on_epoch: OnEpoch = ignore_epoch,
    stages: Stages = no_stages,
) -> Outcome:
    """Choose by held-out draws, train on everything, and measure.

    Args:
        trainer: of the kind that is wanted.
        data: that its examples are of.
        plan: what is to be done.
        test_features: `(n_test, n_features)` float32 of the images of a test.
        on_epoch: told each epoch.
        stages: told of progress.
        SplitError: if whole classes must be held out and cannot be.
    """
    unseen_plan, blend = _plan_unseen_classes(trainer, plan, test_features), None
    if unseen_plan is not None:
        trainer, blend = trainer.for_unseen_classes(unseen_plan.rounds[0], unseen_plan.novelty)
    held_out = None
    if plan.draws and plan.budget_s is not None:
        logger.info(
            "`budget` shortens the held-out draws after the first %d; these, the training on all "
            "triplets and that without whole classes take as long as they need.",
            defaults.DRAW_FOLDS,
        )
    if plan.draws:
        held_out = answer_held_out(trainer, plan.budget_s, stages("held-out draws"))
    chosen = choose(trainer, held_out)
    trainer = chosen.trainer
    fitted = trainer.fit(on_epoch, stages)
    unseen = None
    if unseen_plan is not None:
        progress = stages("unseen classes")
        unseen = measure_unseen_classes(trainer, data.train, unseen_plan, blend, progress)
    return Outcome(
        fitted,
        held_out and score_held_out(held_out, chosen),
        unseen,
        measure_learning_curve(trainer.for_curve(), progress=stages("learning curve"))
        if plan.learning_curve
        else None,
    )


def _plan_unseen_classes(
    trainer: Trainer, plan: Plan, test_features: np.ndarray | None
) -> UnseenPlan | None:
    if not plan.unseen_fraction:
        return None
    try:
        return plan_unseen_classes(
            trainer.examples, trainer.settings.seed, plan.unseen_fraction, test_features
        )
    except SplitError as error:
        if plan.needs_unseen:
            raise
        warnings.warn(f"{error}\nTraining goes on without it.", FewTripletsWarning, stacklevel=2)
        return None


def _check_output(plan: Plan, output: Path | None, *, overwrite: bool, resume: bool) -> None:
    if resume and not plan.trains_backbone:
        raise SettingsError(
            "resume",
            "`resume` is for training from pixels: of a backbone that is trained from scratch, "
            "such as `backbone=cnn`, or for fine-tuning. Heads are trained in seconds.",
        )
    if output is not None:
        check_model_output(output, overwrite=overwrite)
        if plan.trains_backbone and not resume:
            check_no_checkpoint(output, overwrite=overwrite)


def open_workplace(
    job: Job, plan: Plan, store: Store, folder: Path | None, stages: Stages
) -> tuple[Workplace, np.ndarray | None]:
    """Read all that a job names.

    Args:
        job: checked.
        plan: of the job.
        store: of features.
        folder: where weights may be written; None where none will be.
        stages: told of progress.
    Returns:
        What is trained with, and the features of the images of a test.
    """
    options = {"skip_bad": plan.skip_bad, "follow_outside": plan.follow_outside}
    inputs = read_inputs(plan.sources, plan.seed, store, **options)
    test = None
    if plan.test is not None:
        asked = plan.test.triplets
        test = open_images(plan.sources.images, asked.names, asked.first_places(), **options)
    # All that can be wrong with files was found by now; what follows takes seconds.
    source = job.open_encoder(folder)
    for part in source.parts:
        if part.reason:
            logger.info("Backbone %s.", part.reason)

    def load(files: Images, of: Encoder) -> Collection:
        progress = stages("features")
        return open_collection(files, of, store, progress=progress)

    collection = load(inputs.files, source)
    test_features = None
    if test is not None:
        of_test = load(test, source)
        test_features = of_test.features[of_test.is_usable()]
    data = inputs.data.keep_usable(collection.is_usable())
    if not len(data.train):
        cause = " after leaving out bad images" if plan.skip_bad else ""
        raise SplitError(f"{data.train.source}: no triplet is left for training{cause}")
    warn_of_features(collection.features, data.train)
    images, record = plan.sources.images, inputs.record
    place = Workplace(data, record, images, inputs.files, source, collection, store, folder, load)
    return place, test_features


def _validate(outcome: Outcome, place: Workplace, plan: Plan, examples: Examples) -> Outcome:
    """Return the outcome with scores on validation triplets and on the classes of images."""
    fitted, data, before = outcome.fitted, place.data, place.collection.features
    if not len(data.val) and data.labels is None:
        return outcome
    after = fitted.pixels.collection.features if fitted.pixels else before
    embeddings, distance = embed(fitted.trained.head, after), fitted.settings.distance
    validation, label_scores = None, None
    if len(data.val):
        validation = validate(
            data, embeddings, before, distance, is_from_scratch=plan.is_from_scratch
        )
        of_map = None
        if not plan.trains_backbone and not get_recipe(fitted.settings.recipe).is_chosen:
            every = np.arange(len(examples.rows))
            (margins,) = make_map(examples).answer(every, data.val.rows)
            of_map = score_margins(margins, data.val)
        validation = replace(validation, frozen_head=fitted.frozen_head, map=of_map)
    if data.labels is not None:
        label_scores = classify_validation(data, embeddings, before, distance)
    return replace(outcome, validation=validation, label_scores=label_scores)


def _warn(result: TrainingResult, plan: Plan) -> None:
    """Say what weakens the scores."""
    if result.validation is not None:
        val = plan.sources.val
        has_truth = val is None or val.truth is not None
        warn_of_weak_score(result.validation, has_val_truth=has_truth)
    if result.pooled is not None:
        warn_of_weak_draws(result.pooled, result.record.settings.recipe)
    if result.unseen_classes is not None:
        warn_of_unseen_classes(result.unseen_classes)

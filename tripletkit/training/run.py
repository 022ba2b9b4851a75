"""The whole of a training: from what the user names to a model with its scores.

It is the same for every kind of training: open, answer held-out draws, choose by these answers, fit
on everything, measure unseen classes, write. What differs is in the job's trainer.
"""

from __future__ import annotations

import logging
import platform
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from tripletkit import __version__, defaults
from tripletkit.data.training_set import BY_FILE
from tripletkit.data.triplets import Triplets
from tripletkit.errors import (
    DataWarning,
    FewTripletsWarning,
    SettingsError,
    SplitError,
    TripletkitWarning,
    WeakScoreWarning,
    caution,
)
from tripletkit.evaluation.pooled import LearningCurve, PooledValidation
from tripletkit.evaluation.scoring import Score
from tripletkit.evaluation.validation import (
    LabelScores,
    Validation,
    classify_validation,
    validate,
    warn_of_features,
)
from tripletkit.features.store import FeatureStore
from tripletkit.model.distribution_shift import ShiftDetector
from tripletkit.model.head_layers import embed
from tripletkit.model.model_folder import ModelFolder, check_model_output, name_centers, save_model
from tripletkit.model.recipes import get_recipe
from tripletkit.model.record import ModelRecord, SplitRecord, TimesRecord
from tripletkit.progress import Stages, no_stages
from tripletkit.training.epochs import log_epochs
from tripletkit.training.held_out import (
    answer_held_out,
    choose,
    make_map,
    measure_learning_curve,
    score_held_out,
)
from tripletkit.training.inputs import read_inputs
from tripletkit.training.job import Job
from tripletkit.training.trainer import (
    Fitted,
    OnEpoch,
    Trainer,
    Workplace,
    ignore_epoch,
)
from tripletkit.training.unseen_classes import (
    UnseenClasses,
    UnseenPlan,
    measure_unseen_classes,
    plan_unseen_classes,
)

logger = logging.getLogger("tripletkit")

# What a model's numbers can depend on.
_PACKAGES = ("tensorflow", "keras", "numpy", "scikit-learn", "Pillow")


@dataclass(frozen=True)
class Outcome:
    """What became of a trainer.

    Attributes:
        fitted: on all triplets.
        pooled: what held-out draws say; None without any.
        unseen_classes: how it does on classes of images that it was trained without.
        curve: what more judgements would bring; None where it was not asked for.
        validation, label_scores: how it does on validation images; None where it cannot be told.
    """

    fitted: Fitted
    pooled: PooledValidation | None
    unseen_classes: UnseenClasses | None
    curve: LearningCurve | None
    validation: Validation | None
    label_scores: LabelScores | None


def train(
    job: Job, on_epoch: OnEpoch = ignore_epoch, stages: Stages = no_stages
) -> tuple[ModelFolder, TemporaryDirectory[str] | None]:
    """Train a model as a job says, and write it.

    Without an output it is written into a folder of its own, which lasts as long as the second
    thing that is returned.
    """
    started_s = time.perf_counter()
    job = job.checked()
    _check_output(job)
    if job.draws and job.budget_s is not None:
        logger.info(
            "`budget` shortens the held-out draws after the first %d; features, these draws, the "
            "training on all triplets and that without whole classes take as long as they need.",
            defaults.DRAW_FOLDS,
        )
    with FeatureStore(job.cache) as store, TemporaryDirectory(prefix="tripletkit-") as folder:
        place = open_workplace(job, store, Path(folder), stages)
        features_s = time.perf_counter() - started_s
        trainer = job.make_trainer(place)
        with log_epochs(job.tensorboard, on_epoch) as log:
            outcome = _fit(trainer, place, job, log, stages)
        total_s = time.perf_counter() - started_s
        times = TimesRecord(
            *(round(each, 3) for each in (features_s, total_s - features_s, total_s))
        )
        path, scratch = job.output, None
        if path is None:
            scratch = TemporaryDirectory(prefix="tripletkit-")
            path = Path(scratch.name) / "model"
        model = _save(path, place, outcome, job, times)
    _warn_of(outcome, job)
    return model, scratch


def _check_output(job: Job) -> None:
    if job.resume and not job.trains_backbone:
        raise SettingsError(
            "resume",
            "`resume` is for training from pixels: of a backbone that is trained from scratch, "
            "such as `backbone=cnn`, or for fine-tuning. Heads are trained in seconds.",
        )
    if job.output is not None:
        begins_anew = job.trains_backbone and not job.resume
        check_model_output(job.output, overwrite=job.overwrite, begins_anew=begins_anew)


def open_workplace(job: Job, store: FeatureStore, folder: Path | None, stages: Stages) -> Workplace:
    """Read all that a checked job names; weights may be written into the folder."""
    images = job.sources.images
    inputs = read_inputs(job.sources, job.seed, store)
    test = None
    if job.test is not None:
        asked = job.test.triplets
        test = images.find(asked.names, asked.first_places())
    # All that can be wrong with files was found by now; what follows takes seconds.
    encoder = job.open_encoder(folder)
    for part in encoder.parts:
        if part.reason:
            logger.info("Backbone %s.", part.reason)
    collection = encoder.load(inputs.files, store, progress=stages("features"))
    test_features = None
    if test is not None:
        of_test = encoder.load(test, store, progress=stages("features"))
        test_features = of_test.features[of_test.is_usable()]
    data = inputs.data.keep_usable(collection.is_usable())
    if not len(data.train):
        cause = " after leaving out bad images" if collection.problems else ""
        raise SplitError(f"{data.train.source}: no triplet is left for training{cause}")
    warn_of_features(collection.features, data.train)
    if data.by == BY_FILE and len(data.val):
        warn_of_features(collection.features, data.val)
    return Workplace(
        replace(inputs, data=data),
        encoder,
        collection,
        store,
        folder,
        test_features,
        job.output,
        job.resume,
    )


def _fit(
    trainer: Trainer, place: Workplace, job: Job, on_epoch: OnEpoch, stages: Stages
) -> Outcome:
    """Choose by held-out draws, train on everything, and measure."""
    unseen_plan = _plan_unseen_classes(trainer, job, place.test_features)
    held_out = None
    if job.draws:
        held_out = answer_held_out(trainer, job.budget_s, stages("held-out draws"))
    chosen = choose(trainer, held_out)
    trainer = chosen.trainer
    fitted = trainer.fit(on_epoch, stages)
    unseen = curve = None
    data = place.inputs.data
    if unseen_plan is not None:
        unseen = measure_unseen_classes(trainer, data.train, unseen_plan, stages("unseen classes"))
    if job.learning_curve:
        curve = measure_learning_curve(trainer.for_curve(), progress=stages("learning curve"))
    validation = label_scores = of_map = None
    before, distance = place.collection.features, fitted.settings.distance
    if len(data.val) or data.labels is not None:
        after = fitted.pixels.collection.features if fitted.pixels else before
        embeddings = embed(fitted.trained.head, after)
        if len(data.val):
            if not job.trains_backbone and not get_recipe(fitted.settings.recipe).is_chosen:
                every = np.arange(len(trainer.examples.rows))
                (of_map,) = make_map(trainer.examples).answer(every, data.val.rows)
            validation = validate(
                data,
                embeddings,
                before,
                distance,
                of_map=of_map,
                frozen_head=fitted.frozen_head,
                is_from_scratch=job.is_from_scratch,
            )
        label_scores = classify_validation(data, embeddings, before, distance)
    pooled = None if held_out is None else score_held_out(held_out, chosen)
    return Outcome(fitted, pooled, unseen, curve, validation, label_scores)


def _plan_unseen_classes(
    trainer: Trainer, job: Job, test_features: np.ndarray | None
) -> UnseenPlan | None:
    if not job.unseen_fraction:
        return None
    try:
        return plan_unseen_classes(
            trainer.examples, trainer.settings.seed, job.unseen_fraction, test_features
        )
    except SplitError as error:
        if job.needs_unseen:
            raise
        caution(f"{error}\nTraining goes on without it.", FewTripletsWarning)
        return None


def _installed_versions() -> dict[str, str]:
    """Return the version of each package that numbers can depend on; maps do without Keras."""
    found = {}
    for name in _PACKAGES:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def _save(
    path: Path, place: Workplace, outcome: Outcome, job: Job, times: TimesRecord
) -> ModelFolder:
    """Write a trained model with all that is to be known of it."""
    fitted, data, images = outcome.fitted, place.inputs.data, job.sources.images.folder
    unseen, label_scores, curve = outcome.unseen_classes, outcome.label_scores, outcome.curve
    pixels = fitted.pixels
    encoder = pixels.encoder if pixels else place.encoder
    collection = pixels.collection if pixels else place.collection
    record = ModelRecord(
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        command=job.command,
        versions={
            "tripletkit": __version__,
            "python": platform.python_version(),
            **_installed_versions(),
        },
        settings=fitted.settings,
        features=dict(encoder.facts),
        n_features=encoder.n_features,
        backbone_reason=encoder.parts[0].reason if encoder.parts else "",
        weights_files=list(encoder.record.weights_files),
        images=None if images is None else str(images.absolute()),
        inputs=place.inputs.record,
        split=SplitRecord.of(data),
        n_images=int(collection.is_usable().sum()),
        n_bad_images=len(collection.problems),
        best_epoch=fitted.trained.best_epoch,
        times=times,
        validation=outcome.validation,
        unseen_classes=None if unseen is None else unseen.to_dict(),
        classes=None if data.labels is None else data.labels.classes,
        classification=None if label_scores is None else label_scores.to_dict(),
        pixels=None if pixels is None else pixels.record,
        pooled=outcome.pooled,
        learning_curve=curve,
        parts=fitted.parts,
    )
    learned: Sequence[Triplets] = ()
    if record.inputs.triplets is not None:
        contents = place.inputs.files.contents(place.store).hashes
        learned = data.train, data.train.over_contents(contents)
    return save_model(
        path,
        fitted.trained.head,
        fitted.trained.history,
        record,
        name_centers(fitted.trained.centers, data.labels),
        shift=ShiftDetector.of(collection.features[np.unique(data.train.rows)]),
        learned=learned,
        backbone=None if pixels is None else pixels.backbone_file,
        overwrite=job.overwrite,
    )


def _warn_of(outcome: Outcome, job: Job) -> None:
    """Say what weakens the scores."""
    if outcome.validation is not None:
        val = job.sources.val
        has_truth = val is None or val.truth is not None
        _warn_of_weak_score(outcome.validation, has_val_truth=has_truth)
    if outcome.pooled is not None:
        _warn_of_weak_draws(outcome.pooled, outcome.fitted.settings.recipe)
    if outcome.unseen_classes is not None:
        _warn_of_unseen_classes(outcome.unseen_classes)


def _warn_of_weak_score(validation: Validation, *, has_val_truth: bool = True) -> None:
    """Say plainly what weakens a validation score.

    Without a truth a validation file was taken to have the positive second.
    """
    trained, frozen = validation.trained, validation.frozen
    if (frozen_head := validation.frozen_head) is not None:
        _warn_of_fine_tuning(trained, frozen_head)
    if not has_val_truth and all(_is_about_half(score) for score in (trained, frozen)):
        _warn(
            f"about half of the validation triplets are right ({trained.accuracy:.4f}), by the "
            f"frozen features too ({frozen.accuracy:.4f}). If the second and third image of "
            "`val` stand in chance order, give their truth with `val_truth`.",
            DataWarning,
        )
    elif validation.is_worse_than_frozen and validation.is_from_scratch:
        _warn(
            f"the trained embeddings ({trained.accuracy:.4f}) are worse than the features of the "
            f"untrained network ({frozen.accuracy:.4f}): it has learned nothing of use. Try more "
            "`epochs`, more images, or a backbone with ImageNet weights."
        )
    elif validation.is_worse_than_frozen:
        _warn(
            f"the trained embeddings ({trained.accuracy:.4f}) are worse than the frozen features "
            f"without any training ({frozen.accuracy:.4f}). Try `recipe=residual`, which starts "
            "from these, more triplets, a larger `dim`, a lower `learning_rate` or fewer "
            "`epochs`; with few triplets or many classes of images the frozen features can be "
            "the better choice."
        )
    if (trap := validation.trap()) is not None:
        _warn(trap)


def _warn_of_weak_draws(pooled: PooledValidation, recipe: str) -> None:
    """Say plainly that held-out answers are no better than those of the frozen features."""
    trained, frozen = pooled.trained.accuracy, pooled.frozen.accuracy
    if trained >= frozen:
        return
    hint = "`recipe=auto`, which takes the simplest that is as good, or "
    if pooled.map is not None and pooled.map.accuracy > frozen:
        hint = f"`recipe=map`, which begins as these ({pooled.map.accuracy:.4f}), or "
    _warn(
        f"on images that training had not seen, the trained embeddings ({trained:.4f}) are no "
        f"better than the frozen features without any training ({frozen:.4f}). Try "
        f"{'' if get_recipe(recipe).is_chosen else hint}more triplets; until then the frozen "
        "features can be the better choice."
    )


def _warn_of_unseen_classes(found: UnseenClasses) -> None:
    """Say plainly that training does not help on classes of images that it has not seen."""
    trained, frozen = found.trained, found.frozen
    if trained.accuracy < frozen.accuracy:
        _warn(
            f"on classes of images that training had not seen, the trained embeddings "
            f"({trained.accuracy:.4f}) are no better than the frozen features without any training "
            f"({frozen.accuracy:.4f}). If the test asks about such classes, try `recipe=best`, or "
            "give triplets of more classes."
        )


def _warn_of_fine_tuning(trained: Score, frozen_head: Score) -> None:
    if trained.accuracy >= frozen_head.accuracy:
        return
    interval = frozen_head.image_interval or frozen_head.wilson
    is_chance = trained.accuracy >= interval.low
    _warn(
        f"fine-tuning made it worse: {trained.accuracy:.4f}, and {frozen_head.accuracy:.4f} with "
        f"the frozen backbone{', though chance alone could do that' if is_chance else ''}. The "
        "model that was fine-tuned is still there; or try more or fewer `epochs`, or another "
        "`learning_rate`."
    )


def _is_about_half(score: Score) -> bool:
    return score.wilson.low <= 0.5 <= score.wilson.high


def _warn(message: str, category: type[TripletkitWarning] = WeakScoreWarning) -> None:
    caution(message, category)

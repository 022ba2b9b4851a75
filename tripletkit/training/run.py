"""The whole of a training: from what the user names to a model with its scores.

It is the same for every kind: open, answer held-out draws, choose by these answers, fit on
everything, measure unseen classes, write. What differs is in the job's trainer.
"""

from __future__ import annotations

import logging
import math
import platform
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from tripletkit import __version__, defaults
from tripletkit.data.outputs import Scratch
from tripletkit.data.training_set import BY_FILE
from tripletkit.data.triplets import Triplets
from tripletkit.errors import (
    DataWarning,
    FewTripletsWarning,
    OutputError,
    SettingsError,
    SplitError,
    WeakScoreWarning,
    caution,
)
from tripletkit.evaluation.classification import LabelScores
from tripletkit.evaluation.intervals import Interval
from tripletkit.evaluation.pooled import (
    LearningCurve,
    PooledScore,
    PooledValidation,
    compare_pooled,
)
from tripletkit.evaluation.scoring import Score
from tripletkit.evaluation.validation import UnseenClasses, Validation, warn_of_features
from tripletkit.features.encoder import assign_weights, list_backbones, name_of
from tripletkit.features.store import FeatureStore
from tripletkit.model.distribution_shift import ShiftDetector
from tripletkit.model.head_layers import embed
from tripletkit.model.model_folder import ModelFolder, check_model_output, save_model
from tripletkit.model.recipes import get_recipe
from tripletkit.model.record import ModelRecord, SplitRecord, TimesRecord
from tripletkit.progress import Stages, no_stages
from tripletkit.training.held_out import (
    UnseenRounds,
    answer_held_out,
    make_map,
    measure_learning_curve,
    measure_unseen_classes,
    plan_unseen_classes,
    score_held_out,
)
from tripletkit.training.inputs import read_inputs
from tripletkit.training.job import EncoderChoice, Job, TrainingJob
from tripletkit.training.trainer import (
    EpochRecord,
    Fitted,
    HeldOutAnswers,
    OnEpoch,
    Trainer,
    Workplace,
    credit,
    ignore_epoch,
)

logger = logging.getLogger("tripletkit")

# What a model's numbers can depend on.
_PACKAGES = ("tensorflow", "keras", "numpy", "scikit-learn", "Pillow")


@dataclass(frozen=True)
class _Outcome:
    """What became of a trainer on all triplets; None of what was not asked or cannot be told."""

    fitted: Fitted
    pooled: PooledValidation | None
    unseen_classes: UnseenClasses | None
    curve: LearningCurve | None
    validation: Validation | None
    label_scores: LabelScores | None


def train(
    job: Job, on_epoch: OnEpoch = ignore_epoch, stages: Stages = no_stages
) -> tuple[ModelFolder, Scratch | None]:
    """Train a model as a job says, and write it. Without an output it is written into a folder of
    its own, which lasts as long as the second thing that is returned."""
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
        place = _open_workplace(job, store, Path(folder), stages)
        features_s = time.perf_counter() - started_s
        trainer = job.make_trainer(place)
        with _log_epochs(job.tensorboard, on_epoch) as log:
            outcome = _fit(trainer, place, job, log, stages)
        total_s = time.perf_counter() - started_s
        times = TimesRecord(
            *(round(each, 3) for each in (features_s, total_s - features_s, total_s))
        )
        path, scratch = job.output, None
        if path is None:
            scratch = Scratch()
            path = scratch.folder / "model"
        model = _save(path, place, outcome, job, times)
    _warn_of(outcome, job)
    return model, scratch


@contextmanager
def _log_epochs(folder: Path | None, on_epoch: OnEpoch) -> Iterator[OnEpoch]:
    """Give what is told each epoch: TensorBoard logs where a folder is given, the log, a listener.
    The package tensorboard is needed to look at the logs, not to write them."""

    def tell(record: EpochRecord, n_epochs: int) -> None:
        is_known = not math.isnan(record.val_accuracy)
        accuracy = f", validation accuracy {record.val_accuracy:.4f}" if is_known else ""
        logger.info(
            "epoch %2d/%d: loss %.4f, active %.1f%%%s",
            record.epoch,
            n_epochs,
            record.loss,
            100 * record.active,
            accuracy,
        )
        on_epoch(record, n_epochs)

    if folder is None:
        yield tell
        return
    from tripletkit.features.keras_backend import tf

    # What tf.summary.scalar would say; that function itself needs the package tensorboard.
    scalar = tf.compat.v1.SummaryMetadata(
        plugin_data=tf.compat.v1.SummaryMetadata.PluginData(plugin_name="scalars")
    )
    try:
        writer = tf.summary.create_file_writer(str(folder))
    except tf.errors.OpError as error:
        raise OutputError(
            f"{folder}: the TensorBoard logs cannot be written: {error.message}"
        ) from error

    def tell_and_write(record: EpochRecord, n_epochs: int) -> None:
        values = asdict(record)
        epoch = values.pop("epoch")
        with writer.as_default():
            for name, value in values.items():
                if np.isfinite(value):
                    tf.summary.write(f"epoch_{name}", np.float32(value), epoch, scalar)
        writer.flush()
        tell(record, n_epochs)

    try:
        yield tell_and_write
    finally:
        writer.close()


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


def _open_workplace(
    job: Job, store: FeatureStore, folder: Path | None, stages: Stages
) -> Workplace:
    """Read all that a checked job names; weights may be written into the folder."""
    files, data, record = read_inputs(job.sources, job.seed, store)
    test = None
    if job.test is not None:
        asked = job.test.triplets
        test = job.sources.images.find(asked.names, asked.first_places())
    # All that can be wrong with files was found by now; what follows takes seconds.
    encoder = job.open_encoder(folder)
    for part in encoder.parts:
        if part.reason:
            logger.info("Backbone %s.", part.reason)
    collection = encoder.load(files, store, progress=stages("features"))
    test_features = None
    if test is not None:
        of_test = encoder.load(test, store, progress=stages("features"))
        test_features = of_test.features[of_test.is_usable()]
        if not len(test_features):
            raise SplitError("expected an image of the test that can be read, got none")
    data = data.keep_usable(collection.is_usable())
    if not len(data.train):
        cause = " after leaving out bad images" if collection.problems else ""
        raise SplitError(f"{data.train.source}: no triplet is left for training{cause}")
    warn_of_features(collection.features, data.train)
    if data.by == BY_FILE and len(data.val):
        warn_of_features(collection.features, data.val)
    return Workplace(
        files,
        data,
        record,
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
) -> _Outcome:
    """Choose by held-out draws, train on everything, and measure."""
    rounds = _plan_unseen_classes(trainer, job)
    held_out = None
    if job.draws:
        held_out = answer_held_out(trainer, job.budget_s, stages("held-out draws"))
    chosen = trainer.choose(held_out)
    trainer = chosen.trainer
    fitted = trainer.fit(on_epoch, stages)
    unseen = curve = None
    data = place.data
    if rounds is not None:
        unseen = measure_unseen_classes(
            trainer, data.train, rounds, place.test_features, stages("unseen classes")
        )
    if job.learning_curve:
        curve = measure_learning_curve(trainer.for_curve(), stages("learning curve"))
    validation = label_scores = of_map = None
    before, distance = place.collection.features, fitted.settings.distance
    if len(data.val) or data.labels is not None:
        after = fitted.pixels.collection.features if fitted.pixels else before
        embeddings = embed(fitted.head, after)
        if len(data.val):
            if not job.trains_backbone and not get_recipe(fitted.settings.recipe).is_chosen:
                every = np.arange(len(trainer.examples.rows))
                (of_map,) = make_map(trainer.examples).answer(every, data.val.rows)
            validation = Validation.of(
                data,
                embeddings,
                before,
                distance,
                of_map=of_map,
                frozen_head=fitted.frozen_head,
                is_from_scratch=job.is_from_scratch,
            )
        label_scores = LabelScores.of(data, embeddings, before, distance)
    pooled = None if held_out is None else score_held_out(held_out, chosen)
    return _Outcome(fitted, pooled, unseen, curve, validation, label_scores)


def _plan_unseen_classes(trainer: Trainer, job: Job) -> UnseenRounds | None:
    if not job.unseen_fraction:
        return None
    try:
        return plan_unseen_classes(trainer.examples, trainer.settings.seed, job.unseen_fraction)
    except SplitError as error:
        if job.unseen_classes is not None:
            raise
        caution(f"{error}\nTraining goes on without it.", FewTripletsWarning)
        return None


def _versions() -> dict[str, str]:
    """Return the version of each package that numbers can depend on; maps do without Keras."""
    found = {"tripletkit": __version__, "python": platform.python_version()}
    for name in _PACKAGES:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def _save(
    path: Path, place: Workplace, outcome: _Outcome, job: Job, times: TimesRecord
) -> ModelFolder:
    """Write a trained model with all that is to be known of it."""
    fitted, data, images = outcome.fitted, place.data, job.sources.images.folder
    pixels = fitted.pixels
    encoder = pixels.encoder if pixels else place.encoder
    collection = pixels.collection if pixels else place.collection
    record = ModelRecord(
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        command=job.command,
        versions=_versions(),
        settings=fitted.settings,
        features=dict(encoder.facts),
        n_features=encoder.n_features,
        backbone_reason=encoder.parts[0].reason if encoder.parts else "",
        weights_files=encoder.weights_files,
        images=None if images is None else str(images.absolute()),
        inputs=place.record,
        split=SplitRecord.of(data),
        n_images=int(collection.is_usable().sum()),
        n_bad_images=len(collection.problems),
        best_epoch=fitted.best_epoch,
        times=times,
        validation=outcome.validation,
        unseen_classes=outcome.unseen_classes,
        classes=None if data.labels is None else data.labels.classes,
        classification=outcome.label_scores,
        pixels=None if pixels is None else pixels.record,
        pooled=outcome.pooled,
        learning_curve=outcome.curve,
        parts=fitted.parts,
    )
    learned: Sequence[Triplets] = ()
    if record.inputs.triplets is not None:
        contents = place.files.contents(place.store).hashes
        learned = data.train, data.train.over_contents(contents)
    return save_model(
        path,
        fitted.head,
        fitted.history,
        record,
        centers=fitted.centers,
        shift=ShiftDetector.of(collection.features[np.unique(data.train.rows)]),
        learned=learned,
        backbone=None if pixels is None else pixels.backbone_file,
        overwrite=job.overwrite,
    )


def _warn_of(outcome: _Outcome, job: Job) -> None:
    """Say plainly what weakens the scores."""
    if outcome.validation is not None:
        val = job.sources.val
        has_truth = val is None or val.truth is not None
        _warn_of_weak_score(outcome.validation, has_val_truth=has_truth)
    if outcome.pooled is not None:
        _warn_of_weak_draws(outcome.pooled, outcome.fitted.settings.recipe)
    if outcome.unseen_classes is not None:
        _warn_of_unseen_classes(outcome.unseen_classes)


def _warn_of_weak_score(validation: Validation, *, has_val_truth: bool) -> None:
    """Say what weakens a validation score; without a truth a file was taken to have the positive
    second."""
    trained, frozen = validation.trained, validation.frozen
    if (frozen_head := validation.frozen_head) is not None:
        _warn_of_fine_tuning(trained, frozen_head)
    is_half = all(score.wilson.low <= 0.5 <= score.wilson.high for score in (trained, frozen))
    if not has_val_truth and is_half:
        caution(
            f"{trained.n:,} validation triplets do not tell whether more than half are right "
            f"({trained.accuracy:.4f}; by frozen features {frozen.accuracy:.4f}). If the second "
            "and third image of `val` stand in chance order, give their truth with `val_truth`.",
            DataWarning,
        )
    elif validation.is_worse_than_frozen and validation.is_from_scratch:
        caution(
            f"the trained embeddings ({trained.accuracy:.4f}) are worse than the features of the "
            f"untrained network ({frozen.accuracy:.4f}): it has learned nothing of use. Try more "
            "`epochs`, more images, or a backbone with ImageNet weights.",
            WeakScoreWarning,
        )
    elif validation.is_worse_than_frozen:
        caution(
            f"the trained embeddings ({trained.accuracy:.4f}) are worse than the frozen features "
            f"without any training ({frozen.accuracy:.4f}). Try `recipe=residual`, which starts "
            "from these, more triplets, a larger `dim`, a lower `learning_rate` or fewer "
            "`epochs`; with few triplets or many classes of images the frozen features can be "
            "the better choice.",
            WeakScoreWarning,
        )
    if (trap := validation.trap()) is not None:
        caution(trap, WeakScoreWarning)


def _warn_of_weak_draws(pooled: PooledValidation, recipe: str) -> None:
    trained, frozen = pooled.trained.accuracy, pooled.frozen.accuracy
    if trained >= frozen:
        return
    hint = "`recipe=auto`, which takes the simplest that is as good, or "
    if pooled.map is not None and pooled.map.accuracy > frozen:
        hint = f"`recipe=map`, which begins as these ({pooled.map.accuracy:.4f}), or "
    caution(
        f"on images that training had not seen, the trained embeddings ({trained:.4f}) are no "
        f"better than the frozen features without any training ({frozen:.4f}). Try "
        f"{'' if get_recipe(recipe).is_chosen else hint}more triplets; until then the frozen "
        "features can be the better choice.",
        WeakScoreWarning,
    )


def _warn_of_unseen_classes(found: UnseenClasses) -> None:
    """Say plainly that training does not help on classes of images that it has not seen."""
    trained, frozen = found.trained.accuracy, found.frozen.accuracy
    if found.better is not None and found.better.name == "map":
        caution(
            f"on classes of images that training had not seen: {found.better}", WeakScoreWarning
        )
    elif trained < frozen:
        caution(
            f"on classes of images that training had not seen, the trained embeddings "
            f"({trained:.4f}) are no better than the frozen features without any training "
            f"({frozen:.4f}). If the test asks about such classes, try `recipe=best`, or "
            "give triplets of more classes.",
            WeakScoreWarning,
        )


def _warn_of_fine_tuning(trained: Score, frozen_head: Score) -> None:
    if trained.accuracy >= frozen_head.accuracy:
        return
    interval = frozen_head.image_interval or frozen_head.wilson
    is_chance = trained.accuracy >= interval.low
    caution(
        f"fine-tuning made it worse: {trained.accuracy:.4f}, and {frozen_head.accuracy:.4f} with "
        f"the frozen backbone{', though chance alone could do that' if is_chance else ''}. The "
        "model that was fine-tuned is still there; or try more or fewer `epochs`, or another "
        "`learning_rate`.",
        WeakScoreWarning,
    )


def sweep(
    job: TrainingJob, grid: Mapping[str, Sequence[Any]], stages: Stages = no_stages
) -> list[dict[str, Any]]:
    """Score every combination of settings by the same held-out draws, the most accurate first.

    Of `backbone` and `depth` in the grid each combination has features of its own. A row has the
    settings of the grid, the accuracy with its interval, with how many epochs a model would be
    trained on all triplets, and by how much it is behind the best on the same ones.
    """
    # All that can be wrong with settings is told before anything slow.
    combinations = list(_combine(grid))
    jobs = [_make_job(job, grid, combination).checked() for combination in combinations]
    for each in jobs:
        _check_comparable(each)
    trainers = [
        each.make_trainer(place)
        for each, place in zip(jobs, _open_workplaces(jobs, stages), strict=True)
    ]
    answers, chosen, right = [], [], []
    for number, trainer in enumerate(trainers, 1):
        progress = stages(f"held-out draws, {number} of {len(jobs)}")
        held_out = answer_held_out(trainer, progress=progress, drawn_by=trainers[0])
        if held_out is None:
            raise SplitError("expected triplets that can be held out to compare settings by")
        answers.append(held_out)
        chosen.append(trainer.choose(held_out))
        assert chosen[-1].margins is not None
        right.append(credit(chosen[-1].margins))
    scores = [
        PooledScore.of(values, each.images, each.draws)
        for values, each in zip(right, answers, strict=True)
    ]
    best = max(range(len(scores)), key=lambda number: scores[number].accuracy)
    _tell_of_choice(answers, right)
    rows = []
    for number, score in enumerate(scores):
        behind, ends = 0.0, _ends(None)
        if number != best:
            asked = answers[number].images, answers[number].draws
            behind, interval = compare_pooled(right[best], right[number], *asked)
            ends = _ends(interval)
        low, high = _ends(score.interval)
        rows.append(
            {
                **_show_encoder(combinations[number]),
                "accuracy": score.accuracy,
                "low": low,
                "high": high,
                "epochs": chosen[number].trainer.settings.epochs,
                "behind": behind,
                "behind_low": ends[0],
                "behind_high": ends[1],
            }
        )
    return sorted(rows, key=lambda row: -row["accuracy"])


def _ends(interval: Interval | None) -> Sequence[float | None]:
    return (None, None) if interval is None else interval.to_list()


def _make_job(
    job: TrainingJob, grid: Mapping[str, Sequence[Any]], combination: Mapping[str, Any]
) -> TrainingJob:
    """Return the training of one combination, which may have an encoder of its own."""
    settings, encoder = dict(combination), job.encoder
    if "depth" in settings:
        encoder = replace(encoder, depth=settings.pop("depth"))
    if "backbone" in settings:
        backbones = list_backbones(settings.pop("backbone"))
        compared = [each for backbone in grid["backbone"] for each in list_backbones(backbone)]
        # Each weights file must be for one of them, and goes to the combinations that have it.
        assign_weights(compared, encoder.weights)
        names = {None, *map(name_of, backbones)}
        weights = {name: file for name, file in encoder.weights.items() if name in names}
        encoder = replace(encoder, backbones=tuple(backbones), weights=weights)
    return replace(job, settings={**job.settings, **settings}, encoder=encoder)


def _open_workplaces(jobs: Sequence[TrainingJob], stages: Stages) -> list[Workplace]:
    """Return what each combination is trained with: of each encoder's own features, all with the
    same triplets."""
    opened: list[tuple[EncoderChoice, Workplace]] = []
    places = []
    with FeatureStore(jobs[0].cache) as store:
        for job in jobs:
            same = (place for encoder, place in opened if encoder == job.encoder)
            if (place := next(same, None)) is None:
                place = _open_workplace(job, store, None, stages)
                opened.append((job.encoder, place))
            places.append(place)
    usable = np.logical_and.reduce([place.collection.is_usable() for _, place in opened])
    return [replace(place, data=place.data.keep_usable(usable)) for place in places]


def _tell_of_choice(answers: Sequence[HeldOutAnswers], right: Sequence[np.ndarray]) -> None:
    """Say what the best combination is worth, chosen by others than the answers that are scored."""
    first = answers[0]
    if len(answers) < 2 or any(len(each.draws) != len(first.draws) for each in answers):
        return

    def choose(others: HeldOutAnswers) -> Callable[[np.ndarray], np.ndarray]:
        best = int(np.argmax(others.margins.mean(axis=1)))
        return lambda of_asked: of_asked[best]

    answered = replace(first, margins=np.stack(right)).cross_fit(choose)
    score = PooledScore.of(answered, first.images, first.draws)
    interval = "" if score.interval is None else f" (95% interval {score.interval})"
    logger.info(
        "The best of %d combinations, chosen by other images than those it is scored on: %.4f%s.",
        len(answers),
        score.accuracy,
        interval,
    )


def _combine(grid: Mapping[str, Sequence[Any]]) -> Iterator[dict[str, Any]]:
    if not isinstance(grid, Mapping) or not grid:
        raise SettingsError("grid", "`grid`: expected settings, each with a list of values")
    for name, values in grid.items():
        if isinstance(values, str) or not isinstance(values, Collection) or not len(values):
            raise SettingsError(
                "grid", f"`grid`: expected a list of values for {name}, got {values!r}"
            )
    for values in product(*grid.values()):
        yield dict(zip(grid, values, strict=True))


def _show_encoder(combination: Mapping[str, Any]) -> dict[str, Any]:
    """Return a combination with the name of its encoder, or a list of several."""
    shown = dict(combination)
    if "backbone" in shown:
        names = [name_of(each) for each in list_backbones(shown["backbone"])]
        shown["backbone"] = names[0] if len(names) == 1 else names
    return shown


def _check_comparable(job: TrainingJob) -> None:
    if job.is_from_scratch:
        raise SettingsError(
            "backbone",
            "`backbone`: only heads on a frozen backbone are compared, expected a pretrained one.",
        )
    recipe = get_recipe(job.settings.get("recipe", "mlp"))
    if recipe.is_chosen:
        raise SettingsError(
            "recipe",
            f"`recipe={recipe.name}` chooses by held-out draws by itself: compare settings of "
            "other recipes.",
        )

"""What comes out of a training: the head, its scores, cautions about them, and the record."""

from __future__ import annotations

import platform
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from tripletkit import __version__
from tripletkit.data.training_set import TrainingSet
from tripletkit.errors import DataWarning, TripletkitWarning, WeakScoreWarning
from tripletkit.evaluation.learning_curve import LearningCurve
from tripletkit.evaluation.pooled import PooledValidation
from tripletkit.evaluation.scoring import Score
from tripletkit.evaluation.validation import LabelScores, Validation
from tripletkit.features.encoder import Encoder
from tripletkit.model.distribution_shift import ShiftDetector
from tripletkit.model.history import TrainedHead
from tripletkit.model.model_folder import ModelFolder, name_centers, save_model
from tripletkit.model.recipes import get_recipe
from tripletkit.model.record import ModelRecord, SplitRecord, TimesRecord
from tripletkit.training.trainer import Fitted, Workplace
from tripletkit.training.unseen_classes import UnseenClasses

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
    pooled: PooledValidation | None = None
    unseen_classes: UnseenClasses | None = None
    curve: LearningCurve | None = None
    validation: Validation | None = None
    label_scores: LabelScores | None = None


@dataclass(frozen=True)
class TrainingResult:
    """A trained model that is in memory, with all that is known of it.

    Attributes:
        trained: the head, and its epochs.
        source: what its features are of.
        data: the triplets that were used.
        record: what `model.json` will say.
        validation, unseen_classes, label_scores: how it does; None where it could not be told.
        backbone_file: the weights of a backbone that was trained too.
        scratch: the folder that this file is in until the model is saved; gone with the result.
        pooled: what held-out draws say; None without any.
        curve: what more judgements would bring; None where it was not asked for.
        shift: what tells images unlike those of the training; None for too few images.
    """

    trained: TrainedHead
    source: Encoder
    data: TrainingSet
    record: ModelRecord
    validation: Validation | None
    unseen_classes: UnseenClasses | None
    label_scores: LabelScores | None
    backbone_file: Path | None = None
    scratch: TemporaryDirectory | None = None
    pooled: PooledValidation | None = None
    curve: LearningCurve | None = None
    shift: ShiftDetector | None = None

    def save(self, path: Path, *, overwrite: bool = False) -> ModelFolder:
        """Write the model folder, whole or not at all; see `save_model`."""
        return save_model(
            path,
            self.trained.head,
            self.trained.history_rows(),
            self.record,
            name_centers(self.trained.centers, self.data.labels),
            shift=self.shift,
            learned=None if self.record.inputs.triplets is None else self.data.train,
            backbone=self.backbone_file,
            overwrite=overwrite,
        )

    def saved(self, path: Path, *, overwrite: bool = False) -> TrainingResult:
        """Write the model folder; return the result with the record as it is there."""
        return replace(self, record=self.save(path, overwrite=overwrite).record)


def make_result(
    place: Workplace,
    outcome: Outcome,
    scratch: TemporaryDirectory,
    command: str,
    times: Mapping[str, float],
) -> TrainingResult:
    """Return a trained model with all that is to be known of it.

    Args:
        place: what it was trained with.
        outcome: what became of its trainer.
        scratch: the folder that a trained backbone is in.
        command: as it was typed.
        times: seconds; see `TimesRecord`.
    """
    fitted = outcome.fitted
    pixels, data = fitted.pixels, place.data
    source = pixels.source if pixels else place.source
    collection = pixels.collection if pixels else place.collection
    record = ModelRecord(
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        command=command,
        versions={
            "tripletkit": __version__,
            "python": platform.python_version(),
            **{name: version(name) for name in _PACKAGES},
        },
        settings=fitted.settings,
        features=dict(source.facts),
        n_features=source.n_features,
        backbone_reason=source.parts[0].reason if source.parts else "",
        weights_files=source.record.weights_files,
        images=place.images and str(place.images.absolute()),
        inputs=place.inputs,
        split=SplitRecord(
            by=data.by,
            n_train=len(data.train),
            n_val=len(data.val),
            n_dropped=data.n_dropped,
            n_degenerate=data.n_degenerate,
            n_tied=data.n_tied,
            n_shared_images=data.n_shared_images(),
        ),
        n_images=int(collection.is_usable().sum()),
        n_bad_images=len(collection.problems),
        best_epoch=fitted.trained.best_epoch,
        times=TimesRecord(**{name: round(seconds, 3) for name, seconds in times.items()}),
        validation=outcome.validation,
        unseen_classes=outcome.unseen_classes and outcome.unseen_classes.to_dict(),
        classes=data.labels and data.labels.classes,
        classification=outcome.label_scores and outcome.label_scores.to_dict(),
        pixels=pixels and pixels.record,
        pooled=outcome.pooled,
        learning_curve=outcome.curve and outcome.curve.to_dict(),
        parts=fitted.parts,
    )
    return TrainingResult(
        fitted.trained,
        source,
        data,
        record,
        outcome.validation,
        outcome.unseen_classes,
        outcome.label_scores,
        pixels and pixels.backbone_file,
        scratch,
        outcome.pooled,
        outcome.curve,
        ShiftDetector.of(collection.features[np.unique(data.train.rows)]),
    )


def warn_of_weak_score(validation: Validation, *, has_val_truth: bool = True) -> None:
    """Say plainly what weakens a validation score.

    Args:
        validation: the scores.
        has_val_truth: it is known which validation image is the positive; not so where a
            validation file was taken to have it second.
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


def warn_of_weak_draws(pooled: PooledValidation, recipe: str) -> None:
    """Say plainly that held-out answers are no better than those of the frozen features.

    Args:
        pooled: the scores of held-out draws.
        recipe: that the model was trained by.
    """
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


def warn_of_unseen_classes(found: UnseenClasses) -> None:
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
    warnings.warn(message, category, stacklevel=4)

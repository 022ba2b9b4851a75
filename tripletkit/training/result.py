"""What comes out of a training: the head, its scores, and the record of how it came to be."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from tripletkit import __version__
from tripletkit.data.training_set import TrainingSet
from tripletkit.evaluation.learning_curve import LearningCurve
from tripletkit.evaluation.pooled import PooledValidation
from tripletkit.evaluation.validation import LabelScores, Validation
from tripletkit.features.encoder import Collection, Encoder
from tripletkit.model.distribution_shift import ShiftDetector
from tripletkit.model.history import TrainedHead
from tripletkit.model.model_folder import ModelFolder, name_centers, save_model
from tripletkit.model.recipes import Part
from tripletkit.model.record import (
    InputsRecord,
    ModelRecord,
    PixelsRecord,
    SplitRecord,
    TimesRecord,
)
from tripletkit.model.settings import HeadSettings

if TYPE_CHECKING:
    from tripletkit.training.unseen_classes import UnseenClasses

# What a model's numbers can depend on.
_PACKAGES = ("tensorflow", "keras", "numpy", "scikit-learn", "Pillow")


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
            backbone=self.backbone_file,
            overwrite=overwrite,
        )

    def saved(self, path: Path, *, overwrite: bool = False) -> TrainingResult:
        """Write the model folder; return the result with the record as it is there."""
        return replace(self, record=self.save(path, overwrite=overwrite).record)


def make_record(
    *,
    command: str,
    images: Path | None,
    inputs: InputsRecord,
    data: TrainingSet,
    collection: Collection,
    source: Encoder,
    settings: HeadSettings,
    trained: TrainedHead,
    times: Mapping[str, float],
    validation: Validation | None,
    unseen_classes: UnseenClasses | None = None,
    label_scores: LabelScores | None = None,
    pixels: PixelsRecord | None = None,
    pooled: PooledValidation | None = None,
    curve: LearningCurve | None = None,
    parts: tuple[Part, ...] = (),
) -> ModelRecord:
    """Return what is to be known of a model: enough to repeat the training and judge its score."""
    return ModelRecord(
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        command=command,
        versions={
            "tripletkit": __version__,
            "python": platform.python_version(),
            **{name: version(name) for name in _PACKAGES},
        },
        settings=settings,
        features=dict(source.facts),
        n_features=source.n_features,
        backbone_reason=source.parts[0].reason if source.parts else "",
        weights_files=source.record.weights_files,
        images=images and str(images.absolute()),
        inputs=inputs,
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
        best_epoch=trained.best_epoch,
        times=TimesRecord(**{name: round(seconds, 3) for name, seconds in times.items()}),
        validation=validation,
        unseen_classes=unseen_classes and unseen_classes.to_dict(),
        classes=data.labels and data.labels.classes,
        classification=label_scores and label_scores.to_dict(),
        pixels=pixels,
        pooled=pooled,
        learning_curve=curve and curve.to_dict(),
        parts=parts,
    )

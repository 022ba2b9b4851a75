"""What a model folder says of how the model came to be."""

from __future__ import annotations

import platform
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from tripletkit import __version__

if TYPE_CHECKING:
    from tripletkit.data.training_set import TrainingSet
    from tripletkit.evaluation.validation import LabelScores, Validation
    from tripletkit.features.collection import Collection
    from tripletkit.features.sources import FeatureSource
    from tripletkit.model.history import TrainedHead
    from tripletkit.model.settings import HeadSettings
    from tripletkit.training.probe import UnseenClasses

# What a model's numbers can depend on.
_PACKAGES = ("tensorflow", "keras", "numpy", "scikit-learn", "Pillow")


def make_record(
    command: str,
    data: TrainingSet,
    files: dict[str, dict[str, str | None]],
    collection: Collection,
    features_of: FeatureSource,
    settings: HeadSettings,
    trained: TrainedHead,
    validation: Validation | None,
    unseen_classes: UnseenClasses | None = None,
    label_scores: LabelScores | None = None,
) -> dict[str, Any]:
    """Return plain JSON values: enough to repeat the training and to judge its score.

    Args:
        command: as it was typed.
        data: the triplets that were used.
        files: `training_file`, and `labels_file` with labels: name as typed, absolute path (None
            where there is no file to read again), and SHA-256 of what was read.
        collection: the images' features.
        features_of: the backbones, their weights, and the views.
        settings, trained: what was asked of the head and what came out.
        validation: its scores and what they must be compared with, if there were any.
        unseen_classes: the same on classes held out, and what was chosen by it.
        label_scores: how the classes of labelled images are told apart.
    """
    return {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": command,
        "versions": {
            "tripletkit": __version__,
            "python": platform.python_version(),
            **{name: version(name) for name in _PACKAGES},
        },
        "seed": settings.seed,
        **features_of.to_json(),
        "head": asdict(settings),
        "best_epoch": trained.best_epoch,
        **files,
        "split": {
            "by": data.by,
            "n_train": len(data.train),
            "n_val": len(data.val),
            "n_dropped": data.n_dropped,
            "n_degenerate": data.n_degenerate,
            "n_tied": data.n_tied,
            "n_shared_images": data.n_shared_images(),
        },
        "n_images": int(collection.is_usable().sum()),
        "n_bad_images": len(collection.problems),
        "validation": validation and validation.to_json(),
        "unseen_classes": unseen_classes and unseen_classes.to_json(),
        "classes": data.labels and data.labels.classes,
        "classification": label_scores and label_scores.to_json(),
    }

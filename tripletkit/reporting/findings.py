"""What a person should know before believing a model, and how it was trained, in plain words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tripletkit import defaults
from tripletkit.evaluation.baselines import Baseline, describe_trap
from tripletkit.evaluation.intervals import Interval, NoInterval
from tripletkit.evaluation.scoring import Score
from tripletkit.features.backbones import FROM_VECTORS
from tripletkit.losses.loss_registry import get_loss
from tripletkit.model.recipes import get_recipe
from tripletkit.model.record import ModelRecord
from tripletkit.model.settings import Settings
from tripletkit.reporting.model_view import ModelView

# A 95% interval wider than this leaves open whether a model is good or middling.
_WIDE_INTERVAL = 0.15
_DISTANCES = {"l1": "L1", "l2": "L2", "squared-l2": "squared L2", "cosine": "cosine"}


class _AccuracyRow(NamedTuple):
    """A line of the table of accuracies: whose answers, and how many are right, 0 to 1.

    `wilson` takes rows as independent, and is None where rows recur; `image_interval` allows for
    shared images, and is false where there is none.
    """

    what: str
    accuracy: float
    wilson: Interval | None
    image_interval: Interval | NoInterval | None
    n: int


# Which triplets, and whose answers to them.
_AccuracySet = tuple[str, list[_AccuracyRow]]


def list_accuracies(models: Sequence[ModelView]) -> list[_AccuracySet]:
    """Return every accuracy that is known: on the shown triplets, and at the time of training."""
    is_one, first = len(models) == 1, models[0]
    title = Path(first.triplets.source).name
    if first.is_training:
        title += ", which the model learned from"
    rows = [_row("trained embeddings" if is_one else model.name, model.score) for model in models]
    for model in models:
        of = "" if is_one else f", of {_name_features(model.model.record)}"
        rows.append(_row(f"{model.model.features_name}, cosine{of}", model.frozen_score))
    is_shared = all(model.baselines == first.baselines for model in models)
    for model in models:
        of = "" if is_one or is_shared else f", training of {model.name}"
        rows += _baseline_rows(model.baselines, of)
    # Features that models share say the same.
    sets = [(title, list(dict.fromkeys(rows)))]
    for model in models:
        training = "its training" if is_one else f"the training of {model.name}"
        sets += _of_training(model.model.record, training)
    return sets


def _of_training(record: ModelRecord, training: str) -> list[_AccuracySet]:
    """Return what was measured while a model was trained."""
    sets = []
    if (validation := record.validation) is not None:
        before = "untrained network" if validation.is_from_scratch else "frozen features, cosine"
        scores = (
            ("trained embeddings", validation.trained),
            ("head, backbone frozen", validation.frozen_head),
            (before, validation.frozen),
        )
        rows = [_row(what, score) for what, score in scores if score is not None]
        rows += _baseline_rows(validation.baselines, "")
        sets.append((f"validation triplets of {training}", rows))
    if (pooled := record.pooled) is not None:
        of_draws = (
            ("trained without these images", pooled.trained),
            ("frozen features, cosine", pooled.frozen),
        )
        rows = [
            _AccuracyRow(what, score.accuracy, None, score.interval, score.n_triplets)
            for what, score in of_draws
        ]
        sets.append((f"held-out draws of {training}", rows))
    return sets


def list_warnings(models: Sequence[ModelView]) -> list[str]:
    """Return what weakens the figures, the worst first; what all models share is said once."""
    found = [[*_on_shown(model), *_on_training(model.model.record)] for model in models]
    if len(models) == 1:
        return found[0]
    common = [warning for warning in found[0] if all(warning in others for others in found)]
    return common + [
        f"{model.name}: {warning}"
        for model, own in zip(models, found, strict=True)
        for warning in own
        if warning not in common
    ]


def _on_shown(view: ModelView) -> list[str]:
    score, warnings = view.score, []
    if view.is_training:
        warnings.append(
            "These are the triplets that the model learned from, so their accuracy says nothing "
            "of new questions. Mistakes among them point at wrong judgements instead. Make the "
            "report with other triplets."
        )
    else:
        warnings += _on_new(view)
    if score.n_ties:
        warnings.append(
            f"{score.n_ties:,} triplets are ties (both images equally near) and count as wrong."
        )
    if score.n_undecidable:
        warnings.append(
            f"{score.n_undecidable:,} triplets have an image that cannot be read; they count "
            "as wrong and are in no figure."
        )
    return warnings


def _on_new(view: ModelView) -> list[str]:
    score, warnings = view.score, []
    if n_learned := int(view.learned.sum()):
        warnings.append(
            f"The model learned from {n_learned:,} of these {len(view.triplets):,} triplets. The "
            "accuracy at the top of the page leaves them out; tables and figures do not."
        )
    if score.accuracy < view.frozen_score.accuracy:
        warnings.append(
            f"The trained embeddings ({score.accuracy:.1%}) are worse than the "
            f"{view.model.features_name} alone ({view.frozen_score.accuracy:.1%}) on these "
            "triplets."
        )
    interval, baselines = score.interval, view.baselines
    if baselines and (trap := describe_trap(score.accuracy, interval, baselines)) is not None:
        warnings.append(trap)
    if view.training is not None:
        used = {view.triplets.names[image] for image in np.unique(view.triplets.rows)}
        if n_shared := len(used & set(view.training.names)):
            warnings.append(
                f"{n_shared:,} images of these triplets are in the training triplets too, so "
                "the accuracy is higher than that of new images would be."
            )
    if interval.high - interval.low > _WIDE_INTERVAL:
        warnings.append(
            f"The accuracy is uncertain: {interval.low:.0%} to {interval.high:.0%}. More "
            "images would narrow it, more triplets over the same images would not."
        )
    detector = view.model.read_shift_detector()
    if detector and (shift := detector.describe(view.features[view.shown])):
        warnings.append(shift)
    return warnings


def _on_training(record: ModelRecord) -> list[str]:
    split, validation, warnings = record.split, record.validation, []
    if validation is None and record.pooled is None:
        warnings.append("No triplets were held out in training, so the last epoch was kept.")
    elif validation is not None:
        if split.n_val < defaults.MIN_VAL_TRIPLETS:
            warnings.append(
                f"Validation in training had {split.n_val:,} triplets only, too few to choose an "
                "epoch by or to say much."
            )
        else:
            warnings.append(
                "The epoch was chosen by the validation in training, so that accuracy is a "
                "little too high."
            )
        if split.by == "random":
            warnings.append(
                "The validation in training was split off at random, and such a split can often "
                "be solved by remembering names of pairs; look at the baselines."
            )
        if split.n_shared_images and split.by != "image":
            warnings.append(
                f"Training and validation in training share {split.n_shared_images:,} images."
            )
    if record.n_bad_images:
        warnings.append(
            f"{record.n_bad_images:,} images could not be used in training, and every "
            "triplet with one was left out."
        )
    return warnings


def _row(what: str, score: Score | Baseline) -> _AccuracyRow:
    of_images = None if isinstance(score, Baseline) else score.image_interval
    return _AccuracyRow(what, score.accuracy, score.wilson, of_images, score.n)


def _baseline_rows(baselines: Sequence[Baseline], of: str) -> list[_AccuracyRow]:
    """Return a row for each baseline, or one for all where all say the same."""
    if len({baseline.accuracy for baseline in baselines}) == 1:
        return [_row(f"names alone{of}", baselines[0])]
    return [_row(f"names alone{of}: {baseline.name}", baseline) for baseline in baselines]


def describe_training(record: ModelRecord) -> dict[str, str]:
    """Return what a person asks of a training first -> the answer."""
    settings, times = record.settings, record.times
    return {
        "Made": f"{datetime.fromisoformat(record.created):%Y-%m-%d %H:%M} UTC",
        "Command": record.command,
        "Images": f"{record.n_images:,}",
        "Triplets": _describe_triplets(record),
        "Features": f"{_describe_features(record)}; {record.n_features:,} numbers an image",
        "Head": _describe_head(record),
        "Loss": _describe_loss(settings),
        "Epochs": f"{record.best_epoch} kept of at most {settings.epochs}; batches of "
        f"{settings.batch_size:,}, learning rate {settings.learning_rate:g}, seed {settings.seed}",
        "Time": f"{times.total_s:,.1f} s, of which features {times.features_s:,.1f} "
        f"s and training {times.training_s:,.1f} s",
        "Versions": ", ".join(f"{name} {value}" for name, value in record.versions.items()),
    }


def list_settings(settings: Settings) -> dict[str, str]:
    """Return each setting that has a value -> the value in words."""
    words: dict[str, str] = {}
    for name, value in asdict(settings).items():
        if isinstance(value, bool):
            words[name] = "yes" if value else "no"
        elif value is not None:
            words[name] = f"{value:g}" if isinstance(value, float) else str(value)
    return words


def _describe_triplets(record: ModelRecord) -> str:
    split = record.split
    text = f"{record.inputs.name}: {split.n_train:,} for training"
    if split.n_val:
        text += f", {split.n_val:,} for validation (split by {split.by})"
    if split.n_dropped:
        text += f", {split.n_dropped:,} left out because they would have joined the two"
    return text


def _describe_features(record: ModelRecord) -> str:
    described = []
    for part in _parts(record):
        text = _name_backbone(part)
        if (stage := part.get("stage")) is not None:
            text += f" at {stage['layer']}"
        if (digest := part.get("weights_sha256")) is not None:
            text += f" (weights {digest[:12]}…)"
        described.append(text)
    views = record.features.get("views", [])
    return ", ".join(described) + (f"; views {', '.join(views)}" if len(views) > 1 else "")


def _describe_head(record: ModelRecord) -> str:
    settings, sizes = record.settings, get_recipe(record.settings.recipe).sizes
    text = f"recipe {settings.recipe}"
    if record.parts:
        parts = sorted(record.parts, key=lambda part: -part.weight)
        text += ", of " + ", ".join(f"{part.name} ({part.weight:.0%})" for part in parts)
    else:
        if settings.members > 1:
            text += f", {settings.members} members"
        if "hidden" in sizes:
            text += f", hidden layer of {settings.hidden:,}"
        if "dropout" in sizes:
            text += f", dropout {settings.dropout:g}"
        if settings.dim is not None:
            text += f", embeddings of {settings.dim:,} numbers"
    end = ";" if record.parts else ","
    return f"{text}{end} compared by {_DISTANCES[settings.distance]} distance"


def _describe_loss(settings: Settings) -> str:
    loss = get_loss(settings.loss)
    text = loss.name
    if loss.has_margin:
        text += f", margin {settings.margin:g}"
    return text + ("" if settings.mining == "none" else f", mining {settings.mining}")


def _name_features(record: ModelRecord) -> str:
    """Return what the features of a model are of, such as `resnet50 + efficientnet-lite0`."""
    return " + ".join(dict.fromkeys(map(_name_backbone, _parts(record))))


def _parts(record: ModelRecord) -> list[dict[str, Any]]:
    return record.features.get("parts", [record.features])


def _name_backbone(part: dict[str, Any]) -> str:
    return "given features" if part["backbone"] == FROM_VECTORS else part["backbone"]

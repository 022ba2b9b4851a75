"""What was trained, on what and how, in words: the record of a model as a person reads it."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime
from typing import Any

from tripletkit.features.backbones import FROM_VECTORS
from tripletkit.losses.loss_registry import get_loss
from tripletkit.model.recipes import get_recipe
from tripletkit.model.record import ModelRecord
from tripletkit.model.settings import Settings

_DISTANCES = {"l1": "L1", "l2": "L2", "squared-l2": "squared L2", "cosine": "cosine"}


def describe_training(record: ModelRecord) -> dict[str, str]:
    """Return what a person asks of a training first -> the answer."""
    return {
        "Made": _describe_time(record.created),
        "Command": record.command,
        "Images": f"{record.n_images:,}",
        "Triplets": _describe_triplets(record),
        "Features": f"{_describe_features(record)}; {record.n_features:,} numbers an image",
        "Head": _describe_head(record),
        "Loss": _describe_loss(record.settings),
        "Epochs": _describe_epochs(record),
        "Time": f"{record.times.total_s:,.1f} s, of which features {record.times.features_s:,.1f} "
        f"s and training {record.times.training_s:,.1f} s",
        "Versions": ", ".join(f"{name} {value}" for name, value in record.versions.items()),
    }


def list_settings(settings: Settings) -> dict[str, str]:
    """Return each setting that has a value -> the value in words."""
    return {
        name: _describe_value(value)
        for name, value in asdict(settings).items()
        if value is not None
    }


def name_features(record: ModelRecord) -> str:
    """Return what the features of a model are of, such as `resnet50 + efficientnet-lite0`."""
    names = [part["backbone"] for part in _parts(record)]
    return " + ".join(dict.fromkeys(_name_backbone(name) for name in names))


def _describe_time(created: str) -> str:
    return f"{datetime.fromisoformat(created):%Y-%m-%d %H:%M} UTC"


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
        text = _name_backbone(part["backbone"])
        if (stage := part.get("stage")) is not None:
            text += f" at {stage['layer']}"
        if (digest := part.get("weights_sha256")) is not None:
            text += f" (weights {digest[:12]}…)"
        described.append(text)
    views = record.features.get("views", [])
    seen = f"; views {', '.join(views)}" if len(views) > 1 else ""
    return ", ".join(described) + seen


def _describe_head(record: ModelRecord) -> str:
    settings, recipe = record.settings, get_recipe(record.settings.recipe)
    text = f"recipe {recipe.name}"
    if record.parts:
        parts = sorted(record.parts, key=lambda part: -part.weight)
        text += ", of " + ", ".join(f"{part.name} ({part.weight:.0%})" for part in parts)
        return f"{text}; compared by {_DISTANCES[settings.distance]} distance"
    if settings.members > 1:
        text += f", {settings.members} members"
    if "hidden" in recipe.sizes:
        text += f", hidden layer of {settings.hidden:,}"
    if "dropout" in recipe.sizes:
        text += f", dropout {settings.dropout:g}"
    if settings.dim is not None:
        text += f", embeddings of {settings.dim:,} numbers"
    return f"{text}, compared by {_DISTANCES[settings.distance]} distance"


def _describe_loss(settings: Settings) -> str:
    loss = get_loss(settings.loss)
    text = loss.name
    if loss.has_margin:
        text += f", margin {settings.margin:g}"
    if settings.mining != "none":
        text += f", mining {settings.mining}"
    return text


def _describe_epochs(record: ModelRecord) -> str:
    settings = record.settings
    return (
        f"{record.best_epoch} kept of at most {settings.epochs}; batches of "
        f"{settings.batch_size:,}, learning rate {settings.learning_rate:g}, seed {settings.seed}"
    )


def _parts(record: ModelRecord) -> list[dict[str, Any]]:
    return record.features.get("parts", [record.features])


def _name_backbone(name: str) -> str:
    return "given features" if name == FROM_VECTORS else name


def _describe_value(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else str(value)

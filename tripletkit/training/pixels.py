"""Training of a backbone with its head, from the pixels of the images."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from tripletkit import defaults
from tripletkit.data.images import Images
from tripletkit.data.training_set import TrainingSet
from tripletkit.errors import CollapseError, ImageReadError, describe_problems
from tripletkit.evaluation.validation import chooses_epoch
from tripletkit.features.backbones import Backbone, get_backbone
from tripletkit.features.decoded_images import DecodedImages
from tripletkit.features.encoder import Collection, Encoder
from tripletkit.features.feature_parts import FeaturePart
from tripletkit.features.keras_backend import keras
from tripletkit.features.stores import Store
from tripletkit.features.trained_weights import write_random_weights
from tripletkit.features.weights_files import file_sha256
from tripletkit.features.weights_origin import WeightsFile
from tripletkit.model.history import EpochRecord, TrainedHead
from tripletkit.model.pixel_network import PixelNetwork
from tripletkit.model.record import PixelsRecord
from tripletkit.model.settings import HeadSettings
from tripletkit.progress import Stages
from tripletkit.training.checkpoint import Checkpoints, checkpoint_path
from tripletkit.training.epochs import keep_best_epoch
from tripletkit.training.pixel_training import Augmentation, PixelCost, PixelTraining

logger = logging.getLogger("tripletkit")


@dataclass(frozen=True)
class PixelPlan:
    """How a backbone is to be trained.

    Attributes:
        n_blocks: how many of its last blocks; None for all of it, from random weights.
        settings: of this part of the training.
        output: the model folder to be, which the checkpoint is beside; None for no checkpoint.
        resume: go on from that checkpoint.
    """

    n_blocks: int | None
    settings: HeadSettings
    output: Path | None
    resume: bool = False

    @property
    def augmentation(self) -> Augmentation:
        return Augmentation(self.settings.flip, self.settings.shift)


@dataclass(frozen=True)
class FromPixels:
    """What came out of training from pixels.

    Attributes:
        source: the backbone with its trained weights.
        backbone_file: where these are, as long as the folder that was given lasts.
        collection: features by them.
        trained: the head, and the epochs of the network.
        record: for the model's record.
    """

    source: Encoder
    backbone_file: Path
    collection: Collection
    trained: TrainedHead
    record: PixelsRecord


def start_from_scratch(name: str, size_px: int | None, seed: int, folder: Path) -> Encoder:
    """Return a backbone with random weights.

    Args:
        name: of the backbone.
        size_px: side of the images; None for its usual one.
        seed: of the weights.
        folder: where their file is written.
    """
    backbone = get_backbone(name).resized(size_px)
    start = write_random_weights(backbone, seed, folder / "start.weights.h5")
    return Encoder((FeaturePart.of_file(start),))


def train_from_pixels(
    plan: PixelPlan,
    data: TrainingSet,
    files: Images,
    source: Encoder,
    settings: HeadSettings,
    *,
    store: Store,
    folder: Path,
    load: Callable[[Images, Encoder], Collection],
    on_epoch: Callable[[EpochRecord, int], None],
    stages: Stages,
    head: keras.Model | None = None,
    head_epochs: int | None = None,
) -> FromPixels:
    """Train a backbone and its head together, and give the images their new features.

    Args:
        plan: what of the backbone, and how.
        data: of usable images.
        files: of all names.
        source: the backbone with the weights that it starts from.
        settings: of the head as it was trained before, or of all from scratch.
        store: what remembers the hashes of images.
        folder: where the trained weights are written.
        load: gives images their features.
        on_epoch: told each epoch and how many there are at most.
        stages: told of progress.
        head: trained on the backbone as it was; None from scratch.
        head_epochs: how many epochs that took.
    """
    (part,) = source.parts
    start = part.find_weights()
    network = (
        PixelNetwork.from_scratch(part.backbone, start, settings)
        if head is None
        else PixelNetwork.unfrozen(part.backbone, start, head, plan.n_blocks)
    )
    checkpoints, n_epochs = None, 0
    if plan.output is not None:
        facts = _facts(plan, data, files, part, settings, store)
        checkpoints = Checkpoints(checkpoint_path(plan.output), facts)
        n_epochs = checkpoints.open() if plan.resume else 0
    n_distinct = len(np.unique(data.train.rows))
    training = PixelTraining(
        _open_images(data, files, part.backbone, stages),
        network,
        data.train.rows,
        data.val.rows,
        plan.settings,
        data.labels,
        augmentation=plan.augmentation,
        n_shown=None if head is None else defaults.FINE_TUNE_VIEWS * n_distinct,
        on_epoch=lambda epoch: stages(f"epoch {epoch}"),
    )
    cost = training.measure_cost()
    logger.info("%s", _describe_cost(plan, network, cost, n_distinct))
    if plan.resume:
        logger.info("%s", _describe_resume(plan, n_epochs))
    trained = _run(training, data, plan, checkpoints, on_epoch)
    path = folder / "trained.weights.h5"
    training.save_backbone(path)
    chosen = WeightsFile(part.backbone, path, file_sha256(path), part.reason)
    trained_source = Encoder((FeaturePart.of_file(chosen),))
    learning, whole = network.n_weights()
    record = PixelsRecord(
        from_scratch=head is None,
        start_weights_sha256=None if head is None else part.facts["weights_sha256"],
        unfrozen_blocks=plan.n_blocks,
        n_trained_weights=learning,
        n_backbone_weights=whole,
        settings=plan.settings,
        images_per_epoch=cost.n_shown,
        head_epochs=head_epochs,
        resumed_after_epoch=n_epochs or None,
    )
    return FromPixels(trained_source, path, load(files, trained_source), trained, record)


def _run(
    training: PixelTraining,
    data: TrainingSet,
    plan: PixelPlan,
    checkpoints: Checkpoints | None,
    on_epoch: Callable[[EpochRecord, int], None],
) -> TrainedHead:
    try:
        return keep_best_epoch(
            training,
            data.val.rows,
            plan.settings,
            chooses_epoch=chooses_epoch(len(data.val)),
            on_epoch=lambda record: on_epoch(record, plan.settings.epochs),
            checkpoints=checkpoints,
        )
    except CollapseError:
        # Going on from there would end there again.
        if checkpoints is not None:
            checkpoints.remove()
        raise
    except KeyboardInterrupt:
        if checkpoints is not None and checkpoints.path.exists():
            logger.info(
                "Stopped. %s is kept: the same call with `resume` goes on.", checkpoints.path
            )
        raise


def _needed(data: TrainingSet) -> np.ndarray:
    """Return the images of training and validation."""
    return np.union1d(data.train.rows, data.val.rows)


def _open_images(
    data: TrainingSet, files: Images, backbone: Backbone, stages: Stages
) -> DecodedImages:
    needed = set(_needed(data).tolist())
    paths = [path if index in needed else None for index, path in enumerate(files.paths)]
    images = DecodedImages(paths, backbone, progress=stages("decoding"))
    if images.problems:
        # The features of these were at hand a moment ago.
        raise ImageReadError(describe_problems(list(images.problems.values())))
    kept = f"kept in memory, {_bytes(images.kept_bytes)}" if images.kept_bytes else "streamed"
    logger.info("Pixels: %s images, %s.", f"{len(needed):,}", kept)
    return images


def _facts(
    plan: PixelPlan,
    data: TrainingSet,
    files: Images,
    part: FeaturePart,
    settings: HeadSettings,
    store: Store,
) -> dict[str, Any]:
    """Return all that decides the training, for a checkpoint."""
    needed = _needed(data)
    hashes = files.contents(store).hashes
    contents = [hashes[index] for index in needed]
    names = "\0".join(data.names[index] for index in needed)
    labels = data.labels
    return {
        "images": _sha256(b"".join(content or b"" for content in contents), names.encode()),
        "training triplets": _sha256(data.train.rows.tobytes()),
        "validation triplets": _sha256(data.val.rows.tobytes()),
        "labels": labels
        and _sha256(labels.of_image[needed].tobytes(), "\0".join(labels.classes).encode()),
        **part.facts,
        "blocks": plan.n_blocks,
        **asdict(settings),
        **{
            f"fine-tuning {key}": value
            for key, value in asdict(plan.settings).items()
            if value != getattr(settings, key)
        },
        **{package: version(package) for package in ("tensorflow", "keras", "numpy")},
    }


def _sha256(*parts: bytes) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8))
        digest.update(part)
    return digest.hexdigest()


def _describe_cost(plan: PixelPlan, network: PixelNetwork, cost: PixelCost, n_distinct: int) -> str:
    learning, whole = network.n_weights()
    what = (
        f"Training {network.backbone.name} from scratch, {whole:,} weights and the head"
        if plan.n_blocks is None
        else f"Training the last {plan.n_blocks} of {len(network.backbone.blocks)} blocks of "
        f"{network.backbone.name} further, {learning:,} of {whole:,} weights, and the head"
    )
    n_epochs = plan.settings.epochs
    return (
        f"{what}.\nAn epoch: {cost.n_steps:,} steps over {cost.n_shown:,} images "
        f"({n_distinct:,} distinct), then the embeddings of {cost.n_embedded:,}. By one measured "
        f"step about {_duration(cost.seconds)}, {n_epochs:,} epoch{'s' * (n_epochs > 1)} about "
        f"{_duration(cost.seconds * n_epochs)}; about {_bytes(cost.memory_bytes)} of memory for it."
    )


def _describe_resume(plan: PixelPlan, n_epochs: int) -> str:
    if not n_epochs:
        where = plan.output and f", no {checkpoint_path(plan.output)}"
        return f"Nothing to resume{where or ''}: starting at epoch 1."
    return f"Resuming after epoch {n_epochs} of {plan.settings.epochs}."


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _bytes(n_bytes: int) -> str:
    return f"{n_bytes / 1e6:.0f} MB" if n_bytes < 1e9 else f"{n_bytes / 1e9:.1f} GB"

"""Trainers of a backbone with its head, from the pixels of the images."""

from __future__ import annotations

import hashlib
import logging
import warnings
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tripletkit import defaults
from tripletkit.errors import (
    CollapseError,
    FewTripletsWarning,
    ImageReadError,
    SettingsError,
    describe_problems,
)
from tripletkit.evaluation.scoring import Score
from tripletkit.evaluation.validation import chooses_epoch, score_embeddings
from tripletkit.features.backbones import get_backbone
from tripletkit.features.decoded_images import DecodedImages
from tripletkit.features.encoder import Encoder
from tripletkit.features.feature_parts import FeaturePart
from tripletkit.features.keras_backend import keras, seed_layers
from tripletkit.features.trained_weights import write_random_weights
from tripletkit.features.weights_files import file_sha256
from tripletkit.features.weights_origin import WeightsFile
from tripletkit.model.embedding import embed
from tripletkit.model.history import TrainedHead
from tripletkit.model.pixel_network import PixelNetwork
from tripletkit.model.record import PixelsRecord
from tripletkit.model.settings import HeadSettings
from tripletkit.progress import Stages, no_stages
from tripletkit.training.checkpoint import Checkpoints, checkpoint_path
from tripletkit.training.epochs import keep_best_epoch
from tripletkit.training.pixel_training import Augmentation, PixelCost, PixelTraining
from tripletkit.training.trainer import (
    Chosen,
    Examples,
    Fitted,
    FromPixels,
    HeldOutAnswers,
    OnEpoch,
    Trainer,
    Workplace,
    ignore_epoch,
)

if TYPE_CHECKING:
    from tripletkit.model.model_folder import ModelFolder

logger = logging.getLogger("tripletkit")


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


class PixelTrainer(Trainer):
    """Trains a backbone from random weights, with its head.

    Args:
        examples, settings: see `Trainer`.
        place: what is read and written.
        pixel_settings: of this part of the training. Defaults to `settings`.
    """

    # How many of the last blocks learn; None for all.
    n_blocks: int | None = None
    # How often an epoch shows each image on average; None for what the settings make of it.
    n_views: int | None = None

    def __init__(
        self,
        examples: Examples,
        settings: HeadSettings,
        place: Workplace,
        pixel_settings: HeadSettings | None = None,
    ) -> None:
        super().__init__(examples, settings)
        self.place = place
        self.pixel_settings = pixel_settings or settings

    def answer(self, _learned: np.ndarray, _asked: np.ndarray, _further: int = 0) -> np.ndarray:
        raise SettingsError("backbone", "a network cannot be trained again and again.")

    def choose(self, _held_out: HeldOutAnswers | None) -> Chosen:
        return Chosen(self)

    def fit(self, on_epoch: OnEpoch = ignore_epoch, stages: Stages = no_stages) -> Fitted:
        (part,) = self.place.source.parts
        network = PixelNetwork.from_scratch(part.backbone, part.find_weights(), self.settings)
        return self._fit(network, None, on_epoch, stages)

    def _fit(
        self, network: PixelNetwork, head_epochs: int | None, on_epoch: OnEpoch, stages: Stages
    ) -> Fitted:
        """Train a network, and give the images their new features.

        Args:
            head_epochs: how many epochs of the head alone went before; None from scratch.
        """
        place, (part,) = self.place, self.place.source.parts
        checkpoints, n_epochs = None, 0
        if place.output is not None:
            checkpoints = Checkpoints(checkpoint_path(place.output), self._facts(part))
            n_epochs = checkpoints.open() if place.resume else 0
        n_distinct = len(np.unique(place.data.train.rows))
        training = PixelTraining(
            _open_images(place, part, stages),
            network,
            self.examples.rows,
            self.examples.val_rows,
            self.pixel_settings,
            self.examples.labels,
            augmentation=Augmentation(self.pixel_settings.flip, self.pixel_settings.shift),
            n_shown=None if self.n_views is None else self.n_views * n_distinct,
            on_epoch=lambda epoch: stages(f"epoch {epoch}"),
        )
        cost = training.measure_cost()
        logger.info("%s", self._describe_cost(network, cost, n_distinct))
        if place.resume:
            logger.info("%s", self._describe_resume(n_epochs))
        trained = self._run(training, checkpoints, on_epoch)
        path = place.folder / "trained.weights.h5"
        training.save_backbone(path)
        chosen = WeightsFile(part.backbone, path, file_sha256(path), part.reason)
        source = Encoder((FeaturePart.of_file(chosen),))
        learning, whole = network.n_weights()
        is_from_scratch = head_epochs is None
        record = PixelsRecord(
            from_scratch=is_from_scratch,
            start_weights_sha256=None if is_from_scratch else part.facts["weights_sha256"],
            unfrozen_blocks=self.n_blocks,
            n_trained_weights=learning,
            n_backbone_weights=whole,
            settings=self.pixel_settings,
            images_per_epoch=cost.n_shown,
            head_epochs=head_epochs,
            resumed_after_epoch=n_epochs or None,
        )
        pixels = FromPixels(source, path, place.load(place.files, source), record)
        return Fitted(trained, self.settings, pixels=pixels)

    def _run(
        self, training: PixelTraining, checkpoints: Checkpoints | None, on_epoch: OnEpoch
    ) -> TrainedHead:
        val_rows, settings = self.examples.val_rows, self.pixel_settings
        try:
            return keep_best_epoch(
                training,
                val_rows,
                settings,
                chooses_epoch=chooses_epoch(len(val_rows)),
                on_epoch=lambda record: on_epoch(record, settings.epochs),
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

    def _facts(self, part: FeaturePart) -> dict[str, Any]:
        """Return all that decides the training, for a checkpoint."""
        place, data, needed = self.place, self.place.data, self.place.needed
        hashes = place.files.contents(place.store).hashes
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
            "blocks": self.n_blocks,
            **asdict(self.settings),
            **{
                f"fine-tuning {key}": value
                for key, value in asdict(self.pixel_settings).items()
                if value != getattr(self.settings, key)
            },
            **{package: version(package) for package in ("tensorflow", "keras", "numpy")},
        }

    def _describe_cost(self, network: PixelNetwork, cost: PixelCost, n_distinct: int) -> str:
        learning, whole = network.n_weights()
        what = (
            f"Training {network.backbone.name} from scratch, {whole:,} weights and the head"
            if self.n_blocks is None
            else f"Training the last {self.n_blocks} of {len(network.backbone.blocks)} blocks of "
            f"{network.backbone.name} further, {learning:,} of {whole:,} weights, and the head"
        )
        n_epochs = self.pixel_settings.epochs
        return (
            f"{what}.\nAn epoch: {cost.n_steps:,} steps over {cost.n_shown:,} images "
            f"({n_distinct:,} distinct), then the embeddings of {cost.n_embedded:,}. By one "
            f"measured step about {_duration(cost.seconds)}, {n_epochs:,} "
            f"epoch{'s' * (n_epochs > 1)} about {_duration(cost.seconds * n_epochs)}; about "
            f"{_bytes(cost.memory_bytes)} of memory for it."
        )

    def _describe_resume(self, n_epochs: int) -> str:
        if not n_epochs:
            output = self.place.output
            where = f", no {checkpoint_path(output)}" if output else ""
            return f"Nothing to resume{where}: starting at epoch 1."
        return f"Resuming after epoch {n_epochs} of {self.pixel_settings.epochs}."


class FineTuneTrainer(PixelTrainer):
    """Trains the last blocks of a model's backbone further, together with its head.

    Args:
        examples, place: see `PixelTrainer`.
        model: with the head.
        n_blocks: how many of the last blocks.
        pixel_settings: of this part of the training.
    """

    n_views = defaults.FINE_TUNE_VIEWS

    def __init__(
        self,
        examples: Examples,
        place: Workplace,
        model: ModelFolder,
        n_blocks: int,
        pixel_settings: HeadSettings,
    ) -> None:
        super().__init__(examples, model.record.settings, place, pixel_settings)
        self.model, self.n_blocks = model, n_blocks

    def fit(self, on_epoch: OnEpoch = ignore_epoch, stages: Stages = no_stages) -> Fitted:
        # Dropout draws its own seed when the head is built.
        seed_layers(self.settings.seed)
        head = self.model.load_head()
        before = self._score(head)
        (part,) = self.place.source.parts
        network = PixelNetwork.unfrozen(part.backbone, part.find_weights(), head, self.n_blocks)
        fitted = self._fit(network, len(self.model.read_history()), on_epoch, stages)
        return Fitted(fitted.trained, fitted.settings, pixels=fitted.pixels, frozen_head=before)

    def _score(self, head: keras.Model) -> Score | None:
        """Return the score of the head on the backbone as it is; None without validation."""
        val = self.place.data.val
        if len(val):
            embeddings = embed(head, self.examples.features)
            score = score_embeddings(embeddings, val, self.settings.distance)
            logger.info("With the frozen backbone: validation accuracy %.4f.", score.accuracy)
            return score
        if self.model.record.pooled is not None:
            warnings.warn(
                f"{self.model.path}: this model was trained on all its triplets, so none is left "
                "to score fine-tuning by or to choose its epoch: the last one is kept. To see "
                "what fine-tuning gains, train with `refit=False` first.",
                FewTripletsWarning,
                stacklevel=2,
            )
        return None


def _open_images(place: Workplace, part: FeaturePart, stages: Stages) -> DecodedImages:
    needed = set(place.needed.tolist())
    paths = [path if index in needed else None for index, path in enumerate(place.files.paths)]
    images = DecodedImages(paths, part.backbone, progress=stages("decoding"))
    if images.problems:
        # The features of these were at hand a moment ago.
        raise ImageReadError(describe_problems(list(images.problems.values())))
    kept = f"kept in memory, {_bytes(images.kept_bytes)}" if images.kept_bytes else "streamed"
    logger.info("Pixels: %s images, %s.", f"{len(needed):,}", kept)
    return images


def _sha256(*parts: bytes) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8))
        digest.update(part)
    return digest.hexdigest()


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _bytes(n_bytes: int) -> str:
    return f"{n_bytes / 1e6:.0f} MB" if n_bytes < 1e9 else f"{n_bytes / 1e9:.1f} GB"

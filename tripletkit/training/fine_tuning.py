"""A fine-tuning as it is asked for: the last blocks of a model's backbone go on learning."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tripletkit import defaults
from tripletkit.data.judgements import Judgements
from tripletkit.errors import SettingsError
from tripletkit.features.encoder import Encoder
from tripletkit.features.feature_parts import GivenWeights
from tripletkit.model.model_folder import ModelFolder
from tripletkit.model.settings import HeadSettings, check_values
from tripletkit.training.job import Job, Plan
from tripletkit.training.reread import find_sources
from tripletkit.training.sources import TrainingSources
from tripletkit.training.trainer import Trainer, Workplace

# A step sees fewer triplets than a head's, as each of their images goes through the backbone.
FINE_TUNE_BATCH_SIZE = 32
FINE_TUNE_LEARNING_RATE = 1e-4

# The settings of a head that fine-tuning has its own values of.
SETTINGS = ("epochs", "learning_rate", "batch_size", "patience", "flip", "shift", "seed")


@dataclass(frozen=True)
class FineTuning(Job):
    """What a model was trained on, once more, with the last blocks of its backbone.

    Attributes:
        model: with a head on one frozen backbone that sees the whole image.
        blocks: how many of the backbone's last blocks learn, from 1.
        settings: those that are not to have their defaults; names of `SETTINGS`.
        images: where the images are now; None for where they were in training.
        weights: where the backbone's weights are now.
        cache: folder of the feature store; None for the user's.
        learned_from: what the model learned from, of one in memory; None to open it again from
            where it was.
        judgements: to learn from; None for those of the training.
    """

    model: ModelFolder
    blocks: int = 1
    settings: Mapping[str, Any] = field(default_factory=dict)
    images: Path | None = None
    weights: GivenWeights = field(default_factory=dict)
    cache: Path | None = None
    learned_from: TrainingSources | None = None
    judgements: Judgements | None = None

    @property
    def plan(self) -> Plan:
        record = self.model.record
        return Plan(
            find_sources(record, self.model.path, self.images, self.learned_from, self.judgements),
            record.settings.seed,
            record.inputs.skip_bad,
            record.inputs.follow_outside,
            self.cache,
            trains_backbone=True,
        )

    def checked(self) -> FineTuning:
        """Return the job with every setting of its type, refusing what cannot be fine-tuned.

        Raises:
            SettingsError: if the model cannot be fine-tuned, or not so.
        """
        for name in (given := check_values(self.settings)):
            if name not in SETTINGS:
                raise SettingsError(
                    name, f"`{name}`: fine-tuning takes {', '.join(SETTINGS)} and no others."
                )
        self._check_model(self.open_encoder())
        return replace(self, settings=given)

    def open_encoder(self, _folder: Path | None = None) -> Encoder:
        return self.model.open_encoder(self.weights)

    def make_trainer(self, place: Workplace) -> Trainer:
        from tripletkit.training.pixel_trainer import FineTuneTrainer

        # A model of votes is not fine-tuned, so that there are none to weigh by.
        examples = place.examples(defaults.VOTES_AS)
        return FineTuneTrainer(examples, place, self.model, self.blocks, self._make_settings())

    def _make_settings(self) -> HeadSettings:
        """Return the settings of this part of a training."""
        of_head = self.model.record.settings
        own = {
            "epochs": defaults.FINE_TUNE_EPOCHS,
            "learning_rate": FINE_TUNE_LEARNING_RATE,
            "batch_size": min(of_head.batch_size, FINE_TUNE_BATCH_SIZE),
        }
        return replace(of_head, **own | dict(self.settings))

    def _check_model(self, source: Encoder) -> None:
        model, record = self.model, self.model.record
        if not source.is_plain:
            raise SettingsError(
                "model",
                f"{model.path}: expected a model of one backbone that sees the whole image; "
                "several backbones or views cannot be fine-tuned.",
            )
        if record.pixels is not None and record.pixels.from_scratch:
            raise SettingsError(
                "model", f"{model.path}: its backbone was trained from scratch, as a whole."
            )
        if record.inputs.votes is not None:
            raise SettingsError(
                "model",
                f"{model.path}: votes weigh what heads on a frozen backbone learn; fine-tuning "
                "does not know them.",
            )
        if self.judgements is not None and self.judgements.votes is not None:
            raise SettingsError(
                "triplets",
                f"{self.judgements.source}: expected triplets without votes, which fine-tuning "
                "does not know.",
            )
        backbone = source.parts[0].backbone
        if not 1 <= self.blocks <= len(backbone.blocks):
            raise SettingsError(
                "blocks",
                f"`blocks={self.blocks}`: expected at most {len(backbone.blocks)}, as many blocks "
                f"as {backbone.name} has.",
            )

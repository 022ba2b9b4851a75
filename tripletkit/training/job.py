"""A training as it is asked for: sources, settings, encoder. Checked before anything slow."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tripletkit import defaults
from tripletkit.data.judgements import Judgements
from tripletkit.errors import SettingsError
from tripletkit.features.backbones import AUTO, BACKBONES, get_backbone
from tripletkit.features.encoder import (
    BackboneLike,
    Encoder,
    GivenWeights,
    assign_weights,
    check_backbone_names,
    open_encoder,
)
from tripletkit.features.extract import choose_views
from tripletkit.features.given_features import FeaturesLike
from tripletkit.model.model_folder import ModelFolder
from tripletkit.model.recipes import get_recipe
from tripletkit.model.settings import Settings, check_settings, check_values
from tripletkit.training.inputs import TrainingSources
from tripletkit.training.trainer import Trainer, Workplace, make_trainer

# What `recipe=best` chooses from where no backbone is named: two networks that always work offline,
# and of each the last layer and the early ones.
_ENSEMBLE_BACKBONES = ("efficientnet-lite0", "efficientnet-lite2")
_FINE_TUNE_LEARNING_RATE = 1e-4
# A step of fine-tuning sees fewer triplets than a head's, because each of their images goes through
# the backbone.
_FINE_TUNE_BATCH_SIZE = 32
# The settings of a head that fine-tuning has its own values of.
_FINE_TUNE_SETTINGS = (
    "epochs",
    "learning_rate",
    "batch_size",
    "patience",
    "flip",
    "shift",
    "seed",
)


@dataclass(frozen=True)
class EncoderChoice:
    """What features are of, as it is asked for; see `open_encoder`."""

    backbones: Sequence[BackboneLike] = (AUTO,)
    weights: GivenWeights = field(default_factory=dict)
    views: Sequence[str] = (defaults.VIEWS,)
    image_size: int | None = None
    depth: str = defaults.DEPTH
    preprocess: str | None = None
    backbone_output: str | None = None
    features: FeaturesLike | None = None

    @property
    def is_from_scratch(self) -> bool:
        """Whether the backbone has no weights to start from, so that it is trained too."""
        name, *others = self.backbones
        if self.features is not None or others or self.weights or name not in BACKBONES:
            return False
        return get_backbone(str(name)).weights is None

    def check(self) -> None:
        """Refuse what is not known, and what does not go together."""
        check_backbone_names(self.backbones)
        assign_weights(self.backbones, self.weights)
        choose_views(self.views)
        if self.features is not None and replace(self, features=None) != EncoderChoice():
            raise SettingsError(
                "features",
                "`features` are taken as they are; leave out `backbone`, `weights`, `views` and "
                "what else is about computing features.",
            )
        if self.is_from_scratch and self.views != (defaults.VIEWS,):
            raise SettingsError(
                "views",
                "training from pixels is of one backbone that sees the whole image: give no "
                "`views`.",
            )
        for name in self.backbones:
            is_given = name not in BACKBONES or name in self.weights
            if len(self.backbones) > 1 and not is_given and get_backbone(str(name)).weights is None:
                raise SettingsError(
                    "backbone",
                    f"{name} has no weights and is trained from scratch, alone: give one "
                    "`backbone`.",
                )

    def with_usual_of_ensemble(self) -> EncoderChoice:
        """Return what an ensemble chooses from, where nothing was named."""
        nothing_named = EncoderChoice(
            views=self.views, preprocess=self.preprocess, backbone_output=self.backbone_output
        )
        if self.features is not None or self != nothing_named:
            return self
        return replace(self, backbones=_ENSEMBLE_BACKBONES, depth="all")

    def open(self) -> Encoder:
        options = dict(vars(self))
        backbones, size_px = options.pop("backbones"), options.pop("image_size")
        return open_encoder(backbones, size_px=size_px, **options)


@dataclass(frozen=True)
class Job(ABC):
    """A training as it is asked for, of whichever kind; see `train` of the public functions."""

    sources: TrainingSources
    settings: Mapping[str, Any] = field(default_factory=dict)
    test: Judgements | None = None
    budget_s: float | None = None
    learning_curve: bool = False
    cache: Path | None = None
    output: Path | None = None
    overwrite: bool = False
    resume: bool = False
    tensorboard: Path | None = None
    command: str = ""
    unseen_classes: float | None = None

    @property
    @abstractmethod
    def seed(self) -> int:
        """Of what is held out."""

    @property
    def is_from_scratch(self) -> bool:
        """Whether the backbone knows nothing before."""
        return False

    @property
    def trains_backbone(self) -> bool:
        """Whether the training can be resumed, and leaves checkpoints."""
        return self.is_from_scratch

    @property
    def unseen_fraction(self) -> float:
        """The share of the images to hold out as whole classes; 0 for none."""
        return self.unseen_classes or 0.0

    @property
    def draws(self) -> bool:
        """Whether to validate on held-out draws."""
        return False

    @abstractmethod
    def checked(self) -> Job:
        """Return the job with every setting of its type, refusing what does not go together."""

    @abstractmethod
    def open_encoder(self, folder: Path | None) -> Encoder:
        """Return what features are of before training; random weights go into the folder."""

    @abstractmethod
    def make_trainer(self, place: Workplace) -> Trainer:
        """Return the trainer of what was opened."""


@dataclass(frozen=True)
class TrainingJob(Job):
    """The training of a model."""

    encoder: EncoderChoice = field(default_factory=EncoderChoice)

    @property
    def seed(self) -> int:
        return int(self.settings.get("seed", defaults.SEED))

    @property
    def is_from_scratch(self) -> bool:
        return self.encoder.is_from_scratch

    @property
    def unseen_fraction(self) -> float:
        if self.unseen_classes is not None:
            return self.unseen_classes
        # Where nothing is held out otherwise, it would be most of the time of training.
        is_usual = self.sources.pools or get_recipe(self._recipe).starts_as_identity
        return defaults.UNSEEN_FRACTION if is_usual and not self.is_from_scratch else 0.0

    @property
    def draws(self) -> bool:
        # An ensemble is chosen by them always.
        return self.sources.pools or get_recipe(self._recipe).is_chosen

    def checked(self) -> TrainingJob:
        settings = {"recipe": self._recipe, **check_values(self.settings)}
        self.encoder.check()
        job = replace(self, settings=settings)
        if job.is_from_scratch:
            # A network cannot be trained again and again.
            job = replace(job, sources=replace(job.sources, refit=False))
        if get_recipe(job._recipe).is_chosen:
            job = replace(job, encoder=job.encoder.with_usual_of_ensemble())
        sources = job.sources
        sources.check(needs_images=job.encoder.features is None)
        check_settings(
            job.settings,
            has_labels=sources.labels is not None,
            has_votes=sources.has_votes,
            from_scratch=job.is_from_scratch,
        )
        if job.is_from_scratch and sources.has_votes:
            raise SettingsError(
                "votes",
                "votes weigh what heads on a frozen backbone learn: leave them out where the "
                "backbone is trained too.",
            )
        if job.is_from_scratch and (job.unseen_classes or job.test is not None):
            raise SettingsError(
                "unseen_classes",
                "`unseen_classes` and `test` look at heads on a frozen backbone: leave them out "
                "where the backbone is trained too.",
            )
        if not 0 <= job.unseen_fraction <= 0.5:
            raise SettingsError(
                "unseen_classes",
                f"`unseen_classes`: expected 0 to 0.5, got {job.unseen_classes!r}.",
            )
        if job.test is not None and not job.unseen_fraction:
            raise SettingsError(
                "test",
                "`unseen_classes=0` leaves nothing to compare `test` with: give a share above 0."
                if job.unseen_classes is not None
                else "`test` needs held-out classes to compare with: give `unseen_classes`, or "
                "`recipe=best`.",
            )
        return job

    def make_trainer(self, place: Workplace) -> Trainer:
        examples = place.examples(self.sources.takes_votes_as)
        given = {name: value for name, value in self.settings.items() if name != "recipe"}
        settings = Settings.of_recipe(self._recipe, **given)
        if "epochs" not in given:
            settings = settings.with_usual_epochs(examples.rows)
        if self.is_from_scratch:
            from tripletkit.training.pixel_training import PixelTrainer

            return PixelTrainer(examples, settings, place)
        return make_trainer(examples, settings)

    def open_encoder(self, folder: Path | None) -> Encoder:
        if not self.is_from_scratch:
            return self.encoder.open()
        from tripletkit.training.pixel_training import PixelTrainer

        assert folder is not None, "a network is trained from scratch for a model"
        name = str(self.encoder.backbones[0])
        return PixelTrainer.open_encoder(name, self.encoder.image_size, self.seed, folder)

    @property
    def _recipe(self) -> str:
        return str(self.settings.get("recipe", "linear" if self.is_from_scratch else "mlp"))


@dataclass(frozen=True)
class FineTuning(Job):
    """What a model was trained on, once more, with the last blocks of its backbone."""

    model: ModelFolder = field(kw_only=True)
    blocks: int = 1
    weights: GivenWeights = field(default_factory=dict)

    @property
    def seed(self) -> int:
        return self.model.record.settings.seed

    @property
    def trains_backbone(self) -> bool:
        return True

    def checked(self) -> FineTuning:
        for name in (given := check_values(self.settings)):
            if name not in _FINE_TUNE_SETTINGS:
                takes = ", ".join(_FINE_TUNE_SETTINGS)
                raise SettingsError(name, f"`{name}`: fine-tuning takes {takes} and no others.")
        encoder, path, record = self.open_encoder(), self.model.path, self.model.record
        if not encoder.is_plain:
            raise SettingsError(
                "model",
                f"{path}: expected a model of one backbone that sees the whole image; several "
                "backbones or views cannot be fine-tuned.",
            )
        if record.pixels is not None and record.pixels.from_scratch:
            raise SettingsError(
                "model", f"{path}: its backbone was trained from scratch, as a whole."
            )
        if record.inputs.votes is not None or self.sources.has_votes:
            judged = self.sources.judgements if self.sources.has_votes else None
            where = path if judged is None else judged.source
            raise SettingsError(
                "triplets", f"{where}: fine-tuning takes no votes: expected triplets without votes."
            )
        backbone = encoder.parts[0].backbone
        if not 1 <= self.blocks <= len(backbone.blocks):
            raise SettingsError(
                "blocks",
                f"`blocks={self.blocks}`: expected at most {len(backbone.blocks)}, as many blocks "
                f"as {backbone.name} has.",
            )
        return replace(self, settings=given)

    def open_encoder(self, _folder: Path | None = None) -> Encoder:
        return self.model.open_encoder(self.weights)

    def make_trainer(self, place: Workplace) -> Trainer:
        from tripletkit.training.pixel_training import FineTuneTrainer

        of_head = self.model.record.settings
        own = {
            "epochs": defaults.FINE_TUNE_EPOCHS,
            "learning_rate": _FINE_TUNE_LEARNING_RATE,
            "batch_size": min(of_head.batch_size, _FINE_TUNE_BATCH_SIZE),
        }
        settings = replace(of_head, **own | dict(self.settings))
        # A model of votes is not fine-tuned, so that there are none to weigh by.
        examples = place.examples(defaults.VOTES_AS)
        return FineTuneTrainer(examples, settings, place, self.model, self.blocks)

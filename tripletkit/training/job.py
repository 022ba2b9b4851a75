"""What a training is asked for: sources, settings, backbones. Checked before anything slow."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from tripletkit import defaults
from tripletkit.data.judgements import Judgements
from tripletkit.errors import SettingsError
from tripletkit.features.backbones import AUTO, BACKBONES, get_backbone
from tripletkit.features.encoder import Encoder, open_encoder
from tripletkit.features.feature_parts import (
    BackboneLike,
    GivenWeights,
    assign_weights,
    check_backbone_names,
)
from tripletkit.features.given_features import FeaturesLike
from tripletkit.features.image_views import choose_views
from tripletkit.model.recipes import get_recipe
from tripletkit.model.settings import (
    HeadSettings,
    check_from_scratch,
    check_settings,
    check_values,
    choose_epochs,
)
from tripletkit.training.sources import TrainingSources
from tripletkit.training.trainer import Trainer, Workplace, make_trainer

# What `recipe=best` chooses from where no backbone is named: two networks that always work offline,
# and of each the last layer and the early ones.
_ENSEMBLE_BACKBONES = ("efficientnet-lite0", "efficientnet-lite2")


@dataclass(frozen=True)
class Plan:
    """What one training does, whichever kind it is.

    Attributes:
        sources: what is learned from and validated on.
        seed: of what is held out.
        skip_bad: leave images out that are missing or cannot be read.
        follow_outside: allow names and links that lead out of the image folder.
        cache: folder of the feature store; None for the user's.
        test: questions to be answered later, to tell how new their images are.
        unseen_fraction: the share of the images to hold out as whole classes; 0 for none.
        needs_unseen: refuse to go on where they cannot be held out.
        draws: validate on held-out draws.
        budget_s: seconds that these may take; None for as many as are usual.
        learning_curve: say, too, what more judgements would bring.
        trains_backbone: the training can be resumed, and leaves checkpoints.
        is_from_scratch: the backbone knows nothing before.
    """

    sources: TrainingSources
    seed: int
    skip_bad: bool
    follow_outside: bool
    cache: Path | None
    test: Judgements | None = None
    unseen_fraction: float = 0.0
    needs_unseen: bool = False
    draws: bool = False
    budget_s: float | None = None
    learning_curve: bool = False
    trains_backbone: bool = False
    is_from_scratch: bool = False


class Job(ABC):
    """A training as it is asked for, of whichever kind."""

    @property
    @abstractmethod
    def plan(self) -> Plan:
        """What it does."""

    @abstractmethod
    def checked(self) -> Job:
        """Return the job with every setting of its type, refusing what does not go together."""

    @abstractmethod
    def open_encoder(self, folder: Path | None) -> Encoder:
        """Return what features are of before training.

        Args:
            folder: where random weights are written; None where none will be.
        """

    @abstractmethod
    def make_trainer(self, place: Workplace) -> Trainer:
        """Return the trainer of what was opened."""


@dataclass(frozen=True)
class TrainingJob(Job):
    """The training of a model as it is asked for.

    Attributes:
        sources: what is learned from and validated on.
        settings: those that are not to have their defaults, by the names of `HeadSettings`.
        backbones: what features are of: registered names, or `auto` alone.
        weights: files to use instead of a backbone's own weights.
        views: what the features are averaged over; see `image_views`.
        image_size: side of the images for the backbones, pixels; None for each one's usual.
        depth: where in the backbones features are taken; a key of `DEPTHS`.
        preprocess, backbone_output: of encoders from ONNX files; see `open_encoder`.
        features: features made elsewhere, instead of backbones; see `open_features`.
        unseen_classes: the share of the images to hold out as whole classes in a training of its
            own; None for the recipe's default.
        test: questions to be answered later, to tell how new their images are.
        skip_bad: leave images out that are missing or cannot be read.
        follow_outside: allow names and links that lead out of the image folder.
        cache: folder of the feature store; None for the user's.
        learning_curve: say, too, what more judgements would bring.
        budget_s: seconds that held-out draws may take; None for as many as are usual.
    """

    sources: TrainingSources
    settings: Mapping[str, Any] = field(default_factory=dict)
    backbones: Sequence[BackboneLike] = (AUTO,)
    weights: GivenWeights = field(default_factory=dict)
    views: Sequence[str] = (defaults.VIEWS,)
    image_size: int | None = None
    depth: str = defaults.DEPTH
    preprocess: str | None = None
    backbone_output: str | None = None
    features: FeaturesLike | None = None
    unseen_classes: float | None = None
    test: Judgements | None = None
    skip_bad: bool = False
    follow_outside: bool = False
    cache: Path | None = None
    budget_s: float | None = None
    learning_curve: bool = False

    @property
    def is_from_scratch(self) -> bool:
        """Whether the backbone has no weights to start from, so that it is trained too."""
        name, *others = self.backbones
        return (
            self.features is None
            and name in BACKBONES
            and not others
            and not self.weights
            and get_backbone(name).weights is None
        )

    @property
    def seed(self) -> int:
        return self.settings.get("seed", defaults.SEED)

    @property
    def plan(self) -> Plan:
        return Plan(
            self.sources,
            self.seed,
            self.skip_bad,
            self.follow_outside,
            self.cache,
            self.test,
            self.unseen_fraction,
            needs_unseen=self.unseen_classes is not None,
            # An ensemble is chosen by them always.
            draws=self.sources.pools or get_recipe(self._recipe).is_chosen,
            budget_s=self.budget_s,
            learning_curve=self.learning_curve,
            trains_backbone=self.is_from_scratch,
            is_from_scratch=self.is_from_scratch,
        )

    @property
    def unseen_fraction(self) -> float:
        """The share of the images to hold out as whole classes; 0 for none."""
        if self.unseen_classes is not None:
            return self.unseen_classes
        # Where nothing is held out otherwise, it would be most of the time of training.
        is_usual = self.sources.pools or get_recipe(self._recipe).starts_as_identity
        return defaults.UNSEEN_FRACTION if is_usual and not self.is_from_scratch else 0.0

    def checked(self) -> TrainingJob:
        """Return the job with every setting of its type, refusing what does not go together.

        BackboneError, ViewError: if one is not known, or weights are for none of them.
        """
        check_backbone_names(self.backbones)
        assign_weights(self.backbones, self.weights)
        choose_views(self.views)
        job = replace(self, settings={"recipe": self._recipe, **check_values(self.settings)})
        if job.is_from_scratch:
            # A network cannot be trained again and again.
            job = replace(job, sources=replace(job.sources, refit=False))
        job = job._with_usual_encoders()
        job.sources.check(needs_images=job.features is None)
        if job.features is not None:
            job._check_given()
        check_settings(
            job.settings,
            has_labels=job.sources.labels is not None,
            has_votes=job.sources.has_votes,
            from_pixels=job.is_from_scratch,
        )
        if job.sources.has_votes:
            job._check_with_votes()
        if job.is_from_scratch:
            job._check_from_scratch()
        else:
            job._check_pretrained()
        if not 0 <= job.unseen_fraction <= 0.5:
            raise SettingsError(
                "unseen_classes",
                f"`unseen_classes`: expected 0 to 0.5, got {job.unseen_classes!r}.",
            )
        if job.test is not None and not job.unseen_fraction:
            what = (
                "`unseen_classes=0` leaves nothing to compare `test` with: give a share above 0."
                if job.unseen_classes is not None
                else "`test` needs held-out classes to compare with: give `unseen_classes`, or "
                "`recipe=best`."
            )
            raise SettingsError("test", what)
        return job

    def _check_with_votes(self) -> None:
        """Refuse what does not go with several people's votes on each triplet."""
        if self.is_from_scratch:
            raise SettingsError(
                "votes",
                "votes weigh what heads on a frozen backbone learn: leave them out where the "
                "backbone is trained too.",
            )
        check_settings(
            self.settings,
            has_labels=self.sources.labels is not None,
            has_votes=True,
            from_pixels=False,
        )

    def _with_usual_encoders(self) -> TrainingJob:
        """Return the job with what an ensemble chooses from, where the user named nothing."""
        usual = TrainingJob(self.sources)
        is_named = any(
            getattr(self, name) != getattr(usual, name)
            for name in ("weights", "image_size", "depth", "features")
        )
        if is_named or list(self.backbones) != [AUTO] or not get_recipe(self._recipe).is_chosen:
            return self
        return replace(self, backbones=_ENSEMBLE_BACKBONES, depth="all")

    def make_settings(self, train_rows: np.ndarray) -> HeadSettings:
        """Return all settings; the number of epochs follows from the triplets if not given.

        Args:
            train_rows: `(n_triplets, 3)` indices of images, of training.
        """
        given = {name: value for name, value in self.settings.items() if name != "recipe"}
        settings = HeadSettings.of_recipe(self._recipe, **given)
        if "epochs" in given:
            return settings
        usual = get_recipe(settings.recipe).epochs
        return replace(settings, epochs=choose_epochs(*settings.count_per_epoch(train_rows), usual))

    def make_trainer(self, place: Workplace) -> Trainer:
        examples = place.examples(self.sources.takes_votes_as)
        settings = self.make_settings(examples.rows)
        if self.is_from_scratch:
            from tripletkit.training.pixel_trainer import PixelTrainer

            return PixelTrainer(examples, settings, place)
        return make_trainer(examples, settings)

    def open_encoder(self, folder: Path | None = None) -> Encoder:
        if self.is_from_scratch:
            from tripletkit.training.pixel_trainer import start_from_scratch

            return start_from_scratch(self.backbones[0], self.image_size, self.seed, folder)
        return open_encoder(
            self.backbones,
            weights=self.weights,
            views=self.views,
            size_px=self.image_size,
            depth=self.depth,
            preprocess=self.preprocess,
            backbone_output=self.backbone_output,
            features=self.features,
        )

    @property
    def _recipe(self) -> str:
        return self.settings.get("recipe", "linear" if self.is_from_scratch else "mlp")

    def _check_given(self) -> None:
        usual = TrainingJob(self.sources)
        chosen = (
            (self.backbones, usual.backbones),
            (self.views, usual.views),
            (self.weights, usual.weights),
            (self.image_size, usual.image_size),
            (self.depth, usual.depth),
            (self.preprocess, usual.preprocess),
        )
        for mine, its in chosen:
            if list(mine or ()) != list(its or ()) if isinstance(its, tuple) else mine != its:
                raise SettingsError(
                    "features",
                    "`features` are taken as they are; leave out `backbone`, `weights`, `views` "
                    "and what else is about computing features.",
                )

    def _check_pretrained(self) -> None:
        for name in self.backbones:
            is_given = name not in BACKBONES or name in self.weights
            if len(self.backbones) > 1 and not is_given and get_backbone(name).weights is None:
                raise SettingsError(
                    "backbone",
                    f"{name} has no weights and is trained from scratch, alone: give one "
                    "`backbone`.",
                )

    def _check_from_scratch(self) -> None:
        if list(self.views) != [defaults.VIEWS]:
            raise SettingsError(
                "views",
                "training from pixels is of one backbone that sees the whole image: give no "
                "`views`.",
            )
        if self.unseen_classes or self.test is not None:
            raise SettingsError(
                "unseen_classes",
                "`unseen_classes` and `test` look at heads on a frozen backbone: leave them out "
                "where the backbone is trained too.",
            )
        check_from_scratch(self.settings)

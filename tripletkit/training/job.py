"""A training as it is asked for: sources, settings, encoder. Checked before anything slow."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tripletkit import defaults
from tripletkit.data.images import Images, open_images
from tripletkit.data.judgements import (
    Judgements,
    JudgementsLike,
    TruthLike,
    find_unchanged,
    read_judgements,
    reopen_judgements,
)
from tripletkit.data.labels import LabelsLike, read_labels
from tripletkit.data.text_files import FileRecord
from tripletkit.data.triplets import Triplets, VotesAs, VotesLike
from tripletkit.errors import ModelFolderError, SettingsError
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
from tripletkit.model.model_folder import ModelFolder
from tripletkit.model.recipes import get_recipe
from tripletkit.model.record import InputsRecord, ModelRecord
from tripletkit.model.settings import Settings, check_settings, check_values
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
class TrainingSources:
    """What is learned from and validated on.

    Attributes:
        images: of a folder; without files where features are given.
        judgements: None to draw triplets from labels.
        val: judgements to validate on.
        votes_as: what training makes of votes; None for the default.
        split: what training and validation must not share; None for the default.
        val_fraction: the share to set apart; None for the default.
        groups: of images, as labels: what is held out together; None for each image by itself.
        refit: validate on held-out draws and train on all triplets, where nothing else is said of
            validation; otherwise a share is set apart once.
    """

    images: Images = field(default_factory=lambda: open_images(None))
    judgements: Judgements | None = None
    labels: LabelsLike | None = None
    val: Judgements | None = None
    val_labels: LabelsLike | None = None
    votes_as: VotesAs | None = None
    split: str | None = None
    val_fraction: float | None = None
    groups: LabelsLike | None = None
    refit: bool = True

    @property
    def has_votes(self) -> bool:
        return self.judgements is not None and self.judgements.votes is not None

    @property
    def takes_votes_as(self) -> VotesAs:
        return self.votes_as or defaults.VOTES_AS

    @property
    def fraction(self) -> float:
        """The share to set apart."""
        if self.pools:
            return 0.0
        return defaults.TRAIN_VAL_FRACTION if self.val_fraction is None else self.val_fraction

    @property
    def pools(self) -> bool:
        """Whether validation is on held-out draws, so that nothing is set apart."""
        is_own = self.val is not None or self.is_split_chosen
        return self.refit and self.judgements is not None and not is_own

    @property
    def is_split_chosen(self) -> bool:
        """Whether the user said how validation is set apart."""
        return self.val_fraction is not None or self.split is not None

    def check(self, *, needs_images: bool) -> None:
        """Refuse what does not go together; images are needed where features are computed."""
        folder = self.images.folder
        if self.judgements is None and self.labels is None:
            raise SettingsError(
                "triplets",
                f"{folder or 'this'} alone says nothing of which images are alike: give "
                "`triplets`, or `labels`.",
            )
        if folder is None and needs_images:
            raise SettingsError("images", "`images`: expected the folder of the images.")
        if folder is not None and not folder.is_dir():
            raise SettingsError("images", f"`images`: expected a folder, got {folder}.")
        self._check_validation()
        if self.votes_as is None or self.has_votes:
            return
        if self.judgements is None:
            raise SettingsError("votes", "`votes_as` needs votes, on rows of `triplets`.")
        raise SettingsError(
            "votes",
            "`votes_as` needs votes: give `votes`, or columns of them in "
            f"{self.judgements.record.name}.",
        )

    def _check_validation(self) -> None:
        if self.groups is not None and (
            self.judgements is None or self.val is not None or self.split not in (None, "image")
        ):
            raise SettingsError(
                "groups",
                "`groups` say which images of `triplets` are held out together: they go with "
                "neither `val`, nor `labels` alone, nor a `split` by anything but image.",
            )
        if self.val is not None and self.is_split_chosen:
            raise SettingsError(
                "val", "`val` excludes `val_fraction` and `split`: the file says it."
            )
        if self.judgements is None and self.split is not None:
            raise SettingsError(
                "split",
                "`split` is for a triplet file; of `labels` images are held out, class by class.",
            )
        if self.split is not None and self.split not in defaults.SPLIT_POLICIES:
            raise SettingsError(
                "split",
                f"`split`: expected one of {', '.join(defaults.SPLIT_POLICIES)}, got "
                f"{self.split!r}.",
            )
        if not 0 <= self.fraction < 1:
            raise SettingsError(
                "val_fraction",
                f"`val_fraction`: expected 0 to below 1, got {self.val_fraction!r}.",
            )
        if self.val_labels is None:
            return
        if self.labels is None or self.judgements is not None:
            raise SettingsError(
                "val_labels",
                "`val_labels` goes with `labels` and no triplet file; use `val` with that.",
            )
        if self.is_split_chosen or self.val is not None:
            raise SettingsError(
                "val_labels", "`val_labels` excludes `val`, `val_fraction` and `split`."
            )


@dataclass(frozen=True)
class EncoderChoice:
    """What features are of, as it is asked for; see `open_encoder`.

    Attributes:
        backbones: registered names, ONNX files, functions, or `auto` alone.
        image_size: side of the images for the backbones, pixels; None for each one's usual.
    """

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
    """A training as it is asked for, of whichever kind.

    Attributes:
        sources: what is learned from and validated on.
        settings: those that are not to have their defaults, by the names of `Settings`.
        test: questions to be answered later, to tell how new their images are.
        budget_s: seconds that held-out draws may take; None for as many as are usual.
        learning_curve: say, too, what more judgements would bring.
        cache: folder of the feature store; None for the user's.
        output: the model folder to write; None to keep the model in memory.
        overwrite: replace a model that is there.
        resume: go on with an interrupted training from pixels.
        tensorboard: folder for each epoch's numbers as TensorBoard logs.
        command: as it was typed, for the record.
        unseen_classes: the share of the images to hold out as whole classes in a training of its
            own; None for the recipe's default.
    """

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
    @abstractmethod
    def trains_backbone(self) -> bool:
        """Whether the training can be resumed, and leaves checkpoints."""

    @property
    def is_from_scratch(self) -> bool:
        """Whether the backbone knows nothing before."""
        return False

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
    """The training of a model.

    Attributes:
        encoder: what features are of.
    """

    encoder: EncoderChoice = field(default_factory=EncoderChoice)

    @property
    def seed(self) -> int:
        return int(self.settings.get("seed", defaults.SEED))

    @property
    def is_from_scratch(self) -> bool:
        return self.encoder.is_from_scratch

    @property
    def trains_backbone(self) -> bool:
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
        if job.is_from_scratch:
            job._check_from_scratch()
        job._check_unseen_classes()
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
        from tripletkit.training.pixel_training import start_from_scratch

        assert folder is not None, "a network is trained from scratch for a model"
        name = str(self.encoder.backbones[0])
        return start_from_scratch(name, self.encoder.image_size, self.seed, folder)

    @property
    def _recipe(self) -> str:
        return str(self.settings.get("recipe", "linear" if self.is_from_scratch else "mlp"))

    def _check_from_scratch(self) -> None:
        if self.sources.has_votes:
            raise SettingsError(
                "votes",
                "votes weigh what heads on a frozen backbone learn: leave them out where the "
                "backbone is trained too.",
            )
        if self.unseen_classes or self.test is not None:
            raise SettingsError(
                "unseen_classes",
                "`unseen_classes` and `test` look at heads on a frozen backbone: leave them out "
                "where the backbone is trained too.",
            )

    def _check_unseen_classes(self) -> None:
        if not 0 <= self.unseen_fraction <= 0.5:
            raise SettingsError(
                "unseen_classes",
                f"`unseen_classes`: expected 0 to 0.5, got {self.unseen_classes!r}.",
            )
        if self.test is not None and not self.unseen_fraction:
            raise SettingsError(
                "test",
                "`unseen_classes=0` leaves nothing to compare `test` with: give a share above 0."
                if self.unseen_classes is not None
                else "`test` needs held-out classes to compare with: give `unseen_classes`, or "
                "`recipe=best`.",
            )


@dataclass(frozen=True)
class FineTuning(Job):
    """What a model was trained on, once more, with the last blocks of its backbone.

    Attributes:
        model: with a head on one frozen backbone that sees the whole image.
        blocks: how many of the backbone's last blocks learn, from 1.
        weights: where the backbone's weights are now.
    """

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
        self._check_model(self.open_encoder())
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

    def _check_model(self, encoder: Encoder) -> None:
        path, record = self.model.path, self.model.record
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
        if record.inputs.votes is not None:
            raise SettingsError(
                "model",
                f"{path}: votes weigh what heads on a frozen backbone learn; fine-tuning does not "
                "know them.",
            )
        if self.sources.judgements is not None and self.sources.has_votes:
            raise SettingsError(
                "triplets",
                f"{self.sources.judgements.source}: expected triplets without votes, which "
                "fine-tuning does not know.",
            )
        backbone = encoder.parts[0].backbone
        if not 1 <= self.blocks <= len(backbone.blocks):
            raise SettingsError(
                "blocks",
                f"`blocks={self.blocks}`: expected at most {len(backbone.blocks)}, as many blocks "
                f"as {backbone.name} has.",
            )


def open_sources(
    *,
    triplets: JudgementsLike | None = None,
    names: Sequence[str] | None = None,
    votes: VotesLike | None = None,
    val: JudgementsLike | None = None,
    val_truth: TruthLike | None = None,
    val_votes: VotesLike | None = None,
    **others: Any,
) -> TrainingSources:
    """Open the judgements that are given, as `read_judgements` does, and return them with all
    other sources."""
    if triplets is None and votes is not None:
        raise SettingsError("triplets", "Votes are on the rows of a triplet file: give `triplets`.")
    if val is None and val_truth is not None:
        raise SettingsError("val", "`val_truth` needs `val`, whose truth it is.")
    if val is None and val_votes is not None:
        raise SettingsError("val", "`val_votes` needs `val`, which the votes are on.")
    if val_votes is not None and val_truth is not None:
        raise SettingsError(
            "val_truth", "`val_votes` excludes `val_truth`: what most people said is the truth."
        )
    if val_votes is not None and triplets is None:
        raise SettingsError("triplets", "`val_votes` goes with `triplets`.")
    judgements = of_val = None
    if triplets is not None:
        judgements = read_judgements(triplets, names=names, votes=votes)
    if val is not None:
        of_val = read_judgements(val, names=names, votes=val_votes, truth=val_truth)
    return TrainingSources(judgements=judgements, val=of_val, **others)


def read_training_triplets(inputs: InputsRecord) -> Triplets | None:
    """Return what a model was trained on as anchor, positive, negative; None if it is gone.

    Where people voted, the positive is what most of them chose; ties are left out.
    """
    if inputs.triplets is None:
        return None
    judgements = reopen_judgements(inputs.triplets, _votes_file(inputs))
    return None if judgements is None else judgements.decided().triplets


def describe_missing_triplets(inputs: InputsRecord) -> str:
    """Say why a model's training triplets cannot be read again."""
    return "they were drawn from labels" if inputs.triplets is None else "they are gone or changed"


def find_sources(
    record: ModelRecord,
    place: Path,
    images: Path | None = None,
    known: TrainingSources | None = None,
    judgements: Judgements | None = None,
) -> TrainingSources:
    """Return what a model was trained on and validated on, to train with it again.

    Of judgements other than those of the training nothing is set apart, as the model has learned
    from images on both sides of any such division.

    Args:
        place: the model's folder, for messages.
        images: the folder where the images are now; None for where they were.
        known: what it was trained on, of a model in memory; None to open it again.
        judgements: to learn from instead; None for those of the training.
    """
    found = known or _reopen_sources(record, place, judgements)
    if images is not None:
        found = replace(found, images=found.images.in_folder(images))
    if judgements is None:
        return found
    found = replace(found, judgements=judgements)
    trained_with = record.inputs.triplets
    if trained_with is not None and judgements.record.sha256 == trained_with.sha256:
        return found
    fraction = 0.0 if found.val is None else None
    return replace(found, val_labels=None, split=None, val_fraction=fraction)


def _reopen_sources(
    record: ModelRecord, place: Path, judgements: Judgements | None
) -> TrainingSources:
    """Return what is recorded, from where it was; but `judgements`, if they are given."""
    inputs = record.inputs
    files: dict[str, Any] = {
        name: _find(name, getattr(inputs, name), place)
        for name in ("labels", "groups", "val_truth", "val_votes")
    }
    files["val"] = _reopen("val", inputs.val, place)
    if judgements is None:
        files["val_labels"] = _find("val_labels", inputs.val_labels, place)
    for name in ("labels", "val_labels", "groups"):
        recorded = getattr(inputs, name)
        if files.get(name) and (columns := dict(recorded.read_as).get("columns")):
            where = None if record.images is None else Path(record.images)
            files[name] = read_labels(files[name], where, columns=json.loads(columns))
    votes = inputs.votes
    return open_sources(
        images=open_images(record.images, **inputs.policy),
        triplets=judgements or _reopen("triplets", inputs.triplets, place),
        votes=_find("votes", _votes_file(inputs), place),
        votes_as=None if votes is None else votes.taken_as,
        split=None if inputs.split == "none" else inputs.split,
        val_fraction=inputs.val_fraction,
        **files,
    )


def _votes_file(inputs: InputsRecord) -> FileRecord | None:
    """Return the record of a file of votes alone."""
    votes = inputs.votes
    return votes.file if votes and not votes.in_columns else None


def _reopen(name: str, recorded: FileRecord | None, place: Path) -> Judgements | None:
    """Read judgements as they were read for the training: columns, names, swapped, left out."""
    if recorded is None or _find(name, recorded, place) is None:
        return None
    return reopen_judgements(recorded)


def _find(name: str, recorded: FileRecord | None, place: Path) -> Path | None:
    if recorded is None:
        return None
    path = None if recorded.path is None else Path(recorded.path)
    # Labels may be a folder; what they say is compared when they are read.
    is_there = path is not None and (path.is_dir() or path.is_file())
    is_text = name not in ("labels", "val_labels", "groups")
    if not is_there or (is_text and find_unchanged(recorded) is None):
        how = ", or give the triplets in Python as `triplets=`" if name == "triplets" else ""
        raise ModelFolderError(
            f"{recorded.name}: expected the file that {place} was trained with (`{name}`), it is "
            f"gone or changed. Bring it back, train anew{how}."
            if path is not None
            else f"{recorded.name}: {place} was trained with it (`{name}`), and it is in no file "
            f"that could be read again. Train anew{how}."
        )
    return path

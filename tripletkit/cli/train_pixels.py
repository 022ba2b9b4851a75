"""The part of `tripletkit train` that trains a backbone too, from the pixels of the images."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tripletkit import defaults
from tripletkit.cli.collections import open_collection
from tripletkit.cli.console import progress_bar, say
from tripletkit.cli.sources import choose_features, given_features
from tripletkit.cli.train_text import chooses_epoch, describe_epoch
from tripletkit.errors import CollapseError, ImageReadError, describe_problems

if TYPE_CHECKING:
    from tripletkit.data.augmentation import Augmentation
    from tripletkit.data.training_set import TrainingSet
    from tripletkit.evaluation.scoring import Score
    from tripletkit.evaluation.validation import Validation
    from tripletkit.features.backbones import Backbone
    from tripletkit.features.collection import Collection, NamedFiles
    from tripletkit.features.decoded_images import DecodedImages
    from tripletkit.features.sources import FeaturePart, FeatureSource, GivenWeights
    from tripletkit.model.history import EpochRecord, TrainedHead
    from tripletkit.model.pixel_network import PixelNetwork
    from tripletkit.model.settings import HeadSettings
    from tripletkit.progress import Progress
    from tripletkit.training.checkpoint import Checkpoints
    from tripletkit.training.pixel_training import PixelCost, PixelTraining

# Wraps what is told each epoch; see `train._log_epochs`.
LogEpochs = Callable[
    [Callable[["EpochRecord"], None]], AbstractContextManager[Callable[["EpochRecord"], None]]
]


@dataclass(frozen=True)
class PixelOptions:
    """What `pixel_options` takes, by the names of its parameters, and what follows from it.

    Attributes:
        are_from_scratch: the backbone has no weights to start from.
    """

    image_size: int | None
    unfreeze: int | None
    fine_tune_epochs: int | None
    fine_tune_rate: float | None
    flip: bool | None
    shift: float | None
    resume: bool
    are_from_scratch: bool

    @classmethod
    def take(
        cls,
        options: dict[str, Any],
        backbones: Sequence[str],
        weights: GivenWeights,
        views: Sequence[str] | None,
    ) -> PixelOptions:
        """Move the options of training from pixels out of all others, and set the recipe.

        Args:
            options: of the command; the recipe becomes `linear` where it was not chosen and the
                backbone is trained from scratch.
        """
        from tripletkit.features.backbones import BACKBONES, get_backbone

        (name, *others) = backbones
        are_from_scratch = (
            name in BACKBONES and not others and not weights and get_backbone(name).weights is None
        )
        names = [field.name for field in fields(cls) if field.name in options]
        given = {name: options.pop(name) for name in names}
        source = click.get_current_context().get_parameter_source("recipe")
        if are_from_scratch and source is click.core.ParameterSource.DEFAULT:
            options["recipe"] = "linear"
        found = cls(**given, are_from_scratch=are_from_scratch)
        if found.are_used and (others or views not in (None, [defaults.VIEWS])):
            raise click.UsageError(
                "training from pixels is of one backbone that sees the whole image: give one "
                "--backbone and no --views."
            )
        return found

    @property
    def are_used(self) -> bool:
        """Whether anything is trained from pixels."""
        return self.are_from_scratch or self.unfreeze is not None

    def check(
        self,
        options: dict[str, Any],
        unseen_fraction: float | None,
        test_file: Path | None,
        *,
        has_votes: bool,
    ) -> None:
        """Refuse options that do not go together."""
        if self.unfreeze is None and (self.fine_tune_epochs or self.fine_tune_rate):
            raise click.UsageError("--fine-tune-epochs and --fine-tune-rate need --unfreeze.")
        if not self.are_used:
            if self.resume or self.flip is not None or self.shift is not None:
                raise click.UsageError(
                    "--resume, --flip and --shift are for training from pixels: give --unfreeze, "
                    "or a backbone that is trained from scratch, such as --backbone cnn."
                )
            return
        if unseen_fraction or test_file is not None:
            raise click.UsageError(
                "--unseen-classes and --test look at heads on a frozen backbone: leave them out "
                "where the backbone is trained too."
            )
        if has_votes:
            raise click.UsageError(
                "--votes and --fourth-column weigh what heads on a frozen backbone learn: leave "
                "them out where the backbone is trained too."
            )
        if not self.are_from_scratch:
            return
        if self.unfreeze is not None:
            raise click.UsageError(
                "--unfreeze is for a backbone that has weights; this one is trained as a whole."
            )
        if options["recipe"] not in ("mlp", "linear") or (options["members"] or 1) > 1:
            raise click.UsageError(
                "a backbone that is trained from scratch takes one head, by --recipe linear or mlp."
            )

    def check_output(self, output: Path, *, overwrite: bool) -> None:
        """Refuse to begin anew where an interrupted training can be gone on with."""
        from tripletkit.training.checkpoint import check_no_checkpoint

        if self.are_used and not self.resume:
            check_no_checkpoint(output, overwrite=overwrite)

    def forget_checkpoint(self, output: Path) -> None:
        """Remove the checkpoint once the model is written."""
        from tripletkit.training.checkpoint import checkpoint_path

        if self.are_used:
            checkpoint_path(output).unlink(missing_ok=True)

    def choose_features(
        self,
        backbones: Sequence[str],
        weights: GivenWeights,
        views: Sequence[str] | None,
        seed: int,
    ) -> FeatureSource:
        """Return what features are of before training: from scratch, of random weights."""
        from tripletkit.features.backbones import get_backbone
        from tripletkit.features.sources import FeaturePart, FeatureSource
        from tripletkit.features.trained_weights import write_random_weights

        if self.are_used and given_features() is not None:
            raise click.UsageError("Training from pixels needs images, not --features.")
        if self.are_from_scratch:
            backbone = get_backbone(backbones[0]).resized(self.image_size)
            start = write_random_weights(backbone, seed, _temporary_folder() / "start.weights.h5")
            return FeatureSource((FeaturePart.of_file(start),))
        chosen = choose_features(backbones, weights, views, self.image_size)
        if not chosen.parts:
            return chosen
        if self.unfreeze is not None and any(part.stage for part in chosen.parts):
            raise click.UsageError("--unfreeze trains a whole backbone; it needs --depth last.")
        blocks, name = chosen.parts[0].backbone.blocks, chosen.parts[0].backbone.name
        if self.unfreeze is not None and self.unfreeze > len(blocks):
            raise click.UsageError(
                f"--unfreeze {self.unfreeze}: expected at most {len(blocks)}, as many blocks as "
                f"{name} has."
            )
        return chosen

    def augmentation(self) -> Augmentation:
        from tripletkit.data.augmentation import Augmentation

        return Augmentation(
            True if self.flip is None else self.flip,
            defaults.SHIFT if self.shift is None else self.shift,
        )

    def settings(self, settings: HeadSettings) -> HeadSettings:
        """Return the settings of the training from pixels, given the head's."""
        if self.are_from_scratch:
            return settings
        return replace(
            settings,
            epochs=self.fine_tune_epochs or defaults.FINE_TUNE_EPOCHS,
            learning_rate=self.fine_tune_rate or defaults.FINE_TUNE_LEARNING_RATE,
            batch_size=min(settings.batch_size, defaults.FINE_TUNE_BATCH_SIZE),
        )


@dataclass(frozen=True)
class FromPixels:
    """What came out of training from pixels.

    Attributes:
        features_of: the backbone with its trained weights.
        backbone_file: where these are until the command ends.
        collection: features by them.
        trained: the head, and the epochs of the network.
        frozen_head: how the head on the frozen backbone did on validation; None from scratch.
        record: for model.json.
    """

    features_of: FeatureSource
    backbone_file: Path
    collection: Collection
    trained: TrainedHead
    frozen_head: Score | None
    record: dict[str, Any]

    def set_beside(self, validation: Validation) -> Validation:
        """Return the scores with those of what training started from named and added."""
        return replace(
            validation,
            frozen_head=self.frozen_head,
            is_from_scratch=self.record["from_scratch"],
        )


def train_from_pixels(
    options: PixelOptions,
    data: TrainingSet,
    files: NamedFiles,
    features_of: FeatureSource,
    collection: Collection,
    settings: HeadSettings,
    head: TrainedHead | None,
    *,
    output: Path,
    cache: Path | None,
    skip_bad: bool,
    log_epochs: LogEpochs,
) -> FromPixels:
    """Train a backbone and its head together, and give the images their new features.

    Args:
        data: of usable images.
        files: of all names.
        features_of: the backbone with the weights that it starts from.
        collection: the features by these.
        settings: of the head.
        head: trained on these; None from scratch.
        output: the model folder to be; the checkpoint is beside it.
    """
    from tripletkit.features.sources import FeaturePart, FeatureSource
    from tripletkit.features.weights_files import file_sha256
    from tripletkit.features.weights_origin import WeightsFile
    from tripletkit.model.pixel_network import PixelNetwork
    from tripletkit.training.checkpoint import Checkpoints, checkpoint_path
    from tripletkit.training.pixel_training import PixelTraining

    (part,) = features_of.parts
    start = part.find_weights()
    of_pixels = options.settings(settings)
    checkpoints = Checkpoints(
        checkpoint_path(output),
        _facts(options, data, files, part, settings, of_pixels, cache),
    )
    n_epochs = checkpoints.open() if options.resume else 0
    frozen_head = _score_head(data, head, collection, settings.distance)
    network = (
        PixelNetwork.from_scratch(part.backbone, start, settings)
        if head is None
        else PixelNetwork.unfrozen(part.backbone, start, head.head, options.unfreeze)
    )
    n_distinct = len(_needed(data)[0])
    with _epoch_bars() as on_batch:
        training = PixelTraining(
            _open_images(data, files, part.backbone),
            network,
            data.train.rows,
            data.val.rows,
            of_pixels,
            data.labels,
            augmentation=options.augmentation(),
            n_shown=None if head is None else defaults.FINE_TUNE_VIEWS * n_distinct,
            on_batch=on_batch,
        )
        cost = training.measure_cost()
        say(_describe_cost(options, network, cost, of_pixels.epochs, n_distinct))
        if frozen_head is not None:
            say(f"With the frozen backbone: validation accuracy {frozen_head.accuracy:.4f}.")
        if options.resume:
            say(_describe_resume(checkpoints, n_epochs, of_pixels.epochs))
        trained = _run(
            training, data, of_pixels, checkpoints, log_epochs, is_fine_tuning=head is not None
        )
    path = _temporary_folder() / "trained.weights.h5"
    training.save_backbone(path)
    chosen = WeightsFile(part.backbone, path, file_sha256(path), part.reason)
    trained_source = FeatureSource((FeaturePart.of_file(chosen),))
    after = open_collection(files, trained_source, cache, skip_bad=skip_bad)
    learning, whole = network.n_weights()
    record = {
        "from_scratch": options.are_from_scratch,
        "start_weights_sha256": None if head is None else part.facts["weights_sha256"],
        "unfrozen_blocks": options.unfreeze,
        "n_trained_weights": learning,
        "n_backbone_weights": whole,
        "augmentation": asdict(options.augmentation()),
        "settings": asdict(of_pixels),
        "images_per_epoch": cost.n_shown,
        "head_epochs": head and len(head.history),
        "resumed_after_epoch": n_epochs or None,
    }
    return FromPixels(trained_source, path, after, trained, frozen_head, record)


def _run(
    training: PixelTraining,
    data: TrainingSet,
    settings: HeadSettings,
    checkpoints: Checkpoints,
    log_epochs: LogEpochs,
    *,
    is_fine_tuning: bool,
) -> TrainedHead:
    from tripletkit.training.epochs import keep_best_epoch

    try:
        with log_epochs(lambda record: say(describe_epoch(record, settings.epochs))) as on_epoch:
            return keep_best_epoch(
                training,
                data.val.rows,
                settings,
                chooses_epoch=chooses_epoch(len(data.val)),
                on_epoch=on_epoch,
                checkpoints=checkpoints,
            )
    except CollapseError as error:
        # Going on from there would end there again.
        checkpoints.remove()
        if not is_fine_tuning:
            raise
        raise CollapseError(f"{error} The learning rate of --unfreeze is --fine-tune-rate.") from (
            error
        )
    except KeyboardInterrupt:
        if checkpoints.path.exists():
            say(f"Stopped. {checkpoints.path} is kept: the same command with --resume goes on.")
        raise


def _score_head(
    data: TrainingSet, head: TrainedHead | None, collection: Collection, distance: str
) -> Score | None:
    """Return how the head on the frozen backbone does, before it is trained further."""
    if head is None or not len(data.val):
        return None
    from tripletkit.evaluation.validation import score_embeddings
    from tripletkit.model.embedding import embed

    return score_embeddings(embed(head.head, collection.features), data.val, distance)


def _needed(data: TrainingSet) -> tuple[Any, Any]:
    """Return the images of training, and those of training and validation."""
    import numpy as np

    return np.unique(data.train.rows), np.union1d(data.train.rows, data.val.rows)


def _open_images(data: TrainingSet, files: NamedFiles, backbone: Backbone) -> DecodedImages:
    from tripletkit.features.decoded_images import DecodedImages

    needed = set(_needed(data)[1].tolist())
    paths = [path if index in needed else None for index, path in enumerate(files.paths)]
    with progress_bar("decoding", "image") as progress:
        images = DecodedImages(paths, backbone, progress=progress)
    if images.problems:
        # The features of these were at hand a moment ago.
        raise ImageReadError(describe_problems(list(images.problems.values())))
    kept = f"kept in memory, {_bytes(images.kept_bytes)}" if images.kept_bytes else "streamed"
    say(f"Pixels: {len(needed):,} images, {kept}.")
    return images


def _facts(
    options: PixelOptions,
    data: TrainingSet,
    files: NamedFiles,
    part: FeaturePart,
    settings: HeadSettings,
    of_pixels: HeadSettings,
    cache: Path | None,
) -> dict[str, Any]:
    """Return all that decides the training, for a checkpoint."""
    from importlib.metadata import version

    from tripletkit.features.extract import hash_images
    from tripletkit.features.store import FeatureStore

    needed = _needed(data)[1]
    with FeatureStore(cache) as store:
        contents = hash_images([files.paths[index] for index in needed], store)
    names = "\0".join(data.names[index] for index in needed)
    labels = data.labels
    return {
        "images": _sha256(b"".join(content or b"" for content in contents), names.encode()),
        "training triplets": _sha256(data.train.rows.tobytes()),
        "validation triplets": _sha256(data.val.rows.tobytes()),
        "labels": labels
        and _sha256(labels.of_image[needed].tobytes(), "\0".join(labels.classes).encode()),
        **part.facts,
        "--unfreeze": options.unfreeze,
        **{f"augmentation {key}": value for key, value in asdict(options.augmentation()).items()},
        **asdict(settings),
        **{
            f"fine-tuning {key}": value
            for key, value in asdict(of_pixels).items()
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


def _describe_cost(
    options: PixelOptions,
    network: PixelNetwork,
    cost: PixelCost,
    n_epochs: int,
    n_distinct: int,
) -> str:
    learning, whole = network.n_weights()
    what = (
        f"Training {network.backbone.name} from scratch, {whole:,} weights and the head"
        if options.are_from_scratch
        else f"Training the last {options.unfreeze} of {len(network.backbone.blocks)} blocks of "
        f"{network.backbone.name} further, {learning:,} of {whole:,} weights, and the head"
    )
    return (
        f"{what}.\nAn epoch: {cost.n_steps:,} steps over {cost.n_shown:,} images "
        f"({n_distinct:,} distinct), then the embeddings of {cost.n_embedded:,}. By one measured "
        f"step about {_duration(cost.seconds)}, {n_epochs:,} epochs about "
        f"{_duration(cost.seconds * n_epochs)}; about {_bytes(cost.memory_bytes)} of memory for it."
    )


def _describe_resume(checkpoints: Checkpoints, n_epochs: int, n_all: int) -> str:
    if not n_epochs:
        return f"Nothing to resume, no {checkpoints.path}: starting at epoch 1."
    return f"Resuming after epoch {n_epochs} of {n_all}."


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _bytes(n_bytes: int) -> str:
    return f"{n_bytes / 1e6:.0f} MB" if n_bytes < 1e9 else f"{n_bytes / 1e9:.1f} GB"


def _temporary_folder() -> Path:
    """Return a folder that is gone when the command ends."""
    context = click.get_current_context()
    return Path(context.with_resource(tempfile.TemporaryDirectory(prefix="tripletkit-")))


@contextmanager
def _epoch_bars() -> Iterator[Progress]:
    """Give a callable that draws a bar for each epoch, gone at its end."""
    report: Progress | None = None
    with ExitStack() as bars:

        def on_batch(done: int, total: int) -> None:
            nonlocal report
            if report is None:
                report = bars.enter_context(progress_bar("epoch", "image"))
            report(done, total)
            if done == total:
                bars.close()
                report = None

        yield on_batch

"""Fine-tuning: the last blocks of a model's backbone go on learning together with its head."""

from __future__ import annotations

import logging
import tempfile
import time
import warnings
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tripletkit import defaults
from tripletkit.data.images import Images
from tripletkit.errors import FewTripletsWarning, SettingsError
from tripletkit.evaluation.validation import score_embeddings
from tripletkit.features.encoder import Collection, Encoder, open_collection
from tripletkit.features.feature_parts import GivenWeights
from tripletkit.features.keras_start import start_keras
from tripletkit.features.stores import open_store
from tripletkit.model.embedding import embed
from tripletkit.model.model_folder import ModelFolder, check_model_output
from tripletkit.model.settings import HeadSettings, check_values
from tripletkit.progress import Stages, no_stages
from tripletkit.training.cautions import warn_of_weak_score
from tripletkit.training.checkpoint import check_no_checkpoint, checkpoint_path
from tripletkit.training.inputs import read_inputs
from tripletkit.training.reread import find_sources
from tripletkit.training.result import TrainingResult, make_record
from tripletkit.training.run import learn_shift, log_epochs, score

logger = logging.getLogger("tripletkit")

# The settings of a head that fine-tuning has its own values of.
SETTINGS = ("epochs", "learning_rate", "batch_size", "patience", "flip", "shift", "seed")


@dataclass(frozen=True)
class FineTuning:
    """A fine-tuning as it is asked for.

    Attributes:
        blocks: how many of the backbone's last blocks learn, from 1.
        settings: those that are not to have their defaults; names of `SETTINGS`.
        images: where the images are now; None for where they were in training.
        weights: where the backbone's weights are now.
        cache: folder of the feature store; None for the user's.
    """

    blocks: int = 1
    settings: Mapping[str, Any] = field(default_factory=dict)
    images: Path | None = None
    weights: GivenWeights = field(default_factory=dict)
    cache: Path | None = None

    def make_settings(self, of_head: HeadSettings) -> HeadSettings:
        """Return the settings of this part of a training, given the head's."""
        given = check_values(self.settings)
        for name in given:
            if name not in SETTINGS:
                raise SettingsError(
                    name, f"`{name}`: fine-tuning takes {', '.join(SETTINGS)} and no others."
                )
        own = {
            "epochs": defaults.FINE_TUNE_EPOCHS,
            "learning_rate": defaults.FINE_TUNE_LEARNING_RATE,
            "batch_size": min(of_head.batch_size, defaults.FINE_TUNE_BATCH_SIZE),
        }
        return replace(of_head, **own | given)


def fine_tune(
    model: ModelFolder,
    job: FineTuning,
    output: Path | None = None,
    *,
    overwrite: bool = False,
    resume: bool = False,
    tensorboard: Path | None = None,
    command: str = "",
    stages: Stages = no_stages,
) -> TrainingResult:
    """Train the last blocks of a model's backbone further, on what it was trained on.

    Args:
        model: with a head on one frozen backbone that sees the whole image.
        job: how many blocks, and how.
        output: the model folder to write; None to keep the model in memory.
        overwrite, resume, tensorboard, command, stages: see `run.train`.
    Raises:
        SettingsError: if the model cannot be fine-tuned, or not so.
        TripletkitError: if something is wrong with data, images or weights.
    """
    started_s = time.perf_counter()
    record = model.record
    source = model.open_encoder(job.weights)
    settings = job.make_settings(record.settings)
    _check(model, source, job.blocks)
    if output is not None:
        check_model_output(output, overwrite=overwrite)
        if not resume:
            check_no_checkpoint(output, overwrite=overwrite)
    sources = find_sources(record, model.path, job.images)
    with ExitStack() as resources:
        store = resources.enter_context(open_store(job.cache))
        scratch = tempfile.TemporaryDirectory(prefix="tripletkit-")
        inputs = read_inputs(
            sources,
            record.settings.seed,
            store,
            skip_bad=record.inputs.skip_bad,
            follow_outside=record.inputs.follow_outside,
        )

        def load(files: Images, of: Encoder) -> Collection:
            return open_collection(files, of, store, progress=stages("features"))

        # All that can be wrong with files was found by now; this takes seconds.
        start_keras()
        from tripletkit.training.pixels import PixelPlan, train_from_pixels

        features_started_s = time.perf_counter()
        before = load(inputs.files, source)
        features_s = time.perf_counter() - features_started_s
        data = inputs.data.keep_usable(before.is_usable())
        from tripletkit.features.keras_backend import seed_layers

        # Dropout draws its own seed when the head is built.
        seed_layers(record.settings.seed)
        head = model.load_head()
        frozen_head = None
        if len(data.val):
            frozen_head = score_embeddings(
                embed(head, before.features), data.val, settings.distance
            )
            logger.info("With the frozen backbone: validation accuracy %.4f.", frozen_head.accuracy)
        elif record.pooled is not None:
            warnings.warn(
                f"{model.path}: this model was trained on all its triplets, so none is left to "
                "score fine-tuning by or to choose its epoch: the last one is kept. To see what "
                "fine-tuning gains, train with `refit=False` first.",
                FewTripletsWarning,
                stacklevel=2,
            )
        training_started_s = time.perf_counter()
        with log_epochs(tensorboard) as on_epoch:
            pixels = train_from_pixels(
                PixelPlan(job.blocks, settings, output, resume=resume),
                data,
                inputs.files,
                source,
                record.settings,
                store=store,
                folder=Path(scratch.name),
                load=load,
                on_epoch=on_epoch,
                stages=stages,
                head=head,
                head_epochs=len(model.read_history()),
            )
        training_s = time.perf_counter() - training_started_s
        validation, label_scores = score(
            data, before, pixels.collection, pixels.trained, settings, is_from_scratch=False
        )
        if validation is not None:
            validation = replace(validation, frozen_head=frozen_head)
        result = TrainingResult(
            pixels.trained,
            pixels.source,
            data,
            make_record(
                command=command,
                images=sources.images,
                inputs=inputs.record,
                data=data,
                collection=pixels.collection,
                source=pixels.source,
                settings=record.settings,
                trained=pixels.trained,
                times={
                    "features_s": features_s,
                    "training_s": training_s,
                    "total_s": time.perf_counter() - started_s,
                },
                validation=validation,
                label_scores=label_scores,
                pixels=pixels.record,
            ),
            validation,
            None,
            label_scores,
            pixels.backbone_file,
            scratch,
            shift=learn_shift(data, pixels.collection),
        )
        if output is not None:
            result = result.saved(output, overwrite=overwrite)
            checkpoint_path(output).unlink(missing_ok=True)
    if validation is not None:
        warn_of_weak_score(validation)
    return result


def _check(model: ModelFolder, source: Encoder, blocks: int) -> None:
    record = model.record
    if not source.is_plain:
        raise SettingsError(
            "model",
            f"{model.path}: expected a model of one backbone that sees the whole image; several "
            "backbones or views cannot be fine-tuned.",
        )
    if record.pixels is not None and record.pixels.from_scratch:
        raise SettingsError(
            "model", f"{model.path}: its backbone was trained from scratch, as a whole."
        )
    if record.inputs.votes is not None:
        raise SettingsError(
            "model",
            f"{model.path}: votes weigh what heads on a frozen backbone learn; fine-tuning does "
            "not know them.",
        )
    backbone = source.parts[0].backbone
    if not 1 <= blocks <= len(backbone.blocks):
        raise SettingsError(
            "blocks",
            f"`blocks={blocks}`: expected at most {len(backbone.blocks)}, as many blocks as "
            f"{backbone.name} has.",
        )

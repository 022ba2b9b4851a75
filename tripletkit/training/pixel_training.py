"""Training of a whole network from pixels: a backbone from scratch, or its last blocks."""

from __future__ import annotations

import hashlib
import logging
import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np

from tripletkit import defaults
from tripletkit.data.decoding import read_pixels
from tripletkit.data.labels import NO_LABEL, ImageLabels
from tripletkit.errors import (
    CollapseError,
    FewTripletsWarning,
    SettingsError,
    caution,
)
from tripletkit.evaluation.scoring import Score
from tripletkit.features.backbones import Backbone, get_backbone
from tripletkit.features.encoder import Encoder
from tripletkit.features.extract import read_ahead
from tripletkit.features.feature_parts import FeaturePart
from tripletkit.features.keras_backbones import (
    add_preprocessing,
    build_backbone,
    save_trained_weights,
    write_random_weights,
)
from tripletkit.features.keras_backend import building_layers, keras, tf
from tripletkit.model.head_layers import embed
from tripletkit.model.heads import build_body
from tripletkit.model.model_folder import ModelFolder, checkpoint_path
from tripletkit.model.record import PixelsRecord
from tripletkit.model.settings import Settings
from tripletkit.progress import Progress, Stages, no_progress, no_stages
from tripletkit.training.batch_learner import (
    Batch,
    Batches,
    BatchLearner,
    Objective,
    copy_values,
)
from tripletkit.training.trainer import (
    Checkpoints,
    Chosen,
    EpochTraining,
    Examples,
    Fitted,
    FromPixels,
    HeldOutAnswers,
    OnEpoch,
    Trainer,
    Workplace,
    check_collapse,
    ignore_epoch,
    keep_best_epoch,
)

logger = logging.getLogger("tripletkit")

# Pixels in a batch whose embeddings are computed: as many as in a batch of features.
_EMBED_PIXELS = defaults.EXTRACT_BATCH_SIZE * 224 * 224
# Decoded images stay in memory up to this: 50,000 of 32 pixels take 150 MB.
_KEEP_PIXELS_BYTES = 1 << 30


class _DecodedImages:
    """Image files as square RGB arrays of the backbone's size; None for one that is not needed.
    They are decoded once if all of them fit into `keep_bytes`, else whenever they are asked for."""

    def __init__(
        self,
        paths: Sequence[Path | None],
        backbone: Backbone,
        keep_bytes: int = _KEEP_PIXELS_BYTES,
        progress: Progress = no_progress,
    ) -> None:
        self._paths = paths
        self._side = backbone.input_size_px
        self._resample = backbone.preprocessing.resample
        self._kept: np.ndarray | None = None
        needed = [index for index, path in enumerate(paths) if path is not None]
        self._places = np.full(len(paths), -1)
        self._places[needed] = np.arange(len(needed))
        shape = (len(needed), self._side, self._side, 3)
        if np.prod(shape) <= keep_bytes:
            self._kept = np.empty(shape, np.uint8)
            decoded = read_ahead(self._decode, needed, defaults.DECODE_AHEAD)
            for n_done, pixels in enumerate(decoded, 1):
                self._kept[n_done - 1] = pixels
                progress(n_done, len(needed))

    def __len__(self) -> int:
        return len(self._paths)

    @property
    def kept_bytes(self) -> int:
        """How much memory the pixels take; 0 where they are not kept."""
        return 0 if self._kept is None else self._kept.nbytes

    def read(self, images: np.ndarray) -> np.ndarray:
        """Return images by their indices: `(n, side, side, 3)` uint8, RGB."""
        if self._kept is not None:
            return self._kept[self._places[images]]
        return np.stack([self._decode(index) for index in images])

    def batches(self, images: np.ndarray, size: int) -> Iterator[np.ndarray]:
        """Yield images in their order, `size` at a time, decoded ahead."""
        parts = [images[start : start + size] for start in range(0, len(images), size)]
        return read_ahead(self.read, parts, defaults.BATCHES_AHEAD)

    def _decode(self, index: int) -> np.ndarray:
        path = self._paths[index]
        assert path is not None, "an image that is asked for is needed"
        return read_pixels(path, self._side, self._resample)


def _augment(
    pixels: np.ndarray, rng: np.random.Generator, *, flip: bool, shift: float
) -> np.ndarray:
    """Return images as training sees them this time: half are flipped, each moves by up to a share
    of its side, and what comes in repeats its edge. One switched off leaves the other as it was."""
    n_images, side = pixels.shape[:2]
    is_flipped = rng.random((n_images, 1)) < 0.5
    furthest = round(shift * side)
    shifts = np.floor(rng.random((n_images, 2)) * (2 * furthest + 1)).astype(int) - furthest
    across = np.arange(side)
    rows = np.clip(across + shifts[:, :1], 0, side - 1)
    columns = np.clip(across + shifts[:, 1:], 0, side - 1)
    if flip:
        columns = np.where(is_flipped, columns[:, ::-1], columns)
    seen = np.empty_like(pixels)
    for image, row, column, out in zip(pixels, rows, columns, seen, strict=True):
        # Rows, then columns: each copies whole stretches of memory.
        np.take(image[row], column, axis=1, out=out, mode="clip")
    return seen


# What separates the draws of augmentation from those of batches in one epoch.
_AUGMENTATION = 1


@dataclass(frozen=True)
class _PixelNetwork:
    """A backbone's model with a head behind it, and the encoder that is made of the two:
    `(batch, side, side, 3)` float32 RGB 0 to 255 -> `(batch, dim)`."""

    backbone: Backbone
    backbone_model: keras.Model
    head: keras.Model
    encoder: keras.Model

    @classmethod
    def join(
        cls, backbone: Backbone, backbone_model: keras.Model, head: keras.Model
    ) -> _PixelNetwork:
        side = backbone.input_size_px
        pixels = keras.Input((side, side, 3), name="pixels")
        features = backbone_model(add_preprocessing(pixels, backbone.preprocessing))
        return cls(backbone, backbone_model, head, keras.Model(pixels, head(features)))

    @classmethod
    def from_scratch(cls, backbone: Backbone, start: Path, settings: Settings) -> _PixelNetwork:
        """Return a network that learns as a whole, from the random weights of a file."""
        with building_layers(settings.seed):
            head = build_body(backbone.n_features, settings)
            return cls.join(backbone, build_backbone(backbone, start), head)

    @classmethod
    def unfrozen(
        cls, backbone: Backbone, start: Path, head: keras.Model, n_blocks: int
    ) -> _PixelNetwork:
        """Return a network whose last blocks and trained head go on learning."""
        model = build_backbone(backbone, start)
        _unfreeze_blocks(backbone, model, n_blocks)
        return cls.join(backbone, model, head)

    @property
    def changing(self) -> list[keras.Variable]:
        """All that training changes: weights, statistics, and the state of chance in Dropout."""
        found = {
            id(variable): variable
            for layer in _leaves(self.encoder)
            if layer.trainable
            for variable in layer.variables
        }
        return list(found.values())

    def n_weights(self) -> tuple[int, int]:
        """Return how many of the backbone's weights learn, and how many there are."""
        learning = sum(int(np.prod(v.shape)) for v in self.backbone_model.trainable_variables)
        return learning, self.backbone_model.count_params()


def _unfreeze_blocks(backbone: Backbone, model: keras.Model, n_blocks: int) -> None:
    """Let the last blocks of a backbone learn, and nothing else of it, nor any batch norm:
    statistics of small batches of few images would undo what the network knows."""
    patterns = [re.compile(block) for block in backbone.blocks[-n_blocks:]]
    for layer in model.layers:
        layer.trainable = not isinstance(layer, _STATISTICS) and any(
            pattern.match(layer.name) for pattern in patterns
        )


_STATISTICS = (keras.layers.BatchNormalization, keras.layers.Normalization)


def _leaves(model: keras.Model) -> Iterator[keras.Layer]:
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            yield from _leaves(layer)
        else:
            yield layer


class _PixelTraining(EpochTraining):
    """A network on its way: epochs, and its embeddings and weights between them.

    Everything drawn by chance follows from the seed and the number of the epoch, so that going on
    from `state` is going on as if nothing had happened. An epoch ends after `n_shown` images;
    `on_epoch` is called with the number of each, and what it returns is told (done, total) images.
    """

    def __init__(
        self,
        images: _DecodedImages,
        network: _PixelNetwork,
        examples: Examples,
        settings: Settings,
        *,
        n_shown: int | None = None,
        on_epoch: Callable[[int], Progress] | None = None,
    ) -> None:
        tf.config.experimental.enable_op_determinism()
        self.network = network
        self._decoded = images
        self._settings = settings
        self._n_shown = n_shown
        self._on_epoch = on_epoch
        self._images = np.unique(examples.rows)
        self._needed = np.union1d(examples.rows, examples.val_rows)
        nowhere = ImageLabels([], np.full(len(images), NO_LABEL, dtype=np.int32))
        self._labels = examples.labels or nowhere
        self._batches = Batches(examples.rows, self._labels.of_image, settings)
        self._epoch = 0
        encoder = network.encoder
        side = network.backbone.input_size_px
        self._learner = BatchLearner(
            lambda pixels: encoder(tf.cast(pixels, tf.float32), training=True),
            tf.TensorSpec((None, side, side, 3), tf.uint8),
            encoder.trainable_variables,
            Objective(settings, len(self._labels.classes), encoder.output_shape[-1]),
            settings.learning_rate,
        )
        self._embed_size = max(1, _EMBED_PIXELS // side**2)

        of_images = tf.TensorSpec((self._embed_size, side, side, 3), tf.uint8)

        @tf.function(input_signature=[of_images], autograph=False)
        def infer(pixels: tf.Tensor) -> tf.Tensor:
            return encoder(tf.cast(pixels, tf.float32), training=False)

        self._infer = infer

    @property
    def centers(self) -> np.ndarray | None:
        return self._learner.centers

    def run_epoch(self) -> tuple[float, float]:
        self._batches.find_positives(self._epoch, self.embed, self._settings.distance)
        batches = self._plan_epoch()
        done_after = list(accumulate(len(batch.images) for batch in batches))
        numbered = list(enumerate(batches))
        tell = no_progress if self._on_epoch is None else self._on_epoch(self._epoch + 1)

        def with_pixels() -> Iterator[tuple[np.ndarray, Batch]]:
            for number, pixels in enumerate(
                read_ahead(self._see, numbered, defaults.BATCHES_AHEAD)
            ):
                yield pixels, batches[number]
                tell(done_after[number], done_after[-1])

        found = self._learner.learn(with_pixels())
        self._epoch += 1
        return found

    def embed(self, _strength: float = 1.0) -> np.ndarray:
        """Return the embeddings of all images; NaN where no triplet has the image."""
        dim = self.network.encoder.output_shape[-1]
        embeddings = np.full((len(self._decoded), dim), np.nan, dtype=np.float32)
        size = self._embed_size
        for number, pixels in enumerate(self._decoded.batches(self._needed, size)):
            part = self._needed[number * size : (number + 1) * size]
            embeddings[part] = self._infer_padded(pixels)
        return embeddings

    def check(self, embeddings: np.ndarray, loss: float) -> tuple[float, float]:
        n_classes = len(self._labels.classes) or None
        return check_collapse(embeddings[self._images], loss, self._settings, n_classes)

    def weights(self) -> list[np.ndarray]:
        return [variable.numpy() for variable in self.network.changing]

    def finish(self, weights: list[np.ndarray]) -> keras.Model:
        copy_values(weights, self.network.changing)
        return self.network.head

    def save_backbone(self, path: Path) -> None:
        """Write the backbone's weights as they are, to a file ending in `.weights.h5`."""
        network = self.network
        save_trained_weights(network.backbone_model, network.backbone.name, path)

    def state(self) -> dict[str, list[np.ndarray]]:
        injected = self._batches.positives
        return {
            "network": self.weights(),
            "learner": [variable.numpy() for variable in self._learner.variables],
            "positives": [] if injected is None else [injected],
        }

    def restore(self, state: dict[str, list[np.ndarray]], n_epochs: int) -> None:
        copy_values(state["network"], self.network.changing)
        copy_values(state["learner"], self._learner.variables)
        if positives := state.get("positives"):
            self._batches.positives = positives[0]
        self._epoch = n_epochs

    def measure_cost(self) -> tuple[int, int, float]:
        """Return an epoch's steps, the images that they see, and its seconds by trying one step;
        the training stays where it is."""
        batches = self._plan_epoch()
        n_shown = sum(len(batch.images) for batch in batches)
        before = self.state()
        batch = max(batches[:10], key=lambda batch: len(batch.images))
        pixels = self._see((0, batch))
        step_s = _time_second(lambda: self._learner.learn([(pixels, batch)]))
        self.restore(before, self._epoch)
        size = min(self._embed_size, len(self._needed))
        few = self._decoded.read(self._needed[:size])
        embed_s = _time_second(lambda: self._infer_padded(few))
        n_embeds = -(-len(self._needed) // self._embed_size)
        seconds_s = step_s * n_shown / len(batch.images) + embed_s * n_embeds
        return len(batches), n_shown, seconds_s

    def _plan_epoch(self) -> list[Batch]:
        """Return the batches of the epoch to come, in their order."""
        batches, shown = [], 0
        for batch in self._batches.epoch(self._epoch):
            batches.append(batch)
            shown += len(batch.images)
            if self._n_shown is not None and shown >= self._n_shown:
                break
        return batches

    def _see(self, numbered: tuple[int, Batch]) -> np.ndarray:
        """Return the images of a batch as they are seen this time."""
        number, batch = numbered
        rng = np.random.default_rng([self._settings.seed, self._epoch, number, _AUGMENTATION])
        pixels = self._decoded.read(batch.images)
        return _augment(pixels, rng, flip=self._settings.flip, shift=self._settings.shift)

    def _infer_padded(self, pixels: np.ndarray) -> np.ndarray:
        """Return embeddings of up to a batch of images, filled up so that there is one shape."""
        filled = np.zeros((self._embed_size, *pixels.shape[1:]), np.uint8)
        filled[: len(pixels)] = pixels
        return self._infer(filled).numpy()[: len(pixels)]


def _time_second(call: Callable[[], object]) -> float:
    """Return the seconds that a call takes once what it needs is compiled."""
    call()
    started_s = time.perf_counter()
    call()
    return time.perf_counter() - started_s


class PixelTrainer(Trainer):
    """Trains a backbone from random weights, with its head. The pixel settings are those of this
    part of the training, where the head had others."""

    # How many of the last blocks learn; None for all.
    n_blocks: int | None = None
    # How often an epoch shows each image on average; None for what the settings make of it.
    n_views: int | None = None

    def __init__(
        self,
        examples: Examples,
        settings: Settings,
        place: Workplace,
        pixel_settings: Settings | None = None,
    ) -> None:
        super().__init__(examples, settings)
        self.place = place
        self._needed = np.union1d(examples.rows, examples.val_rows)
        self.pixel_settings = pixel_settings or settings

    @staticmethod
    def open_encoder(name: str, size_px: int | None, seed: int, folder: Path) -> Encoder:
        """Return a backbone with random weights, their file in a folder."""
        backbone = get_backbone(name).resized(size_px)
        start = folder / "start.weights.h5"
        write_random_weights(backbone, seed, start)
        return Encoder((FeaturePart.of_file(backbone, start),))

    def answer(self, _learned: np.ndarray, _asked: np.ndarray, _further: int = 0) -> np.ndarray:
        raise SettingsError("backbone", "a network cannot be trained again and again.")

    def choose(self, _held_out: HeldOutAnswers | None) -> Chosen:
        return Chosen(self)

    def fit(self, on_epoch: OnEpoch = ignore_epoch, stages: Stages = no_stages) -> Fitted:
        (part,) = self.place.encoder.parts
        network = _PixelNetwork.from_scratch(part.backbone, part.find_weights(), self.settings)
        return self._fit(network, None, on_epoch, stages)

    def _fit(
        self, network: _PixelNetwork, head_epochs: int | None, on_epoch: OnEpoch, stages: Stages
    ) -> Fitted:
        """Train a network, and give the images their new features. `head_epochs` are those of the
        head alone before; None from scratch."""
        place, (part,) = self.place, self.place.encoder.parts
        checkpoints, n_done = None, 0
        if place.output is not None:
            checkpoints = Checkpoints(checkpoint_path(place.output), self._facts(part))
            n_done = checkpoints.open() if place.resume else 0
        n_distinct = len(np.unique(self.examples.rows))
        training = _PixelTraining(
            self._open_images(part, stages),
            network,
            self.examples,
            self.pixel_settings,
            n_shown=None if self.n_views is None else self.n_views * n_distinct,
            on_epoch=lambda epoch: stages(f"epoch {epoch}"),
        )
        n_steps, n_shown, seconds_s = training.measure_cost()
        n_epochs = self.pixel_settings.epochs
        logger.info(
            "%s.\nAn epoch: %s steps over %s images (%s distinct), then the embeddings of %s. By "
            "one measured step about %s, %s epoch%s about %s.",
            self._describe(network),
            f"{n_steps:,}",
            f"{n_shown:,}",
            f"{n_distinct:,}",
            f"{len(self._needed):,}",
            _duration(seconds_s),
            f"{n_epochs:,}",
            "s" * (n_epochs > 1),
            _duration(seconds_s * n_epochs),
        )
        if place.resume:
            logger.info("%s", self._describe_resume(n_done))
        trained = self._run(training, checkpoints, on_epoch)
        assert place.folder is not None, "a network is trained for a model"
        path = place.folder / "trained.weights.h5"
        training.save_backbone(path)
        encoder = Encoder((FeaturePart.of_file(part.backbone, path, reason=part.reason),))
        learning, whole = network.n_weights()
        is_from_scratch = head_epochs is None
        record = PixelsRecord(
            from_scratch=is_from_scratch,
            start_weights_sha256=None if is_from_scratch else str(part.facts["weights_sha256"]),
            unfrozen_blocks=self.n_blocks,
            n_trained_weights=learning,
            n_backbone_weights=whole,
            settings=self.pixel_settings,
            images_per_epoch=n_shown,
            head_epochs=head_epochs,
            resumed_after_epoch=n_done or None,
        )
        collection = encoder.load(place.files, place.store, progress=stages("features"))
        pixels = FromPixels(encoder, path, collection, record)
        return replace(trained, settings=self.settings, pixels=pixels)

    def _run(
        self, training: _PixelTraining, checkpoints: Checkpoints | None, on_epoch: OnEpoch
    ) -> Fitted:
        val_rows, settings = self.examples.val_rows, self.pixel_settings
        try:
            return keep_best_epoch(
                training,
                val_rows,
                settings,
                chooses_epoch=len(val_rows) >= defaults.MIN_VAL_TRIPLETS,
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

    def _open_images(self, part: FeaturePart, stages: Stages) -> _DecodedImages:
        needed = set(self._needed.tolist())
        files = self.place.files
        paths = [path if index in needed else None for index, path in enumerate(files.paths)]
        images = _DecodedImages(paths, part.backbone, progress=stages("decoding"))
        kept = f"kept in memory, {_bytes(images.kept_bytes)}" if images.kept_bytes else "streamed"
        logger.info("Pixels: %s images, %s.", f"{len(needed):,}", kept)
        return images

    def _facts(self, part: FeaturePart) -> dict[str, Any]:
        """Return all that decides the training, for a checkpoint."""
        data, files, needed = self.place.data, self.place.files, self._needed
        hashes = files.contents(self.place.store).hashes
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

    def _describe(self, network: _PixelNetwork) -> str:
        name, blocks = network.backbone.name, network.backbone.blocks
        learning, whole = network.n_weights()
        if self.n_blocks is None:
            return f"Training {name} from scratch, {whole:,} weights and the head"
        return (
            f"Training the last {self.n_blocks} of {len(blocks)} blocks of {name} further, "
            f"{learning:,} of {whole:,} weights, and the head"
        )

    def _describe_resume(self, n_done: int) -> str:
        if not n_done:
            output = self.place.output
            where = f", no {checkpoint_path(output)}" if output else ""
            return f"Nothing to resume{where}: starting at epoch 1."
        return f"Resuming after epoch {n_done} of {self.pixel_settings.epochs}."


class FineTuneTrainer(PixelTrainer):
    """Trains the last blocks of a model's backbone further, together with its head."""

    n_views = defaults.FINE_TUNE_VIEWS

    def __init__(
        self,
        examples: Examples,
        settings: Settings,
        place: Workplace,
        model: ModelFolder,
        n_blocks: int,
    ) -> None:
        super().__init__(examples, model.record.settings, place, settings)
        self.model, self.n_blocks = model, n_blocks

    def fit(self, on_epoch: OnEpoch = ignore_epoch, stages: Stages = no_stages) -> Fitted:
        # Dropout draws its own seed when the head is built.
        with building_layers(self.settings.seed):
            head = self.model.load_head()
        before = self._score(head)
        (part,) = self.place.encoder.parts
        assert self.n_blocks is not None
        network = _PixelNetwork.unfrozen(part.backbone, part.find_weights(), head, self.n_blocks)
        fitted = self._fit(network, len(self.model.read_history()), on_epoch, stages)
        return replace(fitted, frozen_head=before)

    def _score(self, head: keras.Model) -> Score | None:
        """Return the score of the head on the backbone as it is; None without validation."""
        val = self.place.data.val
        if len(val):
            embeddings = embed(head, self.examples.features)
            score = Score.of_embeddings(embeddings, val, self.settings.distance)
            logger.info("With the frozen backbone: validation accuracy %.4f.", score.accuracy)
            return score
        if self.model.record.pooled is not None:
            caution(
                f"{self.model.path}: this model was trained on all its triplets, so none is left "
                "to score fine-tuning by or to choose its epoch: the last one is kept. To see "
                "what fine-tuning gains, train with `refit=False` first.",
                FewTripletsWarning,
            )
        return None


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

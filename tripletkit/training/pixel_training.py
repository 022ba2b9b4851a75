"""Training of a whole network from pixels: a backbone from scratch, or its last blocks."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

import numpy as np

from tripletkit import defaults
from tripletkit.data.labels import NO_LABEL, ImageLabels
from tripletkit.features.decoded_images import DecodedImages, read_ahead
from tripletkit.features.keras_backend import keras, tf
from tripletkit.features.trained_weights import save_trained_weights
from tripletkit.model.pixel_network import PixelNetwork
from tripletkit.model.recipes import get_recipe
from tripletkit.model.settings import HeadSettings
from tripletkit.progress import Progress, no_progress
from tripletkit.search.offline_mining import hardest_positives
from tripletkit.training.batch_learner import Batch, BatchLearner
from tripletkit.training.collapse import check_collapse
from tripletkit.training.epochs import EpochTraining
from tripletkit.training.head_training import make_batches
from tripletkit.training.objectives import Objective

# Pixels in a batch whose embeddings are computed: as many as in a batch of features.
_EMBED_PIXELS = defaults.EXTRACT_BATCH_SIZE * 224 * 224


@dataclass(frozen=True)
class Augmentation:
    """What may happen to an image in training.

    Attributes:
        flip: left and right are swapped in half of the images.
        shift: an image moves by up to this share of its side, in either direction; what comes
            in repeats its edge.
    """

    flip: bool = True
    shift: float = defaults.SHIFT

    def apply(self, pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Return images as they are seen this time.

        Args:
            pixels: `(n_images, side, side, 3)`, of any dtype; not changed.
            rng: drawn from the same number of times whatever is asked for, so that switching one
                thing off leaves the other as it was.
        """
        n_images, side = pixels.shape[:2]
        is_flipped = rng.random(n_images) < 0.5
        furthest = round(self.shift * side)
        shifts = np.floor(rng.random((n_images, 2)) * (2 * furthest + 1)).astype(int) - furthest
        across = np.arange(side)
        rows = np.clip(across + shifts[:, :1], 0, side - 1)
        columns = np.clip(across + shifts[:, 1:], 0, side - 1)
        if self.flip:
            columns = np.where(is_flipped[:, None], columns[:, ::-1], columns)
        seen = np.empty_like(pixels)
        for image, row, column, out in zip(pixels, rows, columns, seen, strict=True):
            # Rows, then columns: each copies whole stretches of memory.
            np.take(image[row], column, axis=1, out=out, mode="clip")
        return seen


# What separates the draws of augmentation from those of batches in one epoch.
_AUGMENTATION = 1


@dataclass(frozen=True)
class PixelCost:
    """What an epoch of training from pixels takes.

    Attributes:
        n_steps: of Adam.
        n_shown: images that go through the network in steps, forward and back.
        n_embedded: images whose embeddings are computed afterwards, forward only.
        seconds: expected, from one measured step and one measured batch of embeddings.
        memory_bytes: of pixels, weights with Adam's state, and one step, by arithmetic.
    """

    n_steps: int
    n_shown: int
    n_embedded: int
    seconds: float
    memory_bytes: int


class PixelTraining(EpochTraining):
    """A network on its way: epochs, and its embeddings and weights between them.

    Everything drawn by chance follows from the seed and the number of the epoch, so that going
    on from `state` is going on as if nothing had happened.

    Args:
        images: of all names; those in the triplets must be usable.
        network: its layers that are trainable learn.
        train_rows: `(n_triplets, 3)` indices of images: anchor, positive, negative.
        val_rows: the same for validation; only for its images.
        settings: see `HeadSettings`; the recipe says whether distances are squared.
        labels: the classes of all images, for losses and mining that need them.
        augmentation: what happens to images in training; none happens where embeddings are
            computed.
        n_shown: images after which an epoch ends. Defaults to what the settings make of it.
        on_epoch: called with the number of each epoch; what it returns is told (done, total)
            images.
    """

    def __init__(
        self,
        images: DecodedImages,
        network: PixelNetwork,
        train_rows: np.ndarray,
        val_rows: np.ndarray,
        settings: HeadSettings,
        labels: ImageLabels | None = None,
        *,
        augmentation: Augmentation,
        n_shown: int | None = None,
        on_epoch: Callable[[int], Progress] | None = None,
    ) -> None:
        tf.config.experimental.enable_op_determinism()
        self.network = network
        self._decoded = images
        self._settings = settings
        self._augmentation = augmentation
        self._n_shown = n_shown
        self._on_epoch = on_epoch
        self._images = np.unique(train_rows)
        self._needed = np.union1d(train_rows, val_rows)
        n_images = len(images.is_usable())
        self._labels = labels or ImageLabels([], np.full(n_images, NO_LABEL, dtype=np.int32))
        self._batches = make_batches(train_rows, self._labels.of_image, settings)
        self._epoch = 0
        encoder = network.encoder
        side = network.backbone.input_size_px
        self._learner = BatchLearner(
            lambda pixels: encoder(tf.cast(pixels, tf.float32), training=True),
            tf.TensorSpec((None, side, side, 3), tf.uint8),
            encoder.trainable_variables,
            Objective(
                settings,
                len(self._labels.classes),
                encoder.output_shape[-1],
                squared=get_recipe(settings.recipe).squared,
            ),
            settings.learning_rate,
        )
        self._embed_size = max(1, _EMBED_PIXELS // side**2)

        @tf.function(input_signature=[tf.TensorSpec((self._embed_size, side, side, 3), tf.uint8)])
        def infer(pixels: tf.Tensor) -> tf.Tensor:
            return encoder(tf.cast(pixels, tf.float32), training=False)

        self._infer = infer

    @property
    def centers(self) -> np.ndarray | None:
        """See `BatchLearner.centers`."""
        return self._learner.centers

    def run_epoch(self) -> tuple[float, float]:
        """Go once over the batches; return mean loss and share of violations."""
        if self._settings.inject_positives and self._epoch % self._settings.refresh == 0:
            self._inject_hardest_positives()
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
        embeddings = np.full(
            (len(self._decoded.is_usable()), self.network.encoder.output_shape[-1]),
            np.nan,
            dtype=np.float32,
        )
        size = self._embed_size
        for number, pixels in enumerate(self._decoded.batches(self._needed, size)):
            part = self._needed[number * size : (number + 1) * size]
            embeddings[part] = self._infer_padded(pixels)
        return embeddings

    def check(self, embeddings: np.ndarray, loss: float) -> tuple[float, float]:
        n_classes = len(self._labels.classes) or None
        return check_collapse(embeddings[self._images], loss, self._settings, n_classes)

    def weights(self) -> list[np.ndarray]:
        """Return what training changes of the network."""
        return [variable.numpy() for variable in self.network.changing]

    def finish(self, weights: list[np.ndarray]) -> keras.Model:
        """Put these weights into the network and return its head, for features as they are."""
        _assign(self.network.changing, weights)
        return self.network.head

    def save_backbone(self, path: Path) -> None:
        """Write the backbone's weights as they are, to a file ending in `.weights.h5`."""
        network = self.network
        save_trained_weights(network.backbone_model, network.backbone.name, path)

    def state(self) -> dict[str, list[np.ndarray]]:
        """Return what the next epoch depends on, beside the arguments and its number."""
        injected = self._batches.positives
        return {
            "network": self.weights(),
            "learner": [variable.numpy() for variable in self._learner.variables],
            "positives": [] if injected is None else [injected],
        }

    def restore(self, state: dict[str, list[np.ndarray]], n_epochs: int) -> None:
        """Go on from a state after so many epochs."""
        _assign(self.network.changing, state["network"])
        _assign(self._learner.variables, state["learner"])
        if positives := state.get("positives"):
            self._batches.positives = positives[0]
        self._epoch = n_epochs

    def measure_cost(self) -> PixelCost:
        """Return what an epoch takes, by trying one step; the training stays where it is."""
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
        learning = sum(4 * int(np.prod(v.shape)) for v in self.network.encoder.trainable_variables)
        return PixelCost(
            n_steps=len(batches),
            n_shown=n_shown,
            n_embedded=len(self._needed),
            seconds=step_s * n_shown / len(batch.images)
            + embed_s * -(-len(self._needed) // self._embed_size),
            memory_bytes=self._decoded.kept_bytes
            + 4 * self.network.encoder.count_params()
            + 3 * learning
            + len(batch.images) * self.network.activation_bytes()
            + defaults.BATCHES_AHEAD * pixels.nbytes,
        )

    def _plan_epoch(self) -> list[Batch]:
        """Return the batches of the epoch to come, in their order."""
        rng = np.random.default_rng([self._settings.seed, self._epoch])
        batches, shown = [], 0
        for batch in self._batches.epoch(rng):
            batches.append(batch)
            shown += len(batch.images)
            if self._n_shown is not None and shown >= self._n_shown:
                break
        return batches

    def _see(self, numbered: tuple[int, Batch]) -> np.ndarray:
        """Return the images of a batch as they are seen this time."""
        number, batch = numbered
        rng = np.random.default_rng([self._settings.seed, self._epoch, number, _AUGMENTATION])
        return self._augmentation.apply(self._decoded.read(batch.images), rng)

    def _infer_padded(self, pixels: np.ndarray) -> np.ndarray:
        """Return embeddings of up to a batch of images, filled up so that there is one shape."""
        filled = np.zeros((self._embed_size, *pixels.shape[1:]), np.uint8)
        filled[: len(pixels)] = pixels
        return self._infer(filled).numpy()[: len(pixels)]

    def _inject_hardest_positives(self) -> None:
        """Look for each training image's farthest one of its class, with the embeddings as now."""
        labels = np.full_like(self._labels.of_image, NO_LABEL)
        labels[self._images] = self._labels.of_image[self._images]
        found = hardest_positives(self.embed(), labels, self._settings.distance)
        self._batches.positives = found


def _assign(variables: list[keras.Variable], values: list[np.ndarray]) -> None:
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)


def _time_second(call: Callable[[], object]) -> float:
    """Return the seconds that a call takes once what it needs is compiled."""
    call()
    started_s = time.perf_counter()
    call()
    return time.perf_counter() - started_s

"""Epochs of a training until the best is known, and who is told of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tripletkit.errors import OutputError
from tripletkit.evaluation.distances import triplet_margins
from tripletkit.model.history import EpochRecord, TrainedHead, tell_epoch
from tripletkit.model.settings import HeadSettings
from tripletkit.training.checkpoint import Checkpoints
from tripletkit.training.trainer import OnEpoch, ignore_epoch

if TYPE_CHECKING:
    import keras


class EpochTraining(ABC):
    """What is trained epoch by epoch: a head on features, or a network on pixels.

    Attributes:
        centers: class centers that the loss draws embeddings to: `(n_classes, dim)`; NaN for a
            class that no batch had; None without.
    """

    @property
    def centers(self) -> np.ndarray | None:
        return None

    @abstractmethod
    def run_epoch(self) -> tuple[float, float]:
        """Go once over what there is to learn from; return mean loss and share of violations."""

    @abstractmethod
    def embed(self, strength: float = 1.0) -> np.ndarray:
        """Return the embeddings of all images, with so much of the step; see `shorten_step`."""

    @abstractmethod
    def check(self, embeddings: np.ndarray, loss: float) -> tuple[float, float]:
        """Return the spread and the effective rank of the training images' embeddings.

        Raises:
            CollapseError: if they are alike, or all on a line.
        """

    @abstractmethod
    def weights(self) -> list[np.ndarray]:
        """Return what training changes."""

    @abstractmethod
    def finish(self, weights: list[np.ndarray]) -> keras.Model:
        """Return the head with these weights, for features as they are."""


def keep_best_epoch(
    training: EpochTraining,
    val_rows: np.ndarray,
    settings: HeadSettings,
    *,
    chooses_epoch: bool = True,
    on_epoch: Callable[[EpochRecord], None] | None = None,
    checkpoints: Checkpoints | None = None,
) -> TrainedHead:
    """Run a training to its end and keep its best epoch.

    Args:
        training: at its beginning.
        val_rows: `(n_val, 3)` indices of images: anchor, positive, negative; may be empty.
        settings: say how many epochs at most.
        chooses_epoch: keep the best epoch by validation accuracy and stop when it no longer
            rises; otherwise, as without validation triplets, keep the last.
        on_epoch: told each epoch's record.
        checkpoints: where every epoch is kept until the next, of a training that has a state;
            goes on from the one that is there.
        CheckpointError: if what is there cannot be gone on from.
        OutputError: if no checkpoint can be written.
    """
    chooses_epoch = chooses_epoch and len(val_rows) > 0
    history: list[EpochRecord] = []
    best_epoch, best_accuracy, best_weights, centers = 0, -np.inf, None, None
    if checkpoints is not None and (found := checkpoints.restore(training)) is not None:
        history, best_epoch, best_weights, centers = found
        best_accuracy = history[best_epoch - 1].val_accuracy
    for epoch in range(len(history) + 1, settings.epochs + 1):
        if chooses_epoch and epoch > best_epoch + settings.patience:
            break
        loss, active = training.run_epoch()
        embeddings = training.embed(settings.strength)
        accuracy = np.nan
        if len(val_rows):
            accuracy = share_right(embeddings, val_rows, settings.distance)
        spread, rank = training.check(embeddings, loss)
        record = EpochRecord(epoch, loss, active, accuracy, spread, rank)
        history.append(record)
        if on_epoch is not None:
            on_epoch(record)
        if not chooses_epoch or accuracy > best_accuracy:
            best_epoch, best_accuracy = epoch, accuracy
            best_weights, centers = training.weights(), training.centers
        if checkpoints is not None:
            checkpoints.save(training, history, best_epoch, best_weights, centers)
    return TrainedHead(training.finish(best_weights), history, best_epoch, centers)


def share_right(embeddings: np.ndarray, rows: np.ndarray, distance: str) -> float:
    """Return the share of answered triplets whose positive is nearer; a tie is not."""
    return float(np.mean(triplet_margins(embeddings, rows, distance) > 0))


@contextmanager
def log_epochs(folder: Path | None, on_epoch: OnEpoch = ignore_epoch) -> Iterator[OnEpoch]:
    """Give what is told each epoch: TensorBoard logs where a folder is given, the log, a listener.

    The package tensorboard is needed to look at the logs, not to write them.

    Args:
        folder: of this run, which `tensorboard --logdir` reads; made if missing.
        on_epoch: the listener.
    Raises:
        OutputError: if the folder cannot be written.
    """

    def tell(record: EpochRecord, n_epochs: int) -> None:
        tell_epoch(record, n_epochs)
        on_epoch(record, n_epochs)

    if folder is None:
        yield tell
        return
    from tripletkit.features.keras_backend import tf

    # What tf.summary.scalar would say; that function itself needs the package tensorboard.
    scalar = tf.compat.v1.SummaryMetadata(
        plugin_data=tf.compat.v1.SummaryMetadata.PluginData(plugin_name="scalars")
    )
    try:
        writer = tf.summary.create_file_writer(str(folder))
    except tf.errors.OpError as error:
        raise OutputError(
            f"{folder}: the TensorBoard logs cannot be written: {error.message}"
        ) from error

    def tell_and_write(record: EpochRecord, n_epochs: int) -> None:
        values = asdict(record)
        epoch = values.pop("epoch")
        with writer.as_default():
            for name, value in values.items():
                if np.isfinite(value):
                    tf.summary.write(f"epoch_{name}", np.float32(value), epoch, scalar)
        writer.flush()
        tell(record, n_epochs)

    try:
        yield tell_and_write
    finally:
        writer.close()

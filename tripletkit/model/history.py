"""What a training went through, and the head that it kept."""

from __future__ import annotations

import logging
import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import keras

    from tripletkit.model.head_layers import NumpyHead

logger = logging.getLogger("tripletkit")


@dataclass(frozen=True)
class EpochRecord:
    """One epoch.

    Attributes:
        loss: mean over the epoch's triplets or images, dropout on.
        active: share of triplets that break the margin, without a margin of those whose
            positive is not the nearer; without triplets share of images taken for another
            class.
        val_accuracy: share of validation triplets right after the epoch, by this head alone; NaN
            without any.
        spread: root mean square distance between two embeddings of training images.
        rank: effective rank of their embeddings; see `collapse.effective_rank`.
        held_out_accuracy: share of held-out triplets right, over all draws, as far into their
            trainings as this epoch is into the one on all triplets; NaN where no epoch was chosen
            by held-out draws.
    """

    epoch: int
    loss: float
    active: float
    val_accuracy: float
    spread: float
    rank: float
    held_out_accuracy: float = math.nan


@dataclass(frozen=True)
class TrainedHead:
    """A head with the weights of its best epoch.

    Attributes:
        head: `(batch, n_features)` -> `(batch, dim)`.
        history: one record an epoch.
        best_epoch: the epoch kept, from 1: the best by validation accuracy, the earliest of
            equals; the last one without validation. Of an ensemble, the first member's.
        centers: `(n_classes, dim)` that the loss drew embeddings to, if it did; NaN for a class
            that no batch had.
    """

    head: keras.Model | NumpyHead
    history: list[EpochRecord]
    best_epoch: int
    centers: np.ndarray | None = None

    def history_rows(self) -> list[dict[str, float]]:
        return [asdict(record) for record in self.history]


def tell_epoch(record: EpochRecord, n_epochs: int) -> None:
    """Tell an epoch to who listens."""
    is_known = not math.isnan(record.val_accuracy)
    accuracy = f", validation accuracy {record.val_accuracy:.4f}" if is_known else ""
    logger.info(
        "epoch %2d/%d: loss %.4f, active %.1f%%%s",
        record.epoch,
        n_epochs,
        record.loss,
        100 * record.active,
        accuracy,
    )

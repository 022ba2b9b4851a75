"""Epochs as TensorBoard logs, for those who watch training there."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import asdict
from pathlib import Path

import numpy as np

from tripletkit.errors import OutputError
from tripletkit.features.keras_backend import tf
from tripletkit.model.history import EpochRecord


class EpochLog(AbstractContextManager):
    """Writes each epoch's numbers to a folder that `tensorboard --logdir` reads.

    A context manager; call it with each record, as `train_head` does with `on_epoch`. The package
    tensorboard is needed to look at the logs, not to write them.

    Args:
        folder: of this run; made if missing.
    Raises:
        OutputError: if the folder cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        try:
            self._writer = tf.summary.create_file_writer(str(folder))
        except tf.errors.OpError as error:
            raise OutputError(
                f"{folder}: the TensorBoard logs cannot be written: {error.message}"
            ) from error

    def __call__(self, record: EpochRecord) -> None:
        values = asdict(record)
        epoch = values.pop("epoch")
        with self._writer.as_default():
            for name, value in values.items():
                if np.isfinite(value):
                    tf.summary.write(f"epoch_{name}", np.float32(value), epoch, _SCALAR)
        self._writer.flush()

    def __exit__(self, *_: object) -> None:
        self._writer.close()


# What tf.summary.scalar would say; that function itself needs the package tensorboard.
_SCALAR = tf.compat.v1.SummaryMetadata(
    plugin_data=tf.compat.v1.SummaryMetadata.PluginData(plugin_name="scalars")
)

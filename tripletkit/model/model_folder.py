"""The model folder: written whole or not at all, read with suspicion.

`model.json` says everything that is known of the model, `head.weights.h5` holds the head's
numbers, `history.csv` its epochs, `class_centers.csv` the center of each class where the loss keeps
them, and `backbone.weights.h5` the backbone's numbers where these were trained too. Nothing in it
runs code when loaded.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from tripletkit.data.outputs import check_parent, current_umask, temporary_prefix
from tripletkit.errors import ModelFolderError, OutputError
from tripletkit.features.sources import BACKBONE_FILE, FeatureSource, GivenWeights
from tripletkit.features.weights_files import file_sha256
from tripletkit.model.record import ModelRecord, read_record, write_record

if TYPE_CHECKING:
    import keras

    from tripletkit.data.labels import ImageLabels

RECORD_FILE = "model.json"
HEAD_FILE = "head.weights.h5"
HISTORY_FILE = "history.csv"
CENTERS_FILE = "class_centers.csv"
MODEL_FILES = {RECORD_FILE, HEAD_FILE, HISTORY_FILE, CENTERS_FILE, BACKBONE_FILE}


@dataclass(frozen=True)
class ModelFolder:
    """A model folder that was found whole.

    Attributes:
        path: the folder.
        record: what `model.json` holds.
    """

    path: Path
    record: ModelRecord

    @property
    def has_own_backbone(self) -> bool:
        """Whether the backbone was trained too, so that its weights are in the folder."""
        return BACKBONE_FILE in self.record.files

    @property
    def features_name(self) -> str:
        """What its features are called where they stand beside its embeddings."""
        return "backbone features" if self.has_own_backbone else "frozen features"

    @property
    def distance(self) -> str:
        return self.record.settings.distance

    @property
    def image_folder(self) -> Path:
        return Path(self.record.images)

    def read_centers(self) -> pd.DataFrame | None:
        """Return the class centers, a row for each class; None if the loss kept none."""
        if CENTERS_FILE not in self.record.files:
            return None
        return pd.read_csv(
            self.path / CENTERS_FILE, index_col="label", dtype={"label": str}, keep_default_na=False
        ).astype(np.float32)

    def read_history(self) -> pd.DataFrame:
        """Return the epochs of the training, as `history.csv` has them."""
        return pd.read_csv(self.path / HISTORY_FILE)

    def load_head(self) -> keras.Model:
        """Return the trained head: `(batch, n_features)` -> `(batch, dim)`."""
        from tripletkit.model.heads import build_model

        head = build_model(self.record.n_features, self.record.settings)
        head.load_weights(self.path / HEAD_FILE)
        return head

    def find_source(self, weights: GivenWeights | None = None) -> FeatureSource:
        """Return what the features are of that the model was trained on.

        Args:
            weights: where the user says that weights are. Defaults to the model folder where
                the backbone was trained too, else to where they were at training, then to the
                backbone's own.
        Raises:
            BackboneError: if a backbone is not known, or weights are given for another.
        """
        own = self.path / BACKBONE_FILE if self.has_own_backbone else None
        return FeatureSource.of_record(
            self.record.features, self.record.weights_files, self.path, own, weights
        )


def name_centers(centers: np.ndarray | None, labels: ImageLabels | None) -> pd.DataFrame | None:
    """Return class centers `(n_classes, dim)` as a table; classes without one are left out."""
    if centers is None:
        return None
    return pd.DataFrame(centers, index=labels.classes).dropna()


def check_model_output(path: Path, *, overwrite: bool = False) -> None:
    """Refuse early what `save_model` would refuse after training.

    Raises:
        OutputError: if there is something at the path that may not be replaced, or the folder
            cannot be written.
    """
    target = path.resolve()
    if target.exists():
        _check_replaceable(path, target, overwrite)
    check_parent(target)


def save_model(
    path: Path,
    head: keras.Model,
    history: list[dict[str, float]],
    record: ModelRecord,
    centers: pd.DataFrame | None = None,
    *,
    backbone: Path | None = None,
    overwrite: bool = False,
) -> ModelFolder:
    """Write a model folder; what was there stays until the new one is whole.

    Args:
        path: the folder to make.
        head: its weights are saved.
        history: one row an epoch.
        record: what is known of it; the hashes of the files are added here.
        centers: a row for each class, named by it, with its center.
        backbone: the weights file of a backbone that was trained too; copied.
        overwrite: replace an older model folder.
    Raises:
        OutputError: if it cannot be written, or would replace something it may not.
    """
    check_model_output(path, overwrite=overwrite)
    target = path.resolve()
    with _explained(path):
        # A sibling, so that moving it in is one rename on one file system.
        partial = Path(tempfile.mkdtemp(prefix=temporary_prefix(target), dir=target.parent))
        try:
            _check_room(partial / HEAD_FILE, 4 * head.count_params())
            head.save_weights(partial / HEAD_FILE)
            pd.DataFrame(history).to_csv(partial / HISTORY_FILE, index=False)
            if centers is not None:
                centers.to_csv(partial / CENTERS_FILE, index_label="label")
            if backbone is not None:
                shutil.copyfile(backbone, partial / BACKBONE_FILE)
            files = {file.name: file_sha256(file) for file in sorted(partial.iterdir())}
            whole = replace(record, files=files)
            write_record(whole, partial / RECORD_FILE)
            partial.chmod(0o777 & ~current_umask())
            _move_in(partial, target)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
    return ModelFolder(path, whole)


def copy_model(model: ModelFolder, path: Path, *, overwrite: bool = False) -> ModelFolder:
    """Write a model's folder once more; what was there stays until the new one is whole.

    Args:
        model: the model.
        path: the folder to make.
        overwrite: replace an older model folder.
    Raises:
        OutputError: if it cannot be written, or would replace something it may not.
    """
    check_model_output(path, overwrite=overwrite)
    target = path.resolve()
    if target == model.path.resolve():
        return model
    with _explained(path):
        partial = Path(tempfile.mkdtemp(prefix=temporary_prefix(target), dir=target.parent))
        try:
            for name in sorted(MODEL_FILES):
                if (model.path / name).is_file():
                    shutil.copyfile(model.path / name, partial / name)
            partial.chmod(0o777 & ~current_umask())
            _move_in(partial, target)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
    return load_model(path)


def load_model(path: Path) -> ModelFolder:
    """Read a model folder and check that it is whole and as it was written.

    Raises:
        ModelFolderError: if it is missing, incomplete, edited or from a newer format.
    """
    record_file = path / RECORD_FILE
    if not record_file.is_file():
        raise ModelFolderError(
            f"{path}: expected a model folder with {RECORD_FILE}, there is none. "
            "Make one with `tripletkit train`, or name it with `model`."
        )
    record = read_record(record_file)
    for name, expected in record.files.items():
        file = path / name
        if not file.is_file():
            raise ModelFolderError(f"{path}: incomplete, {name} is missing; train again")
        if file_sha256(file) != expected:
            raise ModelFolderError(
                f"{file}: is not the file that training wrote (its sha256 differs). "
                "Bring back the original, or train again."
            )
    return ModelFolder(path, record)


def _check_replaceable(path: Path, target: Path, overwrite: bool) -> None:
    found = {file.name for file in target.iterdir()} if target.is_dir() else {"a file"}
    if strange := sorted(found - MODEL_FILES):
        raise OutputError(
            f"{path}: expected a new or empty place or a model folder, found {strange[0]!r} "
            "there, which would be lost. Choose another `output`."
        )
    if target == Path.cwd() or target.is_mount():
        raise OutputError(
            f"{path}: this folder cannot be replaced as a whole. Name a folder below it "
            "with `output`."
        )
    if found and not overwrite:
        raise OutputError(
            f"{path}: holds a model already. Choose another `output`, or replace it with "
            "`overwrite=True`."
        )


def _check_room(path: Path, n_bytes: int) -> None:
    """Fail as a plain file does: HDF5 on a full disk fails once more whenever Python ends."""
    path.write_bytes(bytes(n_bytes + (1 << 17)))
    path.unlink()


def _move_in(partial: Path, path: Path) -> None:
    """Put the new folder in the place of the old one, which goes only after that."""
    if not path.exists():
        partial.rename(path)
        return
    retired = partial.with_name(f"{partial.name}.old")
    path.rename(retired)
    try:
        partial.rename(path)
    except OSError:
        retired.rename(path)
        raise
    shutil.rmtree(retired)


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if isinstance(error, OutputError):
            raise
        reason = error.strerror or str(error)
        raise OutputError(f"{path}: the model cannot be written: {reason}") from error

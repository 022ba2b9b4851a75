"""The model folder: written whole or not at all, read with suspicion.

`model.json` says everything that is known of the model, `head.weights.h5` holds the head's
numbers, `history.csv` its epochs, `class_centers.csv` the center of each class where the loss keeps
them, and `backbone.weights.h5` the backbone's numbers where these were trained too. Nothing in it
runs code when loaded.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from tripletkit.data.output_forms import OutputForm
from tripletkit.data.outputs import MODEL_RECORD, check_parent, explain_failure
from tripletkit.data.unfinished import remove_unfinished, unfinished_folder
from tripletkit.errors import ModelFolderError, OutputError
from tripletkit.features.backbones import get_backbone
from tripletkit.features.sources import BACKBONE_FILE, FeatureSource, GivenWeights
from tripletkit.features.weights_files import file_sha256

if TYPE_CHECKING:
    import keras

    from tripletkit.data.labels import ImageLabels

# Increase when an older tripletkit could not read a newer folder rightly; folders of all older
# versions are read, and a folder is written as the oldest version that has what it needs.
# 2: several backbones or views, images of another size than the backbone's usual one, or a
# backbone with weights of its own in the folder.
FORMAT_VERSION = 2

RECORD_FILE = MODEL_RECORD
HEAD_FILE = "head.weights.h5"
HISTORY_FILE = "history.csv"
CENTERS_FILE = "class_centers.csv"
MODEL_FILES = {RECORD_FILE, HEAD_FILE, HISTORY_FILE, CENTERS_FILE, BACKBONE_FILE}

MODEL_FORM = OutputForm(
    "a model folder as `tripletkit train` wrote it", lambda path: not _find_reason_to_keep(path)
)


@dataclass(frozen=True)
class ModelFolder:
    """A model folder that was found whole.

    Attributes:
        path: the folder.
        record: what `model.json` holds.
    """

    path: Path
    record: dict[str, Any]

    @property
    def has_own_backbone(self) -> bool:
        """Whether the backbone was trained too, so that its weights are in the folder."""
        return BACKBONE_FILE in self.record["files"]

    @property
    def features_name(self) -> str:
        """What its features are called where they stand beside its embeddings."""
        return "backbone features" if self.has_own_backbone else "frozen features"

    @property
    def distance(self) -> str:
        return self.record["head"]["distance"]

    @property
    def image_folder(self) -> Path:
        return Path(self.record["images"])

    def read_centers(self) -> pd.DataFrame | None:
        """Return the class centers, a row for each class; None if the loss kept none."""
        if CENTERS_FILE not in self.record["files"]:
            return None
        return pd.read_csv(
            self.path / CENTERS_FILE, index_col="label", dtype={"label": str}, keep_default_na=False
        ).astype(np.float32)

    def load_head(self) -> keras.Model:
        """Return the trained head: `(batch, n_features)` -> `(batch, dim)`."""
        from tripletkit.model.heads import build_model
        from tripletkit.model.settings import HeadSettings

        head = build_model(self.record["n_features"], HeadSettings(**self.record["head"]))
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
        return FeatureSource.of_record(self.record, self.path, weights)


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
    record: dict[str, Any],
    centers: pd.DataFrame | None = None,
    *,
    backbone: Path | None = None,
    overwrite: bool = False,
) -> None:
    """Write a model folder; what was there stays until the new one is whole.

    Args:
        path: the folder to make.
        head: its weights are saved.
        history: one row an epoch.
        record: plain JSON values; format version and hashes are added here.
        centers: a row for each class, named by it, with its center.
        backbone: the weights file of a backbone that was trained too; copied.
        overwrite: replace an older model folder.
    Raises:
        OutputError: if it cannot be written, or would replace something it may not.
    """
    check_model_output(path, overwrite=overwrite)
    target = path.resolve()
    remove_unfinished(target.parent)
    with explain_failure(path), unfinished_folder(target) as partial:
        _check_room(partial / HEAD_FILE, 4 * head.count_params())
        head.save_weights(partial / HEAD_FILE)
        pd.DataFrame(history).to_csv(partial / HISTORY_FILE, index=False)
        if centers is not None:
            centers.to_csv(partial / CENTERS_FILE, index_label="label")
        if backbone is not None:
            shutil.copyfile(backbone, partial / BACKBONE_FILE)
        files = {file.name: file_sha256(file) for file in sorted(partial.iterdir())}
        version = _oldest_version(record["features"], backbone)
        whole = {"format_version": version, **record, "files": files}
        whole["sha256"] = _digest(whole)
        text = json.dumps(whole, indent=2, ensure_ascii=False) + "\n"
        # A path that is not UTF-8 holds surrogates; their escape is what JSON has for them.
        (partial / RECORD_FILE).write_text(text, encoding="utf-8", errors="backslashreplace")


def load_model(path: Path) -> ModelFolder:
    """Read a model folder and check that it is whole and as it was written.

    Raises:
        ModelFolderError: if it is missing, incomplete, edited or from a newer format.
    """
    record_file = path / RECORD_FILE
    if not path.exists():
        # A training that was killed while it replaced the model may have left both beside it.
        remove_unfinished(path.absolute().parent)
    if not record_file.is_file():
        raise ModelFolderError(
            f"{path}: expected a model folder with {RECORD_FILE}, there is none. "
            "Make one with `tripletkit train`, or name it with --model."
        )
    try:
        record = json.loads(record_file.read_text(encoding="utf-8"))
        version = record["format_version"]
    except (ValueError, KeyError, TypeError, OSError, RecursionError) as error:
        raise ModelFolderError(
            f"{record_file}: expected the record of a model, cannot be read as one: {error}"
        ) from error
    if not isinstance(version, int) or version > FORMAT_VERSION:
        raise ModelFolderError(
            f"{record_file}: expected format version {FORMAT_VERSION}, got {version!r}, from a "
            "newer tripletkit. Update tripletkit, or train again."
        )
    if record.get("sha256") != _digest(record):
        raise ModelFolderError(
            f"{record_file}: was edited after training, so its numbers cannot be trusted. "
            "Bring back the original, or train again."
        )
    for name, expected in record["files"].items():
        file = path / name
        if not file.is_file():
            raise ModelFolderError(f"{path}: incomplete, {name} is missing; train again")
        if file_sha256(file) != expected:
            raise ModelFolderError(
                f"{file}: is not the file that training wrote (its sha256 differs). "
                "Bring back the original, or train again."
            )
    return ModelFolder(path, record)


def _oldest_version(features: dict[str, Any], backbone: Path | None) -> int:
    """Return the oldest format that has what a folder needs."""
    is_first = (
        backbone is None
        and "parts" not in features
        and features["input_size_px"] == get_backbone(features["backbone"]).input_size_px
    )
    return 1 if is_first else FORMAT_VERSION


def _check_replaceable(path: Path, target: Path, overwrite: bool) -> None:
    if target == Path.cwd() or target.is_mount():
        raise OutputError(
            f"{path}: this folder cannot be replaced as a whole. Name a folder below it with -o."
        )
    if not target.is_dir():
        raise OutputError(f"{path}: expected a folder to make, got a file. Choose another -o.")
    if not any(target.iterdir()):
        return
    if reason := _find_reason_to_keep(target):
        raise OutputError(f"{path}: {reason}, which would be lost. Choose another -o.")
    if not overwrite:
        raise OutputError(
            f"{path}: holds a model already. Choose another -o, or replace it with --force."
        )


def _find_reason_to_keep(folder: Path) -> str | None:
    """Return why a folder that is not empty is not one that `save_model` made, if it is not.

    Its record must be as it was written; the other files may be damaged or missing.
    """
    found = list(folder.iterdir())
    if strange := sorted(file.name for file in found if file.name not in MODEL_FILES):
        return f"expected a new or empty place or a model folder, found {strange[0]!r} there"
    if not all(file.is_file() for file in found):
        return "expected a model folder, which has no folders"
    try:
        record = json.loads((folder / RECORD_FILE).read_text(encoding="utf-8"))
        is_written = record["sha256"] == _digest(record) and "format_version" in record
    except (ValueError, LookupError, TypeError, OSError, RecursionError):
        is_written = False
    if not is_written:
        return (
            f"expected a model folder, but has no {RECORD_FILE} as `tripletkit train` wrote it; "
            f"it holds {found[0].name!r}"
        )
    return None


def _check_room(path: Path, n_bytes: int) -> None:
    """Fail as a plain file does: HDF5 on a full disk fails once more whenever Python ends."""
    path.write_bytes(bytes(n_bytes + (1 << 17)))
    path.unlink()


def _digest(record: dict[str, Any]) -> str:
    facts = {key: value for key, value in record.items() if key != "sha256"}
    text = json.dumps(facts, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()

"""The model folder: written whole or not at all, read with suspicion.

`model.json` says everything that is known of the model, `head.weights.h5` holds the head's
numbers, `history.csv` its epochs, `shift.npz` what the training images look like,
`learned.npy` hashes of the questions whose answers it learned from,
`class_centers.csv` the center of each class where the loss keeps them, and `backbone.weights.h5`
the backbone's numbers where these were trained too. Nothing in it runs code when loaded.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from tripletkit.data.outputs import MODEL_RECORD, check_parent, end_moves, note_input, open_folder
from tripletkit.data.questions import hash_questions
from tripletkit.data.text_files import guard_formula
from tripletkit.data.triplets import Triplets
from tripletkit.errors import ModelFolderError, OutputError
from tripletkit.features.encoder import (
    BACKBONE_FILE,
    Encoder,
    EncoderHead,
    GivenWeights,
    open_recorded_encoder,
)
from tripletkit.features.function_encoder import FunctionEncoder
from tripletkit.features.given_features import FeaturesLike
from tripletkit.model.distribution_shift import ShiftDetector
from tripletkit.model.head_layers import NumpyHead, embed, write_head
from tripletkit.model.record import ModelRecord

if TYPE_CHECKING:
    import keras


_RECORD_FILE = MODEL_RECORD
_HEAD_FILE = "head.weights.h5"
_HISTORY_FILE = "history.csv"
_CENTERS_FILE = "class_centers.csv"
_SHIFT_FILE = "shift.npz"
_LEARNED_FILE = "learned.npy"
# Of more, those of the lowest hashes: a sample that is the same in every set.
_MAX_LEARNED = 1_000_000
_MODEL_FILES = {_RECORD_FILE, _HEAD_FILE, _HISTORY_FILE, _CENTERS_FILE, _SHIFT_FILE}
_MODEL_FILES |= {_LEARNED_FILE, BACKBONE_FILE}


@dataclass(frozen=True)
class ModelFolder:
    """A model as its folder, named by an absolute path, held it when it was opened, whatever is
    written there later: with the bytes of each file that its record names."""

    path: Path
    record: ModelRecord
    held: Mapping[str, bytes] = field(repr=False)

    def is_there(self) -> bool:
        """Return whether the folder holds this model still, and all of it."""
        with suppress(ModelFolderError, OSError):
            is_same = ModelRecord.read(self.path / _RECORD_FILE).sha256 == self.record.sha256
            now = {name: (self.path / name).read_bytes() for name in self.held}
            return is_same and now == self.held
        return False

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
    def image_folder(self) -> Path | None:
        """Where its images were at training; None if it was trained on features alone."""
        return Path(self.record.images) if self.record.images else None

    def read_shift_detector(self) -> ShiftDetector | None:
        """Return what tells images unlike those of the training; None where it was not learned."""
        if _SHIFT_FILE not in self.record.files:
            return None
        return ShiftDetector.load(BytesIO(self.held[_SHIFT_FILE]))

    def share_learned(
        self, triplets: Triplets, contents: Sequence[bytes | None] | None = None
    ) -> float | None:
        """Return the share of questions whose answers the model learned from, 0 to 1: by the names
        of their images, and by `contents` where these are at hand, so that images under other names
        are known again. None where nothing is known."""
        if _LEARNED_FILE not in self.record.files:
            return None
        learned = np.atleast_2d(np.load(BytesIO(self.held[_LEARNED_FILE]), allow_pickle=False))
        asked = [triplets] if contents is None else [triplets, triplets.over_contents(contents)]
        is_learned, is_known = np.zeros((2, len(triplets)), dtype=bool)
        for each, known in zip(asked, learned, strict=False):
            hashes = hash_questions(each)
            is_learned |= np.isin(hashes, known)
            is_known |= (len(known) < _MAX_LEARNED) | (hashes <= known[-1])
        return float(is_learned[is_known].mean()) if is_known.any() else None

    def read_history(self) -> pd.DataFrame:
        """Return the epochs of the training, as `history.csv` has them."""
        return pd.read_csv(BytesIO(self.held[_HISTORY_FILE]))

    def load_head(self) -> keras.Model:
        """Return the trained head: `(batch, n_features)` -> `(batch, dim)`."""
        from tripletkit.model.heads import build_model

        if self.record.parts and (trained := self._read_numpy_head()) is not None:
            return trained.to_keras()
        head = build_model(self.record.n_features, self.record.settings)
        with TemporaryDirectory() as folder:
            file = Path(folder) / _HEAD_FILE
            file.write_bytes(self.held[_HEAD_FILE])
            head.load_weights(file)
        return head

    def _read_numpy_head(self) -> NumpyHead | None:
        return NumpyHead.read(self.path / _HEAD_FILE, BytesIO(self.held[_HEAD_FILE]))

    def open_head(self) -> NumpyHead | keras.Model:
        """Return the trained head for `embed`, without TensorFlow where its layers allow it."""
        return self._read_numpy_head() or self.load_head()

    @property
    def head(self) -> EncoderHead:
        """The trained head, for an encoder."""
        return EncoderHead(self.distance, lambda: self.record.sha256, self.embed)

    def embed(self, features: np.ndarray) -> np.ndarray:
        """Return embeddings from features; see `head_layers.embed`."""
        return embed(self.open_head(), features)

    def open_encoder(
        self,
        weights: GivenWeights | None = None,
        features: FeaturesLike | None = None,
        functions: Sequence[FunctionEncoder] = (),
    ) -> Encoder:
        """Return the encoder that the model is: what it was trained on, with its head. Weights are
        where the user says, else in the model folder where the backbone was trained too, else where
        they were at training, else the backbone's own."""
        record = self.record
        return open_recorded_encoder(
            record.features,
            [str(self.path / BACKBONE_FILE)] if self.has_own_backbone else record.weights_files,
            record.n_features,
            self.path,
            weights=weights,
            features=features,
            functions=functions,
            head=self.head,
        )

    def copy(self, path: Path, *, overwrite: bool = False) -> ModelFolder:
        """Write the folder once more; what was there stays until the new one is whole."""
        check_model_output(path, overwrite=overwrite)
        if path.resolve() == self.path.resolve() and self.is_there():
            return self
        with open_folder(path) as partial:
            for name in sorted(_MODEL_FILES & self.held.keys()):
                (partial / name).write_bytes(self.held[name])
            self.record.write(partial / _RECORD_FILE)
        return load_model(path)


def checkpoint_path(model: Path) -> Path:
    """Return where the checkpoint of a model folder is: beside it."""
    model = model.absolute()
    return model.with_name(f"{model.name}.checkpoint.npz")


def check_model_output(path: Path, *, overwrite: bool = False, begins_anew: bool = False) -> None:
    """Refuse early what `save_model` would refuse after training. To begin anew where an
    interrupted training left a checkpoint is refused, too."""
    target, checkpoint = path.resolve(), checkpoint_path(path)
    if target.exists():
        _check_replaceable(path, target, overwrite)
    check_parent(target)
    if begins_anew and checkpoint.exists() and not overwrite:
        raise OutputError(
            f"{checkpoint}: an interrupted training left this. Go on with `resume`, or begin anew "
            "with `overwrite=True`."
        )


def save_model(
    path: Path,
    head: keras.Model | NumpyHead,
    history: Sequence[Any],
    record: ModelRecord,
    *,
    centers: np.ndarray | None = None,
    shift: ShiftDetector | None = None,
    learned: Sequence[Triplets] = (),
    backbone: Path | None = None,
    overwrite: bool = False,
) -> ModelFolder:
    """Write a model folder; what was there stays until the new one is whole.

    Args:
        record: the hashes of the files are added here.
        centers: `(n_classes, dim)` of the classes in the record; NaN for one without.
        learned: the judgements that it learned from, over names and over contents of images.
        backbone: the weights file of a backbone that was trained too; copied. Its checkpoint goes.
    """
    check_model_output(path, overwrite=overwrite)
    checkpoint = checkpoint_path(path)
    with open_folder(path) as partial:
        # HDF5 on a full disk fails once more whenever Python ends: a plain file fails before it.
        (partial / _HEAD_FILE).write_bytes(bytes(4 * head.count_params() + (1 << 17)))
        (partial / _HEAD_FILE).unlink()
        write_head(head, partial / _HEAD_FILE)
        pd.DataFrame(history).to_csv(partial / _HISTORY_FILE, index=False)
        if centers is not None:
            names = map(guard_formula, record.classes or ())
            table = pd.DataFrame(centers, index=list(names)).dropna()
            table.to_csv(partial / _CENTERS_FILE, index_label="label")
        if shift is not None:
            shift.save(partial / _SHIFT_FILE)
        if learned:
            hashes = [np.unique(hash_questions(each))[:_MAX_LEARNED] for each in learned]
            width = max(map(len, hashes))
            padded = [np.pad(each, (0, width - len(each)), mode="edge") for each in hashes]
            np.save(partial / _LEARNED_FILE, np.stack(padded))
        if backbone is not None:
            shutil.copyfile(backbone, partial / BACKBONE_FILE)
        held = {file.name: file.read_bytes() for file in sorted(partial.iterdir())}
        whole = replace(record, files=_hash(held))
        whole.write(partial / _RECORD_FILE)
    if backbone is not None:
        checkpoint.unlink(missing_ok=True)
    return ModelFolder(path.absolute(), whole, held)


def load_model(path: Path) -> ModelFolder:
    """Read a model folder and check that it is whole and as it was written."""
    record_file = path / _RECORD_FILE
    if not path.exists():
        # A training that was killed while it replaced the model may have left both beside it.
        end_moves(path.absolute())
    if not record_file.is_file():
        raise ModelFolderError(
            f"{path}: expected a model folder with {_RECORD_FILE}, there is none. "
            "Make one with `tripletkit train`, or name it with `model`."
        )
    record = ModelRecord.read(record_file)
    for read in (path, *record.inputs.paths()):
        note_input(read)
    if record.images is not None:
        note_input(Path(record.images))
    if missing := [name for name in record.files if not (path / name).is_file()]:
        raise ModelFolderError(f"{path}: incomplete, {missing[0]} is missing; train again")
    try:
        held = {name: (path / name).read_bytes() for name in record.files}
    except OSError as error:
        raise ModelFolderError(f"{error.filename}: cannot be read: {error.strerror}") from error
    for name, got in _hash(held).items():
        if got != record.files[name]:
            raise ModelFolderError(
                f"{path / name}: is not the file that training wrote (its sha256 differs). "
                "Bring back the original, or train again."
            )
    return ModelFolder(path.absolute(), record, held)


def _hash(held: Mapping[str, bytes]) -> dict[str, str]:
    return {name: hashlib.sha256(data).hexdigest() for name, data in held.items()}


def _check_replaceable(path: Path, target: Path, overwrite: bool) -> None:
    if target == Path.cwd() or target.is_mount():
        raise OutputError(
            f"{path}: this folder cannot be replaced as a whole. Name a folder below it "
            "with `output`."
        )
    if not target.is_dir():
        raise OutputError(
            f"{path}: expected a folder to make, got a file. Choose another `output`."
        )
    if not any(target.iterdir()):
        return
    if reason := _find_reason_to_keep(target):
        raise OutputError(f"{path}: {reason}, which would be lost. Choose another `output`.")
    if not overwrite:
        raise OutputError(
            f"{path}: holds a model already. Choose another `output`, or replace it with "
            "`overwrite=True`."
        )


def _find_reason_to_keep(folder: Path) -> str | None:
    """Return why a folder that is not empty is not one that `save_model` made, if it is not. Its
    record must be as it was written; the other files may be damaged or missing."""
    found = list(folder.iterdir())
    if strange := sorted(file.name for file in found if file.name not in _MODEL_FILES):
        return f"expected a new or empty place or a model folder, found {strange[0]!r} there"
    if folders := sorted(file.name for file in found if not file.is_file()):
        return f"expected a model folder, but {folders[0]!r} in it is a folder"
    if not ModelRecord.is_at(folder / _RECORD_FILE):
        return (
            f"expected a model folder, but {_RECORD_FILE} is not there as `tripletkit train` wrote "
            f"it; it holds {found[0].name!r}"
        )
    return None

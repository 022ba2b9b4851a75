"""The record of a model, `model.json`: read, written and shown here, and nowhere else.

Whatever is known of how a model came to be is a field of `ModelRecord`, so that a reader cannot
misspell it and a writer cannot forget it.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tripletkit.data.images import ImagePolicy
from tripletkit.data.text_files import FileRecord
from tripletkit.data.training_set import TrainingSet
from tripletkit.data.triplets import VotesAs
from tripletkit.errors import ModelFolderError
from tripletkit.evaluation.classification import LabelScores
from tripletkit.evaluation.intervals import Interval, NoInterval
from tripletkit.evaluation.pooled import LearningCurve, PooledValidation
from tripletkit.evaluation.validation import UnseenClasses, Validation
from tripletkit.model.recipes import Part
from tripletkit.model.settings import Settings
from tripletkit.results import Section, Table

if TYPE_CHECKING:
    from cattrs import Converter

# Increase when an older tripletkit could not read a newer record rightly.
FORMAT_VERSION = 5


@dataclass(frozen=True)
class VotesRecord:
    """How several people judged the training triplets.

    Attributes:
        file: where the votes were read.
        in_columns: that is the triplet file itself.
        taken_as: what training made of the votes.
        n_turned: triplets turned round, because most people chose the third image.
        n_tied: triplets on which people are tied.
    """

    file: FileRecord
    in_columns: bool
    taken_as: VotesAs
    n_turned: int
    n_tied: int


@dataclass(frozen=True)
class InputsRecord:
    """What was learned from, and what was validated on.

    Attributes:
        triplets: None where they were drawn from labels.
        labels, val, val_truth, val_votes, val_labels: the other files; None without.
        votes: on the training triplets; None without.
        split, val_fraction: how validation was set apart, where no file says it.
        groups: of images, which are held out as a whole; None without.
        skip_bad, follow_outside: how images were found.
    """

    triplets: FileRecord | None
    labels: FileRecord | None = None
    val: FileRecord | None = None
    val_truth: FileRecord | None = None
    val_votes: FileRecord | None = None
    val_labels: FileRecord | None = None
    votes: VotesRecord | None = None
    split: str | None = None
    val_fraction: float | None = None
    groups: FileRecord | None = None
    skip_bad: bool = False
    follow_outside: bool = False

    @property
    def policy(self) -> ImagePolicy:
        """How images were found, as `open_images` takes it."""
        return ImagePolicy(skip_bad=self.skip_bad, follow_outside=self.follow_outside)

    @property
    def name(self) -> str:
        """What the training triplets are called in messages."""
        record = self.triplets or self.labels
        assert record is not None, "a training has triplets or labels"
        return record.name

    def paths(self) -> list[Path]:
        """Return where all of these were read, as far as they were files."""
        files = [value for value in vars(self).values() if isinstance(value, FileRecord)]
        files += [self.votes.file] if self.votes else []
        return [Path(file.path) for file in files if file.path is not None]


@dataclass(frozen=True)
class SplitRecord:
    """How triplets were divided; see `TrainingSet`."""

    by: str
    n_train: int
    n_val: int
    n_dropped: int
    n_degenerate: int
    n_tied: int
    n_shared_images: int

    @classmethod
    def of(cls, data: TrainingSet) -> SplitRecord:
        counts = data.n_dropped, data.n_degenerate, data.n_tied, data.n_shared_images()
        return cls(data.by, len(data.train), len(data.val), *counts)


@dataclass(frozen=True)
class PixelsRecord:
    """How a backbone was trained.

    Attributes:
        start_weights_sha256: of the weights that it began with; None from scratch.
        unfrozen_blocks: how many of its last blocks learned; None for all, from scratch.
        n_trained_weights, n_backbone_weights: weights that learned, and all.
        settings: of this part of the training.
        images_per_epoch: that the network was shown.
        head_epochs: epochs of the head before; None from scratch.
        resumed_after_epoch: where an interrupted training went on; None for one that was not.
    """

    from_scratch: bool
    start_weights_sha256: str | None
    unfrozen_blocks: int | None
    n_trained_weights: int
    n_backbone_weights: int
    settings: Settings
    images_per_epoch: int
    head_epochs: int | None
    resumed_after_epoch: int | None


@dataclass(frozen=True)
class TimesRecord:
    """Seconds that the parts of a training took."""

    features_s: float
    training_s: float
    total_s: float


@dataclass(frozen=True)
class ModelRecord:
    """All that is known of a model; None or empty where there is nothing to tell.

    Attributes:
        created: when, in UTC.
        command: as it was typed, or the call from Python.
        versions: of Python and of the packages that numbers can depend on.
        settings: of the head.
        features, n_features: what decides the numbers of an image (backbones, weights,
            preprocessing, views), and how many these are.
        backbone_reason: why `auto` took this backbone.
        weights_files: the weights file of each backbone that the user named, None for its own.
        images: the image folder, absolute; None where features were given.
        n_images, n_bad_images: images that were used, and those that could not be.
        best_epoch: the epoch kept, from 1.
        unseen_classes: scores on classes or clusters that were held out as a whole.
        classes: names of the classes of labelled images.
        classification: how the classes of validation images are told apart.
        pooled: scores on held-out draws, and what each candidate part is worth.
        parts: of an ensemble.
        files: name of each other file of the folder -> its SHA-256.
    """

    created: str
    command: str
    versions: dict[str, str]
    settings: Settings
    features: dict[str, Any]
    n_features: int
    backbone_reason: str
    weights_files: list[str | None]
    images: str | None
    inputs: InputsRecord
    split: SplitRecord
    n_images: int
    n_bad_images: int
    best_epoch: int
    times: TimesRecord
    validation: Validation | None = None
    unseen_classes: UnseenClasses | None = None
    classes: list[str] | None = None
    classification: LabelScores | None = None
    pixels: PixelsRecord | None = None
    pooled: PooledValidation | None = None
    learning_curve: LearningCurve | None = None
    parts: tuple[Part, ...] = ()
    files: dict[str, str] = field(default_factory=dict)

    @property
    def sha256(self) -> str:
        """Of all that the record says, hexadecimal."""
        return _digest(self.to_dict())

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {"format_version": FORMAT_VERSION, **_converter().unstructure(self)}

    def describe(self, n_epochs: int) -> str:
        """Return what the training came to, whose head went through so many epochs, as text."""
        sections: list[Section] = [[self._facts(n_epochs)]]
        for shown in (self.pooled, self.learning_curve, self.validation):
            if shown is not None:
                sections += shown._sections()
        if self.unseen_classes is not None:
            sections.append(self.unseen_classes._section())
        if self.classification is not None:
            is_from_scratch = self.validation is not None and self.validation.is_from_scratch
            before = "untrained" if is_from_scratch else "frozen"
            sections += self.classification._sections(before)
        return "\n\n".join("\n".join(map(str, section)) for section in sections)

    def _facts(self, n_epochs: int) -> Table:
        split, times = self.split, self.times
        dropped = f", {split.n_dropped:,} dropped by the split" if split.n_dropped else ""
        facts = [
            ["images", f"{self.n_images:,}"],
            [
                "triplets",
                f"{split.n_train:,} for training, {split.n_val:,} for validation "
                f"(by {split.by}){dropped}"
                if split.n_val
                else f"{split.n_train:,}, all for training{dropped}",
            ],
            [
                "time",
                f"features {times.features_s:.1f} s, training {times.training_s:.1f} s, "
                f"in all {times.total_s:.1f} s",
            ],
        ]
        if not self.parts:
            # Without validation triplets the last one is kept, which says nothing.
            kept = ["epoch kept", f"{self.best_epoch} of {n_epochs}"]
            facts.append(kept if split.n_val else ["epochs", str(self.best_epoch)])
        return Table(facts, has_heading=False)

    def write(self, path: Path) -> None:
        """Write it, with a hash that tells whether it was edited afterwards."""
        whole = self.to_dict()
        whole["sha256"] = _digest(whole)
        text = json.dumps(whole, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
        # A path that is not UTF-8 holds surrogates; their escape is what JSON has for them.
        path.write_text(text, encoding="utf-8", errors="backslashreplace")

    @classmethod
    def read(cls, path: Path) -> ModelRecord:
        """Read a record; one that was edited, or is of another format, is refused."""
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            version = values.pop("format_version")
            digest = values.pop("sha256", None)
        except (ValueError, KeyError, TypeError, AttributeError, OSError, RecursionError) as error:
            raise ModelFolderError(
                f"{path}: expected the record of a model, cannot be read as one: {error}"
            ) from error
        if version != FORMAT_VERSION:
            whose = (
                "a newer" if isinstance(version, int) and version > FORMAT_VERSION else "another"
            )
            raise ModelFolderError(
                f"{path}: expected format version {FORMAT_VERSION}, got {version!r}, of {whose} "
                "tripletkit. Train again, or use the version that wrote it."
            )
        if digest != _digest({"format_version": version, **values}):
            raise ModelFolderError(
                f"{path}: was edited after training, so its numbers cannot be trusted. "
                "Bring back the original, or train again."
            )
        try:
            return _converter().structure(values, cls)
        except Exception as error:  # cattrs raises groups of whatever a value is not
            raise ModelFolderError(
                f"{path}: expected the record of a model, a part of it is missing or of another "
                "kind. Train again."
            ) from error

    @staticmethod
    def is_at(path: Path) -> bool:
        """Return whether a file is a record as it was written, of whatever version."""
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            digest = values.pop("sha256")
            return digest == _digest(values) and {"format_version", "files"} <= set(values)
        except (ValueError, LookupError, TypeError, AttributeError, OSError, RecursionError):
            return False


@cache
def _converter() -> Converter:
    from cattrs import Converter

    # What is wrong with a part is not said, so that it need not be found out.
    converter = Converter(forbid_extra_keys=True, detailed_validation=False)
    converter.register_unstructure_hook(Interval, Interval.to_list)
    converter.register_structure_hook(Interval, lambda ends, _: Interval(*map(float, ends)))
    for union in (Interval | NoInterval | None, Interval | NoInterval):
        converter.register_structure_hook(union, _structure_interval)
    return converter


def _structure_interval(value: list[float] | dict[str, str] | None, _: object) -> object:
    if isinstance(value, dict):
        return NoInterval(**value)
    return None if value is None else Interval(*map(float, value))


def _digest(values: dict[str, Any]) -> str:
    text = json.dumps(values, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()

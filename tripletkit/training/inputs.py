"""What a training learns from: as it is given, read, and found again to train with it once more."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from tripletkit import defaults
from tripletkit.data.images import Images, open_images
from tripletkit.data.judgements import (
    Judgements,
    JudgementsLike,
    TruthLike,
    find_unchanged,
    read_judgements,
    reopen_judgements,
)
from tripletkit.data.labels import ImageLabels, LabelsLike, read_labels
from tripletkit.data.splits.held_out_draws import hold_out_images
from tripletkit.data.text_files import FileRecord
from tripletkit.data.training_set import TrainingSet
from tripletkit.data.triplets import Triplets, Votes, VotesAs, VotesLike
from tripletkit.errors import (
    DataWarning,
    FewTripletsWarning,
    LeakageWarning,
    ModelFolderError,
    SettingsError,
    SplitError,
    caution,
)
from tripletkit.features.labelled_images import find_labelled, tell_singleton_classes
from tripletkit.features.store import FeatureStore
from tripletkit.model.record import InputsRecord, ModelRecord, VotesRecord
from tripletkit.registry import check_choice

logger = logging.getLogger("tripletkit")


@dataclass(frozen=True)
class TrainingSources:
    """What is learned from and validated on; None for a default, or for what is not given.

    Attributes:
        images: of a folder; without files where features are given.
        judgements: None to draw triplets from labels.
        split: what training and validation must not share.
        val_fraction: the share to set apart.
        groups: of images, as labels: what is held out together.
        refit: validate on held-out draws and train on all triplets, where nothing else is said of
            validation; otherwise a share is set apart once.
    """

    images: Images = field(default_factory=lambda: open_images(None))
    judgements: Judgements | None = None
    labels: LabelsLike | None = None
    val: Judgements | None = None
    val_labels: LabelsLike | None = None
    votes_as: VotesAs | None = None
    split: str | None = None
    val_fraction: float | None = None
    groups: LabelsLike | None = None
    refit: bool = True

    @property
    def has_votes(self) -> bool:
        return self.judgements is not None and self.judgements.votes is not None

    @property
    def takes_votes_as(self) -> VotesAs:
        return self.votes_as or defaults.VOTES_AS

    @property
    def fraction(self) -> float:
        """The share to set apart."""
        if self.pools:
            return 0.0
        return defaults.TRAIN_VAL_FRACTION if self.val_fraction is None else self.val_fraction

    @property
    def pools(self) -> bool:
        """Whether validation is on held-out draws, so that nothing is set apart."""
        is_own = self.val is not None or self.is_split_chosen
        return self.refit and self.judgements is not None and not is_own

    @property
    def is_split_chosen(self) -> bool:
        """Whether the user said how validation is set apart."""
        return self.val_fraction is not None or self.split is not None

    def check(self, *, needs_images: bool) -> None:
        """Refuse what does not go together; images are needed where features are computed."""
        folder = self.images.folder
        if self.judgements is None and self.labels is None:
            raise SettingsError(
                "triplets",
                f"{folder or 'this'} alone says nothing of which images are alike: give "
                "`triplets`, or `labels`.",
            )
        if folder is None and needs_images:
            raise SettingsError("images", "`images`: expected the folder of the images.")
        if folder is not None and not folder.is_dir():
            raise SettingsError("images", f"`images`: expected a folder, got {folder}.")
        self._check_validation()
        if self.votes_as is None or self.has_votes:
            return
        if self.judgements is None:
            raise SettingsError("votes", "`votes_as` needs votes, on rows of `triplets`.")
        raise SettingsError(
            "votes",
            "`votes_as` needs votes: give `votes`, or columns of them in "
            f"{self.judgements.record.name}.",
        )

    def _check_validation(self) -> None:
        if self.groups is not None and (
            self.judgements is None or self.val is not None or self.split not in (None, "image")
        ):
            raise SettingsError(
                "groups",
                "`groups` say which images of `triplets` are held out together: they go with "
                "neither `val`, nor `labels` alone, nor a `split` by anything but image.",
            )
        if self.val is not None and self.is_split_chosen:
            raise SettingsError(
                "val", "`val` excludes `val_fraction` and `split`: the file says it."
            )
        if self.judgements is None and self.split is not None:
            raise SettingsError(
                "split",
                "`split` is for a triplet file; of `labels` images are held out, class by class.",
            )
        if self.split is not None:
            check_choice("split", self.split, defaults.SPLIT_POLICIES)
        if not 0 <= self.fraction < 1:
            raise SettingsError(
                "val_fraction",
                f"`val_fraction`: expected 0 to below 1, got {self.val_fraction!r}.",
            )
        if self.val_labels is None:
            return
        if self.labels is None or self.judgements is not None:
            raise SettingsError(
                "val_labels",
                "`val_labels` goes with `labels` and no triplet file; use `val` with that.",
            )
        if self.is_split_chosen or self.val is not None:
            raise SettingsError(
                "val_labels", "`val_labels` excludes `val`, `val_fraction` and `split`."
            )


def open_sources(
    *,
    triplets: JudgementsLike | None = None,
    names: Sequence[str] | None = None,
    votes: VotesLike | None = None,
    val: JudgementsLike | None = None,
    val_truth: TruthLike | None = None,
    val_votes: VotesLike | None = None,
    **others: Any,
) -> TrainingSources:
    """Open the judgements that are given, as `read_judgements` does, and return them with all
    other sources."""
    if triplets is None and (votes is not None or val_votes is not None):
        raise SettingsError("triplets", "Votes are on the rows of a triplet file: give `triplets`.")
    for name, given in (("val_truth", val_truth), ("val_votes", val_votes)):
        if val is None and given is not None:
            raise SettingsError("val", f"`{name}` needs `val`, which it is of.")
    if val_votes is not None and val_truth is not None:
        raise SettingsError(
            "val_truth", "`val_votes` excludes `val_truth`: what most people said is the truth."
        )
    judgements = of_val = None
    if triplets is not None:
        judgements = read_judgements(triplets, names=names, votes=votes)
    if val is not None:
        of_val = read_judgements(val, names=names, votes=val_votes, truth=val_truth)
    return TrainingSources(judgements=judgements, val=of_val, **others)


# Every image's name and place; triplets, and labels where there are any, over these names; what was
# read, with its SHA-256.
_Read = tuple[Images, TrainingSet, InputsRecord]


def read_inputs(sources: TrainingSources, seed: int, store: FeatureStore) -> _Read:
    """Read judgements, or draw them from labels, and set validation apart."""
    read = _read_labelled if sources.judgements is None else _read_judged
    files, data, record = read(sources, seed, store)
    _warn_of_left_out(data)
    return files, data, replace(record, **sources.images.policy)


def _read_judged(sources: TrainingSources, seed: int, store: FeatureStore) -> _Read:
    """Take judgements as they are given; labels, if any, are beside them."""
    assert sources.judgements is not None
    judgements, record = _take_judgements(sources.judgements, sources.takes_votes_as)
    # Without validation triplets: no rows, over the same names.
    val = judgements.take(np.arange(0))
    if sources.val is not None:
        val, record = _take_val(sources.val, record)
    triplets, val_triplets = judgements.triplets.share_names(val.triplets)
    labels = None
    if sources.labels is not None:
        labels = read_labels(sources.labels, sources.images.folder)
    files = sources.images.find(triplets.names, triplets.first_places(val_triplets))
    same_as = _merge_same_images(files, store)
    triplets, val_triplets = triplets.merge(same_as), val_triplets.merge(same_as)
    groups = None
    if sources.groups is not None:
        group_of = read_labels(sources.groups, sources.images.folder)
        found = ImageLabels.of_files(files.names, files.paths, group_of, files.folder)
        groups = found.merge(same_as, files.names).groups()
        record = replace(record, groups=group_of.record)
    if sources.val is not None:
        data = TrainingSet.join(triplets, val_triplets, judgements.votes, val.votes)
        if n_shared := data.n_shared_images():
            caution(
                f"{n_shared:,} images are in both {triplets.source} and {val.source}; the "
                "validation accuracy will be too high. `tripletkit split` by image avoids it.",
                LeakageWarning,
            )
    else:
        data = _divide(triplets, sources, seed, judgements.votes, groups)
        if judgements.is_random is not None:
            data = _score_on_random(data, judgements)
        record = replace(record, split=data.by, val_fraction=sources.fraction)
    data = data.leave_out_ties(of_training=sources.takes_votes_as != "soft")
    if labels is not None:
        found = ImageLabels.of_files(files.names, files.paths, labels, files.folder)
        data = replace(data, labels=found.merge(same_as, files.names))
        record = replace(record, labels=labels.record)
    return files, data, record


def _read_labelled(sources: TrainingSources, seed: int, store: FeatureStore) -> _Read:
    """Draw judgements from labels, holding images of every class out."""
    assert sources.labels is not None
    labels = read_labels(sources.labels, sources.images.folder)
    source, record = labels.record.name, InputsRecord(None, labels.record)
    val = None
    val_labels: dict[str, str] = {}
    if sources.val_labels is not None:
        opened = read_labels(sources.val_labels, sources.images.folder)
        val_labels, record = opened, replace(record, val_labels=opened.record)
    elif sources.val is None and not sources.is_split_chosen:
        val_labels = labels.parts["val"]
    if val_labels and sources.val_labels is None:
        logger.info("%s: validation is on the images of its validation part.", source)
    label_of: dict[str, str | None] = {**labels, **val_labels}
    places = [source] * len(label_of)
    if sources.val is not None:
        judgements, record = _take_val(sources.val, record)
        val = judgements.decided().triplets
        further = {
            name: place
            for name, place in zip(val.names, val.first_places(), strict=True)
            if name not in label_of
        }
        label_of |= dict.fromkeys(further)
        places += further.values()
    found = find_labelled(label_of, places, sources.images, store)
    names, same_as, classes = found.files.names, found.same_as, found.labels
    if val is not None:
        val = val.over(names).merge(same_as)
        is_held_out = np.isin(np.arange(len(names)), val.rows)
    elif val_labels:
        is_held_out = np.zeros(len(names), dtype=bool)
        is_held_out[same_as[[name in val_labels for name in names]]] = True
    else:
        is_held_out = _set_apart(
            sources,
            lambda fraction: hold_out_images(classes.of_image, fraction, seed, found.images),
        )
        record = replace(record, val_fraction=sources.fraction)
    data = TrainingSet.draw(list(names), classes, is_held_out, found.images, source, seed)
    if val is not None:
        data = replace(TrainingSet.join(data.train, val), labels=classes)
    logger.info(
        "%s: %s classes; drew %s triplets of %s images.",
        source,
        f"{len(classes.classes):,}",
        f"{len(data.train):,}",
        f"{len(np.unique(data.train.rows)):,}",
    )
    tell_singleton_classes(classes, found.images)
    return found.files, data, record


def _take_judgements(judgements: Judgements, votes_as: VotesAs) -> tuple[Judgements, InputsRecord]:
    """Return the judgements with the nearer image second, and their record."""
    votes = judgements.votes
    if votes is None:
        return judgements.turned(), InputsRecord(judgements.record)
    of_votes = judgements.votes_record or judgements.record
    n_turned, n_tied = int(votes.is_for_second.sum()), int(votes.is_tie.sum())
    logger.info(
        "%s: %s of %s triplets turned round, because most people chose the third image; %s tied.",
        of_votes.name,
        f"{n_turned:,}",
        f"{len(votes):,}",
        f"{n_tied:,}",
    )
    in_columns = judgements.votes_record is None
    record = VotesRecord(of_votes, in_columns, votes_as, n_turned, n_tied)
    return judgements.turned(), InputsRecord(judgements.record, votes=record)


def _take_val(val: Judgements, record: InputsRecord) -> tuple[Judgements, InputsRecord]:
    """Return validation judgements with the nearer image second, and what is recorded of them."""
    record = replace(record, val=val.record, val_votes=val.votes_record, val_truth=val.truth_record)
    if val.is_random is not None:
        _tell_of_random(val.is_random)
        val = val.take(val.is_random)
    if val.votes is None and val.truth is None:
        logger.info("%s: taking every second image for the positive (no `val_truth`).", val.source)
    return val.turned(), record


def _score_on_random(data: TrainingSet, judgements: Judgements) -> TrainingSet:
    """Return the set with validation, and draws for it, on questions drawn by chance alone."""
    is_random = judgements.is_random
    assert is_random is not None
    _tell_of_random(is_random)
    lines = judgements.triplets.lines[is_random]
    data = data.keep_for_validation(np.isin(data.val.lines, lines))
    return replace(data, scored_lines=lines)


def _tell_of_random(is_random: np.ndarray) -> None:
    logger.info(
        "Validation is on the random share alone: %s of %s questions. A score on questions that a "
        "model chose would be too low or too high.",
        f"{int(is_random.sum()):,}",
        f"{len(is_random):,}",
    )


def _set_apart(sources: TrainingSources, divide: Callable[[float], Any]) -> Any:
    """Divide by the fraction that is to be set apart, or, unless the user chose it, by none."""
    try:
        return divide(sources.fraction)
    except SplitError as error:
        if sources.is_split_chosen:
            raise
        caution(f"{error}\nTraining goes on without validation.", FewTripletsWarning)
        return divide(0)


def _merge_same_images(files: Images, store: FeatureStore) -> np.ndarray:
    same_as = files.first_of_same(store)
    copies = [(index, first) for index, first in enumerate(same_as) if index != first]
    if copies:
        copy, first = (files.names[index] for index in copies[0])
        caution(
            f"{len(copies):,} names stand for an image that has another name already (such as "
            f"{copy!r} for {first!r}); each image counts as one.",
            DataWarning,
        )
    return same_as


def _divide(
    triplets: Triplets,
    sources: TrainingSources,
    seed: int,
    votes: Votes | None,
    groups: np.ndarray | None,
) -> TrainingSet:
    by = sources.split or defaults.SPLIT_POLICIES[0]
    data: TrainingSet = _set_apart(
        sources,
        lambda fraction: TrainingSet.divide(triplets, by, fraction, seed, votes, groups),
    )
    if by == "random" and sources.fraction:
        caution(
            "a random split can often be solved by remembering the names of pairs; the "
            "shortcut baselines tell. Prefer `split=image`.",
            LeakageWarning,
        )
    return data


def _warn_of_left_out(data: TrainingSet) -> None:
    if data.n_degenerate:
        caution(
            f"{data.n_degenerate:,} triplets name one image twice and are left out; "
            "`tripletkit audit` lists them.",
            DataWarning,
        )
    if data.n_tied:
        logger.info("%s triplets on which people are tied are left out.", f"{data.n_tied:,}")
    if 0 < len(data.val) < defaults.MIN_VAL_TRIPLETS:
        caution(
            f"{len(data.val):,} validation triplets (by {data.by}) are too few to choose an epoch "
            "by or to say much, so the last epoch is kept. Give `val`, or a larger "
            "`val_fraction`.",
            FewTripletsWarning,
        )


def read_training_triplets(inputs: InputsRecord) -> Triplets | None:
    """Return what a model was trained on as anchor, positive, negative; None if it is gone. Where
    people voted, the positive is what most of them chose; ties are left out."""
    if inputs.triplets is None:
        return None
    judgements = reopen_judgements(inputs.triplets, _votes_file(inputs))
    return None if judgements is None else judgements.decided().triplets


def find_sources(
    record: ModelRecord,
    place: Path,
    images: Path | None = None,
    known: TrainingSources | None = None,
    judgements: Judgements | None = None,
) -> TrainingSources:
    """Return what a model was trained on and validated on, to train with it again.

    Those of a model in memory are `known`; `images` is where they are now, if not where they were,
    and `judgements` are to be learned from instead. Of judgements other than those of the training
    nothing is set apart, as the model has learned from images on both sides of any such division.
    """
    found = known or _reopen_sources(record, place, judgements)
    if images is not None:
        found = replace(found, images=found.images.in_folder(images))
    if judgements is None:
        return found
    found = replace(found, judgements=judgements)
    trained_with = record.inputs.triplets
    if trained_with is not None and judgements.record.sha256 == trained_with.sha256:
        return found
    fraction = 0.0 if found.val is None else None
    return replace(found, val_labels=None, split=None, val_fraction=fraction)


def _reopen_sources(
    record: ModelRecord, place: Path, judgements: Judgements | None
) -> TrainingSources:
    """Return what is recorded, from where it was; but `judgements`, if they are given."""
    inputs = record.inputs
    files: dict[str, Any] = {
        name: _find(name, getattr(inputs, name), place)
        for name in ("labels", "groups", "val_truth", "val_votes")
    }
    files["val"] = _reopen("val", inputs.val, place)
    if judgements is None:
        files["val_labels"] = _find("val_labels", inputs.val_labels, place)
    for name in ("labels", "val_labels", "groups"):
        recorded = getattr(inputs, name)
        if files.get(name) and (columns := dict(recorded.read_as).get("columns")):
            where = None if record.images is None else Path(record.images)
            files[name] = read_labels(files[name], where, columns=json.loads(columns))
    votes = inputs.votes
    return open_sources(
        images=open_images(record.images, **inputs.policy),
        triplets=judgements or _reopen("triplets", inputs.triplets, place),
        votes=_find("votes", _votes_file(inputs), place),
        votes_as=None if votes is None else votes.taken_as,
        split=None if inputs.split == "none" else inputs.split,
        val_fraction=inputs.val_fraction,
        **files,
    )


def _votes_file(inputs: InputsRecord) -> FileRecord | None:
    """Return the record of a file of votes alone."""
    votes = inputs.votes
    return votes.file if votes and not votes.in_columns else None


def _reopen(name: str, recorded: FileRecord | None, place: Path) -> Judgements | None:
    """Read judgements as they were read for the training: columns, names, swapped, left out."""
    if recorded is None or _find(name, recorded, place) is None:
        return None
    return reopen_judgements(recorded)


def _find(name: str, recorded: FileRecord | None, place: Path) -> Path | None:
    if recorded is None:
        return None
    path = None if recorded.path is None else Path(recorded.path)
    # Labels may be a folder; what they say is compared when they are read.
    is_there = path is not None and (path.is_dir() or path.is_file())
    is_text = name not in ("labels", "val_labels", "groups")
    if not is_there or (is_text and find_unchanged(recorded) is None):
        how = ", or give the triplets in Python as `triplets=`" if name == "triplets" else ""
        which = "it or its file of names" if "names" in dict(recorded.read_as) else "it"
        raise ModelFolderError(
            f"{recorded.name}: expected the file that {place} was trained with (`{name}`), "
            f"{which} is gone or changed. Bring it back, train anew{how}."
            if path is not None
            else f"{recorded.name}: {place} was trained with it (`{name}`), and it is in no file "
            f"that could be read again. Train anew{how}."
        )
    return path

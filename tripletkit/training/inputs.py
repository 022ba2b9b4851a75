"""What a training learns from, read: judgements, labels, or both; and validation set apart."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import numpy as np

from tripletkit import defaults
from tripletkit.data.images import Images
from tripletkit.data.judgements import Judgements
from tripletkit.data.labels import ImageLabels, read_labels
from tripletkit.data.splits.policies import hold_out_images
from tripletkit.data.training_set import BY_FILE, TrainingSet
from tripletkit.data.triplets import Triplets, Votes, VotesAs
from tripletkit.errors import (
    DataWarning,
    FewTripletsWarning,
    LeakageWarning,
    SplitError,
    caution,
)
from tripletkit.evaluation.validation import chooses_epoch, warn_of_features
from tripletkit.features.labelled_images import find_labelled, tell_singleton_classes
from tripletkit.features.store import FeatureStore
from tripletkit.model.record import InputsRecord, VotesRecord
from tripletkit.progress import Stages
from tripletkit.training.job import Job, TrainingSources
from tripletkit.training.trainer import Workplace

logger = logging.getLogger("tripletkit")


# Every image's name and place; triplets, and labels where there are any, over these names; what was
# read, with its SHA-256.
_Read = tuple[Images, TrainingSet, InputsRecord]


def open_workplace(job: Job, store: FeatureStore, folder: Path | None, stages: Stages) -> Workplace:
    """Read all that a checked job names; weights may be written into the folder."""
    images = job.sources.images
    read = _read_labelled if job.sources.judgements is None else _read_judged
    files, data, record = read(job.sources, job.seed, store)
    _warn_of_left_out(data)
    test = None
    if job.test is not None:
        asked = job.test.triplets
        test = images.find(asked.names, asked.first_places())
    # All that can be wrong with files was found by now; what follows takes seconds.
    encoder = job.open_encoder(folder)
    for part in encoder.parts:
        if part.reason:
            logger.info("Backbone %s.", part.reason)
    collection = encoder.load(files, store, progress=stages("features"))
    test_features = None
    if test is not None:
        of_test = encoder.load(test, store, progress=stages("features"))
        test_features = of_test.features[of_test.is_usable()]
    data = data.keep_usable(collection.is_usable())
    if not len(data.train):
        cause = " after leaving out bad images" if collection.problems else ""
        raise SplitError(f"{data.train.source}: no triplet is left for training{cause}")
    warn_of_features(collection.features, data.train)
    if data.by == BY_FILE and len(data.val):
        warn_of_features(collection.features, data.val)
    return Workplace(
        files,
        data,
        replace(record, **images.policy),
        encoder,
        collection,
        store,
        folder,
        test_features,
        job.output,
        job.resume,
    )


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
    val, val_labels = None, {}
    if sources.val_labels is not None:
        opened = read_labels(sources.val_labels, sources.images.folder)
        val_labels, record = opened.of_name, replace(record, val_labels=opened.record)
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


_T = TypeVar("_T")


def _set_apart(sources: TrainingSources, divide: Callable[[float], _T]) -> _T:
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
    data = _set_apart(
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
    if len(data.val) > 0 and not chooses_epoch(len(data.val)):
        caution(
            f"{len(data.val):,} validation triplets (by {data.by}) are too few to choose an epoch "
            "by or to say much, so the last epoch is kept. Give `val`, or a larger "
            "`val_fraction`.",
            FewTripletsWarning,
        )

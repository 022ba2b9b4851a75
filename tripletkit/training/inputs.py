"""What a training learns from, read: judgements, labels, or both; and validation set apart."""

from __future__ import annotations

import logging
import warnings
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from tripletkit import defaults
from tripletkit.data.images import Images, open_images
from tripletkit.data.judgement_files import is_judgements
from tripletkit.data.judgements import read_judgements
from tripletkit.data.labels import ImageLabels, label_files
from tripletkit.data.splits.stratified import hold_out_images
from tripletkit.data.training_set import (
    TrainingSet,
    divide_training_set,
    draw_training_set,
    join_training_set,
    places_of_names,
    share_names,
)
from tripletkit.data.triplets import Triplets
from tripletkit.data.votes import (
    Votes,
    read_triplets_with_shares,
    turn_to_majority,
)
from tripletkit.errors import (
    AnswerFileError,
    DataWarning,
    FewTripletsWarning,
    LeakageWarning,
    SettingsError,
    SplitError,
)
from tripletkit.evaluation.validation import chooses_epoch
from tripletkit.features.labelled_images import find_labelled, tell_singleton_classes
from tripletkit.features.stores import Store
from tripletkit.model.record import InputsRecord, VotesRecord
from tripletkit.training.opened_sources import (
    as_triplets,
    open_labels,
    open_source,
    open_truth,
    open_votes,
    with_votes,
)
from tripletkit.training.sources import TrainingSources

logger = logging.getLogger("tripletkit")


@dataclass(frozen=True)
class TrainingInputs:
    """What was read and found.

    Attributes:
        files: every image's name and place.
        data: triplets, and labels where there are any, over these names.
        record: what was read, with its SHA-256.
    """

    files: Images
    data: TrainingSet
    record: InputsRecord


def read_inputs(
    sources: TrainingSources,
    seed: int,
    store: Store,
    *,
    skip_bad: bool = False,
    follow_outside: bool = False,
) -> TrainingInputs:
    """Read judgements and labels, find the images, and set validation apart.

    Args:
        sources: checked.
        seed: of what is held out, and of triplets that are drawn.
        store: what remembers which image files are alike.
        skip_bad, follow_outside: see `open_images`.
    Raises:
        TripletkitError: if something is wrong with any of them.
    """
    read = _read_labelled if sources.triplets is None else _read_judged
    found = read(sources, seed, store, skip_bad=skip_bad, follow_outside=follow_outside)
    _warn_of_left_out(found.data)
    return replace(
        found, record=replace(found.record, skip_bad=skip_bad, follow_outside=follow_outside)
    )


def _read_judged(
    sources: TrainingSources, seed: int, store: Store, **find_options: bool
) -> TrainingInputs:
    """Take judgements as they are given; labels, if any, are beside them."""
    triplets, votes, record = _read_triplets(sources)
    # Without validation triplets: no rows, over the same names.
    val, val_votes, truth = triplets.take(np.arange(0)), None, None
    if sources.val is not None:
        val, val_votes, truth, record = _read_val(sources, record)
    triplets, val = share_names(triplets, val)
    labels, of_labels = open_labels(sources.labels, sources.images)
    files = open_images(
        sources.images, triplets.names, places_of_names(triplets, val), **find_options
    )
    same_as = _merge_same_images(files, store)
    triplets, val = triplets.merge(same_as), val.merge(same_as)
    if sources.val is not None:
        data = _join(triplets, val, truth, votes, val_votes)
    else:
        data = _divide(triplets, sources, seed, votes)
        if is_judgements(sources.triplets):
            data = _score_on_random(data, triplets, sources.triplets)
        record = replace(record, split=data.by, val_fraction=sources.fraction)
    data = data.leave_out_ties(of_training=sources.takes_votes_as != "soft")
    if labels:
        found = label_files(files.names, files.paths, labels, sources.images)
        data = replace(data, labels=found.merge(same_as, files.names))
    return TrainingInputs(files, data, replace(record, labels=of_labels))


def _read_labelled(
    sources: TrainingSources, seed: int, store: Store, **find_options: bool
) -> TrainingInputs:
    """Draw judgements from labels, holding images of every class out."""
    labels, of_labels = open_labels(sources.labels, sources.images)
    val_labels, of_val_labels = open_labels(sources.val_labels, sources.images)
    label_of: dict[str, str | None] = {**labels, **val_labels}
    source = of_labels.name
    places = [source] * len(label_of)
    record = InputsRecord(None, of_labels, val_labels=of_val_labels)
    val, truth = None, None
    if sources.val is not None:
        val, _, truth, record = _read_val(sources, record)
        further = [
            (name, place)
            for name, place in zip(val.names, val.first_places(), strict=True)
            if name not in label_of
        ]
        label_of |= {name: None for name, _ in further}
        places += [place for _, place in further]
    found = find_labelled(label_of, places, sources.images, store, **find_options)
    names, same_as, classes = found.files.names, found.same_as, found.labels
    if val is not None:
        val = val.over(names).merge(same_as)
        is_held_out = np.isin(np.arange(len(names)), val.rows)
    elif val_labels:
        is_held_out = np.zeros(len(names), dtype=bool)
        is_held_out[same_as[[name in val_labels for name in names]]] = True
    else:
        is_held_out = _hold_out(classes, sources, found.images, seed)
        record = replace(record, val_fraction=sources.fraction)
    data = draw_training_set(list(names), classes, is_held_out, found.images, source, seed)
    if val is not None:
        data = replace(join_training_set(data.train, val, truth), labels=classes)
    logger.info(
        "%s: %s classes; drew %s triplets of %s images.",
        source,
        f"{len(classes.classes):,}",
        f"{len(data.train):,}",
        f"{len(np.unique(data.train.rows)):,}",
    )
    tell_singleton_classes(classes, found.images)
    return TrainingInputs(found.files, data, record)


def _read_triplets(
    sources: TrainingSources,
) -> tuple[Triplets, Votes | None, InputsRecord]:
    """Return the training triplets, turned to the majority where there are votes, and these."""
    opened, of_triplets = open_source(sources.triplets)
    if not sources.has_votes:
        triplets, votes = with_votes(opened, of_triplets)
        if votes is None:
            if sources.votes_as is not None:
                raise SettingsError(
                    "votes",
                    "`votes_as` needs votes: give `votes` or `fourth_column`, or columns of them "
                    f"in {of_triplets.name}.",
                )
            return triplets, None, InputsRecord(of_triplets)
        of_votes = of_triplets
    elif sources.votes is None:
        triplets, votes = read_triplets_with_shares(opened, of_triplets.name)
        of_votes = of_triplets
    else:
        triplets = as_triplets(opened, of_triplets)
        votes, of_votes = open_votes(sources.votes, triplets)
    n_turned, n_tied = int(votes.is_for_second.sum()), int(votes.is_tie.sum())
    logger.info(
        "%s: %s of %s triplets turned round, because most people chose the third image; %s tied.",
        of_votes.name,
        f"{n_turned:,}",
        f"{len(votes):,}",
        f"{n_tied:,}",
    )
    record = InputsRecord(
        of_triplets,
        votes=VotesRecord(
            of_votes,
            sources.fourth_column,
            not sources.has_votes,
            sources.takes_votes_as,
            n_turned,
            n_tied,
        ),
    )
    return *turn_to_majority(triplets, votes), record


def _read_val(
    sources: TrainingSources, record: InputsRecord
) -> tuple[Triplets, Votes | None, np.ndarray | None, InputsRecord]:
    """Return validation triplets, votes on them, and their truth if they are not turned to it."""
    opened, of_val = open_source(sources.val)
    record = replace(record, val=of_val)
    if sources.fourth_column is not None and sources.val_truth is None:
        turned = turn_to_majority(*read_triplets_with_shares(opened, of_val.name))
        return *turned, None, record
    if sources.val_votes is None and sources.val_truth is None:
        val, votes = with_votes(opened, of_val)
        if is_judgements(sources.val):
            is_kept = np.isin(val.lines, _random_lines(sources.val, len(val)))
            val, votes = val.take(is_kept), votes.take(is_kept)
        if votes is None:
            logger.info(
                "%s: taking every second image for the positive (no `val_truth`).", val.source
            )
            return val, None, None, record
        return *turn_to_majority(val, votes), None, record
    val = as_triplets(opened, of_val)
    if sources.val_votes is not None:
        votes, of_votes = open_votes(sources.val_votes, val)
        return *turn_to_majority(val, votes), None, replace(record, val_votes=of_votes)
    truth, of_truth = open_truth(sources.val_truth)
    if len(truth) != len(val):
        raise AnswerFileError(
            f"{of_truth.name}: expected {len(val):,} truths, one for each triplet of "
            f"{val.source}, got {len(truth):,}"
        )
    return val, None, truth, replace(record, val_truth=of_truth)


def _score_on_random(data: TrainingSet, triplets: Triplets, database: Path) -> TrainingSet:
    """Return the set with validation, and draws for it, on questions drawn by chance alone."""
    lines = _random_lines(database, len(triplets))
    data = data.keep_for_validation(np.isin(data.val.lines, lines))
    return replace(data, scored_lines=lines)


def _random_lines(database: Path, n_questions: int) -> np.ndarray:
    """Return the lines of questions that were drawn by chance, and say that only these count."""
    judgements = read_judgements(database)
    logger.info(
        "Validation is on the random share alone: %s of %s questions. A score on questions that a "
        "model chose would be too low or too high.",
        f"{int(judgements.is_random.sum()):,}",
        f"{n_questions:,}",
    )
    return judgements.triplets.lines[judgements.is_random]


def _hold_out(
    labels: ImageLabels, sources: TrainingSources, images: np.ndarray, seed: int
) -> np.ndarray:
    try:
        return hold_out_images(labels.of_image, sources.fraction, seed, images)
    except SplitError as error:
        if sources.val_fraction is not None:
            raise
        _warn_of_no_validation(error)
        return hold_out_images(labels.of_image, 0, seed, images)


def _merge_same_images(files: Images, store: Store) -> np.ndarray:
    same_as = files.first_of_same(store)
    copies = [(index, first) for index, first in enumerate(same_as) if index != first]
    if copies:
        copy, first = (files.names[index] for index in copies[0])
        warnings.warn(
            f"{len(copies):,} names stand for an image that has another name already (such as "
            f"{copy!r} for {first!r}); each image counts as one.",
            DataWarning,
            stacklevel=2,
        )
    return same_as


def _join(
    triplets: Triplets,
    val: Triplets,
    truth: np.ndarray | None,
    votes: Votes | None,
    val_votes: Votes | None,
) -> TrainingSet:
    data = join_training_set(triplets, val, truth, votes, val_votes)
    if n_shared := data.n_shared_images():
        warnings.warn(
            f"{n_shared:,} images are in both {triplets.source} and {val.source}; the "
            "validation accuracy will be too high. `tripletkit split` by image avoids it.",
            LeakageWarning,
            stacklevel=2,
        )
    return data


def _divide(
    triplets: Triplets, sources: TrainingSources, seed: int, votes: Votes | None
) -> TrainingSet:
    by = sources.split or defaults.SPLIT_POLICIES[0]
    fraction = sources.fraction
    try:
        data = divide_training_set(triplets, by, fraction, seed, votes)
    except SplitError as error:
        if sources.is_split_chosen:
            raise
        _warn_of_no_validation(error)
        data = divide_training_set(triplets, by, 0, seed, votes)
    if by == "random" and fraction:
        warnings.warn(
            "a random split can often be solved by remembering the names of pairs; the "
            "shortcut baselines tell. Prefer `split=image`.",
            LeakageWarning,
            stacklevel=2,
        )
    return data


def _warn_of_no_validation(error: SplitError) -> None:
    warnings.warn(
        f"{error}\nTraining goes on without validation.", FewTripletsWarning, stacklevel=3
    )


def _warn_of_left_out(data: TrainingSet) -> None:
    if data.n_degenerate:
        warnings.warn(
            f"{data.n_degenerate:,} triplets name one image twice and are left out; "
            "`tripletkit audit` lists them.",
            DataWarning,
            stacklevel=2,
        )
    if data.n_tied:
        logger.info("%s triplets on which people are tied are left out.", f"{data.n_tied:,}")
    if len(data.val) > 0 and not chooses_epoch(len(data.val)):
        warnings.warn(
            f"{len(data.val):,} validation triplets (by {data.by}) are too few to choose an epoch "
            "by or to say much, so the last epoch is kept. Give `val`, or a larger "
            "`val_fraction`.",
            FewTripletsWarning,
            stacklevel=2,
        )

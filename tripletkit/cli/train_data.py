"""What `tripletkit train` learns from: judgements, labels, or both, and what it is checked on."""

from __future__ import annotations

import hashlib
import io
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tripletkit import defaults
from tripletkit.cli.console import say, warn
from tripletkit.cli.labelled import read_label_source, say_singleton_classes
from tripletkit.cli.options import input_source
from tripletkit.cli.sources import given_features, need_images
from tripletkit.cli.train_text import chooses_epoch
from tripletkit.cli.votes import check_votes_options
from tripletkit.errors import SplitError

if TYPE_CHECKING:
    import numpy as np

    from tripletkit.data.labels import ImageLabels
    from tripletkit.data.training_set import TrainingSet
    from tripletkit.data.triplets import Triplets
    from tripletkit.data.votes import Votes, VotesAs
    from tripletkit.features.collection import NamedFiles


# Options of the command that `TrainingSources` takes.
SOURCE_OPTIONS = (
    "labels",
    "val_labels",
    "val_file",
    "val_truth",
    "val_fraction",
    "split_by",
    "votes_file",
    "fourth_column",
    "votes_as",
    "val_votes",
)


@dataclass(frozen=True)
class TrainingSources:
    """What the user named.

    Attributes:
        triplets: file of judgements; None to draw triplets from labels.
        images: folder of the images; None where features are given.
        labels, val_labels: CSV, or folder with a subfolder for each class.
        val_file, val_truth: validation triplets, and which of their images is the positive.
        val_fraction, split_by: how to set validation apart; None for the default.
        votes_file, val_votes: votes on the triplets and on those for validation.
        fourth_column: what the fourth column of both triplet files is, if they have one.
        votes_as: what training makes of votes; None for the default.
    """

    triplets: Path | None
    images: Path | None
    labels: Path | None
    val_labels: Path | None
    val_file: Path | None
    val_truth: Path | None
    val_fraction: float | None
    split_by: str | None
    votes_file: Path | None
    fourth_column: str | None
    votes_as: VotesAs | None
    val_votes: Path | None

    @classmethod
    def of_arguments(
        cls, triplets: Path | None, images: Path | None, **options: Any
    ) -> TrainingSources:
        """Sort the arguments out and refuse what does not go together.

        Args:
            triplets, images: the first and the second argument; a single one is the folder.
        """
        is_given = given_features() is not None
        takes_folder = triplets is not None and triplets.is_dir()
        if images is None and (takes_folder or not is_given):
            triplets, images = None, triplets
        sources = cls(triplets, images, **options)
        need_images(images)
        if triplets is None and sources.labels is None:
            raise click.UsageError(
                f"Missing argument 'IMAGES': {images} alone says nothing of which images are "
                "alike. Give a triplet file before it, or --labels."
            )
        if images is not None and not images.is_dir():
            raise click.BadParameter(f"{images} is not a folder.", param_hint="'IMAGES'")
        if triplets is not None and triplets.is_dir():
            raise click.BadParameter(f"{triplets} is a folder.", param_hint="'TRIPLETS'")
        sources._check_validation()
        sources._check_votes()
        return sources

    @property
    def has_votes(self) -> bool:
        return self.votes_file is not None or self.fourth_column is not None

    @property
    def takes_votes_as(self) -> VotesAs:
        return self.votes_as or defaults.VOTES_AS

    def weigh(self, data: TrainingSet) -> np.ndarray | None:
        """Return the weights of the training triplets' losses; None without votes."""
        from tripletkit.data.votes import make_loss_weights

        if data.train_votes is None:
            return None
        return make_loss_weights(data.train_votes, self.takes_votes_as)

    def _check_votes(self) -> None:
        check_votes_options(self.votes_file, self.fourth_column)
        if self.has_votes and self.triplets is None:
            raise click.UsageError("Votes are on the rows of a triplet file: give TRIPLETS.")
        if not self.has_votes and self.votes_as is not None:
            raise click.UsageError("--votes-as needs votes: give --votes or --fourth-column.")
        if self.val_votes is None:
            return
        if self.val_file is None:
            raise click.UsageError("--val-votes needs --val, which the votes are on.")
        if self.val_truth is not None:
            raise click.UsageError(
                "--val-votes excludes --val-truth: what most people said is the truth."
            )
        if self.triplets is None or self.fourth_column is not None:
            raise click.UsageError("--val-votes goes with TRIPLETS of three columns.")

    def _check_validation(self) -> None:
        chosen = self.val_fraction is not None or self.split_by is not None
        if self.val_file is not None and chosen:
            raise click.UsageError("--val excludes --val-fraction and --split: the file says it.")
        if self.val_truth is not None and self.val_file is None:
            raise click.UsageError("--val-truth needs --val, whose truth it is.")
        if self.triplets is None and self.split_by is not None:
            raise click.UsageError(
                "--split is for a triplet file; of --labels images are held out, class by class."
            )
        if self.val_labels is None:
            return
        if self.labels is None or self.triplets is not None:
            raise click.UsageError(
                "--val-labels goes with --labels and no triplet file; use --val with that."
            )
        if chosen or self.val_file is not None:
            raise click.UsageError("--val-labels excludes --val, --val-fraction and --split.")


@dataclass(frozen=True)
class TrainingInput:
    """What was read and found.

    Attributes:
        files: every image's name and place.
        data: triplets, and labels where there are any, over these names.
        record: for `model.json`: what was read, with its SHA-256.
    """

    files: NamedFiles
    data: TrainingSet
    record: dict[str, Any]


def read_training_input(
    sources: TrainingSources,
    seed: int,
    cache: Path | None,
    *,
    skip_bad: bool,
    follow_outside: bool,
) -> TrainingInput:
    """Read judgements and labels, find the images, and set validation apart.

    Raises:
        TripletkitError: if something is wrong with any of them.
    """
    read = _read_labelled if sources.triplets is None else _read_judged
    found = read(sources, seed, cache, skip_bad=skip_bad, follow_outside=follow_outside)
    _warn_of_left_out(found.data)
    return found


def _read_judged(
    sources: TrainingSources, seed: int, cache: Path | None, **find_options: bool
) -> TrainingInput:
    """Take judgements from a file; labels, if any, are beside them."""
    import numpy as np

    from tripletkit.data.labels import label_files
    from tripletkit.data.training_set import places_of_names, share_names
    from tripletkit.data.triplets import read_bytes
    from tripletkit.features.collection import find_files

    data_bytes, name = read_bytes(input_source(sources.triplets))
    record = {"training_file": _describe_file(sources.triplets, name, data_bytes)}
    asked, votes = _read_asked(sources, data_bytes, name, record)
    # Without a validation file: no rows, over the same names.
    val, val_votes = asked.take(np.arange(0)), None
    if sources.val_file:
        val, val_votes = _read_judged_val(sources)
    asked, val = share_names(asked, val)
    truth = None
    if sources.val_file and val_votes is None:
        truth = _read_val_truth(val, sources.val_truth)
    labels = sources.labels and read_label_source(sources.labels, sources.images)
    files = find_files(asked.names, places_of_names(asked, val), sources.images, **find_options)
    same_as = _find_same_images(files, cache)
    asked, val = asked.merge(same_as), val.merge(same_as)
    if sources.val_file:
        data = _join(asked, val, truth, votes, val_votes)
    else:
        data = _divide(asked, sources, seed, votes)
    data = data.leave_out_ties(of_training=sources.takes_votes_as != "soft")
    if labels:
        found = label_files(files.names, files.paths, labels, sources.images)
        data = replace(data, labels=found.merge(same_as, files.names))
        record["labels_file"] = _describe_labels(sources.labels, labels)
    return TrainingInput(files, data, record)


def _read_labelled(
    sources: TrainingSources, seed: int, cache: Path | None, **find_options: bool
) -> TrainingInput:
    """Draw judgements from labels, holding images of every class out."""
    import numpy as np

    from tripletkit.data.labels import ImageLabels
    from tripletkit.data.training_set import (
        draw_training_set,
        join_training_set,
        places_of_names,
        share_names,
    )
    from tripletkit.data.triplets import Triplets
    from tripletkit.features.collection import find_files

    labels = read_label_source(sources.labels, sources.images)
    val_labels = {}
    if sources.val_labels is not None:
        val_labels = read_label_source(sources.val_labels, sources.images)
    labels = {**labels, **val_labels}
    source = str(sources.labels)
    # As triplets without rows, so that names of a validation file join them as those of another do.
    listed = Triplets(list(labels), np.empty((0, 3), np.int32), np.empty(0, np.int64), source)
    val = _read_val(sources) or listed.take(np.arange(0))
    listed, val = share_names(listed, val)
    truth = _read_val_truth(val, sources.val_truth) if sources.val_file else None
    places = [source] * len(labels) + places_of_names(listed, val)[len(labels) :]
    files = find_files(listed.names, places, sources.images, **find_options)
    same_as = _find_same_images(files, cache)
    val = val.merge(same_as)
    classes = ImageLabels.of_names(files.names, labels).merge(same_as, files.names)
    is_there = files.is_there()
    images = np.flatnonzero(is_there & (same_as == np.arange(len(same_as))))
    if sources.val_file is not None:
        is_held_out = np.isin(np.arange(len(same_as)), val.rows)
    elif val_labels:
        is_held_out = np.zeros(len(same_as), dtype=bool)
        is_held_out[same_as[[name in val_labels for name in files.names]]] = True
    else:
        is_held_out = _hold_out(classes, sources, images, seed)
    data = draw_training_set(files.names, classes, is_held_out, images, source, seed)
    if sources.val_file is not None:
        data = replace(join_training_set(data.train, val, truth), labels=classes)
    _say_what_was_drawn(data, images)
    # The triplets can be drawn again, but there is no file of them.
    record = _describe_labels(sources.labels, labels)
    return TrainingInput(
        files, data, {"training_file": record | {"path": None}, "labels_file": record}
    )


def _hold_out(
    labels: ImageLabels, sources: TrainingSources, images: np.ndarray, seed: int
) -> np.ndarray:
    from tripletkit.data.splits.stratified import hold_out_images

    fraction = sources.val_fraction
    if fraction is None:
        fraction = defaults.TRAIN_VAL_FRACTION
    try:
        return hold_out_images(labels.of_image, fraction, seed, images)
    except SplitError as error:
        if sources.val_fraction is not None:
            raise
        warn(f"{error}\nTraining goes on without validation.")
        return hold_out_images(labels.of_image, 0, seed, images)


def _say_what_was_drawn(data: TrainingSet, images: np.ndarray) -> None:
    import numpy as np

    n_images = len(np.unique(data.train.rows))
    say(
        f"{data.train.source}: {len(data.labels.classes):,} classes; drew {len(data.train):,} "
        f"triplets of {n_images:,} images."
    )
    say_singleton_classes(data.labels, images)


def _describe_file(path: Path, name: str, data_bytes: bytes) -> dict[str, str | None]:
    return {
        "name": name,
        "path": None if str(path) == "-" else str(path.absolute()),
        "sha256": hashlib.sha256(data_bytes).hexdigest(),
    }


def _describe_labels(path: Path, labels: dict[str, str]) -> dict[str, str | None]:
    """Return the record of labels; the hash is of what was read, which may be a folder."""
    text = json.dumps(sorted(labels.items()), ensure_ascii=False, separators=(",", ":"))
    return _describe_file(path, str(path), text.encode("utf-8", errors="surrogateescape"))


def _read_val(sources: TrainingSources) -> Triplets | None:
    from tripletkit.data.triplets import read_triplets

    return read_triplets(input_source(sources.val_file)) if sources.val_file else None


def _read_val_truth(val: Triplets, val_truth: Path | None) -> np.ndarray | None:
    from tripletkit.errors import AnswerFileError
    from tripletkit.evaluation.answers import read_truth

    if val_truth is None:
        say(f"{val.source}: taking every second image for the positive (no --val-truth).")
        return None
    truth = read_truth(input_source(val_truth))
    if len(truth) != len(val):
        raise AnswerFileError(
            f"{truth.source}: expected {len(val):,} truths, one for each triplet of "
            f"{val.source}, got {len(truth):,}"
        )
    return truth.labels


def _find_same_images(files: NamedFiles, cache: Path | None) -> np.ndarray:
    from tripletkit.features.collection import find_same_images
    from tripletkit.features.store import FeatureStore

    with FeatureStore(cache) as store:
        same_as = find_same_images(files, store)
    copies = [(index, first) for index, first in enumerate(same_as) if index != first]
    if copies:
        copy, first = (files.names[index] for index in copies[0])
        warn(
            f"{len(copies):,} names stand for an image that has another name already (such as "
            f"{copy!r} for {first!r}); each image counts as one."
        )
    return same_as


def _read_asked(
    sources: TrainingSources, data_bytes: bytes, name: str, record: dict[str, Any]
) -> tuple[Triplets, Votes | None]:
    """Return the training triplets, turned to the majority where there are votes, and these.

    Args:
        data_bytes, name: of the triplet file.
        record: what is known of the votes is added to it.
    """
    from tripletkit.data.triplets import read_bytes, read_triplets
    from tripletkit.data.vote_files import read_triplets_with_shares, read_votes
    from tripletkit.data.votes import turn_to_majority

    source = io.BytesIO(data_bytes)
    if not sources.has_votes:
        return read_triplets(source, name), None
    if sources.votes_file is None:
        triplets, votes = read_triplets_with_shares(source, name)
        of_votes = record["training_file"]
    else:
        triplets = read_triplets(source, name)
        vote_bytes, votes_name = read_bytes(input_source(sources.votes_file))
        read = read_votes(io.BytesIO(vote_bytes), votes_name)
        read.check_questions(triplets)
        votes, of_votes = read.votes, _describe_file(sources.votes_file, votes_name, vote_bytes)
    n_turned, n_tied = int(votes.is_for_second.sum()), int(votes.is_tie.sum())
    record["votes"] = of_votes | {
        "fourth_column": sources.fourth_column,
        "as": sources.takes_votes_as,
        "n_turned": n_turned,
        "n_tied": n_tied,
    }
    say(
        f"{of_votes['name']}: {n_turned:,} of {len(votes):,} triplets turned round, because most "
        f"people chose the third image; {n_tied:,} tied."
    )
    return turn_to_majority(triplets, votes)


def _read_judged_val(sources: TrainingSources) -> tuple[Triplets, Votes | None]:
    """Return the validation triplets, turned to the majority where there are votes, and these."""
    from tripletkit.data.vote_files import read_triplets_with_shares, read_votes
    from tripletkit.data.votes import turn_to_majority

    if sources.fourth_column is not None and sources.val_truth is None:
        return turn_to_majority(*read_triplets_with_shares(input_source(sources.val_file)))
    val = _read_val(sources)
    if sources.val_votes is None:
        return val, None
    read = read_votes(input_source(sources.val_votes))
    read.check_questions(val)
    return turn_to_majority(val, read.votes)


def _join(
    triplets: Triplets,
    val: Triplets,
    truth: np.ndarray | None,
    votes: Votes | None,
    val_votes: Votes | None,
) -> TrainingSet:
    from tripletkit.data.training_set import join_training_set

    data = join_training_set(triplets, val, truth, votes, val_votes)
    if n_shared := data.n_shared_images():
        warn(
            f"{n_shared:,} images are in both {triplets.source} and {val.source}; the "
            "validation accuracy will flatter. `tripletkit split --by image` avoids it."
        )
    return data


def _divide(
    triplets: Triplets, sources: TrainingSources, seed: int, votes: Votes | None
) -> TrainingSet:
    from tripletkit.data.training_set import divide_training_set

    by = sources.split_by or defaults.SPLIT_POLICIES[0]
    fraction = sources.val_fraction
    if fraction is None:
        fraction = defaults.TRAIN_VAL_FRACTION
    try:
        data = divide_training_set(triplets, by, fraction, seed, votes)
    except SplitError as error:
        if sources.val_fraction is not None or sources.split_by is not None:
            raise
        warn(f"{error}\nTraining goes on without validation.")
        data = divide_training_set(triplets, by, 0, seed, votes)
    if by == "random" and fraction:
        warn(
            "a random split can often be solved by remembering the names of pairs; the "
            "controls below tell. Prefer --split image or component."
        )
    return data


def _warn_of_left_out(data: TrainingSet) -> None:
    if data.n_degenerate:
        warn(
            f"{data.n_degenerate:,} triplets name one image twice and are left out; "
            "`tripletkit audit` lists them."
        )
    if data.n_tied:
        say(f"{data.n_tied:,} triplets on which people are tied are left out.")
    if len(data.val) > 0 and not chooses_epoch(len(data.val)):
        warn(
            f"{len(data.val):,} validation triplets (by {data.by}) are too few to choose an epoch "
            "by or to say much, so the last epoch is kept. Give --val FILE, a larger "
            "--val-fraction, or --split component."
        )

"""What every command does that looks at a trained model: find triplets, embeddings and labels."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tripletkit.cli.collections import open_collection
from tripletkit.cli.console import prepare_tensorflow, say
from tripletkit.cli.options import (
    INPUT_FILE,
    INPUT_FOLDER,
    cache_option,
    follow_outside_option,
    force_option,
    group_options,
    input_source,
    on_bad_image_option,
)
from tripletkit.cli.sources import weights_option
from tripletkit.errors import TripletFileError

if TYPE_CHECKING:
    from tripletkit.data.outputs import Outputs
    from tripletkit.data.triplets import Triplets
    from tripletkit.features.sources import GivenWeights
    from tripletkit.model.model_folder import ModelFolder
    from tripletkit.report.model_view import ModelView

# What `open_view` takes.
view_options = group_options(
    click.option(
        "--triplets",
        "triplets_file",
        type=INPUT_FILE,
        help="Triplets whose answers are known.  [default: those of the training]",
    ),
    click.option(
        "--truth",
        "truth_file",
        type=INPUT_FILE,
        help="Truth of --triplets, where their second and third images are in chance order.",
    ),
    click.option(
        "--images",
        type=INPUT_FOLDER,
        help="Folder of the images.  [default: the one used in training]",
    ),
    click.option(
        "--labels",
        "labels_file",
        type=INPUT_FILE,
        help="CSV with the columns name and label, for the map and the confusion matrix.",
    ),
    click.option(
        "--projection",
        type=click.Choice(["pca", "umap"]),
        default="pca",
        show_default=True,
        help="How the map of embeddings is made; umap needs tripletkit[map].",
    ),
    weights_option,
    on_bad_image_option,
    follow_outside_option,
    cache_option,
    force_option,
)


def make_outputs(
    model: ModelFolder, *, images: Path | None, force: bool, **view_settings: Any
) -> Outputs:
    """Return what may be written by a command that takes `view_options`."""
    from tripletkit.data.outputs import Outputs

    record = model.record
    inputs = [view_settings[name] for name in ("triplets_file", "truth_file", "labels_file")]
    inputs += view_settings["weights"].values()
    inputs += [
        Path(record[key]["path"])
        for key in ("training_file", "votes")
        if record.get(key) and record[key]["path"] is not None
    ]
    return Outputs(inputs, image_folders=[images or model.image_folder], overwrite=force)


def open_view(
    model: ModelFolder,
    *,
    triplets_file: Path | None,
    truth_file: Path | None,
    images: Path | None,
    labels_file: Path | None,
    weights: GivenWeights,
    on_bad_image: str,
    follow_outside: bool,
    cache: Path | None,
) -> ModelView:
    """Answer triplets with a model and gather what there is to show."""
    from tripletkit.data.labels import read_labels
    from tripletkit.features.collection import find_files
    from tripletkit.report.model_view import ModelView

    if truth_file is not None and triplets_file is None:
        raise click.UsageError("--truth needs --triplets, whose truth it is.")
    labels = read_labels(input_source(labels_file)) if labels_file else {}
    triplets = _read(model, triplets_file, truth_file)
    skip_bad = on_bad_image == "skip"
    files = find_files(
        triplets.names,
        triplets.first_places(),
        images or model.image_folder,
        skip_bad=skip_bad,
        follow_outside=follow_outside,
    )
    prepare_tensorflow()
    collection = open_collection(
        files,
        model.find_source(weights),
        cache,
        skip_bad=skip_bad,
    )
    from tripletkit.model.heads import embed

    return ModelView(
        model=model,
        triplets=triplets,
        is_training=triplets_file is None,
        paths=files.paths,
        features=collection.features,
        embeddings=embed(model.load_head(), collection.features),
        labels=labels,
    )


def find_training_file(model: ModelFolder) -> Path | None:
    """Return where a model's training file still is as it was, else None."""
    return _find_unchanged(model.record["training_file"])


def read_training_triplets(model: ModelFolder) -> Triplets | None:
    """Return what a model was trained on as anchor, positive, negative; None if it is gone.

    Where people voted, the positive is what most of them chose; ties are left out.
    """
    from tripletkit.data.triplets import read_triplets
    from tripletkit.data.vote_files import read_triplets_with_shares, read_votes
    from tripletkit.data.votes import turn_to_majority

    path = find_training_file(model)
    if path is None:
        return None
    of_votes = model.record.get("votes")
    if of_votes is None:
        return read_triplets(path)
    if of_votes["fourth_column"] is not None:
        triplets, votes = read_triplets_with_shares(path)
    else:
        votes_path = _find_unchanged(of_votes)
        if votes_path is None:
            return None
        triplets, votes = read_triplets(path), read_votes(votes_path).votes
    triplets, votes = turn_to_majority(triplets, votes)
    return triplets.take(~votes.is_tie)


def _find_unchanged(recorded: dict[str, str | None]) -> Path | None:
    """Return the path of a file of the record if it is still as it was, else None."""
    from tripletkit.features.weights_files import file_sha256

    if recorded["path"] is None:
        return None
    path = Path(recorded["path"])
    return path if path.is_file() and file_sha256(path) == recorded["sha256"] else None


def describe_missing_triplets(model: ModelFolder) -> str:
    """Say why a model's training triplets cannot be read again."""
    labels = model.record.get("labels_file")
    if labels is not None and labels["sha256"] == model.record["training_file"]["sha256"]:
        return "they were drawn from labels"
    return "they are gone or changed"


def _read(model: ModelFolder, triplets_file: Path | None, truth_file: Path | None) -> Triplets:
    from tripletkit.data.triplets import read_triplets
    from tripletkit.evaluation.answers import read_truth
    from tripletkit.report.model_view import turn_to_truth

    if triplets_file is None:
        triplets = read_training_triplets(model)
        if triplets is None:
            raise TripletFileError(
                f"{model.record['training_file']['name']}: expected the triplets that {model.path} "
                f"was trained on, {describe_missing_triplets(model)}. Give some with --triplets "
                "FILE."
            )
        say(f"No --triplets: taking those of the training, {find_training_file(model)}.")
        return triplets.take(~triplets.is_degenerate())
    triplets = read_triplets(input_source(triplets_file))
    if truth_file is None:
        say(f"{triplets_file}: taking every second image for the positive (no --truth).")
        return triplets
    return turn_to_truth(triplets, read_truth(input_source(truth_file)))

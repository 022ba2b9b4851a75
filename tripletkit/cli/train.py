"""`tripletkit train`: from judgements and images to a model folder."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tripletkit.cli.console import show_training, stage_bars
from tripletkit.cli.options import (
    INPUT_PATH,
    SectionedCommand,
    cache_option,
    follow_outside_option,
    force_option,
    input_source,
    json_option,
    on_bad_image_option,
    quiet_option,
    section,
    seed_option,
)
from tripletkit.cli.settings import gather_settings
from tripletkit.cli.sources import check_weights, encoder_details, given_features, need_images
from tripletkit.cli.train_options import (
    data_options,
    model_options,
    tensorboard_option,
    training_options,
    validation_options,
)

if TYPE_CHECKING:
    from tripletkit.features.feature_parts import GivenWeights


@click.command(cls=SectionedCommand)
@click.argument("triplets", type=INPUT_PATH, required=False)
@click.argument("images", type=INPUT_PATH, required=False, metavar="IMAGES")
@data_options
@validation_options
@model_options
@training_options
@section(
    "Running",
    seed_option,
    on_bad_image_option,
    follow_outside_option,
    cache_option,
    tensorboard_option,
    force_option,
    json_option,
    quiet_option,
)
def train(
    triplets: Path | None,
    images: Path | None,
    output: Path,
    backbone: list[str],
    weights: GivenWeights,
    views: list[str] | None,
    image_size: int | None,
    unseen_classes: float | None,
    test: Path | None,
    settings: tuple[str, ...],
    settings_file: Path | None,
    tensorboard: Path | None,
    on_bad_image: str,
    follow_outside: bool,
    cache: Path | None,
    budget: float | None,
    learning_curve: bool,
    resume: bool,
    force: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Train a model from judgements `anchor positive negative` over a folder of images.

    \b
    tripletkit train train.txt images/
    tripletkit train train.txt images/ -o m1 --val val.txt --val-truth val_truth.csv
    tripletkit train train.txt images/ --backbone resnet50 --weights resnet50_notop.h5
    tripletkit train train.txt images/ --recipe best
    tripletkit train train.txt images/ -s margin=0.3 -s dropout=0.4
    tripletkit train images/ --labels labels.csv --loss center
    tripletkit train train.txt images/ --backbone cnn --image-size 32 --dim 8

    Every image goes through the frozen backbone once; its features are kept on disk, so that
    the next run starts at once. A third of the images is held out, again and again, and the
    answers about them are pooled: that tells how the model does on images it has not seen, beside
    the frozen features alone, and chooses for how long to train. Then the model is trained on all
    triplets. With --recipe best the same draws choose what it is made of. With --recipe residual
    or best a second number tells how it does on classes of images that training has not seen.

    With --labels and no triplet file, images of every class are held out and triplets are
    drawn from the labels, or mined from batches; `tripletkit losses` lists what else can be
    learned from labels.

    With --backbone cnn the backbone is trained too, from the pixels, with a checkpoint after
    every epoch that --resume goes on from. `tripletkit finetune` trains the last blocks of any
    other backbone further.
    """
    check_weights(backbone, weights)
    from tripletkit.data.outputs import Outputs

    triplets, images = _sort_arguments(triplets, images, options["labels"])
    outputs = Outputs(
        [triplets, test, settings_file, *weights.values(), *_paths(options)],
        image_folders=[images],
        overwrite=force,
    )
    outputs.folder(output)
    flags = {name: options.pop(name) for name in _SETTING_FLAGS}
    given = gather_settings(flags, settings, settings_file)

    from tripletkit import defaults
    from tripletkit.data.judgements import open_judgements
    from tripletkit.training.job import TrainingJob
    from tripletkit.training.sources import open_sources

    options["votes"] = options.pop("votes_file")
    sources = open_sources(
        images=images,
        triplets=triplets and input_source(triplets),
        **{
            name: input_source(value) if isinstance(value, Path) else value
            for name, value in options.items()
        },
    )
    job = TrainingJob(
        sources,
        settings=given,
        backbones=backbone,
        weights=weights,
        views=views or [defaults.VIEWS],
        image_size=image_size,
        features=given_features(),
        **encoder_details(),
        unseen_classes=unseen_classes,
        test=test and open_judgements(input_source(test)),
        skip_bad=on_bad_image == "skip",
        follow_outside=follow_outside,
        cache=cache,
        budget_s=budget,
        learning_curve=learning_curve,
    ).checked()
    from tripletkit.training import run

    with stage_bars() as stages:
        result = run.train(
            job,
            output,
            overwrite=force,
            resume=resume,
            tensorboard=tensorboard,
            command=shlex.join(["tripletkit", *sys.argv[1:]]),
            stages=stages,
        )
    show_training(output, result, as_json)


# Settings with a flag of their own; all others are given by -s.
_SETTING_FLAGS = ("recipe", "dim", "distance", "loss", "mining", "epochs", "seed")


def _sort_arguments(
    triplets: Path | None, images: Path | None, labels: Path | None
) -> tuple[Path | None, Path | None]:
    """Return triplets and image folder; a single argument is the folder, with --labels."""
    takes_folder = triplets is not None and triplets.is_dir()
    if images is None and (takes_folder or given_features() is None):
        triplets, images = None, triplets
    need_images(images)
    if triplets is None and images is not None and not images.is_dir():
        raise click.UsageError(
            f"Missing argument 'IMAGES': the folder of the images that {images} names. For "
            f"example: tripletkit train {images} images/"
        )
    if triplets is None and labels is None:
        raise click.UsageError(
            f"Missing argument 'IMAGES': {images} alone says nothing of which images are alike. "
            "Give a triplet file before it, or --labels."
        )
    if images is not None and not images.is_dir():
        raise click.BadParameter(f"{images} is not a folder.", param_hint="'IMAGES'")
    if triplets is not None and triplets.is_dir():
        raise click.BadParameter(f"{triplets} is a folder.", param_hint="'TRIPLETS'")
    return triplets, images


def _paths(options: dict[str, Any]) -> list[Path]:
    return [value for value in options.values() if isinstance(value, Path)]

import re
from pathlib import Path
from typing import Any

import click

import tripletkit as tk
from tripletkit import defaults
from tripletkit.cli.commands import command, first, section, takes
from tripletkit.cli.options import (
    backbone_options,
    choice_of,
    features_option,
    groups_option,
    output_option,
    running_options,
    say_where,
    seed_option,
    settings_options,
    this_line,
    votes_option,
)
from tripletkit.cli.parameters import (
    INPUT_FILE,
    JUDGEMENTS,
    LABELS,
    MODEL_FOLDER,
    NAMED_PATH,
    FiniteRange,
    InputPath,
    WholeRange,
)

# Networks that halve five times see nothing below, and memory ends above.
_MIN_IMAGE_SIZE_PX = 32
_MAX_IMAGE_SIZE_PX = 1024


_SECONDS = {"": 1.0, "s": 1.0, "sec": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}


def _parse_time(value: str | float) -> float:
    """Return seconds, from a number and its unit such as `90s` or `2min`."""
    if isinstance(value, int | float):
        return float(value)
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([a-z]*)", value.strip().lower())
    if found is None or found[2] not in _SECONDS:
        raise click.BadParameter(f"expected a time such as 90s, 2min or 1h, got {value!r}")
    return float(found[1]) * _SECONDS[found[2]]


data_options = section(
    "Data",
    output_option(
        "Model folder to write.",
        type=MODEL_FOLDER,
        required=False,
        default=defaults.MODEL_FOLDER,
    ),
    click.option(
        "--labels",
        type=LABELS,
        help="Classes of the images: a CSV with the columns name and label, or a folder with a "
        "subfolder for each class. Without TRIPLETS these are drawn from the labels.",
    ),
    votes_option("TRIPLETS"),
    click.option(
        "--votes-as",
        type=click.Choice(["soft", "weight", "majority"]),
        help="What training makes of votes. soft: both ways round, each as often as people said "
        "it. weight: what most said, weighed by their lead. majority: what most said.  "
        f"[default: {defaults.VOTES_AS}]",
    ),
)

validation_options = section(
    "Validation",
    click.option("--val", type=JUDGEMENTS, help="File of validation triplets."),
    click.option(
        "--val-truth",
        type=INPUT_FILE,
        help="Truth of --val, where its second and third images stand in chance order.",
    ),
    click.option(
        "--val-votes",
        type=INPUT_FILE,
        help="Votes on --val, as --votes has them; what most people said is its truth.",
    ),
    click.option(
        "--val-labels",
        type=LABELS,
        help="Labelled images to validate on, with --labels; instead of a share of those.",
    ),
    click.option(
        "--refit/--no-refit",
        default=True,
        show_default=False,
        help="Validate on held-out draws: train without a third of the images, again and again, "
        "and pool the answers about them; then train the model on all triplets. --no-refit sets a "
        "share apart once, and the model never sees it, as with --val-fraction or --split; "
        "--recipe best chooses by draws all the same.  "
        "[default: --refit, for triplet files and pretrained backbones]",
    ),
    click.option(
        "--budget",
        "budget_s",
        type=_parse_time,
        metavar="TIME",
        help="Time that held-out draws may take, such as 90s or 2min; the first three are always "
        "made. Their number then depends on the machine.  [default: whole rounds of three until "
        f"{defaults.POOLED_TRIPLETS:,} answers are pooled ({defaults.WEIGHED_TRIPLETS:,} with "
        f"--recipe best), {defaults.MAX_DRAW_ROUNDS} rounds at most]",
    ),
    click.option(
        "--learning-curve",
        is_flag=True,
        help="Say what another 500 judgements would bring, and whether judgements or images are "
        "short: by heads that learn from a quarter, a half and all of them.",
    ),
    click.option(
        "--val-fraction",
        type=FiniteRange(0, 1, max_open=True),
        help="Share set apart for validation; 0 for none.  "
        f"[default: {defaults.TRAIN_VAL_FRACTION}]",
    ),
    click.option(
        "--split",
        type=click.Choice(defaults.SPLIT_POLICIES),
        help="What training and validation triplets of a file must not share: an image, a "
        "pair, or a question.  "
        f"[default: {defaults.SPLIT_POLICIES[0]}]",
    ),
    groups_option,
    click.option(
        "--unseen-classes",
        type=FiniteRange(0, 0.5),
        help="Share of the images to hold out as whole classes in a training of its own, to see "
        "how the model does on unseen classes; 0 for none.  "
        f"[default: {defaults.UNSEEN_FRACTION}; 0 for mlp and linear where no draws are held out]",
    ),
    click.option(
        "--test",
        type=JUDGEMENTS,
        help="Queries to be answered later, without truth: says how near their images are to "
        "those of training. Needs --unseen-classes.",
    ),
)

model_options = section(
    "Model",
    choice_of("recipe"),
    backbone_options(
        "Frozen network to start from, or several side by side; `tripletkit backbones` lists "
        "them. auto: resnet50 where its weights can be had, else efficientnet-lite0.",
        default=defaults.BACKBONE,
    ),
    features_option,
    click.option(
        "--image-size",
        type=WholeRange(_MIN_IMAGE_SIZE_PX, _MAX_IMAGE_SIZE_PX),
        metavar="N",
        help="Side of the square, in pixels, that images are resized to for the backbone.  "
        "[default: the backbone's own]",
    ),
    click.option(
        "--dim",
        type=WholeRange(1, 4096),
        help="Numbers in an embedding. The embeddings of residual and best are compressed to "
        f"it.  [default: {defaults.DIM} for mlp and linear; as wide as they come for the others]",
    ),
    choice_of("distance"),
)

training_options = section(
    "Training",
    choice_of("loss"),
    choice_of("mining"),
    click.option(
        "--epochs",
        type=WholeRange(1),
        help="Passes over the triplets at most.  "
        f"[default: {defaults.EPOCHS}, {defaults.RESIDUAL_EPOCHS} for residual and best; more for "
        f"small sets: at least {defaults.MIN_STEPS} steps]",
    ),
    settings_options("recipe", "dim", "distance", "loss", "mining", "epochs", "seed"),
    seed_option,
    running_options,
)


def _sort_arguments(given: dict[str, Any]) -> None:
    """Take a single argument for the folder of images, with --labels."""
    triplets, images = given["triplets"], given["images"]
    has_features = given["features"] is not None
    if images is None and (_is_folder(triplets) or not has_features):
        triplets, images = None, triplets
    if images is None and not has_features:
        raise click.UsageError("Missing argument 'IMAGES'.")
    if triplets is None and images is not None and not _is_folder(images):
        raise click.UsageError(
            f"Missing argument 'IMAGES': the folder of the images that {images} names. For "
            f"example: tripletkit train {images} images/"
        )
    if images is not None and not _is_folder(images):
        raise click.BadParameter(f"{images} is not a folder.", param_hint="'IMAGES'")
    if _is_folder(triplets):
        raise click.BadParameter(f"{triplets} is a folder.", param_hint="'TRIPLETS'")
    given |= {"triplets": triplets, "images": images}


def _is_folder(given: Any) -> bool:
    return isinstance(given, Path) and given.is_dir()


@command()
@first(_sort_arguments)
@click.argument("triplets", type=InputPath("judgements", allow_dash=True), required=False)
@click.argument("images", type=NAMED_PATH, required=False, metavar="IMAGES")
@data_options
@validation_options
@model_options
@training_options
@takes("judgements", "images", "labels", "cache", "overwrite", "as_json", "progress")
def train(output: Path, **given: Any) -> Any:
    """Train a model from judgements `anchor positive negative` over a folder of images.

    \b
    tripletkit train train.txt images/
    tripletkit train train.txt images/ -o m1 --val val.txt --val-truth val_truth.csv
    tripletkit train train.txt images/ --backbone resnet50 --weights resnet50_notop.h5
    tripletkit train train.txt images/ --recipe best
    tripletkit train train.txt images/ -s margin=0.3 -s dropout=0.4
    tripletkit train images/ --labels labels.csv --loss center
    tripletkit train train.txt images/ --backbone cnn --image-size 32 --dim 8

    Every image goes through the frozen backbone once; its features are kept on disk. A third of
    the images is held out, again and again, and the answers about them are pooled: that tells how
    the model does on images it has not seen, beside the frozen features alone, and chooses for how
    long to train. Then the model is trained on all triplets. A second number tells how it does on
    classes of images that training has not seen.

    With --labels and no triplet file, triplets are drawn from the labels, or mined from batches.
    With --backbone cnn the backbone is trained too, from the pixels; `tripletkit finetune` trains
    the last blocks of any other backbone further.
    """
    result = tk.train(**given, output=output, command=this_line())
    say_where(output)
    return result

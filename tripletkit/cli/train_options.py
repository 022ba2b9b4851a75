"""The options of `tripletkit train`, in the sections of its help."""

from __future__ import annotations

from pathlib import Path

import click

from tripletkit import defaults
from tripletkit.cli.durations import DURATION
from tripletkit.cli.options import INPUT_FILE, INPUT_PATH, FiniteRange, WholeRange, section
from tripletkit.cli.settings import choice_of, settings_options
from tripletkit.cli.sources import (
    backbone_option,
    encoder_detail_options,
    features_option,
    views_option,
    weights_option,
)
from tripletkit.cli.votes import make_votes_options

data_options = section(
    "Data",
    click.option(
        "-o",
        "--output",
        type=click.Path(path_type=Path),
        default=defaults.MODEL_FOLDER,
        show_default=True,
        help="Model folder to write.",
    ),
    click.option(
        "--labels",
        type=INPUT_PATH,
        help="Classes of the images: a CSV with the columns name and label, or a folder with a "
        "subfolder for each class. Without TRIPLETS these are drawn from the labels.",
    ),
    make_votes_options("TRIPLETS"),
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
    click.option("--val", type=INPUT_FILE, help="File of validation triplets."),
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
        type=INPUT_PATH,
        help="Labelled images to validate on, with --labels; instead of a share of those.",
    ),
    click.option(
        "--refit/--no-refit",
        default=True,
        help="Validate on held-out draws: train without a third of the images, again and again, "
        "and pool the answers about them; then train the model on all triplets. --no-refit sets a "
        "share apart once, and the model never sees it, as with --val-fraction or --split; "
        "--recipe best chooses by draws all the same.  "
        "[default: --refit, for triplet files and pretrained backbones]",
    ),
    click.option(
        "--budget",
        type=DURATION,
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
    click.option(
        "--unseen-classes",
        type=FiniteRange(0, 0.5),
        help="Share of the images to hold out as whole classes in a training of its own, to see "
        "how the model does on unseen classes; 0 for none.  "
        f"[default: 0 for mlp, {defaults.UNSEEN_FRACTION} for residual and best]",
    ),
    click.option(
        "--test",
        type=INPUT_FILE,
        help="Queries to be answered later, without truth: says how near their images are to "
        "those of training. Needs --unseen-classes.",
    ),
)

model_options = section(
    "Model",
    choice_of("recipe"),
    backbone_option(
        "Frozen network to start from, or several side by side; `tripletkit backbones` lists "
        "them. auto: resnet50 where its weights can be had, else efficientnet-lite0.",
        default=defaults.BACKBONE,
        show_default=True,
    ),
    weights_option,
    views_option,
    encoder_detail_options,
    features_option,
    click.option(
        "--image-size",
        type=WholeRange(defaults.MIN_IMAGE_SIZE_PX, defaults.MAX_IMAGE_SIZE_PX),
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
    settings_options,
    click.option(
        "--resume",
        is_flag=True,
        help="Go on with a training from pixels that was interrupted, from its last whole epoch.",
    ),
)

tensorboard_option = click.option(
    "--tensorboard",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Write each epoch's numbers as TensorBoard logs, too.",
)

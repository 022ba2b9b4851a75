"""The options of `tripletkit train`, in the order of its help: data, model, training."""

from __future__ import annotations

from pathlib import Path

import click

from tripletkit import defaults
from tripletkit.cli.options import (
    INPUT_FILE,
    FiniteRange,
    check_backbone,
    group_options,
    weights_option,
)

data_options = group_options(
    click.option(
        "-o",
        "--output",
        type=click.Path(path_type=Path),
        default=defaults.MODEL_FOLDER,
        show_default=True,
        help="Model folder to write.",
    ),
    click.option("--val", "val_file", type=INPUT_FILE, help="Validation triplets of their own."),
    click.option(
        "--val-truth",
        type=INPUT_FILE,
        help="Truth of --val, where its second and third pictures stand in chance order.",
    ),
    click.option(
        "--val-fraction",
        type=FiniteRange(0, 1, max_open=True),
        help="Share set apart for validation; 0 for none.  "
        f"[default: {defaults.TRAIN_VAL_FRACTION}]",
    ),
    click.option(
        "--split",
        "split_by",
        type=click.Choice(defaults.SPLIT_POLICIES),
        help="What training and validation must not share: a picture, a pair, or a question.  "
        f"[default: {defaults.SPLIT_POLICIES[0]}]",
    ),
    click.option(
        "--val-kinds",
        type=FiniteRange(0, 0.5),
        help="Share of the pictures to hold out as whole kinds in a training of its own, to see "
        "how the model does on new kinds; 0 for none.  "
        f"[default: 0 for source, {defaults.KINDS_FRACTION} for residual and best]",
    ),
    click.option(
        "--test",
        "test_file",
        type=INPUT_FILE,
        help="Questions to be answered later, without truth: says how near their pictures are to "
        "those of training. Needs --val-kinds.",
    ),
)

model_options = group_options(
    click.option(
        "--recipe",
        type=click.Choice(["source", "residual", "best"]),
        default="source",
        show_default=True,
        help="source: Dense, Dropout, Dense, short codes. residual: the frozen features and a "
        "learned step away from them; holds on kinds of pictures that training has not seen. "
        "best: several heads together, as validation prefers.",
    ),
    click.option(
        "--members",
        type=click.IntRange(1, 100),
        help=f"Heads that answer together.  [default: 1; {defaults.MEMBERS} for best]",
    ),
    click.option(
        "--backbone",
        default="auto",
        show_default=True,
        callback=check_backbone,
        metavar="NAME",
        help="Frozen network to start from; `tripletkit backbones` lists them. auto: resnet50 "
        "where its weights can be had, else efficientnet-lite0.",
    ),
    weights_option,
    click.option(
        "--dim",
        type=click.IntRange(1, 4096),
        help="Numbers in a code. The codes of residual and best are compressed to it.  "
        f"[default: {defaults.DIM} for source; as wide as the codes come for the others]",
    ),
    click.option(
        "--hidden",
        type=click.IntRange(1, 65536),
        help=f"Width of the hidden layer.  [default: {defaults.HIDDEN}]",
    ),
    click.option(
        "--dropout",
        type=FiniteRange(0, 1, max_open=True),
        help="Share of values dropped in training.  "
        f"[default: {defaults.DROPOUT}; {defaults.RESIDUAL_DROPOUT} for residual and best]",
    ),
    click.option(
        "--distance",
        type=click.Choice(["l2", "l1", "cosine"]),
        default=defaults.DISTANCE,
        show_default=True,
        help="Distance between codes, in training and in answers.",
    ),
)

training_options = group_options(
    click.option(
        "--margin",
        type=FiniteRange(0, min_open=True),
        help="How much further the negative must be, in units of the distance; of its square "
        "for residual and best.  "
        f"[default: {defaults.MARGIN}; {defaults.RESIDUAL_MARGIN} for residual and best]",
    ),
    click.option(
        "--epochs",
        type=click.IntRange(min=1),
        help="Passes over the triplets at most.  "
        f"[default: {defaults.EPOCHS}, {defaults.RESIDUAL_EPOCHS} for residual and best; more for "
        f"small sets: at least {defaults.MIN_STEPS} steps]",
    ),
    click.option(
        "--batch-size",
        type=click.IntRange(min=1),
        default=defaults.BATCH_SIZE,
        show_default=True,
        help="Triplets in a step.",
    ),
    click.option(
        "--learning-rate",
        type=FiniteRange(0, min_open=True),
        help=f"Of Adam.  [default: {defaults.LEARNING_RATE:g}; "
        f"{defaults.RESIDUAL_LEARNING_RATE:g} for residual and best]",
    ),
    click.option(
        "--patience",
        type=click.IntRange(min=1),
        default=defaults.PATIENCE,
        show_default=True,
        help="Epochs without a better validation accuracy before training stops.",
    ),
    click.option(
        "--tensorboard",
        type=click.Path(file_okay=False, path_type=Path),
        metavar="DIR",
        help="Write each epoch's numbers as TensorBoard logs, too.",
    ),
)

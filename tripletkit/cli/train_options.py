"""The options of `tripletkit train`, in the order of its help: data, model, training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from tripletkit import defaults
from tripletkit.cli.options import (
    INPUT_FILE,
    INPUT_PATH,
    FiniteRange,
    check_loss_name,
    group_options,
)
from tripletkit.cli.sources import (
    backbone_option,
    encoder_detail_options,
    features_option,
    views_option,
    weights_option,
)
from tripletkit.cli.votes import make_votes_options

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
        help="Truth of --val, where its second and third images stand in chance order.",
    ),
    click.option(
        "--labels",
        type=INPUT_PATH,
        help="Classes of the images: a CSV with the columns name and label, or a folder with a "
        "subfolder for each class. Without TRIPLETS these are drawn from the labels.",
    ),
    click.option(
        "--val-labels",
        type=INPUT_PATH,
        help="Labelled images to validate on, with --labels; instead of a share of those.",
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
        help="What training and validation triplets of a file must not share: an image, a "
        "pair, or a question.  "
        f"[default: {defaults.SPLIT_POLICIES[0]}]",
    ),
    click.option(
        "--unseen-classes",
        "unseen_fraction",
        type=FiniteRange(0, 0.5),
        help="Share of the images to hold out as whole classes in a training of its own, to see "
        "how the model does on unseen classes; 0 for none.  "
        f"[default: 0 for mlp, {defaults.UNSEEN_FRACTION} for residual and best]",
    ),
    click.option(
        "--test",
        "test_file",
        type=INPUT_FILE,
        help="Questions to be answered later, without truth: says how near their images are to "
        "those of training. Needs --unseen-classes.",
    ),
)

votes_options = group_options(
    make_votes_options("TRIPLETS"),
    click.option(
        "--votes-as",
        type=click.Choice(["soft", "weight", "majority"]),
        help="What training makes of votes. soft: both ways round, each as often as people said "
        "it. weight: what most said, the more the surer they are. majority: what most said.  "
        f"[default: {defaults.VOTES_AS}]",
    ),
    click.option(
        "--val-votes",
        type=INPUT_FILE,
        help="Votes on --val, as --votes has them; what most people said is its truth.",
    ),
)

model_options = group_options(
    click.option(
        "--recipe",
        type=click.Choice(["mlp", "linear", "residual", "best"]),
        default="mlp",
        show_default=True,
        help="mlp: Dense, Dropout, Dense, short embeddings. linear: one Dense, the default on a "
        "backbone that is trained from scratch. residual: the frozen features and a "
        "learned step away from them; holds on classes of images that training has not seen. "
        "best: several heads together, as validation prefers.",
    ),
    click.option(
        "--members",
        type=click.IntRange(1, 100),
        help=f"Heads that answer together.  [default: 1; {defaults.MEMBERS} for best]",
    ),
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
        "--dim",
        type=click.IntRange(1, 4096),
        help="Numbers in an embedding. The embeddings of residual and best are compressed to it.  "
        f"[default: {defaults.DIM} for mlp and linear; as wide as the embeddings come for the "
        "others]",
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
        type=click.Choice(["l2", "l1", "squared-l2", "cosine"]),
        default=defaults.DISTANCE,
        show_default=True,
        help="Distance between embeddings, in training and in answers.",
    ),
)

loss_options = group_options(
    click.option(
        "--loss",
        default=defaults.LOSS,
        show_default=True,
        callback=check_loss_name,
        metavar="NAME",
        help="What is learned; `tripletkit losses` lists the losses. Some need --labels.",
    ),
    click.option(
        "--margin",
        type=FiniteRange(0, min_open=True),
        help="How much further the negative must be, in units of the distance; of its square "
        "for residual and best.  "
        f"[default: {defaults.MARGIN}; {defaults.RESIDUAL_MARGIN} for residual and best]",
    ),
    click.option(
        "--reduction",
        type=click.Choice(["all", "active"]),
        default=defaults.REDUCTION,
        show_default=True,
        help="Triplets that the mean of a margin loss is taken over.",
    ),
    click.option(
        "--mining",
        type=click.Choice(["none", "batch-all", "batch-hard", "semi-hard"]),
        default=defaults.MINING,
        show_default=True,
        help="Which triplets of labelled images to learn from: as drawn or given; all that a "
        "batch of some classes with some images each allows; for each image the farthest "
        "positive and the nearest negative; for each positive the nearest negative farther off.",
    ),
    click.option(
        "--classes-per-batch",
        type=click.IntRange(min=2),
        help=f"Of a batch that is mined.  [default: {defaults.CLASSES_PER_BATCH}]",
    ),
    click.option(
        "--images-per-class",
        type=click.IntRange(min=2),
        help=f"Of a batch that is mined.  [default: {defaults.IMAGES_PER_CLASS}]",
    ),
    click.option(
        "--inject-positives",
        is_flag=True,
        help="Add to a batch that is mined the hardest positive of each image, looked for among "
        "all images of its class.",
    ),
    click.option(
        "--refresh",
        type=click.IntRange(min=1),
        help="Epochs after which the hardest positives are looked for anew.  "
        f"[default: {defaults.REFRESH}]",
    ),
    click.option(
        "--cross-entropy-weight",
        type=FiniteRange(0, min_open=True),
        help="Of the cross-entropy beside the triplet loss.  "
        f"[default: {defaults.CROSS_ENTROPY_WEIGHT:g}]",
    ),
    click.option(
        "--center-weight",
        type=FiniteRange(0),
        help="Of the distance from the class centers beside the cross-entropy.  "
        f"[default: {defaults.CENTER_WEIGHT:g}]",
    ),
    click.option(
        "--center-decay",
        type=FiniteRange(0, 1, max_open=True),
        help="How much of a class center stays when a batch moves it.  "
        f"[default: {defaults.CENTER_DECAY:g}]",
    ),
)

training_options = group_options(
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
        help="Triplets in a step; images where the loss looks at no triplets.",
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


pixel_options = group_options(
    click.option(
        "--image-size",
        type=click.IntRange(defaults.MIN_IMAGE_SIZE_PX, defaults.MAX_IMAGE_SIZE_PX),
        metavar="N",
        help="Side of the square, in pixels, that images are resized to for the backbone.  "
        "[default: the backbone's own]",
    ),
    click.option(
        "--unfreeze",
        type=click.IntRange(min=1),
        metavar="N",
        help="Train the last N blocks of the backbone further, with the head, once the head is "
        "trained. Says what that costs before it starts.",
    ),
    click.option(
        "--fine-tune-epochs",
        type=click.IntRange(min=1),
        help="Epochs of that at most; in each, an image is seen about "
        f"{defaults.FINE_TUNE_VIEWS} times.  [default: {defaults.FINE_TUNE_EPOCHS}]",
    ),
    click.option(
        "--fine-tune-rate",
        type=FiniteRange(0, min_open=True),
        help=f"Its learning rate.  [default: {defaults.FINE_TUNE_LEARNING_RATE:g}]",
    ),
    click.option(
        "--flip/--no-flip",
        default=None,
        help="Swap left and right in half of the images that training from pixels sees; not for "
        "letters or digits.  [default: --flip]",
    ),
    click.option(
        "--shift",
        type=FiniteRange(0, 0.5),
        help=f"Move these images by up to this share of their side.  [default: {defaults.SHIFT}]",
    ),
    click.option(
        "--resume",
        is_flag=True,
        help="Go on with a training from pixels that was interrupted, from its last whole epoch.",
    ),
)


def check_loss(options: dict[str, Any], *, has_labels: bool, has_votes: bool) -> None:
    """Refuse options of the loss that do not go together."""
    from tripletkit.model.loss_registry import LOSSES, get_loss
    from tripletkit.model.recipes import get_recipe

    loss, recipe = get_loss(options["loss"]), get_recipe(options["recipe"])
    mines = options["mining"] != "none"
    if loss.needs_labels and not has_labels:
        raise click.UsageError(f"--loss {loss.name} needs --labels, the classes of the images.")
    if mines and not has_labels:
        raise click.UsageError(f"--mining {options['mining']} needs --labels.")
    if has_votes and (mines or loss.needs_labels):
        given = f"--mining {options['mining']}" if mines else f"--loss {loss.name}"
        raise click.UsageError(
            f"{given} looks at classes, which votes on triplets say nothing of. Leave one away."
        )
    if mines and loss.of_triplets is None:
        with_triplets = ", ".join(each.name for each in LOSSES.values() if each.of_triplets)
        raise click.UsageError(
            f"--loss {loss.name} looks at no triplets to mine; these do: {with_triplets}."
        )
    if options["reduction"] != defaults.REDUCTION and not loss.has_margin:
        raise click.UsageError(
            f"--reduction {options['reduction']}: every triplet violates a margin that never "
            f"ends, as --loss {loss.name} has it."
            if loss.of_triplets
            else f"--reduction has no part in --loss {loss.name}, which looks at no triplets."
        )
    for option, has_part in (
        ("margin", loss.has_margin),
        ("classes_per_batch", mines),
        ("images_per_class", mines),
        ("inject_positives", mines),
        ("refresh", options["inject_positives"]),
        ("cross_entropy_weight", loss.has_cross_entropy and loss.of_triplets),
        ("center_weight", loss.has_centers),
        ("center_decay", loss.has_centers),
    ):
        # A weight of 0 was given, too.
        is_given = options[option] is not None and options[option] is not False
        if is_given and not has_part:
            flag = option.replace("_", "-")
            needed = {
                "refresh": "--inject-positives",
                "margin": "a loss with a margin",
                "cross_entropy_weight": "--loss triplet+cross-entropy",
                "center_weight": "--loss center",
                "center_decay": "--loss center",
            }.get(option, "--mining")
            raise click.UsageError(f"--{flag} needs {needed}.")
    if loss.has_centers and ((options["members"] or recipe.members) > 1 or _compresses(options)):
        raise click.UsageError(
            f"--loss {loss.name} keeps its class centers with one head whose embeddings are not "
            "compressed: leave --members away, and --dim with --recipe residual."
        )


def _compresses(options: dict[str, Any]) -> bool:
    from tripletkit.model.recipes import get_recipe

    return options["dim"] is not None and get_recipe(options["recipe"]).compresses

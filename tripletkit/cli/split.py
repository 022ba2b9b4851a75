from typing import Any

import click

import tripletkit as tk
from tripletkit import defaults
from tripletkit.cli.commands import command, takes
from tripletkit.cli.options import groups_option, output_option, seed_option
from tripletkit.cli.parameters import JUDGEMENTS, OUTPUT_FOLDER, FiniteRange, WholeRange


@command()
@click.argument("triplets", type=JUDGEMENTS)
@output_option(
    "Folder for train.txt, val.txt, val_truth.csv and val_triplets.txt.",
    type=OUTPUT_FOLDER,
    metavar="DIR",
)
@click.option(
    "--by",
    type=click.Choice(defaults.SPLIT_POLICIES),
    default=defaults.SPLIT_POLICIES[0],
    help="What the two sides must not share: an image, a pair of images, or a question.",
)
@click.option(
    "--val-fraction",
    type=FiniteRange(0, 1, min_open=True, max_open=True),
    help="Share for validation: of the triplets, or by image of the images.  "
    f"[default: {defaults.VAL_FRACTION}]",
)
@groups_option
@click.option(
    "--folds",
    type=WholeRange(2),
    metavar="K",
    help="Write K splits to DIR/fold1 ... instead, each validating on another part.",
)
@seed_option
@takes("judgements", "overwrite", "as_json")
def split(**given: Any) -> Any:
    """Split a triplet file into training and validation, and print how many triplets that drops.

    \b
    tripletkit split train.txt -o split/ --by component
    tripletkit split train.txt -o split/ --by image --val-fraction 0.2
    tripletkit split train.txt -o folds/ --by image --folds 5
    tripletkit split train.txt -o split/ --groups patients.csv

    By image no image is on both sides: the score is one for new images, and triplets
    between the sides are dropped. By component no pair is on both sides, and every triplet is
    kept. At random, remembering names can be enough to score well.
    """
    return tk.split(**given)

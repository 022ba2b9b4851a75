"""`tripletkit split`: training and validation files whose score can be believed."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tripletkit import defaults
from tripletkit.cli.console import say, show_json, show_text, warn
from tripletkit.cli.options import (
    INPUT_FILE,
    OUTPUT_FOLDER,
    FiniteRange,
    WholeRange,
    force_option,
    input_source,
    json_option,
    quiet_option,
    seed_option,
)

if TYPE_CHECKING:
    from tripletkit.data.splits.split_files import SplitPrice


@click.command()
@click.argument("triplets", type=INPUT_FILE)
@click.option(
    "-o",
    "--output",
    "folder",
    type=OUTPUT_FOLDER,
    required=True,
    metavar="DIR",
    help="Folder for train.txt, val.txt, val_truth.csv and val_triplets.txt.",
)
@click.option(
    "--by",
    type=click.Choice(defaults.SPLIT_POLICIES),
    required=True,
    help="What the two sides must not share: an image, a pair of images, or a question.",
)
@click.option(
    "--val-fraction",
    type=FiniteRange(0, 1, min_open=True, max_open=True),
    help="Share for validation: of the triplets, or by image of the images.  "
    f"[default: {defaults.VAL_FRACTION}]",
)
@click.option(
    "--folds",
    type=WholeRange(2),
    metavar="K",
    help="Write K splits to DIR/fold1 ... instead, each validating on another part.",
)
@force_option
@seed_option
@json_option
@quiet_option
def split(
    triplets: Path,
    folder: Path,
    by: str,
    val_fraction: float | None,
    folds: int | None,
    force: bool,
    seed: int,
    as_json: bool,
) -> None:
    """Split a triplet file into training and validation, and say what that costs.

    \b
    tripletkit split train.txt -o split/ --by component
    tripletkit split train.txt -o split/ --by image --val-fraction 0.2
    tripletkit split train.txt -o folds/ --by image --folds 5

    By image no image is on both sides: the score tells how new images will do, and triplets
    between the sides are dropped. By component no pair is on both sides, and every triplet is
    kept. At random, remembering names can be enough to score well.
    """
    if folds and val_fraction is not None:
        raise click.UsageError("--val-fraction and --folds exclude each other: folds are equal.")

    from tripletkit.data.judgements import open_judgements, validate_on_random
    from tripletkit.data.outputs import Outputs
    from tripletkit.data.splits.policies import fold_triplets, split_triplets
    from tripletkit.data.splits.split_files import check_split_folder, price_split, write_splits

    outputs = Outputs([triplets], overwrite=force)
    check_split_folder(folder, folds or 1, outputs)
    judgements = open_judgements(input_source(triplets)).decided()
    all_triplets = judgements.triplets
    if n_degenerate := int(all_triplets.is_degenerate().sum()):
        warn(
            f"{all_triplets.source}: {n_degenerate:,} triplets name one image twice; they are "
            "split like the others. `tripletkit audit` lists them."
        )
    if by == "random":
        warn(
            "a random split can often be solved by remembering the names of pairs, without a "
            "look at an image; `tripletkit audit` tells. Prefer --by component or image."
        )
    if folds:
        splits = fold_triplets(all_triplets, by, folds, seed)
    else:
        splits = [split_triplets(all_triplets, by, val_fraction or defaults.VAL_FRACTION, seed)]
    if judgements.is_random is not None:
        splits = [validate_on_random(each, judgements.is_random) for each in splits]
        say(
            f"{triplets}: validation is on the random share alone; questions that a model chose "
            "are for training or dropped."
        )
    write_splits(folder, all_triplets, splits, seed, outputs)

    say(f"Wrote {folder}{'/fold1 ...' if folds else ''}.")

    prices = [price_split(all_triplets, each) for each in splits]
    if as_json:
        show_json(_as_json(all_triplets.source, by, seed, prices, bool(folds)))
    else:
        titles = [f"fold {number}\n" if folds else "" for number in range(1, len(prices) + 1)]
        show_text("\n\n".join(f"{a}{b}" for a, b in zip(titles, prices, strict=True)))


def _as_json(
    source: str, by: str, seed: int, prices: list[SplitPrice], is_folds: bool
) -> dict[str, Any]:
    about = {"source": source, "by": by, "seed": seed}
    if is_folds:
        return about | {"folds": [asdict(price) for price in prices]}
    return about | asdict(prices[0])

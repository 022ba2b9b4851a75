"""`tripletkit suggest`: the questions whose answers a model would learn most from."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from tripletkit import defaults
from tripletkit.cli.console import progress_bar, say
from tripletkit.cli.options import (
    INPUT_FILE,
    INPUT_FOLDER,
    OUTPUT_FILE,
    WholeRange,
    cache_option,
    follow_outside_option,
    force_option,
    model_option,
    on_bad_image_option,
    quiet_option,
    seed_option,
)
from tripletkit.cli.sources import weights_option

if TYPE_CHECKING:
    from tripletkit.features.feature_parts import GivenWeights


@click.command()
@click.argument("images", type=INPUT_FOLDER)
@model_option
@click.option(
    "-n",
    "--questions",
    type=WholeRange(1),
    default=defaults.CHOSEN_BATCH,
    show_default=True,
    help="How many questions.",
)
@click.option("-o", "--output", type=OUTPUT_FILE, required=True, help="Question file to write.")
@click.option(
    "--ask",
    type=click.Choice(["auto", "random", "margin", "disagreement"]),
    default="auto",
    show_default=True,
    help="At random, where the model is least sure, or where its members contradict each other; "
    f"auto means {defaults.AUTO_ASK}.",
)
@click.option(
    "--not",
    "asked_files",
    type=INPUT_FILE,
    multiple=True,
    metavar="FILE",
    help="Triplet file or database whose questions are not to be asked again. May be given "
    "several times.",
)
@force_option
@weights_option
@seed_option
@on_bad_image_option
@follow_outside_option
@cache_option
@quiet_option
def suggest(
    images: Path,
    model: Path,
    questions: int,
    output: Path,
    ask: str,
    asked_files: tuple[Path, ...],
    force: bool,
    weights: GivenWeights,
    seed: int,
    on_bad_image: str,
    follow_outside: bool,
    cache: Path | None,
) -> None:
    """Choose the questions to ask people next, for any tool that can ask them.

    \b
    tripletkit suggest photos/ --model m -n 200 -o ask.txt
    tripletkit suggest photos/ --model m -n 200 -o ask.txt --not train.txt

    The file has a question a line, `A B C` with B and C in an order of chance: is A more like B
    or like C? Unless they are drawn at random, no image is in more than two of them. Do not score
    a model on the answers alone: chosen questions are those it finds hard.
    """
    from tripletkit.api.opening import load
    from tripletkit.api.suggestion import suggest as suggest_questions
    from tripletkit.data.output_forms import TRIPLETS_FORM
    from tripletkit.data.outputs import Outputs
    from tripletkit.data.triplet_files import write_triplets

    output_file = Outputs(
        [model, *asked_files, *weights.values()], image_folders=[images], overwrite=force
    ).file(output, TRIPLETS_FORM)
    loaded = load(model, weights=weights, cache=cache)
    with progress_bar("features", "image") as progress:
        chosen = suggest_questions(
            loaded,
            images,
            questions,
            ask=ask,
            asked=asked_files,
            seed=seed,
            skip_bad=on_bad_image == "skip",
            follow_outside=follow_outside,
            progress=progress,
        )
    write_triplets(output_file, chosen.names, chosen.rows, is_answered=False)
    way = defaults.AUTO_ASK if ask == "auto" else ask
    say(f"Wrote {len(chosen):,} questions to {output}, chosen by {way}.")
    if len(chosen) < questions:
        limit = "" if way == "random" else f", with no image in more than {defaults.MAX_PER_IMAGE}"
        say(f"{questions:,} were asked for; there are no more{limit}.")

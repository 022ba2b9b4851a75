"""`tripletkit suggest`: the questions whose answers a model would learn most from."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from tripletkit import defaults
from tripletkit.cli.collections import open_collection
from tripletkit.cli.console import say
from tripletkit.cli.encoders import find_images
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
    from tripletkit.features.sources import GivenWeights


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
    or like C? No image is in more than two of them. Do not score a model on the answers alone:
    chosen questions are those it finds hard.
    """
    import numpy as np

    from tripletkit.collecting.choosing import (
        Committee,
        choose_questions,
        deal_question,
        draw_candidates,
    )
    from tripletkit.collecting.members import split_members
    from tripletkit.data.output_forms import TRIPLETS_FORM
    from tripletkit.data.outputs import Outputs
    from tripletkit.data.triplet_files import read_triplets, write_triplets
    from tripletkit.model.model_folder import load_model

    output_file = Outputs(
        [model, *asked_files, *weights.values()], image_folders=[images], overwrite=force
    ).file(output, TRIPLETS_FORM)
    folder = load_model(model)
    files = find_images(images, skip_bad=on_bad_image == "skip", follow_outside=follow_outside)
    source = folder.find_source(weights)
    collection = open_collection(files, source, cache, skip_bad=on_bad_image == "skip")
    from tripletkit.model.embedding import embed

    embeddings = embed(folder.load_head(), collection.features)
    usable = np.flatnonzero(collection.is_usable())
    if len(usable) < 3:
        raise click.UsageError(f"{images}: expected three images or more, got {len(usable)}.")
    place_of = {name: place for place, name in enumerate(files.names)}
    asked = [np.empty((0, 3), dtype=np.int32)]
    for path in asked_files:
        read = read_triplets(path)
        places = np.array([place_of.get(name, -1) for name in read.names])[read.rows]
        asked.append(places[(places >= 0).all(axis=1)].astype(np.int32))
    rng = np.random.default_rng(seed)
    members = split_members(embeddings, folder.record.settings, folder.record.n_features)
    if ask == "disagreement" and len(members) < 2:
        raise click.UsageError(
            f"--ask disagreement needs a model of several members that can be told apart; "
            f"{model} is not one. Use --ask margin, or train with --members 5."
        )
    way = defaults.AUTO_ASK if ask == "auto" else ask
    if way == "random":
        times = np.full(len(files.names), -1)
        times[usable] = 0
        rows = []
        for _ in range(questions):
            rows.append(deal_question(times, rng))
            times[rows[-1]] += 1
        rows = np.array(rows)
    else:
        candidates = draw_candidates(usable, defaults.CHOICE_CANDIDATES, rng, np.concatenate(asked))
        committee = Committee(
            members if way == "disagreement" else [embeddings],
            folder.distance,
            defaults.MARGIN / 2,
        )
        rows = choose_questions(
            committee, candidates, questions, way, max_per_image=defaults.MAX_PER_IMAGE
        ).rows
    write_triplets(output_file, files.names, rows, is_answered=False)
    say(f"Wrote {len(rows):,} questions to {output}, chosen by {way}.")
    if len(rows) < questions:
        say(
            f"{questions:,} were asked for; with no image in more than "
            f"{defaults.MAX_PER_IMAGE} there are no more."
        )

from pathlib import Path
from typing import Any

import click

import tripletkit as tk
from tripletkit import defaults
from tripletkit.cli.commands import command, takes
from tripletkit.cli.options import output_option, trained_model_options
from tripletkit.cli.parameters import INPUT_FILE, INPUT_FOLDER, WholeRange


@command()
@click.argument("images", type=INPUT_FOLDER)
@trained_model_options
@click.option(
    "-n",
    "--questions",
    "n",
    type=WholeRange(1),
    default=defaults.CHOSEN_BATCH,
    help="How many questions.",
)
@click.option(
    "--ask",
    type=click.Choice(["auto", "random", "margin", "disagreement"]),
    default="auto",
    help="At random, where the model is least sure, or where its members contradict each other; "
    f"auto means {defaults.AUTO_ASK}.",
)
@click.option(
    "--not",
    "asked",
    type=INPUT_FILE,
    multiple=True,
    metavar="FILE",
    help="Triplet file or database whose questions are not to be asked again. May be given "
    "several times.",
)
@output_option("Question file to write.")
@takes("images", "overwrite", "progress", "cache")
def suggest(model: Path, weights: Any, cache: Path | None, **given: Any) -> None:
    """Choose the questions to ask people next, for any tool that can ask them.

    \b
    tripletkit suggest photos/ --model m -n 200 -o ask.txt
    tripletkit suggest photos/ --model m -n 200 -o ask.txt --not train.txt

    The file has a question a line, `A B C` with B and C in an order of chance: is A more like B
    or like C? Unless they are drawn at random, no image is in more than two of them. Do not score
    a model on the answers alone: chosen questions are those it finds hard.
    """
    tk.suggest(tk.load(model, weights=weights, cache=cache), **given)

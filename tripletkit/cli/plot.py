from typing import Any

import click

import tripletkit as tk
from tripletkit.cli.commands import command, takes
from tripletkit.cli.options import output_option, view_options
from tripletkit.cli.parameters import MODEL_FOLDER

_KINDS = ("history", "distances", "margins", "map", "confusion")


@command()
@click.argument("kind", type=click.Choice(_KINDS))
@click.argument("model", type=MODEL_FOLDER)
@view_options
@output_option("SVG, PNG or PDF to write.")
@click.option("--dark", is_flag=True, help="Light lines on a dark background, for slides.")
@takes("images", "overwrite", "cache", "progress")
def plot(**given: Any) -> None:
    """Draw one figure of a trained model.

    \b
    tripletkit plot history m1 -o history.svg
    tripletkit plot distances m1 --triplets val.txt --truth truth.csv -o distances.png
    tripletkit plot confusion m1 --triplets val.txt --labels labels.csv -o confusion.svg

    history: loss and accuracy of each epoch. distances: of anchor and positive against anchor
    and negative. margins: how often it is right when it is sure. map: the embeddings on a plane.
    confusion: which labels the neighbours mix up (needs --labels).
    """
    tk.plot(**given)

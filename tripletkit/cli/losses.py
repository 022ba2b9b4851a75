"""`tripletkit losses`: what a model can learn by."""

from __future__ import annotations

from dataclasses import asdict

import click

from tripletkit.cli.console import show_json
from tripletkit.cli.options import json_option
from tripletkit.results import align_columns


@click.command()
@json_option
def losses(as_json: bool) -> None:
    """List the losses that `train --loss` takes, with their formulas and papers.

    \b
    tripletkit losses
    tripletkit train images/ --labels labels.csv --loss center

    d is the distance between the embeddings of anchor a, positive p and negative n (`--distance`),
    x an embedding, w and s the vectors of classes and the scale that the classifier learns.
    """
    from tripletkit.losses.loss_registry import LOSSES

    if as_json:
        show_json(
            {
                "losses": [
                    asdict(loss) | {"needs_labels": loss.needs_labels} for loss in LOSSES.values()
                ]
            }
        )
        return
    table = [["name", "labels", "formula"]]
    table += [
        [loss.name, "needed" if loss.needs_labels else "", loss.formula] for loss in LOSSES.values()
    ]
    click.echo(align_columns(table))
    click.echo()
    for loss in LOSSES.values():
        click.echo(f"{loss.name}: {loss.summary}.\n  {loss.paper}")

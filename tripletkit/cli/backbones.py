"""`tripletkit backbones`: what a model can start from."""

from __future__ import annotations

import click

from tripletkit.cli.console import show_json
from tripletkit.cli.options import json_option
from tripletkit.results import align_columns


@click.command()
@json_option
def backbones(as_json: bool) -> None:
    """List the frozen networks that a model can start from, and which are ready to use.

    \b
    tripletkit backbones
    tripletkit train train.txt images/ --backbone efficientnet-lite0

    Ready means: usable right now, without a download.
    """
    from tripletkit.features.backbones import BACKBONES, load_plugins
    from tripletkit.features.weights_origin import describe_origin, is_ready

    load_plugins()
    found = [
        {
            "name": backbone.name,
            "ready": is_ready(backbone),
            "n_features": backbone.n_features,
            "input_size_px": backbone.input_size_px,
            "resize": backbone.preprocessing.resample,
            "weights": describe_origin(backbone),
            "licence": backbone.licence,
            "paper": backbone.paper,
        }
        for backbone in BACKBONES.values()
    ]
    if as_json:
        show_json({"backbones": found})
        return
    table = [["name", "ready", "features", "input", "weights", "licence"]]
    table += [
        [
            row["name"],
            "yes" if row["ready"] else "no",
            f"{row['n_features']:,}",
            f"{row['input_size_px']} px, {row['resize']}",
            row["weights"],
            row["licence"],
        ]
        for row in found
    ]
    click.echo(align_columns(table, right=[2]))
    click.echo("\n" + "\n".join(f"{row['name']}: {row['paper']}" for row in found))

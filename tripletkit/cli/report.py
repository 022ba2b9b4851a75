"""`tripletkit report`: all there is to see of a model, as one page."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tripletkit.cli.console import say
from tripletkit.cli.options import OUTPUT_FILE, quiet_option
from tripletkit.cli.views import make_outputs, open_model_view, view_options

if TYPE_CHECKING:
    from tripletkit.data.triplets import Triplets
    from tripletkit.reporting.model_view import ModelView


@click.command()
@click.argument("model", type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--output",
    type=OUTPUT_FILE,
    default="report.html",
    show_default=True,
    help="HTML file to write.",
)
@view_options
@quiet_option
def report(model: Path, output: Path, projection: str, force: bool, **view_settings: Any) -> None:
    """Write one HTML page about a model: figures, mistakes, neighbours, a map.

    \b
    tripletkit report m1 --triplets val.txt --truth truth.csv -o report.html
    tripletkit report m1 --triplets val.txt --labels labels.csv --projection umap

    The page holds its images and asks the network for nothing, so it can be sent by mail.
    """
    from tripletkit.model.model_folder import load_model
    from tripletkit.reporting.page import REPORT_FORM, write_report
    from tripletkit.reporting.projections import check_projection

    check_projection(projection)
    folder = load_model(model)
    file = make_outputs(folder, force=force, **view_settings).file(output, REPORT_FORM)
    view = open_model_view(folder, **view_settings)
    training = _read_training(view)
    n_bytes = write_report(file, view, _run_baselines(view, training), training, projection)
    say(f"Wrote {output}, {n_bytes / 1e6:.1f} MB. Open it in a browser.")


def _read_training(view: ModelView) -> Triplets | None:
    from tripletkit.training.reread import describe_missing_triplets, read_training_triplets

    inputs = view.model.record.inputs
    triplets = read_training_triplets(inputs)
    if triplets is None:
        why = describe_missing_triplets(inputs)
        say(f"{inputs.name}: no training triplets ({why}), so names are not scored.")
    return triplets


def _run_baselines(view: ModelView, training: Triplets | None) -> list:
    """Return what the names alone score; on the training triplets that would say nothing."""
    from tripletkit.evaluation.baselines import run_baselines

    if training is None or view.is_training:
        return []
    return run_baselines(training, view.triplets)

"""`tripletkit report`: all there is to see of a model, or of several, as one page."""

from __future__ import annotations

import sys
import webbrowser
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tripletkit import defaults
from tripletkit.cli.collect import check_extra
from tripletkit.cli.console import say
from tripletkit.cli.options import OUTPUT_FILE, WholeRange, quiet_option
from tripletkit.cli.views import make_outputs, open_model_views, view_options

if TYPE_CHECKING:
    from tripletkit.reporting.reported import Reported


@click.command()
@click.argument("models", type=click.Path(path_type=Path), nargs=-1, required=True)
@click.option(
    "-o",
    "--output",
    type=OUTPUT_FILE,
    default="report.html",
    show_default=True,
    help="HTML file to write, without --serve.",
)
@click.option(
    "--serve",
    is_flag=True,
    help="Serve the page to this computer alone, instead of writing it: there an image of your "
    "own can be dropped on it, to see which images are nearest. Needs tripletkit[collect].",
)
@click.option(
    "--port",
    type=WholeRange(0, 65535),
    default=defaults.REPORT_PORT,
    show_default=True,
    help="Port of --serve; 0 takes any that is free.",
)
@click.option("--no-browser", is_flag=True, help="Do not open the browser for --serve.")
@view_options
@quiet_option
def report(
    models: tuple[Path, ...],
    output: Path,
    serve: bool,
    port: int,
    no_browser: bool,
    projection: str,
    force: bool,
    **view_settings: Any,
) -> None:
    """Write one HTML page about a model, or several side by side: figures, mistakes, a map.

    \b
    tripletkit report m1 --triplets val.txt --truth truth.csv -o report.html
    tripletkit report m1 m2 m3 --triplets val.txt --labels labels.csv
    tripletkit report m1 --triplets val.txt --serve

    The page holds its images and asks the network for nothing, so it can be sent by mail.
    """
    from tripletkit.model.model_folder import load_model
    from tripletkit.reporting.page import REPORT_FORM, write_report
    from tripletkit.reporting.projections import check_projection
    from tripletkit.reporting.reported import check_n_models, gather_reported

    if serve:
        check_extra()
    check_projection(projection)
    check_n_models(len(models))
    folders = [load_model(model) for model in models]
    outputs = make_outputs(folders, force=force, **view_settings)
    file = None if serve else outputs.file(output, REPORT_FORM)
    reported = gather_reported(open_model_views(folders, **view_settings))
    if file is None:
        _serve(reported, port, projection, view_settings["cache"], opens_browser=not no_browser)
        return
    n_bytes = write_report(file, reported, projection)
    say(f"Wrote {output}, {n_bytes / 1e6:.1f} MB. Open it in a browser.")


def _serve(
    models: list[Reported], port: int, projection: str, cache: Path | None, *, opens_browser: bool
) -> None:
    from tripletkit.reporting.served import report_server

    with report_server(models, port, projection, cache) as (server, link):
        # Even when quiet: without the link nobody can look.
        click.echo(link)
        sys.stdout.flush()
        say("Serving the report to this computer alone. Stop with Ctrl-C.")
        if opens_browser:
            webbrowser.open(link)
        server.run()

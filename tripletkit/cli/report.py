import sys
import webbrowser
from pathlib import Path
from typing import Any

import click

import tripletkit as tk
from tripletkit import defaults
from tripletkit.cli.commands import command, say, section, takes
from tripletkit.cli.options import output_option, view_options
from tripletkit.cli.parameters import MODEL_FOLDER, WholeRange


@command()
@click.argument("model", type=MODEL_FOLDER, nargs=-1, required=True, metavar="MODELS...")
@view_options
@output_option("HTML file to write, without --serve.", required=False, default="report.html")
@section(
    "Server",
    click.option(
        "--serve",
        is_flag=True,
        help="Serve the page to this computer alone, instead of writing it: there an image of your "
        "own can be dropped on it, to see which images are nearest. Needs tripletkit[collect].",
    ),
    click.option(
        "--port",
        type=WholeRange(0, 65535),
        default=defaults.REPORT_PORT,
        help="Port of --serve; 0 takes any that is free.",
    ),
    click.option("--no-browser", is_flag=True, help="Do not open the browser for --serve."),
)
@takes("images", "overwrite", "cache", "progress")
def report(
    model: tuple[Path, ...],
    output: Path,
    overwrite: bool,
    serve: bool,
    port: int,
    no_browser: bool,
    **given: Any,
) -> None:
    """Write one HTML page about a model, or several side by side: figures, mistakes, a map.

    \b
    tripletkit report m1 --triplets val.txt --truth truth.csv -o report.html
    tripletkit report m1 m2 m3 --triplets val.txt --labels labels.csv
    tripletkit report m1 --triplets val.txt --serve

    The page contains its images and uses no network, so it can be sent by mail.
    """
    if not serve:
        tk.report(model, output, overwrite=overwrite, **given)
        return
    from tripletkit.collecting.serving import check_extra

    check_extra()
    with tk.serve_report(model, port, **given) as (server, link):
        # Even when quiet: without the link nobody can look.
        click.echo(link)
        sys.stdout.flush()
        say("Serving the report to this computer alone. Stop with Ctrl-C.")
        if not no_browser:
            webbrowser.open(link)
        server.run()

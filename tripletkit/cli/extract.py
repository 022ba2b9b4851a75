from typing import Any

import click

import tripletkit as tk
from tripletkit import defaults
from tripletkit.cli.commands import command, section, takes
from tripletkit.cli.options import backbone_options, output_option
from tripletkit.cli.parameters import ADDED_TO, NAMED_PATH, WholeRange


@command()
@click.argument("images", type=NAMED_PATH)
@output_option(
    "Folder of the features, made if it is new. Other commands take it as --features.",
    type=ADDED_TO,
)
@section("Encoder", backbone_options("Backbone, or several.", default=defaults.BACKBONE))
@click.option(
    "--dtype",
    type=click.Choice(["float32", "float16"]),
    help="How a new folder keeps numbers; float16 takes half the space.  [default: float32]",
)
@section(
    "Sharing the work",
    click.option("--shard", metavar="I/N", help="Only the I-th of N shares."),
    click.option(
        "--ray",
        is_flag=False,
        flag_value="local",
        metavar="[ADDRESS]",
        help="Work on the Ray cluster there; without ADDRESS, on one that is started for this run "
        "and stopped. Needs tripletkit[ray].",
    ),
    click.option("--workers", type=WholeRange(1), help="Encoders at a time, with --ray."),
)
@takes("follow_outside", "as_json", "progress")
def extract(ray: str | None, **given: Any) -> Any:
    """Compute the features of a folder of images, or of a list of paths, into Parquet files.

    \b
    tripletkit extract images/ -o features/
    tripletkit extract list.txt -o features/ --backbone resnet50 --shard 3/16
    tripletkit extract images/ -o features/ --ray

    Images whose features are in the folder are skipped, so the same command resumes after an
    interruption. An image that cannot be read becomes a row with the reason.
    """
    return tk.extract(**given, ray=ray == "local" or ray or False)

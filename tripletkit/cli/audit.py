"""`tripletkit audit`: what is wrong with a triplet file, without any model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from tripletkit import defaults
from tripletkit.cli.console import show_result, stage_bars
from tripletkit.cli.options import (
    INPUT_FILE,
    INPUT_FOLDER,
    WholeRange,
    command,
    judgements_options,
    takes,
)

STRICT_FAILED = 1


@command()
@click.argument("triplets", type=INPUT_FILE)
@click.argument("images", type=INPUT_FOLDER, required=False)
@click.option(
    "--against",
    type=INPUT_FILE,
    multiple=True,
    metavar="OTHER",
    help="A triplet file that should share nothing with this one, such as the test file. "
    "May be given several times.",
)
@click.option(
    "--unanswered",
    is_flag=True,
    help="B and C are in chance order, so look for no contradictions, cycles or pair roles.",
)
@click.option("--strict", is_flag=True, help="Exit with 1 if there are findings (marked !).")
@click.option(
    "--examples",
    type=WholeRange(0),
    default=defaults.AUDIT_EXAMPLES,
    show_default=True,
    help="How many examples to show of each kind.",
)
@judgements_options
@takes("as_json", "follow_outside")
def audit(
    triplets: Path,
    images: Path | None,
    against: tuple[Path, ...],
    unanswered: bool,
    strict: bool,
    examples: int,
    follow_outside: bool,
    as_json: bool,
    read: Callable[[Path | None], Any],
) -> None:
    """Look for faults in a triplet file and its images, without a model.

    \b
    tripletkit audit train.txt images/ --against test.txt
    tripletkit audit train.txt --strict --json > audit.json

    Findings are lines that cannot be read, images that are missing, ambiguous or unreadable,
    triplets that name one image twice, contradictions, cycles, and anything shared with an
    --against file. Repeats and odd images are named too, but are no findings.
    """
    from tripletkit.api import triplet_sets
    from tripletkit.data.images import open_images

    with stage_bars() as stages:
        result = triplet_sets.audit(
            read(triplets),
            None if images is None else open_images(images, follow_outside=follow_outside),
            against=[read(path) for path in against],
            unanswered=unanswered,
            examples=examples,
            progress=stages,
        )
    show_result(result, as_json)
    if strict and result.findings():
        click.get_current_context().exit(STRICT_FAILED)

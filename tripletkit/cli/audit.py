"""`tripletkit audit`: what is wrong with a triplet file, without any model."""

from __future__ import annotations

from pathlib import Path

import click

from tripletkit import defaults
from tripletkit.cli.console import progress_bar, show_json, show_text
from tripletkit.cli.options import (
    INPUT_FILE,
    INPUT_FOLDER,
    WholeRange,
    follow_outside_option,
    input_source,
    json_option,
    quiet_option,
)

STRICT_FAILED = 1


@click.command()
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
@follow_outside_option
@json_option
@quiet_option
@click.pass_context
def audit(
    context: click.Context,
    triplets: Path,
    images: Path | None,
    against: tuple[Path, ...],
    unanswered: bool,
    strict: bool,
    examples: int,
    follow_outside: bool,
    as_json: bool,
) -> None:
    """Look for faults in a triplet file and its images, without a model.

    \b
    tripletkit audit train.txt images/ --against test.txt
    tripletkit audit train.txt --strict --json > audit.json

    Findings are lines that cannot be read, images that are missing, ambiguous or unreadable,
    triplets that name one image twice, contradictions, cycles, and anything shared with an
    --against file. Repeats and odd images are named too, but are no findings.
    """
    from tripletkit.data.audit.triplet_audit import audit_triplets
    from tripletkit.data.judgements import open_judgements

    judgements = open_judgements(input_source(triplets), with_problems=True)
    others = [open_judgements(input_source(path), with_problems=True) for path in against]
    with progress_bar("images", "image") as progress:
        result = audit_triplets(
            judgements,
            others,
            images,
            is_answered=not unanswered and judgements.triplets.is_answered is not False,
            n_examples=examples,
            follow_outside=follow_outside,
            progress=progress,
        )
    if as_json:
        show_json(result.to_dict())
    else:
        show_text(str(result))
    if strict and result.findings():
        context.exit(STRICT_FAILED)

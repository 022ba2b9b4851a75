from typing import Any

import click

import tripletkit as tk
from tripletkit import defaults
from tripletkit.cli.commands import command, show_result, takes
from tripletkit.cli.parameters import INPUT_FOLDER, JUDGEMENTS, WholeRange

_STRICT_FAILED = 1


@command()
@click.argument("triplets", type=JUDGEMENTS)
@click.argument("images", type=INPUT_FOLDER, required=False)
@click.option(
    "--against",
    type=JUDGEMENTS,
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
    help="How many examples to show of each kind.",
)
@takes("judgements", "as_json", "folder", "progress")
def audit(strict: bool, **given: Any) -> Any:
    """Look for faults in a triplet file and its images, without a model.

    \b
    tripletkit audit train.txt images/ --against test.txt
    tripletkit audit train.txt --strict --json > audit.json

    Findings are lines that cannot be read, images that are missing, ambiguous or unreadable,
    triplets that name one image twice, contradictions, cycles, and anything shared with an
    --against file. Repeats and odd images are named too, but are no findings.
    """
    result = tk.audit(**given)
    if strict and result.findings():
        show_result(result)
        click.get_current_context().exit(_STRICT_FAILED)
    return result

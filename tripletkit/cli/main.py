"""The program: every command by name, under the title that its help shows it below."""

import click

from tripletkit.cli.commands import RUN_OPTIONS, Program

# All are imported at once; what is slow is imported when one runs, so that `--help` stays quick.
_COMMANDS = {
    "Judgements": "audit split triplets collect judges export-judgements suggest",
    "Models": "train finetune predict embed neighbors classify mine export",
    "Scores": "score compare check-answers controls",
    "Pictures": "report plot collage",
    "Features": "extract cache",
    "Lists": "backbones losses settings",
}


@click.group(
    cls=Program,
    titles=_COMMANDS,
    params=list(RUN_OPTIONS.values()),
    context_settings={"help_option_names": ["-h", "--help"], "show_default": True},
)
@click.version_option(package_name="tripletkit", prog_name="tripletkit")
def tripletkit(**_of_run: object) -> None:
    """Learn from judgements "A looks more like B than like C" over your own images.

    \b
    tripletkit train train.txt images/
    tripletkit predict test.txt > preds.csv
    tripletkit score preds.csv truth.csv

    Every command takes those of the options below that apply to it, before or after its name.
    """

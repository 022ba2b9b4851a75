"""The command group: every command by name, errors turned into messages and exit codes."""

from __future__ import annotations

import errno

import click

from tripletkit.cli.audit import audit
from tripletkit.cli.backbones import backbones
from tripletkit.cli.cache import cache
from tripletkit.cli.check_answers import check_answers
from tripletkit.cli.classify import classify
from tripletkit.cli.collage import collage
from tripletkit.cli.collect import collect
from tripletkit.cli.compare import compare
from tripletkit.cli.console import drop_stdout, listening
from tripletkit.cli.controls import controls
from tripletkit.cli.embed import embed
from tripletkit.cli.export import export
from tripletkit.cli.export_judgements import export_judgements
from tripletkit.cli.extract import extract
from tripletkit.cli.finetune import finetune
from tripletkit.cli.flags import RUN_OPTIONS, hoist_run_options, spell_flags
from tripletkit.cli.judges import judges
from tripletkit.cli.losses import losses
from tripletkit.cli.mine import mine
from tripletkit.cli.neighbors import neighbors
from tripletkit.cli.plot import plot
from tripletkit.cli.predict import predict
from tripletkit.cli.report import report
from tripletkit.cli.score import score
from tripletkit.cli.settings import settings
from tripletkit.cli.split import split
from tripletkit.cli.suggest import suggest
from tripletkit.cli.train import train
from tripletkit.cli.triplets import triplets
from tripletkit.data.outputs import open_run
from tripletkit.errors import SettingsError, TripletkitError

_INTERRUPTED = 130  # 128 + SIGINT, as shells count it
_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class _TripletkitGroup(click.Group):
    """A group that reports what tripletkit raises on purpose, and lets bugs keep their trace."""

    def parse_args(self, context: click.Context, args: list[str]) -> list[str]:
        return super().parse_args(context, hoist_run_options(args))

    def format_commands(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        width = formatter.width - 6 - max(map(len, self.commands))
        for title, commands in _COMMANDS.items():
            with formatter.section(title):
                formatter.write_dl(
                    [(each.name or "", each.get_short_help_str(width)) for each in commands]
                )

    def invoke(self, context: click.Context) -> object:
        try:
            with listening(), open_run():
                return super().invoke(context)
        except SettingsError as error:
            called = self._called(context)
            raise click.UsageError(spell_flags(str(error), called.command), called) from error
        except TripletkitError as error:
            called = self._called(context)
            raise click.ClickException(spell_flags(str(error), called.command)) from error
        except KeyboardInterrupt:
            click.echo("\nInterrupted.", err=True)
            raise SystemExit(_INTERRUPTED) from None
        except OSError as error:
            if error.errno not in _NO_ROOM:
                raise
            drop_stdout()
            raise click.ClickException(f"the output cannot be written: {error.strerror}") from error

    def _called(self, context: click.Context) -> click.Context:
        """Return the context of the command that was called, for its flags and its usage."""
        name = context.invoked_subcommand
        command = name and self.get_command(context, name)
        return click.Context(command, parent=context, info_name=name) if command else context


@click.group(
    cls=_TripletkitGroup,
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


# Plain and greppable; what is slow is imported when a command runs, so that `--help` stays quick.
_COMMANDS: dict[str, tuple[click.Command, ...]] = {
    "Judgements": (audit, split, triplets, collect, judges, export_judgements, suggest),
    "Models": (train, finetune, predict, embed, neighbors, classify, mine, export),
    "Scores": (score, compare, check_answers, controls),
    "Pictures": (report, plot, collage),
    "Features": (extract, cache),
    "Lists": (backbones, losses, settings),
}
for commands in _COMMANDS.values():
    for command in commands:
        tripletkit.add_command(command)

"""`tripletkit settings`, and how commands take settings: flags, `-s NAME=VALUE`, a file."""

from __future__ import annotations

from collections.abc import Callable

import click

from tripletkit.cli.console import show_result
from tripletkit.cli.options import INPUT_FILE, NamedChoice, command, group_options, takes

settings_options = group_options(
    click.option(
        "-s",
        "settings",
        multiple=True,
        metavar="NAME=VALUE",
        help="Any other setting, such as -s margin=0.3; as often as needed. `tripletkit settings` "
        "lists them.",
        shell_complete=lambda *given: _complete_setting(given[-1]),
    ),
    click.option(
        "--settings",
        "settings_file",
        type=INPUT_FILE,
        help="Settings from a TOML file, or from the model.json of an older model; flags and -s "
        "come before these.",
    ),
)


def choice_of(name: str) -> Callable[[Callable], Callable]:
    """Return the flag of a setting that is one of a few names."""
    from tripletkit.model.settings import SETTINGS

    facts = SETTINGS[name]
    return click.option(
        f"--{name}",
        type=NamedChoice(tuple(facts.choices)),
        metavar="NAME",
        help=f"{facts.help}  [default: {facts.default}]",
    )


def _complete_setting(incomplete: str) -> list[str]:
    from tripletkit.model.settings import SETTINGS

    return [f"{name}=" for name in SETTINGS if name.startswith(incomplete)]


@command()
@takes("as_json")
def settings(as_json: bool) -> None:
    """List the settings of a training: what each is, may be, and is by default.

    \b
    tripletkit settings
    tripletkit train train.txt images/ -s margin=0.3 -s dropout=0.4
    tripletkit train train.txt images/ --settings mine.toml
    """
    from tripletkit.api.listings import list_settings

    show_result(list_settings(), as_json)

"""`tripletkit settings`, and how commands take settings: flags, `-s NAME=VALUE`, a file."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from tripletkit.cli.console import show_result
from tripletkit.cli.options import INPUT_FILE, NamedChoice, command, group_options, takes
from tripletkit.data.outputs import note_input
from tripletkit.errors import SettingsError, TripletkitError

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
    from tripletkit.model.settings import SETTINGS, default_of

    facts = SETTINGS[name]
    return click.option(
        f"--{name}",
        type=NamedChoice(facts.choices),
        metavar="NAME",
        help=f"{facts.help}  [default: {default_of(name)}]",
    )


def gather_settings(
    flags: Mapping[str, Any], pairs: Sequence[str], file: Path | None
) -> dict[str, Any]:
    """Return the settings that were given; a flag comes before `-s`, both before a file.

    Args:
        flags: setting -> value, None where the flag was not given.
        pairs: texts such as `margin=0.3`.
        file: TOML, or the record of a model.
    Raises:
        SettingsError: for a setting that is unknown, given twice, or may not be so.
    """
    from tripletkit.model.settings import check_values, parse_values

    found = {} if file is None else check_values(_read_file(file))
    given = {name: value for name, value in flags.items() if value is not None}
    typed = parse_values(pairs)
    if twice := sorted(set(given) & set(typed)):
        raise SettingsError(twice[0], f"{twice[0]} is given twice, as a flag and as -s {twice[0]}")
    return found | typed | given


def _read_file(path: Path) -> dict[str, Any]:
    """Return what a file of settings holds."""
    note_input(path)
    try:
        text = path.read_text(encoding="utf-8")
        is_record = path.suffix == ".json"
        values = json.loads(text)["settings"] if is_record else tomllib.loads(text)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise TripletkitError(
            f"{path}: expected settings as TOML, such as `margin = 0.3`, or a model.json; cannot "
            f"be read as either: {error}"
        ) from error
    if not isinstance(values, dict):
        raise TripletkitError(f"{path}: expected settings by name, got {type(values).__name__}")
    return {name.replace("-", "_"): value for name, value in values.items()}


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

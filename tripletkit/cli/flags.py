"""Flags: those that every run can be told, and those that messages of the library stand for.

What every run can be told belongs to the program, and may stand anywhere on the line; a command
says with `takes` which of these it heeds, and others are refused.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import click

from tripletkit import defaults
from tripletkit.cli.parameters import ADDED_TO, NAMED_FILE, Columns

# By the name of the parameter that a command gets.
RUN_OPTIONS: dict[str, click.Option] = {
    "quiet": click.Option(
        ["-q", "--quiet"], is_flag=True, help="Say nothing but warnings, errors and the result."
    ),
    "as_json": click.Option(["as_json", "--json"], is_flag=True, help="Print the result as JSON."),
    "overwrite": click.Option(
        ["overwrite", "--force"],
        is_flag=True,
        help="Replace what is there, if it is what this command writes.",
    ),
    "cache": click.Option(
        ["--cache"],
        type=ADDED_TO,
        envvar=defaults.CACHE_VARIABLE,
        show_envvar=True,
        metavar="DIR",
        help="Folder of the feature store.  [default: the user's cache folder]",
    ),
    "on_bad_image": click.Option(
        ["--on-bad-image"],
        type=click.Choice(["fail", "skip"]),
        default="fail",
        help="What to do when an image is missing or cannot be read.",
    ),
    "follow_outside": click.Option(
        ["--follow-outside"],
        is_flag=True,
        help="Allow names and links that lead out of the image folder.",
    ),
    "columns": click.Option(
        ["--columns"],
        type=Columns(),
        metavar="NAME=HEADING,...",
        help="Which columns of a file of judgements hold what, where their headings do not say it: "
        "anchor, positive, negative, first, second, answer, votes_first, votes_second, share, "
        "image1 to image3, odd; by heading, or by place from 1. odd=last: the last of three "
        "images is the odd one in every row. Of labels: name, label.",
    ),
    "names": click.Option(
        ["--names"],
        type=NAMED_FILE,
        metavar="FILE",
        help="List of names that numbers in a file of judgements are places in, from 0: one a "
        "line, or a JSON list.",
    ),
    "swap": click.Option(
        ["--swap"],
        is_flag=True,
        help="Take the other image for the nearer one in every row of a file of judgements.",
    ),
    "exclude": click.Option(
        ["--exclude"],
        multiple=True,
        metavar="JUDGE",
        help="Leave out this judge of a database of judgements. May be given several times.",
    ),
}

# What the library's settings are called here, where the flag has another name or form.
_FORMS = {
    "skip_bad=True": "--on-bad-image skip",
    "skip_bad_lines=True": "--skip-bad-lines",
    "overwrite=True": "--force",
    "cache": "--cache DIR",
}

# `name` or `name=value`, in backquotes; commands and files in backquotes have spaces or dots.
_SETTING = re.compile(r"`([a-z][a-z_]*)(?:=([^`]*))?`")


def told(name: str, context: click.Context | None = None) -> Any:
    """Return what the run is told; None where no command runs."""
    context = context or click.get_current_context(silent=True)
    return None if context is None else context.find_root().params.get(name)


def longest(option: click.Option) -> str:
    """Return the flag of an option that says most."""
    return max(option.opts, key=len)


def taken_by(command: click.Command) -> Sequence[str]:
    """Return the options of a run that a command takes."""
    return getattr(command.callback, "taken_options", ("quiet",))


def refuse_untaken(context: click.Context, called: click.Command) -> None:
    """Refuse options of the run that a command would pass over.

    Raises:
        click.UsageError: naming one.
    """
    given = click.core.ParameterSource.COMMANDLINE
    for name, option in RUN_OPTIONS.items():
        if context.get_parameter_source(name) == given and name not in taken_by(called):
            flag = longest(option)
            raise click.NoSuchOption(flag, f"No such option: {flag}")


def hoist_run_options(arguments: list[str]) -> list[str]:
    """Return arguments with the options of the run first, wherever they stand."""
    flags = {flag: option for option in RUN_OPTIONS.values() for flag in option.opts}
    first, rest = [], []
    words = map(str, arguments)
    for word in words:
        if word == "--":
            rest += [word, *words]
            break
        flag = word.partition("=")[0]
        if flag not in flags:
            rest.append(word)
            continue
        first.append(word)
        if not flags[flag].is_flag and "=" not in word:
            first += [value for value in [next(words, None)] if value is not None]
    return first + rest


def spell_flags(message: str, command: click.Command | None) -> str:
    """Return a message of the library with each setting that it names as the flag of a command.

    Args:
        message: names settings in backquotes, such as `` `skip_bad=True` ``.
        command: whose flags they become; a setting without a flag of its own becomes
            `-s NAME=VALUE`, where the command takes that.
    """
    options: dict[str, click.Parameter] = {}
    for param in (*RUN_OPTIONS.values(), *(command.params if command else ())):
        # A parameter may have another name than its flag, where a command needs that one.
        options |= {flag.lstrip("-").replace("-", "_"): param for flag in param.opts}
        if param.name:
            options[param.name] = param

    def spell(found: re.Match[str]) -> str:
        name, value = found.groups()
        text = found.group().strip("`")
        option = options.get(name)
        if text in _FORMS:
            return _FORMS[text]
        if isinstance(option, click.Argument) and command is not None:
            return option.make_metavar(click.Context(command)).strip("[]")
        if isinstance(option, click.Option):
            flag = longest(option)
            return flag if value is None or option.is_flag else f"{flag} {value}"
        if "settings" in options and name in _setting_names():
            return f"-s {text}"
        return found.group()

    return _SETTING.sub(spell, message)


def _setting_names() -> set[str]:
    from dataclasses import fields

    from tripletkit.model.settings import Settings

    return {field.name for field in fields(Settings)}

"""Flags in messages: the library names settings as Python does, the shell has flags for them."""

from __future__ import annotations

import re

import click

from tripletkit.cli.options import RUN_OPTIONS

# What the library's settings are called here, where the flag has another name or form.
_FORMS = {
    "skip_bad=True": "--on-bad-image skip",
    "skip_bad_lines=True": "--skip-bad-lines",
    "overwrite=True": "--force",
    "cache": "--cache DIR",
}

# `name` or `name=value`, in backquotes; commands and files in backquotes have spaces or dots.
_SETTING = re.compile(r"`([a-z][a-z_]*)(?:=([^`]*))?`")


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
        options[param.name] = param
        options |= {flag.lstrip("-").replace("-", "_"): param for flag in param.opts}

    def spell(found: re.Match[str]) -> str:
        name, value = found.groups()
        text = found.group().strip("`")
        option = options.get(name)
        if text in _FORMS:
            return _FORMS[text]
        if isinstance(option, click.Argument):
            return option.make_metavar(click.Context(command)).strip("[]")
        if isinstance(option, click.Option):
            flag = max(option.opts, key=len)
            return flag if value is None or option.is_flag else f"{flag} {value}"
        if "settings" in options and name in _setting_names():
            return f"-s {text}"
        return found.group()

    return _SETTING.sub(spell, message)


def _setting_names() -> set[str]:
    from dataclasses import fields

    from tripletkit.model.settings import HeadSettings

    return {field.name for field in fields(HeadSettings)}

"""Text of the pages that is made from the code, so that it cannot differ from it.

A page has a line `<!-- made from the code: NAME -->` where a part of this module is to stand.
"""

from __future__ import annotations

import dataclasses
import inspect
import os
import re
import types
import typing
from collections.abc import Iterator

import click

# Nothing here is run on Keras, but its modules want a backend.
os.environ.setdefault("KERAS_BACKEND", "tensorflow")

MARK = re.compile(r"^<!-- made from the code: ([a-z_]+) -->$", flags=re.MULTILINE)


def fill_in(source: list[str]) -> None:
    """Replace the marks of a page, the only text in `source`, by what they stand for."""
    source[0] = MARK.sub(lambda found: PARTS[found[1]](), source[0])


def walk(command: click.Command, words: tuple[str, ...]) -> Iterator[tuple[str, click.Command]]:
    """Yield (what is typed, command) of a command and of all below it, in the order of names."""
    yield " ".join(words), command
    if isinstance(command, click.Group):
        for name in sorted(command.commands):
            yield from walk(command.commands[name], (*words, name))


def commands() -> str:
    """Return all commands with their help and options, from Click."""
    from tripletkit.cli.main import tripletkit

    found = list(walk(tripletkit, ("tripletkit",)))
    return "\n".join(describe_command(typed, command) for typed, command in found)


def describe_command(typed: str, command: click.Command) -> str:
    """Return a section about one command."""
    from tripletkit.cli.commands import _sections_of

    context = click.Context(command, info_name=typed, show_default=True)
    usage = command.get_usage(context).removeprefix("Usage: ")
    lines = [f"## {typed}", "", "```text", usage, "```", ""]
    help_text = inspect.cleandoc(command.help or "")
    for paragraph in help_text.split("\n\n"):
        if paragraph.startswith("\b"):
            lines += ["```text", *paragraph.splitlines()[1:], "```", ""]
        else:
            lines += [_escape(" ".join(paragraph.split())), ""]
    if isinstance(command, click.Group):
        lines += [
            f"- {_code(f'{typed} {name}')}: {_escape(below.get_short_help_str(200))}"
            for name, below in sorted(command.commands.items())
        ]
        return "\n".join([*lines, ""])
    sections: dict[str, list[str]] = {}
    for title, parameters in _sections_of(command, context).items():
        for parameter in parameters:
            flag, text = parameter.get_help_record(context)
            # An address of its own, so that a page or a colleague can point at the option.
            anchor = f"{typed} {parameter.opts[0]}".replace(" ", "-")
            link = f'<a class="headerlink" id="{anchor}" href="#{anchor}" title="This option">¶</a>'
            record = f"{_code(flag)} {link}\n: {_escape(' '.join(text.split()))}\n"
            sections.setdefault(title, []).append(record)
    for title, records in sections.items():
        lines += ([f"**{title}**", ""] if len(sections) > 1 else []) + records
    return "\n".join([*lines, ""])


def command_table() -> str:
    """Return a table of the commands and their first sentences."""
    from tripletkit.cli.main import tripletkit

    rows = [
        (f"[`{name}`](command_line.md#tripletkit-{name})", _escape(command.get_short_help_str(200)))
        for name, command in sorted(tripletkit.commands.items())
    ]
    return _table(("command", "what it does"), rows)


def settings() -> str:
    """Return the settings of a training."""
    from tripletkit.model.settings import SETTINGS

    rows = [
        (
            _code(name),
            _code(str(facts.default).lower()),
            _escape(facts.describe()),
            _escape(facts.help),
        )
        for name, facts in SETTINGS.items()
    ]
    return _table(("setting", "default", "may be", "what it is"), rows)


def losses() -> str:
    """Return the losses with formulas and papers."""
    from tripletkit.losses.loss_registry import LOSSES

    rows = [
        (
            _code(loss.name),
            _escape(loss.summary),
            _code(loss.formula),
            "needed" if loss.needs_labels else "",
            _escape(loss.paper),
        )
        for loss in LOSSES.values()
    ]
    return _table(("loss", "what it is", "of a triplet or image", "labels", "paper"), rows)


def backbones() -> str:
    """Return the backbones with their licences and papers."""
    from tripletkit.features.backbones import BACKBONES

    rows = [
        (
            _code(backbone.name),
            f"{backbone.n_features:,}",
            f"{backbone.input_size_px} px",
            _escape(backbone.licence),
            _escape(backbone.paper),
        )
        for backbone in BACKBONES.values()
    ]
    return _table(("backbone", "features", "input", "licence of the weights", "paper"), rows)


def hub_encoders() -> str:
    """Return some encoders of the hub, and where each fact of them was read."""
    from tripletkit.features.backbones import read_facts

    rows = [
        (
            row["encoder"],
            _code(row["backbone"]),
            f"[{row['size']}]({row['size_page']})",
            f"[{row['licence']}]({row['licence_page']})" if row["licence_page"] else row["licence"],
        )
        for row in read_facts("hub_encoders.csv")
    ]
    return _table(("encoder", "`--backbone`", "float32 file", "licence of the weights"), rows)


def recipes() -> str:
    """Return the recipes with their papers."""
    from tripletkit.model.recipes import RECIPES

    rows = [
        (_code(recipe.name), _escape(recipe.summary), _escape(recipe.paper))
        for recipe in RECIPES.values()
    ]
    return _table(("recipe", "what it is", "paper"), rows)


def record() -> str:
    """Return the fields of `model.json`, from the dataclasses that read and write it."""
    from tripletkit.model.record import FORMAT_VERSION, ModelRecord
    from tripletkit.model.settings import SETTINGS, Settings

    found: dict[type, None] = {}
    _find_records(ModelRecord, found)
    parts = [f"Format version {FORMAT_VERSION}.", ""]
    for kind in found:
        texts = _attribute_texts(kind)
        if kind is Settings:
            texts = {name: facts.help for name, facts in SETTINGS.items()} | texts
        hints = typing.get_type_hints(kind, localns=_names_of(kind))
        rows = [
            (_code(name), _show_type(hint), _escape(texts.get(name) or _first_line(hint)))
            for name, hint in hints.items()
        ]
        about = (kind.__doc__ or "").partition("\n")[0]
        parts += [f"### {kind.__name__.lstrip('_')}", "", _escape(about), ""]
        parts += [_table(("key", "value", "what it is"), rows), ""]
    return "\n".join(parts)


def _first_line(hint: object) -> str:
    """Return what the docstring of a record says first, for a field that holds one."""
    records = [part for part in _parts_of(hint) if dataclasses.is_dataclass(part)]
    return (inspect.getdoc(records[0]) or "").partition("\n")[0] if records else ""


def _find_records(kind: type, found: dict[type, None]) -> None:
    """Collect a dataclass and those that its fields hold, each once."""
    if kind in found:
        return
    found[kind] = None
    for hint in typing.get_type_hints(kind, localns=_names_of(kind)).values():
        for part in _parts_of(hint):
            if dataclasses.is_dataclass(part):
                _find_records(part, found)


def _names_of(kind: type) -> dict[str, object]:
    """Return what a module may name in types without importing it when it runs."""
    import numpy as np

    return {"np": np}


def _parts_of(hint: object) -> Iterator[type]:
    if typing.get_origin(hint) is None:
        if isinstance(hint, type):
            yield hint
        return
    for argument in typing.get_args(hint):
        yield from _parts_of(argument)


def _show_type(hint: object) -> str:
    """Return a type as words of JSON."""
    if hint is type(None):
        return "null"
    origin = typing.get_origin(hint)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(_show_type(part) for part in typing.get_args(hint))
    if origin in (list, tuple):
        inside = [part for part in typing.get_args(hint) if part is not Ellipsis]
        return f"list of {_show_type(inside[0])}" if inside else "list"
    if origin is dict:
        return f"object of {_show_type(typing.get_args(hint)[1])}"
    if origin is typing.Literal:
        return " or ".join(_code(repr(value)) for value in typing.get_args(hint))
    names = {
        str: "text",
        int: "whole number",
        float: "number",
        bool: "true or false",
        dict: "object",
    }
    if hint in names:
        return names[hint]
    if hint is typing.Any:
        return "any"
    name = getattr(hint, "__name__", str(hint)).lstrip("_")
    return f"[{name}](#{name.lower()})" if dataclasses.is_dataclass(hint) else name


def _attribute_texts(kind: type) -> dict[str, str]:
    """Return what the docstring of a class says of its attributes."""
    text = inspect.getdoc(kind) or ""
    _, _, attributes = text.partition("Attributes:\n")
    found: dict[str, str] = {}
    current: list[str] = []
    for line in attributes.splitlines():
        named = re.match(r"    (\w[\w, ]*): (.*)", line)
        if named:
            current = [name.strip() for name in named[1].split(",")]
            found |= dict.fromkeys(current, named[2])
        elif line.startswith("     "):
            found |= {name: f"{found[name]} {line.strip()}" for name in current}
        elif line.strip():
            break
    return found


def _table(heading: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [heading, ("---",) * len(heading), *rows]
    return "\n".join(
        "| " + " | ".join(line) + " |"
        for line in (tuple(cell.replace("|", "\\|") for cell in line) for line in lines)
    )


def _code(text: str) -> str:
    return f"`{text}`"


def _escape(text: str) -> str:
    """Return text whose signs Markdown leaves as they are, outside of code."""
    parts = text.split("`")
    # Every second part is code.
    parts[::2] = [re.sub(r"([<>*_\[\]])", r"\\\1", part) for part in parts[::2]]
    return "`".join(parts)


PARTS = {
    "commands": commands,
    "command_table": command_table,
    "settings": settings,
    "losses": losses,
    "backbones": backbones,
    "hub_encoders": hub_encoders,
    "recipes": recipes,
    "record": record,
}

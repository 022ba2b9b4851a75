"""What every command is made of: options of the run, what is said, and a result that is printed.

A command file says how a line is parsed, calls one public function of `tripletkit`, and returns
its result, which is printed here: data on stdout, talk on stderr, bars only on a terminal.

What every run can be told belongs to the program, and may stand anywhere on the line; a command
says with `takes` which of these it heeds, and others are refused.
"""

from __future__ import annotations

import errno
import functools
import json
import logging
import os
import re
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

import tripletkit as tk
from tripletkit import defaults
from tripletkit.cli.parameters import ADDED_TO, NAMED_FILE, OutputPath
from tripletkit.data.outputs import open_run
from tripletkit.errors import SettingsError, TripletkitError, TripletkitWarning
from tripletkit.progress import draw_bars, log_stages, no_stages
from tripletkit.results import plain_values

if TYPE_CHECKING:
    from tripletkit.data.images import Images
    from tripletkit.progress import Stages

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


def _parse_columns(value: Any) -> dict[str, str]:
    """Return the columns of such as `anchor=head,positive=winner`."""
    if isinstance(value, dict):
        return value
    pairs = [part.partition("=") for part in value.split(",")]
    if not all(name.strip() and sign and text.strip() for name, sign, text in pairs):
        raise click.BadParameter(f"expected such as anchor=head,positive=winner, got {value}")
    return {name.strip(): text.strip() for name, _, text in pairs}


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
        type=_parse_columns,
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
    "overwrite=True": "--force",
    "cache": "--cache DIR",
}

# `name` or `name=value`, in backquotes; commands and files in backquotes have spaces or dots.
_SETTING = re.compile(r"`([a-z][a-z_]*)(?:=([^`]*))?`")


def told(name: str, context: click.Context | None = None) -> Any:
    """Return what the run is told; None where no command runs."""
    context = context or click.get_current_context(silent=True)
    return None if context is None else context.find_root().params.get(name)


def _longest(option: click.Option) -> str:
    """Return the flag of an option that says most."""
    return max(option.opts, key=len)


def taken_by(command: click.Command) -> Sequence[str]:
    """Return the options of a run that a command takes."""
    return getattr(command.callback, "taken_options", ("quiet",))


def _refuse_untaken(context: click.Context, called: click.Command) -> None:
    """Refuse options of the run that a command would pass over."""
    given = click.core.ParameterSource.COMMANDLINE
    for name, option in RUN_OPTIONS.items():
        if context.get_parameter_source(name) == given and name not in taken_by(called):
            flag = _longest(option)
            raise click.NoSuchOption(flag, f"No such option: {flag}")


def _hoist_run_options(arguments: list[str]) -> list[str]:
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
            flag = _longest(option)
            return flag if value is None or option.is_flag else f"{flag} {value}"
        if "settings" in options:
            from tripletkit.model.settings import SETTINGS

            return f"-s {text}" if name in SETTINGS else found.group()
        return found.group()

    return _SETTING.sub(spell, message)


# What is said.


def say(message: str) -> None:
    """Tell the user something on stderr, unless `--quiet`."""
    if not told("quiet"):
        _talk(message)


def warn(message: str) -> None:
    """Warn on stderr; `--quiet` does not silence warnings."""
    _talk(f"warning: {message}")


def _talk(message: str) -> None:
    tqdm = sys.modules.get("tqdm")
    if tqdm is None or not sys.stderr.isatty():
        click.echo(message, err=True)
    else:
        # Above a bar that is being drawn.
        tqdm.tqdm.write(message, file=sys.stderr)


@contextmanager
def _listening() -> Iterator[None]:
    """Turn what the library says into text on stderr: remarks, and cautions with `warning:`."""
    logger = logging.getLogger("tripletkit")
    handler, level = _Remarks(), logger.level
    show_other = warnings.showwarning

    def show(message: Warning | str, category: type[Warning], *where: Any, **options: Any) -> None:
        if issubclass(category, TripletkitWarning):
            warn(_spell(str(message)))
        else:
            show_other(message, category, *where, **options)

    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    with warnings.catch_warnings():
        warnings.simplefilter("always", TripletkitWarning)
        warnings.showwarning = show
        try:
            yield
        finally:
            logger.removeHandler(handler)
            logger.setLevel(level)


class _Remarks(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        text = _spell(record.getMessage())
        if record.levelno >= logging.WARNING:
            warn(text)
        else:
            say(text)


def _spell(message: str) -> str:
    context = click.get_current_context(silent=True)
    return spell_flags(message, None if context is None else context.command)


def show_result(result: Any) -> None:
    """Print what a public function gave: as text, or as JSON with `--json`."""
    if not told("as_json"):
        click.echo(_spell(str(result)))
        return
    plain = plain_values(result.to_dict())
    text = json.dumps(plain, indent=2, ensure_ascii=False, allow_nan=False)
    # A path that is not UTF-8 holds surrogates; their escape is what JSON has for them.
    click.echo(text.encode("utf-8", "backslashreplace"))


def _drop_stdout() -> None:
    """Let what stdout could not take go nowhere, or Python would try once more when it ends."""
    out = sys.__stdout__
    if out is not None and sys.stdout is out:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, out.fileno())
        os.close(nowhere)


def _stage_bars() -> AbstractContextManager[Stages]:
    """Give a callable that draws a bar for each stage of a command; off a terminal, lines."""
    if told("quiet"):
        return nullcontext(no_stages)
    if not sys.stderr.isatty():
        return log_stages()
    from tqdm import tqdm

    return draw_bars(tqdm, file=sys.stderr)


# Commands.


class _Command(click.Command):
    """A command whose help shows its options in sections, and which options of a run it takes."""

    def invoke(self, context: click.Context) -> Any:
        _refuse_untaken(context.find_root(), self)
        return super().invoke(context)

    def format_options(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        for title, options in _sections_of(self, context).items():
            records = [option.get_help_record(context) for option in options]
            with formatter.section(title):
                formatter.write_dl([record for record in records if record])
        taken = taken_by(self)
        flags = [_longest(option) for name, option in RUN_OPTIONS.items() if name in taken]
        with formatter.section("Options of every run"):
            formatter.write_text(f"{', '.join([*flags, '--help'])}: see `tripletkit --help`.")


def _sections_of(given: click.Command, context: click.Context) -> dict[str, list[click.Parameter]]:
    """Return the options of a command by the title that they stand under in its help.

    What is written stands under "Output", whatever else is not said to stand elsewhere.
    """
    sections: dict[str, list[click.Parameter]] = {"Options": []}
    for param in given.get_params(context):
        if isinstance(param, click.Option) and "--help" not in param.opts:
            usual = "Output" if isinstance(param.type, OutputPath) else "Options"
            sections.setdefault(getattr(param, "section", usual), []).append(param)
    return {title: options for title, options in sections.items() if options}


def command(
    name: str | None = None, *, group: Any = click
) -> Callable[[Callable[..., Any]], click.Command]:
    """Return the decorator of a command, of a group of commands where there is one."""
    decorator: Callable[..., click.Command] = group.command(name, cls=_Command)
    return decorator


# How files of judgements are read.
_READING = ("columns", "names", "swap", "exclude")
# What a command takes by one name -> the options of the run that it is made of.
_TOGETHER = {
    "images": ("on_bad_image", "follow_outside"),
    "folder": ("follow_outside",),
    "judgements": _READING,
    "labels": ("columns",),
    "progress": (),
}


def takes(*names: str) -> Decorator:
    """Return a decorator that gives a command options of the run, and prints what it returns.

    Args:
        names: of `RUN_OPTIONS`; `"images"`, which makes of the parameter of that name and of what
            to do with bad images one `Images`; `"folder"`, the same of files that are not read;
            `"judgements"` and `"labels"`, which read what is of the type `JUDGEMENTS` or `LABELS`
            as it is told; or `"progress"`, bars for a public function.
    """
    options = [option for name in names for option in _TOGETHER.get(name, (name,))]

    def add(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def run(**given: Any) -> None:
            with ExitStack() as bars:
                for name in names:
                    if name in ("images", "folder"):
                        given["images"] = _open_images(given.get("images"))
                    elif name == "judgements":
                        _read_judgements(given)
                    elif name == "labels":
                        _read_labels(given)
                    elif name == "progress":
                        given[name] = bars.enter_context(_stage_bars())
                    elif name != "as_json":
                        given[name] = told(name)
                result = function(**given)
            if result is not None:
                show_result(result)

        run.taken_options = ("quiet", *options)  # type: ignore[attr-defined]
        return run

    return add


def _open_images(given: Path | None) -> Images:
    return tk.open_images(
        given, skip_bad=told("on_bad_image") == "skip", follow_outside=told("follow_outside")
    )


def _divide_columns(columns: dict[str, str] | None) -> tuple[dict[str, str], dict[str, str]]:
    """Return the columns of judgements, and those of labels where a command takes any."""
    columns = columns or {}
    if not _params("labels"):
        return columns, {}
    of_labels = {name: text for name, text in columns.items() if name in ("name", "label")}
    return {name: text for name, text in columns.items() if name not in of_labels}, of_labels


def _params(of: str) -> list[click.Parameter]:
    """Return the parameters of the command that are judgements, or labels."""
    params = click.get_current_context().command.params
    return [param for param in params if getattr(param.type, "of", "") == of]


def _read_labels(given: dict[str, Any]) -> None:
    others, columns = _divide_columns(told("columns"))
    if others and not _params("judgements"):
        columns |= others  # which are refused
    images = given.get("images")
    folder = getattr(images, "folder", images)
    for param in _params("labels") if columns else []:
        if param.name and given[param.name]:
            given[param.name] = tk.read_labels(given[param.name], folder, columns=columns)


def _read_judgements(given: dict[str, Any]) -> None:
    how = {name: told(name) for name in _READING}
    how["columns"] = _divide_columns(how["columns"])[0] or None
    if not any(how.values()):
        return
    is_first = True
    for param in _params("judgements"):
        # Beside the questions it is the truth alone that this file holds.
        is_truth = param.name == "truth" and given.get("triplets") is not None
        of_file = {"exclude": how["exclude"]} if is_truth else how
        if param.name and given[param.name] and any(of_file.values()):
            read = []
            for path in given[param.name] if param.multiple else [given[param.name]]:
                try:
                    read.append(tk.read_judgements(path, **of_file))
                except tk.SettingsError as error:
                    # Judges are those of the first file; the others may have none.
                    if is_first or error.field != "exclude":
                        raise
                    read.append(tk.read_judgements(path, **of_file | {"exclude": ()}))
                is_first = False
            given[param.name] = read if param.multiple else read[0]


def first(prepare: Callable[[dict[str, Any]], None]) -> Decorator:
    """Return a decorator that lets a function look over what a command is given, and change it."""

    def add(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def run(**given: Any) -> Any:
            prepare(given)
            return function(**given)

        return run

    return add


def section(title: str, *options: Decorator) -> Decorator:
    """Return one decorator that adds options under a title of their own in the help."""

    def add(command: Callable[..., Any]) -> Callable[..., Any]:
        known = set(getattr(command, "__click_params__", []))
        for option in reversed(options):
            command = option(command)
        for param in command.__click_params__:  # type: ignore[attr-defined]
            if param not in known and not hasattr(param, "section"):
                param.section = title
        return command

    return add


# The program.

_INTERRUPTED = 130  # 128 + SIGINT, as shells count it
_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class Program(click.Group):
    """A group that reports what tripletkit raises on purpose, and lets bugs keep their trace.

    `titles` are the titles of its help, with the commands below each; a command is the function of
    the name of its module.
    """

    def __init__(self, *given: Any, titles: Mapping[str, str], **options: Any) -> None:
        super().__init__(*given, **options)
        self._titles = titles
        for name in " ".join(titles.values()).split():
            module = name.replace("-", "_")
            self.add_command(getattr(import_module(f"tripletkit.cli.{module}"), module))

    def parse_args(self, context: click.Context, args: list[str]) -> list[str]:
        return super().parse_args(context, _hoist_run_options(args))

    def format_commands(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        width = formatter.width - 6 - max(map(len, self.commands))
        for title, names in self._titles.items():
            shown = [(name, self.commands[name]) for name in names.split()]
            with formatter.section(title):
                formatter.write_dl([(name, each.get_short_help_str(width)) for name, each in shown])

    def invoke(self, context: click.Context) -> object:
        try:
            with _listening(), open_run():
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
            _drop_stdout()
            raise click.ClickException(f"the output cannot be written: {error.strerror}") from error

    def _called(self, context: click.Context) -> click.Context:
        """Return the context of the command that was called, for its flags and its usage."""
        name = context.invoked_subcommand
        command = name and self.get_command(context, name)
        return click.Context(command, parent=context, info_name=name) if command else context

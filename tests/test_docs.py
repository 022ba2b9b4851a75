"""Every command is explained where people look for it."""

from __future__ import annotations

import subprocess
import sys

import click
import pytest

from tripletkit import __version__
from tripletkit.cli.main import tripletkit


def walk(command, words):
    """Yield (words on the command line, command) of a group and all below it."""
    yield words, command
    if isinstance(command, click.Group):
        for name, below in command.commands.items():
            yield from walk(below, [*words, name])


COMMANDS = [
    pytest.param(words, command, id=" ".join(words) or "tripletkit")
    for words, command in walk(tripletkit, [])
]


@pytest.mark.parametrize(("words", "command"), COMMANDS)
def test_help_has_a_sentence_and_an_example(tripletkit, words, command):
    result = tripletkit(*words, "--help", prog_name="tripletkit", code=0)
    assert result.stderr == ""
    assert f"Usage: {' '.join(['tripletkit', *words])}" in result.stdout
    first_line = command.help.strip().partition("\n")[0]
    assert first_line[0].isupper()
    example = " ".join(["  tripletkit", *words])
    assert any(line.startswith(example) for line in result.stdout.splitlines())


@pytest.mark.parametrize(("words", "command"), COMMANDS)
def test_every_option_is_explained(words, command):
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert parameter.help, f"{' '.join(words)} {parameter.opts[0]}"


@pytest.mark.integration
def test_the_module_is_the_command():
    for arguments, expected in (
        (["--version"], f"tripletkit, version {__version__}\n"),
        (["cache", "--help"], None),
    ):
        done = subprocess.run(
            [sys.executable, "-m", "tripletkit", *arguments],
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        )
        assert expected in (None, done.stdout)
        assert done.stderr == ""
        assert "python" not in done.stdout


def test_an_unknown_command_is_a_wrong_call(tripletkit):
    result = tripletkit("trian")
    assert (result.exit_code, result.stdout) == (2, "")

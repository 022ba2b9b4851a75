"""Numbers of the command line have a range; settings are checked whatever they are given by."""

import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.shell_completion import ShellComplete
from conftest import COMMANDS, command_line

from tripletkit import SettingsError
from tripletkit.model.settings import gather_settings

NUMBERS = [
    pytest.param(command, param, id=f"{name} {max(param.opts, key=len)}")
    for name, command in COMMANDS.items()
    for param in command.params
    if isinstance(param.type, click.types.IntParamType | click.types.FloatParamType)
]


def test_there_are_numbers_to_test():
    assert len(NUMBERS) > 10


@pytest.mark.parametrize(("command", "option"), NUMBERS)
def test_every_number_has_a_range_that_holds(command, option):
    kind = option.type
    assert type(kind).__module__ == "tripletkit.cli.parameters"
    refused = ["nan", "inf", "-inf", "1_0", "١", "１", "", "x", "99999999999999999999"]
    if isinstance(kind, click.IntRange):
        assert 0 <= kind.min < kind.max < 2**31
        refused.append("1.5")
    else:
        refused = [text for text in refused if kind.max is not None or not text.startswith("99")]
    with click.Context(command) as context:
        for text in refused:
            with pytest.raises(click.BadParameter):
                option.type_cast_value(context, (text,) if option.multiple else text)


def test_a_number_beyond_all_arrays_is_refused_in_words(tripletkit, tmp_path):
    result = tripletkit("neighbors", "-k", "99999999999999999999", tmp_path, code=2)
    assert "99999999999999999999 is more than 2,147,483,647." in result.stderr


@pytest.mark.integration
def test_closed_standard_input_is_a_wrong_call():
    command = [sys.executable, "-m", "tripletkit", "audit", "-"]
    done = subprocess.run(
        ["sh", "-c", 'exec "$@" <&-', "sh", *command],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 2
    assert "Error: `-` stands for standard input, which is closed." in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("typed", "incomplete", "expected"),
    [
        (["train", "--loss"], "tri", {"triplet", "triplet+cross-entropy"}),
        (["train", "--backbone"], "efficientnet-l", {"efficientnet-lite0", "efficientnet-lite2"}),
        (["embed", "--backbone"], "resnet50,aut", {"resnet50,auto"}),
        (["train", "-s"], "center", {"center_weight=", "center_decay="}),
        (["train", "--recipe"], "r", {"residual"}),
        ([], "rep", {"report"}),
        (["report"], "--se", {"--serve"}),
    ],
)
def test_the_shell_completes_names(typed, incomplete, expected):
    complete = ShellComplete(command_line, {}, "tripletkit", "_TRIPLETKIT_COMPLETE")
    found = {item.value for item in complete.get_completions(typed, incomplete)}
    assert expected <= found
    assert all(value.startswith(incomplete) for value in found)


@pytest.mark.parametrize("start", ["", "\ufeff"])
def test_a_keyword_comes_before_a_pair_and_both_before_a_file(tmp_path: Path, start: str) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(f"{start}margin = 0.4\nepochs = 3\ndropout = 0.1\n", encoding="utf-8")
    found = gather_settings({"margin": 0.3, "dim": None}, ["dropout=0.2"], file)
    assert found == {"margin": 0.3, "epochs": 3, "dropout": 0.2}


def test_all_of_them_are_checked(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text("margin = -1\n")
    for given in ({"margin": -1},), ({}, ["margin=-1"]), ({}, [], tmp_path / "mine.toml"):
        with pytest.raises(SettingsError, match="`margin`: expected a number above 0"):
            gather_settings(*given)
    with pytest.raises(SettingsError, match="margin is given twice"):
        gather_settings({"margin": 0.3}, ["margin=0.3"])

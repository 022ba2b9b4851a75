"""Settings, whatever they are given by: keywords, pairs of text, TOML, the record of a model."""

from pathlib import Path

import pytest

from tripletkit import SettingsError
from tripletkit.model.settings import gather_settings


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

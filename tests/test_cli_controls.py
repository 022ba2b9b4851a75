"""`tripletkit controls` as a script and as a person sees it."""

import json
from pathlib import Path

import pytest


@pytest.fixture
def folder(tmp_path: Path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("train.txt").write_text("a b c\nd e f\n")
    Path("val.txt").write_text("b a c\nd f e\n")
    Path("truth.txt").write_text("1\n0\n")
    return tmp_path


def test_controls_without_truth_says_what_it_takes_for_granted(tripletkit, folder):
    result = tripletkit(*"controls train.txt val.txt --no-ordinal --json".split())
    assert result.stderr == (
        "No truth file: taking every first image for the nearer one (truth all 1).\n"
    )
    assert json.loads(result.stdout)["baselines"][0]["accuracy"] == 0.5


def test_controls_refuse_a_truth_of_another_length(tripletkit, folder):
    Path("truth.txt").write_text("1\n")
    result = tripletkit(*"controls train.txt val.txt --truth truth.txt".split(), code=1)
    assert "expected 2 labels, one for each row of val.txt, got 1" in result.stderr

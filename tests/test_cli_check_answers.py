"""`tripletkit check-answers` as a script and as a person sees it."""

import json
from pathlib import Path

import pytest


@pytest.fixture
def folder(tmp_path: Path, monkeypatch) -> Path:
    """Answers that go round in a circle and answer a mirrored question both ways."""
    monkeypatch.chdir(tmp_path)
    Path("test.txt").write_text("a b c\nc a b\nb c a\nu v w\nu w v\n")
    Path("answers.txt").write_text("1\n1\n1\n1\n1\n")
    return tmp_path


def test_check_answers_refuses_answers_to_another_file(tripletkit, folder):
    Path("answers.txt").write_text("1\n0\n")
    result = tripletkit(*"check-answers answers.txt test.txt".split(), code=1)
    assert "answers.txt: expected 5 answers, one for each row of test.txt, got 2" in result.stderr


@pytest.mark.shared
def test_check_answers_of_the_sample_of_the_competition(tripletkit, shared):
    folder = shared / "food_triplets"
    given = (folder / "sample.txt", folder / "test_triplets.txt")
    found = json.loads(tripletkit("check-answers", *given, "--json", code=0).stdout)
    assert found["n"] == 59_544
    assert found["share_of_ones"] == pytest.approx(0.5, abs=0.002)
    assert found["consistency"]["n_mirrored"] == 136
    assert found["consistency"]["n_mirrored_broken"] > 60  # it answers them by chance
    assert found["n_knots"] > 1000

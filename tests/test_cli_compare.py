"""`tripletkit compare` as a script and as a person sees it."""

from pathlib import Path

import pytest

TRUTH = [1, 0] * 20
TRIPLETS = [(f"a{row}", f"b{row}", f"c{row}") for row in range(40)]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch) -> Path:
    """A truth, and answers that are wrong on the first 2, 12 and 20 rows."""
    monkeypatch.chdir(tmp_path)
    Path("truth.txt").write_text("".join(f"{label}\n" for label in TRUTH))
    Path("test.txt").write_text("".join(" ".join(names) + "\n" for names in TRIPLETS))
    for name, n_wrong in (("good", 2), ("fair", 12), ("poor", 20)):
        answers = [1 - label if row < n_wrong else label for row, label in enumerate(TRUTH)]
        Path(f"{name}.txt").write_text("".join(f"{answer}\n" for answer in answers))
    return tmp_path


def test_compare_claims_nothing_about_other_images_where_these_are_too_few(tripletkit, folder):
    rows = [f"a{n % 3} b{n % 4} c{n % 5}\n" for n in range(40)]
    Path("few.txt").write_text("".join(rows))
    result = tripletkit(*"compare fair.txt good.txt truth.txt --triplets few.txt".split())
    few = "too few images for an interval (12, used like 11.4 equal ones; it takes 25)"
    lines = result.stdout.splitlines()
    assert f"  95% interval               none: {few}" in lines
    assert lines[-1] == f"  On these rows good.txt is better; whether on others: {few}."
    assert ["too few images" in line for line in lines[3:5]] == [True, True]


def test_compare_does_not_call_a_small_difference_real(tripletkit, folder):
    Path("near.txt").write_text("0\n0\n1\n" + "".join(f"{label}\n" for label in TRUTH[3:]))
    result = tripletkit(*"compare near.txt good.txt truth.txt".split())
    assert result.stdout.splitlines()[-1] == "  No sign that either is truly better."


@pytest.mark.parametrize(
    ("arguments", "exit_code", "message"),
    [
        ("good.txt truth.txt", 2, "expected two or more answers and then their truth"),
        ("good.txt good.txt truth.txt", 2, "Expected different answer files"),
        ("good.txt none.txt truth.txt", 2, "'none.txt' does not exist"),
        ("good.txt short.txt truth.txt", 1, "short.txt: expected 40 answers"),
        ("good.txt fair.txt truth.txt --rows no/d.csv", 1, "no/d.csv: its folder "),
    ],
)
def test_compare_says_what_is_wrong(tripletkit, folder, arguments, exit_code, message):
    Path("short.txt").write_text("1\n0\n")
    result = tripletkit(*f"compare {arguments}".split(), code=exit_code)
    assert message in result.stderr
    assert result.stdout == ""


def test_compare_tells_a_truth_file_that_is_not_last(tripletkit, folder):
    Path("truth.csv").write_text("label\n" + "1\n" * 40)
    Path("preds.csv").write_text("prediction\n" + "1\n" * 40)
    result = tripletkit(*"compare truth.csv good.txt preds.csv".split(), code=1)
    assert "truth.csv: expected answers, got the column label of a truth file" in result.stderr

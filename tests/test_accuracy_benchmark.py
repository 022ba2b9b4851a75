"""`examples/accuracy_benchmark.py`: every way of answering on triplet sets, row by row."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

from tripletkit import defaults

SCRIPT = Path(__file__).parents[1] / "examples" / "accuracy_benchmark.py"


@pytest.fixture(scope="module")
def benchmark():
    # What is beside a script is found when it is run as one.
    sys.path.insert(0, str(SCRIPT.parent))
    spec = importlib.util.spec_from_file_location("accuracy_benchmark", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    # Its data classes look their own module up.
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    yield module
    sys.path.remove(str(SCRIPT.parent))
    del sys.modules[spec.name]


@pytest.fixture
def sets(toy_competition, tmp_path):
    path = tmp_path / "sets.csv"
    files = (*toy_competition[1:4], toy_competition.images)
    path.write_text("set,train,test,truth,images,labels\n" + f"toy,{','.join(map(str, files))},\n")
    return path


@pytest.fixture
def run(benchmark, sets, tiny_backbone, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(defaults, "MAX_DRAW_ROUNDS", 1)
    quick = {"backbone": "tiny", "epochs": 1, "hidden": 8}
    recipes = {
        "best": {"recipe": "best", "backbone": "tiny", "budget_s": 0.1, "unseen_classes": 0},
        "mlp, no refit": {"refit": False, **quick},
    }
    monkeypatch.setattr(benchmark, "RECIPES", recipes)

    def run(*options):
        given = [sets, tmp_path / "rows.jsonl", "--only", ";".join(recipes), *options]
        monkeypatch.setattr(sys, "argv", ["accuracy_benchmark.py", *map(str, given)])
        benchmark.main()
        return capsys.readouterr(), benchmark.read_rows(tmp_path / "rows.jsonl")

    return run


@pytest.mark.slow
def test_what_was_measured_is_not_measured_again(run, benchmark, toy_competition):
    _, rows = run("--seeds", 1)
    assert rows[0]["way"] == "best"
    assert {row["way"] for row in rows} >= {"best", "mlp, no refit"}
    parts = [row for row in rows if row["way"].startswith("part tiny, ")]
    assert parts
    for row in rows:
        right = benchmark.right_of(row)
        assert len(right) == 200
        assert right.mean() == pytest.approx(row["accuracy"])
    assert 0 < rows[0]["said"]["accuracy"] <= 1
    again, same = run("--seeds", 1)
    assert same == rows
    assert not again.err
    # The table: best against all others, paired.
    table = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in again.out.splitlines()
        if line.startswith("| ")
    ]
    assert {cells[0] for cells in table[2:]} == {row["way"] for row in rows}
    accuracies = [float(cells[1]) for cells in table[2:]]
    assert accuracies == sorted(accuracies, reverse=True)
    assert [cells[3] for cells in table if cells[0] == "best"] == ["-"]

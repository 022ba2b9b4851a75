"""`examples/accuracy_benchmark.py`: one table of every way of answering, on any triplet set."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
import sklearn.utils

from tripletkit.model.settings import HeadSettings

SCRIPT = Path(__file__).parents[1] / "examples" / "accuracy_benchmark.py"


@pytest.fixture(scope="module")
def benchmark():
    spec = importlib.util.spec_from_file_location("accuracy_benchmark", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    # Its data classes look their own module up.
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


@pytest.fixture
def labels(toy_competition, tmp_path):
    path = tmp_path / "labels.csv"
    rows = (f"p{number:02}.png,{label}\n" for number, label in enumerate(toy_competition.labels))
    path.write_text("name,label\n" + "".join(rows))
    return path


@pytest.fixture
def run(benchmark, toy_competition, tiny_backbone, labels, monkeypatch, capsys):
    def settings_of(task, recipe, seed):
        return HeadSettings.of_recipe(recipe, seed=seed, epochs=1, hidden=8, members=2)

    def run(*options):
        files = toy_competition[1:4]
        given = [*files, toy_competition.images, "--labels", labels, "--backbone", "tiny", *options]
        monkeypatch.setattr(sys, "argv", ["accuracy_benchmark.py", *map(str, given)])
        monkeypatch.setattr(benchmark, "settings_of", settings_of)
        monkeypatch.setattr(benchmark, "find_spec", lambda name: None)
        benchmark.main()
        return capsys.readouterr()

    return run


def test_it_prints_one_table_of_every_way(run):
    said = run("--seeds", 2)
    head, _, _, _, *rows = said.out.splitlines()
    assert head == "400 training triplets over 42 images, 200 questions"
    cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]
    assert [row[0] for row in cells] == [
        "frozen features, L2",
        "frozen features, cosine",
        "mlp",
        "residual",
        "best",
        "best, 10-D",
        "scikit-learn NCA (labels)",
        "2 mlp heads",
    ]
    accuracies = [float(row[1]) for row in cells]
    assert all(0 <= accuracy <= 1 for accuracy in accuracies)
    lows, highs = zip(*(map(float, row[2].split(" to ")) for row in cells), strict=True)
    spread = zip(lows, accuracies, highs, strict=True)
    assert all(low - 1e-4 <= mean <= high + 1e-4 for low, mean, high in spread)
    assert cells[int(np.argmax(accuracies))][3] == "-"
    # The first seed's table and every number are told on the way.
    assert said.err.count("| answers by |") == 1
    assert said.err.count("residual: ") == 2
    assert said.err.count("scikit-learn NCA (labels): ") == 1


def test_classes_left_out_are_in_no_training_triplet_and_in_every_question(
    benchmark, run, toy_competition, monkeypatch
):
    tasks = []
    monkeypatch.setattr(benchmark, "measure", lambda task, n_seeds: tasks.append(task) or [])
    run("--without-classes", "0,3")
    (task,) = tasks
    is_new = np.isin(task.labels, ["0", "3"])
    assert len(task.train) < 400
    assert not is_new[task.train].any()
    assert is_new[task.data.val.rows].any(axis=1).all()


def test_the_old_name_of_an_argument_is_passed_on_by_the_new_one(benchmark):
    check = benchmark._take_old_name(sklearn.utils.check_array)
    with_nan = np.array([[1.0, np.nan]])
    np.testing.assert_array_equal(check(with_nan, force_all_finite=False), with_nan)
    with pytest.raises(ValueError, match="contains NaN"):
        check(with_nan)

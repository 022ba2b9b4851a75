"""The benchmarks of learning from labels and of mining run to their tables on any labelled set."""

import importlib.util
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.fixture
def run(toy_competition, labels_file, tiny_backbone, monkeypatch, capsys):
    # What is beside a script is found when it is run as one.
    monkeypatch.syspath_prepend(EXAMPLES)

    def run(name, *options):
        spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
        module = importlib.util.module_from_spec(spec)
        # Its data classes look their own module up.
        monkeypatch.setitem(sys.modules, name, module)
        spec.loader.exec_module(module)
        given = [toy_competition.images, "--labels", labels_file, "--val", toy_competition.test]
        given += ["--val-truth", toy_competition.truth, *options]
        monkeypatch.setattr(sys, "argv", [name, *map(str, given)])
        module.main()
        return capsys.readouterr().out.splitlines()

    return run


@pytest.mark.slow
def test_ways_to_learn_from_labels_make_a_table(run):
    given = ["--ways", "center", "semi-hard", "--seeds", 0, 1]
    *_, head, center, semi_hard = run(
        "labels_benchmark", *given, "-s", "backbone=tiny", "-s", "epochs=2"
    )
    assert head.split("  ")[0] == "way"
    assert "mAP" in head
    assert center.startswith("center")
    assert semi_hard.startswith("semi-hard")
    assert center.count(" to ") == semi_hard.count(" to ") == 7


@pytest.mark.slow
def test_mining_is_compared_within_batches_and_among_all(run, tmp_path):
    figure = tmp_path / "curve.svg"
    given = ["--backbone", "tiny", "--epochs", 2, "--seeds", 0, "--wrong-labels", 0.5]
    lines = run("mining_benchmark", *given, "--curve", figure)
    assert figure.stat().st_size > 5000
    assert lines[0].split() == ["accuracy", "after", "steps", "1", "2", "best"]
    assert [line.split("  ")[0] for line in lines[1:4]] == [
        "random triplets",
        "batch-hard",
        "batch-hard, injected positives",
    ]
    assert lines[5].startswith("50% of the labels wrong")
    assert [line.split("  ")[0] for line in lines[6:]] == [
        "drawn by chance",
        "mined, default cuts",
        "positives to .95, negatives from .25",
        "positives to .95, negatives from .01",
        "the very hardest",
    ]

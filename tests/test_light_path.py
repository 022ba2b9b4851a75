"""Without TensorFlow, what does not need it works, and what does says what to install."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tiny_backbone as tiny

# Runs command lines, up to the first that fails, as if TensorFlow and Keras were not installed.
COMMANDS = """
import importlib.metadata
import json
import sys

of_package = importlib.metadata.version

def version(name):
    if name in ("tensorflow", "keras"):
        raise importlib.metadata.PackageNotFoundError(name)
    return of_package(name)

importlib.metadata.version = version

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("tensorflow", "keras"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Missing())
import tiny_backbone
from tripletkit.cli.main import tripletkit

tiny_backbone.register()
for words in json.loads(sys.argv[1]):
    try:
        tripletkit(words, prog_name="tripletkit")
    except SystemExit as stop:
        if stop.code:
            raise
"""

pytestmark = pytest.mark.integration


@pytest.fixture
def run(tiny_weights, tiny_cache, tmp_path):
    def run(*calls: tuple[object, ...]) -> subprocess.CompletedProcess:
        paths = [str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])]
        return subprocess.run(
            [sys.executable, "-c", COMMANDS, json.dumps([[*map(str, words)] for words in calls])],
            cwd=tmp_path,
            env=os.environ
            | {"PYTHONPATH": os.pathsep.join(paths), tiny.WEIGHTS_VARIABLE: str(tiny_weights)},
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )

    return run


def test_answers_and_scores_need_no_tensorflow(run, toy_model, toy_competition):
    toy = toy_competition
    done = run(
        ("audit", toy.train, toy.images),
        ("split", toy.train, "-o", "s", "--by", "random"),
        ("predict", toy.test, "--model", toy_model, "-o", "preds.csv"),
        ("score", "preds.csv", toy.truth),
        ("neighbors", toy.images, "--query", toy.images / "p00.png", "--model", toy_model),
        ("collect", toy.images, "--judge", "anna", "-n", 20, "--offline", "a.html"),
    )
    assert done.returncode == 0, done.stderr
    assert "Wrote a.html" in done.stderr


def test_a_map_of_given_features_is_trained_without_tensorflow(run, toy_competition, tmp_path):
    names = sorted(path.name for path in toy_competition.images.iterdir())
    features = np.random.default_rng(0).normal(size=(len(names), 8))
    np.savez(tmp_path / "f.npz", names=names, features=features)
    given = ("--features", "f.npz")
    done = run(
        ("train", toy_competition.train, "--recipe", "map", *given, "-o", "m"),
        ("predict", toy_competition.test, "--model", "m", *given, "-o", "p.csv"),
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "p.csv").is_file()


def test_training_says_what_to_install(run, toy_competition, tmp_path):
    given = (toy_competition.train, toy_competition.images, "-o", "m", "--backbone", "tiny")
    done = run(("train", *given, "--recipe", "mlp"))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.splitlines()[-1].endswith("Run: pip install tensorflow")
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "m").exists()

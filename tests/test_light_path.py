"""Without TensorFlow, what does not need it works, and what does says what to install."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tiny_backbone as tiny

# Runs a command line as if TensorFlow and Keras were not installed.
COMMAND = """
import importlib.metadata
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
from tripletkit.__main__ import main

tiny_backbone.register()
main()
"""

pytestmark = pytest.mark.integration


@pytest.fixture
def run(tiny_weights, tiny_cache, tmp_path):
    def run(*words: object) -> subprocess.CompletedProcess:
        paths = [str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])]
        return subprocess.run(
            [sys.executable, "-c", COMMAND, *map(str, words)],
            cwd=tmp_path,
            env=os.environ
            | {"PYTHONPATH": os.pathsep.join(paths), tiny.WEIGHTS_VARIABLE: str(tiny_weights)},
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )

    return run


def test_answers_and_scores_need_no_tensorflow(run, toy_model, toy_competition, tmp_path):
    answers = tmp_path / "preds.csv"
    for words in (
        ("audit", toy_competition.train, toy_competition.images),
        ("split", toy_competition.train, "-o", "s", "--by", "random"),
        ("predict", toy_competition.test, "--model", toy_model, "-o", answers),
        ("score", answers, toy_competition.truth),
        ("neighbors", toy_competition.images, "--query", toy_competition.images / "p00.png",
         "--model", toy_model),
        ("collect", toy_competition.images, "--judge", "anna", "-n", 20, "--offline", "a.html"),
    ):  # fmt: skip
        done = run(*words)
        assert done.returncode == 0, (words, done.stderr)


def test_a_map_of_given_features_is_trained_without_tensorflow(run, toy_competition, tmp_path):
    names = sorted(path.name for path in toy_competition.images.iterdir())
    features = np.random.default_rng(0).normal(size=(len(names), 8))
    np.savez(tmp_path / "f.npz", names=names, features=features)
    given = ("--features", "f.npz")
    for words in (
        ("train", toy_competition.train, "--recipe", "map", *given, "-o", "m"),
        ("predict", toy_competition.test, "--model", "m", *given, "-o", "p.csv"),
    ):
        done = run(*words)
        assert done.returncode == 0, (words, done.stderr)


def test_training_says_what_to_install(run, toy_competition, tmp_path):
    given = (toy_competition.train, toy_competition.images, "-o", "m", "--backbone", "tiny")
    done = run("train", *given, "--recipe", "mlp")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.splitlines()[-1].endswith("Run: pip install tensorflow")
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "m").exists()

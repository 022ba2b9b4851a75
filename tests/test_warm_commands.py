"""Commands whose features are stored never wait for TensorFlow."""

from __future__ import annotations

import subprocess
import sys

import pytest
import tiny_backbone as tiny

from tripletkit import defaults

# Registers the tiny backbone without starting Keras, and says what was loaded.
SCRIPT = """
import sys
sys.path.insert(0, {tests!r})
import tiny_backbone
tiny_backbone.register()
from tripletkit.cli.main import tripletkit
try:
    tripletkit(sys.argv[1:], prog_name="tripletkit")
finally:
    print(sorted({{"tensorflow", "keras", "onnx"}} & set(sys.modules)), file=sys.stderr)
"""


@pytest.fixture(scope="module")
def warm(toy_model, toy_competition, tiny_weights, tmp_path_factory):
    """Run a command in a process of its own, with the features of all images stored."""
    cache = tmp_path_factory.mktemp("warm_cache")
    folder = tmp_path_factory.mktemp("warm")

    def run(*arguments):
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv(tiny.WEIGHTS_VARIABLE, str(tiny_weights))
            patch.setenv(defaults.CACHE_VARIABLE, str(cache))
            script = SCRIPT.format(tests=tiny.__file__.rpartition("/")[0])
            done = subprocess.run(
                [sys.executable, "-c", script, *map(str, arguments)],
                cwd=folder,
                capture_output=True,
                text=True,
                check=False,
                timeout=120,
            )
        assert done.returncode == 0, done.stderr
        return done.stderr.splitlines()[-1]

    images = toy_competition.images
    labels = folder / "labels.csv"
    rows = [f"p{number:02}.png,{label}\n" for number, label in enumerate(toy_competition.labels)]
    labels.write_text("name,label\n" + "".join(rows))
    cold = run("embed", images, "-o", "cold.npz", "--model", toy_model)
    # The network was made for the first time, by Keras.
    assert cold == "['keras', 'onnx', 'tensorflow']"
    run.folder = folder
    return run


def commands(images, model, competition):
    return {
        "predict": ["predict", competition.test, "--model", model, "-o", "p.csv"],
        "predict --frozen": ["predict", competition.test, "--model", model, "--frozen"],
        "neighbors": ["neighbors", images, "--query", images / "p00.png", "--model", model],
        "neighbors --backbone": [
            *("neighbors", images, "--query", images / "p00.png", "--backbone", "tiny"),
        ],
        "embed": ["embed", images, "-o", "e.npz", "--model", model],
        "classify": ["classify", "labels.csv", images, "--model", model],
        "mine": ["mine", "labels.csv", images, "-o", "mined.csv", "--model", model],
        "report": ["report", model, "-o", "report.html"],
        "plot": ["plot", "map", model, "-o", "plot.svg"],
        "collage": ["collage", competition.test, images, "-o", "c.png"],
    }


@pytest.mark.integration
@pytest.mark.parametrize(
    "name",
    "predict;predict --frozen;neighbors;neighbors --backbone;embed;classify;mine;report;plot;"
    "collage".split(";"),
)
def test_warm_commands_never_load_tensorflow(warm, toy_model, toy_competition, name):
    assert warm(*commands(toy_competition.images, toy_model, toy_competition)[name]) == "[]"

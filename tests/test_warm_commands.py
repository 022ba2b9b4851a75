"""Commands whose features are stored never wait for TensorFlow."""

import shutil

import pytest
import tiny_backbone as tiny
from forked_commands import run_watched

from tripletkit import defaults

WARM = ("predict", "predict --frozen", "neighbors", "neighbors --backbone", "embed", "classify")
WARM += ("mine", "report", "plot", "collage")
PRELOADED = "pandas scipy.stats sklearn.decomposition matplotlib.figure onnxruntime".split()


@pytest.fixture(scope="module")
def runs(tripletkit, toy_model, toy_competition, tiny_weights, tiny_networks, tmp_path_factory):
    """Each command's run, with the network at hand and the features of all images stored."""
    cache = tmp_path_factory.mktemp("warm_cache")
    folder = tmp_path_factory.mktemp("warm")
    shutil.copytree(tiny_networks, cache / tiny_networks.name)
    images = toy_competition.images
    rows = [f"p{number:02}.png,{label}\n" for number, label in enumerate(toy_competition.labels)]
    (folder / "labels.csv").write_text("name,label\n" + "".join(rows))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(tiny.WEIGHTS_VARIABLE, str(tiny_weights))
        patch.setenv(defaults.CACHE_VARIABLE, str(cache))
        tiny.register()
        embed = ["embed", images, "-o", folder / "stored.npz", "--model", toy_model]
        cold = tripletkit(*embed)
        tiny.unregister()
        assert cold.exit_code == 0, cold.output
        return run_watched(
            commands(images, toy_model, toy_competition),
            {"tensorflow", "keras", "onnx"},
            folder,
            PRELOADED,
        )


def commands(images, model, competition):
    calls = {
        "predict": "predict {test} --model {model} -o p.csv",
        "predict --frozen": "predict {test} --model {model} --frozen",
        "neighbors": "neighbors {images} --query {images}/p00.png --model {model}",
        "neighbors --backbone": "neighbors {images} --query {images}/p00.png --backbone tiny",
        "embed": "embed {images} -o e.npz --model {model}",
        "classify": "classify labels.csv {images} --model {model}",
        "mine": "mine labels.csv {images} -o mined.csv --model {model}",
        "report": "report {model} -o report.html",
        "plot": "plot map {model} -o plot.svg",
        "collage": "collage {test} {images} -o c.png",
        "cold": "embed {images} -o c.npz --model {model} --cache cold",
    }
    places = {"images": images, "model": model, "test": competition.test}
    return {
        name: [word.format(**places) for word in words.split()] for name, words in calls.items()
    }


@pytest.mark.integration
@pytest.mark.parametrize("name", WARM)
def test_warm_commands_never_load_tensorflow(runs, name):
    assert runs[name].code == 0, runs[name].stderr
    assert runs[name].loaded == []


@pytest.mark.integration
def test_a_network_that_is_not_at_hand_is_made_by_keras(runs):
    # So the commands above would be seen to load it.
    assert runs["cold"].loaded == ["keras", "tensorflow"]

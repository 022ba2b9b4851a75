"""Fixtures that many test modules share."""

import json
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import click
import hypothesis
import numpy as np
import pytest
import tiny_backbone as tiny
from click.testing import CliRunner, Result
from drawn import COLOURS, draw_images, draw_rows
from PIL import Image, ImageDraw

import tripletkit as tk
from tripletkit import defaults
from tripletkit.cli.main import tripletkit as command_line

# Fixtures that start processes or browsers.
INTEGRATION = {"start_tripletkit", "browser"}
SHARED = Path(__file__).parents[2] / "shared"


def pytest_configure() -> None:
    """Leave nothing to chance, and take Ctrl-C back where a shell ignores it in the background.

    Processes inherit that it is ignored. Properties are tried on the same examples each time, and
    may take as long as a busy machine needs.
    """
    hypothesis.settings.register_profile("repeatable", derandomize=True, deadline=None)
    hypothesis.settings.load_profile("repeatable")
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if INTEGRATION.intersection(getattr(item, "fixturenames", ())):
            item.add_marker("integration")


@pytest.fixture(scope="session")
def cache_dirs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where every test's store is: apart, as pytest numbers its own folders by looking at all."""
    return tmp_path_factory.mktemp("caches")


@pytest.fixture(autouse=True)
def cache_dir(cache_dirs: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A feature store of this test's own, so that no test sees the user's."""
    folder = Path(tempfile.mkdtemp(dir=cache_dirs))
    monkeypatch.setenv(defaults.CACHE_VARIABLE, str(folder))
    return folder


# Trainings hold out once what they hold out several times, and go at most so often over triplets
# of which there are so few that they would go a hundred times: most tests are of other things.
SHORT_TRAINING = {"MAX_DRAW_ROUNDS": 1, "UNSEEN_ROUNDS": 1, "MAX_EPOCHS": 10}


@pytest.fixture(autouse=True)
def short_trainings(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep trainings short; one that is to learn well is told `--epochs`.

    Those marked `as_shipped` have all defaults as they ship, as test_golden.py has, whose command
    lines run in processes of their own.
    """
    if request.node.get_closest_marker("as_shipped"):
        return
    for name, value in SHORT_TRAINING.items():
        monkeypatch.setattr(defaults, name, value)


def run_command(*words: object, code: int | None = None, **options: object) -> Result:
    """Run a command line in this process; `code` is the exit code that it must end with."""
    result = CliRunner().invoke(command_line, [*map(str, words)], **options)
    assert code is None or result.exit_code == code, (result.output, result.exception)
    return result


def walk_commands(
    command: click.Command = command_line, name: str = ""
) -> Iterator[tuple[str, click.Command]]:
    """Yield (its words, the command) of the program, and of all commands and groups below it."""
    yield name, command
    for word, below in getattr(command, "commands", {}).items():
        yield from walk_commands(below, f"{name} {word}".lstrip())


# Of each command that is run, its words.
COMMANDS = {name: each for name, each in walk_commands() if not isinstance(each, click.Group)}


def read_record(model: Path) -> dict[str, Any]:
    """Return what a model folder says of itself."""
    return json.loads((model / "model.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="session")
def tripletkit() -> Callable[..., Result]:
    """Run a command line: `tripletkit("score", predictions, truth, code=0).stdout`."""
    return run_command


@pytest.fixture
def undrawn_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the figures of a report empty, where what else the page says is looked at.

    Drawing them takes Matplotlib two seconds.
    """
    empty = b'<svg xmlns="http://www.w3.org/2000/svg"/>'
    monkeypatch.setattr("tripletkit.reporting.page.render_figure", lambda figure, form: empty)


@pytest.fixture
def short_efficientnets(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave EfficientNets two or three of their seven stages: every kind of layer, a third of them.

    For tests of what any network of that kind does, as Keras is slow by the layer.
    """
    import keras

    from tripletkit.features import keras_backbones

    of_keras = keras.src.applications.efficientnet
    monkeypatch.setattr(of_keras, "DEFAULT_BLOCKS_ARGS", of_keras.DEFAULT_BLOCKS_ARGS[:2])
    monkeypatch.setattr(keras_backbones, "_STAGES", keras_backbones._STAGES[:3])


@pytest.fixture(scope="session")
def shared() -> Path:
    """The development data beside the repository; the test is skipped where it is missing."""
    if not (SHARED / "data").is_dir():
        pytest.skip("needs the development data beside the repository")
    return SHARED / "data"


@pytest.fixture(scope="session")
def toy_images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of eight drawn images: `red0.png` to `red3.png`, `blue0.png` to `blue3.png`."""
    folder = tmp_path_factory.mktemp("toy_images")
    for colour in ("red", "blue"):
        for number in range(4):
            image = Image.new("RGB", (48, 40), "white")
            corner = (4 + 6 * number, 5 + 3 * number)
            box = [*corner, corner[0] + 18, corner[1] + 14]
            draw = ImageDraw.Draw(image)
            (draw.ellipse if colour == "red" else draw.rectangle)(box, fill=colour)
            image.save(folder / f"{colour}{number}.png")
    return folder


@pytest.fixture
def triplet_file(tmp_path: Path) -> Path:
    """A file of 24 judgements over the toy images: like goes with like."""
    path = tmp_path / "triplets.txt"
    lines = [
        f"{colour}{i}.png {colour}{j}.png {other}{(i + j) % 4}.png\n"
        for colour, other in (("red", "blue"), ("blue", "red"))
        for i in range(4)
        for j in range(4)
        if i != j
    ]
    path.write_text("".join(lines))
    return path


class ToyCompetition(NamedTuple):
    """Sixty drawn images, ten of each of six colours, and judgements: colour goes with colour."""

    images: Path
    train: Path
    test: Path
    truth: Path
    labels: np.ndarray


@pytest.fixture(scope="session")
def toy_competition(tmp_path_factory: pytest.TempPathFactory) -> ToyCompetition:
    folder = tmp_path_factory.mktemp("toy_competition")
    rng = np.random.default_rng(3)
    names = draw_images(folder / "images", 60, rng)
    labels = np.arange(60) % len(COLOURS)

    def write(path: Path, rows: list[list[int]]) -> Path:
        path.write_text("".join(f"{names[a]} {names[b]} {names[c]}\n" for a, b, c in rows))
        return path

    train = write(folder / "train.txt", draw_rows(0, 42, 400, rng))
    truth = rng.integers(0, 2, 200)
    asked = [
        [a, p, n] if is_first else [a, n, p]
        for (a, p, n), is_first in zip(draw_rows(42, 60, 200, rng), truth, strict=True)
    ]
    test = write(folder / "test.txt", asked)
    truth_file = folder / "truth.csv"
    truth_file.write_text("label\n" + "".join(f"{value}\n" for value in truth))
    return ToyCompetition(folder / "images", train, test, truth_file, labels)


@pytest.fixture
def labels_file(toy_competition: ToyCompetition, tmp_path: Path) -> Path:
    """The colours of the toy competition's images, as a CSV of labels."""
    path = tmp_path / "labels.csv"
    rows = [f"p{n:02}.png,{COLOURS[label]}\n" for n, label in enumerate(toy_competition.labels)]
    path.write_text("name,label\n" + "".join(rows))
    return path


@pytest.fixture(scope="session")
def tiny_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tiny") / "tiny.weights.h5"
    tiny.write_weights(path)
    return path


@pytest.fixture(scope="session")
def tiny_networks(tiny_weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a store with the tiny backbones as ONNX Runtime runs them, written once.

    Without it every test that computes a feature would have Keras build and check them again, and
    every process would load TensorFlow for it. A test of just that gives a folder with `--cache`.
    """
    folder = tmp_path_factory.mktemp("tiny_networks")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(tiny.WEIGHTS_VARIABLE, str(tiny_weights))
        tiny.register()
        tiny.register_other()
        for name in (tiny.NAME, tiny.OTHER_NAME):
            for depth in ("last", "all"):
                backbone = tk.pretrained(name, depth=depth, cache=folder)
                backbone.embed(np.zeros((8, 8), np.uint8))
        tiny.unregister()
    return folder / "networks"


@pytest.fixture
def tiny_cache(tiny_networks: Path, cache_dir: Path) -> Path:
    """This test's feature store, with nothing but the networks of the tiny backbones."""
    shutil.copytree(tiny_networks, cache_dir / tiny_networks.name)
    return cache_dir


@pytest.fixture
def tiny_backbone(
    tiny_weights: Path, tiny_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Any]:
    """A registered backbone of a few layers, `--backbone tiny`, with weights of its own."""
    monkeypatch.setenv(tiny.WEIGHTS_VARIABLE, str(tiny_weights))
    yield tiny.register()
    tiny.unregister()


@pytest.fixture
def other_backbone(tiny_backbone: Any) -> Any:
    """A second registered backbone, `--backbone tiny,tiny-other`."""
    return tiny.register_other()


@pytest.fixture(scope="session")
def toy_model(
    toy_competition: ToyCompetition,
    tiny_weights: Path,
    tiny_networks: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """A model folder trained on the toy competition; read it, do not change it."""
    path = tmp_path_factory.mktemp("toy_model") / "m"
    shutil.copytree(tiny_networks, path.parent / "cache" / tiny_networks.name)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(tiny.WEIGHTS_VARIABLE, str(tiny_weights))
        patch.setenv(defaults.CACHE_VARIABLE, str(path.parent / "cache"))
        for name, value in SHORT_TRAINING.items():
            patch.setattr(defaults, name, value)
        tiny.register()
        given = (toy_competition.train, toy_competition.images, "-o", path)
        run_command("train", *given, "--backbone", "tiny", "--epochs", 20, code=0)
        tiny.unregister()
    return path


@pytest.fixture
def start_tripletkit(
    tiny_weights: Path, tiny_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., subprocess.Popen]:
    """Start the command in a process of its own, where `--backbone tiny` is known too.

    `trap` is where it is to meet a signal; see `tiny_backbone`.
    """
    monkeypatch.setenv(tiny.WEIGHTS_VARIABLE, str(tiny_weights))

    def start(*arguments: object, trap: str | None = None, **options: object) -> subprocess.Popen:
        with pytest.MonkeyPatch.context() as patch:
            if trap is not None:
                patch.setenv(tiny.TRAP_VARIABLE, trap)
            return subprocess.Popen(
                [sys.executable, tiny.__file__, *map(str, arguments)],
                **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True} | options,
            )

    return start

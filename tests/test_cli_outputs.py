"""No command harms what it reads: every output option of every command is tried.

The options are found in the commands themselves, so a new one that is not tried fails here.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import click
import pytest
from collected import answer_all, start
from conftest import COMMANDS

import tripletkit as tk
from tripletkit.cli.commands import taken_by
from tripletkit.cli.parameters import OutputPath

# Of each command: how it is called, and its outputs with a suffix that each takes; None is a
# folder.
CALLS = {
    "classify": ("labels.csv images --backbone tiny", {"confusion": ".png"}),
    "collect": ("images --judge anna -n 2 --db new.sqlite", {"offline_page": ".html"}),
    "collage": ("train.txt images", {"output": ".png"}),
    "compare": ("answers.txt others.txt truth.csv --triplets test.txt", {"rows": ".csv"}),
    "embed": ("images --backbone tiny", {"output": ".csv"}),
    "export": ("--model m0", {"output": None}),
    "finetune": ("m0 --images images --epochs 1", {"output": None}),
    "export-judgements": ("judgements.sqlite", {"output": None}),
    "mine": (
        "labels.csv images --backbone tiny",
        {"output": ".csv", "triplets_out": ".txt", "plot": ".svg"},
    ),
    "neighbors": (
        "images --backbone tiny --query query.png --labels labels.csv",
        {"index": ".npz", "collage": ".png"},
    ),
    "plot": ("history m0 --triplets train.txt --images images", {"output": ".pdf"}),
    "predict": ("test.txt --model m0 --images images", {"output": ".csv"}),
    "report": ("m0 --triplets train.txt --images images", {"output": ".html"}),
    "split": ("train.txt --by random", {"output": None}),
    "suggest": ("images --model m0", {"output": ".txt"}),
    "train": ("train.txt images --backbone tiny --epochs 1", {"output": None}),
    "triplets": ("labels.csv images", {"output": ".txt", "truth": ".csv"}),
}
# Other options that name a path without asking that it exist, and are no outputs: what is read,
# and logs and stores that are added to.
READ = {"model", "models", "cache", "tensorboard", "database", "images", "shared_store"}
# Commands that know an image folder, which is `images` here.
PROTECTS_IMAGES = set(CALLS) - {"compare", "export", "export-judgements", "split"}
# What must be given for another output to be asked for.
NEEDED = {"triplets": {"output": ".txt"}}
FORMS = {
    "split": "val.txt",
    "export": "encoder.keras",
    "export-judgements": "votes.csv",
    "train": "history.csv",
    "finetune": "history.csv",
}


OUTPUTS = [
    pytest.param(command, output, suffix, id=f"{command}-{output}")
    for command, (_, outputs) in CALLS.items()
    for output, suffix in outputs.items()
]


@pytest.mark.parametrize("name", COMMANDS)
def test_every_output_option_is_tried_below(name):
    params = COMMANDS[name].params
    places = {
        param.name
        for param in params
        if isinstance(param.type, OutputPath)
        or (isinstance(param.type, click.Path) and not param.type.exists)
    }
    tried = CALLS.get(name, ("", {}))[1]
    if name == "extract":  # Its folder is added to; see below.
        places.remove("output")
    assert places - READ == set(tried)
    if tried:
        assert "overwrite" in taken_by(COMMANDS[name])


@pytest.fixture
def world(toy_competition, labels_file, toy_model, tiny_backbone, tmp_path, monkeypatch):
    """A folder with all that the calls name, in which they run."""
    world = tmp_path / "world"
    shutil.copytree(toy_competition.images, world / "images")
    shutil.copytree(toy_model, world / "m0")
    for path in (toy_competition.train, toy_competition.test, toy_competition.truth, labels_file):
        shutil.copy(path, world / path.name)
    (world / "answers.txt").write_text("1\n" * 200)
    (world / "others.txt").write_text("0\n" * 200)
    shutil.copy(world / "images" / "p00.png", world / "query.png")
    names = [path.name for path in sorted((world / "images").iterdir())]
    database, asker = start(world / "judgements.sqlite", names, n_questions=5)
    answer_all(database, asker, "anna", lambda anchor, shown: "left")
    database.close()
    monkeypatch.chdir(world)
    return world


def snapshot(folder):
    return {
        path: path.read_bytes() if path.is_file() else None for path in sorted(folder.rglob("*"))
    }


def make_call(command, **outputs):
    arguments = [*command.split(), *CALLS[command][0].split()]
    option_of = {param.name: param.opts[-1] for param in COMMANDS[command].params}
    for name, place in outputs.items():
        arguments += [option_of[name], str(place)]
    return arguments


def needed(command, but):
    return {
        name: f"new-{name}{suffix}"
        for name, suffix in NEEDED.get(command, {}).items()
        if name != but
    }


def list_targets(command, suffix):
    """Return places where nothing may be written, with or without `--force`."""
    inputs = [word for word in CALLS[command][0].split() if Path(word).is_file()]
    for number, name in enumerate(inputs):
        Path(f"link{number}{suffix or ''}").symlink_to(name)
        Path(f"hard{number}{suffix or ''}").hardlink_to(name)
        yield from (name, f"link{number}{suffix or ''}", f"hard{number}{suffix or ''}")
    yield from ("images/p00.png", "m0/model.json", "m0/head.weights.h5", "m0/history.csv")
    # A form that is right, at a place that is not.
    if suffix:
        yield f"images/new{suffix}"
        theirs = Path(f"theirs{suffix}")
        theirs.write_text("mine\n")
        yield theirs
        Path(f"link-to-image{suffix}").symlink_to("images/p01.png")
        yield f"link-to-image{suffix}"
    else:
        yield from ("images", "images/new")
        Path("theirs").mkdir()
        (Path("theirs") / FORMS[command]).write_text("mine\n")
        yield "theirs"


@pytest.mark.parametrize(("command", "output", "suffix"), OUTPUTS)
def test_nothing_that_is_there_is_harmed(tripletkit, world, command, output, suffix):
    targets = list(list_targets(command, suffix))
    before = snapshot(world)
    for target in targets:
        if command not in PROTECTS_IMAGES and str(target).startswith("images"):
            continue
        arguments = make_call(command, **{output: target}, **needed(command, output))
        for force in ([], ["--force"]):
            if output == "index" and not force and Path(target).exists():
                continue  # an index that is there is read
            result = tripletkit(*arguments, *force)
            assert result.exit_code in (1, 2), (target, force, result.output)
            assert isinstance(result.exception, SystemExit), (target, force)
            assert "Error: " in result.stderr
            assert snapshot(world) == before, (target, force)


@pytest.mark.slow
@pytest.mark.usefixtures("undrawn_figures")
@pytest.mark.parametrize(("command", "output", "suffix"), OUTPUTS)
def test_force_replaces_what_the_command_wrote(tripletkit, world, command, output, suffix):
    place = f"written{suffix or ''}"
    arguments = make_call(command, **{output: place}, **needed(command, output))
    inputs = snapshot(world)
    result = tripletkit(*arguments, code=0)
    after = snapshot(world)
    assert inputs.items() <= after.items()
    if output != "index":
        result = tripletkit(*arguments, code=1)
        assert "--force" in result.stderr
        assert snapshot(world) == after
    result = tripletkit(*arguments, "--force", code=0)
    assert snapshot(world).keys() == after.keys()


@pytest.mark.parametrize("place", ["images", "images/new", "m0", "theirs"])
def test_features_are_extracted_into_a_folder_of_their_own(tripletkit, world, place):
    Path("theirs").mkdir()
    Path("theirs/part-0.parquet").write_text("mine")
    before = snapshot(world)
    for force in ([], ["--force"]):
        result = tripletkit("extract", "images", "--backbone", "tiny", "-o", place, *force)
        assert result.exit_code in (1, 2), (place, force, result.output)
        assert "Error: " in result.stderr
        assert snapshot(world) == before


@pytest.mark.parametrize("place", ["same.txt", "./same.txt", "link.txt"])
def test_two_outputs_in_one_place_are_refused(tripletkit, world, place):
    Path("link.txt").symlink_to("same.txt")
    arguments = make_call("triplets", output="same.txt", truth=place)
    result = tripletkit(*arguments, code=1)
    assert "is named for two outputs" in result.stderr
    assert not Path("same.txt").exists()


def test_standard_input_is_an_input_too(world, start_tripletkit):
    before = Path("test.txt").read_bytes()
    with Path("test.txt").open() as file:
        process = start_tripletkit(
            *"predict - --model m0 --images images --force -o test.txt".split(), stdin=file
        )
        _, stderr = process.communicate(timeout=240)
    assert process.returncode == 1
    assert "test.txt: is read, and would be overwritten" in stderr
    assert Path("test.txt").read_bytes() == before


@pytest.mark.parametrize("suffix", [".npz", ".parquet", ".csv"])
def test_given_features_are_not_written_over(tripletkit, world, suffix):
    """By whatever name, from the command line and from Python."""
    table = f"f{suffix if suffix != '.csv' else '.npz'}"
    embedded = f"embed images --backbone tiny -o {table}"
    tripletkit(*embedded.split(), code=0)
    (world / f"link{suffix}").symlink_to(table)
    (world / "folder").mkdir()
    train = f"train train.txt --features {table} -o m1 --epochs 1 --no-refit"
    tripletkit(*train.split(), code=0)
    before = snapshot(world)
    for place in {table, f"link{suffix}", f"folder/../{table}", f"{world}/{table}"}:
        call = f"embed --model m1 --features {table} -o {place} --force"
        result = tripletkit(*call.split(), code=1)
        assert "is read, and would be overwritten" in result.stderr
        with pytest.raises(tk.TripletkitError, match="is read, and would be overwritten"):
            tk.load("m1", features=table).embed().write(place, overwrite=True)
    assert snapshot(world) == before


def test_nothing_comes_to_lie_among_the_images(tripletkit, world):
    before = snapshot(world)
    for call in (
        "embed images --backbone tiny -o f.npz --cache images",
        "embed images --backbone tiny -o f.npz --cache images/deep",
        "train train.txt images --backbone tiny --epochs 1 -o m --tensorboard images/tb",
        "train train.txt images --backbone tiny --epochs 1 -o m --tensorboard m0/tb",
        "export-judgements judgements.sqlite -o images",
        "split train.txt --by random -o images",
        "split train.txt --by random -o m0",
        "predict test.txt --model m0 -o m0/new.csv",
    ):
        tripletkit(*call.split(), code=1)
        after = {
            path: data for path, data in snapshot(world).items() if ".sqlite-" not in path.name
        }
        assert after == before, call


@pytest.mark.parametrize(
    ("call", "place", "theirs"),
    [
        ("triplets labels.csv images --count 20", "-o t.txt", "a.png b.png c.png\n"),
        ("triplets labels.csv images --count 20", "-o t.txt", "max_size = 3\n"),
        ("triplets labels.csv images --count 20 -o n.txt", "--truth t.csv", "label\n1\n"),
        ("mine labels.csv images --backbone tiny", "--triplets-out t.txt", "host = here\n"),
        ("suggest images --model m0 -n 5", "-o t.txt", "p00.png p01.png p02.png\n"),
        ("predict test.txt --model m0 --format labels", "-o t.txt", "1\n0\n"),
        ("export-judgements judgements.sqlite", "-o out", None),
    ],
)
def test_force_does_not_replace_what_others_wrote_in_the_same_form(
    tripletkit, world, call, place, theirs
):
    path = Path(place.split()[1])
    if theirs is None:
        path.mkdir()
        path, theirs = path / "votes.csv", "votes_b,votes_c\n1,0\n"
    path.write_text(theirs)
    arguments = [*call.split(), *place.split(), "--force"]
    result = tripletkit(*arguments, code=1)
    assert "does not replace it" in result.stderr
    assert path.read_text() == theirs
    path.unlink()
    for _ in range(2):
        tripletkit(*arguments, code=0)
    path.write_text(path.read_text() + "p00.png p01.png p02.png\n")
    tripletkit(*arguments, code=1)

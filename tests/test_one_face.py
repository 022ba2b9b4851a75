"""Each command is a thin call of one public function: what it takes and what it prints."""

import inspect
import json
import os
import pickle
import re
import subprocess
import sys
from functools import partial
from typing import get_type_hints

import click
import numpy as np
import pandas as pd
import pytest
from collected import answer_all, start
from conftest import COMMANDS, command_line, walk_commands

import tripletkit as tk
from tripletkit.cli.commands import spell_flags, taken_by
from tripletkit.results import plain_values

# Command -> the public function, where that is not called so.
CALLED = {
    "backbones": tk.list_backbones,
    "cache info": tk.cache_info,
    "cache clear": tk.clear_cache,
    "cache prune": tk.prune_cache,
    "embed": tk.Model.embed,
    "export": tk.Model.export,
    "losses": tk.list_losses,
    "neighbors": tk.Model.neighbors,
    "predict": tk.Model.answer,
    "settings": tk.list_settings,
    "triplets": tk.draw_triplets,
}
# What is for a terminal alone. What `collect` opens is served, or written as a page; answers are
# read and taken in by a function of its own.
OF_TERMINAL = {
    "audit": {"strict"},
    "cache clear": {"yes"},
    "collect": set(
        "no_browser offline_page answer_files overwrite columns names swap exclude".split()
    ),
    "report": {"serve", "port", "no_browser"},
}
# Settings, given to Python as keyword arguments of their own.
OF_SETTINGS = {"settings", "settings_file"}
# What a run prints: in Python a result is an object, and bars are `progress=`.
OF_PRINT = {"as_json", "quiet"}


def parameters_of(*functions):
    """Return what functions take, also what a typed dictionary of keyword arguments names."""
    found = {}
    for function in map(inspect.unwrap, functions):
        for name, each in inspect.signature(function).parameters.items():
            unpacked = re.fullmatch(r"Unpack\[(\w+)\]", str(each.annotation))
            hints = get_type_hints(function.__globals__[unpacked[1]]) if unpacked else {}
            found |= {name: each.annotation} | hints
    return found


# Options that make the one `model`, the one `Judgements` or the `Images` that a function takes.
# `--model` is the folder of `load`, and `--frozen` the model's `frozen`.
OF_MODEL = {*parameters_of(tk.load, tk.pretrained), "model", "frozen"}
OF_JUDGEMENTS = parameters_of(tk.read_judgements)
OF_IMAGES = set(parameters_of(tk.open_images)) | {"on_bad_image"}


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_takes_what_its_function_takes(name):
    function = CALLED.get(name) or getattr(tk, name.replace("-", "_"))
    parameters = parameters_of(function)
    settings = set(tk.list_settings().facts) if "settings" in parameters else set()
    known = {*parameters, *settings}
    is_of_model = function.__qualname__.startswith("Model.")
    if is_of_model or "model" in parameters:
        known |= OF_MODEL
    if {"triplets", "truth", "queries", "train", "labels", "gold"} & set(parameters):
        known |= set(OF_JUDGEMENTS)
    if "images" in parameters or is_of_model:
        known |= OF_IMAGES
    taken = {param.name for param in COMMANDS[name].params} | set(taken_by(COMMANDS[name]))
    known |= OF_PRINT | OF_TERMINAL.get(name, set()) | (OF_SETTINGS if settings else set())
    assert taken <= known


def test_options_of_the_run_stand_anywhere_and_are_refused_where_they_mean_nothing(tripletkit):
    before = tripletkit("--json", "losses", code=0).stdout
    assert tripletkit("losses", "--json", code=0).stdout == before
    assert "No such option: --force" in tripletkit("losses", "--force", code=2).stderr


def test_there_are_fewer_options_to_learn():
    options = [
        param
        for command in COMMANDS.values()
        for param in command.params
        if isinstance(param, click.Option)
    ]
    assert len(options) + len(command_line.params) <= 250


@pytest.mark.parametrize(("name", "command"), walk_commands())
def test_the_help_has_a_sentence_an_example_and_sections(tripletkit, name, command):
    result = tripletkit(*name.split(), "--help", prog_name="tripletkit", code=0)
    assert result.stderr == ""
    assert f"Usage: {' '.join(['tripletkit', *name.split()])}" in result.stdout
    assert command.help.strip()[0].isupper()
    example = " ".join(["  tripletkit", *name.split()])
    assert any(line.startswith(example) for line in result.stdout.splitlines())
    options = [param for param in command.params if isinstance(param, click.Option)]
    assert all(param.help for param in options)
    if name not in COMMANDS:
        return
    titles = re.findall(r"^(\S.*):$", result.stdout, flags=re.MULTILINE)
    assert titles[-1] == "Options of every run"
    assert len(set(titles)) == len(titles) > bool(options)
    # Nobody finds an option among more than that.
    for section in re.split(r"^\S.*:$", result.stdout, flags=re.MULTILINE)[1:]:
        assert len(re.findall(r"^  -", section, flags=re.MULTILINE)) <= 14, section


@pytest.mark.integration
def test_the_module_is_the_command():
    words = [sys.executable, "-m", "tripletkit", "--version"]
    done = subprocess.run(words, capture_output=True, text=True, check=True, timeout=60)
    assert (done.stdout, done.stderr) == (f"tripletkit, version {tk.__version__}\n", "")


# What these print is a file, on stdout or where `-o` says; their remarks go to stderr.
OF_FILES = {
    *("collage", "embed", "export", "export-judgements", "plot", "predict", "report", "suggest"),
    *("triplets", "cache clear", "cache prune", "collect"),
}


# In a model's record: when, how fast, by which words and into which folder it was made, and hashes
# of files that Keras writes, which name their layers by how many there were before.
OF_A_RUN = (
    *("created", "times", "command", "model", "seconds_s"),
    *("files", "sha256", "weights_sha256", "weights_files"),
)


def without_times(text):
    return re.sub(r"\d+\.\d s", "_ s", text)


def without_run(plain):
    if isinstance(plain, dict):
        return {key: without_run(each) for key, each in plain.items() if key not in OF_A_RUN}
    return plain


def make_calls(toy, model, database, folder):
    """Return command -> (words, the call of the function)."""
    answers = folder / "a.txt"
    other = folder / "b.txt"
    rng = np.random.default_rng(0)
    for path in (answers, other):
        path.write_text("".join(f"{value}\n" for value in rng.integers(0, 2, 200)))
    triplets = {"triplets": toy.test}
    trained = tk.load(model)
    query = toy.images / "p03.png"
    labels = folder / "labels.csv"
    names = [f"p{n:02}.png" for n in range(60)]
    pd.DataFrame({"name": names, "label": toy.labels}).to_csv(labels, index=False)
    compare = partial(tk.compare, {str(answers): answers, str(other): other}, toy.truth)
    classify = partial(tk.classify, labels, toy.images, trained)
    mine = partial(tk.mine, None, toy.images, trained, triplets=toy.train)
    made = ["--backbone", "tiny", "--epochs", 2]
    train = partial(tk.train, toy.train, toy.images, backbone="tiny", epochs=2)
    return {
        "backbones": ([], tk.list_backbones),
        "cache info": ([], tk.cache_info),
        "train": ([toy.train, toy.images, *made, "-o", folder / "m"], train),
        "finetune": (
            [model, "-o", folder / "f", "--epochs", 1],
            partial(tk.finetune, trained, epochs=1),
        ),
        "extract": (
            [toy.images, "-o", folder / "features", "--backbone", "tiny"],
            partial(tk.extract, toy.images, folder / "features", backbone="tiny"),
        ),
        "judges": ([database], partial(tk.judges, database)),
        "audit": ([toy.train, toy.images], partial(tk.audit, toy.train, toy.images)),
        "check-answers": ([answers, toy.test], partial(tk.check_answers, answers, toy.test)),
        "classify": ([labels, toy.images, "--model", model], classify),
        "compare": ([answers, other, toy.truth], compare),
        "controls": ([toy.train, toy.train], partial(tk.controls, toy.train, toy.train)),
        "losses": ([], tk.list_losses),
        "settings": ([], tk.list_settings),
        "mine": (["--triplets", toy.train, toy.images, "--model", model], mine),
        "neighbors": (
            [toy.images, "--query", query, "--model", model],
            partial(trained.neighbors, query, toy.images),
        ),
        "score": (
            [answers, toy.truth, "--triplets", toy.test],
            partial(tk.score, answers, toy.truth, **triplets),
        ),
        "split": (
            [toy.train, "-o", folder / "s", "--by", "component"],
            partial(tk.split, toy.train, "component"),
        ),
    }


@pytest.mark.filterwarnings("ignore::tripletkit.TripletkitWarning")
def test_a_command_prints_its_result(
    tripletkit, toy_competition, toy_model, tiny_backbone, tmp_path
):
    names = sorted(path.name for path in toy_competition.images.iterdir())
    database, asker = start(tmp_path / "judgements.sqlite", names, n_questions=40)
    answer_all(database, asker, "anna", lambda anchor, shown: "left")
    database.close()
    # What is there already is not computed again, so that all later runs say the same.
    tk.extract(toy_competition.images, tmp_path / "features", backbone="tiny")
    calls = make_calls(toy_competition, toy_model, tmp_path / "judgements.sqlite", tmp_path)
    assert set(calls) == set(COMMANDS) - OF_FILES
    for name, (words, call) in calls.items():
        result = call()
        text = tripletkit(*name.split(), *words, code=0).stdout
        expected = spell_flags(str(result), COMMANDS[name]) + "\n"
        assert without_times(text) == without_times(expected), name
        again = ["--force"] if name in ("split", "train", "finetune") else []
        if "as_json" in taken_by(COMMANDS[name]):
            text = tripletkit(*name.split(), *words, "--json", *again, code=0).stdout
            said = json.loads(text, parse_constant=lambda number: pytest.fail(number))
            given = json.loads(json.dumps(plain_values(result.to_dict())))
            said, given = without_run(said), without_run(given)
            assert said == given, name
        # In a notebook it is a small table or card, and nowhere more than a line by itself.
        assert result._repr_html_().startswith("<div>")
        assert "\n" not in repr(result)
        assert len(repr(result)) < 400, name


def describe(value, asked, images):
    """Return what a public object answers or says, in a line."""
    if isinstance(value, tk.Model):
        return value.answer(asked, images).margins.tobytes().hex()
    if isinstance(value, tk.TripletEmbedding):
        return value.transform(np.eye(24, dtype=np.float32)).tobytes().hex()
    return repr(str(value) + str(value.to_dict()) if hasattr(value, "to_dict") else value)


IN_ANOTHER_PROCESS = """
import pickle, sys, warnings
import tiny_backbone
from test_one_face import describe
warnings.simplefilter("ignore")
tiny_backbone.register()
with open(sys.argv[1], "rb") as file:
    for name, value in pickle.load(file).items():
        print(name, describe(value, *sys.argv[2:]), sep="\\t")
"""


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::tripletkit.TripletkitWarning")
def test_public_objects_answer_the_same_in_another_process(
    toy_competition, toy_model, tiny_backbone, labels_file, tmp_path
):
    train, test, images = toy_competition.train, toy_competition.test, toy_competition.images
    model = tk.load(toy_model)
    frame = tk.read_judgements(train).triplets.to_frame()
    without_keras = {"recipe": "map", "refit": False}
    # What colours differ in, by a function that another process knows.
    spread = tk.Encoder(partial(np.std, axis=(1, 2)), name="spread", version="1", size=32)
    features = tk.pretrained("tiny").embed(images)
    answers = model.answer(test)
    rows = np.random.default_rng(0).permuted(np.tile(np.arange(60), (50, 1)), axis=1)[:, :3]
    given = {
        "model": model,
        "frozen": model.frozen,
        "backbone": tk.pretrained("tiny"),
        "in memory": tk.train(frame, images, backbone="tiny", epochs=2, dim=4, refit=False),
        "of a function": tk.train(frame, images, backbone=spread, **without_keras),
        "of features": tk.train(frame, features=features, **without_keras),
        "vectors": features,
        "estimator": tk.TripletEmbedding(epochs=1, dim=2).fit(features.vectors, rows),
        "splitter": tk.ImageSplit(3),
        "answers": answers,
        "triplets": answers.triplets,
        "judgements": tk.read_judgements(train),
        "truth": tk.read_judgements(test, truth=toy_competition.truth).truth,
        "images": tk.open_images(images).names,
        "score": tk.score(answers, toy_competition.truth),
        "comparison": tk.compare({"a": answers, "b": answers}, toy_competition.truth),
        "checks": tk.check_answers(answers, test),
        "audit": tk.audit(train),
        "split": tk.split(train),
        "folds": tk.split(train, "component", folds=2),
        "controls": tk.controls(train, train),
        "embeddings": model.embed(),
        "neighbors": model.neighbors("p03.png", k=2),
        "classification": tk.classify(labels_file, images, model),
        "mined": tk.mine(labels_file, images, model),
        "hardest": tk.mine(None, images, model, triplets=train),
        "questions": tk.suggest(model, n=5),
        "losses": tk.list_losses(),
        "store": tk.cache_info(),
    }
    (tmp_path / "given.pickle").write_bytes(pickle.dumps(given))
    words = [sys.executable, "-c", IN_ANOTHER_PROCESS, tmp_path / "given.pickle", test, images]
    env = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run(words, capture_output=True, text=True, timeout=120, env=env)
    assert done.returncode == 0, done.stderr
    said = dict(line.split("\t") for line in done.stdout.splitlines())
    for name, value in given.items():
        assert said[name] == describe(value, test, images), name


def test_bars_are_shown_where_they_are_wanted(capsys, toy_competition, tiny_backbone):
    backbone = tk.pretrained("tiny")
    backbone.embed(toy_competition.images, progress=False)
    assert capsys.readouterr().err == ""
    told = []
    backbone.embed(
        toy_competition.images, progress=lambda name: told.append(name) or (lambda *_: None)
    )
    assert told == ["features"]

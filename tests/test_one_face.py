"""Each command is a thin call of one public function: what it takes and what it prints."""

from __future__ import annotations

import inspect
import json
import pickle
import subprocess
import sys
from functools import partial

import click
import numpy as np
import pandas as pd
import pytest

import tripletkit as tk
from tripletkit.cli.flags import spell_flags
from tripletkit.cli.main import tripletkit as program
from tripletkit.cli.options import RUN_OPTIONS, taken_by
from tripletkit.results import plain_values

# Command -> the public function, and flags whose parameter has another name there.
FUNCTIONS = {
    "audit": (tk.audit, {"strict": None}),
    "backbones": (tk.list_backbones, {}),
    "cache info": (tk.cache_info, {}),
    "cache clear": (tk.clear_cache, {"yes": None}),
    "cache prune": (tk.prune_cache, {}),
    "check-answers": (tk.check_answers, {}),
    "classify": (tk.classify, {}),
    "collage": (tk.collage, {}),
    "compare": (tk.compare, {"files": "answers"}),
    "controls": (tk.controls, {}),
    "embed": (tk.Model.embed, {}),
    "export": (tk.Model.export, {}),
    "export-judgements": (tk.export_judgements, {}),
    "extract": (tk.extract, {}),
    "finetune": (tk.finetune, {}),
    "judges": (tk.judges, {}),
    "losses": (tk.list_losses, {}),
    "mine": (tk.mine, {}),
    "neighbors": (tk.Model.neighbors, {}),
    "plot": (tk.plot, {}),
    "predict": (tk.Model.answer, {"triplets": "queries"}),
    # What serves a page is for a terminal.
    "report": (tk.report, {"models": "model", "serve": None, "port": None, "no_browser": None}),
    "score": (tk.score, {"predictions": "answers"}),
    "settings": (tk.list_settings, {}),
    "split": (tk.split, {}),
    "suggest": (tk.suggest, {}),
    "train": (tk.train, {}),
    "triplets": (tk.draw_triplets, {}),
}
# Settings, given to Python as keyword arguments of their own.
OF_SETTINGS = {"settings", "settings_file"}
# What a run prints: in Python a result is an object, and bars are `progress=`.
OF_PRINT = {"as_json", "quiet"}


def parameters_of(*functions):
    return {name for each in functions for name in inspect.signature(each).parameters}


# Options that make the one `model`, the one `Judgements` or the `Images` that a function takes.
# `--model` is the folder of `load`, and `--frozen` the model's `frozen`.
OF_MODEL = {*parameters_of(tk.load, tk.pretrained), "model", "frozen"}
OF_JUDGEMENTS = parameters_of(tk.read_judgements)
OF_IMAGES = parameters_of(tk.open_images) | {"on_bad_image"}


def walk(command, words=()):
    if isinstance(command, click.Group):
        for name, sub in command.commands.items():
            yield from walk(sub, (*words, name))
    else:
        yield " ".join(words), command


COMMANDS = dict(walk(program))


def test_every_command_has_a_public_function():
    # Collecting is a server, with pages of its own.
    assert set(COMMANDS) - {"collect"} == set(FUNCTIONS)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_command_takes_what_its_function_takes(name):
    function, renamed = FUNCTIONS[name]
    parameters = inspect.signature(function).parameters
    settings = set(tk.list_settings().facts) if "settings" in parameters else set()
    known = {*parameters, *settings}
    is_of_model = function.__qualname__.startswith("Model.")
    if is_of_model or "model" in parameters:
        known |= OF_MODEL
    kinds = " ".join(str(each.annotation) for each in parameters.values())
    if any(kind in kinds for kind in ("TripletsLike", "TruthLike")):
        known |= OF_JUDGEMENTS
    if "ImagesLike" in kinds or is_of_model:
        known |= OF_IMAGES
    taken = {param.name for param in COMMANDS[name].params} | set(taken_by(COMMANDS[name]))
    for param in taken - OF_PRINT - (OF_SETTINGS if settings else set()):
        wanted = renamed.get(param, param)
        assert wanted is None or wanted in known, param


def test_options_of_the_run_stand_anywhere_and_are_refused_where_they_mean_nothing(tripletkit):
    before = tripletkit("--json", "losses", code=0).stdout
    assert tripletkit("losses", "--json", code=0).stdout == before
    assert "No such option: --force" in tripletkit("losses", "--force", code=2).stderr
    assert {"quiet", "as_json", "overwrite", "cache"} < set(RUN_OPTIONS)


def test_there_are_fewer_options_to_learn():
    options = [
        param
        for command in COMMANDS.values()
        for param in command.params
        if isinstance(param, click.Option)
    ]
    assert len(options) + len(RUN_OPTIONS) <= 253


def make_calls(toy, model, folder):
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
    return {
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
    for name, (words, call) in make_calls(toy_competition, toy_model, tmp_path).items():
        result = call()
        text = tripletkit(*name.split(), *words, code=0).stdout
        assert text == spell_flags(str(result), COMMANDS[name]) + "\n", name
        again = ["--force"] if name == "split" else []
        if "as_json" in taken_by(COMMANDS[name]):
            said = json.loads(tripletkit(*name.split(), *words, "--json", *again, code=0).stdout)
            assert said == json.loads(json.dumps(plain_values(result.to_dict()))), name
        # In a notebook it is a small table or card, and nowhere more than a line by itself.
        assert result._repr_html_().startswith("<div>")
        assert "\n" not in repr(result)
        assert len(repr(result)) < 400, name


def test_public_objects_answer_the_same_in_another_process(
    toy_competition, toy_model, tiny_backbone, tmp_path
):
    model = tk.load(toy_model)
    answers = model.answer(toy_competition.test)
    given = {
        "answers": answers,
        "score": tk.score(answers, toy_competition.truth),
        "triplets": answers.triplets,
        "audit": tk.audit(toy_competition.train),
        "split": tk.split(toy_competition.train),
        "controls": tk.controls(toy_competition.train, toy_competition.train),
        "embeddings": model.embed(),
        "neighbors": model.neighbors("p03.png", k=2),
        "splitter": tk.ImageSplit(3),
    }
    (tmp_path / "given.pickle").write_bytes(pickle.dumps(given))
    script = (
        "import pickle, sys\n"
        "for name, value in pickle.load(open(sys.argv[1], 'rb')).items(): print(name, repr(value))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "given.pickle")],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "".join(f"{name} {value!r}\n" for name, value in given.items())


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::tripletkit.TripletkitWarning")
def test_a_model_in_memory_is_pickled_whole(toy_competition, tiny_backbone, tmp_path):
    frame = tk.read_triplets(toy_competition.train).to_frame()
    model = tk.train(frame, toy_competition.images, backbone="tiny", epochs=2, dim=4)
    margins = model.answer(toy_competition.test).margins
    data = pickle.dumps(model)
    del model
    again = pickle.loads(data)
    assert again.path is None
    np.testing.assert_array_equal(again.answer(toy_competition.test).margins, margins)
    again.save(tmp_path / "m")
    assert tk.load(tmp_path / "m").record == again.record
    # It knows what it learned from, though no file holds it.
    report = tk.report(again, tmp_path / "r.html", progress=False)
    assert report.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")


def test_bars_are_shown_where_they_are_wanted(capsys, toy_competition, tiny_backbone):
    backbone = tk.pretrained("tiny")
    backbone.embed(toy_competition.images, progress=False)
    assert capsys.readouterr().err == ""
    told = []
    backbone.embed(
        toy_competition.images, progress=lambda name: told.append(name) or (lambda *_: None)
    )
    assert told == ["features"]


def test_vectors_answer_without_a_model(tripletkit, toy_competition, tiny_backbone):
    words = [toy_competition.test, "--images", toy_competition.images, "--backbone", "tiny"]
    said = tripletkit("predict", *words, "--frozen", code=0).stdout
    expected = tk.pretrained("tiny").answer(toy_competition.test, toy_competition.images)
    assert [line.split(",")[3] for line in said.splitlines()[1:]] == [
        str(value) for value in expected.predictions
    ]
